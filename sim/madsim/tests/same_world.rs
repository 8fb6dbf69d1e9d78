//! Strategy: what holds on forebay's own runtime must hold on madsim's: the same suite, the same
//! disk, the same crashes. Invariants: the same seed gives the same trace; a dead process changes
//! nothing.
#![cfg(test)]
#![cfg(madsim)]

use std::collections::BTreeSet;
use std::path::Path;

use forebay_engine::env::{Env, File, IoClass, Site, Work, conformance};
use forebay_engine::error::Result;
use forebay_sim::disk::device::DeviceSpec;
use forebay_sim::disk::{DiskConfig, Profile};
use forebay_sim::fault::FaultPlan;
use forebay_sim::runtime::START_NS;
use forebay_sim::{RunEnd, SimConfig, SimEnv};
use forebay_sim_madsim::MadsimSim;

async fn busy(env: SimEnv) -> Result<u64> {
    env.create_dir(Path::new("/d")).await?;
    let tasks: Vec<_> = (0..5_u64)
        .map(|n| {
            env.spawn("worker", move || async move {
                let path = format!("/d/{n}");
                let file = env.create(Path::new(&path)).await.unwrap();
                for _ in 0..10 {
                    file.append(&[7; 100], IoClass::Wal).await.unwrap();
                    env.yield_point(Site("test.yield")).await;
                    file.sync_data(IoClass::Wal).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    Ok(env.random_u64(Site("test.draw")))
}

fn hash(seed: u64) -> u64 {
    let sim = MadsimSim::new(&SimConfig::fuzz(seed));
    assert!(sim.run(busy(sim.env())).done().is_some());
    sim.trace_hash()
}

#[test]
fn the_world_passes_the_conformance_suite() {
    for seed in 0..10 {
        let sim = MadsimSim::new(&SimConfig::fuzz(seed));
        let env = sim.env();
        let end = sim.run(async move { conformance::run(&env, Path::new("/suite")).await });
        assert_eq!(end, RunEnd::Done(Ok(())), "seed {seed}");
    }
}

#[test]
fn the_world_passes_the_conformance_suite_on_modelled_devices() {
    for name in DeviceSpec::NAMES {
        let config = SimConfig::experiment(1, DeviceSpec::preset(name).unwrap());
        let sim = MadsimSim::new(&config);
        let env = sim.env();
        let end = sim.run(async move { conformance::run(&env, Path::new("/suite")).await });
        assert_eq!(end, RunEnd::Done(Ok(())), "{name}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..5 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
}

#[test]
fn another_seed_gives_another_trace() {
    let hashes: BTreeSet<u64> = (0..20).map(hash).collect();
    assert_eq!(hashes.len(), 20);
}

#[test]
fn a_sleep_below_a_millisecond_is_as_short_as_asked() {
    let sim = MadsimSim::new(&SimConfig::experiment(1, DeviceSpec::NONE));
    let env = sim.env();
    let end = sim.run(async move {
        let begin = env.now();
        env.sleep_until(begin + 10_000).await;
        env.now() - begin
    });
    let slept = end.done().unwrap();
    assert!((10_000..20_000).contains(&slept), "{slept}");
}

#[test]
fn work_takes_virtual_time() {
    let sim = MadsimSim::new(&SimConfig::experiment(1, DeviceSpec::NONE));
    let env = sim.env();
    let end = sim.run(async move {
        for _ in 0..1000 {
            env.charge(Work::WriteEntry);
            env.yield_point(Site("w")).await;
        }
        env.now() - START_NS
    });
    assert!(end.done().is_some_and(|ns| ns >= 900_000));
    assert_eq!(sim.cpu_busy_ns(), 900_000);
}

#[test]
fn nothing_to_run_is_a_deadlock_with_names() {
    let sim = MadsimSim::new(&SimConfig::fuzz(1));
    let env = sim.env();
    let end: RunEnd<()> = sim.run(async move {
        env.spawn("stuck", std::future::pending::<()>).await;
    });
    assert_eq!(end, RunEnd::Deadlock { waiting: vec!["main", "stuck"] });
}

#[test]
fn a_kill_is_immediate_and_voids_handles_and_locks() {
    let sim = MadsimSim::new(&SimConfig::fuzz(1));
    let env = sim.env();
    let end: RunEnd<()> = sim.run(async move {
        env.create_dir(Path::new("/d")).await.unwrap();
        let lock = env.lock(Path::new("/d/LOCK")).await.unwrap();
        let file = env.create(Path::new("/d/a")).await.unwrap();
        drop(env.spawn("worker", move || async move {
            let _held = (lock, file);
            std::future::pending::<()>().await;
        }));
        env.sleep_until(env.now() + 1_000_000).await;
        env.request_crash();
        std::future::pending::<()>().await;
    });
    assert_eq!(end, RunEnd::Crashed);
    sim.kill();
    assert!(sim.alive().is_empty());
    assert_eq!(sim.disk().open_handles(), 0);
    let (old, env) = (env, sim.env());
    let end = sim.run(async move {
        assert!(old.open(Path::new("/d/a")).await.is_err());
        drop(env.lock(Path::new("/d/LOCK")).await.unwrap());
        env.list(Path::new("/d")).await.unwrap()
    });
    assert_eq!(end, RunEnd::Done(vec!["LOCK".to_owned(), "a".to_owned()]));
}

#[test]
fn a_process_can_die_at_every_crash_point() {
    let whole = MadsimSim::new(&SimConfig::fuzz(4));
    assert!(whole.run(busy(whole.env())).done().is_some());
    let points = whole.crash_points();
    assert!(points > 100);
    for point in (1..points).step_by(29) {
        let sim = MadsimSim::new(&SimConfig::fuzz(4));
        sim.crash_at_point(Some(point));
        assert!(matches!(sim.run(busy(sim.env())), RunEnd::Crashed));
        sim.power_loss();
        assert_eq!(sim.fault_counts().get("power_loss"), Some(&1));
    }
}

#[test]
fn a_power_loss_takes_what_was_not_synced_and_nothing_else() {
    let config = SimConfig::fuzz(1);
    let disk = DiskConfig { profile: Profile::Strict, ..config.disk };
    let sim = MadsimSim::new(&SimConfig { disk, ..config });
    let env = sim.env();
    let end = sim.run(async move {
        env.create_dir(Path::new("/d")).await?;
        let file = env.create(Path::new("/d/a")).await?;
        file.append(b"synced", IoClass::Wal).await?;
        file.sync_data(IoClass::Wal).await?;
        env.sync_dir(Path::new("/d")).await?;
        file.append(b"lost", IoClass::Wal).await
    });
    assert!(matches!(end, RunEnd::Done(Ok(()))));
    sim.power_loss();
    assert_eq!(sim.disk().contents("/d/a").unwrap(), b"synced");
}

#[test]
fn faults_fire_and_are_counted() {
    let faults = FaultPlan { eio_write: 1_000_000, ..FaultPlan::default() };
    let sim = MadsimSim::new(&SimConfig { faults, ..SimConfig::fuzz(1) });
    let env = sim.env();
    let end = sim.run(async move {
        env.create_dir(Path::new("/d")).await?;
        let file = env.create(Path::new("/d/a")).await?;
        file.append(b"x", IoClass::Wal).await
    });
    assert!(matches!(end, RunEnd::Done(Err(_))));
    assert_eq!(sim.fault_counts().get("eio_write"), Some(&1));
}
