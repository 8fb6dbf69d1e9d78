//! What scans cost: exact counts of blocks and tables, in both directions.
#![cfg(test)]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use forebay_engine::blocking::{BlockingDb, BlockingScan, BlockingTenant};
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env, File, IoClass};
use forebay_engine::inspect::{self, TableReport};
use forebay_engine::options::Options;
use forebay_engine::prefix::PrefixExtractor;
use forebay_engine::table::{ReadStats, table_path};
use forebay_engine::tenant::ScanOptions;
use forebay_engine::{Error, WriteOptions};

const DIR: &str = "/db";

/// A database whose blocks hold about one entry and whose L0 is compacted when the test asks.
fn options(more: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    let fixed = [
        ("block_bytes", "64"),
        ("l0_compaction_count", "100"),
        ("l0_slowdown_count", "100"),
        ("l0_stop_count", "100"),
    ];
    for (key, value) in fixed.iter().chain(more) {
        options.set(key, value).unwrap();
    }
    options
}

struct World {
    env: MemEnv,
    db: BlockingDb<MemEnv>,
}

impl World {
    fn new(options: Options) -> Self {
        let env = MemEnv::default();
        let db = BlockingDb::open(env.clone(), Path::new(DIR), options).unwrap();
        Self { env, db }
    }

    fn tenant(&self, name: &str) -> BlockingTenant<MemEnv> {
        self.db.create_tenants(&[name]).unwrap().remove(0)
    }

    fn tables(&self) -> Vec<TableReport> {
        let found = self.env.block_on(inspect::inspect(
            &self.env,
            Path::new(DIR),
            inspect::Look::default(),
        ));
        let found = found.unwrap().unwrap();
        assert!(found.errors.is_empty(), "{:?}", found.errors);
        found.tables
    }
}

fn name(i: u32) -> Vec<u8> {
    format!("key{i:05}").into_bytes()
}

/// Longer than a block, so that every entry has a block of its own.
fn put(tenant: &BlockingTenant<MemEnv>, key: &[u8]) {
    tenant.put(key, &[b'v'; 100], WriteOptions::default()).unwrap();
}

/// `k` overlapping L0 tables of `each` entries, which take turns.
fn overlapping(tenant: &BlockingTenant<MemEnv>, k: u32, each: u32) {
    for table in 0..k {
        for i in 0..each {
            put(tenant, &name(i * k + table));
        }
        tenant.flush().unwrap();
    }
}

fn keys(found: Vec<forebay_engine::Result<(Bytes, Bytes)>>) -> Vec<Vec<u8>> {
    found.into_iter().map(|pair| pair.unwrap().0.to_vec()).collect()
}

fn in_direction<'s>(reverse: bool) -> ScanOptions<'s, MemEnv> {
    let options = ScanOptions::default();
    if reverse { options.reversed() } else { options }
}

fn started(mut scan: BlockingScan<MemEnv>) -> ReadStats {
    scan.start().unwrap();
    *scan.stats()
}

/// Tables considered and ruled out, and data blocks from files or the cache.
fn cost(stats: &ReadStats) -> (u64, u64, u64) {
    (stats.tables_considered, stats.tables_ruled_out(), stats.data_blocks())
}

#[test]
fn a_start_loads_one_block_of_each_overlapping_table_and_finds_it_in_the_cache_next_time() {
    for (k, reverse) in [1, 2, 4, 8, 16].into_iter().flat_map(|k| [(k, false), (k, true)]) {
        let world = World::new(options(&[]));
        let tenant = world.tenant("t");
        overlapping(&tenant, k, 20);
        assert_eq!(world.tables().len(), usize::try_from(k).unwrap());
        let scan = || tenant.scan_with(.., in_direction(reverse)).unwrap();
        let tables_considered = u64::from(k);
        let expected = ReadStats {
            data_blocks_read: tables_considered,
            index_blocks_read: tables_considered,
            footers_read: tables_considered,
            tables_considered,
            ..ReadStats::default()
        };
        assert_eq!(started(scan()), expected, "{k} tables, reverse {reverse}");
        let expected = ReadStats {
            data_blocks_cached: tables_considered,
            index_blocks_cached: tables_considered,
            tables_considered,
            ..ReadStats::default()
        };
        assert_eq!(started(scan()), expected, "{k} tables, reverse {reverse}");
        // At a key, and between two keys and so between two blocks of each table.
        for key in [name(k * 7), [&name(k * 7)[..], b"x"].concat()] {
            let mut scan = scan();
            scan.seek(&key);
            let stats = started(scan);
            let expected = (tables_considered, 0, tables_considered);
            assert_eq!(cost(&stats), expected, "{key:?} of {k} tables, reverse {reverse}");
        }
    }
}

/// A tree of three levels or more, L0 included, with overlapping ranges.
fn deep() -> (World, BlockingTenant<MemEnv>) {
    let world = World::new(options(&[
        ("l0_compaction_count", "2"),
        ("level_base_bytes", "4096"),
        ("level_ratio", "2"),
        ("table_bytes_max", "2048"),
        ("memtable_bytes_max", "4096"),
    ]));
    let tenant = world.tenant("t");
    for i in 0..400 {
        put(&tenant, &name(i * 7919 % 1_000));
    }
    tenant.flush().unwrap();
    world.env.block_on(world.db.db().wait_idle()).unwrap();
    // One table that stays in L0; where there was one before, the two are compacted.
    for _ in 0..2 {
        for i in [0, 999] {
            put(&tenant, &name(i));
        }
        tenant.flush().unwrap();
        world.env.block_on(world.db.db().wait_idle()).unwrap();
        if world.tables().iter().any(|table| table.level == 0) {
            break;
        }
    }
    (world, tenant)
}

#[test]
fn a_start_loads_one_block_of_each_level_and_of_each_l0_table() {
    let (world, tenant) = deep();
    let tables = world.tables();
    let mut levels: BTreeMap<u32, u64> = BTreeMap::new();
    for table in &tables {
        *levels.entry(table.level).or_default() += 1;
    }
    let l0 = levels.remove(&0).unwrap_or(0);
    let deeper = u64::try_from(levels.len()).unwrap();
    assert!(l0 >= 1 && deeper >= 2, "{l0} {levels:?}");
    assert!(levels.values().any(|count| *count > 1), "{levels:?}");
    let entries: u64 = tables.iter().map(|table| table.meta.entries).sum();
    for reverse in [false, true] {
        let mut scan = tenant.scan_with(.., in_direction(reverse)).unwrap();
        scan.start().unwrap();
        let runs = l0 + deeper;
        assert_eq!(cost(scan.stats()), (runs, 0, runs), "reverse {reverse}");
        let found = keys(scan.by_ref().collect::<Vec<_>>());
        assert!(found.is_sorted_by(|a, b| if reverse { a > b } else { a < b }));
        // An entry is a block here: all of it costs every block once, every table once.
        let all = u64::try_from(tables.len()).unwrap();
        assert_eq!(cost(scan.stats()), (all, 0, entries), "reverse {reverse}");
    }
}

#[test]
fn tables_outside_of_a_range_cost_nothing() {
    let world = World::new(options(&[]));
    let tenant = world.tenant("t");
    for table in 0..5 {
        for i in 0..10 {
            put(&tenant, &name(table * 100 + i));
        }
        tenant.flush().unwrap();
    }
    let (a, b, gap) = (name(200), name(210), [&name(203)[..], b"a"].concat());
    let behind_gap = [&name(203)[..], b"b"].concat();
    let inside = (Bound::Included(&a[..]), Bound::Excluded(&b[..]));
    let empty = (Bound::Excluded(&a[..]), Bound::Excluded(&a[..]));
    let inverted = (Bound::Included(&b[..]), Bound::Included(&a[..]));
    // Between two blocks of the third table, whose index knows that.
    let between = (Bound::Included(&gap[..]), Bound::Excluded(&behind_gap[..]));
    for reverse in [false, true] {
        for (range, blocks, found) in
            [(inside, 1, 10), (empty, 0, 0), (inverted, 0, 0), (between, 0, 0)]
        {
            let mut scan = tenant.scan_with(range, in_direction(reverse)).unwrap();
            scan.start().unwrap();
            assert_eq!(cost(scan.stats()), (5, 5 - blocks, blocks), "{range:?} {reverse}");
            let stats = *scan.stats();
            assert_eq!(stats.tables_ruled_out_by_bounds, 5 - blocks);
            assert_eq!(
                stats.index_blocks_read + stats.index_blocks_cached > 0,
                range != empty && range != inverted
            );
            assert_eq!(scan.by_ref().count(), found);
            assert_eq!(scan.stats().data_blocks(), u64::try_from(found).unwrap());
        }
        // A snapshot from before the other four tables.
        let world = World::new(options(&[]));
        let tenant = world.tenant("t");
        put(&tenant, b"a");
        tenant.flush().unwrap();
        let snapshot = tenant.snapshot();
        overlapping(&tenant, 4, 3);
        put(&tenant, b"a");
        let scan = tenant.scan_with(.., in_direction(reverse).at(&snapshot)).unwrap();
        let stats = started(scan);
        assert_eq!(cost(&stats), (5, 4, 1));
        assert_eq!(stats.tables_ruled_out_by_seq, 4);
    }
}

#[test]
fn a_range_inside_of_one_block_costs_that_block() {
    let world = World::new(options(&[("block_bytes", "4096")]));
    let tenant = world.tenant("t");
    put(&tenant, b"a");
    put(&tenant, b"z");
    tenant.flush().unwrap();
    let (from, to): (&[u8], &[u8]) = (b"b", b"c");
    for reverse in [false, true] {
        let mut scan = tenant.scan_with(from..to, in_direction(reverse)).unwrap();
        assert_eq!(scan.by_ref().count(), 0);
        assert_eq!(cost(scan.stats()), (1, 0, 1));
    }
}

/// Eight overlapping L0 tables, each with two of sixteen users, and a run made of them.
fn users(extractor: bool) -> (World, BlockingTenant<MemEnv>) {
    let world = World::new(options(&[("filter_bits_per_key", "20")]));
    let tenant = world.tenant("t");
    if extractor {
        tenant.set_prefix_extractor(Some(PrefixExtractor::Delimiter(b'/'))).unwrap();
    }
    for table in 0..8 {
        for user in [table, 15 - table] {
            for i in 0..5 {
                put(&tenant, format!("u{user:02}/{i}").as_bytes());
            }
        }
        tenant.flush().unwrap();
    }
    (world, tenant)
}

#[test]
fn a_prefix_scan_touches_the_tables_that_hold_the_prefix_and_without_filter_all_in_bounds() {
    for reverse in [false, true] {
        let (_with, tenant) = users(true);
        let (_without, plain) = users(false);
        // Table t spans users t to 15 - t: all but the last table reach over user 6.
        let prefix = b"u06/";
        let of = |tenant: &BlockingTenant<MemEnv>| {
            tenant.prefix_with(prefix, in_direction(reverse)).unwrap()
        };
        let stats = started(of(&tenant));
        assert_eq!((stats.tables_ruled_out_by_prefix, stats.tables_ruled_out_by_bounds), (6, 1));
        assert_eq!(cost(&stats), (8, 7, 1));
        assert_eq!((stats.filter_blocks_read, stats.index_blocks_read), (7, 1));
        let warm = started(of(&tenant));
        assert_eq!((warm.filter_blocks_cached, warm.index_blocks_cached), (7, 1));
        assert_eq!((warm.data_blocks_read, warm.data_blocks_cached), (0, 1));
        let stats = started(of(&plain));
        assert_eq!((stats.tables_ruled_out_by_prefix, stats.filter_blocks_read), (0, 0));
        // Six tables reach over the prefix without a key of it: between two blocks, as the index
        // says, so that those cost an index block each instead of a filter.
        assert_eq!(cost(&stats), (8, 7, 1));
        assert_eq!(stats.index_blocks_read, 7);
        assert_eq!(keys(of(&tenant).collect()), keys(of(&plain).collect()));
        // A range inside of one prefix is asked by prefix too; one that is not, is not.
        let (from, to, behind): (&[u8], &[u8], &[u8]) = (b"u06/1", b"u06/3", b"u07/0");
        let stats = started(tenant.scan_with(from..to, in_direction(reverse)).unwrap());
        assert_eq!(cost(&stats), (8, 7, 1));
        assert_eq!(stats.tables_ruled_out_by_prefix, 6);
        let stats = started(tenant.scan_with(from..behind, in_direction(reverse)).unwrap());
        assert_eq!((stats.tables_ruled_out_by_prefix, stats.filter_blocks_read), (0, 0));
    }
}

#[test]
fn without_the_filter_a_prefix_scan_loads_a_block_of_each_table_that_reaches_over_it() {
    // Blocks of several entries: the index cannot tell that the prefix is not among them.
    let large = [("block_bytes", "65536"), ("filter_bits_per_key", "20")];
    for (reverse, extractor) in [(false, false), (false, true), (true, false), (true, true)] {
        let world = World::new(options(&large));
        let tenant = world.tenant("t");
        if extractor {
            tenant.set_prefix_extractor(Some(PrefixExtractor::FixedLength(3))).unwrap();
        }
        for user in 0..6 {
            for key in [&b"a"[..], format!("u{user:02}/x").as_bytes(), b"z"] {
                put(&tenant, key);
            }
            tenant.flush().unwrap();
        }
        let stats = started(tenant.prefix_with(b"u03", in_direction(reverse)).unwrap());
        let expected = if extractor { (6, 5, 1) } else { (6, 0, 6) };
        assert_eq!(cost(&stats), expected, "extractor {extractor}, reverse {reverse}");
    }
}

#[test]
fn a_run_is_passed_table_by_table_where_filters_rule_them_out() {
    let world = World::new(options(&[("filter_bits_per_key", "20"), ("table_bytes_max", "1024")]));
    let tenant = world.tenant("t");
    tenant.set_prefix_extractor(Some(PrefixExtractor::FixedLength(2))).unwrap();
    for prefix in [b"aa", b"ab", b"ad", b"ae"] {
        for i in 0..40 {
            put(&tenant, &[prefix, &name(i)[..]].concat());
        }
    }
    tenant.compact().unwrap();
    let tables = world.tables();
    assert!(tables.len() > 8 && tables.iter().all(|table| table.level > 0), "{tables:?}");
    let over = tables.iter().filter(|t| t.meta.smallest < "ac" && t.meta.largest >= "ac");
    let over = u64::try_from(over.count()).unwrap();
    assert_eq!(over, 1);
    for reverse in [false, true] {
        let mut scan = tenant.prefix_with(b"ac", in_direction(reverse)).unwrap();
        assert_eq!(scan.by_ref().count(), 0);
        let stats = scan.stats();
        assert_eq!((stats.tables_ruled_out_by_prefix, stats.data_blocks()), (over, 0));
        let mut scan = tenant.prefix_with(b"ab", in_direction(reverse)).unwrap();
        scan.start().unwrap();
        assert_eq!(scan.stats().data_blocks(), 1);
        assert_eq!(scan.by_ref().count(), 40);
        assert_eq!(scan.stats().data_blocks(), 40);
    }
}

#[test]
fn a_prefix_is_found_whatever_extractor_its_tables_were_written_with() {
    let world = World::new(options(&[]));
    let tenant = world.tenant("t");
    let extractors = [
        None,
        Some(PrefixExtractor::FixedLength(2)),
        Some(PrefixExtractor::Delimiter(b'/')),
        Some(PrefixExtractor::FixedLength(4)),
    ];
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for (i, written) in extractors.into_iter().enumerate() {
        tenant.set_prefix_extractor(written).unwrap();
        for user in 0..20 {
            let key = format!("u{user:02}/{i}").into_bytes();
            put(&tenant, &key);
            expected.push(key);
        }
        tenant.flush().unwrap();
    }
    expected.sort();
    for asked in extractors {
        tenant.set_prefix_extractor(asked).unwrap();
        for prefix in ["", "u", "u1", "u07", "u07/", "u07/2", "u07/9", "u99/"] {
            let mut expected = expected.clone();
            expected.retain(|key| key.starts_with(prefix.as_bytes()));
            let found = keys(tenant.prefix(prefix.as_bytes()).unwrap().collect());
            assert_eq!(found, expected, "{prefix} under {asked:?}");
            let reverse = tenant.prefix_with(prefix.as_bytes(), in_direction(true)).unwrap();
            expected.reverse();
            assert_eq!(keys(reverse.collect()), expected, "{prefix} under {asked:?}");
        }
    }
}

/// Flips a bit of a table's file.
fn flip(world: &World, table: &TableReport, at: u64) {
    world.env.block_on(async {
        let file = world.env.open(&table_path(Path::new(DIR), table.meta.id.file)).await.unwrap();
        let byte = file.read_at(at, 1, IoClass::Read).await.unwrap()[0];
        file.write_at(at, &[byte ^ 1], IoClass::Read).await.unwrap();
    });
}

#[test]
fn damage_met_by_a_scan_is_an_error_each_time_and_the_scan_goes_on_once_it_is_gone() {
    let world = World::new(options(&[("block_cache_bytes", "0")]));
    let tenant = world.tenant("t");
    overlapping(&tenant, 3, 10);
    let table = &world.tables()[1];
    for (reverse, at) in
        [0, 1_500, table.meta.bytes - 60].into_iter().flat_map(|at| [(false, at), (true, at)])
    {
        let mut scan = tenant.scan_with(.., in_direction(reverse)).unwrap();
        flip(&world, table, at);
        let mut found = Vec::new();
        let error = loop {
            match scan.try_next() {
                Ok(Some((key, _))) => found.push(key.to_vec()),
                Err(error) => break error,
                Ok(None) => panic!("the scan ended at {} keys without an error", found.len()),
            }
        };
        assert!(matches!(error, Error::Corruption { .. }), "{error}");
        for _ in 0..3 {
            assert!(matches!(scan.try_next(), Err(Error::Corruption { .. })));
        }
        // As an iterator it hands the error out once.
        assert!(matches!(scan.next(), Some(Err(Error::Corruption { .. }))));
        assert!(scan.next().is_none());
        flip(&world, table, at);
        while let Some((key, _)) = scan.try_next().unwrap() {
            found.push(key.to_vec());
        }
        let mut expected: Vec<_> = (0..30).map(name).collect();
        if reverse {
            expected.reverse();
        }
        assert_eq!(found, expected, "byte {at}, reverse {reverse}");
    }
}

/// Each table is asked once, and what it cost is counted once, although a read stops at every part
/// that is not in memory.
#[test]
fn a_point_read_asks_each_table_once_whatever_the_cache_holds() {
    for cache_bytes in ["0", "1048576"] {
        let world = World::new(options(&[
            ("block_cache_bytes", cache_bytes),
            ("filter_bits_per_key", "30"),
        ]));
        let tenant = world.tenant("t");
        let k = 8;
        overlapping(&tenant, k, 20);
        let tables = u64::from(k);
        // In the oldest table, in the newest, and in none although between keys of all.
        let absent = [&name(9 * k)[..], b"x"].concat();
        for (key, asked, found) in
            [(name(9 * k), tables, 1), (name(9 * k + k - 1), 1, 1), (absent, tables, 0)]
        {
            let expected = ReadStats {
                data_blocks_read: found,
                index_blocks_read: found,
                filter_blocks_read: asked,
                footers_read: asked,
                tables_considered: asked,
                tables_ruled_out_by_filter: asked - found,
                ..ReadStats::default()
            };
            // Cold: every round reads from files where there is no cache, else only the first one.
            let (value, stats) = tenant.get_with_stats(&key).unwrap();
            assert_eq!(value.is_some(), found == 1);
            if cache_bytes == "0" || asked == tables && found == 1 {
                assert_eq!(stats, expected, "{key:?}");
            }
            let (_, stats) = tenant.get_with_stats(&key).unwrap();
            let used = (stats.tables_considered, stats.tables_ruled_out_by_filter);
            assert_eq!(used, (asked, asked - found), "{key:?}");
            assert_eq!(stats.data_blocks(), found);
            assert_eq!(stats.filter_blocks_read + stats.filter_blocks_cached, asked);
        }
    }
}
