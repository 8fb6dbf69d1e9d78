//! Iterators over tables on a world in memory: what they yield and what they load.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::env::mem::MemEnv;
use crate::env::{BlockingEnv, IoClass};
use crate::table::ReadStats;
use crate::table::TableMeta;
use crate::table::tests::{Space, collect, delete, numbered, put, space, write};
use crate::types::Kind;

fn below(upper: &str) -> ScanBounds {
    ScanBounds { upper: Edge::before(upper.as_bytes()), ..ScanBounds::default() }
}

fn table_iter(space: &Space, table: &Arc<TableMeta>, bounds: &ScanBounds) -> Box<dyn SortedIter> {
    Box::new(TableIter::new(Arc::clone(space), Arc::clone(table), bounds.clone()))
}

fn first(env: &MemEnv, space: &Space, iter: &mut dyn SortedIter) -> (Option<Entry>, ReadStats) {
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
            iter.seek(&Edge::before(from.as_bytes()));
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
    iter.seek(&Edge::before(b"key000250"));
    let (entry, stats) = first(&env, &space, &mut iter);
    assert_eq!(&*entry.unwrap().key, b"key000250");
    assert_eq!(
        (stats.data_blocks_read, stats.tables_considered, stats.tables_ruled_out()),
        (1, 3, 2)
    );

    // Between two tables: the block of the second and none of the first.
    let mut iter = level(ScanBounds::default());
    iter.seek(&Edge::before(b"key000399x"));
    let (entry, stats) = first(&env, &space, &mut iter);
    assert_eq!(&*entry.unwrap().key, b"key000400");
    assert_eq!(
        (stats.data_blocks_read, stats.tables_considered, stats.tables_ruled_out()),
        (1, 5, 4)
    );

    for (from, bounds) in [
        ("key000600", ScanBounds::default()),
        ("key000099x", below("key000100")),
        ("key000500", ScanBounds { seq: 500, ..ScanBounds::default() }),
    ] {
        let mut iter = level(bounds);
        iter.seek(&Edge::before(from.as_bytes()));
        let (entry, stats) = first(&env, &space, &mut iter);
        assert_eq!((entry, stats.data_blocks_read), (None, 0), "from {from}");
        assert_eq!((stats.index_blocks_read, stats.filter_blocks_read), (0, 0));
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
        iter.seek(&Edge::before(&pair[0].key));
        let mut ctx = ReadContext::default();
        assert_eq!(collect(&env, &space, &mut iter, &mut ctx).unwrap(), pair[..1]);
        read += ctx.stats.data_blocks_cached + ctx.stats.data_blocks_read;
    }
    // The index knows where the next block begins: it is not loaded for being at the bound.
    assert_eq!(read, 50);
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
    iter.seek(&Edge::before(b"a"));
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

fn name(key: u8) -> String {
    format!("k{key:02}")
}

fn any_edge() -> impl Strategy<Value = Edge> {
    (0..34_u8, any::<bool>()).prop_map(|(key, behind)| match (key, behind) {
        (32, _) => Edge::START,
        (33, _) => Edge::End,
        (_, false) => Edge::before(name(key).as_bytes()),
        (_, true) => Edge::behind(name(key).as_bytes()),
    })
}

/// Hands out an entry a step, and fails before the one at `fails_at` until it was asked `failures`
/// times.
#[derive(Debug)]
struct Faulty {
    entries: Vec<Entry>,
    at: usize,
    fails_at: usize,
    failures: u32,
}

impl SortedIter for Faulty {
    fn seek(&mut self, _edge: &Edge) {
        self.at = 0;
    }

    fn next_step(&mut self, _ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        if self.at == self.fails_at && self.failures > 0 {
            self.failures -= 1;
            return Err(crate::Error::corruption("/db/1.sst".as_ref(), 0, "made up"));
        }
        self.at += 1;
        Ok(Step::Ready(self.entries.get(self.at - 1).cloned()))
    }
}

#[test]
fn an_error_of_any_source_surfaces_and_nothing_is_skipped() {
    let all = numbered(12);
    for (reverse, fails_at, faulty) in
        (0..2).flat_map(|r| (0..5).flat_map(move |at| (0..3).map(move |f| (r == 1, at, f))))
    {
        let source = |source: usize| -> Box<dyn SortedIter> {
            let mut entries: Vec<_> = all.iter().skip(source).step_by(3).cloned().collect();
            if reverse {
                entries.reverse();
            }
            let failures = if source == faulty { 2 } else { 0 };
            Box::new(Faulty { entries, at: 0, fails_at, failures })
        };
        let sources = (0..3).map(source).collect();
        let merge = if reverse { MergeIter::reverse(sources) } else { MergeIter::new(sources) };
        let bounds = ScanBounds { reverse, ..ScanBounds::default() };
        let mut iter = VisibleIter::new(merge, bounds);
        let mut ctx = ReadContext::default();
        let (mut found, mut errors) = (Vec::new(), 0);
        loop {
            match iter.next_step(&mut ctx) {
                Ok(Step::Ready(Some(entry))) => found.push(entry),
                Ok(Step::Ready(None)) => break,
                Ok(Step::Need(need)) => panic!("{need:?}"),
                Err(_) => errors += 1,
            }
        }
        if reverse {
            found.reverse();
        }
        assert_eq!((errors, &found), (2, &all), "{reverse} {fails_at} {faulty}");
    }
}

/// A table whose entry `bad` has an unknown kind, under right checksums.
fn with_unknown_kind(entries: &[Entry], bad: usize) -> Arc<crate::table::block::Block> {
    let mut builder = crate::table::block_builder::BlockBuilder::new(3);
    for (i, entry) in entries.iter().enumerate() {
        let mut key = Vec::new();
        crate::table::format::set_stored_key(&mut key, entry);
        if i == bad {
            *key.last_mut().unwrap() = !9;
        }
        builder.add(&key, &entry.value);
    }
    let block = builder.finish(|content| {
        crate::table::block::Block::decode(0, Bytes::copy_from_slice(content)).unwrap()
    });
    Arc::new(block)
}

#[test]
fn a_cursor_does_not_pass_an_entry_it_cannot_read() {
    use crate::table::block::{BlockCursor, ReverseCursor};
    let entries = numbered(8);
    for bad in 0..entries.len() {
        let block = with_unknown_kind(&entries, bad);
        let mut forward = BlockCursor::new(Arc::clone(&block), Vec::new());
        for entry in &entries[..bad] {
            assert_eq!(forward.next_entry().unwrap().as_ref(), Some(entry));
        }
        assert!(forward.next_entry().is_err());
        assert!(forward.next_entry().is_err());
        let mut back = ReverseCursor::new(block, Vec::new());
        for entry in entries[bad + 1..].iter().rev() {
            assert_eq!(back.previous_entry().unwrap().as_ref(), Some(entry));
        }
        assert!(back.previous_entry().is_err());
        assert!(back.previous_entry().is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Strategy: versions of few keys spread over overlapping tables and one run, whose tables may
    /// share a key's versions.
    /// Invariants: a visible scan yields what a plain map says, in both directions, between any
    /// edges, from any place in them, at any sequence number, with and without a cache. Its start
    /// loads no more than a block of each table that its range touches, one table of the run.
    #[test]
    fn a_scan_yields_what_a_map_says(
        versions in proptest::collection::btree_map(
            1..200_u64,
            (0..30_u8, any::<bool>(), 0..4_usize),
            1..150,
        ),
        (lower, upper) in (any_edge(), any_edge()),
        places in proptest::collection::vec(any_edge(), 0..4),
        reverse in any::<bool>(),
        seq in 0..210_u64,
        cache_bytes in prop_oneof![Just(0_u64), Just(1 << 20)],
    ) {
        let env = MemEnv::default();
        let space = space(&env, cache_bytes);
        let mut parts = vec![Vec::new(); 4];
        for (seq, (key, is_put, part)) in &versions {
            let key = name(*key);
            let entry = if *is_put { put(&key, *seq, "v") } else { delete(&key, *seq) };
            parts[*part].push(entry);
        }
        let bounds = ScanBounds { lower, upper, seq, reverse, prefix: None };
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
        let runs = u64::try_from(sources.len()).unwrap();
        let merge =
            if reverse { MergeIter::reverse(sources) } else { MergeIter::new(sources) };
        let mut iter = VisibleIter::new(merge, bounds.clone());
        let mut visible = std::collections::BTreeMap::new();
        for (version, (key, is_put, _)) in versions.range(..=seq) {
            visible.insert(name(*key), (*version, *is_put));
        }
        let mut expected: Vec<_> = visible
            .into_iter()
            .filter(|(key, (_, is_put))| {
                let key = key.as_bytes();
                *is_put && !bounds.lower.is_behind(key) && bounds.upper.is_behind(key)
            })
            .map(|(key, (seq, _))| (Bytes::from(key), seq, Kind::Put))
            .collect();
        if reverse {
            expected.reverse();
        }
        let mut ctx = ReadContext::default();
        for place in [bounds.start().clone()].into_iter().chain(places) {
            let place = place.max(bounds.lower.clone()).min(bounds.upper.clone());
            iter.seek(&place);
            let before = ctx.stats.data_blocks();
            env.block_on(async {
                while let Step::Need(need) = iter.source_mut().fill(&mut ctx).unwrap() {
                    space.load(need, &mut ctx).await.unwrap();
                }
            });
            prop_assert!(ctx.stats.data_blocks() - before <= runs);
            let found = collect(&env, &space, &mut iter, &mut ctx).unwrap();
            let found: Vec<_> = found.into_iter().map(|e| (e.key, e.seq, e.kind)).collect();
            let mut expected = expected.clone();
            expected.retain(|(key, ..)| place.is_behind(key) == reverse);
            prop_assert_eq!(found, expected);
        }
    }
}
