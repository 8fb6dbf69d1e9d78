//! Deletes: what each leaves in the log, in memory and on disk, when it goes, and that nothing
//! comes back.
#![cfg(test)]

#[expect(dead_code, reason = "deletes look at no events and at no clock")]
mod compacted;
mod small;

use std::collections::BTreeMap;

use compacted::{POLICIES, TENANTS, World, key, options};
use forebay_engine::inspect::Place;
use forebay_engine::options::Layout;
use forebay_engine::types::Kind;
use proptest::prelude::*;

const LAYOUTS: [Layout; 3] = [Layout::PerTenant, Layout::Grouped(2), Layout::Shared];

/// How many records of the log, and entries of tables, there are of a deleted key.
fn places(world: &World) -> (usize, usize) {
    let history = world.inspect(Some(("t0", &key(7)))).history;
    let deletes = history.iter().filter(|version| version.kind == Kind::Delete);
    let (log, table): (Vec<_>, Vec<_>) =
        deletes.partition(|version| matches!(version.place, Place::Log(..)));
    (log.len(), table.len())
}

#[test]
fn two_deletes_are_two_records_and_two_entries_and_one_on_disk() {
    for layout in LAYOUTS {
        let world = World::open(options(layout, "leveled"));
        world.delete(0, 7);
        world.delete(0, 7);
        world.block_on(world.db.sync()).unwrap();
        assert_eq!(places(&world), (2, 0), "{layout}");
        assert_eq!(world.block_on(world.db.entries("t0")).unwrap().len(), 2, "{layout}");
        world.flush(0);
        assert_eq!(places(&world).1, 1, "{layout}");
        assert_eq!(world.tombstones(), 1, "{layout}");
        world.close();
    }
}

#[test]
fn two_deletes_stay_two_on_disk_while_a_snapshot_lies_between() {
    for layout in LAYOUTS {
        let world = World::open(options(layout, "leveled"));
        world.delete(0, 7);
        let snapshot = world.tenants[0].snapshot();
        world.delete(0, 7);
        world.flush(0);
        assert_eq!(places(&world).1, 2, "{layout}");
        assert_eq!(world.tombstones(), 2, "{layout}");
        // The older one hides nothing: it goes at once. The newer one hides nothing from the
        // snapshot, but may not go before it.
        world.compact(0);
        assert_eq!(world.tombstones(), 1, "{layout}");
        drop(snapshot);
        world.compact(0);
        assert_eq!(world.tombstones(), 0, "{layout}");
        world.close();
    }
}

#[test]
fn no_tombstone_stays_after_a_full_compaction_without_snapshots() {
    for layout in LAYOUTS {
        for policy in POLICIES {
            let world = World::open(options(layout, policy));
            for tenant in 0..TENANTS {
                for round in 0..4 {
                    for k in 0..100 {
                        if (k + round) % 3 == 0 {
                            world.delete(tenant, k);
                        } else {
                            world.put(tenant, k, round);
                        }
                    }
                    world.flush(tenant);
                }
            }
            world.idle();
            for tenant in 0..TENANTS {
                world.compact(tenant);
            }
            let tables = world.tables();
            assert_eq!(world.tombstones(), 0, "{layout} {policy}");
            let entries: u64 = tables.iter().map(|t| t.meta.entries).sum();
            let live = (0..100).filter(|k| (k + 3) % 3 != 0).count();
            assert_eq!(usize::try_from(entries).unwrap(), TENANTS * live, "{layout} {policy}");
            world.close();
        }
    }
}

/// A table that holds nothing but tombstones does not come to rest in the last level by a move.
#[test]
fn a_table_of_tombstones_leaves_nothing_in_the_last_level() {
    for policy in POLICIES {
        let mut options = options(Layout::PerTenant, policy);
        options.set("l0_compaction_count", "1").unwrap();
        options.set("compaction.tombstone_percent", "0").unwrap();
        let world = World::open(options);
        world.delete(0, 1);
        world.flush(0);
        // Tiered merges begin with a second run.
        world.delete(0, 2);
        world.flush(0);
        world.idle();
        assert_eq!(world.tables().len(), 0, "{policy}");
        world.close();
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(usize, u8),
    Delete(usize, u8),
    Snapshot(usize),
    Release,
    Flush(usize),
    CompactRange(usize, u8, u8),
    Idle,
}

fn op() -> impl Strategy<Value = Op> {
    let tenant = 0..TENANTS;
    let k = 0..40_u8;
    prop_oneof![
        8 => (tenant.clone(), k.clone()).prop_map(|(t, k)| Op::Put(t, k)),
        8 => (tenant.clone(), k.clone()).prop_map(|(t, k)| Op::Delete(t, k)),
        1 => tenant.clone().prop_map(Op::Snapshot),
        1 => Just(Op::Release),
        3 => tenant.clone().prop_map(Op::Flush),
        1 => (tenant, k.clone(), k).prop_map(|(t, a, b)| Op::CompactRange(t, a.min(b), a.max(b))),
        1 => Just(Op::Idle),
    ]
}

type Map = BTreeMap<u8, u8>;

fn run(layout: Layout, policy: &str, ops: &[Op]) {
    let mut options = options(layout, policy);
    options.set("table_bytes_max", "1024").unwrap();
    options.set("level_base_bytes", "4096").unwrap();
    options.set("l0_compaction_count", "2").unwrap();
    let world = World::open(options);
    let mut model = vec![Map::new(); TENANTS];
    let mut snapshots = Vec::new();
    let check = |tenant: usize, want: &Map| {
        for k in 0..40 {
            assert_eq!(world.get(tenant, k), want.get(&k).copied(), "{layout} {policy} key {k}");
        }
    };
    for (number, op) in (0_u64..).zip(ops) {
        match op {
            Op::Put(t, k) => {
                let value = u8::try_from(number % 251).unwrap();
                world.put(*t, *k, value);
                model[*t].insert(*k, value);
            }
            Op::Delete(t, k) => {
                world.delete(*t, *k);
                model[*t].remove(k);
            }
            Op::Snapshot(t) => {
                snapshots.push((*t, world.tenants[*t].snapshot(), model[*t].clone()));
            }
            Op::Release => drop(snapshots.pop()),
            Op::Flush(t) => world.flush(*t),
            Op::CompactRange(t, a, b) => {
                let (a, b) = (key(*a), key(*b));
                world.block_on(world.tenants[*t].compact_range(&a[..]..=&b[..])).unwrap();
                check(*t, &model[*t]);
            }
            Op::Idle => {
                world.idle();
                for (t, want) in model.iter().enumerate() {
                    check(t, want);
                }
            }
        }
    }
    for (t, snapshot, want) in &snapshots {
        for k in 0..40 {
            let got = world.block_on(world.tenants[*t].get_at(snapshot, &key(k))).unwrap();
            assert_eq!(got.map(|v| v[0]), want.get(&k).copied(), "{layout} {policy} key {k}");
        }
    }
    drop(snapshots);
    for (t, want) in model.iter().enumerate() {
        world.compact(t);
        check(t, want);
    }
    assert_eq!(world.tombstones(), 0, "{layout} {policy}");
    let entries: u64 = world.tables().iter().map(|t| t.meta.entries).sum();
    let live: usize = model.iter().map(BTreeMap::len).sum();
    assert_eq!(usize::try_from(entries).unwrap(), live, "{layout} {policy}");
    world.close();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    // Strategy: puts and deletes of few keys by several tenants, with snapshots, flushes and
    // compactions of ranges between, under every policy in every layout. Invariants: a deleted key
    // never comes back, a snapshot reads what it saw, and in the end the tables hold the live keys
    // and nothing else.
    #[test]
    fn a_deleted_key_never_comes_back(ops in prop::collection::vec(op(), 1..250)) {
        for layout in LAYOUTS {
            for policy in POLICIES {
                run(layout, policy, &ops);
            }
        }
    }
}
