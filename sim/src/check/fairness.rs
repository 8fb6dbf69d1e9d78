//! L3: one hot tenant among cold ones.

use forebay_engine::types::Nanos;

use super::liveness::DEADLINE_NS;
use super::model::seconds;
use super::{Checked, Rule, RuleCounts, Violation, broken};

/// Writes of a phase from which on a tenant may be called hot.
const HOT_WRITES: u64 = 10;

/// Whether a tenant with so many writes of all is the hot one.
pub fn is_hot(writes: u64, all: u64) -> bool {
    writes >= HOT_WRITES && writes.saturating_mul(2) > all
}

/// L3: a cold tenant's write ends within [`DEADLINE_NS`] while another tenant is hot.
///
/// # Errors
///
/// L3 where it took longer.
pub fn l3_cold_write(counts: &mut RuleCounts, tenant: usize, elapsed_ns: Nanos) -> Checked {
    counts.count(Rule::L3);
    if elapsed_ns <= DEADLINE_NS {
        return Ok(());
    }
    let promised = format!("a cold tenant's write ends within {} s", seconds(DEADLINE_NS));
    let found = format!("it took {} s while another tenant wrote", seconds(elapsed_ns));
    broken(Violation::new(Rule::L3, promised, found).of(tenant, None))
}

/// L3: the log is not above its bound for longer than [`DEADLINE_NS`] without a fault: whoever pins
/// it is flushed, or logged again. `above_ns` is how long it has been.
///
/// # Errors
///
/// L3 where it has been for longer.
pub fn l3_log(
    counts: &mut RuleCounts,
    (wal_bytes, bound_bytes): (u64, u64),
    above_ns: Nanos,
) -> Checked {
    counts.count(Rule::L3);
    if wal_bytes <= bound_bytes || above_ns <= DEADLINE_NS {
        return Ok(());
    }
    let promised = format!("a log of at most {bound_bytes} bytes, whichever tenant pins it");
    let found = format!("{wal_bytes} bytes, and too many for {} s", seconds(above_ns));
    broken(Violation::new(Rule::L3, promised, found))
}
