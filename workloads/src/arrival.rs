//! When operations are meant to arrive.
//!
//! In a closed loop the next operation follows the last answer, and there are no times. In an open
//! loop operations arrive whether or not earlier ones are answered; latency counts from the
//! intended arrival. Times are whole nanoseconds; gaps are summed in units of 2^-20 ns, so that
//! rounding does not move the mean rate.

use serde::{Deserialize, Serialize};

use crate::error::{SpecError, check_bounds};
use crate::rng::{Rng, floor_u64, to_f64};

const NANOS_PER_S: f64 = 1_000_000_000.0;
const FRACTION_BITS: u32 = 20;
const FRACTION: f64 = 1_048_576.0;

/// Closed or open loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Arrival {
    /// The next operation follows the last answer: `at_ns` is always 0.
    #[default]
    Closed,
    /// Operations arrive at their own times.
    Open {
        /// Mean operations per second of all tenants, 1 to 10^9.
        ops_per_s: u64,
        /// How gaps vary; `poisson` where not given.
        #[serde(default)]
        pacing: Pacing,
        /// Where given, operations arrive only in the on windows, at a rate that keeps the mean.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on_off: Option<OnOff>,
    },
}

/// How gaps between arrivals vary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pacing {
    /// Exponential gaps: independent users.
    #[default]
    Poisson,
    /// Equal gaps.
    Regular,
}

/// Windows that follow each other for ever, on first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OnOff {
    /// Length of an on window in nanoseconds, 1 to 10^15.
    pub on_ns: u64,
    /// Length of an off window in nanoseconds, 0 to 10^15.
    pub off_ns: u64,
}

impl Arrival {
    /// Refuses rates and windows out of their bounds.
    ///
    /// # Errors
    ///
    /// [`SpecError::OutOfBounds`] with the key.
    pub fn check(&self) -> Result<(), SpecError> {
        let Self::Open { ops_per_s, on_off, .. } = self else { return Ok(()) };
        check_bounds("ops_per_s", to_f64(*ops_per_s), 1.0, NANOS_PER_S)?;
        if let Some(windows) = on_off {
            check_bounds("on_ns", to_f64(windows.on_ns), 1.0, 1e15)?;
            check_bounds("off_ns", to_f64(windows.off_ns), 0.0, 1e15)?;
        }
        Ok(())
    }
}

/// Yields arrival times.
#[derive(Clone, Debug)]
pub struct Clock {
    arrival: Arrival,
    mean_gap: f64,
    /// Time spent in on windows, in units of 2^-20 ns.
    busy: u128,
}

impl Clock {
    /// A clock at time 0.
    pub fn new(arrival: Arrival) -> Self {
        let mean_gap = match arrival {
            Arrival::Closed => 0.0,
            Arrival::Open { ops_per_s, on_off, .. } => {
                let on_ratio = on_off.map_or(1.0, |w| {
                    to_f64(w.on_ns) / to_f64(w.on_ns.saturating_add(w.off_ns).max(1))
                });
                NANOS_PER_S * FRACTION * on_ratio / to_f64(ops_per_s.max(1))
            }
        };
        Self { arrival, mean_gap, busy: 0 }
    }

    /// The next arrival in nanoseconds; never below the one before. `pace` stretches the gap.
    pub fn next_ns(&mut self, pace: f64, rng: &mut Rng) -> u64 {
        let Arrival::Open { pacing, on_off, .. } = self.arrival else { return 0 };
        let stretch = match pacing {
            Pacing::Regular => 1.0,
            Pacing::Poisson => -libm::log(1.0 - rng.unit_f64()),
        };
        let gap = floor_u64(self.mean_gap * pace * stretch + 0.5);
        self.busy = self.busy.saturating_add(u128::from(gap));
        let busy_ns = u64::try_from(self.busy >> FRACTION_BITS).unwrap_or(u64::MAX);
        on_off.map_or(busy_ns, |windows| windows.wall_ns(busy_ns))
    }
}

impl OnOff {
    /// When the on windows have lasted `busy_ns` together.
    fn wall_ns(self, busy_ns: u64) -> u64 {
        let windows_done = busy_ns.checked_div(self.on_ns).unwrap_or(0);
        busy_ns.saturating_add(windows_done.saturating_mul(self.off_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(pacing: Pacing, on_off: Option<OnOff>, ops_per_s: u64) -> Vec<u64> {
        let mut clock = Clock::new(Arrival::Open { ops_per_s, pacing, on_off });
        let mut rng = Rng::new(1, "arrival test");
        (0..100_000).map(|_| clock.next_ns(1.0, &mut rng)).collect()
    }

    fn gap_mean_and_cv(times: &[u64]) -> (f64, f64) {
        let gaps: Vec<f64> = times.windows(2).map(|w| to_f64(w[1] - w[0])).collect();
        let n = to_f64(crate::rng::to_u64(gaps.len()));
        let mean = gaps.iter().sum::<f64>() / n;
        let variance = gaps.iter().map(|g| (g - mean) * (g - mean)).sum::<f64>() / n;
        (mean, libm::sqrt(variance) / mean)
    }

    #[test]
    fn the_mean_rate_is_the_one_asked_for() {
        for ops_per_s in [3, 7_000, 1_000_000, 1_000_000_000] {
            let expected = 1e9 / to_f64(ops_per_s);
            let (mean, cv) = gap_mean_and_cv(&times(Pacing::Poisson, None, ops_per_s));
            assert!((mean / expected - 1.0).abs() < 0.01, "{ops_per_s}: {mean}");
            assert!(ops_per_s > 1_000_000 || (cv - 1.0).abs() < 0.02, "{ops_per_s}: {cv}");
            let (mean, _) = gap_mean_and_cv(&times(Pacing::Regular, None, ops_per_s));
            assert!((mean / expected - 1.0).abs() < 1e-4, "{ops_per_s}: {mean}");
        }
    }

    #[test]
    fn bursts_keep_the_mean_rate_and_the_off_windows_empty() {
        let windows = OnOff { on_ns: 1_000_000, off_ns: 9_000_000 };
        for pacing in [Pacing::Poisson, Pacing::Regular] {
            let times = times(pacing, Some(windows), 100_000);
            assert!(times.is_sorted());
            assert!(times.iter().all(|t| t % 10_000_000 < 1_000_000));
            let last = to_f64(*times.last().unwrap());
            assert!((last / 1e9 - 1.0).abs() < 0.02, "{last}");
        }
    }

    #[test]
    fn a_closed_loop_has_no_times() {
        let (mut clock, mut rng) = (Clock::new(Arrival::Closed), Rng::new(1, "arrival test"));
        assert!((0..10).all(|_| clock.next_ns(1.0, &mut rng) == 0));
    }

    #[test]
    fn rates_and_windows_out_of_bounds_are_refused() {
        let open = |ops_per_s, on_off| Arrival::Open { ops_per_s, pacing: Pacing::Poisson, on_off };
        assert!(open(0, None).check().is_err());
        assert!(open(1_000_000_001, None).check().is_err());
        assert!(open(1, Some(OnOff { on_ns: 0, off_ns: 1 })).check().is_err());
        assert!(open(1, Some(OnOff { on_ns: 1, off_ns: u64::MAX })).check().is_err());
        assert!(open(1, Some(OnOff { on_ns: 1, off_ns: 0 })).check().is_ok());
    }
}
