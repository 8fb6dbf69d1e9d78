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

/// Trees that may be looked at for each change: a look is as long as there are trees.
const TREES_A_LOOK: u64 = 128;

/// Looks at the structure once behind each install, at an instant at which nothing can run.
#[derive(Debug)]
pub struct Installs<E: Env> {
    watch: StructureWatch<E>,
    seen: Cell<Option<(u64, bool)>>,
    /// Changes since the last look, and how many it takes for the next.
    changes: Cell<u64>,
    every: Cell<u64>,
    /// Bytes that memtables may hold; none where nothing bounds them.
    held_max: Cell<Option<u64>>,
}

impl<E: Env> Installs<E> {
    /// Nothing was seen yet, so that the first look is at what an open left.
    pub fn new(watch: StructureWatch<E>) -> Self {
        Self {
            watch,
            seen: Cell::new(None),
            changes: Cell::new(0),
            every: Cell::new(1),
            held_max: Cell::new(None),
        }
    }

    /// The same, of a database whose writes stop at so many bytes of memtables. An open may find more
    /// in its log.
    #[must_use]
    pub fn within(self, budget_bytes: Option<u64>) -> Self {
        self.held_max.set(budget_bytes);
        self
    }

    /// The structure, where something was installed since the last look, or flushes began or ended; of
    /// thousands of trees not each time.
    pub fn look(&self) -> Option<Structure> {
        let stamp = self.watch.stamp()?;
        let before = self.seen.replace(Some(stamp));
        if before == Some(stamp) {
            return None;
        }
        self.changes.set(self.changes.get() + 1);
        if self.changes.get() < self.every.get() {
            return None;
        }
        let mut structure = self.watch.check()?;
        self.changes.set(0);
        self.every.set(1 + structure.trees.div_euclid(TREES_A_LOOK));
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
