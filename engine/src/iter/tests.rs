//! Iterators over tables on a world in memory: what they yield and what they load.

use core::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::env::IoClass;
use crate::env::mem::MemEnv;
use crate::table::ReadStats;
use crate::table::TableMeta;
use crate::table::tests::{Space, collect, delete, numbered, put, space, write};
use crate::types::Kind;

fn below(upper: &str) -> ScanBounds {
    let upper = Bound::Excluded(Bytes::copy_from_slice(upper.as_bytes()));
    ScanBounds { upper, ..ScanBounds::default() }
}

fn table_iter(space: &Space, table: &Arc<TableMeta>, bounds: &ScanBounds) -> Box<dyn SortedIter> {
    Box::new(TableIter::new(Arc::clone(space), Arc::clone(table), bounds.clone()))
}

fn first(env: &MemEnv, space: &Space, iter: &mut dyn SortedIter) -> (Option<Entry>, ReadStats) {
    use crate::env::BlockingEnv;
    let mut ctx = ReadContext::default();
    let entry = env.block_on(next(iter, space, &mut ctx)).unwrap();
    (entry, ctx.stats)
}

#[test]
fn a_scan_begins_with_one_block_of_each_overlapping_table() {
    let env = MemEnv::default();
    let all = numbered(600);
    let tables: Vec<_> = (0..5_u64)
        .map(|k| {
            let part = all.iter().skip(usize::try_from(k).unwrap()).step_by(5).cloned();
            write(&env, k, &part.collect::<Vec<_>>())
        })
        .collect();
    for cache_bytes in [0, 1 << 20] {
        for (from, upper) in [("", "z"), ("key000300", "key000310"), ("key0003005", "z")] {
            let space = space(&env, cache_bytes);
            let bounds = below(upper);
            let sources = tables.iter().map(|table| table_iter(&space, table, &bounds)).collect();
            let mut iter = VisibleIter::new(MergeIter::new(sources), bounds.clone());
            iter.seek(from.as_bytes());
            let (entry, stats) = first(&env, &space, &mut iter);
            assert!(entry.is_some());
            assert_eq!(stats.data_blocks_read, 5, "from {from} below {upper}");
            assert_eq!(stats.tables_considered, 5);
        }
    }
}

#[test]
fn a_run_opens_one_table_and_bounds_cost_no_block() {
    let env = MemEnv::default();
    let all = numbered(600);
    let run: Vec<_> = (0..6).zip(all.chunks(100)).map(|(k, part)| write(&env, k, part)).collect();
    let space = space(&env, 1 << 20);
    let level = |bounds| LevelIter::new(Arc::clone(&space), run.clone(), bounds);

    let mut iter = level(ScanBounds::default());
    iter.seek(b"key000250");
    let (entry, stats) = first(&env, &space, &mut iter);
    assert_eq!(&*entry.unwrap().key, b"key000250");
    assert_eq!((stats.data_blocks_read, stats.tables_considered), (1, 1));

    // Between two tables: the block of the second and none of the first.
    let mut iter = level(ScanBounds::default());
    iter.seek(b"key000399x");
    let (entry, stats) = first(&env, &space, &mut iter);
    assert_eq!(&*entry.unwrap().key, b"key000400");
    assert_eq!((stats.data_blocks_read, stats.tables_considered), (1, 1));

    for (from, bounds) in [
        ("key000600", ScanBounds::default()),
        ("key000099x", below("key000100")),
        ("key000500", ScanBounds { seq: 500, ..ScanBounds::default() }),
    ] {
        let mut iter = level(bounds);
        iter.seek(from.as_bytes());
        let (entry, stats) = first(&env, &space, &mut iter);
        assert_eq!((entry, stats.data_blocks_read), (None, 0), "from {from}");
        assert_eq!(stats.index_filter_blocks_read, 0);
    }

    let mut ctx = ReadContext::default();
    assert_eq!(collect(&env, &space, &mut level(ScanBounds::default()), &mut ctx).unwrap(), all);
}

#[test]
fn a_scan_stops_at_its_bound_without_another_block() {
    let env = MemEnv::default();
    let all = numbered(600);
    let table = write(&env, 1, &all);
    let space = space(&env, 1 << 20);
    let mut ctx = ReadContext::default();
    let mut iter = table_iter(&space, &table, &ScanBounds::default());
    collect(&env, &space, &mut iter, &mut ctx).unwrap();
    let blocks = ctx.stats.data_blocks_read;
    assert!(blocks > 50, "{blocks}");

    let warm = space.block_cache().bytes();
    let mut read = 0;
    for pair in all.windows(2).take(50) {
        let bounds = below(std::str::from_utf8(&pair[1].key).unwrap());
        let mut iter = VisibleIter::new(table_iter(&space, &table, &bounds), bounds.clone());
        iter.seek(&pair[0].key);
        let mut ctx = ReadContext::default();
        assert_eq!(collect(&env, &space, &mut iter, &mut ctx).unwrap(), pair[..1]);
        read += ctx.stats.data_blocks_cached + ctx.stats.data_blocks_read;
    }
    // The bound is the next block's first key now and then, which only that block knows.
    assert!((50..=75).contains(&read), "{read}");
    assert_eq!(space.block_cache().bytes(), warm);
}

#[test]
fn read_ahead_reads_the_same_blocks_and_fills_no_cache() {
    let env = MemEnv::default();
    let all = numbered(600);
    let table = write(&env, 1, &all);
    let plain = space(&env, 0);
    let mut ctx = ReadContext::default();
    let mut iter = table_iter(&plain, &table, &ScanBounds::default());
    collect(&env, &plain, &mut iter, &mut ctx).unwrap();
    let space = space(&env, 1 << 20);
    let mut bulk = ReadContext::bulk(IoClass::Compaction, 1_000);
    let mut iter = table_iter(&space, &table, &ScanBounds::default());
    assert_eq!(collect(&env, &space, &mut iter, &mut bulk).unwrap(), all);
    assert_eq!(bulk.stats.data_blocks_read, ctx.stats.data_blocks_read);
    assert_eq!(space.block_cache().bytes(), 0);
    // Not behind the bound either.
    let bounds = below("key000002");
    let mut iter = table_iter(&space, &table, &bounds);
    let mut bulk = ReadContext::bulk(IoClass::Compaction, 1 << 20);
    collect(&env, &space, &mut iter, &mut bulk).unwrap();
    assert_eq!(bulk.stats.data_blocks_read, 1);
}

#[test]
fn equal_entries_are_handed_out_once_and_the_first_source_wins() {
    let env = MemEnv::default();
    let newer = write(&env, 1, &[put("a", 5, "newer"), put("b", 6, "b")]);
    let older = write(&env, 2, &[put("a", 5, "older"), put("a", 4, "a4"), put("c", 1, "c")]);
    let space = space(&env, 0);
    let bounds = ScanBounds::default();
    let sources = [&newer, &older].map(|table| table_iter(&space, table, &bounds));
    let mut iter = MergeIter::new(sources.into());
    let expected =
        vec![put("a", 5, "newer"), put("a", 4, "a4"), put("b", 6, "b"), put("c", 1, "c")];
    let mut ctx = ReadContext::default();
    assert_eq!(collect(&env, &space, &mut iter, &mut ctx).unwrap(), expected);
    assert_eq!(collect(&env, &space, &mut iter, &mut ctx).unwrap(), []);
    iter.seek(b"a");
    assert_eq!(collect(&env, &space, &mut iter, &mut ctx).unwrap(), expected);
}

#[test]
fn a_tombstone_hides_older_versions_from_readers_that_see_it() {
    let env = MemEnv::default();
    let entries =
        [put("a", 9, "a9"), delete("a", 5), put("a", 2, "a2"), delete("b", 4), put("c", 7, "c7")];
    let table = write(&env, 1, &entries);
    let space = space(&env, 0);
    for (seq, expected) in [
        (9, vec![put("a", 9, "a9"), put("c", 7, "c7")]),
        (8, vec![put("c", 7, "c7")]),
        (5, vec![]),
        (4, vec![put("a", 2, "a2")]),
        (1, vec![]),
    ] {
        let bounds = ScanBounds { seq, ..ScanBounds::default() };
        let mut iter = VisibleIter::new(table_iter(&space, &table, &bounds), bounds);
        let mut ctx = ReadContext::default();
        assert_eq!(collect(&env, &space, &mut iter, &mut ctx).unwrap(), expected, "at {seq}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Strategy: versions of few keys spread over overlapping tables and one run.
    /// Invariants: a visible scan yields what a plain map says, from any key, below any bound, at
    /// any sequence number, with and without a cache.
    #[test]
    fn a_scan_yields_what_a_map_says(
        versions in proptest::collection::btree_map(
            1..200_u64,
            (0..30_u8, any::<bool>(), 0..4_usize),
            1..150,
        ),
        from in 0..32_u8,
        upper in 0..34_u8,
        inclusive in any::<bool>(),
        seq in 0..210_u64,
        cache_bytes in prop_oneof![Just(0_u64), Just(1 << 20)],
    ) {
        let env = MemEnv::default();
        let space = space(&env, cache_bytes);
        let name = |key: u8| format!("k{key:02}");
        let mut parts = vec![Vec::new(); 4];
        for (seq, (key, is_put, part)) in &versions {
            let key = name(*key);
            let entry = if *is_put { put(&key, *seq, "v") } else { delete(&key, *seq) };
            parts[*part].push(entry);
        }
        let end = Bytes::from(name(upper));
        let bounds = match (upper, inclusive) {
            (33, _) => Bound::Unbounded,
            (_, true) => Bound::Included(end),
            (_, false) => Bound::Excluded(end),
        };
        let bounds = ScanBounds { upper: bounds, seq };
        let mut sources: Vec<Box<dyn SortedIter>> = Vec::new();
        let mut number = 0;
        for (i, mut part) in parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty()) {
            part.sort_by(Entry::cmp_internal);
            let mut tables = Vec::new();
            for chunk in part.chunks(if i == 0 { 7 } else { usize::MAX }) {
                number += 1;
                tables.push(write(&env, number, chunk));
            }
            sources.push(if i == 0 {
                Box::new(LevelIter::new(Arc::clone(&space), tables, bounds.clone()))
            } else {
                table_iter(&space, &tables[0], &bounds)
            });
        }
        let mut iter = VisibleIter::new(MergeIter::new(sources), bounds.clone());
        iter.seek(name(from).as_bytes());
        let found = collect(&env, &space, &mut iter, &mut ReadContext::default()).unwrap();
        let mut expected = std::collections::BTreeMap::new();
        for (version, (key, is_put, _)) in versions.range(..=seq) {
            expected.insert(name(*key), (*version, *is_put));
        }
        let expected: Vec<_> = expected
            .into_iter()
            .filter(|(key, (_, is_put))| *is_put && *key >= name(from))
            .filter(|(key, _)| !bounds.ends_before(key.as_bytes()))
            .map(|(key, (seq, _))| (Bytes::from(key), seq, Kind::Put))
            .collect();
        let found: Vec<_> = found.into_iter().map(|e| (e.key, e.seq, e.kind)).collect();
        prop_assert_eq!(found, expected);
    }
}
