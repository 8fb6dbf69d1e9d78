//! Ten thousand tenants within the bounds of one cache and few open files.
//!
//! Strategy: each tenant gets three tables, then all of them are read in turn, twice, with point
//! reads and scans.
//! Invariants: no more table files are open than `open_tables_max` and the one in use; the cache
//! stays within its bytes, and the bytes of all tenants are those of the cache; every tenant reads
//! what it wrote and nothing else.
#![cfg(test)]

use std::path::Path;

use forebay_engine::WriteOptions;
use forebay_engine::blocking::{BlockingDb, BlockingTenant};
use forebay_engine::env::mem::MemEnv;
use forebay_engine::options::{Compression, Options};

const TENANTS: u64 = 10_000;
const TABLES: u64 = 3;
const OPEN_TABLES_MAX: u32 = 256;
const CACHE_BYTES: u64 = 256 << 10;
/// WAL, its spare segment, manifest, and the one that a read has just opened.
const OTHER_FILES: u64 = 4;

fn value(tenant: u64, table: u64) -> String {
    format!("tenant {tenant}, table {table}, {}", "padding ".repeat(8))
}

fn check_bounds(env: &MemEnv, db: &BlockingDb<MemEnv>) {
    let open = env.take_open_files_most();
    assert!(open <= u64::from(OPEN_TABLES_MAX) + OTHER_FILES, "{open} files open");
    assert!(db.db().open_table_count() <= 256);
    let by_branch = db.db().cached_bytes_by_branch();
    assert_eq!(by_branch.iter().map(|(_, bytes)| bytes).sum::<u64>(), db.db().cached_bytes());
    assert!(db.db().cached_bytes() <= CACHE_BYTES);
}

fn read(db: &BlockingDb<MemEnv>, tenants: &[BlockingTenant<MemEnv>], env: &MemEnv) {
    for (i, tenant) in (0..).zip(tenants) {
        // Each table has a key of its own, and all have one in common.
        for table in 0..TABLES {
            let found = tenant.get(format!("key{table}").as_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(value(i, table).as_bytes()));
        }
        assert_eq!(tenant.get(b"common").unwrap().as_deref(), Some(value(i, 2).as_bytes()));
        assert_eq!(tenant.get(b"kez").unwrap(), None);
        if i % 16 == 0 {
            assert_eq!(tenant.scan(..).unwrap().count(), 4);
            assert!(tenant.tenant().cached_bytes() > 0);
            check_bounds(env, db);
        }
    }
}

#[test]
fn ten_thousand_tenants_with_three_tables_each_keep_to_their_bounds() {
    let env = MemEnv::default();
    let options = Options {
        open_tables_max: OPEN_TABLES_MAX,
        block_cache_bytes: CACHE_BYTES,
        compression: Compression::Lz4,
        l0_compaction_count: 8,
        sync_interval_ns: 0,
        ..Options::default()
    };
    let db = BlockingDb::open(env.clone(), Path::new("/db"), options).unwrap();
    let names: Vec<String> = (0..TENANTS).map(|i| format!("t{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tenants = db.create_tenants(&names).unwrap();
    for table in 0..TABLES {
        for (i, tenant) in (0..).zip(&tenants) {
            let key = format!("key{table}");
            for key in [key.as_bytes(), b"common"] {
                tenant.put(key, value(i, table).as_bytes(), WriteOptions::default()).unwrap();
            }
            tenant.flush().unwrap();
        }
    }
    let flushed = db.db().metrics();
    assert_eq!((flushed.flush_count, flushed.compaction_count), (TENANTS * TABLES, 0));
    // Files that were being written are not those that readers hold.
    env.take_open_files_most();
    for _ in 0..2 {
        read(&db, &tenants, &env);
    }
    let most = db.db().open_table_count();
    assert!(most > 200, "only {most} tables are held open");
    db.close().unwrap();
}

#[test]
fn a_dropped_tenant_holds_no_cache() {
    let env = MemEnv::default();
    let db = BlockingDb::open(env, Path::new("/db"), Options::default()).unwrap();
    let tenants = db.create_tenants(&["a", "b"]).unwrap();
    for tenant in &tenants {
        tenant.put(b"k", b"v", WriteOptions::default()).unwrap();
        tenant.flush().unwrap();
        assert_eq!(tenant.tenant().cached_bytes(), 0);
        tenant.get(b"k").unwrap();
        assert!(tenant.tenant().cached_bytes() > 0);
    }
    db.drop_tenant("a").unwrap();
    assert_eq!(tenants[0].tenant().cached_bytes(), 0);
    let of_b = tenants[1].tenant().cached_bytes();
    assert_eq!(db.db().cached_bytes(), of_b);
    let branch = tenants[1].tenant().branch_id();
    assert_eq!(db.db().cached_bytes_by_branch(), [(branch, of_b)]);
    db.close().unwrap();
}
