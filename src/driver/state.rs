//! What lanes agree on: the next operation, how far the run is, and what was recorded.

use forebay_engine::Error;
use forebay_engine::env::Env;
use forebay_engine::metrics::Metrics;
use forebay_engine::types::Nanos;
use forebay_workloads::{Arrival, Op, Pacing, Stream};

use super::churn::{ChurnTally, Step};
use super::forks::{self, ForkTally};
use super::gauges::{Watch, tree_name};
use super::lane::Done;
use super::measure::{Interval, Measured, Recorder};
use super::{Driver, IDLE_NS, Plan};
use crate::number::Thousandths;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Warmup,
    Measured,
    Over,
}

/// When a run begins to be measured and when it ends, in user bytes, operations and time.
#[derive(Clone, Copy, Debug)]
struct Limits {
    warmup_bytes: u64,
    warmup_ns: Nanos,
    bytes: u64,
    ops: u64,
    ns: Nanos,
}

/// Shared by all lanes, under one lock that is never held while anything waits.
pub(super) struct State {
    stream: Stream,
    /// Operations of the tenant that asks flat out, where there is one.
    flat_out: Option<Stream>,
    /// When the first operation may arrive.
    begin: Nanos,
    /// Of the next operation; those below the first are the load's.
    next_number: u64,
    answered: u64,
    bytes: u64,
    stage: Stage,
    limits: Limits,
    recorder: Recorder,
    /// What the counters were when measuring began, and when.
    base: (Metrics, Nanos),
    sample_base: Metrics,
    watch: Watch,
    churn: Option<ChurnTally>,
    forks: Option<ForkTally>,
    budget_bytes: u64,
    last_answer: Nanos,
    error: Option<Error>,
    /// When the last operation arrived that was asked for.
    over_at: Nanos,
    /// Operations that arrive each second; 0 in a closed loop.
    offered_ops_per_s: u64,
    /// What the first of two phases served.
    max_ops_per_s: Option<Thousandths>,
}

impl State {
    pub(super) fn new(plan: &Plan, now: Nanos) -> Self {
        let config = &plan.config;
        let budget = config.options.budget_bytes;
        let or_none = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        Self {
            stream: plan.workload.stream(),
            flat_out: plan.workload.flat_out_stream(),
            begin: now,
            next_number: plan.workload.key_total(),
            answered: 0,
            bytes: 0,
            stage: Stage::Warmup,
            limits: Limits {
                warmup_bytes: match config.fill_count {
                    0 => 0,
                    _ => config.warmup_fill_count.saturating_mul(budget),
                },
                warmup_ns: config.warmup_duration_ns,
                bytes: or_none(config.fill_count.saturating_mul(budget)),
                ops: or_none(config.op_count),
                ns: or_none(config.duration_ns),
            },
            recorder: Recorder::new(plan.workload.tenants()),
            base: (Metrics::default(), now),
            sample_base: Metrics::default(),
            watch: Watch::default(),
            churn: plan.workload.churn().map(|_| ChurnTally::new()),
            forks: (config.fork_interval_ns > 0).then(ForkTally::new),
            budget_bytes: budget,
            last_answer: now,
            error: None,
            over_at: now,
            offered_ops_per_s: config.offered_ops_per_s,
            max_ops_per_s: None,
        }
    }
}

impl State {
    /// Numbers an operation that is about to be asked.
    fn issue(&mut self, op: Op) -> u64 {
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        if self.stage == Stage::Measured {
            self.recorder.issued(op.tenant);
        }
        number
    }
}

impl<E: Env> Driver<E> {
    /// The next operation with its number and its intended arrival; `None` once the run is over.
    pub(super) fn next_op(&self) -> Option<(u64, Op, Nanos)> {
        let mut state = self.state();
        if state.stage == Stage::Over {
            return None;
        }
        let Some(op) = state.stream.next_op() else {
            (state.stage, state.over_at) = (Stage::Over, self.env.now());
            return None;
        };
        let number = state.issue(op);
        Some((number, op, state.begin.saturating_add(op.at_ns)))
    }

    /// The next operation of the tenant that asks flat out, with its number; `None` once the run is
    /// over.
    pub(super) fn next_flat_out(&self) -> Option<(u64, Op)> {
        let mut state = self.state();
        if state.stage == Stage::Over {
            return None;
        }
        let op = state.flat_out.as_mut()?.next_op()?;
        Some((state.issue(op), op))
    }

    /// Whether the run is over.
    pub(super) fn is_over(&self) -> bool {
        self.state().stage == Stage::Over
    }

    /// A time since the start of the run, on the world's clock.
    pub(super) fn at(&self, ns: Nanos) -> Nanos {
        self.state().begin.saturating_add(ns)
    }

    /// A visitor took a step that began at `begin`; gives back when it ended.
    pub(super) fn visited(&self, step: &Step, begin: Nanos) -> Nanos {
        let now = self.env.now();
        let mut state = self.state();
        if let Step::Put(bytes) = step {
            state.bytes = state.bytes.saturating_add(*bytes);
        }
        if state.stage == Stage::Measured
            && let Some(churn) = &mut state.churn
        {
            churn.record(step, now.saturating_sub(begin));
        }
        now
    }

    /// Something became of a fork; whether the run is measured.
    pub(super) fn fork_step(&self, step: forks::Step) -> bool {
        let now = self.env.now();
        let mut state = self.state();
        let is_measured = state.stage == Stage::Measured;
        if let Some(forks) = &mut state.forks {
            forks.record(step, now, is_measured);
        }
        is_measured
    }

    /// A visitor is gone or a fork was answered, or failed: then the run is over.
    pub(super) fn gone(&self, result: Result<(), Error>) {
        if let Err(error) = result {
            let mut state = self.state();
            state.error.get_or_insert(error);
            state.stage = Stage::Over;
        }
    }

    /// Takes an answer into the record, and ends warm-up or run where it was the last one needed.
    pub(super) fn answered(&self, done: &Done) {
        let mut state = self.state();
        state.answered = state.answered.saturating_add(1);
        state.bytes = state.bytes.saturating_add(done.bytes);
        state.last_answer = state.last_answer.max(done.end);
        if let Some(error) = &done.error {
            state.error.get_or_insert_with(|| error.clone());
            state.stage = Stage::Over;
            return;
        }
        if state.stage == Stage::Measured {
            let memtable_bytes = self.db.memtable_bytes();
            state.watch.memory(done.end, memtable_bytes);
        }
        if state.stage != Stage::Warmup {
            let in_time = state.stage == Stage::Measured;
            state.recorder.answered(done, in_time);
        }
        if self.check(|check| check.is_broken()) == Some(true) {
            state.stage = Stage::Over;
            return;
        }
        let limits = state.limits;
        let elapsed = done.end.saturating_sub(state.begin);
        let over =
            state.bytes >= limits.bytes || state.answered >= limits.ops || elapsed >= limits.ns;
        let warm = state.bytes >= limits.warmup_bytes && elapsed >= limits.warmup_ns;
        match state.stage {
            Stage::Measured | Stage::Warmup if over => {
                (state.stage, state.over_at) = (Stage::Over, done.end);
            }
            Stage::Warmup if warm => self.begin_measuring(&mut state),
            Stage::Warmup | Stage::Measured | Stage::Over => {}
        }
    }

    /// A run without warm-up is measured from its first operation.
    pub(super) fn begin_if_warm(&self) {
        let mut state = self.state();
        if state.limits.warmup_bytes == 0 && state.limits.warmup_ns == 0 {
            self.begin_measuring(&mut state);
        }
    }

    /// After a closed loop: what it served at most becomes known, and the run begins again with
    /// arrivals at `percent` of it. Gives back their rate; `None` where the run is over for good.
    pub(super) fn next_phase(&self, percent: u64) -> Option<u64> {
        let broken = self.check(|check| check.is_broken()) == Some(true);
        let mut state = self.state();
        let elapsed = state.last_answer.saturating_sub(state.base.1);
        let served = Thousandths::per_second(state.recorder.ops(), elapsed);
        let rate = served.0.saturating_mul(percent).div_euclid(100_000);
        if broken || state.error.is_some() || rate == 0 {
            return None;
        }
        let arrival = Arrival::Open { ops_per_s: rate, pacing: Pacing::Poisson, on_off: None };
        state.stream.set_arrival(arrival);
        (state.max_ops_per_s, state.offered_ops_per_s) = (Some(served), rate);
        state.recorder = Recorder::new(self.workload.tenants());
        (state.answered, state.bytes, state.stage) = (0, 0, Stage::Warmup);
        state.begin = self.env.now();
        state.last_answer = state.begin;
        Some(rate)
    }

    fn begin_measuring(&self, state: &mut State) {
        state.stage = Stage::Measured;
        state.base = (self.db.metrics(), self.env.now());
        state.sample_base = state.base.0.clone();
        state.watch = Watch::new(state.budget_bytes, state.base.1, self.db.memtable_bytes());
        self.tally.reset(state.base.1);
    }

    /// Takes a sample where the run is measured; gives back the time it is for.
    pub(super) fn sample(&self) -> Nanos {
        let now = self.env.now();
        let mut state = self.state();
        if state.stage == Stage::Warmup {
            // A run may fail before it is warm.
            if self.tally.is_recording() {
                self.tally.trees(now, &self.db.tree_facts());
            }
            return now;
        }
        let metrics = self.db.metrics();
        let (trees, wal_bytes) = (self.db.tree_facts(), metrics.wal_retained_bytes);
        self.tally.trees(now, &trees);
        state.watch.trees(now, now.saturating_sub(IDLE_NS), (&trees, wal_bytes));
        let tables = self.db.table_bytes();
        state.watch.tables(tables);
        let sum = |ns: &[u64; 5]| ns.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
        let (ops, p99_ns) = state.recorder.take_interval();
        let interval = Interval {
            at_ns: now.saturating_sub(state.base.1),
            ops,
            stall_ns: sum(&metrics.stall_ns).saturating_sub(sum(&state.sample_base.stall_ns)),
            memtable_bytes: metrics.mutable_bytes.saturating_add(metrics.immutable_bytes),
            immutable_count: metrics.immutable_count,
            l0_count: metrics.l0_count,
            pending_compaction_bytes: metrics.pending_compaction_bytes,
            p99_ns,
            table_bytes: tables.live,
            fork_table_bytes: tables.live.saturating_sub(tables.main),
        };
        state.recorder.intervals.push(interval);
        state.sample_base = metrics;
        now
    }

    /// What was measured, once every lane ended.
    pub(super) fn finish(&self) -> Result<Measured, Error> {
        if self.state().recorder.has_interval() {
            self.sample();
        }
        let mut state = self.state();
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        let base = state.base.clone();
        let recorder = core::mem::replace(&mut state.recorder, Recorder::new(&[]));
        let trees: Vec<_> =
            self.tenants.iter().map(|tenant| tenant.tree_id().unwrap_or_default()).collect();
        let counters = (base.0, self.db.metrics());
        let mut measured = Measured::new(recorder, counters, self.tally.sums());
        measured.arriving_ns = state.over_at.saturating_sub(base.1);
        measured.asked = state.next_number.saturating_sub(self.workload.key_total());
        (measured.max_ops_per_s, measured.offered_ops_per_s) =
            (state.max_ops_per_s, state.offered_ops_per_s);
        measured.elapsed_ns = state.last_answer.saturating_sub(base.1);
        if let Some((checked, broken)) = self.check(|check| check.outcome()) {
            (measured.checked, measured.broken) = (checked, broken);
        }
        measured.gauges = state.watch.finish();
        measured.wal_pinned_by = measured.gauges.wal_pin.map(|(_, tree)| {
            let names = self.workload.tenants().iter().map(|t| t.name.as_str());
            tree_name(tree, trees.iter().copied().zip(names))
        });
        measured.churn = state.churn.take();
        measured.forks = state.forks.take();
        Ok(measured)
    }
}
