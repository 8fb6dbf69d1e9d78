//! What the engine's events add up to: who waited, on whose account, and how large tables became.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay_engine::Tenant;
use forebay_engine::env::Env;
use forebay_engine::events::{Event, Listener};
use forebay_engine::policy::view::TreeFacts;
use forebay_engine::types::{BranchId, Nanos};
use forebay_workloads::TenantProfile;

use super::recorder::{Recorder, Recording};
use crate::events::RunEvents;

/// Sums of events since the last reset.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    /// Bytes of each table that a flush installed.
    pub(super) table_bytes: Vec<u64>,
    /// The longest that one write waited.
    pub(super) longest_stall_ns: Nanos,
    /// Time that each tenant's writes waited.
    pub(super) stall_ns: Vec<u64>,
    /// Time that writes waited on each tenant's account.
    pub(super) caused_ns: Vec<u64>,
}

impl Sums {
    fn of(tenants: usize) -> Self {
        let (stall_ns, caused_ns) = (vec![0; tenants], vec![0; tenants]);
        Self { stall_ns, caused_ns, ..Self::default() }
    }
}

#[derive(Default)]
struct Inner {
    sums: Sums,
    /// Tenants by branch, in the workload's order.
    tenants: BTreeMap<BranchId, usize>,
    recorder: Option<Recorder>,
    /// What was recorded until it was told to stop.
    events: Option<RunEvents>,
}

/// A listener that adds up events.
#[derive(Default)]
pub struct Tally {
    inner: Mutex<Inner>,
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").finish_non_exhaustive()
    }
}

impl Tally {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tally that keeps events too.
    pub fn recording(recording: Recording) -> Self {
        let tally = Self::default();
        if recording != Recording::None {
            tally.inner().recorder = Some(Recorder::new(recording));
        }
        tally
    }

    /// Keeps no event from here on: a run is over before its database is closed.
    pub fn stop_recording(&self, now: Nanos) {
        let recorder = self.inner().recorder.take();
        if let Some(recorder) = recorder {
            let events = recorder.finish(now);
            self.inner().events = Some(events);
        }
    }

    /// The events until recording was stopped, which is no later than now; it forgets them.
    pub fn take_events(&self, now: Nanos) -> Option<RunEvents> {
        self.stop_recording(now);
        self.inner().events.take()
    }

    /// Says which tenants events speak of.
    pub(super) fn know<E: Env>(&self, tenants: &[Tenant<E>], profiles: &[TenantProfile]) {
        let mut inner = self.inner();
        if let Some(recorder) = &mut inner.recorder {
            for (tenant, profile) in tenants.iter().zip(profiles) {
                recorder.know(tenant.branch_id(), tenant.tree_id(), &profile.name);
            }
        }
        inner.tenants = tenants.iter().map(Tenant::branch_id).zip(0..).collect();
        inner.sums = Sums::of(tenants.len());
    }

    /// Begins again at zero.
    pub(super) fn reset(&self, now: Nanos) {
        let mut inner = self.inner();
        inner.sums = Sums::of(inner.sums.stall_ns.len());
        if let Some(recorder) = &mut inner.recorder {
            recorder.reset(now);
        }
    }

    /// Whether it keeps events.
    pub(super) fn is_recording(&self) -> bool {
        self.inner().recorder.is_some()
    }

    /// What memtables hold.
    pub(super) fn trees(&self, now: Nanos, trees: &[TreeFacts]) {
        if let Some(recorder) = &mut self.inner().recorder {
            recorder.trees(now, trees);
        }
    }

    pub(super) fn sums(&self) -> Sums {
        self.inner().sums.clone()
    }
}

impl Listener for Tally {
    fn event(&self, now: Nanos, event: &Event) {
        if let Some(recorder) = &mut self.inner().recorder {
            recorder.event(now, event);
        }
        if let Event::FlushEnd { table: Some((_, bytes)), .. } = event {
            self.inner().sums.table_bytes.push(*bytes);
        } else if let Event::StallEnd { branch, caused_by, elapsed_ns, .. } = event {
            let mut guard = self.inner();
            let inner = &mut *guard;
            inner.sums.longest_stall_ns = inner.sums.longest_stall_ns.max(*elapsed_ns);
            let Sums { stall_ns, caused_ns, .. } = &mut inner.sums;
            for (of, branch) in [(stall_ns, branch), (caused_ns, caused_by)] {
                let tenant = inner.tenants.get(branch).copied();
                if let Some(ns) = tenant.and_then(|at| of.get_mut(at)) {
                    *ns = ns.saturating_add(*elapsed_ns);
                }
            }
        }
    }
}
