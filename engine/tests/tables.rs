//! Tables as a database makes them: whose prefix extractor they carry, and what they may hold open.
#![cfg(test)]

use std::path::Path;

use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::BlockingEnv;
use forebay_engine::env::mem::MemEnv;
use forebay_engine::inspect::{Look, inspect};
use forebay_engine::options::{Compression, Layout, Options, TenantOptions};
use forebay_engine::prefix::PrefixExtractor;
use forebay_engine::table::TableSpace;
use forebay_engine::table::properties::TableProperties;
use forebay_engine::{Error, WriteOptions};

const DIR: &str = "/db";

fn open(env: &MemEnv, options: &Options) -> BlockingDb<MemEnv> {
    BlockingDb::open(env.clone(), Path::new(DIR), options.clone()).unwrap()
}

/// What the tables of the live manifest say of themselves, by tree and newest first.
fn properties(env: &MemEnv) -> Vec<TableProperties> {
    env.block_on(async {
        let found = inspect(env, Path::new(DIR), Look::default()).await.unwrap().unwrap();
        let space = TableSpace::new(env.clone(), Path::new(DIR), 0, 4);
        let mut all = Vec::new();
        for table in &found.tables {
            let properties = space.describe(table.meta.id, table.meta.bytes).await.unwrap();
            assert_eq!(properties.meta, *table.meta);
            all.push(properties);
        }
        all
    })
}

fn extractors_of_tables(env: &MemEnv) -> Vec<String> {
    properties(env).into_iter().map(|p| p.extractor).collect()
}

#[test]
fn a_tenant_keeps_its_own_extractor_and_the_others_have_that_of_the_database() {
    let of_db = PrefixExtractor::FixedLength(4);
    let own = TenantOptions { prefix_extractor: Some(PrefixExtractor::Delimiter(b'/')) };
    let (env, mut options) = (MemEnv::default(), Options::default());
    options.prefix_extractor = Some(of_db);
    let extractors = |db: &BlockingDb<MemEnv>| {
        ["a", "b", "c"].map(|name| db.tenant(name).unwrap().tenant().prefix_extractor())
    };
    let db = open(&env, &options);
    db.create_tenants(&["a"]).unwrap();
    let b = db.create_tenant_with("b", &own).unwrap();
    let c = db.create_tenant_with("c", &own).unwrap();
    let refused = db.create_tenant_with("b", &own);
    assert!(matches!(refused, Err(Error::TenantExists(_))), "{refused:?}");
    let refused = b.set_prefix_extractor(Some(PrefixExtractor::FixedLength(0)));
    assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    assert_eq!(extractors(&db), [Some(of_db), own.prefix_extractor, own.prefix_extractor]);
    c.set_prefix_extractor(Some(PrefixExtractor::FixedLength(2))).unwrap();
    db.close().unwrap();
    // The first open reads the edits as they were made, the second one those of a new manifest.
    for _ in 0..2 {
        let db = open(&env, &options);
        let expected = [Some(of_db), own.prefix_extractor, Some(PrefixExtractor::FixedLength(2))];
        assert_eq!(extractors(&db), expected);
        db.close().unwrap();
    }
    let db = open(&env, &Options { prefix_extractor: None, ..options });
    db.tenant("b").unwrap().set_prefix_extractor(None).unwrap();
    assert_eq!(extractors(&db), [None, None, Some(PrefixExtractor::FixedLength(2))]);
    db.drop_tenant("c").unwrap();
    let refused = c.set_prefix_extractor(None);
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    db.close().unwrap();
}

#[test]
fn tenants_that_share_tables_have_no_extractor_of_their_own() {
    let own = TenantOptions { prefix_extractor: Some(PrefixExtractor::FixedLength(2)) };
    for layout in [Layout::Shared, Layout::Grouped(3)] {
        let options =
            Options { layout, prefix_extractor: own.prefix_extractor, ..Options::default() };
        let db = open(&MemEnv::default(), &options);
        let refused = db.create_tenant_with("a", &own);
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
        let a = db.create_tenant_with("a", &TenantOptions::default()).unwrap();
        let refused = a.set_prefix_extractor(own.prefix_extractor);
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
        a.set_prefix_extractor(None).unwrap();
        assert_eq!(a.tenant().prefix_extractor(), own.prefix_extractor);
        a.put(b"k", b"v", WriteOptions::default()).unwrap();
        a.flush().unwrap();
        assert_eq!(a.get(b"k").unwrap().as_deref(), Some(&b"v"[..]));
        db.close().unwrap();
    }
}

#[test]
fn a_table_names_the_extractor_it_was_written_with() {
    let (env, mut options) = (MemEnv::default(), Options::default());
    options.prefix_extractor = Some(PrefixExtractor::FixedLength(4));
    let db = open(&env, &options);
    let own = TenantOptions { prefix_extractor: Some(PrefixExtractor::Delimiter(b'/')) };
    let a = db.create_tenant_with("a", &TenantOptions::default()).unwrap();
    let b = db.create_tenant_with("b", &own).unwrap();
    for tenant in [&a, &b] {
        tenant.put(b"user/1", b"v", WriteOptions::default()).unwrap();
        tenant.flush().unwrap();
    }
    assert_eq!(extractors_of_tables(&env), ["fixed-4", "delimiter-2f"]);
    b.set_prefix_extractor(Some(PrefixExtractor::FixedLength(2))).unwrap();
    b.put(b"user/2", b"v", WriteOptions::default()).unwrap();
    b.flush().unwrap();
    assert_eq!(extractors_of_tables(&env), ["fixed-4", "fixed-2", "delimiter-2f"]);
    b.compact().unwrap();
    assert_eq!(extractors_of_tables(&env), ["fixed-4", "fixed-2"]);
    assert_eq!(b.scan(..).unwrap().count(), 2);
    db.close().unwrap();
}

#[test]
fn a_table_that_tenants_share_names_the_bytes_of_their_ids() {
    let env = MemEnv::default();
    let options = Options {
        layout: Layout::Shared,
        prefix_extractor: Some(PrefixExtractor::Delimiter(b'/')),
        ..Options::default()
    };
    let db = open(&env, &options);
    for tenant in db.create_tenants(&["a", "b"]).unwrap() {
        tenant.put(b"user/1", b"v", WriteOptions::default()).unwrap();
    }
    db.tenant("b").unwrap().flush().unwrap();
    assert_eq!(extractors_of_tables(&env), ["8+delimiter-2f"]);
    db.close().unwrap();
}

#[test]
fn tables_of_any_compression_are_read_whatever_is_written() {
    let (env, value) = (MemEnv::default(), "value ".repeat(50));
    let key = |round: u32, i: u32| format!("key {i:03} of round {round}");
    let mut expected = Vec::new();
    for (round, compression) in
        [Compression::None, Compression::Lz4, Compression::None].into_iter().enumerate()
    {
        let round = u32::try_from(round).unwrap();
        let db = open(&env, &Options { compression, ..Options::default() });
        let tenant = db.tenant("t").unwrap_or_else(|| db.create_tenants(&["t"]).unwrap().remove(0));
        for i in 0..100 {
            let key = key(round, i);
            tenant.put(key.as_bytes(), value.as_bytes(), WriteOptions::default()).unwrap();
            expected.push((key.into(), value.clone().into()));
        }
        tenant.flush().unwrap();
        assert_eq!(properties(&env)[0].compression, compression);
        expected.sort();
        assert_eq!(tenant.scan(..).unwrap().map(Result::unwrap).collect::<Vec<_>>(), expected);
        for round in 0..=round {
            let found = tenant.get(key(round, 50).as_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(value.as_bytes()));
        }
        db.close().unwrap();
    }
    let bytes: Vec<u64> = properties(&env).iter().map(|p| p.sizes.data_bytes).collect();
    assert!(bytes[1] * 5 < bytes[0] && bytes[1] * 5 < bytes[2], "{bytes:?}");
    let values: u64 = properties(&env).iter().map(|p| p.sizes.value_bytes).sum();
    assert_eq!(values, 300 * 300);
}
