#![cfg(test)]
//! Strategy: one small program for every class of faults, run with the class and without it from the same
//! seed. Invariants: each class fires somewhere, what the program sees is then another, and the swarm
//! draws each class.

use std::path::Path;

use forebay_engine::env::{Env, File, IoClass};
use forebay_sim::disk::{DiskConfig, Profile};
use forebay_sim::fault::{Fault, FaultPlan};
use forebay_sim::scenario::Scenario;
use forebay_sim::{Sim, SimConfig, SimEnv};

const ALWAYS: u32 = 1_000_000;
const HALF: u32 = 500_000;

/// Everything that the program is told, and when.
async fn program(env: SimEnv) -> Vec<String> {
    let mut told = Vec::new();
    let path = |name: &str| Path::new("/d").join(name);
    let mut tell = |what: &str, text: String| {
        told.push(format!("{what} {text} at {} wall {}", env.now(), env.wall()));
    };
    tell("dir", format!("{:?}", env.sync_dir(Path::new("/d")).await));
    match env.open(&path("1.sst")).await {
        Err(error) => tell("open", error.to_string()),
        Ok(file) => {
            for round in 0..3_u8 {
                let bytes = vec![10 + round; 6000];
                tell("write", format!("{:?}", file.write_at(0, &bytes, IoClass::Wal).await));
                tell("sync", format!("{:?}", file.sync_data(IoClass::Wal).await));
                tell("append", format!("{:?}", file.append(&[7; 700], IoClass::Wal).await));
                let (env, other) = (env, path("1.sst"));
                let racing = env.spawn("racing", move || async move {
                    if let Ok(file) = env.open(&other).await {
                        drop(file.write_at(4096, &[99; 512], IoClass::Wal).await);
                    }
                });
                tell("read", format!("{:?}", file.read_at(0, 9000, IoClass::Read).await));
                racing.await;
                tell("sync", format!("{:?}", file.sync_all(IoClass::Wal).await));
            }
            tell("allocate", format!("{:?}", file.allocate(90_000).await));
            tell("cut", format!("{:?}", file.set_len(5000).await));
            tell("read", format!("{:?}", file.read_at(0, 5000, IoClass::Read).await));
        }
    }
    tell("create", format!("{:?}", env.create(&path("new")).await.map(drop)));
    tell("rename", format!("{:?}", env.rename(&path("new"), &path("old")).await));
    tell("link", format!("{:?}", env.link(&path("2.sst"), &path("3.sst")).await));
    tell("remove", format!("{:?}", env.remove(&path("2.sst")).await));
    tell("list", format!("{:?}", env.list(Path::new("/d")).await));
    told
}

enum Ends {
    No,
    Kill,
    Power,
}

struct Trial {
    faults: FaultPlan,
    capacity_bytes: u64,
    ends: Ends,
}

fn trial(faults: FaultPlan) -> Trial {
    Trial { faults, capacity_bytes: u64::MAX, ends: Ends::Power }
}

fn run(seed: u64, trial: &Trial) -> (Sim, Vec<String>) {
    let config = SimConfig::fuzz(seed);
    let disk = DiskConfig { profile: Profile::Adversary, ..config.disk };
    let sim = Sim::new(&SimConfig { disk, ..config });
    sim.disk_mut().create_dir("/d");
    let env = sim.env();
    sim.run(async move {
        for name in ["1.sst", "2.sst"] {
            let file = env.create(&Path::new("/d").join(name)).await.unwrap();
            file.append(&[1; 9000], IoClass::Wal).await.unwrap();
            file.sync_data(IoClass::Wal).await.unwrap();
        }
        env.sync_dir(Path::new("/d")).await.unwrap();
    })
    .done()
    .unwrap();
    sim.own_table("/d/1.sst", (0, 9000), 1);
    sim.disk_mut().set_capacity_bytes(trial.capacity_bytes);
    sim.set_faults(trial.faults);
    let mut told = sim.run(program(sim.env())).done().unwrap();
    sim.set_faults(FaultPlan::default());
    match trial.ends {
        Ends::No => {}
        Ends::Kill => drop(sim.kill()),
        Ends::Power => {
            sim.power_loss();
            sim.restart_clock(trial.faults.clock_step);
        }
    }
    told.push(format!("wall {}", sim.env().wall()));
    for (path, len) in sim.disk().files() {
        told.push(format!("{path} {len} {:?}", sim.disk().contents(&path)));
    }
    told.push(format!("handles {}", sim.disk().open_handles()));
    (sim, told)
}

/// With the class, and without it.
fn trials(fault: Fault) -> (Trial, Trial) {
    let none = FaultPlan::default();
    let slow = FaultPlan { stall_max_ns: 60_000_000_000, ..none };
    let with = |faults| (trial(faults), trial(none));
    match fault {
        Fault::PowerLoss => (trial(none), Trial { ends: Ends::No, ..trial(none) }),
        Fault::Kill => {
            (Trial { ends: Ends::Kill, ..trial(none) }, Trial { ends: Ends::Power, ..trial(none) })
        }
        Fault::Enospc => (Trial { capacity_bytes: 0, ..trial(none) }, trial(none)),
        Fault::EioRead => with(FaultPlan { eio_read: HALF, ..none }),
        Fault::EioWrite => with(FaultPlan { eio_write: HALF, ..none }),
        Fault::EioSync => with(FaultPlan { eio_sync: HALF, ..none }),
        Fault::EioMeta => with(FaultPlan { eio_meta: HALF, ..none }),
        Fault::ShortWrite => with(FaultPlan { short_write: HALF, ..none }),
        Fault::BitRot => with(FaultPlan { bit_rot: HALF, ..none }),
        Fault::Misdirected => with(FaultPlan { misdirected: HALF, ..none }),
        Fault::SyncLies => with(FaultPlan { sync_lies: HALF, ..none }),
        Fault::ErrorAfterEffect => {
            let errors = FaultPlan { eio_meta: HALF, ..none };
            (trial(FaultPlan { error_after_effect: HALF, ..errors }), trial(errors))
        }
        Fault::Latency => with(FaultPlan { latency: HALF, latency_max_ns: 1_000_000_000, ..none }),
        Fault::ClockJump => with(FaultPlan { clock_jump: HALF, ..none }),
        Fault::ClockFrozen => with(FaultPlan { clock_frozen: HALF, ..none }),
        Fault::ClockStep => with(FaultPlan { clock_step: ALWAYS, ..none }),
        Fault::Emfile => with(FaultPlan { emfile: HALF, ..none }),
        Fault::EioResize => with(FaultPlan { eio_resize: HALF, ..none }),
        Fault::WriteAfterEffect => with(FaultPlan { write_after_effect: HALF, ..none }),
        Fault::ShortRead => with(FaultPlan { short_read: ALWAYS, ..none }),
        Fault::LatentSector => with(FaultPlan { latent_sector: HALF, ..none }),
        Fault::MisdirectedFile => with(FaultPlan { misdirected_file: HALF, ..none }),
        Fault::SyncReverted => {
            let errors = FaultPlan { eio_sync: HALF, ..none };
            (trial(FaultPlan { sync_reverted: HALF, ..errors }), trial(errors))
        }
        Fault::SyncLate => with(FaultPlan { sync_late: HALF, ..none }),
        Fault::EnospcSync => with(FaultPlan { enospc_sync: HALF, ..none }),
        Fault::EnospcWrite => with(FaultPlan { enospc_write: HALF, ..none }),
        Fault::EnospcMeta => with(FaultPlan { enospc_meta: HALF, ..none }),
        Fault::CacheEviction => {
            let errors = FaultPlan { eio_sync: HALF, ..none };
            (trial(FaultPlan { cache_eviction: ALWAYS, ..errors }), trial(errors))
        }
        Fault::RemountReadOnly => {
            let errors = FaultPlan { eio_write: HALF, ..none };
            (trial(FaultPlan { remount_ro: HALF, ..errors }), trial(errors))
        }
        Fault::StallFile => with(FaultPlan { stall_file: HALF, ..slow }),
        Fault::StallTree => with(FaultPlan { stall_tree: HALF, ..slow }),
        Fault::StallSyncs => with(FaultPlan { stall_syncs: HALF, ..slow }),
    }
}

#[test]
fn every_class_fires_and_matters() {
    for fault in Fault::ALL {
        let (with, without) = trials(fault);
        let (mut fired, mut mattered) = (0, 0);
        for seed in 0..40 {
            let (sim, told) = run(seed, &with);
            let count = sim.fault_counts().get(fault.name()).copied().unwrap_or(0);
            let (other, untouched) = run(seed, &without);
            let elsewhere = other.fault_counts().get(fault.name()).copied().unwrap_or(0);
            assert_eq!(elsewhere, 0, "{fault} fires where it is not wanted");
            fired += u64::from(count > 0);
            mattered += u64::from(count > 0 && told != untouched);
        }
        assert!(fired > 10 && mattered > 5, "{fault}: {fired} fired, {mattered} mattered");
    }
}

#[test]
fn a_stall_of_one_tree_or_file_leaves_others_alone_and_ends_with_the_faults() {
    let (with, _) = trials(Fault::StallTree);
    let long = (0..40).filter(|seed| run(*seed, &with).0.now() > 20_000_000_000).count();
    assert!(long > 10, "{long} of 40 stood still for long");
    let sim = Sim::new(&SimConfig::fuzz(1));
    sim.disk_mut().create_dir("/d");
    let env = sim.env();
    let stall = FaultPlan { stall_max_ns: 60_000_000_000, ..FaultPlan::default() };
    sim.set_faults(FaultPlan { stall_file: ALWAYS, ..stall });
    sim.run(async move {
        let file = env.create(Path::new("/d/a")).await.unwrap();
        file.append(&[1], IoClass::Wal).await.unwrap();
    })
    .done()
    .unwrap();
    let after = sim.now();
    sim.set_faults(stall);
    let end = sim.run(async move {
        let file = env.create(Path::new("/d/b")).await.unwrap();
        file.append(&[1], IoClass::Wal).await.unwrap();
        env.now()
    });
    assert!(after > 1_000_000_000 && end.done().unwrap() < after + 1_000_000_000);
}

#[test]
fn the_swarm_draws_every_class() {
    let plans: Vec<FaultPlan> = (0..2000)
        .flat_map(|seed| Scenario::draw(seed).phases)
        .flat_map(|phase| [phase.faults, phase.recovery_faults])
        .collect();
    for fault in Fault::ALL {
        let drawn = plans.iter().filter(|plan| plan.per_million(fault) > 0).count();
        let by_other_means = matches!(fault, Fault::PowerLoss | Fault::Kill | Fault::Enospc);
        assert!(by_other_means || drawn > 20, "{fault} is drawn {drawn} times");
    }
}
