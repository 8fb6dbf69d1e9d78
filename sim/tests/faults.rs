//! Strategy: a small writer under one fault class at a time, over many seeds. Invariants: each
//! fault fires, is counted under its name, names its file, and leaves what its rule allows.
#![cfg(test)]

use std::path::Path;

use forebay_engine::env::{Env, File, IoClass};
use forebay_engine::error::{Error, Result};
use forebay_sim::bugs::Bug;
use forebay_sim::disk::{DiskConfig, Profile};
use forebay_sim::fault::{Fault, FaultPlan};
use forebay_sim::{RunEnd, Sim, SimConfig, SimEnv};

const HALF: u32 = 500_000;

async fn writer(env: SimEnv) -> Result<()> {
    let file = env.create(Path::new("/d/1.wal")).await?;
    env.sync_dir(Path::new("/d")).await?;
    file.append(&[1; 2000], IoClass::Wal).await?;
    file.sync_data(IoClass::Wal).await?;
    file.append(&[2; 2000], IoClass::Wal).await?;
    file.sync_data(IoClass::Wal).await?;
    let bytes = file.read_at(0, 4000, IoClass::Read).await?;
    let intact = bytes[..2000].iter().all(|b| *b == 1) && bytes[2000..].iter().all(|b| *b == 2);
    if intact { Ok(()) } else { Err(Error::corruption(Path::new("/d/1.wal"), 0, "other bytes")) }
}

fn run(config: &SimConfig) -> (Sim, Result<()>) {
    let sim = Sim::new(config);
    sim.disk_mut().create_dir("/d");
    let result = sim.run(writer(sim.env())).done().unwrap();
    (sim, result)
}

/// How many of 60 seeds fired the fault, and how many of these failed.
fn harm(fault: Fault, plan: FaultPlan) -> (u64, u64) {
    let (mut fired, mut failed) = (0, 0);
    for seed in 0..60 {
        let (sim, result) = run(&SimConfig { faults: plan, ..SimConfig::fuzz(seed) });
        let count = sim.fault_counts().get(fault.name()).copied().unwrap_or(0);
        if let Err(error) = &result {
            assert!(error.location().0.is_some(), "{error}");
            assert!(count > 0, "seed {seed}: {error} without {fault}");
        }
        assert_eq!(to_u64(sim.fault_log().len()), sim.fault_counts().values().sum::<u64>());
        fired += u64::from(count > 0);
        failed += u64::from(result.is_err());
    }
    (fired, failed)
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap()
}

#[test]
fn every_error_fault_fires_and_is_returned() {
    let none = FaultPlan::default();
    let plans = [
        (Fault::EioRead, FaultPlan { eio_read: HALF, ..none }),
        (Fault::EioWrite, FaultPlan { eio_write: HALF, ..none }),
        (Fault::EioSync, FaultPlan { eio_sync: HALF, ..none }),
        (Fault::EioMeta, FaultPlan { eio_meta: HALF, ..none }),
        (Fault::ShortWrite, FaultPlan { short_write: HALF, ..none }),
        (Fault::BitRot, FaultPlan { bit_rot: HALF, ..none }),
        (Fault::Emfile, FaultPlan { emfile: HALF, ..none }),
    ];
    for (fault, plan) in plans {
        let (fired, failed) = harm(fault, plan);
        assert!(fired > 10 && failed == fired, "{fault}: {fired} fired, {failed} failed");
    }
}

#[test]
fn faults_that_are_not_errors_fire() {
    let none = FaultPlan::default();
    let misdirected = harm(Fault::Misdirected, FaultPlan { misdirected: HALF, ..none });
    assert!(misdirected.0 > 10 && misdirected.1 > 0, "{misdirected:?}");
    let slow = FaultPlan { latency: HALF, latency_max_ns: 1_000_000, ..none };
    let latency = harm(Fault::Latency, slow);
    assert!(latency.0 > 10 && latency.1 == 0, "{latency:?}");
    let lies = harm(Fault::SyncLies, FaultPlan { sync_lies: HALF, ..none });
    assert!(lies.0 > 10 && lies.1 == 0, "{lies:?}");
}

#[test]
fn an_error_after_effect_leaves_the_effect() {
    let faults =
        FaultPlan { eio_meta: 1_000_000, error_after_effect: 1_000_000, ..FaultPlan::default() };
    let (sim, result) = run(&SimConfig { faults, ..SimConfig::fuzz(1) });
    assert!(result.is_err());
    assert_eq!(sim.disk().contents("/d/1.wal"), Some(Vec::new()));
    assert_eq!(sim.fault_counts().get("error_after_effect"), Some(&1));
}

#[test]
fn a_full_disk_is_a_typed_error_and_counted() {
    let config = SimConfig::fuzz(1);
    let disk = DiskConfig { capacity_bytes: 4096, ..config.disk };
    let sim = Sim::new(&SimConfig { disk, ..config });
    sim.disk_mut().create_dir("/d");
    let env = sim.env();
    let end = sim.run(async move {
        let file = env.create(Path::new("/d/a")).await?;
        file.append(&[1; 9000], IoClass::Wal).await
    });
    let RunEnd::Done(Err(error)) = end else { panic!("{end:?}") };
    assert!(error.is_storage_full());
    assert_eq!(error.location().1, Some(0));
    assert_eq!(sim.fault_counts().get("enospc"), Some(&1));
}

#[test]
fn the_wall_clock_jumps_and_the_monotonic_one_does_not() {
    let faults = FaultPlan { clock_jump: HALF, ..FaultPlan::default() };
    let sim = Sim::new(&SimConfig { faults, ..SimConfig::fuzz(1) });
    let env = sim.env();
    let walls: std::collections::BTreeSet<_> = (0..20).map(|_| env.wall()).collect();
    assert!(walls.len() > 3);
    assert_eq!(env.now(), forebay_sim::runtime::START_NS);
    assert!(sim.fault_counts().get("clock_jump").is_some_and(|n| *n > 3));
}

/// Whether synced bytes are gone after a power loss.
fn loses_synced(bug: Option<Bug>) -> bool {
    (0..20).any(|seed| {
        let config = SimConfig::fuzz(seed);
        let disk = DiskConfig { profile: Profile::Strict, ..config.disk };
        let (sim, result) = run(&SimConfig { bug, disk, ..config });
        result.unwrap();
        sim.power_loss();
        sim.disk().contents("/d/1.wal").is_none_or(|bytes| bytes.len() < 4000)
    })
}

#[test]
fn planted_bugs_lose_what_was_synced_and_a_sound_world_does_not() {
    assert!(!loses_synced(None));
    assert!(!loses_synced(Some(Bug::TableSkipSync)), "no table here");
    assert!(loses_synced(Some(Bug::WalSkipSync)));
    assert!(loses_synced(Some(Bug::DirSkipSync)));
    for bug in Bug::ALL {
        assert_eq!(Bug::from_name(bug.name()), Some(bug));
    }
}

#[test]
fn a_stuck_sync_is_a_deadlock() {
    let sim = Sim::new(&SimConfig { bug: Some(Bug::StuckIo), ..SimConfig::fuzz(1) });
    sim.disk_mut().create_dir("/d");
    let env = sim.env();
    let end = sim.run(async move {
        let file = env.create(Path::new("/d/1.wal")).await.unwrap();
        for _ in 0..10_000 {
            file.sync_data(IoClass::Wal).await.unwrap();
        }
    });
    assert_eq!(end, RunEnd::Deadlock { waiting: vec!["main"] });
}
