//! What happened as steps: what clients asked and were told, and what the engine, faults and crashes
//! did in between.

use std::collections::BTreeMap;

use forebay_engine::events::Event;
use forebay_engine::types::Nanos;
use serde::Serialize;

use super::file_name;
use crate::check::model::seconds;
use crate::check::value::{fork_number, key_text, tenant_name};
use crate::diary::{Entry, Pages, What};
use crate::scenario::{CrashKind, Keys, Op, Write};

/// Most steps of a report.
const STEPS_MAX: usize = 14;

/// Writes of a batch that are named.
const WRITES_NAMED: usize = 3;

/// A step of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// From 1; steps that are left out count.
    pub number: usize,
    /// When it began.
    pub at: Nanos,
    /// Who: a client, the engine, the disk.
    pub who: String,
    /// What it did.
    pub what: String,
    /// What came of it.
    pub result: String,
    /// From here on every future fails.
    pub is_guilty: bool,
    /// Decisions made before it.
    #[serde(skip)]
    pub(super) made: u64,
    #[serde(skip)]
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Part of the scenario.
    Asked,
    /// What came of it by itself.
    Own,
}

impl Step {
    /// Whether the scenario asked for it.
    pub(super) fn is_asked(&self) -> bool {
        self.kind == Kind::Asked
    }
}

#[derive(Default)]
struct History {
    steps: Vec<Step>,
    /// The step in which a client is, and its tags.
    asked: BTreeMap<usize, usize>,
    tags: BTreeMap<u64, usize>,
    crash: Option<usize>,
}

/// The steps of a run, without those in the middle of a long one.
pub(super) fn steps(pages: &Pages) -> Vec<Step> {
    let mut history = History::default();
    for entry in &pages.entries {
        history.take(entry, pages);
    }
    for (at, step) in history.steps.iter_mut().enumerate() {
        step.number = at + 1;
    }
    shorten(history.steps)
}

fn shorten(mut steps: Vec<Step>) -> Vec<Step> {
    // What the engine did by itself goes first, the oldest before the others.
    let own = steps.iter().filter(|step| !step.is_asked()).count();
    let mut extra = steps.len().saturating_sub(STEPS_MAX).min(own);
    steps.retain(|step| {
        let goes = extra > 0 && !step.is_asked();
        extra -= usize::from(goes);
        !goes
    });
    let more = steps.len().saturating_sub(STEPS_MAX);
    if more > 0 {
        steps.drain(2..2 + more);
    }
    steps
}

impl History {
    fn add(&mut self, entry: &Entry, kind: Kind, who: &str, what: String) -> usize {
        self.steps.push(Step {
            number: 0,
            at: entry.at,
            who: who.to_owned(),
            what,
            result: String::new(),
            is_guilty: false,
            made: entry.made,
            kind,
        });
        self.steps.len() - 1
    }

    fn result(&mut self, at: Option<usize>, text: &str) {
        let Some(step) = at.and_then(|at| self.steps.get_mut(at)) else { return };
        if !step.result.is_empty() {
            step.result.push_str(", ");
        }
        step.result.push_str(text);
    }

    fn take(&mut self, entry: &Entry, pages: &Pages) {
        match &entry.what {
            What::Asked { client, op } => {
                let at = self.add(entry, Kind::Asked, &format!("client {client}"), words(op));
                self.asked.insert(*client, at);
            }
            What::Tagged { client, tag } => {
                if let Some(at) = self.asked.get(client) {
                    self.tags.insert(*tag, *at);
                }
            }
            What::Refused { client, error } => {
                let error: String = error.chars().take(48).collect();
                self.result(self.asked.get(client).copied(), &error);
            }
            What::Answered { client } => {
                self.asked.remove(client);
            }
            What::Engine(event) => self.engine(entry, event, pages),
            What::Removed { path } => {
                self.add(entry, Kind::Own, "engine", format!("removes {}", file_name(path)));
            }
            What::Fault { name, path } => {
                self.add(entry, Kind::Own, "FAULT", format!("{name} {}", file_name(path)));
            }
            What::Crash { kind, kept, .. } => {
                let name = match kind {
                    CrashKind::PowerLoss => "POWER LOSS",
                    CrashKind::Kill => "KILL -9",
                };
                let at = self.add(entry, Kind::Asked, name, short(kept));
                self.crash = Some(at);
                self.asked.clear();
            }
            What::Recovered { upto } => {
                let crash = self.crash.take();
                self.result(crash, &format!("recovered up to seq {upto}"));
            }
            What::Logged { .. } | What::SyncBegin { .. } | What::SyncEnd { .. } => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a history holds what moves data")]
    fn engine(&mut self, entry: &Entry, event: &Event, pages: &Pages) {
        let of = |tree: u64| match pages.trees.get(&tree).copied().flatten() {
            Some(number) => format!("tree {tree} ({})", tenant_name(number)),
            None => format!("tree {tree}"),
        };
        let what = match event {
            Event::WriteSequenced { tag, first_seq, entry_count } => {
                let last = first_seq.saturating_add(*entry_count).saturating_sub(1);
                let seqs = if *entry_count > 1 {
                    format!("seq {first_seq}..{last}")
                } else {
                    format!("seq {first_seq}")
                };
                return self.result(self.tags.get(tag).copied(), &seqs);
            }
            Event::FlushEnd { tree, table: Some((table, bytes)), .. } => {
                format!("flushed {} -> {:06}.sst, {bytes} B", of(tree.0), table.file)
            }
            Event::CompactionEnd { tree, input_entries, output_entries, .. } => {
                format!("compacted {}: {input_entries} -> {output_entries} entries", of(tree.0))
            }
            Event::JobFailed { tree, error } => {
                let error: String = error.chars().take(48).collect();
                format!("job of {} failed: {error}", of(tree.0))
            }
            Event::SegmentLeft { segment, .. } => format!("leaves segment {segment:06}.wal"),
            Event::Relogged { tree, from, to, .. } => {
                format!("logs {} again: segment {from} -> {to}", of(tree.0))
            }
            Event::DiskFull { full: true, .. } => "refuses writes: disk full".to_owned(),
            _ => return,
        };
        self.add(entry, Kind::Own, "engine", what);
    }
}

/// What a crash took, without what it did not.
fn short(kept: &str) -> String {
    let parts: Vec<String> = kept.split(", ").map(|part| part.replace(" 0", " none")).collect();
    parts.into_iter().filter(|part| part != "writes cut none").collect::<Vec<_>>().join(", ")
}

fn one(write: &Write) -> String {
    let name = tenant_name(write.tenant);
    let key = key_text(write.key);
    match write.bytes {
        Some(_) => format!("put {name} {key}"),
        None => format!("delete {name} {key}"),
    }
}

fn keys(keys: &Keys) -> String {
    let text = format!("{keys:?}");
    text.chars().take(40).collect()
}

/// An operation in words.
pub(super) fn words(op: &Op) -> String {
    match op {
        Op::Write { writes, sync } => {
            let named: Vec<String> = writes.iter().take(WRITES_NAMED).map(one).collect();
            let more = writes.len().saturating_sub(WRITES_NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let sync = if *sync { "  sync" } else { "" };
            format!("{}{more}{sync}", named.join(" + "))
        }
        Op::Get { tenant, key } => format!("get {} {}", tenant_name(*tenant), key_text(*key)),
        Op::Scan { tenant, from, to } => {
            format!("scan {} {}..={}", tenant_name(*tenant), key_text(*from), key_text(*to))
        }
        Op::Query { tenant, keys: of, reverse, .. } => {
            let way = if *reverse { "reverse scan" } else { "scan" };
            format!("{way} {} {}", tenant_name(*tenant), keys(of))
        }
        Op::Compare { tenant, keys: of, .. } => {
            format!("compare all reads of {} {}", tenant_name(*tenant), keys(of))
        }
        Op::Compact { tenant, keys: of } => {
            format!("compact {} {}", tenant_name(*tenant), keys(of))
        }
        Op::Extractor { tenant, extractor } => {
            let name = extractor.as_deref().unwrap_or("the database's");
            format!("extractor of {}: {name}", tenant_name(*tenant))
        }
        Op::Snapshot { tenant } => format!("snapshot {}", tenant_name(*tenant)),
        Op::Reread { key } => format!("read {} at old snapshots", key_text(*key)),
        Op::Flush { tenant } => format!("flush {}", tenant_name(*tenant)),
        Op::Sync => "sync everything".to_owned(),
        Op::Drop { tenant } => format!("drop {} with its branches", tenant_name(*tenant)),
        Op::DropBranch { tenant } => format!("drop branch {}", tenant_name(*tenant)),
        Op::Fork { tenant, fork, .. } => {
            let child = tenant_name(fork_number(*tenant, *fork));
            format!("fork {} -> {child}", tenant_name(*tenant))
        }
        Op::Import { tenant, count, .. } => {
            format!("import {} with {count} keys", tenant_name(*tenant))
        }
        Op::Create { tenant, .. } => format!("create {}", tenant_name(*tenant)),
        Op::Sleep { ns } => format!("sleep {} s", seconds(*ns)),
    }
}
