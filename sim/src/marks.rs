//! Rare states that a sweep must have met: each has a name, and a sweep counts how often it was met.
//!
//! A harness that never crashes in the middle of a fork finds no bug there and looks as if there
//! were none. So every state that matters is named here, [`sometimes!`](crate::sometimes) counts
//! it, and a long sweep fails where one was never met (`forebay fuzz --all-marks`).
//!
//! # Source
//!
//! "Sometimes assertions" of Antithesis, and `testcase()` of `SQLite`.

use std::collections::BTreeSet;

use forebay_engine::events::Event;

/// Every mark, with what was met.
pub const MARKS: [(&str, &str); 70] = [
    ("branch-dropped", "one branch was dropped"),
    ("close-in-stall", "the database was closed, or a phase ended, while a write was stalled"),
    ("closed-beside-stalls", "the database was closed while clients still worked"),
    ("closed-twice", "two closes at once, and a third one behind them"),
    ("compact-range", "a client compacted a range"),
    ("compaction", "a compaction ended"),
    ("crash-after-segment-left", "a crash after the log had failed and gone on elsewhere"),
    ("crash-in-compaction", "a crash while a compaction ran"),
    ("crash-in-create", "a crash while a tenant was being created"),
    ("crash-in-creation", "a crash while the database was being created"),
    ("crash-in-drop", "a crash while a branch or a tenant was being dropped"),
    ("crash-in-flush", "a crash while a flush ran"),
    ("crash-in-fork", "a crash while a branch was being forked"),
    ("crash-in-manifest-switch", "a crash while there were two manifests, or a pointer to be"),
    ("crash-in-recovery", "a crash while the database recovered"),
    ("crash-in-second-recovery", "a crash while it recovered from a crash in recovery"),
    ("crash-in-stall", "a crash while a write was stalled"),
    ("crash-in-two-flushes", "a crash while two flushes ran"),
    ("crash-while-full", "a crash while writes were refused for lack of space"),
    ("damage-told", "an error named the file that was damaged"),
    ("disk-full", "a write was refused for lack of space"),
    ("disk-full-over", "writes were taken again after the disk had been full"),
    ("drop-in-compaction", "a tenant was dropped while a compaction ran"),
    ("drop-in-flush", "a tenant was dropped while a flush ran"),
    ("dropped-unclosed", "all handles were dropped and nobody closed"),
    ("extractor-changed", "a tenant got another prefix extractor"),
    ("failed-write-came-back", "a write that had failed was there after a recovery"),
    ("file-removed", "a file was removed since nothing reached it"),
    ("flush", "a flush ended"),
    ("flush-after-recovery", "the first flush of a process ended"),
    ("fork", "a branch was forked"),
    ("fork-by-copy", "a fork copied entries"),
    ("fork-failed", "a fork failed"),
    ("fork-in-compaction", "a branch was forked while a compaction ran"),
    ("fork-in-flush", "a branch was forked while a flush ran"),
    ("fork-in-stall", "a branch was forked while a write was stalled"),
    ("fork-of-a-fork", "a fork was forked"),
    ("fork-of-shared", "a branch was forked in a layout whose memtables are shared"),
    ("full-and-quiet", "nobody asked for anything while the disk was full"),
    ("import", "a tenant was taken in from another directory"),
    ("job-failed", "a background job failed"),
    ("neighbours", "other tenants were asked while one's table was damaged"),
    ("open-failed-with-faults", "an open failed, and faults were the cause"),
    ("open-refused-damage", "an open refused a damaged database"),
    ("opened-with-faults", "an open ended well in spite of faults"),
    ("options-changed", "the database was opened with other options"),
    ("packed-flush", "a flush wrote its table into a file behind another"),
    ("paths-compared", "one query was asked in every way there is"),
    ("policy-override", "the engine flushed what its policy did not name"),
    ("power-loss-after-kill", "a power loss took what a killed process had left unsynced"),
    ("probe", "the database took writes once faults were over"),
    ("read-only", "the database was read-only after faults"),
    ("relogged", "entries of a cold memtable were logged again"),
    ("reopen-needed", "the database said that it must be opened again"),
    ("repair-asked", "a repair was asked what it would do"),
    ("scan-seek", "a scan went elsewhere in between"),
    ("segment-left", "the log failed, and went on in another segment"),
    ("snapshot-over-compaction", "a compaction ended while a snapshot was held"),
    ("snapshot-reread", "a snapshot was read again"),
    ("space-closed", "the files of a closed database were compared with what it needs"),
    ("space-open", "the files of an idle database were compared with what it needs"),
    ("stall", "a write was stalled"),
    ("stall-released-by-drop", "a stall ended by a drop, with no flush or compaction in between"),
    ("structure", "the structure was looked at, with all installed"),
    ("structure-in-flush", "the structure was looked at while a flush was half installed"),
    ("tenant-dropped", "a tenant was dropped with all its branches"),
    ("tree-failed", "a tree refused writes since its files were damaged"),
    ("trivial-move", "a compaction moved a table and wrote nothing"),
    ("verified", "all files of an open database were verified"),
    ("writer-waits", "a writer waited at a moment at which nothing could run"),
];

/// Marks that are met and not demanded: what they tell of is rarer than a sweep is long.
pub const OPTIONAL: [(&str, &str); 7] = [
    ("crash-in-close", "a crash while the database was being closed"),
    ("fork-dropped-at-once", "a fork was dropped before its client was told of it"),
    ("import-not-made", "the directory to import could not be made"),
    ("space-restless", "the files of an idle database changed at every look"),
    ("structure-busy", "the structure could not be looked at"),
    ("verify-found-damage", "a verification found damage"),
    ("write-failed", "a write failed"),
];

/// Whether there is a mark of this name.
pub const fn is_known(name: &str) -> bool {
    contains(&MARKS, name) || contains(&OPTIONAL, name)
}

const fn contains(marks: &[(&str, &str)], name: &str) -> bool {
    let mut rest = marks;
    while let [(known, _), more @ ..] = rest {
        if is_same(known.as_bytes(), name.as_bytes()) {
            return true;
        }
        rest = more;
    }
    false
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let (mut one, mut other) = (one, other);
    loop {
        match (one, other) {
            ([], []) => return true,
            ([a, more @ ..], [b, others @ ..]) if *a == *b => (one, other) = (more, others),
            _ => return false,
        }
    }
}

/// Counts a mark on a [`Board`](crate::client::Board), where something is so. The name must be one
/// of [`MARKS`] or [`OPTIONAL`]: else it does not compile.
#[macro_export]
macro_rules! sometimes {
    ($board:expr, $name:literal) => {
        $crate::sometimes!($board, $name, true)
    };
    ($board:expr, $name:literal, $when:expr) => {{
        const { assert!($crate::marks::is_known($name), "no mark of this name") };
        if $when {
            $board.mark($name);
        }
    }};
}

/// What was so at some time in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// A drop ended, and no job has since.
    Dropped,
    /// Writes are refused for lack of space.
    Full,
    /// The log failed and went on elsewhere.
    SegmentLeft,
    /// Nothing was flushed since the open.
    Recovered,
}

/// What a process is in the middle of, as far as its events tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    flushes: u64,
    compactions: u64,
    /// Branches whose writes are stalled.
    stalled: BTreeSet<u64>,
    states: BTreeSet<State>,
    snapshots: u64,
}

impl UnderWay {
    /// An open begins.
    pub fn open(&mut self) {
        *self = Self { states: [State::Recovered].into(), ..Self::default() };
    }

    /// A drop ended.
    pub fn dropped(&mut self) {
        self.states.insert(State::Dropped);
    }

    /// Snapshots came to be held, or were let go of.
    pub fn snapshots(&mut self, taken: u64, gone: u64) {
        self.snapshots = self.snapshots.saturating_add(taken).saturating_sub(gone);
    }

    /// Whether a flush runs.
    pub fn flushes(&self) -> bool {
        self.flushes > 0
    }

    /// Whether a compaction runs.
    pub fn compacts(&self) -> bool {
        self.compactions > 0
    }

    /// Whether a write is stalled.
    pub fn stalls(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Takes an event, and gives the marks that it meets.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a listener takes what it knows")]
    pub fn event(&mut self, event: &Event) -> Vec<&'static str> {
        let mut met = Vec::new();
        let mut meets = |name, when| {
            if when {
                met.push(name);
            }
        };
        match event {
            Event::FlushBegin { .. } => self.flushes += 1,
            Event::FlushEnd { .. } => {
                self.flushes = self.flushes.saturating_sub(1);
                self.states.remove(&State::Dropped);
                meets("flush-after-recovery", self.states.remove(&State::Recovered));
            }
            Event::CompactionBegin { .. } => self.compactions += 1,
            Event::CompactionEnd { trivial_move, .. } => {
                self.compactions = self.compactions.saturating_sub(1);
                self.states.remove(&State::Dropped);
                meets("snapshot-over-compaction", self.snapshots > 0);
                meets("trivial-move", *trivial_move);
            }
            Event::JobFailed { .. } => {
                // It does not tell which kind of job: what is not known is not claimed.
                (self.flushes, self.compactions) = (0, 0);
            }
            Event::StallBegin { branch, .. } => {
                self.states.remove(&State::Dropped);
                self.stalled.insert(branch.0);
            }
            Event::StallEnd { branch, .. } => {
                self.stalled.remove(&branch.0);
                meets("stall-released-by-drop", self.states.contains(&State::Dropped));
            }
            Event::SegmentLeft { .. } => {
                self.states.insert(State::SegmentLeft);
                meets("segment-left", true);
            }
            Event::DiskFull { full, .. } => {
                let was = self.states.remove(&State::Full);
                meets("disk-full-over", was && !full);
                if *full {
                    self.states.insert(State::Full);
                }
            }
            Event::Forked { copied_bytes, .. } => {
                meets("fork-by-copy", *copied_bytes > 0);
                meets("fork-in-flush", self.flushes());
                meets("fork-in-compaction", self.compacts());
                meets("fork-in-stall", self.stalls());
            }
            _ => {}
        }
        met
    }

    /// The marks of a process that dies at this moment.
    pub fn crash(&self) -> Vec<&'static str> {
        let met = [
            ("crash-in-flush", self.flushes()),
            ("crash-in-two-flushes", self.flushes > 1),
            ("crash-in-compaction", self.compacts()),
            ("crash-in-stall", self.stalls()),
            ("crash-while-full", self.states.contains(&State::Full)),
            ("crash-after-segment-left", self.states.contains(&State::SegmentLeft)),
        ];
        met.into_iter().filter(|(_, when)| *when).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_known() {
        for marks in [&MARKS[..], &OPTIONAL[..]] {
            assert!(marks.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        assert!(is_known("flush") && is_known("write-failed"));
        assert!(!is_known("flus") && !is_known("flushh") && !is_known(""));
    }
}
