//! Strategy: each line of the error table met by a small program that believes in what the fault takes
//! away. Invariants: the fault fires under its name, the program sees the state that the table allows,
//! and the same program without the fault does not.
#![cfg(test)]

use core::future::Future;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use forebay_engine::env::{Env, File, IoClass};
use forebay_engine::error::{Error, Result};
use forebay_sim::disk::{DiskConfig, Profile};
use forebay_sim::fault::{Fault, FaultPlan};
use forebay_sim::{Sim, SimConfig, SimEnv};

const ALWAYS: u32 = 1_000_000;
const HALF: u32 = 500_000;

fn none() -> FaultPlan {
    FaultPlan::default()
}

fn world(seed: u64) -> Sim {
    let config = SimConfig::fuzz(seed);
    let disk = DiskConfig { profile: Profile::Strict, ..config.disk };
    let sim = Sim::new(&SimConfig { disk, ..config });
    sim.disk_mut().create_dir("/d");
    sim
}

fn go<T: 'static, F: Future<Output = T> + 'static>(sim: &Sim, run: impl FnOnce(SimEnv) -> F) -> T {
    sim.run(run(sim.env())).done().unwrap()
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new("/d").join(name)
}

/// A file of `pages` pages of ones, synced with its name.
fn synced_file(sim: &Sim, name: &'static str, pages: usize) {
    go(sim, move |env| async move {
        let file = env.create(&path(name)).await.unwrap();
        file.append(&vec![1; 4096 * pages], IoClass::Wal).await.unwrap();
        file.sync_data(IoClass::Wal).await.unwrap();
        env.sync_dir(Path::new("/d")).await.unwrap();
    });
}

fn overwrite(sim: &Sim, name: &'static str, pages: usize) -> (Result<()>, Result<()>) {
    go(sim, move |env| async move {
        let file = env.open(&path(name)).await.unwrap();
        let written = file.write_at(0, &vec![2; 4096 * pages], IoClass::Wal).await;
        (written, file.sync_data(IoClass::Wal).await)
    })
}

/// Which values the pages of a file begin with.
fn pages(sim: &Sim, file: &str) -> Vec<u8> {
    let bytes = sim.disk().contents(file).unwrap();
    bytes.chunks(4096).map(|page| page[0]).collect()
}

fn fired(sim: &Sim, fault: Fault) -> u64 {
    sim.fault_counts().get(fault.name()).copied().unwrap_or(0)
}

fn kind(error: &Error) -> ErrorKind {
    let Error::Io { kind, .. } = error else { panic!("{error}") };
    *kind
}

fn read(sim: &Sim, name: &'static str, offset: u64, len: usize) -> Result<Vec<u8>> {
    go(sim, move |env| async move {
        let file = env.open(&path(name)).await?;
        Ok(file.read_at(offset, len, IoClass::Read).await?.to_vec())
    })
}

#[test]
fn a_lost_sector_stays_lost_over_restarts_until_it_is_written_in_whole() {
    let sim = world(3);
    synced_file(&sim, "a", 1);
    sim.set_faults(FaultPlan { latent_sector: ALWAYS, ..none() });
    let error = read(&sim, "a", 512, 512).unwrap_err();
    assert_eq!((error.location().0, error.location().1), (Some(&*path("a")), Some(512)));
    sim.set_faults(none());
    for crash in [Sim::kill, Sim::power_loss] {
        crash(&sim);
        // A client that believes in trying again: twenty times are no better than one.
        assert!((0..20).all(|_| read(&sim, "a", 600, 10).is_err()));
        assert!(read(&sim, "a", 0, 512).is_ok() && read(&sim, "a", 1024, 512).is_ok());
    }
    let write = |offset, len: usize| {
        go(&sim, move |env| async move {
            let file = env.open(&path("a")).await.unwrap();
            file.write_at(offset, &vec![7; len], IoClass::Wal).await.unwrap();
        });
    };
    write(512, 511);
    assert!(read(&sim, "a", 600, 10).is_err(), "a part of a sector heals nothing");
    write(512, 512);
    assert_eq!(read(&sim, "a", 600, 10).unwrap(), [7; 10]);
    assert_eq!(fired(&sim, Fault::LatentSector), 1);
    assert_eq!(sim.atlas().damage()[0].bytes, (512, 1024));
}

#[test]
fn a_read_in_two_parts_sees_a_write_between_them() {
    let torn = |plan: FaultPlan| {
        (0..40).any(|seed| {
            let sim = world(seed);
            synced_file(&sim, "a", 1);
            sim.set_faults(plan);
            let bytes = go(&sim, |env| async move {
                let file = env.open(&path("a")).await.unwrap();
                let other = env.spawn("writer", move || async move {
                    let file = env.open(&path("a")).await.unwrap();
                    file.write_at(0, &[2; 4096], IoClass::Wal).await.unwrap();
                });
                let bytes = file.read_at(0, 4096, IoClass::Read).await.unwrap();
                other.await;
                bytes
            });
            assert_eq!(bytes.len(), 4096);
            if plan.short_read > 0 {
                assert!(fired(&sim, Fault::ShortRead) > 0);
            }
            bytes.iter().collect::<BTreeSet<_>>().len() > 1
        })
    };
    assert!(torn(FaultPlan { short_read: ALWAYS, ..none() }));
    assert!(!torn(none()), "a read that comes at once is of one moment");
}

#[test]
fn a_short_read_at_the_end_of_a_file_is_an_error_and_not_less() {
    let sim = world(1);
    synced_file(&sim, "a", 1);
    sim.set_faults(FaultPlan { short_read: ALWAYS, ..none() });
    assert_eq!(kind(&read(&sim, "a", 4000, 200).unwrap_err()), ErrorKind::UnexpectedEof);
}

#[test]
fn a_write_may_be_done_in_whole_and_fail() {
    let sim = world(1);
    synced_file(&sim, "a", 2);
    sim.set_faults(FaultPlan { write_after_effect: ALWAYS, ..none() });
    let (written, synced) = overwrite(&sim, "a", 2);
    // A client that takes the error for "nothing was done" keeps the old bytes in mind.
    assert!(written.is_err() && synced.is_ok());
    sim.power_loss();
    assert_eq!(pages(&sim, "/d/a"), [2, 2]);
    assert_eq!(fired(&sim, Fault::WriteAfterEffect), 1);
}

#[test]
fn a_write_without_space_leaves_a_prefix_and_says_which_limit() {
    let mut kinds = BTreeSet::new();
    let mut lengths = BTreeSet::new();
    for seed in 0..20 {
        let sim = world(seed);
        synced_file(&sim, "a", 1);
        sim.set_faults(FaultPlan { enospc_write: ALWAYS, ..none() });
        let error = go(&sim, |env| async move {
            let file = env.open(&path("a")).await.unwrap();
            file.append(&[2; 4096], IoClass::Wal).await.unwrap_err()
        });
        kinds.insert(format!("{:?}", kind(&error)));
        lengths.insert(sim.disk().contents("/d/a").unwrap().len());
        assert_eq!(fired(&sim, Fault::EnospcWrite), 1);
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["QuotaExceeded", "StorageFull"]);
    assert!(lengths.len() > 5 && lengths.iter().all(|len| (4096..8192).contains(len)));
}

#[test]
fn a_misdirected_write_takes_bytes_of_another_file_and_keeps_its_own_away() {
    let sim = world(5);
    synced_file(&sim, "a", 2);
    synced_file(&sim, "b", 2);
    sim.set_faults(FaultPlan { misdirected_file: ALWAYS, ..none() });
    let (written, synced) = overwrite(&sim, "a", 1);
    assert!(written.is_ok() && synced.is_ok(), "nobody is told");
    let has_twos = |file| sim.disk().contents(file).unwrap().contains(&2);
    assert!(!has_twos("/d/a"), "the target keeps old data");
    assert!(has_twos("/d/b") && sim.disk().contents("/d/b").unwrap().len() == 8192);
    let hit: BTreeSet<String> = sim.atlas().damage().iter().map(|d| d.path.clone()).collect();
    assert_eq!(hit.into_iter().collect::<Vec<_>>(), ["/d/a", "/d/b"]);
    assert_eq!(fired(&sim, Fault::MisdirectedFile), 1);
}

/// What a file of eight pages reads as after a sync that failed and one more that did not.
fn after_failed_sync(seed: u64, plan: FaultPlan) -> (Sim, Vec<u8>) {
    let sim = world(seed);
    synced_file(&sim, "a", 8);
    sim.set_faults(plan);
    let (written, synced) = overwrite(&sim, "a", 8);
    assert!(written.is_ok() && synced.is_err());
    sim.set_faults(none());
    // A client that asks again is told that all is well.
    go(&sim, |env| async move {
        env.open(&path("a")).await.unwrap().sync_data(IoClass::Wal).await.unwrap();
    });
    let pages = pages(&sim, "/d/a");
    (sim, pages)
}

#[test]
fn a_failed_sync_keeps_the_new_bytes_until_the_cache_forgets_them() {
    let mut mixed = 0;
    for seed in 0..20 {
        let (sim, pages) = after_failed_sync(seed, FaultPlan { eio_sync: ALWAYS, ..none() });
        assert_eq!(pages, [2; 8], "the page cache keeps what was written");
        sim.set_faults(FaultPlan { cache_eviction: ALWAYS, ..none() });
        let bytes = read(&sim, "a", 0, 8 * 4096).unwrap();
        let forgotten = bytes.chunks(4096).filter(|page| page[0] == 1).count();
        assert_eq!(fired(&sim, Fault::CacheEviction), u64::from(forgotten > 0));
        mixed += u64::from(forgotten > 0 && forgotten < 8);
        let seen: Vec<u8> = bytes.chunks(4096).map(|page| page[0]).collect();
        sim.power_loss();
        assert_eq!(self::pages(&sim, "/d/a"), seen, "an evicted page shows what is durable");
    }
    assert!(mixed > 10);
}

#[test]
fn a_failed_sync_may_take_the_new_bytes_back_at_once() {
    let mut reverted = 0;
    for seed in 0..20 {
        let plan = FaultPlan { eio_sync: ALWAYS, sync_reverted: ALWAYS, ..none() };
        let (sim, pages) = after_failed_sync(seed, plan);
        assert_eq!(fired(&sim, Fault::SyncReverted), 1);
        reverted += u64::from(pages.contains(&1) && pages.contains(&2));
        sim.power_loss();
        assert_eq!(self::pages(&sim, "/d/a"), pages);
    }
    assert!(reverted > 10);
}

#[test]
fn a_sync_without_space_fails_late_and_is_a_full_disk() {
    let sim = world(2);
    synced_file(&sim, "a", 8);
    sim.set_faults(FaultPlan { enospc_sync: ALWAYS, ..none() });
    let (written, synced) = overwrite(&sim, "a", 8);
    assert!(written.is_ok() && synced.unwrap_err().is_storage_full());
    sim.power_loss();
    assert!(pages(&sim, "/d/a").contains(&1), "the write was taken and is not there");
    assert_eq!(fired(&sim, Fault::EnospcSync), 1);
}

#[test]
fn a_late_error_comes_with_the_next_sync_of_the_file_and_once() {
    let mut lost = 0;
    for seed in 0..20 {
        let sim = world(seed);
        synced_file(&sim, "a", 8);
        sim.set_faults(FaultPlan { sync_late: ALWAYS, ..none() });
        let (written, synced) = overwrite(&sim, "a", 8);
        assert!(written.is_ok() && synced.is_ok());
        sim.set_faults(none());
        let sync = || {
            go(&sim, |env| async move {
                env.open(&path("a")).await.unwrap().sync_data(IoClass::Wal).await
            })
        };
        assert!(sync().is_err() && sync().is_ok());
        sim.power_loss();
        lost += u64::from(pages(&sim, "/d/a").contains(&1));
        assert!(sim.atlas().is_hit("/d/a"), "what was confirmed is void");
    }
    assert!(lost > 10);
}

#[test]
fn a_name_without_space_is_there_or_not() {
    let mut there = BTreeSet::new();
    for seed in 0..20 {
        let sim = world(seed);
        synced_file(&sim, "a", 1);
        sim.set_faults(FaultPlan { enospc_meta: ALWAYS, error_after_effect: HALF, ..none() });
        let errors = go(&sim, |env| async move {
            let created = env.create(&path("b")).await.unwrap_err();
            let linked = env.link(&path("a"), &path("c")).await.unwrap_err();
            let renamed = env.rename(&path("a"), &path("e")).await.unwrap_err();
            // Nothing here needs space.
            env.sync_dir(Path::new("/d")).await.unwrap();
            [created, linked, renamed]
        });
        assert!(errors.iter().all(Error::is_storage_full));
        assert_eq!(fired(&sim, Fault::EnospcMeta), 3);
        for name in ["b", "c", "e"] {
            there.insert((name, sim.disk().ino(&format!("/d/{name}")).is_some()));
        }
    }
    assert_eq!(there.len(), 6, "{there:?}");
}

#[test]
fn a_change_of_length_is_not_done_done_in_part_or_done() {
    let (mut lengths, mut reserved) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..60 {
        let sim = world(seed);
        synced_file(&sim, "a", 1);
        let used = sim.disk().used_bytes();
        sim.set_faults(FaultPlan { eio_resize: ALWAYS, ..none() });
        let errors = go(&sim, |env| async move {
            let file = env.open(&path("a")).await.unwrap();
            let allocated = file.allocate(5 * 4096).await.unwrap_err();
            (allocated, file.set_len(3 * 4096 + 100).await.unwrap_err())
        });
        assert_eq!(errors.0.location().0, errors.1.location().0);
        reserved.insert(sim.disk().used_bytes() - used);
        lengths.insert(sim.disk().contents("/d/a").unwrap().len());
        assert_eq!(fired(&sim, Fault::EioResize), 2);
    }
    assert!(lengths.contains(&4096) && lengths.contains(&8192) && lengths.contains(&12_388));
    assert!(reserved.contains(&0) && reserved.len() > 3, "{reserved:?}");
}

#[test]
fn after_an_error_the_filesystem_may_take_no_changes_until_it_heals() {
    let sim = world(4);
    synced_file(&sim, "a", 2);
    sim.set_faults(FaultPlan { eio_write: ALWAYS, remount_ro: ALWAYS, ..none() });
    let (written, synced) = overwrite(&sim, "a", 1);
    assert_eq!(kind(&written.unwrap_err()), ErrorKind::Other);
    assert_eq!(kind(&synced.unwrap_err()), ErrorKind::ReadOnlyFilesystem);
    // The first cause is gone, and that is of no help.
    sim.set_faults(FaultPlan { clock_jump: 1, ..none() });
    let refused = go(&sim, |env| async move {
        let file = env.open(&path("a")).await.unwrap();
        assert_eq!(file.read_at(0, 10, IoClass::Read).await.unwrap()[..], [1; 10]);
        assert_eq!(env.list(Path::new("/d")).await.unwrap(), ["a"]);
        [
            env.create(&path("b")).await.map(drop),
            env.rename(&path("a"), &path("b")).await,
            env.link(&path("a"), &path("b")).await,
            env.remove(&path("a")).await,
            env.sync_dir(Path::new("/d")).await,
            file.append(&[2], IoClass::Wal).await,
            file.set_len(1).await,
            file.allocate(100_000).await,
        ]
    });
    for refused in refused {
        assert_eq!(kind(&refused.unwrap_err()), ErrorKind::ReadOnlyFilesystem);
    }
    assert_eq!(pages(&sim, "/d/a"), [1, 1]);
    assert_eq!(fired(&sim, Fault::RemountReadOnly), 1);
    sim.power_loss();
    assert!(overwrite(&sim, "a", 1).0.is_ok(), "a restart heals it");
}

#[test]
fn rotten_bits_stay_until_they_are_written() {
    let sim = world(6);
    synced_file(&sim, "a", 1);
    sim.set_faults(FaultPlan { bit_rot: ALWAYS, ..none() });
    let rotten = read(&sim, "a", 0, 4096).unwrap();
    sim.set_faults(none());
    assert_eq!(rotten.iter().filter(|byte| **byte != 1).count(), 1);
    for crash in [Sim::kill, Sim::power_loss] {
        crash(&sim);
        assert_eq!(read(&sim, "a", 0, 4096).unwrap(), rotten);
    }
    assert!(overwrite(&sim, "a", 1).1.is_ok());
    assert_eq!(read(&sim, "a", 0, 4096).unwrap(), [2; 4096]);
    let at = sim.atlas().damage()[0].bytes.0;
    assert_ne!(rotten[usize::try_from(at).unwrap()], 1, "the atlas knows the byte");
}

#[test]
fn names_of_faults_are_stable_and_one_each() {
    let names: BTreeSet<&str> = Fault::ALL.into_iter().map(Fault::name).collect();
    assert_eq!(names.len(), Fault::ALL.len());
    assert_eq!(serde_json::from_str::<FaultPlan>("{}").unwrap(), FaultPlan::default());
    let media: Vec<&str> =
        Fault::ALL.into_iter().filter(|f| f.damages_media()).map(Fault::name).collect();
    assert_eq!(
        media,
        ["bit_rot", "misdirected", "sync_lies", "latent_sector", "misdirected_file", "sync_late"]
    );
}
