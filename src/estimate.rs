//! How long runs will take, before any of them is made: operations and loaded entries by what one of
//! each takes of a processor in simulation, or the clock itself on a real disk.
//!
//! The figures are of one core of a server, measured over the shipped experiments, which they hit
//! within a factor of two. Who waits for a closed loop by time, or for one that writes flat out, asks
//! for a number that nobody has before the run: such runs count as unknown.

use forebay_engine::types::{Nanos, to_u64};
use forebay_workloads::Workload;

use crate::config::Config;
use crate::number::{from_f64, to_f64};
use crate::record::World;

/// Processor time of a simulated operation.
const OP_NS: Nanos = 14_000;

/// Processor time of an entry of the load.
const ENTRY_NS: Nanos = 8_000;

/// What runs will take on one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Processor time in simulation, time on a real disk, of the runs that can be told.
    pub ns: Nanos,
    /// Runs of which it cannot be told.
    pub unknown: u64,
}

impl Estimate {
    /// With another run.
    #[must_use]
    pub fn with(self, run_ns: Option<Nanos>) -> Self {
        Self {
            ns: self.ns.saturating_add(run_ns.unwrap_or(0)),
            unknown: self.unknown.saturating_add(u64::from(run_ns.is_none())),
        }
    }

    /// In one line, for so many runs at a time.
    pub fn line(&self, jobs: usize) -> String {
        let minutes = |ns: Nanos| {
            let s = ns.div_ceil(1_000_000_000);
            if s < 90 { format!("{s} s") } else { format!("{} min", s.div_ceil(60)) }
        };
        let mut text = format!("about {}", minutes(self.ns));
        if jobs > 1 {
            let each = self.ns.div_ceil(to_u64(jobs));
            text =
                format!("about {} of one core, {} with -j {jobs}", minutes(self.ns), minutes(each));
        }
        match self.unknown {
            0 => {}
            runs => {
                let told = format!(", and {runs} more whose length cannot be told before");
                text.push_str(&told);
            }
        }
        text
    }
}

/// What one run of a configuration takes; `None` where its operations follow from what the engine
/// will do.
pub fn run_ns(config: &Config, seed: u64, world: World) -> Option<Nanos> {
    let workload = Workload::new(config.workload_spec(seed)).ok()?;
    let ops = ops(config, &workload)?;
    if world == World::Os {
        let per_s = Some(config.offered_ops_per_s).filter(|per_s| *per_s > 0)?;
        return from_f64(to_f64(ops) / to_f64(per_s) * 1e9);
    }
    let loaded = workload.tenants().iter().fold(0_u64, |sum, t| sum.saturating_add(t.loaded_count));
    Some(ops.saturating_mul(OP_NS).saturating_add(loaded.saturating_mul(ENTRY_NS)))
}

/// Operations of a run, of its end that comes first.
fn ops(config: &Config, workload: &Workload) -> Option<u64> {
    if workload.flat_out().is_some_and(|who| who.client_count > 0) {
        return None;
    }
    let bytes = config.fill_count.saturating_mul(config.options.budget_bytes);
    let by_bytes = (bytes > 0).then(|| to_f64(bytes) / written_per_op(workload));
    let by_time = (config.duration_ns > 0 && config.offered_ops_per_s > 0)
        .then(|| to_f64(config.duration_ns) / 1e9 * to_f64(config.offered_ops_per_s));
    let by_count = (config.op_count > 0).then(|| to_f64(config.op_count));
    let ends = [by_bytes, by_time, by_count].into_iter().flatten();
    let ops = ends.filter(|ops| ops.is_finite()).min_by(f64::total_cmp)?;
    let phases = if config.two_phase_percent > 0 { 2.0 } else { 1.0 };
    from_f64(ops * phases)
}

/// Bytes that users write in an operation, in the mean.
fn written_per_op(workload: &Workload) -> f64 {
    let (mut bytes, mut weights) = (0.0, 0.0);
    for tenant in workload.tenants() {
        let weight = to_f64(tenant.weight);
        bytes += weight * tenant.write_fraction * to_f64(tenant.entry_bytes());
        weights += weight;
    }
    bytes / weights
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Config {
        let mut config = Config::default();
        let base = [
            ("workload", "steady-zipf"),
            ("tenant_count", "10"),
            ("budget_bytes", "1MiB"),
            ("workload.write_ratio", "0.5"),
            ("workload.key_bytes", "16"),
            ("workload.value_bytes", "112"),
            ("workload.data_share_ratio", "1"),
        ];
        for (key, value) in base.iter().chain(settings) {
            config.set(key, value).unwrap();
        }
        config
    }

    fn told(settings: &[(&str, &str)], world: World) -> Option<Nanos> {
        run_ns(&config(settings), 0, world)
    }

    #[test]
    fn a_run_is_its_operations_and_its_load_and_ends_at_the_first_end() {
        // 8,192 writes of 128 bytes in a fill, each with a read; a budget of data is loaded.
        let load = told(&[("fill_count", "0"), ("op_count", "1")], World::Sim).unwrap() - OP_NS;
        assert!(load.abs_diff(8_192 * ENTRY_NS) < 100 * ENTRY_NS, "{load}");
        let fill = told(&[("fill_count", "1"), ("warmup_fill_count", "0")], World::Sim).unwrap();
        assert!((fill - load).abs_diff(2 * 8_192 * OP_NS) < OP_NS, "{fill}");
        let both = [("fill_count", "1"), ("warmup_fill_count", "0"), ("op_count", "100")];
        assert_eq!(told(&both, World::Sim).unwrap() - load, 100 * OP_NS);
        let phases = [both.as_slice(), &[("two_phase_percent", "95")]].concat();
        assert_eq!(told(&phases, World::Sim).unwrap() - load, 200 * OP_NS);
    }

    #[test]
    fn real_time_needs_a_rate_and_who_writes_flat_out_is_unknown() {
        let timed = [("fill_count", "0"), ("duration_ns", "3000000000")];
        assert_eq!(told(&timed, World::Sim), None);
        let open = [timed.as_slice(), &[("offered_ops_per_s", "500")]].concat();
        assert_eq!(told(&open, World::Os), Some(3_000_000_000));
        assert_eq!(told(&[("fill_count", "1")], World::Os), None);
        let mut flat = config(&open);
        flat.set("workload", "noisy-neighbour").unwrap();
        flat.set("workload.aggressor_client_count", "2").unwrap();
        assert_eq!(run_ns(&flat, 0, World::Sim), None);
    }

    #[test]
    fn a_line_has_minutes_jobs_and_what_is_unknown() {
        let one = Estimate::default().with(Some(61_000_000_000));
        assert_eq!(one.line(1), "about 61 s");
        let more = one.with(Some(120_000_000_000)).with(None);
        let expected = "about 4 min of one core, 2 min with -j 2, and 1 more whose length cannot be \
                        told before";
        assert_eq!(more.line(2), expected);
    }
}
