//! What a row says of its load: kinds of operations, and whether more was offered than served.

use serde::{Deserialize, Serialize};

use crate::number::Thousandths;
use crate::record::{LatencyNs, Outcome, RunRow};

/// Operations of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindRow {
    /// The kind: `put`, `get`, `delete`, `scan`, `insert` or `read-modify-write`.
    pub kind: String,
    /// Operations served.
    pub ops: u64,
    /// Their latency.
    pub latency_ns: LatencyNs,
}

impl RunRow {
    /// Whether it served less than it was offered: then its queues grew until the end, and
    /// percentiles say how long it ran. What a tenant asks flat out was never offered.
    pub fn is_saturated(&self) -> bool {
        self.outcome == Outcome::Pass && self.is_behind(self.served_per_s())
    }

    /// Whether this many operations in a second are fewer than were offered.
    pub fn is_behind(&self, served: Thousandths) -> bool {
        const SERVED_SHARE_MIN: f64 = 0.98;
        served.to_f64() < self.offered_ops_per_s.to_f64() * SERVED_SHARE_MIN
    }

    /// Of the operations that were offered, those served in a second.
    pub fn served_per_s(&self) -> Thousandths {
        let of_arrivals = self.ops.saturating_sub(self.flat_out_ops);
        let served = Thousandths::per_second(of_arrivals, self.elapsed_ns);
        self.arriving_ops_per_s.unwrap_or(served)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RUN_SCHEMA;

    #[test]
    fn a_run_is_saturated_by_what_it_served_while_operations_arrived() {
        let offered = Thousandths(1_000_000);
        let row = RunRow {
            schema: RUN_SCHEMA.to_owned(),
            outcome: Outcome::Pass,
            ops: 900,
            elapsed_ns: 1_000_000_000,
            offered_ops_per_s: offered,
            ..RunRow::default()
        };
        assert!(row.is_saturated());
        assert!(!RunRow { ops: 981, ..row.clone() }.is_saturated());
        assert!(RunRow { ops: 981, flat_out_ops: 2, ..row.clone() }.is_saturated());
        assert!(!RunRow { outcome: Outcome::Fail, ..row.clone() }.is_saturated());
        assert!(!RunRow { offered_ops_per_s: Thousandths(0), ..row.clone() }.is_saturated());
        let late = RunRow { arriving_ops_per_s: Some(offered), ..row.clone() };
        assert!(!late.is_saturated());
        // Rows without these names are the bytes that they were.
        let line = row.to_line().unwrap();
        for name in ["arriving_ops_per_s", "max_ops_per_s", "kinds"] {
            assert!(!line.contains(name), "{name}");
        }
        assert_eq!(RunRow::from_line(&late.to_line().unwrap()).unwrap(), late);
    }
}
