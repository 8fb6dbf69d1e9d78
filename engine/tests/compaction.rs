//! Compactions of a whole database: what they count, where they cut, what they move, and ranges.
#![cfg(test)]

mod compacted;
mod small;

use std::collections::BTreeMap;

use compacted::{POLICIES, World, key, options};
use forebay_engine::events::Event;
use forebay_engine::options::Layout;
use forebay_engine::types::{Kind, TableId};

/// Ends of compactions: entries read, written, dropped; whether it was a move.
fn ends(world: &World) -> Vec<(u64, u64, u64, bool)> {
    let end = |event: &Event| {
        let Event::CompactionEnd {
            input_entries,
            output_entries,
            dropped_entries,
            trivial_move,
            ..
        } = event
        else {
            return None;
        };
        Some((*input_entries, *output_entries, *dropped_entries, *trivial_move))
    };
    world.events.lock().iter().filter_map(end).collect()
}

#[test]
fn entries_read_are_entries_written_and_dropped() {
    for policy in POLICIES {
        let world = World::open(options(Layout::PerTenant, policy));
        for round in 0..30_u8 {
            for k in 0..40 {
                world.put(0, k, round);
            }
            for k in 0..10 {
                world.delete(0, k);
            }
            world.flush(0);
        }
        world.idle();
        let ends = ends(&world);
        assert!(ends.iter().any(|(_, _, dropped, _)| *dropped > 0), "{policy}");
        for (input, output, dropped, trivial_move) in ends {
            assert_eq!(input, output + dropped, "{policy}");
            assert!(trivial_move || input > 0, "{policy}");
        }
        world.close();
    }
}

/// Disjoint flushes change their level without being rewritten, one slot serves all of them, and
/// they are counted.
#[test]
fn disjoint_tables_are_moved_and_each_move_gives_its_slot_back() {
    let mut options = options(Layout::PerTenant, "leveled");
    options.set("compaction_slots", "1").unwrap();
    options.set("l0_compaction_count", "1").unwrap();
    let world = World::open(options);
    for k in 0..20 {
        world.put(0, k, 1);
        world.flush(0);
    }
    world.idle();
    let metrics = world.db.metrics();
    assert_eq!(metrics.trivial_move_count, 20);
    assert_eq!(metrics.compaction_count, 20);
    assert_eq!(metrics.compaction_bytes, 0);
    assert_eq!(metrics.l0_count, 0);
    let moves = ends(&world).into_iter().filter(|(.., trivial_move)| *trivial_move).count();
    assert_eq!(moves, 20);
    for k in 0..20 {
        assert!(world.get(0, k).is_some());
    }
    world.close();
}

#[test]
fn output_is_cut_at_its_size_and_never_between_versions_of_a_key() {
    for policy in POLICIES {
        let mut options = options(Layout::PerTenant, policy);
        options.set("table_bytes_max", "1024").unwrap();
        let world = World::open(options);
        let mut snapshots = Vec::new();
        // Each snapshot keeps a version of every key: those of one key are larger than a table.
        for round in 0..40_u8 {
            for k in 0..6 {
                world.put(0, k, round);
            }
            snapshots.push(world.tenants[0].snapshot());
            if round % 4 == 0 {
                world.flush(0);
            }
        }
        world.compact(0);
        let tables = world.tables();
        assert!(tables.len() >= 6, "{policy}: {} tables", tables.len());
        let mut homes: BTreeMap<Vec<u8>, TableId> = BTreeMap::new();
        for table in &tables {
            assert!(table.meta.bytes < 8192, "{policy}: {} bytes", table.meta.bytes);
            assert_eq!(table.meta.entries % 40, 0, "{policy}: versions of a key are apart");
            for end in [&table.meta.smallest, &table.meta.largest] {
                let home = *homes.entry(end.to_vec()).or_insert(table.meta.id);
                assert_eq!(home, table.meta.id, "{policy}: a key in two tables");
            }
        }
        assert_eq!(tables.iter().map(|t| t.meta.entries).sum::<u64>(), 240);
        for (round, snapshot) in (0_u8..).zip(&snapshots) {
            for k in 0..6 {
                let value = world.block_on(world.tenants[0].get_at(snapshot, &key(k))).unwrap();
                assert_eq!(value.unwrap()[0], round, "{policy}");
            }
        }
        drop(snapshots);
        world.close();
    }
}

/// Only tables of the range are rewritten, and of it no tombstone and no hidden version stays.
#[test]
fn a_range_is_compacted_and_the_rest_stays() {
    for policy in POLICIES {
        let mut options = options(Layout::PerTenant, policy);
        options.set("table_bytes_max", "1024").unwrap();
        options.set("l0_compaction_count", "20").unwrap();
        let world = World::open(options);
        for k in 0..200 {
            world.put(0, k, 1);
        }
        world.compact(0);
        let before = world.tables();
        assert!(before.len() > 10);
        for k in 100..110 {
            world.delete(0, k);
        }
        for k in 110..120 {
            world.put(0, k, 2);
        }
        let tenant = &world.tenants[0];
        let (from, to) = (key(100), key(120));
        world.block_on(tenant.compact_range(&from[..]..&to[..])).unwrap();
        let after = world.tables();
        let kept = after.iter().filter(|t| before.iter().any(|b| b.meta.id == t.meta.id)).count();
        assert!(kept > 5 && kept < before.len(), "{policy}: {kept} of {}", before.len());
        assert!(after.iter().all(|t| t.meta.tombstones == 0 && t.level == 6), "{policy}");
        assert_eq!(after.iter().map(|t| t.meta.entries).sum::<u64>(), 190, "{policy}");
        for k in 0..200_u8 {
            let want = if (100..110).contains(&k) {
                None
            } else {
                Some(if (110..120).contains(&k) { 2 } else { 1 })
            };
            assert_eq!(world.get(0, k), want, "{policy}: key {k}");
        }
        world.close();
    }
}

/// A range ends at its tenant: tables of others in the same tree stay.
#[test]
fn a_compaction_in_a_shared_tree_covers_its_tenant() {
    let mut options = options(Layout::Shared, "leveled");
    options.set("table_bytes_max", "1024").unwrap();
    let world = World::open(options);
    for tenant in 0..3 {
        for k in 0..100 {
            world.put(tenant, k, 1);
        }
    }
    world.compact(0);
    world.compact(1);
    world.compact(2);
    let before = world.tables();
    world.compact(1);
    let after = world.tables();
    let kept = after.iter().filter(|t| before.iter().any(|b| b.meta.id == t.meta.id)).count();
    assert!(kept >= before.len().div_euclid(2), "{kept} of {} tables stayed", before.len());
    assert!(kept < before.len());
    world.close();
}

/// Nothing is written any more, and yet the tombstones go when they are old: down past a snapshot
/// that sees what they hide, and away once it is released.
#[test]
fn old_tombstones_go_without_another_write() {
    let worlds = POLICIES.map(|policy| {
        let mut options = options(Layout::PerTenant, policy);
        options.set("compaction.tombstone_age_s", "1").unwrap();
        options.set("compaction.tombstone_percent", "0").unwrap();
        options.set("l0_compaction_count", "10").unwrap();
        let world = World::open(options);
        for k in 0..10 {
            world.put(0, k, 1);
        }
        world.compact(0);
        let snapshot = world.tenants[0].snapshot();
        for k in 0..10 {
            world.delete(0, k);
        }
        world.flush(0);
        // A timer that has not run out is no work that is due.
        world.idle();
        assert_eq!(world.db.metrics().l0_count, 1, "{policy}");
        (policy, world, snapshot)
    });
    for (policy, world, _) in &worlds {
        assert!(world.waits_for(|| world.db.metrics().l0_count == 0), "{policy}: L0");
    }
    for (policy, world, snapshot) in worlds {
        world.idle();
        assert_eq!(world.tombstones(), 10, "{policy}");
        let value = world.block_on(world.tenants[0].get_at(&snapshot, &key(3))).unwrap();
        assert!(value.is_some(), "{policy}");
        drop(snapshot);
        assert!(world.waits_for(|| world.tombstones() == 0), "{policy}: last level");
        assert_eq!(world.tables().len(), 0, "{policy}");
        world.close();
    }
}

#[test]
fn dense_tables_go_down_without_being_asked() {
    for policy in POLICIES {
        let mut options = options(Layout::PerTenant, policy);
        options.set("l0_compaction_count", "2").unwrap();
        let world = World::open(options);
        for k in 0..100 {
            world.put(0, k, 1);
        }
        world.compact(0);
        // Two small flushes of deletes: what they become is dense, wherever the policy puts it.
        for half in 0..2 {
            for k in half * 10..half * 10 + 10 {
                world.delete(0, k);
            }
            world.flush(0);
        }
        world.idle();
        let tables = world.tables();
        assert_eq!(tables.iter().map(|t| t.meta.tombstones).sum::<u64>(), 0, "{policy}");
        assert_eq!(tables.iter().map(|t| t.meta.entries).sum::<u64>(), 80, "{policy}");
        world.close();
    }
}

/// Pending bytes rise with what is due and fall to nothing with it, also when a tenant is dropped.
#[test]
fn pending_bytes_follow_the_levels() {
    for policy in POLICIES {
        let mut options = options(Layout::PerTenant, policy);
        options.set("l0_compaction_count", "2").unwrap();
        let world = World::open(options);
        for tenant in 0..2 {
            for k in 0..20 {
                world.put(tenant, k, 1);
            }
            world.flush(tenant);
        }
        world.idle();
        assert_eq!(world.db.metrics().pending_compaction_bytes, 0, "{policy}");
        world.put(0, 1, 2);
        world.flush(0);
        world.idle();
        assert_eq!(world.db.metrics().pending_compaction_bytes, 0, "{policy}");
        world.close();
    }
}

/// With one L0 table as the number that stops writes, every policy gets it out of the way.
#[test]
fn writers_never_wait_for_a_merge_that_is_not_due() {
    for policy in POLICIES {
        let mut options = options(Layout::PerTenant, policy);
        for (key, value) in [
            ("l0_compaction_count", "1"),
            ("l0_slowdown_count", "1"),
            ("l0_stop_count", "1"),
            ("memtable_bytes_max", "2048"),
        ] {
            options.set(key, value).unwrap();
        }
        if policy != "leveled" {
            options.set("compaction.run_count", "1000").unwrap();
        }
        let world = World::open(options);
        for round in 0..10 {
            for k in 0..=255 {
                world.put(0, k, round);
            }
        }
        world.idle();
        assert_eq!(world.db.metrics().l0_count, 0, "{policy}");
        for k in 0..=255 {
            assert_eq!(world.get(0, k), Some(9), "{policy}");
        }
        world.close();
    }
}

/// Every entry a tenant has, as its tables hold them: of use to see that none is made up.
#[test]
fn entries_of_a_settled_tree_are_its_live_keys() {
    for policy in POLICIES {
        let world = World::open(options(Layout::PerTenant, policy));
        for round in 0..5 {
            for k in 0..50 {
                world.put(0, k, round);
            }
            world.flush(0);
        }
        world.compact(0);
        let entries = world.block_on(world.db.entries("t0")).unwrap();
        assert_eq!(entries.len(), 50, "{policy}");
        assert!(entries.iter().all(|e| e.kind == Kind::Put), "{policy}");
        world.close();
    }
}
