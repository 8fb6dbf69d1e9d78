//! The n-th call on the disk: calls are counted while somebody asks for it, and one of them can be
//! made to fail in a way that is named.
//!
//! A count begins at a moment of the run's own story, so that the same scenario meets the same call
//! under the same number until that call fails. What fails is exact: no chance is drawn for it.
//!
//! # Source
//!
//! `SQLite`'s I/O error tests, which fail each call of a script in turn ("How `SQLite` Is Tested").

use core::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError};

use crate::fault::Fault;

/// Some classes of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FaultSet(u64);

impl FaultSet {
    pub(crate) fn of(faults: &[Fault]) -> Self {
        Self(faults.iter().fold(0, |set, fault| set | Self::bit(*fault)))
    }

    fn bit(fault: Fault) -> u64 {
        1_u64.checked_shl(u32::from(fault as u8)).unwrap_or(0)
    }

    fn has(self, fault: Fault) -> bool {
        self.0 & Self::bit(fault) > 0
    }
}

/// Calls and crash points of a part of a run, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallLog {
    /// What was called.
    pub calls: Vec<&'static str>,
    /// Crash points before, in and after calls, counted from where the part begins.
    pub points: Vec<u64>,
}

/// A log that a run fills and others read; clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedLog(Arc<Mutex<CallLog>>);

impl SharedLog {
    /// What was recorded.
    pub fn take(&self) -> CallLog {
        core::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn put(&self, log: CallLog) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = log;
    }
}

/// The counter of a world.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    on: Cell<bool>,
    count: Cell<u64>,
    armed: Cell<Option<(u64, FaultSet)>>,
    forced: Cell<FaultSet>,
    from: Cell<u64>,
    log: RefCell<Option<CallLog>>,
}

impl Calls {
    /// Counts from here on. Crash points are told from this one on.
    pub(crate) fn begin(&self, armed: Option<(u64, FaultSet)>, point: u64) {
        self.armed.set(armed);
        self.count.set(0);
        self.from.set(point);
        *self.log.borrow_mut() = Some(CallLog::default());
        self.on.set(true);
    }

    /// Stops counting, or goes on.
    pub(crate) fn pause(&self, paused: bool) {
        self.on.set(!paused && self.log.borrow().is_some());
        self.forced.set(FaultSet::default());
    }

    /// Ends the count, and gives what it saw.
    pub(crate) fn end(&self) -> CallLog {
        self.pause(true);
        self.armed.set(None);
        self.log.borrow_mut().take().unwrap_or_default()
    }

    /// A call begins.
    pub(crate) fn call(&self, op: &'static str) {
        self.forced.set(FaultSet::default());
        if !self.on.get() {
            return;
        }
        self.count.set(self.count.get().saturating_add(1));
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.calls.push(op);
        }
        if let Some((call, faults)) = self.armed.get()
            && call == self.count.get()
        {
            self.armed.set(None);
            self.forced.set(faults);
        }
    }

    /// A crash point of a call.
    pub(crate) fn point(&self, point: u64) {
        if self.on.get()
            && let Some(log) = self.log.borrow_mut().as_mut()
        {
            log.points.push(point.saturating_sub(self.from.get()));
        }
    }

    /// Whether this fault is wanted of the call that runs.
    pub(crate) fn forces(&self, fault: Fault) -> bool {
        self.forced.get().has(fault)
    }

    /// What is wanted of the call that runs, for when it goes on after others had their turn.
    pub(crate) fn hold(&self) -> FaultSet {
        self.forced.take()
    }

    /// What the running call did not meet, no other does.
    pub(crate) fn pass(&self) {
        self.forced.set(FaultSet::default());
    }

    /// The call goes on.
    pub(crate) fn resume(&self, held: FaultSet) {
        self.forced.set(held);
    }
}
