//! Power fails at every point of a pull, in the simulated world.
//!
//! Invariants: afterwards the directory opens as the whole fork, or is refused, or holds no file of
//! a database; and a pull into it succeeds, unless it is whole already.
#![cfg(test)]

use std::path::Path;

use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv as _, Env as _};
use forebay_engine::{Db, Error as EngineError, Options, WriteOptions};
use forebay_sim::{RunEnd, Sim, SimConfig, SimEnv};
use forebay_store::{Error, Expect, ForkStore, Objects, StoreOptions};

const DIR: &str = "/data/copy";

/// A store with one fork: a table, and an entry in the log alone.
fn pushed() -> Objects {
    let (env, dir, objects) = (MemEnv::default(), Path::new("/db"), Objects::memory());
    let db = BlockingDb::open(env.clone(), dir, Options::default()).unwrap();
    let alice = db.create_tenants(&["alice"]).unwrap().remove(0);
    alice.put(b"table", &[7; 3000], WriteOptions::default()).unwrap();
    db.flush().unwrap();
    alice.put(b"log", b"1", WriteOptions::synced()).unwrap();
    drop(alice);
    db.close().unwrap();
    env.block_on(store(&objects).push(&env, dir, "f", Expect::Absent)).unwrap();
    objects
}

fn store(objects: &Objects) -> ForkStore<Objects> {
    ForkStore::new(objects.clone(), StoreOptions::default().piece_bytes(1024))
}

async fn pull(env: SimEnv, objects: Objects) -> Result<(), Error> {
    store(&objects).pull(&env, "f", Path::new(DIR)).await.map(drop)
}

/// What a directory is to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Whole,
    Refused,
    Nothing,
}

async fn look(env: SimEnv) -> Found {
    let names = env.list(Path::new(DIR)).await.unwrap_or_default();
    if names.iter().all(|name| name == "LOCK") {
        return Found::Nothing;
    }
    let db = match Db::open(env, Path::new(DIR), Options::default()).await {
        Ok(db) => db,
        Err(EngineError::Corruption { .. }) => return Found::Refused,
        Err(error) => panic!("{error}"),
    };
    let alice = db.tenant("alice").expect("a database without its tenant was opened");
    assert_eq!(alice.get(b"table").await.unwrap().as_deref(), Some(&[7; 3000][..]));
    assert_eq!(alice.get(b"log").await.unwrap().as_deref(), Some(&b"1"[..]));
    drop(alice);
    db.close().await.unwrap();
    Found::Whole
}

#[test]
fn power_fails_at_every_point_of_a_pull_and_nothing_half_is_opened() {
    let objects = pushed();
    let (mut refused, mut whole) = (0, 0);
    for seed in 0..20 {
        let sim = Sim::new(&SimConfig::fuzz(seed));
        assert!(sim.run(pull(sim.env(), objects.clone())).done().unwrap().is_ok());
        let points = sim.crash_points();
        assert!(points > 20, "{points}");
        for point in 1..=points {
            let sim = Sim::new(&SimConfig::fuzz(seed));
            sim.crash_at_point(Some(point));
            assert_eq!(sim.run(pull(sim.env(), objects.clone())).done().map(|_| ()), None);
            sim.power_loss();
            sim.crash_at_point(None);
            let found = sim.run(look(sim.env())).done().unwrap();
            refused += u64::from(found == Found::Refused);
            whole += u64::from(found == Found::Whole);
            let RunEnd::Done(again) = sim.run(pull(sim.env(), objects.clone())) else {
                panic!("seed {seed} point {point}: no end");
            };
            match again {
                Ok(()) => assert_ne!(found, Found::Whole),
                Err(Error::Directory { .. }) if found == Found::Whole => {}
                Err(error) => panic!("seed {seed} point {point}, {found:?}: {error}"),
            }
            assert_eq!(sim.run(look(sim.env())).done(), Some(Found::Whole));
        }
    }
    println!("{refused} refused, {whole} whole");
    assert!(refused > 100 && whole > 0, "{refused} refused, {whole} whole");
}

#[test]
fn a_pull_that_ended_survives_any_power_loss() {
    let objects = pushed();
    for seed in 0..50 {
        let sim = Sim::new(&SimConfig::fuzz(seed));
        assert!(sim.run(pull(sim.env(), objects.clone())).done().unwrap().is_ok());
        sim.power_loss();
        assert_eq!(sim.run(look(sim.env())).done(), Some(Found::Whole), "seed {seed}");
    }
}
