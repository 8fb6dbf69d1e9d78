//! Tables as a database makes them: whose prefix extractor they carry, and what they may hold open.
#![cfg(test)]

use std::path::Path;

use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::mem::MemEnv;
use forebay_engine::options::{Layout, Options, TenantOptions};
use forebay_engine::prefix::PrefixExtractor;
use forebay_engine::{Error, WriteOptions};

const DIR: &str = "/db";

fn open(env: &MemEnv, options: &Options) -> BlockingDb<MemEnv> {
    BlockingDb::open(env.clone(), Path::new(DIR), options.clone()).unwrap()
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
