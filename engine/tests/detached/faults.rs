//! Calls of the world that fail while a copy is made or taken in, one after the other.

use std::io::ErrorKind;
use std::path::Path;

use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::verify::verify_dir;
use forebay_engine::{Error, WriteOptions};

use crate::fault_env::{Effect, FaultEnv, Rule};
use crate::{Draws, check_clean, grow, open, options, state, state_of};

type World = FaultEnv<MemEnv>;

const EFFECTS: [Effect; 3] = [Effect::Nothing, Effect::Half, Effect::Everything];
const A: &str = "/a";
const COPY: &str = "/copy";
const B: &str = "/b";

/// Nothing runs in the background that would meet the fault.
fn quiet() -> forebay_engine::Options {
    options(&[("budget_bytes", "10485760"), ("memtable_bytes_max", "1048576")])
}

/// Tables of one tenant, packs, dead ranges, forks with shared memtables, and entries in none.
fn source(env: &World) -> BlockingDb<World> {
    let db = open(env, Path::new(A), &quiet());
    db.create_tenants(&["t", "u", "v"]).unwrap();
    grow(&db, &mut Draws(77), 120, true);
    env.block_on(db.db().wait_idle()).unwrap();
    db
}

#[test]
fn after_any_error_a_copy_is_absent_or_whole_and_its_source_is_fine() {
    let mut kinds = std::collections::BTreeMap::<&str, u64>::new();
    for effect in EFFECTS {
        for pass in 0.. {
            let inner = MemEnv::default();
            let env = FaultEnv::new(inner.clone());
            let db = source(&env);
            let before = state(&db);
            env.rule(Rule { op: "", path: COPY, pass, fail: 1, effect });
            let outcome = db.fork_to(Path::new(COPY));
            if env.fired() == 0 {
                outcome.unwrap();
                assert!(pass > 20, "{pass}");
                break;
            }
            env.heal();
            if outcome.is_ok() {
                // The rename of CURRENT is looked up, and no call behind CURRENT matters.
                *kinds.entry("whole").or_default() += 1;
                assert_eq!(state_of(&inner, Path::new(COPY), &quiet()), before, "{pass}");
            } else {
                *kinds.entry("absent").or_default() += 1;
                let names = inner.block_on(inner.list(Path::new(COPY))).unwrap_or_default();
                assert!(names.iter().all(|name| name == "LOCK"), "{effect:?} {pass}: {names:?}");
                db.fork_to(Path::new(COPY)).unwrap();
                assert_eq!(state_of(&inner, Path::new(COPY), &quiet()), before);
            }
            assert_eq!(state(&db), before);
            db.tenant("t").unwrap().put(b"k", b"v", WriteOptions::synced()).unwrap();
            db.close().unwrap();
            drop(db);
            check_clean(&inner, Path::new(A));
        }
    }
    assert!(kinds["absent"] > 50, "{kinds:?}");
}

/// The process dies at any call: nothing is cleaned up.
#[test]
fn a_copy_that_was_broken_off_is_no_database_or_a_whole_one() {
    let (mut absent, mut whole) = (0, 0);
    // How many calls it takes depends on what compactions came to: some go beyond the last one.
    for pass in 0..60 {
        let inner = MemEnv::default();
        let env = FaultEnv::new(inner.clone());
        let db = source(&env);
        let before = state(&db);
        env.rule(Rule { op: "", path: COPY, pass, fail: u64::MAX, effect: Effect::Nothing });
        if db.fork_to(Path::new(COPY)).is_ok() && env.fired() == 0 {
            continue;
        }
        let names = inner.block_on(inner.list(Path::new(COPY))).unwrap_or_default();
        if names.iter().any(|name| name == "CURRENT") {
            whole += 1;
            // The lock died with the process.
            assert_eq!(state_of(&inner, Path::new(COPY), &quiet()), before, "{pass}");
        } else if !names.is_empty() {
            absent += 1;
            let outcome = BlockingDb::open(inner.clone(), Path::new(COPY), quiet());
            let is_empty = |db: BlockingDb<MemEnv>| db.db().tenants().is_empty();
            let has_data = names.iter().any(|n| n.ends_with(".sst") || n.ends_with(".wal"));
            assert!(outcome.map_or(true, |db| !has_data && is_empty(db)), "{pass}: {names:?}");
        }
    }
    assert!(absent > 10 && whole > 0, "{absent} {whole}");
}

#[test]
fn a_world_without_links_gets_copies() {
    for kind in [ErrorKind::CrossesDevices, ErrorKind::Unsupported] {
        let inner = MemEnv::default();
        let env = FaultEnv::new(inner.clone());
        let db = source(&env);
        let before = state(&db);
        env.refuse_links(kind);
        let copied = db.fork_to(Path::new(COPY)).unwrap();
        assert!(copied.linked_files == 0 && copied.copied_bytes > 0, "{copied:?}");
        assert_eq!(state_of(&inner, Path::new(COPY), &quiet()), before);
    }
}

#[test]
fn after_any_error_of_an_import_the_database_is_as_it_was_or_has_all_of_it() {
    let inner = MemEnv::default();
    let db = source(&FaultEnv::new(inner.clone()));
    let from = state(&db);
    db.fork_to(Path::new(COPY)).unwrap();
    let (mut failed, mut came_back) = (0, 0);
    for effect in EFFECTS {
        for pass in 0.. {
            let world = MemEnv::default();
            inner.block_on(FaultEnv::new(inner.clone()).copy_to(Path::new(COPY), &world));
            let env = FaultEnv::new(world.clone());
            let b = open(&env, Path::new(B), &quiet());
            b.create_tenants(&["own"]).unwrap();
            b.tenant("own").unwrap().put(b"k", b"v", WriteOptions::synced()).unwrap();
            let before = state(&b);
            let mut all = before.clone();
            all.extend(from.clone());
            env.rule(Rule { op: "", path: "", pass, fail: 1, effect });
            let outcome = b.import(Path::new(COPY));
            if env.fired() == 0 {
                outcome.unwrap();
                assert!(pass > 20, "{pass}");
                break;
            }
            env.heal();
            match &outcome {
                Ok(_) => assert_eq!(state(&b), all, "{effect:?} {pass}"),
                Err(error) => {
                    failed += 1;
                    assert!(matches!(error, Error::Io { .. } | Error::ReadOnly(_)), "{error:?}");
                    assert_eq!(state(&b), before, "{effect:?} {pass}");
                }
            }
            b.close().unwrap();
            drop(b);
            check_clean(&world, Path::new(B));
            let b = open(&world, Path::new(B), &quiet());
            let found = state(&b);
            came_back += u64::from(outcome.is_err() && found == all);
            assert!(found == all || (outcome.is_err() && found == before), "{effect:?} {pass}");
            b.tenant("own").unwrap().put(b"k2", b"v", WriteOptions::synced()).unwrap();
            b.close().unwrap();
            let report = world.block_on(verify_dir(&world, Path::new(B), |_| {}));
            assert!(report.unwrap().unwrap().is_clean());
        }
    }
    assert!(failed > 20, "{failed}, came back: {came_back}");
}
