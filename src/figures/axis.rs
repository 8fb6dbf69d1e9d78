//! From numbers to places, and the round numbers between.

/// Above this ratio of the largest to the smallest number an axis is logarithmic.
pub(super) const LOG_RATIO: f64 = 50.0;

/// An axis over a range of places.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    from: f64,
    to: f64,
}

impl Axis {
    /// One that holds all numbers, from 0 where it is linear; `from` is the place of its low end.
    pub(super) fn new(values: &[f64], (from, to): (f64, f64)) -> Self {
        let high = values.iter().copied().fold(0.0, f64::max);
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        if least > 0.0 && high / least > LOG_RATIO {
            let low = power(libm::floor(libm::log10(least)));
            return Self { low, high: high * 1.2, log: true, from, to };
        }
        let high = if high > 0.0 { high * 1.05 } else { 1.0 };
        Self { low: 0.0, high, log: false, from, to }
    }

    /// The place of a number.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = if self.log {
            libm::log10(value / self.low) / libm::log10(self.high / self.low)
        } else {
            value / self.high
        };
        self.from + (self.to - self.from) * share
    }

    /// Whether equal distances are equal ratios.
    pub(super) fn is_log(&self) -> bool {
        self.log
    }

    /// Round numbers on it.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        if self.log {
            let mut tick = self.low;
            while tick <= self.high && ticks.len() < 20 {
                ticks.push(tick);
                tick *= 10.0;
            }
            return ticks;
        }
        let rough = self.high / 5.0;
        let unit = power(libm::floor(libm::log10(rough)));
        let steps = [1.0, 2.0, 5.0, 10.0];
        let step = steps.iter().map(|n| n * unit).find(|step| *step >= rough).unwrap_or(rough);
        let mut count = 0.0;
        while count * step <= self.high && ticks.len() < 20 {
            ticks.push(count * step);
            count += 1.0;
        }
        ticks
    }
}

/// A power of ten with a whole exponent, by multiplication: the same everywhere.
fn power(exponent: f64) -> f64 {
    let (mut value, mut left) = (1.0, exponent.abs());
    while (1.0..400.0).contains(&left) {
        value *= 10.0;
        left -= 1.0;
    }
    if exponent < 0.0 { 1.0 / value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        let axis = Axis::new(&[10.0, 87.0, 43.0], (100.0, 600.0));
        assert_eq!(axis.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert!((axis.at(0.0) - 100.0).abs() < 1e-9 && axis.at(87.0) < 600.0);
        let wide = Axis::new(&[30.0, 90_000.0], (0.0, 100.0));
        assert_eq!(wide.ticks(), [10.0, 100.0, 1e3, 1e4, 1e5]);
        assert!(wide.is_log() && wide.at(10.0).abs() < 1e-9);
        // From the top of a page downwards, and of nothing.
        assert!(Axis::new(&[5.0], (200.0, 0.0)).at(5.0) < 20.0);
        assert_eq!(Axis::new(&[0.0], (0.0, 1.0)).ticks().first(), Some(&0.0));
        assert!(Axis::new(&[], (0.0, 1.0)).at(0.0).abs() < 1e-9);
    }
}
