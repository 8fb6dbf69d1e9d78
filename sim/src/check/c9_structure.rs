//! C9 after every install: what the engine holds in memory agrees with itself.

use core::cell::Cell;

use forebay_engine::env::Env;
use forebay_engine::structure::{Structure, StructureWatch};

use super::{Checked, Rule, RuleCounts, Violation, broken};

/// Findings that a violation tells.
const TOLD_MAX: usize = 4;

/// C9: versions, memtables, accounts, names and families agree; see the engine's `structure`.
///
/// # Errors
///
/// C9 where something does not, with the first few findings.
pub fn c9_structure(counts: &mut RuleCounts, structure: &Structure) -> Checked {
    counts.count(Rule::C9);
    let Structure { findings, trees, tables, memtables, .. } = structure;
    if findings.is_empty() {
        return Ok(());
    }
    let promised = format!("{trees} trees, {tables} tables and {memtables} memtables that agree");
    let told: Vec<&str> = findings.iter().take(TOLD_MAX).map(String::as_str).collect();
    let more = findings.len().saturating_sub(TOLD_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    broken(Violation::new(Rule::C9, promised, told.join("; ") + &more))
}

/// Looks at the structure once behind each install, at an instant at which nothing can run.
#[derive(Debug)]
pub struct Installs<E: Env> {
    watch: StructureWatch<E>,
    seen: Cell<Option<(u64, bool)>>,
    /// Bytes that memtables may hold; none where nothing bounds them.
    held_max: Cell<Option<u64>>,
}

impl<E: Env> Installs<E> {
    /// Nothing was seen yet, so that the first look is at what an open left.
    pub fn new(watch: StructureWatch<E>) -> Self {
        Self { watch, seen: Cell::new(None), held_max: Cell::new(None) }
    }

    /// The same, of a database whose writes stop at so many bytes of memtables. An open may find more
    /// in its log.
    #[must_use]
    pub fn within(self, budget_bytes: Option<u64>) -> Self {
        self.held_max.set(budget_bytes);
        self
    }

    /// The structure, where something was installed since the last look, or flushes began or ended.
    pub fn look(&self) -> Option<Structure> {
        let stamp = self.watch.stamp()?;
        let before = self.seen.replace(Some(stamp));
        if before == Some(stamp) {
            return None;
        }
        let mut structure = self.watch.check()?;
        let held = structure.held_bytes;
        if let Some(most) = self.held_max.get() {
            if before.is_none() {
                self.held_max.set(Some(most.max(held)));
            } else if held > most {
                let found = format!("memtables hold {held} bytes, writes stop at {most}");
                structure.findings.push(found);
            }
        }
        Some(structure)
    }
}
