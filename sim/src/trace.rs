//! A running hash over everything that a world does, so that two runs can be compared by one
//! number.
//!
//! Same seed, same configuration, same build: same hash. When it differs, the optional log of both
//! runs shows the first event in which they differ.

use core::cell::{Cell, RefCell};

use serde::{Deserialize, Serialize};

/// What happened. The numbers are part of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Code {
    /// A task was polled; the argument is its number.
    Switch = 1,
    /// Virtual time jumped; the argument is the new time.
    Time = 2,
    /// A choice was made; the argument mixes site, bound and value.
    Choice = 3,
    /// A call on a file; the argument mixes inode, offset and length.
    File = 4,
    /// A call on a directory; the argument is a hash of the names.
    Name = 5,
    /// A fault was injected.
    Fault = 6,
    /// A process died.
    Crash = 7,
    /// A mark of the harness.
    Mark = 8,
}

/// One event of the optional log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Virtual time.
    pub at: u64,
    /// What happened.
    pub code: Code,
    /// To what, or with which result.
    pub argument: u64,
}

/// The hash, and the log where one is kept.
#[derive(Debug, Default)]
pub struct Trace {
    hash: Cell<u64>,
    now: Cell<u64>,
    count: Cell<u64>,
    log: RefCell<Option<Vec<Event>>>,
}

impl Trace {
    /// An empty trace; `log` keeps every event as well.
    pub fn new(log: bool) -> Self {
        let trace = Self::default();
        trace.log.replace(log.then(Vec::new));
        trace
    }

    /// Adds an event at the current virtual time.
    pub fn event(&self, code: Code, argument: u64) {
        let at = self.now.get();
        let tag = u64::from(code as u8) << 56;
        self.hash.set(mix(mix(self.hash.get(), tag ^ at), argument));
        self.count.set(self.count.get().wrapping_add(1));
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.push(Event { at, code, argument });
        }
    }

    /// Sets the virtual time of later events.
    pub fn set_now(&self, at: u64) {
        self.now.set(at);
        self.event(Code::Time, at);
    }

    /// The hash over all events so far.
    pub fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// How many events there were.
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// Takes the log; empty where none is kept.
    pub fn take_log(&self) -> Vec<Event> {
        self.log.borrow_mut().as_mut().map(core::mem::take).unwrap_or_default()
    }
}

/// Mixes a word into a hash.
pub fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ word
}
