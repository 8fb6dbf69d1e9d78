//! Random scans, moved about in both directions, against ordered maps.
#![cfg(test)]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use forebay_engine::blocking::{BlockingDb, BlockingScan, BlockingTenant};
use forebay_engine::env::mem::MemEnv;
use forebay_engine::options::{Layout, Options};
use forebay_engine::prefix::PrefixExtractor;
use forebay_engine::tenant::ScanOptions;
use forebay_engine::{Snapshot, WriteOptions};
use proptest::prelude::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Clone, Debug)]
enum Op {
    Put(usize, Vec<u8>),
    Delete(usize, Vec<u8>),
    Flush(usize),
    Compact(usize),
    Snapshot,
    Extractor(u8),
    Scan(Wish),
}

/// A range or a prefix, at a snapshot or now, and keys to move to after so many entries.
#[derive(Clone, Debug)]
struct Wish {
    tenant: usize,
    range: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    prefix: Option<Vec<u8>>,
    snapshot: Option<prop::sample::Index>,
    moves: Vec<(usize, Vec<u8>)>,
}

const TENANTS: usize = 3;

/// Short keys over few bytes, so that they meet, begin with one another and end in 0xff.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0, 1, b'/', 0xff]), 0..5)
}

fn any_bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        Just(Bound::Unbounded),
        any_key().prop_map(Bound::Included),
        any_key().prop_map(Bound::Excluded),
    ]
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let range = (any_bound(), any_bound());
    let prefix = prop::option::of(any_key());
    let moves = prop::collection::vec((0..6_usize, any_key()), 0..3);
    (0..TENANTS, range, prefix, prop::option::of(any::<prop::sample::Index>()), moves).prop_map(
        |(tenant, range, prefix, snapshot, moves)| Wish { tenant, range, prefix, snapshot, moves },
    )
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..TENANTS, any_key()).prop_map(|(t, key)| Op::Put(t, key)),
        5 => (0..TENANTS, any_key()).prop_map(|(t, key)| Op::Delete(t, key)),
        2 => (0..TENANTS).prop_map(Op::Flush),
        1 => (0..TENANTS).prop_map(Op::Compact),
        1 => Just(Op::Snapshot),
        1 => (0..4_u8).prop_map(Op::Extractor),
        6 => any_wish().prop_map(Op::Scan),
    ]
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

struct Model {
    db: BlockingDb<MemEnv>,
    layout: Layout,
    tenants: Vec<BlockingTenant<MemEnv>>,
    maps: Vec<Map>,
    snapshots: Vec<(Snapshot<MemEnv>, Vec<Map>)>,
    writes: u64,
}

impl Model {
    fn new(layout: Layout, cache_bytes: &str) -> Self {
        let mut options = Options { layout, ..Options::default() };
        for (key, value) in [
            ("block_cache_bytes", cache_bytes),
            ("block_bytes", "128"),
            ("restart_interval", "2"),
            ("table_bytes_max", "1024"),
            ("prefix_extractor", "fixed-2"),
            ("filter_bits_per_key", "16"),
        ] {
            options.set(key, value).unwrap();
        }
        let db = BlockingDb::open(MemEnv::default(), Path::new("/db"), options).unwrap();
        let tenants = db.create_tenants(&["a", "b", "c"]).unwrap();
        let maps = vec![Map::new(); TENANTS];
        Self { db, layout, tenants, maps, snapshots: Vec::new(), writes: 0 }
    }

    fn apply(&mut self, op: &Op) {
        let write = WriteOptions::default();
        match op {
            Op::Put(t, key) => {
                self.writes += 1;
                let value = [&self.writes.to_le_bytes()[..], &[7; 30]].concat();
                self.tenants[*t].put(key, &value, write).unwrap();
                self.maps[*t].insert(key.clone(), value);
            }
            Op::Delete(t, key) => {
                self.tenants[*t].delete(key, write).unwrap();
                self.maps[*t].remove(key);
            }
            Op::Flush(t) => self.tenants[*t].flush().unwrap(),
            Op::Compact(t) => self.tenants[*t].compact().unwrap(),
            Op::Snapshot => {
                self.snapshots.push((self.tenants[0].snapshot(), self.maps.clone()));
                if self.snapshots.len() > 3 {
                    self.snapshots.remove(0);
                }
            }
            Op::Extractor(i) => {
                let extractors = [
                    None,
                    Some(PrefixExtractor::FixedLength(1)),
                    Some(PrefixExtractor::FixedLength(3)),
                    Some(PrefixExtractor::Delimiter(b'/')),
                ];
                if self.layout == Layout::PerTenant {
                    let tenant = &self.tenants[usize::from(*i) % TENANTS];
                    tenant.set_prefix_extractor(extractors[usize::from(*i)]).unwrap();
                }
            }
            Op::Scan(wish) => {
                self.scan(wish, false);
                self.scan(wish, true);
            }
        }
    }

    fn scan(&self, wish: &Wish, reverse: bool) {
        let tenant = &self.tenants[wish.tenant];
        let at = wish.snapshot.filter(|_| !self.snapshots.is_empty());
        let at = at.map(|index| index.get(&self.snapshots));
        let options = ScanOptions::default();
        let mut options = if reverse { options.reversed() } else { options };
        if let Some((snapshot, _)) = at {
            options = options.at(snapshot);
        }
        let map = &at.map_or(&self.maps, |(_, maps)| maps)[wish.tenant];
        let mut expected: Pairs =
            map.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut scan = if let Some(prefix) = &wish.prefix {
            expected.retain(|(key, _)| key.starts_with(prefix));
            tenant.prefix_with(prefix, options).unwrap()
        } else {
            expected.retain(|(key, _)| std::ops::RangeBounds::contains(&wish.range, key));
            let range = (as_slices(&wish.range.0), as_slices(&wish.range.1));
            tenant.scan_with(range, options).unwrap()
        };
        if reverse {
            expected.reverse();
        }
        let mut rest = expected.as_slice();
        for (steps, key) in &wish.moves {
            start(&mut scan);
            for _ in 0..*steps {
                let next = rest.split_first();
                assert_eq!(pair(scan.next()).as_ref(), next.map(|(first, _)| first), "{wish:?}");
                rest = next.map_or(&[], |(_, rest)| rest);
            }
            scan.seek(key);
            let passed =
                expected.iter().take_while(|(k, _)| if reverse { k > key } else { k < key });
            rest = &expected[passed.count()..];
        }
        start(&mut scan);
        let found: Pairs = scan.map(|item| pair(Some(item)).unwrap()).collect();
        assert_eq!(found, rest, "{wish:?}, reverse {reverse}");
        for (key, value) in rest {
            let got = match at {
                Some((snapshot, _)) => tenant.get_at(snapshot, key).unwrap(),
                None => tenant.get(key).unwrap(),
            };
            assert_eq!(got.as_deref(), Some(&value[..]));
        }
    }
}

/// A scan that stays open, and what it has still to yield.
type Open = (BlockingScan<MemEnv>, Pairs);

impl Model {
    /// Opens a scan of all of a tenant, as of now.
    fn open_scan(&self, tenant: usize, reverse: bool) -> Open {
        let options = ScanOptions::default();
        let options = if reverse { options.reversed() } else { options };
        let mut rest: Pairs = self.maps[tenant].clone().into_iter().collect();
        if !reverse {
            rest.reverse();
        }
        (self.tenants[tenant].scan_with(.., options).unwrap(), rest)
    }
}

fn step((scan, rest): &mut Open) {
    assert_eq!(pair(scan.try_next().unwrap().map(Ok)), rest.pop());
}

/// A start loads a block of each table that it came to and that nothing ruled out.
fn start(scan: &mut BlockingScan<MemEnv>) {
    let before = *scan.stats();
    scan.start().unwrap();
    let after = *scan.stats();
    let blocks = after.data_blocks() - before.data_blocks();
    let considered = after.tables_considered - before.tables_considered;
    assert_eq!(blocks, considered - (after.tables_ruled_out() - before.tables_ruled_out()));
}

fn as_slices(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn pair(item: Option<forebay_engine::Result<(Bytes, Bytes)>>) -> Option<(Vec<u8>, Vec<u8>)> {
    item.map(|item| item.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Strategy: writes of three tenants in every layout, flushes, compactions, snapshots, changes
    /// of the prefix extractor; scans of ranges and prefixes, moved about, in both directions.
    /// Invariants: a scan yields what an ordered map says and no key of a neighbour, gets agree,
    /// and each start loads one block of each table that nothing rules out.
    #[test]
    fn scans_yield_what_a_map_says(
        layout in prop::sample::select(vec![Layout::PerTenant, Layout::Shared, Layout::Grouped(2)]),
        cache_bytes in prop::sample::select(vec!["0", "4096", "1048576"]),
        ops in prop::collection::vec(any_op(), 1..300),
    ) {
        let mut model = Model::new(layout, cache_bytes);
        for op in &ops {
            model.apply(op);
        }
        model.snapshots.clear();
        model.db.close().unwrap();
    }

    /// Strategy: scans in both directions are opened and moved on by turns, while keys are written,
    /// flushed and compacted, with and without a cache; then their tenants are dropped.
    /// Invariants: each yields what was there when it was opened, to its end.
    #[test]
    fn an_open_scan_yields_what_was_there_when_it_was_opened(
        layout in prop::sample::select(vec![Layout::PerTenant, Layout::Shared]),
        cache_bytes in prop::sample::select(vec!["0", "1048576"]),
        ops in prop::collection::vec((any_op(), 0..8_usize, any::<bool>()), 1..150),
    ) {
        let mut model = Model::new(layout, cache_bytes);
        let mut scans: Vec<Open> = Vec::new();
        for (i, (op, at, reverse)) in ops.iter().enumerate() {
            if i % 8 == 0 {
                scans.push(model.open_scan(at % TENANTS, *reverse));
            }
            if !matches!(op, Op::Scan(_)) {
                model.apply(op);
            }
            for scan in scans.iter_mut().skip(*at) {
                step(scan);
            }
        }
        for name in ["a", "b", "c"] {
            model.db.drop_tenant(name).unwrap();
        }
        for scan in &mut scans {
            while !scan.1.is_empty() {
                step(scan);
            }
            step(scan);
        }
    }
}
