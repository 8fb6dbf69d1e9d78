//! Numbers as rows store them and as people read them.
//!
//! Rows are compared byte for byte between machines. A float that went through different sums can
//! differ in its last digit, so every fractional number of a row is an integer count of
//! thousandths, computed by integer division, and becomes a float only in its text.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A fractional number of a row, held as thousandths. Prints with at most three decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thousandths(pub u64);

impl Thousandths {
    /// `numerator / denominator`, rounded half up to three decimals; 0 where the denominator is 0.
    pub fn ratio(numerator: u128, denominator: u128) -> Self {
        let scaled = numerator.saturating_mul(1000).saturating_add(denominator >> 1);
        let thousandths = scaled.checked_div(denominator).unwrap_or(0);
        Self(u64::try_from(thousandths).unwrap_or(u64::MAX))
    }

    /// How often a second something happened that happened `count` times in `elapsed_ns`.
    pub fn per_second(count: u64, elapsed_ns: u64) -> Self {
        Self::ratio(u128::from(count) * 1_000_000_000, u128::from(elapsed_ns))
    }

    /// The number as a float, for display and charts.
    pub fn to_f64(self) -> f64 {
        to_f64(self.0) / 1000.0
    }
}

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_f64())
    }
}

impl Serialize for Thousandths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.to_f64())
    }
}

impl<'de> Deserialize<'de> for Thousandths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        from_f64(value * 1000.0)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(format!("{value} is negative or too large")))
    }
}

/// The nearest float. Exact below 2^53; display and charts need no more.
#[expect(clippy::cast_precision_loss, reason = "shown, never stored or compared")]
pub fn to_f64(n: u64) -> f64 {
    n as f64
}

/// The nearest integer, or `None` for what is negative, not finite or above 2^53.
pub fn from_f64(value: f64) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let rounded = value.round();
    if !(0.0..=EXACT_MAX).contains(&rounded) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, not negative and at most 2^53, checked above"
    )]
    Some(rounded as u64)
}

/// Of numbers in ascending order the one that this many in a hundred do not exceed; 0 of nothing.
pub fn rank(sorted: &[u64], percent: usize) -> u64 {
    let at = sorted.len().saturating_mul(percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or(0)
}

/// Three significant digits, never an exponent: `0.531`, `44.1`, `1200`.
pub fn digits(value: f64) -> String {
    match value.abs() {
        v if v < 0.000_5 => "0".to_owned(),
        v if v < 0.999_5 => format!("{value:.3}"),
        v if v < 9.995 => format!("{value:.2}"),
        v if v < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A span of time in the unit that suits it: `531us`, `70.8ms`, `1.20s`.
pub fn duration(ns: u64) -> String {
    let value = to_f64(ns);
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..999_500 => format!("{}us", digits(value / 1e3)),
        999_500..999_500_000 => format!("{}ms", digits(value / 1e6)),
        _ => format!("{}s", digits(value / 1e9)),
    }
}

/// Seconds with a precision that suits a column of stall times.
pub fn seconds(ns: u64) -> String {
    let value = to_f64(ns) / 1e9;
    if value < 999.95 { digits(value) } else { thousands(ns.div_euclid(1_000_000_000)) }
}

/// Bytes in binary units: `512B`, `3.90MiB`, `1.20GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n}B");
    }
    let mut value = to_f64(n);
    let mut unit = "B";
    for next in UNITS {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{}{unit}", digits(value))
}

/// A count in decimal units: `812`, `44.1k`, `1.20M`.
pub fn count(value: f64) -> String {
    match value {
        v if v < 999.5 => digits(v),
        v if v < 999_500.0 => format!("{}k", digits(v / 1e3)),
        v if v < 999_500_000.0 => format!("{}M", digits(v / 1e6)),
        v => format!("{}G", digits(v / 1e9)),
    }
}

/// An integer with commas between groups of three digits.
pub fn thousands(n: u64) -> String {
    let plain = n.to_string();
    let mut text = String::new();
    for (place, digit) in plain.chars().enumerate() {
        if place > 0 && (plain.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_round_half_up_and_survive_text() {
        assert_eq!(Thousandths::ratio(2, 3), Thousandths(667));
        assert_eq!(Thousandths::ratio(1, 2000), Thousandths(1));
        assert_eq!(Thousandths::ratio(5, 0), Thousandths(0));
        assert_eq!(Thousandths::per_second(441, 10_000_000), Thousandths(44_100_000));
        for raw in [0, 1, 999, 44_100_001, 9_007_199_254_740] {
            let text = serde_json::to_string(&Thousandths(raw)).unwrap();
            assert_eq!(serde_json::from_str::<Thousandths>(&text).unwrap(), Thousandths(raw));
        }
        assert!(serde_json::from_str::<Thousandths>("-1").is_err());
    }

    #[test]
    fn people_read_three_digits_and_a_unit() {
        assert_eq!(duration(531_000), "531us");
        assert_eq!(duration(70_800_000), "70.8ms");
        assert_eq!(duration(999_700_000), "1.00s");
        assert_eq!(bytes(1023 * 1024), "1023KiB");
        assert_eq!(bytes(64 << 20), "64.0MiB");
        assert_eq!(bytes(u64::MAX), "16.0EiB");
        assert_eq!(count(44_100.0), "44.1k");
        assert_eq!(count(999_999.0), "1.00M");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(123), "123");
        assert_eq!(seconds(1_234_500_000_000), "1,234");
    }
}
