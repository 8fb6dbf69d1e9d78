//! The ledger of a world: which calls it failed and what made them good, what was done with a log that
//! had failed, and how much was asked of a full disk.
//!
//! The world writes it, rules read it: C7's balance, L4's pace, L5's sealed segments, C11's work.

use std::collections::BTreeMap;

use forebay_engine::types::Nanos;

use crate::fault::Fault;
use crate::fault::atlas::FileKind;

/// Most failures that are open at once; more are counted as open and not named.
const OPEN_MAX: usize = 10_000;

/// What kind of call a success was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// A read from this offset.
    Read(u64),
    /// An append or a write.
    Write,
    /// A sync of a file.
    Sync,
    /// A reservation, or a change of length.
    Resize,
    /// A call on a name: which.
    Name(&'static str),
}

/// A call that the world failed, and nothing has made good so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub fault: Fault,
    /// When.
    pub at: Nanos,
    /// The file or directory.
    pub path: String,
    /// Where in it, if anywhere.
    pub offset: Option<u64>,
    /// The call, where it was one on a name.
    pub call: Option<&'static str>,
}

impl Failure {
    /// Whether a call that worked is this one, done again. What was read must be read at the same
    /// place. Another file of the same kind may take the place of one that could not be written: a
    /// table is begun anew under another number, and so is a segment.
    fn is_good_by(&self, did: Did, path: &str) -> bool {
        let same = self.path == path;
        let alike = same || FileKind::of(&self.path) == FileKind::of(path);
        match (self.fault, did) {
            (Fault::EioRead, Did::Read(at)) => same && self.offset == Some(at),
            (
                Fault::EioWrite
                | Fault::ShortWrite
                | Fault::WriteAfterEffect
                | Fault::EnospcWrite
                | Fault::Enospc,
                Did::Write,
            )
            | (Fault::EioSync | Fault::EnospcSync | Fault::Enospc, Did::Sync)
            | (Fault::EioResize | Fault::Enospc, Did::Resize) => alike,
            // A file's length and its names fail alike.
            (Fault::Enospc, Did::Name(_)) | (Fault::EioMeta, Did::Resize) => {
                alike && self.call.is_none()
            }
            (Fault::EioMeta | Fault::EnospcMeta | Fault::Emfile, Did::Name(call)) => {
                alike && self.call.is_none_or(|failed| failed == call)
            }
            _ => false,
        }
    }
}

/// A segment was used after it had failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMisuse {
    /// The segment.
    pub path: String,
    /// When it failed.
    pub failed_at: Nanos,
    /// The call that came later.
    pub call: &'static str,
    /// When it came.
    pub at: Nanos,
}

/// What a world keeps of its own doings.
#[derive(Debug, Default)]
pub struct Ledger {
    open: Vec<Failure>,
    opened: u64,
    good: u64,
    logs: BTreeMap<u64, (String, Nanos)>,
    log_failures: u64,
    misuse: Option<LogMisuse>,
    refused_full: u64,
    space_asked: u64,
    log_read_bytes: u64,
    tasks: u64,
}

/// Whether the engine is told of a fault by the failure of a call.
fn is_failure(fault: Fault) -> bool {
    match fault {
        Fault::EioRead
        | Fault::EioWrite
        | Fault::EioSync
        | Fault::EioMeta
        | Fault::Enospc
        | Fault::ShortWrite
        | Fault::Emfile
        | Fault::EioResize
        | Fault::WriteAfterEffect
        | Fault::EnospcSync
        | Fault::EnospcWrite
        | Fault::EnospcMeta => true,
        Fault::PowerLoss
        | Fault::Kill
        | Fault::BitRot
        | Fault::Misdirected
        | Fault::SyncLies
        | Fault::ErrorAfterEffect
        | Fault::Latency
        | Fault::ClockJump
        | Fault::ClockFrozen
        | Fault::ClockStep
        | Fault::StallFile
        | Fault::StallTree
        | Fault::StallSyncs
        | Fault::ShortRead
        | Fault::LatentSector
        | Fault::MisdirectedFile
        | Fault::SyncReverted
        | Fault::SyncLate
        | Fault::CacheEviction
        | Fault::RemountReadOnly => false,
    }
}

impl Ledger {
    /// A fault fired.
    pub(crate) fn failed(&mut self, fault: Fault, at: Nanos, path: &str, offset: Option<u64>) {
        if fault == Fault::Enospc {
            self.refused_full += 1;
        }
        if !is_failure(fault) {
            return;
        }
        self.opened += 1;
        if self.open.len() < OPEN_MAX {
            self.open.push(Failure { fault, at, path: path.to_owned(), offset, call: None });
        }
    }

    /// The last failure was that of a call on a name.
    pub(crate) fn name_call(&mut self, call: &'static str) {
        if let Some(last) = self.open.last_mut() {
            last.call = Some(call);
        }
    }

    /// A call worked.
    pub(crate) fn did(&mut self, did: Did, path: &str) {
        if self.open.is_empty() {
            return;
        }
        let before = self.open.len();
        self.open.retain(|failure| !failure.is_good_by(did, path));
        self.good += u64::try_from(before - self.open.len()).unwrap_or(0);
    }

    /// A segment is written to, or synced.
    pub(crate) fn log_called(&mut self, ino: u64, call: &'static str, at: Nanos) {
        let Some((path, failed_at)) = self.logs.get(&ino) else { return };
        let (path, failed_at) = (path.clone(), *failed_at);
        self.misuse.get_or_insert(LogMisuse { path, failed_at, call, at });
    }

    /// A write to a segment failed, or its sync.
    pub(crate) fn log_failed(&mut self, ino: u64, path: &str, at: Nanos) {
        self.log_failures += 1;
        self.logs.entry(ino).or_insert_with(|| (path.to_owned(), at));
    }

    /// Somebody asked how much space is left.
    pub(crate) fn asked_space(&mut self) {
        self.space_asked += 1;
    }

    /// Bytes of a segment were read.
    pub(crate) fn read_log(&mut self, bytes: u64) {
        self.log_read_bytes = self.log_read_bytes.saturating_add(bytes);
    }

    /// A task began.
    pub(crate) fn task_began(&mut self) {
        self.tasks += 1;
    }

    /// A task ended, or was dropped.
    pub(crate) fn task_ended(&mut self) {
        self.tasks = self.tasks.saturating_sub(1);
    }

    /// The process died: what it was told, and what it did with its log, is over.
    pub(crate) fn end_process(&mut self) {
        self.open.clear();
        self.logs.clear();
        self.misuse = None;
        self.log_read_bytes = 0;
    }

    /// Failures that nothing has made good and that none of these words tell of. Each word is the text
    /// of an error or an event, with its time: what came before a failure does not tell of it.
    pub(crate) fn balance(&mut self, told: &[(Nanos, String)]) -> Vec<Failure> {
        self.open.retain(|failure| {
            let mut later = told.iter().filter(|(at, _)| *at >= failure.at);
            // A writer whose segment fails, and then the one that was to take its place, is told of
            // the first of them.
            let is_log = FileKind::of(&failure.path) == FileKind::Wal;
            let tells =
                |text: &str| text.contains(&failure.path) || is_log && text.contains(".wal");
            !later.any(|(_, text)| tells(text))
        });
        self.open.clone()
    }

    /// What is open was judged.
    pub(crate) fn settle(&mut self) {
        self.open.clear();
    }

    /// Failed calls since the world began, and those of them that a later call made good.
    pub fn failures(&self) -> (u64, u64) {
        (self.opened, self.good)
    }

    /// What was done with a segment that had failed, first.
    pub fn misuse(&self) -> Option<&LogMisuse> {
        self.misuse.as_ref()
    }

    /// Segments of the living process that failed.
    pub fn failed_logs(&self) -> usize {
        self.logs.len()
    }

    /// Calls that found no space, and questions how much there is.
    pub fn full_disk_calls(&self) -> (u64, u64) {
        (self.refused_full, self.space_asked)
    }

    /// Bytes of segments that the living process has read.
    pub fn log_read_bytes(&self) -> u64 {
        self.log_read_bytes
    }

    /// Tasks that have not ended.
    pub fn tasks(&self) -> u64 {
        self.tasks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(fault: Fault, path: &str, offset: Option<u64>) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.failed(fault, 5, path, offset);
        ledger
    }

    #[test]
    fn a_read_is_made_good_at_its_own_place_only() {
        let mut ledger = ledger(Fault::EioRead, "/db/1.sst", Some(8));
        for (did, path) in
            [(Did::Read(9), "/db/1.sst"), (Did::Read(8), "/db/2.sst"), (Did::Write, "/db/1.sst")]
        {
            ledger.did(did, path);
            assert_eq!(ledger.failures(), (1, 0));
        }
        ledger.did(Did::Read(8), "/db/1.sst");
        assert_eq!(ledger.failures(), (1, 1));
        assert_eq!(ledger.balance(&[]), []);
    }

    #[test]
    fn a_write_is_made_good_by_the_next_file_of_its_kind() {
        let mut ledger = ledger(Fault::ShortWrite, "/db/1.sst", Some(0));
        ledger.did(Did::Write, "/db/2.wal");
        assert_eq!(ledger.failures(), (1, 0));
        ledger.did(Did::Write, "/db/2.sst");
        assert_eq!(ledger.failures(), (1, 1));
    }

    #[test]
    fn what_was_told_before_it_happened_was_not_told() {
        let text = |at, name: &str| vec![(at, format!("sync_data /db/{name} failed"))];
        let left =
            |path, told: &[(Nanos, String)]| ledger(Fault::EioSync, path, None).balance(told).len();
        assert_eq!(left("/db/1.sst", &text(4, "1.sst")), 1);
        assert_eq!(left("/db/1.sst", &text(5, "1.sst")), 0);
        assert_eq!(left("/db/1.sst", &text(9, "2.sst")), 1);
        assert_eq!(left("/db/2.wal", &text(4, "1.wal")), 1);
        assert_eq!(left("/db/2.wal", &text(5, "1.wal")), 0);
        assert_eq!(left("/db/2.wal", &text(5, "1.sst")), 1);
    }

    #[test]
    fn a_segment_that_failed_is_not_to_be_used_again() {
        let mut ledger = Ledger::default();
        ledger.log_called(7, "append", 1);
        ledger.log_failed(7, "/db/1.wal", 2);
        ledger.log_called(8, "append", 3);
        assert_eq!(ledger.misuse(), None);
        ledger.log_called(7, "sync_data", 4);
        let misuse = ledger.misuse().map(|misuse| (misuse.call, misuse.failed_at, misuse.at));
        assert_eq!(misuse, Some(("sync_data", 2, 4)));
        ledger.end_process();
        assert_eq!((ledger.misuse(), ledger.failed_logs()), (None, 0));
    }
}
