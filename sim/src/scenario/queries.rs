//! Queries of every shape, and what changes tables beneath them.
//!
//! They are drawn from streams of their own and put between the operations of a scenario that is drawn
//! already, so that a seed's other draws stay what they are.

use core::ops::Bound;

use forebay_engine::types::{to_u64, to_usize};
use serde::{Deserialize, Serialize};

use super::{Draw, Op, Scenario};
use crate::check::value::{SHAPED_FIRST, key_bytes};

/// Names of extractors that divide keys as [`key_bytes`](crate::check::value::key_bytes) shapes them, none
/// first.
const EXTRACTORS: [Option<&str>; 8] = [
    None,
    Some("fixed-1"),
    Some("fixed-2"),
    Some("fixed-3"),
    Some("fixed-6"),
    Some("delimiter-2f"),
    Some("delimiter-30"),
    Some("delimiter-ff"),
];

/// Where keys begin or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyEnd {
    /// With this key.
    Included(u32),
    /// Next to this key.
    Excluded(u32),
    /// Nowhere.
    Unbounded,
}

/// Some keys of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// Between two ends, which may be the wrong way round.
    Between(KeyEnd, KeyEnd),
    /// Those that begin with this many bytes of a key.
    Prefix(u32, u32),
}

/// Which queries a seed uses, with what weight.
struct Queries {
    weights: Vec<(Kind, u64)>,
    tenants: usize,
    keys: u64,
}

#[derive(Clone, Copy)]
enum Kind {
    Query,
    Compare,
    Compact,
    Extractor,
    Recreate,
}

/// Where some keys begin and end, and their prefix.
pub type KeyBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>, Option<Vec<u8>>);

impl Keys {
    /// The bounds of their bytes, and the prefix where they have one.
    pub fn bounds(self) -> KeyBounds {
        let bound = |end| match end {
            KeyEnd::Included(key) => Bound::Included(key_bytes(key)),
            KeyEnd::Excluded(key) => Bound::Excluded(key_bytes(key)),
            KeyEnd::Unbounded => Bound::Unbounded,
        };
        match self {
            Self::Between(from, to) => (bound(from), bound(to), None),
            Self::Prefix(key, len) => {
                let mut prefix = key_bytes(key);
                prefix.truncate(to_usize(u64::from(len)));
                (Bound::Included(prefix.clone()), Bound::Unbounded, Some(prefix))
            }
        }
    }

    /// Whether a key is one of them.
    pub fn holds(self, key: &[u8]) -> bool {
        let (from, to, prefix) = self.bounds();
        let behind = match from {
            Bound::Included(from) => *from <= *key,
            Bound::Excluded(from) => *from < *key,
            Bound::Unbounded => true,
        };
        let before = match to {
            Bound::Included(to) => *key <= *to,
            Bound::Excluded(to) => *key < *to,
            Bound::Unbounded => true,
        };
        behind && before && prefix.is_none_or(|prefix| key.starts_with(&prefix))
    }
}

impl Draw {
    /// How tables are written and how much of the disk is kept free.
    pub(super) fn table_options(&mut self) -> Vec<(String, String)> {
        let compression = self.pick(&["none", "lz4"], "lz4");
        let mut set = vec![("compression".to_owned(), compression.to_owned())];
        if let Some(extractor) = self.extractor() {
            set.push(("prefix_extractor".to_owned(), extractor.to_owned()));
        }
        let reserve: u64 = self.pick(&[0, 0, 1, 20_000, 150_000], 0);
        set.push(("space_reserve_bytes".to_owned(), reserve.to_string()));
        if self.percent(20) {
            set.push(("open_tables_max".to_owned(), (1 + self.below(2)).to_string()));
            set.push(("block_cache_bytes".to_owned(), self.pick(&[0, 600], 600).to_string()));
        }
        set
    }

    fn extractor(&mut self) -> Option<&'static str> {
        self.pick(&EXTRACTORS, None)
    }

    /// Puts queries between the operations of every client.
    pub(super) fn add_queries(&mut self, scenario: &mut Scenario) {
        let mut queries = Queries {
            weights: Vec::new(),
            tenants: scenario.tenants,
            keys: self.pick(&[8, 16, 40], 16),
        };
        let kinds = [
            (Kind::Query, 30, 80),
            (Kind::Compare, 15, 70),
            (Kind::Compact, 6, 40),
            (Kind::Extractor, 6, 50),
            (Kind::Recreate, 4, 30),
        ];
        for (kind, weight, chance) in kinds {
            if self.percent(chance) {
                queries.weights.push((kind, 1 + self.below(weight)));
            }
        }
        let share = self.pick(&[5, 10, 25], 10);
        if queries.weights.is_empty() {
            return;
        }
        for ops in scenario.phases.iter_mut().flat_map(|phase| &mut phase.clients) {
            let count = (to_u64(ops.len()) * share).div_ceil(100);
            for _ in 0..count {
                let at = to_usize(self.below(to_u64(ops.len()) + 1));
                let op = self.query(&queries);
                ops.insert(at.min(ops.len()), op);
            }
        }
    }

    fn query(&mut self, of: &Queries) -> Op {
        let total: u64 = of.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.below(total);
        let mut kind = Kind::Query;
        for (next, weight) in &of.weights {
            if at < *weight {
                kind = *next;
                break;
            }
            at -= weight;
        }
        let tenant = to_usize(self.below(to_u64(of.tenants)));
        match kind {
            Kind::Query => {
                let (keys, reverse) = (self.keys(of), self.percent(50));
                let entries = u32::try_from(self.below(6)).unwrap_or(0);
                let seek = self.percent(40).then(|| (entries, self.some_key(of)));
                Op::Query { tenant, keys, reverse, seek }
            }
            Kind::Compare => Op::Compare { tenant, keys: self.keys(of), old: self.percent(40) },
            Kind::Compact => Op::Compact { tenant, keys: self.keys(of) },
            Kind::Extractor => {
                Op::Extractor { tenant, extractor: self.extractor().map(str::to_owned) }
            }
            Kind::Recreate if self.percent(40) => Op::Drop { tenant },
            Kind::Recreate => Op::Create { tenant, extractor: self.extractor().map(str::to_owned) },
        }
    }

    fn some_key(&mut self, of: &Queries) -> u32 {
        u32::try_from(self.below(of.keys)).unwrap_or(0)
    }

    fn end(&mut self, of: &Queries) -> KeyEnd {
        match self.below(5) {
            0 => KeyEnd::Unbounded,
            1 | 2 => KeyEnd::Excluded(self.some_key(of)),
            _ => KeyEnd::Included(self.some_key(of)),
        }
    }

    fn keys(&mut self, of: &Queries) -> Keys {
        if self.percent(45) {
            let len = u32::try_from(self.below(5)).unwrap_or(0);
            return Keys::Prefix(self.some_key(of), len);
        }
        Keys::Between(self.end(of), self.end(of))
    }
}

/// Gives every key of a scenario a shape that extractors divide.
pub(super) fn shape_keys(scenario: &mut Scenario) {
    let end = |end: &mut KeyEnd| match end {
        KeyEnd::Included(key) | KeyEnd::Excluded(key) => *key += SHAPED_FIRST,
        KeyEnd::Unbounded => {}
    };
    let shape = |keys: &mut Keys| match keys {
        Keys::Between(from, to) => [from, to].into_iter().for_each(end),
        Keys::Prefix(key, _) => *key += SHAPED_FIRST,
    };
    let clients = scenario.phases.iter_mut().flat_map(|phase| &mut phase.clients);
    for op in clients.flatten() {
        match op {
            Op::Write { writes, .. } => {
                for write in writes {
                    write.key += SHAPED_FIRST;
                }
            }
            Op::Get { key, .. } | Op::Reread { key } => *key += SHAPED_FIRST,
            Op::Scan { from, to, .. } => {
                *from += SHAPED_FIRST;
                *to += SHAPED_FIRST;
            }
            Op::Query { keys, seek, .. } => {
                shape(keys);
                if let Some((_, key)) = seek {
                    *key += SHAPED_FIRST;
                }
            }
            Op::Compare { keys, .. } | Op::Compact { keys, .. } => shape(keys),
            Op::Snapshot { .. }
            | Op::Extractor { .. }
            | Op::Flush { .. }
            | Op::Sync
            | Op::Drop { .. }
            | Op::DropBranch { .. }
            | Op::Fork { .. }
            | Op::Create { .. }
            | Op::Import { .. }
            | Op::Sleep { .. } => {}
        }
    }
}
