//! Strategy: each rule of the fault model is shown on one small history, over many seeds, so that
//! every outcome that the rule allows is seen and none that it forbids. Invariants: what a
//! completed sync covered survives; the disk that crashed is not changed by crashing.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::*;
use crate::choices::Choices;
use crate::choices::{Mode, Recording};
use crate::trace::Trace;

const SEEDS: u64 = 200;

fn choices(seed: u64) -> Choices {
    Choices::new(seed, Mode::Plain, Rc::new(Trace::default()))
}

fn disk(profile: Profile) -> SimDisk {
    let mut disk = SimDisk::new(DiskConfig { profile, ..DiskConfig::default() });
    disk.create_dir("/d");
    disk
}

fn sync(disk: &mut SimDisk, ino: u64, result: SyncResult) {
    let token = disk.sync_start(ino);
    disk.sync_end(token, result, &choices(0));
}

fn sync_dir(disk: &mut SimDisk) {
    let start = disk.sync_dir_start("/d").unwrap();
    disk.sync_dir_end("/d", start, SyncResult::Done, &choices(0)).unwrap();
}

/// A file with these bytes, synced, its name synced.
fn durable(disk: &mut SimDisk, path: &str, bytes: &[u8]) -> u64 {
    let ino = disk.create(path).unwrap().ino;
    disk.write(ino, 0, bytes).unwrap();
    sync(disk, ino, SyncResult::Done);
    sync_dir(disk);
    ino
}

fn append(disk: &mut SimDisk, ino: u64, bytes: &[u8]) {
    let end = disk.len(ino);
    disk.write(ino, end, bytes).unwrap();
}

/// What a path holds after a power loss, over all seeds.
fn outcomes(disk: &SimDisk, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..SEEDS).map(|seed| disk.crash_power(&choices(seed)).0.contents(path)).collect()
}

#[test]
fn f1_unsynced_pages_are_lost_or_kept_one_by_one() {
    for profile in [Profile::Journal, Profile::Adversary] {
        let mut disk = disk(profile);
        let ino = durable(&mut disk, "/d/a", &[1; 8192]);
        disk.write(ino, 0, &[2; 8192]).unwrap();
        let firsts: BTreeSet<_> = outcomes(&disk, "/d/a")
            .into_iter()
            .map(|bytes| bytes.map(|b| (b.len(), b[0], b[4096])).unwrap())
            .collect();
        let all = [(8192, 1, 1), (8192, 1, 2), (8192, 2, 1), (8192, 2, 2)];
        assert!(all.iter().all(|state| firsts.contains(state)), "{profile:?}: {firsts:?}");
        assert_eq!(disk.contents("/d/a").unwrap(), vec![2; 8192]);
    }
}

#[test]
fn f1_the_strict_profile_loses_everything_unsynced() {
    let mut disk = disk(Profile::Strict);
    let ino = durable(&mut disk, "/d/a", b"old");
    append(&mut disk, ino, b" new");
    assert_eq!(outcomes(&disk, "/d/a"), BTreeSet::from([Some(b"old".to_vec())]));
}

#[test]
fn f1_the_adversary_tears_pages_by_sector_and_the_journal_does_not() {
    let torn = |profile| {
        let mut disk = disk(profile);
        let ino = durable(&mut disk, "/d/a", &[1; 4096]);
        disk.write(ino, 0, &[2; 4096]).unwrap();
        outcomes(&disk, "/d/a").into_iter().flatten().any(|page| {
            assert!(page.chunks(512).all(|sector| sector.iter().all(|b| *b == sector[0])));
            page.iter().any(|b| *b != page[0])
        })
    };
    assert!(torn(Profile::Adversary));
    assert!(!torn(Profile::Journal));
}

#[test]
fn f1_an_earlier_version_of_a_page_can_survive() {
    let mut disk = disk(Profile::Journal);
    let ino = durable(&mut disk, "/d/a", b"");
    for part in [b"aaaa", b"bbbb", b"cccc"] {
        append(&mut disk, ino, part);
    }
    let seen = outcomes(&disk, "/d/a");
    assert!(seen.contains(&Some(b"aaaabbbb".to_vec())), "{seen:?}");
    assert!(seen.contains(&Some(b"aaaabbbb\0\0\0\0".to_vec())), "{seen:?}");
}

#[test]
fn f2_the_size_lies_between_durable_and_live_and_holes_read_as_zeros() {
    let mut disk = disk(Profile::Adversary);
    let ino = durable(&mut disk, "/d/a", &[1; 100]);
    append(&mut disk, ino, &[2; 10_000]);
    let seen = outcomes(&disk, "/d/a");
    let sizes: BTreeSet<_> = seen.iter().flatten().map(Vec::len).collect();
    assert!(sizes.iter().all(|len| (100..=10_100).contains(len)), "{sizes:?}");
    assert!(sizes.contains(&100) && sizes.contains(&10_100) && sizes.len() > 2, "{sizes:?}");
    assert!(seen.iter().flatten().all(|b| b[..100].iter().all(|b| *b == 1)));
    assert!(seen.iter().flatten().any(|b| b.len() == 10_100 && b[5000] == 0), "a hole");
}

#[test]
fn f2_an_ordered_journal_writes_data_before_the_size_that_covers_it() {
    let mut disk = disk(Profile::Journal);
    let ino = durable(&mut disk, "/d/a", b"");
    append(&mut disk, ino, &[2; 8192]);
    let seen = outcomes(&disk, "/d/a");
    assert!(seen.contains(&Some(vec![2; 4096])), "cut at a page, its data there");
    assert!(seen.contains(&Some(vec![])), "nothing");
}

#[test]
fn f3_a_sync_covers_what_was_pending_when_it_started() {
    for profile in Profile::ALL {
        let mut disk = disk(profile);
        let ino = durable(&mut disk, "/d/a", b"");
        append(&mut disk, ino, b"before");
        let token = disk.sync_start(ino);
        append(&mut disk, ino, b"after");
        disk.sync_end(token, SyncResult::Done, &choices(0));
        let seen = outcomes(&disk, "/d/a");
        assert!(seen.iter().flatten().all(|b| b.starts_with(b"before")), "{seen:?}");
        assert!(seen.contains(&Some(b"before".to_vec())), "{seen:?}");
    }
}

#[test]
fn f3_overlapping_syncs_never_take_back_what_one_of_them_wrote() {
    let mut disk = disk(Profile::Strict);
    let ino = durable(&mut disk, "/d/a", b"");
    append(&mut disk, ino, b"one");
    let first = disk.sync_start(ino);
    append(&mut disk, ino, b"two");
    let second = disk.sync_start(ino);
    disk.sync_end(second, SyncResult::Done, &choices(0));
    disk.sync_end(first, SyncResult::Done, &choices(0));
    assert_eq!(outcomes(&disk, "/d/a"), BTreeSet::from([Some(b"onetwo".to_vec())]));
}

#[test]
fn f3_after_a_failed_sync_the_next_one_says_ok_and_writes_nothing() {
    let lost = (0..SEEDS).any(|seed| {
        let mut disk = disk(Profile::Journal);
        let ino = durable(&mut disk, "/d/a", &[1; 8192]);
        disk.write(ino, 0, &[2; 8192]).unwrap();
        let token = disk.sync_start(ino);
        disk.sync_end(token, SyncResult::Failed, &choices(seed));
        sync(&mut disk, ino, SyncResult::Done);
        assert_eq!(disk.contents("/d/a").unwrap(), vec![2; 8192], "live bytes stay");
        let (after, _) = disk.crash_power(&choices(seed));
        after.contents("/d/a").unwrap().contains(&1)
    });
    assert!(lost);
}

#[test]
fn f4_f5_a_created_name_needs_a_sync_of_its_directory() {
    for profile in Profile::ALL {
        let mut disk = disk(profile);
        let ino = disk.create("/d/a").unwrap().ino;
        append(&mut disk, ino, b"x");
        sync(&mut disk, ino, SyncResult::Done);
        assert!(outcomes(&disk, "/d/a").contains(&None), "{profile:?}");
        sync_dir(&mut disk);
        assert_eq!(outcomes(&disk, "/d/a"), BTreeSet::from([Some(b"x".to_vec())]), "{profile:?}");
    }
}

#[test]
fn f3_a_journal_may_persist_the_name_with_the_data() {
    let mut disk = disk(Profile::Journal);
    disk.config.sync_persists_name = true;
    let ino = disk.create("/d/a").unwrap().ino;
    append(&mut disk, ino, b"x");
    sync(&mut disk, ino, SyncResult::Done);
    assert_eq!(outcomes(&disk, "/d/a"), BTreeSet::from([Some(b"x".to_vec())]));
}

#[test]
fn f5_an_unlinked_name_may_come_back_until_the_directory_is_synced() {
    let mut disk = disk(Profile::Adversary);
    let ino = durable(&mut disk, "/d/a", b"x");
    disk.close(ino);
    disk.remove("/d/a").unwrap();
    let seen = outcomes(&disk, "/d/a");
    assert_eq!(seen, BTreeSet::from([None, Some(b"x".to_vec())]));
    sync_dir(&mut disk);
    assert_eq!(outcomes(&disk, "/d/a"), BTreeSet::from([None]));
    assert!(disk.is_empty());
}

#[test]
fn f6_a_rename_leaves_the_old_or_the_new_file_and_never_none() {
    for profile in [Profile::Journal, Profile::Adversary] {
        let mut disk = disk(profile);
        durable(&mut disk, "/d/CURRENT", b"old");
        durable(&mut disk, "/d/tmp", b"new");
        disk.rename("/d/tmp", "/d/CURRENT").unwrap();
        let states: BTreeSet<_> = (0..SEEDS)
            .map(|seed| disk.crash_power(&choices(seed)).0)
            .map(|after| {
                (after.contents("/d/CURRENT").unwrap(), after.contents("/d/tmp").is_some())
            })
            .collect();
        let both = profile == Profile::Adversary;
        let mut expected = BTreeSet::from([(b"old".to_vec(), true), (b"new".to_vec(), false)]);
        expected.extend(both.then(|| (b"new".to_vec(), true)));
        assert_eq!(states, expected, "{profile:?}");
        sync_dir(&mut disk);
        assert_eq!(outcomes(&disk, "/d/CURRENT"), BTreeSet::from([Some(b"new".to_vec())]));
    }
}

#[test]
fn f7_a_journal_keeps_a_prefix_of_names_and_the_adversary_any_closed_subset() {
    let states = |profile| {
        let mut disk = disk(profile);
        for name in ["/d/a", "/d/b", "/d/c"] {
            disk.create(name).unwrap();
        }
        (0..SEEDS)
            .map(|seed| disk.crash_power(&choices(seed)).0.list("/d").unwrap().concat())
            .collect::<BTreeSet<_>>()
    };
    let prefixes = ["", "a", "ab", "abc"].map(str::to_owned);
    assert_eq!(states(Profile::Journal), BTreeSet::from(prefixes));
    assert_eq!(states(Profile::Adversary).len(), 8);

    let mut disk = disk(Profile::Adversary);
    disk.create("/d/a").unwrap();
    disk.remove("/d/a").unwrap();
    disk.create("/d/a").unwrap();
    for seed in 0..SEEDS {
        let (after, _) = disk.crash_power(&choices(seed));
        assert!(after.list("/d").unwrap().len() <= 1);
    }
}

#[test]
fn f8_a_cut_may_be_undone_and_growing_again_reads_zeros() {
    let mut disk = disk(Profile::Journal);
    let ino = durable(&mut disk, "/d/a", &[1; 6000]);
    disk.set_len(ino, 10).unwrap();
    let seen = outcomes(&disk, "/d/a");
    assert!(seen.contains(&Some(vec![1; 6000])) && seen.contains(&Some(vec![1; 10])));
    disk.set_len(ino, 5000).unwrap();
    let bytes = disk.contents("/d/a").unwrap();
    assert!(bytes[..10].iter().all(|b| *b == 1) && bytes[10..].iter().all(|b| *b == 0));
}

#[test]
fn f9_a_kill_keeps_completed_calls_and_cuts_a_write_in_flight_anywhere() {
    let mut disk = disk(Profile::Journal);
    let ino = durable(&mut disk, "/d/a", b"synced ");
    append(&mut disk, ino, b"cached ");
    let (after, report) = disk.crash_kill(&choices(1));
    assert_eq!(after.contents("/d/a").unwrap(), b"synced cached ");
    assert_eq!((report.writes_cut, after.open_handles()), (0, 0));
    assert_eq!(after.pending().0, 1, "a power loss later may still take it");
    assert!(outcomes(&after, "/d/a").contains(&Some(b"synced ".to_vec())));

    let end = disk.len(ino);
    disk.write_begin(ino, end, 8);
    append(&mut disk, ino, b"12345678");
    let lens: BTreeSet<_> = (0..SEEDS)
        .map(|seed| disk.crash_kill(&choices(seed)).0.contents("/d/a").unwrap())
        .map(|bytes| {
            assert!(b"synced cached 12345678".starts_with(&bytes[..]));
            bytes.len()
        })
        .collect();
    assert_eq!(lens, (14..=22).collect());
}

#[test]
fn f9_a_kill_cuts_an_overwrite_in_flight() {
    let mut disk = disk(Profile::Journal);
    let ino = durable(&mut disk, "/d/a", b"aaaaaaaa");
    disk.write_begin(ino, 2, 4);
    disk.write(ino, 2, b"bbbb").unwrap();
    for seed in 0..SEEDS {
        let bytes = disk.crash_kill(&choices(seed)).0.contents("/d/a").unwrap();
        let cut = bytes[2..].iter().take_while(|b| **b == b'b').count();
        assert_eq!(bytes, [&b"aa"[..], &b"bbbb"[..cut], &b"aaaaaaaa"[..6 - cut]].concat());
    }
}

#[test]
fn f10_a_crash_in_a_sync_persists_any_part_of_it() {
    let mut disk = disk(Profile::Strict);
    let ino = durable(&mut disk, "/d/a", &[1; 8192]);
    disk.write(ino, 0, &[2; 8192]).unwrap();
    let _in_flight = disk.sync_start(ino);
    let states: BTreeSet<_> =
        outcomes(&disk, "/d/a").into_iter().flatten().map(|b| (b[0], b[4096])).collect();
    assert_eq!(states, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
}

#[test]
fn the_simplest_crash_loses_nothing_and_a_replayed_one_is_the_same() {
    let mut disk = disk(Profile::Adversary);
    let ino = disk.create("/d/a").unwrap().ino;
    append(&mut disk, ino, &[3; 9000]);
    let trace = || Rc::new(Trace::default());
    let simplest = Choices::new(0, Mode::Replay(Recording::default()), trace());
    assert_eq!(disk.crash_power(&simplest).0.contents("/d/a").unwrap(), vec![3; 9000]);
    for seed in 0..SEEDS {
        let recorded = Choices::new(seed, Mode::Record, trace());
        let (first, report) = disk.crash_power(&recorded);
        let replayed = Choices::new(0, Mode::Replay(recorded.recording()), trace());
        let (second, again) = disk.crash_power(&replayed);
        assert_eq!((first.contents("/d/a"), report), (second.contents("/d/a"), again));
    }
}

#[test]
fn a_second_power_loss_changes_nothing() {
    let mut disk = disk(Profile::Adversary);
    let ino = disk.create("/d/a").unwrap().ino;
    append(&mut disk, ino, &[3; 9000]);
    for seed in 0..SEEDS {
        let (first, _) = disk.crash_power(&choices(seed));
        let (second, report) = first.crash_power(&choices(seed + 1));
        assert_eq!(first.files(), second.files());
        assert_eq!(first.contents("/d/a"), second.contents("/d/a"));
        assert_eq!((report, first.used_bytes()), (CrashReport::default(), second.used_bytes()));
    }
}

#[test]
fn a_new_page_that_was_never_written_may_hold_a_deleted_files_bytes() {
    let mut disk = disk(Profile::Adversary);
    let old = durable(&mut disk, "/d/old", &[9; 4096]);
    disk.close(old);
    disk.remove("/d/old").unwrap();
    sync_dir(&mut disk);
    let ino = durable(&mut disk, "/d/a", b"");
    append(&mut disk, ino, &[1; 4096]);
    assert!(outcomes(&disk, "/d/a").contains(&Some(vec![9; 4096])));
}

#[test]
fn a_full_disk_takes_what_fits_and_gives_space_back_with_the_last_name_and_handle() {
    for track_durability in [true, false] {
        let capacity_bytes = 4 * PAGE_BYTES;
        let config = DiskConfig { capacity_bytes, track_durability, ..DiskConfig::default() };
        let mut disk = SimDisk::new(config);
        disk.create_dir("/d");
        let a = disk.create("/d/a").unwrap().ino;
        assert_eq!(disk.write(a, 0, &vec![1; 20_000]), Err(DiskError::Full));
        assert_eq!((disk.len(a), disk.free_bytes()), (16_384, 0));
        assert_eq!(disk.create("/d/b"), Err(DiskError::Full));
        disk.remove("/d/a").unwrap();
        assert_eq!(disk.free_bytes(), 0, "a handle is open");
        disk.close(a);
        assert_eq!(disk.free_bytes(), capacity_bytes);
        disk.set_hog_bytes(3 * PAGE_BYTES);
        let b = disk.create("/d/b").unwrap().ino;
        assert_eq!(disk.allocate(b, 8192), Err(DiskError::Full));
        disk.set_hog_bytes(0);
        assert_eq!(disk.allocate(b, 8192), Ok(()));
        assert_eq!((disk.len(b), disk.used_bytes()), (0, 8192));
        assert_eq!(disk.write(b, 0, &[1; 8192]), Ok(()));
        assert_eq!(disk.set_len(b, 0), Ok(()));
        assert_eq!(disk.used_bytes(), 0);
    }
}

#[test]
fn a_flat_file_and_a_paged_one_hold_the_same_bytes() {
    let build = |track_durability| {
        let config = DiskConfig { track_durability, ..DiskConfig::default() };
        let mut disk = SimDisk::new(config);
        disk.create_dir("/d");
        let ino = disk.create("/d/a").unwrap().ino;
        let draw = choices(5);
        for step in 0..300_u64 {
            let at = draw.choose("at", 20_000);
            match draw.choose("op", 4) {
                0 => disk.set_len(ino, at).unwrap(),
                1 => disk.write(ino, at, &[u8::try_from(step & 255).unwrap(); 5000]).unwrap(),
                _ => append(&mut disk, ino, &[u8::try_from(step & 255).unwrap(); 777]),
            }
        }
        let middle = disk.read(ino, 100, to_usize(disk.len(ino)).saturating_sub(200)).unwrap();
        (disk.contents("/d/a").unwrap(), middle, disk.used_bytes())
    };
    assert_eq!(build(true), build(false));
}

#[test]
fn a_copy_shares_pages_until_one_side_writes() {
    let mut disk = disk(Profile::Journal);
    let ino = durable(&mut disk, "/d/a", &[1; 4096]);
    let copy = disk.clone();
    disk.write(ino, 0, &[2; 4096]).unwrap();
    assert_eq!(copy.contents("/d/a").unwrap(), vec![1; 4096]);
}

#[test]
fn f4_a_failed_sync_of_a_directory_makes_a_part_durable() {
    for profile in [Profile::Journal, Profile::Adversary] {
        let states: BTreeSet<String> = (0..SEEDS)
            .map(|seed| {
                let mut disk = disk(profile);
                disk.create("/d/a").unwrap();
                disk.create("/d/b").unwrap();
                let start = disk.sync_dir_start("/d").unwrap();
                let ended = disk.sync_dir_end("/d", start, SyncResult::Failed, &choices(seed));
                assert_eq!(ended, Ok(()));
                disk.config.profile = Profile::Strict;
                disk.crash_power(&choices(seed)).0.list("/d").unwrap().concat()
            })
            .collect();
        let mut expected = BTreeSet::from(["", "a", "ab"].map(str::to_owned));
        expected.extend((profile == Profile::Adversary).then(|| "b".to_owned()));
        assert_eq!(states, expected, "{profile:?}");
    }
}

#[test]
fn f4_a_rename_across_directories_needs_both_synced() {
    let mut disk = disk(Profile::Adversary);
    disk.create_dir("/e");
    durable(&mut disk, "/d/a", b"x");
    disk.rename("/d/a", "/e/a").unwrap();
    let start = disk.sync_dir_start("/e").unwrap();
    disk.sync_dir_end("/e", start, SyncResult::Done, &choices(0)).unwrap();
    assert_eq!(outcomes(&disk, "/e/a"), BTreeSet::from([Some(b"x".to_vec())]));
    assert_eq!(outcomes(&disk, "/d/a"), BTreeSet::from([None, Some(b"x".to_vec())]));
    sync_dir(&mut disk);
    assert_eq!(outcomes(&disk, "/d/a"), BTreeSet::from([None]));
}
