//! What lanes agree on: the next operation, how far the run is, and what was recorded.

use forebay_engine::Error;
use forebay_engine::env::Env;
use forebay_engine::metrics::Metrics;
use forebay_engine::types::Nanos;
use forebay_workloads::{Op, Stream};

use super::lane::Done;
use super::measure::{Interval, Measured, Recorder};
use super::{Driver, IDLE_NS, Plan};

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
    bytes: u64,
    ops: u64,
    ns: Nanos,
}

/// Shared by all lanes, under one lock that is never held while anything waits.
pub(super) struct State {
    stream: Stream,
    /// When the first operation may arrive.
    begin: Nanos,
    issued: u64,
    answered: u64,
    bytes: u64,
    stage: Stage,
    limits: Limits,
    recorder: Recorder,
    /// What the counters were when measuring began, and when.
    base: (Metrics, Nanos),
    sample_base: Metrics,
    stranded: (u128, u64),
    last_answer: Nanos,
    error: Option<Error>,
}

impl State {
    pub(super) fn new(plan: &Plan, now: Nanos) -> Self {
        let config = &plan.config;
        let budget = config.options.budget_bytes;
        let or_none = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        Self {
            stream: plan.workload.stream(),
            begin: now,
            issued: 0,
            answered: 0,
            bytes: 0,
            stage: Stage::Warmup,
            limits: Limits {
                warmup_bytes: match config.fill_count {
                    0 => 0,
                    _ => config.warmup_fill_count.saturating_mul(budget),
                },
                bytes: or_none(config.fill_count.saturating_mul(budget)),
                ops: or_none(config.op_count),
                ns: or_none(config.duration_ns),
            },
            recorder: Recorder::new(plan.workload.tenants()),
            base: (Metrics::default(), now),
            sample_base: Metrics::default(),
            stranded: (0, 0),
            last_answer: now,
            error: None,
        }
    }
}

impl<E: Env> Driver<E> {
    /// The next operation with its number and its intended arrival; `None` once the run is over.
    pub(super) fn next_op(&self) -> Option<(u64, Op, Nanos)> {
        let mut state = self.state();
        if state.stage == Stage::Over {
            return None;
        }
        let op = state.stream.next_op();
        // Numbers below are those of the load.
        let number = self.workload.load_op_count().saturating_add(state.issued);
        state.issued = state.issued.saturating_add(1);
        if state.stage == Stage::Measured {
            state.recorder.issued(op.tenant);
        }
        Some((number, op, state.begin.saturating_add(op.at_ns)))
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
        if state.stage != Stage::Warmup {
            let in_time = state.stage == Stage::Measured;
            state.recorder.answered(done, in_time);
        }
        if self.check(|check| check.is_broken()) == Some(true) {
            state.stage = Stage::Over;
            return;
        }
        let limits = state.limits;
        let over = state.bytes >= limits.bytes
            || state.answered >= limits.ops
            || done.end.saturating_sub(state.begin) >= limits.ns;
        match state.stage {
            Stage::Measured | Stage::Warmup if over => state.stage = Stage::Over,
            Stage::Warmup if state.bytes >= limits.warmup_bytes => self.begin_measuring(&mut state),
            Stage::Warmup | Stage::Measured | Stage::Over => {}
        }
    }

    /// A run without warm-up is measured from its first operation.
    pub(super) fn begin_if_warm(&self) {
        let mut state = self.state();
        if state.limits.warmup_bytes == 0 {
            self.begin_measuring(&mut state);
        }
    }

    fn begin_measuring(&self, state: &mut State) {
        state.stage = Stage::Measured;
        state.base = (self.db.metrics(), self.env.now());
        state.sample_base = state.base.0.clone();
        self.tally.reset();
    }

    /// Takes a sample where the run is measured; gives back the time it is for.
    pub(super) fn sample(&self) -> Nanos {
        let now = self.env.now();
        let mut state = self.state();
        if state.stage == Stage::Warmup {
            return now;
        }
        let metrics = self.db.metrics();
        let stranded = self.db.stranded_bytes(now.saturating_sub(IDLE_NS));
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
        };
        state.recorder.intervals.push(interval);
        state.stranded.0 = state.stranded.0.saturating_add(u128::from(stranded));
        state.stranded.1 = state.stranded.1.saturating_add(1);
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
        let (sum, count) = state.stranded;
        let stranded = sum.checked_div(u128::from(count)).unwrap_or(0);
        let base = state.base.clone();
        let recorder = core::mem::replace(&mut state.recorder, Recorder::new(&[]));
        let counters = (base.0, self.db.metrics());
        let mut measured = Measured::new(recorder, counters, self.tally.sums());
        measured.elapsed_ns = state.last_answer.saturating_sub(base.1);
        if let Some((checked, broken)) = self.check(|check| check.outcome()) {
            (measured.checked, measured.broken) = (checked, broken);
        }
        measured.stranded_bytes = u64::try_from(stranded).unwrap_or(u64::MAX);
        Ok(measured)
    }
}
