//! What happened in a run, in order, for a failure's report: what clients asked and were told, what
//! the engine did, what the log's files took, faults, crashes and recoveries.
//!
//! Writing down draws nothing and waits for nothing, so a run with a diary is the same run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_engine::events::{Event, Listener};
use forebay_engine::types::{Nanos, SeqNo};

use crate::scenario::{CrashKind, Op};
use crate::view::FileView;

/// Most entries that are kept; what comes later is left out.
const ENTRIES_MAX: usize = 200_000;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A client began an operation.
    Asked {
        /// Its number.
        client: usize,
        /// What it asked.
        op: Op,
    },
    /// A client's write has this tag.
    Tagged {
        /// The client's number.
        client: usize,
        /// The tag.
        tag: u64,
    },
    /// A client's operation failed.
    Refused {
        /// The client's number.
        client: usize,
        /// The error, one line.
        error: String,
    },
    /// A client's operation was answered.
    Answered {
        /// The client's number.
        client: usize,
    },
    /// The engine told.
    Engine(Event),
    /// Bytes went to a file of the log.
    Logged {
        /// The file.
        path: String,
        /// Where they begin.
        offset: u64,
    },
    /// A sync of a file began.
    SyncBegin {
        /// The file.
        path: String,
    },
    /// A sync of a file ended.
    SyncEnd {
        /// The file.
        path: String,
        /// Whether it said Ok.
        ok: bool,
    },
    /// A file's name was removed.
    Removed {
        /// The file.
        path: String,
    },
    /// A fault fired.
    Fault {
        /// Its name.
        name: &'static str,
        /// The file or directory; empty where none is meant.
        path: String,
    },
    /// The process died.
    Crash {
        /// How.
        kind: CrashKind,
        /// What of the disk survived, one line.
        kept: String,
        /// The files before.
        before: Vec<FileView>,
        /// The files after.
        after: Vec<FileView>,
    },
    /// The database was opened and its state explained.
    Recovered {
        /// The last number that is in it.
        upto: SeqNo,
    },
}

/// An entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Virtual time.
    pub at: Nanos,
    /// How many decisions had been made.
    pub made: u64,
    /// What happened.
    pub what: What,
}

/// Who waits when a run ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Clients, each with what it asked.
    pub clients: Vec<(usize, String)>,
    /// Tasks that have not ended, by name.
    pub tasks: BTreeMap<&'static str, u64>,
    /// What the engine says about who waits, one line each.
    pub engine: Vec<String>,
}

/// A diary's pages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pages {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// The tenant's number of each tree; none where it holds several.
    pub trees: BTreeMap<u64, Option<usize>>,
    /// Who waits at the end.
    pub waits: Waits,
}

/// A diary; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Diary(Arc<Mutex<Pages>>);

impl Diary {
    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry.
    pub fn add(&self, at: Nanos, made: u64, what: What) {
        let mut pages = self.lock();
        if pages.entries.len() < ENTRIES_MAX {
            pages.entries.push(Entry { at, made, what });
        }
    }

    /// A tree holds the branch of this number; one with several belongs to none of them.
    pub fn name_tree(&self, tree: u64, number: usize) {
        let mut pages = self.lock();
        let owner = pages.trees.entry(tree).or_insert(Some(number));
        if *owner != Some(number) {
            *owner = None;
        }
    }

    /// Who waits at the end.
    pub fn set_waits(&self, waits: Waits) {
        self.lock().waits = waits;
    }

    /// All pages so far.
    pub fn pages(&self) -> Pages {
        self.lock().clone()
    }
}

impl Listener for Diary {
    fn event(&self, now: Nanos, event: &Event) {
        let made = self.lock().entries.last().map_or(0, |entry| entry.made);
        self.add(now, made, What::Engine(event.clone()));
    }
}
