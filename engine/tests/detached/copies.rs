//! What a copy holds, and what of its source.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::os::OsEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::{Error, WriteBatch, WriteOptions};

use crate::{
    Draws, Map, bytes_of, check_clean, content, grow, holds, open, options, state, state_of,
};

#[test]
fn a_copy_of_a_database_reads_as_its_source_did_and_the_source_does_not_notice() {
    for seed in 0..24 {
        let (env, options) = (MemEnv::default(), options(&[]));
        let db = open(&env, Path::new("/db"), &options);
        db.create_tenants(&["a", "b", "c"]).unwrap();
        let mut draws = Draws(seed * 2 + 1);
        for round in 0..4 {
            grow(&db, &mut draws, 60, true);
            let before = state(&db);
            let dir = PathBuf::from(format!("/copy{round}"));
            let copied = db.fork_to(&dir).unwrap();
            assert!(copied.seq > 0);
            assert_eq!(state(&db), before);
            assert_eq!(state_of(&env, &dir, &options), before, "seed {seed} round {round}");
            assert_eq!(state(&db), before);
        }
        db.close().unwrap();
        drop(db);
        check_clean(&env, Path::new("/db"));
    }
}

#[test]
fn a_copy_of_a_branch_is_the_main_of_a_tenant_of_its_name() {
    for layout in ["per-tenant", "grouped-2", "shared"] {
        for seed in 0..8 {
            let (env, options) = (MemEnv::default(), options(&[("layout", layout)]));
            let db = open(&env, Path::new("/db"), &options);
            db.create_tenants(&["a", "b", "c"]).unwrap();
            grow(&db, &mut Draws(seed * 2 + 1), 150, layout == "per-tenant");
            let before = state(&db);
            for (at, (name, map)) in before.iter().enumerate() {
                let dir = PathBuf::from(format!("/copy{at}"));
                let branch = db.branch(name).unwrap();
                branch.fork_to(&dir).unwrap();
                let tenant = branch.tenant().name().to_owned();
                let expected = BTreeMap::from([(tenant, map.clone())]);
                assert_eq!(state_of(&env, &dir, &options), expected, "{layout} {seed} {name}");
            }
            assert_eq!(state(&db), before);
        }
    }
}

#[test]
fn no_byte_of_another_tenant_is_in_a_file_of_a_branchs_copy() {
    for layout in ["per-tenant", "grouped-2", "shared"] {
        let (env, options) = (MemEnv::default(), options(&[("layout", layout)]));
        let db = open(&env, Path::new("/db"), &options);
        let names = ["mine", "other1", "other2"];
        db.create_tenants(&names).unwrap();
        let write = |name: &str, round: u32| {
            for at in 0..20 {
                let value = format!("bytes of {name} round {round} {at}");
                let key = format!("{name}-key{at}");
                let tenant = db.tenant(name).unwrap();
                tenant.put(key.as_bytes(), value.as_bytes(), WriteOptions::default()).unwrap();
            }
        };
        // A pack of all three; then one of which a part is dead; then what is in no table.
        for round in 0..2 {
            for name in names {
                write(name, round);
            }
            db.flush().unwrap();
        }
        db.tenant("other1").unwrap().compact().unwrap();
        for name in names {
            write(name, 2);
        }
        assert!(db.db().metrics().pack_count > 0 || layout != "per-tenant");
        let before = content(&db.tenant("mine").unwrap());
        let copied = db.tenant("mine").unwrap().fork_to(Path::new("/copy")).unwrap();
        assert!(copied.copied_bytes > 0, "{layout}: {copied:?}");
        let mut found = false;
        for (name, bytes) in bytes_of(&env, Path::new("/copy")) {
            assert!(!holds(&bytes, b"other"), "{layout}: {name}");
            found |= holds(&bytes, b"bytes of mine");
        }
        assert!(found, "{layout}");
        let expected = BTreeMap::from([("mine".to_owned(), before)]);
        assert_eq!(state_of(&env, Path::new("/copy"), &options), expected);
    }
}

#[test]
fn nothing_of_a_dropped_tenant_goes_with_a_copy_of_the_database() {
    for layout in ["per-tenant", "shared"] {
        let (env, options) = (MemEnv::default(), options(&[("layout", layout)]));
        let db = open(&env, Path::new("/db"), &options);
        db.create_tenants(&["mine", "gone"]).unwrap();
        for round in 0..2 {
            for name in ["mine", "gone"] {
                let tenant = db.tenant(name).unwrap();
                for at in 0..20 {
                    let value = format!("bytes of {name} {round} {at}");
                    let key = format!("key{at}");
                    tenant.put(key.as_bytes(), value.as_bytes(), WriteOptions::default()).unwrap();
                }
            }
            if round == 0 && layout == "per-tenant" {
                db.flush().unwrap();
            }
        }
        db.drop_tenant("gone").unwrap();
        let before = state(&db);
        db.fork_to(Path::new("/copy")).unwrap();
        for (name, bytes) in bytes_of(&env, Path::new("/copy")) {
            // A table that tenants share keeps what is dropped until it is compacted.
            let is_shared = layout == "shared" && name.ends_with(".sst");
            assert!(is_shared || !holds(&bytes, b"bytes of gone"), "{layout}: {name}");
        }
        assert_eq!(state_of(&env, Path::new("/copy"), &options), before);
    }
}

#[test]
fn copies_beside_a_writer_are_prefixes_with_whole_batches() {
    let root = tempfile::tempdir().unwrap();
    let (env, options) = (OsEnv::default(), options(&[("budget_bytes", "262144")]));
    let db = open(&env, &root.path().join("db"), &options);
    db.create_tenants(&["a", "b"]).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (db.tenant("a").unwrap(), db.tenant("b").unwrap());
            let mut count = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                let mut batch = WriteBatch::new();
                let key = format!("key{:05}", count % 500);
                let value = format!("{count:08}{}", "x".repeat(80));
                for tenant in [&a, &b] {
                    tenant.tenant().put_in(&mut batch, key.as_bytes(), value.as_bytes()).unwrap();
                    tenant.tenant().put_in(&mut batch, b"last", value.as_bytes()).unwrap();
                }
                db.write(batch, WriteOptions::default()).unwrap();
                if count % 700 == 0 {
                    a.compact().unwrap();
                }
                if count % 900 == 0 {
                    b.fork(&format!("f{count}")).unwrap();
                }
            }
        });
        for round in 0..12 {
            std::thread::sleep(std::time::Duration::from_millis(40));
            let dir = root.path().join(format!("copy{round}"));
            db.fork_to(&dir).unwrap();
            check_prefix(&state_of(&env, &dir, &options));
            let alone = root.path().join(format!("alone{round}"));
            db.tenant("a").unwrap().fork_to(&alone).unwrap();
            let state = state_of(&env, &alone, &options);
            assert_eq!(state.len(), 1);
            check_prefix(&state);
        }
        stop.store(true, Ordering::Relaxed);
    });
    db.close().unwrap();
}

/// Each branch holds what the batches up to its last one left, no more and no less.
fn check_prefix(state: &BTreeMap<String, Map>) {
    let number =
        |value: &[u8]| -> u64 { std::str::from_utf8(&value[..8]).unwrap().parse().unwrap() };
    if let Some(b) = state.get("b") {
        assert_eq!(state["a"].get(&b"last"[..]), b.get(&b"last"[..]), "a batch is whole");
    }
    for map in state.values() {
        let Some(last) = map.get(&b"last"[..]).map(|v| number(v)) else { continue };
        let mut expected = BTreeMap::new();
        for count in 1..=last {
            expected.insert(format!("key{:05}", count % 500).into_bytes(), count);
        }
        expected.insert(b"last".to_vec(), last);
        let found: BTreeMap<_, _> = map.iter().map(|(k, v)| (k.clone(), number(v))).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn both_live_on_when_either_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let (env, options) = (OsEnv::default(), options(&[]));
    let dirs = ["db", "copy", "copy2"].map(|name| root.path().join(name));
    let db = open(&env, &dirs[0], &options);
    db.create_tenants(&["a", "b"]).unwrap();
    for at in 0..300 {
        for name in ["a", "b"] {
            let key = format!("key{at:03}");
            let tenant = db.tenant(name).unwrap();
            tenant.put(key.as_bytes(), &[7; 60], WriteOptions::default()).unwrap();
        }
    }
    db.flush().unwrap();
    let before = state(&db);
    let copied = db.fork_to(&dirs[1]).unwrap();
    assert!(copied.linked_files > 0, "{copied:?}");
    // Both open at once, and the copy is copied too.
    let copy = open(&env, &dirs[1], &options);
    assert!(matches!(db.fork_to(&dirs[1]), Err(Error::InvalidArgument(_))));
    copy.fork_to(&dirs[2]).unwrap();
    copy.tenant("a").unwrap().put(b"key000", b"copy", WriteOptions::default()).unwrap();
    copy.tenant("a").unwrap().compact().unwrap();
    db.drop_tenant("b").unwrap();
    assert_eq!(content(&db.tenant("a").unwrap()), before["a"]);
    assert_eq!(content(&copy.tenant("b").unwrap()), before["b"]);
    db.close().unwrap();
    drop(db);
    std::fs::remove_dir_all(&dirs[0]).unwrap();
    assert_eq!(content(&copy.tenant("b").unwrap()), before["b"]);
    assert_eq!(copy.tenant("a").unwrap().get(b"key000").unwrap().unwrap(), "copy");
    copy.close().unwrap();
    drop(copy);
    check_clean(&env, &dirs[1]);
    std::fs::remove_dir_all(&dirs[1]).unwrap();
    assert_eq!(state_of(&env, &dirs[2], &options), before);
}

#[test]
fn a_directory_that_is_not_empty_is_refused_and_left_as_it_is() {
    let (env, options) = (MemEnv::default(), options(&[]));
    let db = open(&env, Path::new("/db"), &options);
    db.create_tenants(&["a"]).unwrap();
    env.block_on(async {
        env.create_dir(Path::new("/full")).await.unwrap();
        env.create(Path::new("/full/x")).await.unwrap();
        env.create(Path::new("/file")).await.unwrap();
    });
    let refused = [db.fork_to(Path::new("/full")), db.fork_to(Path::new("/db"))];
    for outcome in refused.into_iter().chain([db.tenant("a").unwrap().fork_to(Path::new("/full"))])
    {
        let Err(Error::InvalidArgument(what)) = outcome else { panic!("{outcome:?}") };
        assert!(what.contains("is not empty"), "{what}");
    }
    assert!(db.fork_to(Path::new("/file")).is_err());
    assert_eq!(env.block_on(env.list(Path::new("/full"))).unwrap(), ["x"]);
    let handle = db.tenant("a").unwrap();
    db.drop_tenant("a").unwrap();
    assert!(matches!(handle.fork_to(Path::new("/copy")), Err(Error::Dropped)));
    // What is left of a copy that failed is in the way of none.
    assert_eq!(env.block_on(env.list(Path::new("/copy"))).unwrap(), ["LOCK"]);
    db.fork_to(Path::new("/copy")).unwrap();
}
