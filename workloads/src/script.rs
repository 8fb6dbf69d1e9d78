//! Tenants that follow a benchmark's script: which operations, for which keys, how long.
//!
//! A script is data: shares of verbs, a rule for keys and a rule for the lengths of scans. All
//! tenants of a workload follow the same script, each over keys of its own.

use crate::op::OpKind;
use crate::pareto::Pareto;
use crate::permutation::Permutation;
use crate::ranges::KeyRanges;
use crate::rng::{Rng, floor_u64, fnv64, to_f64, to_u32};
use crate::tenants::TenantProfile;
use crate::zipf::Zipf;

/// Items over which YCSB draws its Zipf ranks, whatever the number of keys.
pub const YCSB_ITEMS: u64 = 10_000_000_000;

/// Draws of a key that is not there yet before the next is taken as it comes.
const DRAWS_MAX: u32 = 64;

/// What is done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Put,
    /// Puts the key after those that are there; once there is no room, the oldest again.
    Insert,
    Scan,
    ReadModifyWrite,
}

impl Verb {
    fn writes(self) -> bool {
        match self {
            Self::Get | Self::Scan => false,
            Self::Put | Self::Insert | Self::ReadModifyWrite => true,
        }
    }
}

/// Which keys are asked for.
#[derive(Clone, Debug)]
pub(crate) enum KeyRule {
    /// Zipf ranks over [`YCSB_ITEMS`], each hashed to a key.
    Scrambled(Zipf),
    /// Even within a hot part of the keys, and even within the rest: shares of keys and of
    /// operations.
    Hotspot {
        keys: f64,
        ops: f64,
    },
    /// Zipf ranks from the newest key back.
    Latest(Zipf),
    Uniform,
    /// One after the other, round after round; a scan takes as many as it reads.
    InOrder,
    Ranges(KeyRanges),
}

/// How many entries a scan reads at most.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Fixed(u32),
    /// From 1 to this, each equally likely.
    UpTo(u32),
    Pareto(Pareto),
}

impl Length {
    fn draw(&self, u: f64) -> u32 {
        match self {
            Self::Fixed(limit) => *limit,
            Self::UpTo(limit) => {
                let below = floor_u64(u * f64::from(*limit));
                to_u32(below).saturating_add(1).min(*limit)
            }
            // `u` may be 0, where the inversion has no value.
            Self::Pareto(pareto) => pareto.at(1.0 - u),
        }
    }
}

/// How a value's size is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ValueSizes {
    /// The tenant's `value_bytes`, always.
    #[default]
    Fixed,
    /// By this distribution; the tenant's `value_bytes` is its mean.
    Pareto(Pareto),
}

/// What every tenant of a workload asks for.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Verbs with their shares, which add up to 1.
    pub(crate) verbs: Vec<(f64, Verb)>,
    pub(crate) keys: KeyRule,
    pub(crate) length: Length,
    /// Share of scans that go to smaller keys.
    pub(crate) reverse_ratio: f64,
    /// Share of a tenant's keys that the load puts.
    pub(crate) loaded_ratio: f64,
}

impl Script {
    /// The share of operations that write.
    pub(crate) fn write_fraction(&self) -> f64 {
        self.verbs.iter().filter(|(_, verb)| verb.writes()).map(|(share, _)| share).sum()
    }

    /// Whether keys are inserted: then they lie in the key space in a seeded order.
    pub(crate) fn inserts(&self) -> bool {
        self.verbs.iter().any(|(_, verb)| *verb == Verb::Insert)
    }

    fn verb(&self, draw: f64) -> Verb {
        let mut end = 0.0;
        for (share, verb) in &self.verbs {
            end += share;
            if draw < end {
                return *verb;
            }
        }
        self.verbs.last().map_or(Verb::Get, |(_, verb)| *verb)
    }
}

/// How far a tenant is in its script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    key_count: u64,
    /// Keys that were loaded or inserted.
    present: u64,
    /// Inserts, and keys asked for in order.
    next: u64,
    order: Option<Permutation>,
    seed: u64,
}

impl Reader {
    pub(crate) fn new(script: &Script, tenant: &TenantProfile, seed: u64) -> Self {
        let (key_count, loaded) = (tenant.key_count.max(1), tenant.loaded_count);
        let order = script.inserts().then(|| Permutation::new(key_count, seed));
        let next = if order.is_some() { loaded } else { 0 };
        Self { key_count, present: loaded, next, order, seed }
    }

    /// What the tenant asks for next, from two draws of the unit interval and a stream of numbers.
    pub(crate) fn next(
        &mut self,
        script: &Script,
        (kind, detail): (f64, f64),
        rng: &mut Rng,
    ) -> OpKind {
        match script.verb(kind) {
            Verb::Insert => OpKind::Insert { key: self.insert() },
            Verb::Get => OpKind::Get { key: self.key(script, 1, rng) },
            Verb::Put => OpKind::Put { key: self.key(script, 1, rng) },
            Verb::ReadModifyWrite => OpKind::ReadModifyWrite { key: self.key(script, 1, rng) },
            Verb::Scan => {
                let limit = script.length.draw(detail);
                let key = self.key(script, u64::from(limit), rng);
                let reverse = script.reverse_ratio > 0.0 && rng.chance(script.reverse_ratio);
                OpKind::Scan { key, limit, reverse }
            }
        }
    }

    fn insert(&mut self) -> u64 {
        let place = self.next.checked_rem(self.key_count).unwrap_or(0);
        self.next = self.next.saturating_add(1);
        self.present = self.present.max(self.next.min(self.key_count));
        self.placed(place)
    }

    fn placed(&self, place: u64) -> u64 {
        self.order.map_or(place, |order| order.at(place))
    }

    fn key(&mut self, script: &Script, step: u64, rng: &mut Rng) -> u64 {
        let present = if self.order.is_some() { self.present.max(1) } else { self.key_count };
        let place = match &script.keys {
            KeyRule::Scrambled(zipf) => {
                let key_count = self.key_count;
                let draw =
                    |rng: &mut Rng| fnv64(zipf.sample(rng)).checked_rem(key_count).unwrap_or(0);
                let mut place = draw(rng);
                for _ in 0..DRAWS_MAX {
                    if place < present {
                        break;
                    }
                    place = draw(rng);
                }
                place.checked_rem(present).unwrap_or(0)
            }
            KeyRule::Hotspot { keys, ops } => hotspot((*keys, *ops), present, rng),
            KeyRule::Latest(zipf) => {
                let back = zipf.resized(present).sample(rng);
                // Behind the newest, which is the last one inserted once all room is taken.
                let newest = self.next.max(present).saturating_sub(1);
                newest.saturating_sub(back).checked_rem(self.key_count).unwrap_or(0)
            }
            KeyRule::Uniform => rng.below(present),
            KeyRule::InOrder => {
                let place = self.next.checked_rem(self.key_count).unwrap_or(0);
                self.next = place.saturating_add(step);
                place
            }
            KeyRule::Ranges(ranges) => ranges.sample(present, self.seed, rng),
        };
        self.placed(place)
    }
}

fn hotspot((keys, ops): (f64, f64), present: u64, rng: &mut Rng) -> u64 {
    let hot = floor_u64(to_f64(present) * keys).clamp(1, present);
    if rng.chance(ops) || hot == present {
        rng.below(hot)
    } else {
        hot.saturating_add(rng.below(present - hot))
    }
}
