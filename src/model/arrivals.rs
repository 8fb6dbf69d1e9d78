//! The writes of a workload as sizes, in the order of their arrival.
//!
//! They are drawn from the workload's own stream, the one that the driver feeds to the engine, so
//! that a model and an engine of the same configuration and seed take the same writes. At full size
//! a write stands for `times` of them: the stream is that of a machine divided by `times` (budget
//! and rate), and each of its writes counts `times` as much.

use forebay_engine::layout::{Place, initial_trees, tree_of};
use forebay_engine::memtable;
use forebay_engine::options::Layout;
use forebay_engine::types::{BranchId, Nanos, to_u64, to_usize};
use forebay_workloads::{KeyChoice, OpKind, Stream, TenantProfile, Workload};

use super::ModelError;
use crate::config::Config;
use crate::driver::write_bytes_per_s;

/// What the log adds to a write's key and value: a frame, a batch's head, an entry's head.
const LOG_OVERHEAD_BYTES: u64 = 27;

/// Steps that draw a fill of the budget, where nothing else is asked for.
const STEPS_PER_FILL_LOG2: u32 = 21;

/// Steps that draw a tree's even share of the budget at least.
const STEPS_PER_TREE_LOG2: u32 = 4;

/// One write, or as many of one tenant as a step stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Write {
    /// When it arrives.
    pub(super) at_ns: Nanos,
    /// The tree that takes it.
    pub(super) slot: usize,
    /// What it charges to the budget.
    pub(super) charge_bytes: u64,
    /// Bytes of keys and values.
    pub(super) user_bytes: u64,
    /// Bytes of its log records.
    pub(super) log_bytes: u64,
}

/// Sizes of one tenant's writes.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    slot: usize,
    put: Write,
    delete: Write,
}

/// A tree before the first write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TreeSeed {
    /// Tenants that it holds.
    pub(super) tenant_count: u64,
    /// Bytes of all their keys and values.
    pub(super) data_bytes: u64,
}

/// Writes for ever.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    stream: Stream,
    workload: Workload,
    tenants: Vec<Sizes>,
    /// Writes that one step stands for.
    pub(super) times: u64,
    /// User bytes that arrive each second.
    pub(super) bytes_per_s: u64,
    /// Trees by slot.
    pub(super) trees: Vec<TreeSeed>,
}

impl Arrivals {
    /// The writes of a configuration with a seed; a step stands for about `unit_bytes` of keys and
    /// values, 0 for a size that suits budget and trees.
    pub(super) fn new(config: &Config, seed: u64, unit_bytes: u64) -> Result<Self, ModelError> {
        let refused = |error: forebay_workloads::SpecError| ModelError::Refused(error.to_string());
        let mut spec = config.workload_spec(seed);
        if spec.trace.is_some() {
            let what = "the model draws its own writes: it replays no recorded operations";
            return Err(ModelError::Refused(what.to_owned()));
        }
        // Which key a write has is not asked for: the cheapest choice.
        spec.keys = KeyChoice::Uniform;
        let whole = Workload::new(spec.clone()).map_err(refused)?;
        let offered = config.offered_ops_per_s;
        let bytes_per_s = write_bytes_per_s(&whole, offered);
        if bytes_per_s == 0 {
            let what = "the model needs writes that arrive by themselves: set offered_ops_per_s \
                        and a share of writes above 0";
            return Err(ModelError::Refused(what.to_owned()));
        }
        let unit = if unit_bytes == 0 { default_unit(config) } else { unit_bytes };
        let mean = mean_write_bytes(whole.tenants()).max(1);
        let times = unit.checked_div(mean).unwrap_or(1).clamp(1, offered);
        let times = times.min(spec.budget_bytes.max(1));
        spec.budget_bytes = share_of(spec.budget_bytes, times);
        let config_of_step =
            Config { offered_ops_per_s: share_of(offered, times), ..config.clone() };
        spec.arrival = config_of_step.workload_spec(seed).arrival;
        let stream = if times == 1 {
            whole.stream()
        } else {
            Workload::new(spec).map_err(refused)?.stream()
        };
        let (tenants, trees) = sizes(config.options.layout, whole.tenants(), times);
        Ok(Self { stream, workload: whole, tenants, times, bytes_per_s, trees })
    }

    /// Every key of every tenant once, in the order in which the driver loads them.
    pub(super) fn load(&self) -> Vec<Write> {
        let put = |tenant: u32| self.tenants.get(to_usize(u64::from(tenant)));
        let writes = self.workload.load_ops().filter_map(|op| put(op.tenant));
        writes.map(|sizes| Write { slot: sizes.slot, ..sizes.put }).collect()
    }

    /// The next write; reads are passed over.
    pub(super) fn next(&mut self) -> Write {
        loop {
            // Only a trace ends.
            let Some(op) = self.stream.next_op() else {
                return Write { at_ns: Nanos::MAX, ..Write::default() };
            };
            let Some(sizes) = self.tenants.get(to_usize(u64::from(op.tenant))) else { continue };
            let write = match op.kind {
                OpKind::Put { .. } | OpKind::Insert { .. } | OpKind::ReadModifyWrite { .. } => {
                    sizes.put
                }
                OpKind::Delete { .. } => sizes.delete,
                OpKind::Get { .. } | OpKind::Scan { .. } => continue,
            };
            return Write { at_ns: op.at_ns, slot: sizes.slot, ..write };
        }
    }
}

/// The nearest part of a number, at least 1.
fn share_of(n: u64, times: u64) -> u64 {
    n.saturating_add(times >> 1).checked_div(times).unwrap_or(n).max(1)
}

/// Bytes of a step: small against the budget and against an even share of it.
fn default_unit(config: &Config) -> u64 {
    let budget = config.options.budget_bytes;
    let share = budget.checked_div(config.tenant_count).unwrap_or(budget);
    (budget >> STEPS_PER_FILL_LOG2).min(share >> STEPS_PER_TREE_LOG2)
}

/// Mean bytes of a write over all writes in the long run.
fn mean_write_bytes(tenants: &[TenantProfile]) -> u64 {
    let (mut writes, mut bytes) = (0_u128, 0_u128);
    for tenant in tenants {
        // Millionths, so that every machine rounds alike.
        let fraction = crate::number::from_f64(tenant.write_fraction * 1e6).unwrap_or(0);
        let weight = u128::from(tenant.weight).saturating_mul(u128::from(fraction));
        writes = writes.saturating_add(weight);
        bytes = bytes.saturating_add(weight.saturating_mul(u128::from(tenant.entry_bytes())));
    }
    u64::try_from(bytes.checked_div(writes).unwrap_or(0)).unwrap_or(u64::MAX)
}

fn sizes(layout: Layout, tenants: &[TenantProfile], times: u64) -> (Vec<Sizes>, Vec<TreeSeed>) {
    let mut trees = vec![TreeSeed::default(); to_usize(initial_trees(layout))];
    let mut all = Vec::with_capacity(tenants.len());
    // Branches get their ids in the order of tenants, from 1 on, and trees of their own as well.
    for (id, tenant) in (1..).map(BranchId).zip(tenants) {
        let slot = to_usize(tree_of(layout, &tenant.name, id).0.saturating_sub(1));
        if trees.len() <= slot {
            trees.resize(slot.saturating_add(1), TreeSeed::default());
        }
        if let Some(tree) = trees.get_mut(slot) {
            let data_bytes = tenant.key_count.saturating_mul(tenant.entry_bytes());
            tree.tenant_count = tree.tenant_count.saturating_add(1);
            tree.data_bytes = tree.data_bytes.saturating_add(data_bytes);
        }
        let key = u64::from(tenant.key_bytes);
        let prefix = to_u64(Place::new(layout, id).prefix_bytes());
        let write = |value: u64| {
            let user = key.saturating_add(value);
            let stored = to_usize(key.saturating_add(prefix));
            let charge = memtable::charge(stored, to_usize(value));
            let log = user.saturating_add(prefix).saturating_add(LOG_OVERHEAD_BYTES);
            Write {
                charge_bytes: charge.saturating_mul(times),
                user_bytes: user.saturating_mul(times),
                log_bytes: log.saturating_mul(times),
                ..Write::default()
            }
        };
        all.push(Sizes { slot, put: write(u64::from(tenant.value_bytes)), delete: write(0) });
    }
    (all, trees)
}
