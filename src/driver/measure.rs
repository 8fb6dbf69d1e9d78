//! What a run recorded: latencies, counts for each tenant, samples, and the engine's own counters.

use std::collections::BTreeMap;

use forebay_engine::metrics::Metrics;
use forebay_engine::types::Nanos;
use forebay_workloads::{Class, TenantProfile};
use hdrhistogram::Histogram;

use super::check::Broken;
use super::churn::ChurnTally;
use super::forks::ForkTally;
use super::gauges::Gauges;
use super::lane::Done;
use super::tally::Sums;
use crate::histogram::SIGFIG;
use crate::number::Thousandths;

/// Decimal digits of a tenant's own histogram: a thousand of them must fit beside each other.
const TENANT_SIGFIG: u8 = 2;

/// One sample of the series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Its end, since measuring began.
    pub at_ns: Nanos,
    /// Operations answered in it.
    pub ops: u64,
    /// Time that writes waited, of waits that ended in it.
    pub stall_ns: u64,
    /// Bytes in memtables at its end.
    pub memtable_bytes: u64,
    /// Immutable memtables at its end.
    pub immutable_count: u64,
    /// L0 tables of all trees at its end.
    pub l0_count: u64,
    /// Bytes that compactions have before them at its end.
    pub pending_compaction_bytes: u64,
    /// 99th percentile of the latency of the writes answered in it.
    pub p99_ns: u64,
    /// Bytes of the tables that branches reach, at its end.
    pub table_bytes: u64,
    /// Of them, those that only forks reach.
    pub fork_table_bytes: u64,
}

/// What one tenant saw.
#[derive(Clone, Debug)]
pub struct TenantTally {
    /// Its number in the workload.
    pub tenant: usize,
    /// Operations that arrived.
    pub issued: u64,
    /// Of them, those answered before the last arrival.
    pub in_time: u64,
    /// Operations answered.
    pub ops: u64,
    /// User bytes that it wrote.
    pub bytes: u64,
    /// Latency of all its operations, to two digits; `None` where it had none.
    pub latency: Option<Histogram<u32>>,
    /// Time that its writes waited.
    pub stall_ns: u64,
    /// Time that writes waited on its account.
    pub stall_caused_ns: u64,
}

/// What lanes record as they go.
pub(super) struct Recorder {
    write: Histogram<u64>,
    read: Histogram<u64>,
    pub(super) interval: Histogram<u64>,
    interval_ops: u64,
    ops: u64,
    tenants: Vec<TenantTally>,
    classes: BTreeMap<Class, Histogram<u64>>,
    kinds: BTreeMap<(Class, usize), Histogram<u64>>,
    class_of: Vec<Class>,
    pub(super) intervals: Vec<Interval>,
}

/// A histogram of nanoseconds that grows as it must.
#[expect(clippy::expect_used, reason = "three digits are within the histogram's bounds")]
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new(SIGFIG).expect("three digits are allowed")
}

/// Records a latency; an auto-resizing histogram refuses nothing.
pub(super) fn record<C: hdrhistogram::Counter>(histogram: &mut Histogram<C>, ns: u64) {
    histogram.record(ns).unwrap_or_default();
}

impl Recorder {
    /// Operations answered.
    pub(super) fn ops(&self) -> u64 {
        self.ops
    }

    pub(super) fn new(profiles: &[TenantProfile]) -> Self {
        let tally = |tenant: usize| TenantTally {
            tenant,
            issued: 0,
            in_time: 0,
            ops: 0,
            bytes: 0,
            latency: None,
            stall_ns: 0,
            stall_caused_ns: 0,
        };
        let class_of: Vec<Class> = profiles.iter().map(|profile| profile.class).collect();
        Self {
            write: histogram(),
            read: histogram(),
            interval: histogram(),
            interval_ops: 0,
            ops: 0,
            tenants: (0..profiles.len()).map(tally).collect(),
            classes: class_of.iter().map(|class| (*class, histogram())).collect(),
            kinds: BTreeMap::new(),
            class_of,
            intervals: Vec::new(),
        }
    }

    fn tenant(&mut self, tenant: u32) -> Option<&mut TenantTally> {
        self.tenants.get_mut(usize::try_from(tenant).unwrap_or(usize::MAX))
    }

    pub(super) fn issued(&mut self, tenant: u32) {
        if let Some(tally) = self.tenant(tenant) {
            tally.issued = tally.issued.saturating_add(1);
        }
    }

    pub(super) fn answered(&mut self, done: &Done, in_time: bool) {
        let ns = done.end.saturating_sub(done.at);
        self.ops = self.ops.saturating_add(1);
        self.interval_ops = self.interval_ops.saturating_add(1);
        if done.is_write {
            record(&mut self.write, ns);
            record(&mut self.interval, ns);
        } else {
            record(&mut self.read, ns);
        }
        let class = self.class_of.get(usize::try_from(done.tenant).unwrap_or(usize::MAX)).copied();
        if let Some(of_class) = class.and_then(|class| self.classes.get_mut(&class)) {
            record(of_class, ns);
        }
        if let Some(class) = class {
            record(self.kinds.entry((class, done.kind.place())).or_insert_with(histogram), ns);
        }
        let Some(tally) = self.tenant(done.tenant) else { return };
        tally.ops = tally.ops.saturating_add(1);
        tally.in_time = tally.in_time.saturating_add(u64::from(in_time));
        tally.bytes = tally.bytes.saturating_add(done.bytes);
        if tally.latency.is_none() {
            tally.latency = Histogram::new(TENANT_SIGFIG).ok();
        }
        if let Some(latency) = &mut tally.latency {
            record(latency, ns);
        }
    }

    pub(super) fn has_interval(&self) -> bool {
        self.interval_ops > 0
    }

    /// Operations and p99 of writes since the last call.
    pub(super) fn take_interval(&mut self) -> (u64, u64) {
        let p99 = self.interval.value_at_quantile(0.99);
        self.interval.reset();
        (core::mem::take(&mut self.interval_ops), p99)
    }
}

/// Everything that one run measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Operations answered.
    pub ops: u64,
    /// From the begin of measuring to the last answer.
    pub elapsed_ns: Nanos,
    /// Latency of writes.
    pub write: Histogram<u64>,
    /// Latency of reads.
    pub read: Histogram<u64>,
    /// Latency of all operations by class of tenants.
    pub classes: BTreeMap<Class, Histogram<u64>>,
    /// Latency by class of tenants and kind of operation (its place among `OP_NAMES`).
    pub kinds: BTreeMap<(Class, usize), Histogram<u64>>,
    /// From the begin of measuring to the last arrival.
    pub arriving_ns: Nanos,
    /// Operations asked for from the first on, whether measured or not.
    pub asked: u64,
    /// What the closed loop of the first phase served, where there were two.
    pub max_ops_per_s: Option<Thousandths>,
    /// Operations that arrived each second; 0 in a closed loop.
    pub offered_ops_per_s: u64,
    /// Every tenant, in the workload's order.
    pub tenants: Vec<TenantTally>,
    /// The series.
    pub intervals: Vec<Interval>,
    /// The engine's counters when measuring began.
    pub before: Metrics,
    /// The engine's counters at the end.
    pub after: Metrics,
    /// Bytes of every table that a flush installed, in ascending order.
    pub table_bytes: Vec<u64>,
    /// Answers that were compared with the reference model, where there was one.
    pub checked: u64,
    /// The first rule that an answer broke.
    pub broken: Option<Broken>,
    /// Memory, log and trees over the run.
    pub gauges: Gauges,
    /// Who pinned the oldest log segment when most log was kept.
    pub wal_pinned_by: Option<String>,
    /// What visitors saw, where there are any.
    pub churn: Option<ChurnTally>,
    /// What forks took, where there are any.
    pub forks: Option<ForkTally>,
    /// The longest that one write waited.
    pub longest_stall_ns: Nanos,
}

impl Measured {
    pub(super) fn new(recorder: Recorder, counters: (Metrics, Metrics), mut sums: Sums) -> Self {
        sums.table_bytes.sort_unstable();
        let mut tenants = recorder.tenants;
        let stalls = sums.stall_ns.iter().zip(&sums.caused_ns);
        for (tally, (waited_ns, caused_ns)) in tenants.iter_mut().zip(stalls) {
            (tally.stall_ns, tally.stall_caused_ns) = (*waited_ns, *caused_ns);
        }
        Self {
            ops: recorder.ops,
            elapsed_ns: 0,
            write: recorder.write,
            read: recorder.read,
            classes: recorder.classes,
            kinds: recorder.kinds,
            arriving_ns: 0,
            asked: 0,
            max_ops_per_s: None,
            offered_ops_per_s: 0,
            tenants,
            intervals: recorder.intervals,
            before: counters.0,
            after: counters.1,
            table_bytes: sums.table_bytes,
            checked: 0,
            broken: None,
            gauges: Gauges::default(),
            wal_pinned_by: None,
            churn: None,
            forks: None,
            longest_stall_ns: sums.longest_stall_ns,
        }
    }
}
