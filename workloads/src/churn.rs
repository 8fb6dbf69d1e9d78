//! Tenants that come and go beside the stream: when each comes, what it writes, when it goes.

use crate::keys::{self, key_len};
use crate::rng::{to_u32, to_u64};
use crate::values;

const MINUTE_NS: u64 = 60_000_000_000;

/// Visitors that come at equal gaps; each writes all its keys once and stays for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Churn {
    /// Visitors that come, and visitors that go, in a minute; at least 1.
    pub per_minute: u32,
    /// How many are there at a time.
    pub visitor_count: u32,
    /// Keys that one puts.
    pub key_count: u64,
    key_bytes: u32,
    value_bytes: u32,
}

impl Churn {
    pub(crate) fn new(
        (per_minute, visitor_count): (u32, u32),
        key_count: u64,
        (key_bytes, value_bytes): (u32, u32),
    ) -> Option<Self> {
        let key_count = key_count.max(1);
        let key_bytes = key_len(key_bytes, key_count);
        let churn = Self { per_minute, visitor_count, key_count, key_bytes, value_bytes };
        (per_minute > 0).then_some(churn)
    }

    /// The name of a visitor, counted from 0.
    pub fn name(&self, visitor: u64) -> String {
        format!("v{visitor:06}")
    }

    /// When a visitor comes, in nanoseconds from the start.
    pub fn comes_ns(&self, visitor: u64) -> u64 {
        let at = u128::from(visitor) * u128::from(MINUTE_NS);
        let at = at.checked_div(u128::from(self.per_minute)).unwrap_or(0);
        u64::try_from(at).unwrap_or(u64::MAX)
    }

    /// When it goes: when as many others have come as are there at a time.
    pub fn goes_ns(&self, visitor: u64) -> u64 {
        self.comes_ns(visitor.saturating_add(u64::from(self.visitor_count)))
    }

    /// Replaces `key` and `value` by the bytes of one of its puts; gives back how many both are.
    pub fn fill(&self, visitor: u64, put: u64, (key, value): (&mut Vec<u8>, &mut Vec<u8>)) -> u64 {
        let number = to_u32(visitor);
        keys::fill_key(number, put, self.key_bytes, key);
        values::fill_value(number, put, put, self.value_bytes, value);
        to_u64(key.len()).saturating_add(to_u64(value.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_come_at_equal_gaps_and_as_many_are_there_as_asked_for() {
        let churn = Churn::new((1_000, 50), 0, (16, 100)).unwrap();
        assert_eq!((churn.comes_ns(0), churn.comes_ns(1_000)), (0, MINUTE_NS));
        let now = churn.comes_ns(777);
        let there = (0..2_000).filter(|v| churn.comes_ns(*v) <= now && now < churn.goes_ns(*v));
        assert_eq!(there.count(), 50);
        assert_eq!((churn.key_count, churn.name(7)), (1, "v000007".to_owned()));
        assert_eq!(Churn::new((0, 50), 1, (16, 100)), None);
    }

    #[test]
    fn puts_have_their_sizes_and_differ() {
        let churn = Churn::new((60, 1), 300, (1, 100)).unwrap();
        let (mut key, mut value) = (Vec::new(), Vec::new());
        assert_eq!(churn.fill(3, 0, (&mut key, &mut value)), 102);
        let before = (key.clone(), value.clone());
        churn.fill(3, 256, (&mut key, &mut value));
        assert_ne!(before.0, key);
        assert_ne!(before.1, value);
    }
}
