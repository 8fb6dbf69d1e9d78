//! How far a metric may move to its bad side before a command fails: `p999:+5%`.

use core::str::FromStr;

use crate::metric::{self, Metric};
use crate::stats::{Direction, Paired};

/// A bound of one metric.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// The metric.
    pub metric: &'static Metric,
    /// The share that it may move to its bad side.
    pub share: f64,
}

impl Gate {
    /// Whether the estimate lies beyond the bound and the interval is clear of 0.
    pub fn is_beyond(&self, paired: &Paired) -> bool {
        paired.is_clear() && paired.regression(self.metric.direction) > self.share
    }
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || format!("gate {text:?}; allowed: METRIC:+N%, as p999:+5%");
        let (name, bound) = text.split_once(':').ok_or_else(shape)?;
        let metric = metric::find(name)?;
        let bound = bound.strip_suffix('%').unwrap_or(bound);
        let (bad, good, way) = match metric.direction {
            Direction::Lower => ('+', '-', "lower"),
            Direction::Higher => ('-', '+', "higher"),
        };
        if bound.starts_with(good) {
            return Err(format!("gate {text:?}: {way} is better; allowed: {name}:{bad}N%"));
        }
        let percent = bound.strip_prefix(bad).unwrap_or(bound);
        let is_number = percent.chars().all(|c| c.is_ascii_digit() || c == '.');
        let percent = percent.parse::<f64>().ok().filter(|_| is_number).ok_or_else(shape)?;
        Ok(Self { metric, share: percent / 100.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_a_metric_and_a_way_and_a_share() {
        let gate: Gate = "p999:+5%".parse().unwrap();
        assert_eq!((gate.metric.name, gate.share), ("p999", 0.05));
        for text in ["throughput:-2.5%", "throughput:2.5"] {
            let share = text.parse::<Gate>().unwrap().share;
            assert!((share - 0.025).abs() < 1e-12, "{share}");
        }
        let refused = |text: &str| text.parse::<Gate>().unwrap_err();
        assert!(refused("throughput:+5%").contains("allowed: throughput:-N%"));
        assert!(refused("p999:-5%").contains("allowed: p999:+N%"));
        assert!(refused("p1:+5%").contains("unknown metric \"p1\""));
        for bad in ["p999", "p999:", "p999:+x%", "p999:+-5%", "p999:+inf%", "p999:+1e9%"] {
            assert!(refused(bad).contains("allowed: METRIC:+N%"), "{bad}");
        }
    }
}
