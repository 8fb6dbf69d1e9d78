//! The write-buffer manager: memtable bytes allowed, and where they are.
//!
//! An admitted write reserves its bytes before it queues; the reservation turns into the charge of
//! the memtable that takes the entry; sealing moves the charge to the immutable side; an installed
//! flush releases it, or keeps it as history. Every step moves the same number, so the sum of the
//! four is what memory holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_listener::{Event, EventListener};

use crate::sync::{AtomicU64, Mutex, Ordering};

/// Memtable bytes of one database.
#[derive(Debug, Default)]
pub struct Budget {
    limit_bytes: u64,
    reserved: AtomicU64,
    mutable: AtomicU64,
    immutable: AtomicU64,
    history: AtomicU64,
    spooled: AtomicU64,
    wished: AtomicU64,
    waiters: Waiters,
}

/// Writers that wait for bytes, first come first.
#[derive(Debug, Default)]
struct Waiters {
    state: Mutex<(u64, BTreeMap<u64, Arc<Event>>)>,
}

/// A place in the line of writers that wait for bytes; left when dropped.
#[derive(Debug)]
pub struct Place {
    budget: Arc<Budget>,
    ticket: u64,
    event: Arc<Event>,
}

impl Place {
    /// A listener for being first, or for released bytes while first.
    pub fn listen(&self) -> EventListener {
        self.event.listen()
    }

    /// Whether nobody stands before.
    pub fn is_first(&self) -> bool {
        let state = self.budget.waiters.state.lock();
        state.1.keys().next().is_none_or(|first| *first >= self.ticket)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.budget.waiters.state.lock().1.remove(&self.ticket);
        self.budget.wake_first();
    }
}

/// Bytes of an admitted write; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    /// Turns a part of the reserved bytes into bytes of a memtable.
    pub fn charge(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.mutable.fetch_add(bytes, Ordering::Relaxed);
        self.budget.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
            self.budget.wake_first();
        }
    }
}

/// Bytes that a stopped write waits for; forgotten when dropped.
#[derive(Debug)]
pub struct Wish<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.budget.wished.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Budget {
    /// A stopped write waits for these bytes. They are not used.
    pub fn wish(&self, bytes: u64) -> Wish<'_> {
        self.wished.fetch_add(bytes, Ordering::Relaxed);
        Wish { budget: self, bytes }
    }

    /// Bytes that stopped writes wait for.
    pub fn wished_bytes(&self) -> u64 {
        self.wished.load(Ordering::Relaxed)
    }

    /// A budget of this many bytes, all free.
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, ..Self::default() }
    }

    /// Bytes allowed.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Reserved, mutable and immutable bytes, and those of flushed memtables that are kept.
    pub fn used_bytes(&self) -> u64 {
        self.reserved_bytes() + self.mutable_bytes() + self.immutable_bytes() + self.history_bytes()
    }

    /// Bytes of admitted writes that are in no memtable yet.
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Bytes in memtables that take writes.
    pub fn mutable_bytes(&self) -> u64 {
        self.mutable.load(Ordering::Relaxed)
    }

    /// Bytes in immutable memtables.
    pub fn immutable_bytes(&self) -> u64 {
        self.immutable.load(Ordering::Relaxed)
    }

    /// Bytes in flushed memtables that are kept.
    pub fn history_bytes(&self) -> u64 {
        self.history.load(Ordering::Relaxed)
    }

    /// Of the immutable bytes, those that running flushes have written to their tables.
    pub fn spooled_bytes(&self) -> u64 {
        self.spooled.load(Ordering::Relaxed)
    }

    /// A flush wrote this many of the immutable bytes to a table.
    pub fn spool(&self, bytes: u64) {
        self.spooled.fetch_add(bytes, Ordering::Relaxed);
        self.wake_first();
    }

    /// A flush that had written this many bytes ended, well or not.
    pub fn end_spool(&self, bytes: u64) {
        self.spooled.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes bytes for an admitted write; whether it may is the stall policy's business.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Reservation {
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Reservation { budget: Arc::clone(self), bytes }
    }

    /// Takes a place at the end of the line.
    pub fn queue_up(self: &Arc<Self>) -> Place {
        let mut state = self.waiters.state.lock();
        state.0 += 1;
        let (ticket, event) = (state.0, Arc::new(Event::new()));
        state.1.insert(ticket, Arc::clone(&event));
        drop(state);
        Place { budget: Arc::clone(self), ticket, event }
    }

    /// Whether anybody waits for bytes.
    pub fn has_waiters(&self) -> bool {
        !self.waiters.state.lock().1.is_empty()
    }

    /// Lets the first in line look again.
    pub fn wake_first(&self) {
        if let Some((_, event)) = self.waiters.state.lock().1.first_key_value() {
            event.notify(usize::MAX);
        }
    }

    /// Lets everybody look again: the database closes, or takes no more writes.
    pub fn wake_all(&self) {
        for event in self.waiters.state.lock().1.values() {
            event.notify(usize::MAX);
        }
    }

    /// A memtable of this many bytes became immutable.
    pub fn seal(&self, bytes: u64) {
        self.immutable.fetch_add(bytes, Ordering::Relaxed);
        self.mutable.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// An immutable memtable is gone.
    pub fn release_immutable(&self, bytes: u64) {
        self.immutable.fetch_sub(bytes, Ordering::Relaxed);
        self.wake_first();
    }

    /// An immutable memtable of this many bytes is in a table, and kept all the same.
    pub fn keep(&self, bytes: u64) {
        self.history.fetch_add(bytes, Ordering::Relaxed);
        self.immutable.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A memtable that was kept is gone.
    pub fn release_history(&self, bytes: u64) {
        if bytes > 0 {
            self.history.fetch_sub(bytes, Ordering::Relaxed);
            self.wake_first();
        }
    }

    /// A memtable is gone with its tree, never sealed.
    pub fn release_mutable(&self, bytes: u64) {
        self.mutable.fetch_sub(bytes, Ordering::Relaxed);
        self.wake_first();
    }
}
