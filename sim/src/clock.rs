//! Virtual nanoseconds and the timers that wait for them.
//!
//! Time stands still while any task can run and then jumps to the next timer. Timers of one instant
//! fire in the order in which they were set. A timer whose sleeper went away is removed, so that a
//! world with nothing left to wait for is a deadlock at once and not after the last stale timer.

use std::collections::BTreeMap;
use std::task::Waker;

use forebay_engine::types::Nanos;

/// Place of a timer: when, and which of that instant.
pub type TimerKey = (Nanos, u64);

/// The timers of a runtime.
#[derive(Debug, Default)]
pub struct Timers {
    waiting: BTreeMap<TimerKey, Waker>,
    next: u64,
}

impl Timers {
    /// Sets a timer.
    pub fn set(&mut self, at: Nanos, waker: Waker) -> TimerKey {
        let key = (at, self.next);
        self.next = self.next.wrapping_add(1);
        self.waiting.insert(key, waker);
        key
    }

    /// Gives a waiting timer another waker.
    pub fn renew(&mut self, key: TimerKey, waker: &Waker) {
        if let Some(old) = self.waiting.get_mut(&key) {
            old.clone_from(waker);
        }
    }

    /// Removes a timer; one that fired is fine.
    pub fn cancel(&mut self, key: TimerKey) {
        self.waiting.remove(&key);
    }

    /// When the next timer fires.
    pub fn next_at(&self) -> Option<Nanos> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next timer that is due at `now`.
    pub fn pop_due(&mut self, now: Nanos) -> Option<Waker> {
        let entry = self.waiting.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// Removes all timers.
    pub fn clear(&mut self) -> Vec<Waker> {
        core::mem::take(&mut self.waiting).into_values().collect()
    }
}
