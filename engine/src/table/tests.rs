//! Tables from builder to reader, on a world in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::format::FOOTER_BYTES;
use super::*;
use crate::Error;
use crate::env::mem::MemEnv;
use crate::env::{BlockingEnv, Env, File, IoClass};
use crate::iter::{self, Edge, ScanBounds, SortedIter, TableIter};
use crate::prefix::PrefixExtractor;
use crate::types::{Entry, Kind, to_u64};

pub(crate) type Space = Arc<TableSpace<MemEnv>>;

const DIR: &str = "/db";

pub(crate) fn put(key: &str, seq: u64, value: &str) -> Entry {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    Entry { key, seq, kind: Kind::Put, value }
}

pub(crate) fn delete(key: &str, seq: u64) -> Entry {
    Entry { kind: Kind::Delete, ..put(key, seq, "") }
}

pub(crate) fn small() -> TableFormat {
    TableFormat { block_bytes: 128, restart_interval: 3, ..TableFormat::default() }
}

pub(crate) fn space(env: &MemEnv, cache_bytes: u64) -> Space {
    Arc::new(TableSpace::new(env.clone(), Path::new(DIR), cache_bytes, 2))
}

pub(super) fn build(entries: &[Entry], format: TableFormat) -> (Vec<u8>, FinishedTable) {
    let mut builder = TableBuilder::new(TreeId(7), format);
    let mut bytes = Vec::new();
    for entry in entries {
        builder.add(entry).unwrap();
        if builder.finished_bytes() > 300 {
            bytes.append(&mut builder.take_output());
        }
    }
    let finished = builder.finish().unwrap();
    bytes.extend_from_slice(&finished.rest);
    assert_eq!(to_u64(bytes.len()), finished.bytes());
    (bytes, finished)
}

pub(super) fn store(env: &MemEnv, number: u64, bytes: &[u8]) {
    env.block_on(async {
        env.create_dir(Path::new(DIR)).await.unwrap();
        let file = env.create(&table_path(Path::new(DIR), number)).await.unwrap();
        file.append(bytes, IoClass::Flush).await.unwrap();
    });
}

/// A table behind some other bytes of its file.
pub(crate) fn write(env: &MemEnv, number: u64, entries: &[Entry]) -> Arc<TableMeta> {
    let (bytes, finished) = build(entries, small());
    let mut file = vec![0xaa; 37];
    file.extend_from_slice(&bytes);
    store(env, number, &file);
    Arc::new(finished.meta(TableId { file: number, offset: 37 }))
}

pub(super) fn get(
    env: &MemEnv,
    space: &Space,
    table: &Arc<TableMeta>,
    key: &str,
    seq: u64,
) -> Option<Entry> {
    let mut ctx = ReadContext::default();
    let found = env.block_on(space.get(table, key.as_bytes(), seq, &mut ctx)).unwrap();
    assert!(ctx.pinned.is_empty());
    found
}

pub(crate) fn collect<I: SortedIter>(
    env: &MemEnv,
    space: &Space,
    iter: &mut I,
    ctx: &mut ReadContext,
) -> Result<Vec<Entry>, Error> {
    env.block_on(async {
        let mut entries = Vec::new();
        while let Some(entry) = iter::next(iter, space, ctx).await? {
            entries.push(entry);
        }
        Ok(entries)
    })
}

pub(crate) fn numbered(n: u64) -> Vec<Entry> {
    (0..n).map(|i| put(&format!("key{i:06}"), i + 1, &format!("value {i}"))).collect()
}

#[test]
fn versions_of_one_key_may_span_blocks() {
    let env = MemEnv::default();
    let mut entries = vec![put("a", 1, "first")];
    for seq in (10..=200).rev() {
        entries.push(if seq % 7 == 0 { delete("k", seq) } else { put("k", seq, "some value") });
    }
    entries.push(put("kk", 3, "longer key, smaller bytes behind it"));
    let table = write(&env, 1, &entries);
    for cache_bytes in [0, 1 << 20] {
        let space = space(&env, cache_bytes);
        for seq in 10..=200 {
            let found = get(&env, &space, &table, "k", seq).unwrap();
            assert_eq!((found.seq, found.kind == Kind::Delete), (seq, seq % 7 == 0));
        }
        assert_eq!(get(&env, &space, &table, "k", 9), None);
        assert_eq!(get(&env, &space, &table, "k", u64::MAX).unwrap().seq, 200);
        assert_eq!(get(&env, &space, &table, "kk", 3).unwrap().seq, 3);
        assert_eq!(get(&env, &space, &table, "j", 300), None);
    }
}

#[test]
fn a_get_costs_one_data_block_and_none_where_filter_or_bounds_rule_it_out() {
    let env = MemEnv::default();
    let entries: Vec<_> = numbered(500).into_iter().step_by(2).collect();
    let table = write(&env, 1, &entries);
    let space = space(&env, 1 << 20);
    let run = |key: &str, seq: u64| {
        let mut ctx = ReadContext::default();
        env.block_on(space.get(&table, key.as_bytes(), seq, &mut ctx)).unwrap();
        ctx.stats
    };
    let considered = ReadStats { tables_considered: 1, ..ReadStats::default() };
    let out = ReadStats { tables_ruled_out_by_bounds: 1, ..considered };
    assert_eq!(run("kex", 1_000), out);
    assert_eq!(run("key1", 1_000), out);
    let too_new = ReadStats { tables_ruled_out_by_seq: 1, ..considered };
    assert_eq!(run("key000000", 0), too_new);
    let by_filter = ReadStats { tables_ruled_out_by_filter: 1, ..considered };
    let asked = ReadStats { filter_blocks_read: 1, footers_read: 1, ..by_filter };
    assert_eq!(run("key000101", 1_000), asked);
    let asked = ReadStats { filter_blocks_cached: 1, ..by_filter };
    assert_eq!(run("key000101", 1_000), asked);
    let warm = ReadStats { filter_blocks_cached: 1, ..considered };
    let cold = ReadStats { data_blocks_read: 1, index_blocks_read: 1, ..warm };
    assert_eq!(run("key000100", 1_000), cold);
    let hot = ReadStats { data_blocks_cached: 1, index_blocks_cached: 1, ..warm };
    assert_eq!(run("key000100", 1_000), hot);
    space.purge_file(1);
    assert_eq!(space.block_cache().bytes(), 0);
    assert_eq!(space.open_count(), 0);
}

fn may_hold(
    env: &MemEnv,
    space: &Space,
    table: &Arc<TableMeta>,
    (extractor, prefix): (&TreeExtractor, &[u8]),
    ctx: &mut ReadContext,
) -> bool {
    let found = loop {
        match space.may_hold_prefix(table, (extractor, prefix), ctx) {
            Step::Ready(found) => break found,
            Step::Need(need) => env.block_on(space.load(need, ctx)).unwrap(),
        }
    };
    assert!(found || ctx.pinned.is_empty());
    found
}

#[test]
fn a_prefix_rules_out_tables_of_its_extractor_and_no_other() {
    let env = MemEnv::default();
    let own: TreeExtractor = "delimiter-2f".parse().unwrap();
    let keys = |from: u64| -> Vec<Entry> {
        (0..40).map(|i| put(&format!("u{:04}/{i}", from + i * 2), i + 1, "v")).collect()
    };
    let (mut tables, space) = (Vec::new(), space(&env, 1 << 20));
    let formats = [Some("delimiter-2f"), Some("fixed-6"), Some("8+delimiter-2f"), None];
    for (number, name) in (1..).zip(formats) {
        let extractor = name.map(|name| name.parse().unwrap());
        let (bytes, finished) = build(&keys(0), TableFormat { extractor, ..small() });
        store(&env, number, &bytes);
        tables.push(Arc::new(finished.meta(TableId { file: number, offset: 0 })));
    }
    let without = TableFormat { filter_bits_per_key: 0, extractor: Some(own), ..small() };
    let (bytes, finished) = build(&keys(0), without);
    store(&env, 9, &bytes);
    tables.push(Arc::new(finished.meta(TableId { file: 9, offset: 0 })));
    let ask = |table: &Arc<TableMeta>, prefix: &[u8], ctx: &mut ReadContext| {
        may_hold(&env, &space, table, (&own, prefix), ctx)
    };
    let mut ruled_out = [0; 5];
    for i in 0..80 {
        let prefix = format!("u{i:04}/");
        for (count, table) in ruled_out.iter_mut().zip(&tables) {
            let mut ctx = ReadContext::default();
            let found = ask(table, prefix.as_bytes(), &mut ctx);
            assert!(found || i % 2 == 1, "{prefix} is there");
            let out = u64::from(!found);
            *count += out;
            let considered = (ctx.stats.tables_considered, ctx.stats.tables_ruled_out_by_prefix);
            assert_eq!(considered, (out, out));
            assert_eq!((ctx.stats.data_blocks_read, ctx.stats.data_blocks_cached), (0, 0));
        }
    }
    assert!((35..=40).contains(&ruled_out[0]), "{ruled_out:?}");
    assert_eq!(ruled_out[1..], [0; 4]);
    // A whole key is no prefix, although both are in one filter.
    let mut ctx = ReadContext::default();
    let passed =
        (0..40).filter(|i| ask(&tables[0], format!("u{:04}/{i}", i * 2).as_bytes(), &mut ctx));
    assert!(passed.count() < 5);
}

#[test]
fn a_table_without_a_filter_is_read() {
    let env = MemEnv::default();
    let format = TableFormat {
        block_bytes: 0,
        restart_interval: 0,
        filter_bits_per_key: 0,
        ..TableFormat::default()
    };
    let (bytes, finished) = build(&numbered(20), format);
    store(&env, 5, &bytes);
    let table = Arc::new(finished.meta(TableId { file: 5, offset: 0 }));
    let space = space(&env, 1 << 20);
    for i in 0..20 {
        assert!(get(&env, &space, &table, &format!("key{i:06}"), 100).is_some());
        assert!(get(&env, &space, &table, &format!("key{i:06}x"), 100).is_none());
    }
}

#[test]
fn a_table_describes_itself() {
    let env = MemEnv::default();
    let table = write(&env, 3, &[put("a", 9, "x"), delete("b", 4), put("b", 2, "")]);
    let space = space(&env, 0);
    let properties = env.block_on(space.describe(table.id, table.bytes)).unwrap();
    assert_eq!(properties.meta, *table);
    assert_eq!((table.tree, table.entries, table.tombstones), (TreeId(7), 3, 1));
    assert_eq!((&*table.smallest, &*table.largest), (&b"a"[..], &b"b"[..]));
    assert_eq!((table.min_seq, table.max_seq), (2, 9));
    let mut ctx = ReadContext::default();
    assert_eq!(env.block_on(space.properties(&table, &mut ctx)).unwrap(), properties);
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    assert_eq!(TableMeta::decode(&mut Decoder::new(&bytes)), Some((*table).clone()));
    for end in 0..bytes.len() {
        let mut d = Decoder::new(&bytes[..end]);
        assert_eq!(TableMeta::decode(&mut d), None);
    }
}

#[test]
fn a_builder_refuses_what_is_out_of_order_and_a_table_of_nothing() {
    let mut builder = TableBuilder::new(TreeId(1), TableFormat::default());
    builder.add(&put("b", 5, "")).unwrap();
    for wrong in [put("a", 9, ""), put("b", 5, ""), delete("b", 5), put("b", 6, "")] {
        assert!(matches!(builder.add(&wrong), Err(Error::InvalidArgument(_))), "{wrong:?}");
    }
    assert!(builder.add(&put("c", SEQ_MAX + 1, "")).is_err());
    builder.add(&put("b", 4, "")).unwrap();
    let estimate = builder.estimated_bytes();
    let bytes = builder.finish().unwrap().bytes();
    assert!(estimate.abs_diff(bytes) < 100, "{estimate} {bytes}");
    assert!(TableBuilder::new(TreeId(1), TableFormat::default()).finish().is_err());
}

#[test]
fn a_large_entry_is_read_back() {
    let env = MemEnv::default();
    let value = Bytes::from(vec![b'v'; crate::types::VALUE_BYTES_MAX]);
    let key = Bytes::from(vec![b'k'; crate::types::KEY_BYTES_MAX + 8]);
    let entry = Entry { key, seq: SEQ_MAX, kind: Kind::Put, value };
    let table = write(&env, 1, std::slice::from_ref(&entry));
    let space = space(&env, 0);
    let mut ctx = ReadContext::default();
    let found = env.block_on(space.get(&table, &entry.key, SEQ_MAX, &mut ctx)).unwrap();
    assert_eq!(found, Some(entry));
}

#[test]
fn damage_names_file_and_absolute_offset() {
    let env = MemEnv::default();
    let (mut bytes, finished) = build(&numbered(10), small());
    bytes[5] ^= 1;
    let mut file = vec![0; 100];
    file.extend_from_slice(&bytes);
    store(&env, 4, &file);
    let table = Arc::new(finished.meta(TableId { file: 4, offset: 100 }));
    let space = space(&env, 1 << 20);
    let mut ctx = ReadContext::default();
    let error = env.block_on(space.get(&table, b"key000000", 100, &mut ctx)).unwrap_err();
    assert_eq!(error.location(), (Some(Path::new("/db/000004.sst")), Some(100)));
    assert!(error.to_string().contains("checksum"), "{error}");
    // Cut inside the footer, then gone.
    store(&env, 4, &file[..file.len() - 1]);
    space.purge_file(4);
    let mut ctx = ReadContext::default();
    let error = env.block_on(space.get(&table, b"key000000", 100, &mut ctx)).unwrap_err();
    assert_eq!(error.kind(), "corruption");
    assert_eq!(error.location().1, Some(100 + table.bytes - FOOTER_BYTES));
    env.block_on(env.remove(&table_path(Path::new(DIR), 4))).unwrap();
    space.purge_file(4);
    let mut ctx = ReadContext::default();
    let error = env.block_on(space.get(&table, b"key000000", 100, &mut ctx)).unwrap_err();
    assert!(error.is_not_found());
}

#[test]
fn a_valid_block_or_table_in_the_wrong_place_is_damage() {
    let env = MemEnv::default();
    let format = TableFormat { block_bytes: 1, ..small() };
    let (first, finished) = build(&[put("a", 1, "x"), put("b", 2, "y")], format);
    let (other, _) = build(&[put("a", 3, "x"), put("b", 4, "y")], format);
    let table = Arc::new(finished.meta(TableId { file: 1, offset: 0 }));
    assert_eq!(first.len(), other.len());
    let half = usize::try_from(finished.bytes() - FOOTER_BYTES).unwrap();
    let block = 3 + 9 + 1 + 8 + 5;
    let mut swapped = first.clone();
    swapped.copy_within(block..2 * block, 0);
    let mut from_other = first.clone();
    from_other[..block].copy_from_slice(&other[..block]);
    let mut all_but_footer = other.clone();
    all_but_footer[half..].copy_from_slice(&first[half..]);
    let space = space(&env, 0);
    for (bytes, good) in
        [(first, true), (swapped, false), (from_other, false), (all_but_footer, false)]
    {
        store(&env, 1, &bytes);
        let mut ctx = ReadContext::default();
        let found = env.block_on(space.get(&table, b"a", 9, &mut ctx));
        assert_eq!(found.is_ok(), good, "{found:?}");
        space.purge_file(1);
    }
}

pub(super) fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
    let key = proptest::collection::vec(0..3_u8, 0..5);
    let value = proptest::collection::vec(any::<u8>(), 0..40);
    let model = proptest::collection::btree_map((key, 0..20_u64), (any::<bool>(), value), 1..120);
    model.prop_map(|model: BTreeMap<(Vec<u8>, u64), _>| {
        let mut entries: Vec<_> = model
            .into_iter()
            .map(|((key, seq), (is_put, value))| Entry {
                key: key.into(),
                seq: seq + 1,
                kind: if is_put { Kind::Put } else { Kind::Delete },
                value: if is_put { value.into() } else { Bytes::new() },
            })
            .collect();
        entries.sort_by(Entry::cmp_internal);
        entries
    })
}

pub(super) fn any_format() -> impl Strategy<Value = TableFormat> {
    let extractor = proptest::option::of((1..3_u32).prop_map(|len| TreeExtractor {
        layout_bytes: 0,
        extractor: PrefixExtractor::FixedLength(len),
    }));
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Lz4)];
    let sizes = (0..400_u32, 0..6_u32, 0..14_u32);
    (sizes, extractor, compression).prop_map(|(sizes, extractor, compression)| TableFormat {
        block_bytes: sizes.0,
        restart_interval: sizes.1,
        filter_bits_per_key: sizes.2,
        extractor,
        compression,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Strategy: random versions of few short keys, so that keys are prefixes of each other.
    /// Invariants: what was added is read, by key at every sequence number and by iteration from
    /// every key, with a cache of any size and with read-ahead.
    #[test]
    fn what_was_added_is_read(
        entries in any_entries(),
        format in any_format(),
        cache_bytes in prop_oneof![Just(0_u64), Just(1_000), Just(1 << 20)],
        readahead in 0..2_000_u32,
        from in proptest::collection::vec(0..3_u8, 0..5),
    ) {
        let env = MemEnv::default();
        let (bytes, finished) = build(&entries, format);
        store(&env, 1, &bytes);
        let table = Arc::new(finished.meta(TableId { file: 1, offset: 0 }));
        let space = space(&env, cache_bytes);
        for seq in [0, 1, 5, 10, 21, SEQ_MAX] {
            for key in entries.iter().map(|entry| &*entry.key).chain([&from[..]]) {
                let expected = entries.iter().find(|e| e.key == key && e.seq <= seq);
                let mut ctx = ReadContext::default();
                let found = env.block_on(space.get(&table, key, seq, &mut ctx)).unwrap();
                prop_assert_eq!(found.as_ref(), expected);
            }
        }
        // Every prefix that is there is held, under the table's extractor and under any other.
        let other = TreeExtractor { layout_bytes: 1, extractor: PrefixExtractor::FixedLength(1) };
        for extractor in [format.extractor.unwrap_or(other), other] {
            for prefix in entries.iter().filter_map(|entry| extractor.extract(&entry.key)) {
                let mut ctx = ReadContext::default();
                prop_assert!(may_hold(&env, &space, &table, (&extractor, prefix), &mut ctx));
            }
        }
        let bounds = ScanBounds::default();
        let mut iter = TableIter::new(Arc::clone(&space), Arc::clone(&table), bounds);
        let mut ctx = ReadContext { readahead_bytes: readahead, ..ReadContext::default() };
        prop_assert_eq!(&collect(&env, &space, &mut iter, &mut ctx).unwrap(), &entries);
        iter.seek(&Edge::before(&from));
        let expected: Vec<_> = entries.iter().filter(|e| e.key >= from).cloned().collect();
        prop_assert_eq!(collect(&env, &space, &mut iter, &mut ctx).unwrap(), expected);
        let bounds = ScanBounds { reverse: true, ..ScanBounds::default() };
        let mut iter = TableIter::new(Arc::clone(&space), table, bounds);
        let mut expected: Vec<_> = entries.iter().rev().cloned().collect();
        prop_assert_eq!(&collect(&env, &space, &mut iter, &mut ctx).unwrap(), &expected);
        iter.seek(&Edge::before(&from));
        expected.retain(|e| e.key < from);
        let read = ctx.stats.data_blocks();
        let first = env.block_on(iter::next(&mut iter, &space, &mut ctx)).unwrap();
        prop_assert_eq!(first.as_ref(), expected.first());
        prop_assert_eq!(ctx.stats.data_blocks() - read, u64::from(first.is_some()));
        let rest = collect(&env, &space, &mut iter, &mut ctx).unwrap();
        prop_assert_eq!(&rest[..], &expected[expected.len().min(1)..]);
        prop_assert!(ctx.pinned.is_empty());
    }

    /// Strategy: a good table with bits flipped, a tail cut or bytes of another table put in.
    /// Invariants: no panic; a value that is returned is the right one.
    #[test]
    fn a_damaged_table_gives_an_error_or_what_was_written(
        entries in any_entries(),
        format in any_format(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let env = MemEnv::default();
        let (mut bytes, finished) = build(&entries, format);
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        store(&env, 1, &bytes);
        let table = Arc::new(finished.meta(TableId { file: 1, offset: 0 }));
        let space = space(&env, 1 << 20);
        for entry in &entries {
            let mut ctx = ReadContext::default();
            match env.block_on(space.get(&table, &entry.key, entry.seq, &mut ctx)) {
                Ok(found) => prop_assert_eq!(found.as_ref(), Some(entry)),
                Err(error) => prop_assert_eq!(error.kind(), "corruption"),
            }
        }
        for reverse in [false, true] {
            let bounds = ScanBounds { reverse, ..ScanBounds::default() };
            let mut iter = TableIter::new(Arc::clone(&space), Arc::clone(&table), bounds);
            if let Ok(found) = collect(&env, &space, &mut iter, &mut ReadContext::default()) {
                let mut expected = entries.clone();
                if reverse {
                    expected.reverse();
                }
                prop_assert_eq!(found, expected);
            }
        }
    }
}
