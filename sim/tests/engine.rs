#![cfg(test)]
//! Strategy: the real engine on forebay's own runtime; a process dies, by power loss or kill, at
//! many points of its life, and opens again.
//!
//! Invariants: what was acknowledged as durable is there, in order and whole; the same seed gives
//! the same trace.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use forebay_engine::Error;
use forebay_engine::env::{Env, File, IoClass};
use forebay_engine::options::Layout;
use forebay_sim::fault::atlas::FileKind;
use forebay_sim::suite::{TENANT_COUNT, expected, read, write, write_together};
use forebay_sim::{RunEnd, Sim, SimConfig};

const DIR: &str = "/db";
const WRITES: u64 = 120;

/// Writes until a crash at poll or call `point`, opens again and judges. Returns whether it
/// crashed.
fn crash_and_judge(seed: u64, layout: Layout, point: u64, power: bool) -> bool {
    let sim = Sim::new(&SimConfig::fuzz(seed));
    sim.crash_at_point(Some(point));
    let acked = Rc::new(Cell::new(0));
    let told = Rc::clone(&acked);
    let env = sim.env();
    let end = sim.run(async move {
        write(env, Path::new(DIR), layout, (0, WRITES), |n| told.set(n + 1)).await
    });
    let crashed = matches!(end, RunEnd::Crashed);
    sim.crash_at_point(None);
    if power {
        sim.power_loss();
    } else {
        sim.kill();
    }
    let env = sim.env();
    let held = sim.run(async move { read(env, Path::new(DIR), layout).await });
    let held = held.done().expect("the read ends").expect("open works after any crash");
    let acked = acked.get();
    // The write in flight may be there or not.
    let allowed = [expected(acked), expected(acked + 1)];
    assert!(held.is_empty() && acked == 0 || held.len() == usize::try_from(TENANT_COUNT).unwrap());
    for tenant in &held {
        assert!(allowed.contains(tenant), "seed {seed} point {point} acked {acked}");
        assert_eq!(tenant, &held[0], "a batch across tenants is whole");
    }
    crashed
}

#[test]
fn a_crash_at_any_point_loses_nothing_that_was_durable() {
    let mut crashes = 0;
    for seed in 0..40_u64 {
        let layout = [Layout::PerTenant, Layout::Grouped(2), Layout::Shared]
            [usize::try_from(seed % 3).unwrap()];
        let point = 1 + seed * 29;
        crashes += usize::from(crash_and_judge(seed, layout, point, seed % 2 == 0));
    }
    assert!(crashes >= 20, "only {crashes} of 40 runs crashed");
}

#[test]
fn a_log_that_ends_before_what_was_flushed_is_damage_and_not_a_torn_tail() {
    for layout in [Layout::PerTenant, Layout::Shared] {
        let sim = Sim::new(&SimConfig::fuzz(5));
        let env = sim.env();
        let end = sim.run(async move { write(env, Path::new(DIR), layout, (0, 60), |_| {}).await });
        end.done().unwrap().unwrap();
        let files = sim.disk().files();
        let of = |kind| move |(path, _): &(String, u64)| FileKind::of(path) == kind;
        assert!(files.iter().any(of(FileKind::Table)), "something was flushed");
        let newest = files.into_iter().rfind(of(FileKind::Wal)).unwrap().0;
        let env = sim.env();
        let end = sim.run(async move {
            let file = env.open(Path::new(&newest)).await?;
            file.write_at(0, &[0; 512], IoClass::Wal).await?;
            file.sync_all(IoClass::Wal).await?;
            drop(file);
            read(env, Path::new(DIR), layout).await
        });
        let error = end.done().unwrap().expect_err("a part of the log is gone");
        assert!(matches!(error, Error::Corruption { .. }), "{error}");
    }
}

#[test]
fn writers_that_meet_in_the_queue_all_finish() {
    for seed in 0..20 {
        let sim = Sim::new(&SimConfig::fuzz(seed));
        let env = sim.env();
        let end = sim.run(async move { write_together(env, Path::new(DIR), Layout::Shared).await });
        assert!(end.done().unwrap().unwrap() > 0);
    }
}

#[test]
fn one_seed_gives_one_trace() {
    let hash = |seed| {
        let sim = Sim::new(&SimConfig::fuzz(seed));
        let env = sim.env();
        let end =
            sim.run(async move { write_together(env, Path::new(DIR), Layout::PerTenant).await });
        assert!(end.done().unwrap().is_ok());
        sim.trace_hash()
    };
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
