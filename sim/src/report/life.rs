//! The way of one write: its place in the log, the log's sync, the memtable, the table, and what was
//! removed of them.

use forebay_engine::events::Event;
use forebay_engine::types::Nanos;

use super::file_name;
use crate::check::Violation;
use crate::check::model::seconds;
use crate::check::value::name_number;
use crate::diary::{Entry, Pages, What};
use crate::scenario::CrashKind;

/// The stations of the write that a violation is about; none where it is about no write, or where its
/// write is not in the diary.
pub(super) fn life(pages: &Pages, found: &Violation) -> Vec<String> {
    let Some(seq) = found.seq else { return Vec::new() };
    let begun = pages.entries.iter().rposition(|entry| {
        let What::Engine(Event::WriteSequenced { first_seq, entry_count, .. }) = &entry.what else {
            return false;
        };
        (*first_seq..first_seq.saturating_add(*entry_count)).contains(&seq)
    });
    let Some(begun) = begun else { return Vec::new() };
    let number = found.tenant.as_deref().and_then(name_number);
    let mut way = Way { tree: number.and_then(|number| tree_of(pages, number)), ..Way::default() };
    for entry in pages.entries.iter().skip(begun) {
        way.take(entry);
    }
    if way.segment.is_some() && way.synced != Some(true) {
        way.stations.push("its segment was never synced since".to_owned());
    }
    way.stations
}

/// The tree that holds a branch, where it is known.
fn tree_of(pages: &Pages, number: usize) -> Option<u64> {
    let own = pages.trees.iter().rfind(|(_, owner)| **owner == Some(number));
    let shared = || {
        let mut shared = pages.trees.iter().filter(|(_, owner)| owner.is_none());
        shared.next().filter(|_| shared.next().is_none())
    };
    own.or_else(shared).map(|(tree, _)| *tree)
}

#[derive(Default)]
struct Way {
    tree: Option<u64>,
    stations: Vec<String>,
    segment: Option<String>,
    /// Nothing before a sync of the segment begins, then whether one said Ok.
    synced: Option<bool>,
    sealed: bool,
    table: Option<String>,
    dead: bool,
}

impl Way {
    fn station(&mut self, at: Nanos, what: &str) {
        self.stations.push(format!("{what} vt {}", seconds(at)));
    }

    fn is_segment(&self, path: &str) -> bool {
        self.segment.as_deref() == Some(path)
    }

    fn take(&mut self, entry: &Entry) {
        let at = entry.at;
        match &entry.what {
            What::Logged { path, offset } if self.segment.is_none() && *offset > 0 => {
                self.segment = Some(path.clone());
                self.station(at, &format!("wal {}@{offset}", file_name(path)));
            }
            What::SyncBegin { path } if self.is_segment(path) => {
                self.synced.get_or_insert(false);
            }
            What::SyncEnd { path, ok } if self.is_segment(path) => {
                // One that began before the write covers nothing of it.
                let Some(synced) = self.synced else { return };
                if !synced || !ok {
                    self.station(at, if *ok { "sync ok" } else { "sync FAILED" });
                }
                self.synced = Some(synced || *ok);
            }
            What::Removed { path } if self.is_segment(path) => {
                self.station(at, &format!("{} removed", file_name(path)));
            }
            What::Removed { path } if self.table.as_deref() == Some(file_name(path)) => {
                self.station(at, &format!("{} removed", file_name(path)));
            }
            What::Engine(event) if !self.dead => self.engine(at, event),
            What::Crash { kind, .. } => {
                let name = match kind {
                    CrashKind::PowerLoss => "POWER LOSS",
                    CrashKind::Kill => "KILL -9",
                };
                if !self.dead && !self.sealed {
                    self.stations.push("memtable (no flush)".to_owned());
                }
                self.station(at, name);
                self.dead = true;
            }
            What::Recovered { upto } => self.stations.push(format!("recovered up to seq {upto}")),
            What::Asked { .. }
            | What::Tagged { .. }
            | What::Refused { .. }
            | What::Answered { .. }
            | What::Engine(_)
            | What::Logged { .. }
            | What::SyncBegin { .. }
            | What::SyncEnd { .. }
            | What::Removed { .. }
            | What::Fault { .. } => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "stations of a write, no more")]
    fn engine(&mut self, at: Nanos, event: &Event) {
        match event {
            Event::Sealed { tree, .. } if Some(tree.0) == self.tree && !self.sealed => {
                self.sealed = true;
                self.station(at, &format!("memtable of tree {} sealed", tree.0));
            }
            Event::FlushEnd { tree, table: Some((table, _)), .. }
                if Some(tree.0) == self.tree && self.sealed && self.table.is_none() =>
            {
                let name = format!("{:06}.sst", table.file);
                self.station(at, &format!("flushed to {name}"));
                self.table = Some(name);
            }
            Event::Relogged { tree, to, .. } if Some(tree.0) == self.tree && !self.sealed => {
                self.station(at, &format!("logged again in segment {to}"));
            }
            _ => {}
        }
    }
}
