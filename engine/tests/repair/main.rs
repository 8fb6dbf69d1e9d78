#![cfg(test)]
//! Strategy: a database with tables at several levels and a log of several segments is damaged
//! file by file (removed, cut, a byte flipped, garbage, two tables exchanged) and then verified,
//! repaired twice, verified again and opened.
//!
//! Invariants: verification names the damaged file, and an undamaged one is clean; repair deletes
//! nothing, and a second one finds nothing to do; the repaired directory opens and is clean; what a
//! key then reads was once written to that key of that tenant; what no damage hit reads as before.

#[expect(dead_code, reason = "each test file uses a part of it")]
#[path = "../fault_env/mod.rs"]
mod fault_env;
mod forks;
#[path = "../small/mod.rs"]
mod small;
mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::os::OsEnv;
use forebay_engine::env::{BlockingEnv, Env, File, IoClass};
use forebay_engine::options::Layout;
use forebay_engine::repair::{RepairOptions, repair};
use forebay_engine::table::{TableBuilder, TableFormat};
use forebay_engine::types::{Entry, Kind, TreeId};
use forebay_engine::verify::verify_dir;
use forebay_engine::{Db, WriteOptions};
use proptest::prelude::*;

use crate::fault_env::{Effect, FaultEnv, Rule};
use crate::small::options;
use crate::world::{DIR, Damage, KEYS, LAYOUTS, World, assert_names, damage, names, path};

#[test]
fn a_whole_directory_is_clean_and_repair_does_not_touch_it() {
    for layout in LAYOUTS {
        let world = World::new(layout);
        let contents = world.contents();
        let counts = (names(&contents, ".sst").len(), names(&contents, ".wal").len());
        let segments_min = if layout == Layout::PerTenant { 3 } else { 1 };
        assert!(counts.0 > 2 && counts.1 >= segments_min, "{layout}: {counts:?}");
        let report = world.verify();
        assert!(report.is_clean(), "{:?}", report.findings);
        let checked = report.checked;
        assert!(checked.tables > 2 && checked.blocks > checked.tables && checked.entries > 100);
        assert!(checked.edits > 2 && checked.segments > 0 && checked.records > 10);
        assert!(!world.repair(false).needed);
        assert_eq!(world.contents(), contents);
        assert_eq!(world.read(), world.expected());
    }
}

#[test]
fn without_current_everything_comes_back() {
    for layout in LAYOUTS {
        let whole = World::new(layout);
        for how in
            [Damage::Remove, Damage::Cut(0), Damage::Cut(9), Damage::Flip(3), Damage::Garbage]
        {
            let mut contents = whole.contents();
            damage(&mut contents, "CURRENT", &how);
            let world = whole.with(&contents);
            assert_names(&world.verify(), "CURRENT");
            let (report, read) = world.check_repair();
            assert!(report.needed && report.base_is_complete, "{how:?}: {report:?}");
            assert_eq!(read, whole.expected(), "{layout} {how:?}");
        }
    }
}

#[test]
fn without_a_manifest_everything_comes_back_but_names() {
    for layout in LAYOUTS {
        let whole = World::new(layout);
        let manifest = names(&whole.contents(), "MANIFEST").pop().unwrap();
        for how in [Damage::Remove, Damage::Cut(7), Damage::Garbage] {
            let mut contents = whole.contents();
            damage(&mut contents, &manifest, &how);
            let world = whole.with(&contents);
            assert_names(&world.verify(), &manifest);
            let (report, read) = world.check_repair();
            assert_eq!((report.base, report.recovered.len()), (None, 3), "{report:?}");
            assert_eq!(read, whole.expected(), "{layout} {how:?}");
        }
    }
}

#[test]
fn a_manifest_that_is_damaged_anywhere_costs_no_data() {
    for layout in LAYOUTS {
        let whole = World::new(layout);
        let manifest = names(&whole.contents(), "MANIFEST").pop().unwrap();
        let len = whole.contents()[&manifest].len();
        for at in (0..len).step_by(len.div_ceil(23)) {
            let mut contents = whole.contents();
            damage(&mut contents, &manifest, &Damage::Flip(at));
            let (_, read) = whole.with(&contents).check_repair();
            assert_eq!(read, whole.expected(), "{layout} byte {at}");
        }
    }
}

#[test]
fn a_lost_table_costs_what_it_held_and_nothing_else() {
    for layout in LAYOUTS {
        let whole = World::new(layout);
        let expected = whole.expected();
        for name in names(&whole.contents(), ".sst") {
            let len = whole.contents()[&name].len();
            for how in [
                Damage::Remove,
                Damage::Cut(len >> 1),
                Damage::Flip(3),
                Damage::Flip(len >> 1),
                Damage::Flip(len - 1),
                Damage::Garbage,
            ] {
                let mut contents = whole.contents();
                damage(&mut contents, &name, &how);
                let world = whole.with(&contents);
                let verified = world.verify();
                assert_names(&verified, &name);
                let finding = &verified.findings[0];
                assert!(finding.owners.tree.is_some() && finding.owners.tenant_count > 0);
                let (report, read) = world.check_repair();
                assert!(report.base.is_some() && !report.lost.is_empty());
                let hit: BTreeSet<&String> =
                    report.lost.iter().flat_map(|l| &l.owners.tenants).collect();
                for (key, value) in &expected {
                    let spared = !hit.contains(&key.0);
                    assert!(!spared || read[key] == *value, "{layout} {name} {how:?} {key:?}");
                }
                // What the third round wrote is in the log alone, above what is left of the tables.
                let written_last = |value: &Option<String>| {
                    value.as_ref().is_some_and(|v| v.split('/').nth(2) == Some("2"))
                };
                if layout == Layout::PerTenant {
                    for (key, value) in expected.iter().filter(|(_, v)| written_last(v)) {
                        assert_eq!(read[key], *value, "{name} {how:?} {key:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn tables_whose_files_were_exchanged_are_found_again() {
    for layout in LAYOUTS {
        let whole = World::new(layout);
        let tables = names(&whole.contents(), ".sst");
        for pair in tables.windows(2) {
            let mut contents = whole.contents();
            let first = contents[&pair[0]].clone();
            let second = contents.insert(pair[1].clone(), first).unwrap();
            contents.insert(pair[0].clone(), second);
            let world = whole.with(&contents);
            let verified = world.verify();
            assert_names(&verified, &pair[0]);
            assert_names(&verified, &pair[1]);
            let (report, read) = world.check_repair();
            assert_eq!(report.relocated, 2, "{report:?}");
            assert_eq!(read, whole.expected(), "{layout} {pair:?}");
        }
    }
}

#[test]
fn a_damaged_log_costs_the_records_that_are_hit() {
    for layout in LAYOUTS {
        let whole = World::new(layout);
        let expected = whole.expected();
        let segments = names(&whole.contents(), ".wal");
        let last = segments.len() - 1;
        for (place, name) in segments.iter().enumerate() {
            let len = whole.contents()[name].len();
            if len < 1_000 {
                continue;
            }
            for at in (50..len).step_by(len.div_ceil(9)) {
                let mut contents = whole.contents();
                damage(&mut contents, name, &Damage::Flip(at));
                let world = whole.with(&contents);
                if place < last {
                    assert_names(&world.verify(), name);
                }
                let (_, read) = world.check_repair();
                // A record holds one key of one tenant.
                let differ = expected.iter().filter(|(key, value)| read[key] != **value).count();
                assert!(differ <= 1 || place == last, "{layout} {name} byte {at}: {differ}");
            }
            for how in [Damage::Remove, Damage::Cut(len >> 1), Damage::Garbage, Damage::Flip(5)] {
                let mut contents = whole.contents();
                damage(&mut contents, name, &how);
                let world = whole.with(&contents);
                if place < last || matches!(how, Damage::Garbage | Damage::Flip(_)) {
                    assert_names(&world.verify(), name);
                }
                world.check_repair();
            }
        }
    }
}

/// A table of tree 7 with a value for each key and number, in a directory without a manifest.
async fn put_table(env: &MemEnv, number: u64, entries: &[(&str, u64)]) {
    let mut builder = TableBuilder::new(TreeId(7), TableFormat::default());
    for (key, seq) in entries {
        let (key, value) = (key.to_string().into(), format!("{key}{seq}").into());
        builder.add(&Entry { key, seq: *seq, kind: Kind::Put, value }).unwrap();
    }
    let file = env.create(&path(&format!("{number:06}.sst"))).await.unwrap();
    file.append(&builder.finish().unwrap().rest, IoClass::Flush).await.unwrap();
}

#[test]
fn tables_in_which_neither_is_newer_throughout_are_merged() {
    let (env, dir) = (MemEnv::default(), Path::new(DIR));
    let options = options(Layout::PerTenant);
    env.block_on(async {
        env.create_dir(dir).await.unwrap();
        put_table(&env, 5, &[("a", 1), ("m", 20), ("z", 3)]).await;
        put_table(&env, 6, &[("a", 10), ("z", 2)]).await;
        put_table(&env, 7, &[("zz", 1)]).await;
        let unknown = RepairOptions::default();
        let refused = repair(&env, dir, &unknown).await.unwrap_err();
        assert_eq!(refused.kind(), "invalid", "the layout is not known");
        let known = RepairOptions { layout: Some(Layout::PerTenant), ..unknown };
        let report = repair(&env, dir, &known).await.unwrap();
        assert_eq!((report.adopted, report.merged_trees, report.risks.len()), (3, 1, 1));
        assert_eq!(report.risks[0].error.location().0, Some(&*path("000005.sst")));
        assert_eq!(report.recovered, ["recovered-7"]);
        let db = Db::open(env.clone(), dir, options).await.unwrap();
        let tenant = db.tenant("recovered-7").unwrap();
        for (key, value) in [("a", "a10"), ("m", "m20"), ("z", "z3"), ("zz", "zz1")] {
            assert_eq!(tenant.get(key.as_bytes()).await.unwrap().unwrap(), value);
        }
        // Numbers of writes and ids of tenants go on behind those that were seen.
        assert!(tenant.put(b"a", b"new", WriteOptions::synced()).await.unwrap() > 20);
        assert!(db.create_tenants(&["other"]).await.unwrap()[0].branch_id().0 > 7);
        db.close().await.unwrap();
    });
}

#[test]
fn an_entry_of_the_log_does_not_hide_a_newer_one_of_a_table() {
    // The newest segments are lost, so the log ends before what is in the tables; with the
    // manifest lost too, nothing says where.
    let whole = World::new(Layout::PerTenant);
    let mut contents = whole.contents();
    let manifest = names(&contents, "MANIFEST").pop().unwrap();
    contents.remove(&manifest);
    let segments = names(&contents, ".wal");
    for name in &segments[1..] {
        contents.remove(name);
    }
    let (report, read) = whole.with(&contents).check_repair();
    assert!(report.log.carried > 0 && report.log.carried < report.log.entries);
    let round = |value: &Option<String>| {
        value.as_ref().map_or(0, |v| v.split('/').nth(2).unwrap().parse::<u32>().unwrap())
    };
    let flushed = |(tenant, _): &&(String, String)| tenant != "cleo";
    let newest = read.iter().filter(|(key, _)| flushed(key)).map(|(_, v)| round(v));
    assert!(newest.clone().filter(|round| *round > 0).count() > 40, "{:?}", newest.max());
    for (key, value) in read.iter().filter(|(key, _)| flushed(key)) {
        // Nothing that the second round overwrote or deleted, all of it flushed, is read again.
        let versions = &whole.history[key];
        let at = versions.iter().rposition(|v| v == value).unwrap();
        let later = versions[at + 1..].iter().flatten().map(|v| round(&Some(v.clone())));
        assert!(later.clone().all(|round| round == 2), "{key:?} {value:?} {later:?}");
    }
}

#[test]
fn numbers_of_writes_are_not_given_twice_although_all_that_had_them_is_lost() {
    let whole = World::new(Layout::PerTenant);
    let mut contents = whole.contents();
    contents.retain(|name, _| !name.contains(".wal") && !name.contains(".sst"));
    let world = whole.with(&contents);
    let (report, read) = world.check_repair();
    assert!(report.lost.len() > 5 && read.values().all(Option::is_none));
    world.env.block_on(async {
        let options = options(Layout::PerTenant);
        let db = Db::open(world.env.clone(), Path::new(DIR), options).await.unwrap();
        let ann = db.tenant("ann").unwrap();
        // Two rounds of three tenants were in tables.
        let seq = ann.put(b"k", b"v", WriteOptions::synced()).await.unwrap();
        assert!(seq > u64::from(KEYS) * 3 * 3, "{seq}");
        db.close().await.unwrap();
    });
}

#[test]
fn what_a_lost_table_held_comes_from_the_log_where_another_tenant_kept_that() {
    let (env, dir) = (MemEnv::default(), Path::new(DIR));
    env.block_on(async {
        let db = Db::open(env.clone(), dir, options(Layout::PerTenant)).await.unwrap();
        let tenants = db.create_tenants(&["pins", "flushed"]).await.unwrap();
        for tenant in &tenants {
            tenant.put(b"k", b"v", WriteOptions::synced()).await.unwrap();
            tenant.put(b"gone", b"v", WriteOptions::synced()).await.unwrap();
            tenant.delete(b"gone", WriteOptions::synced()).await.unwrap();
        }
        tenants[1].flush().await.unwrap();
        db.close().await.unwrap();
        let listed = env.list(dir).await.unwrap();
        let table = listed.iter().find(|name| name.contains(".sst")).unwrap();
        env.remove(&path(table)).await.unwrap();
        let report = repair(&env, dir, &RepairOptions::default()).await.unwrap();
        assert_eq!(report.lost[0].owners.tenants, ["flushed"]);
        let db = Db::open(env.clone(), dir, options(Layout::PerTenant)).await.unwrap();
        for name in ["pins", "flushed"] {
            let tenant = db.tenant(name).unwrap();
            assert_eq!(tenant.get(b"k").await.unwrap().unwrap(), "v", "{name}");
            assert_eq!(tenant.get(b"gone").await.unwrap(), None, "{name}");
        }
        db.close().await.unwrap();
    });
}

/// Repair dies at each of its calls in turn; what it leaves is repaired as if it had never run.
fn killed_at_each_call(whole: &World, what: &str, effect: Effect) {
    let mut contents = whole.contents();
    for name in names(&contents, what).into_iter().take(2) {
        damage(&mut contents, &name, &Damage::Flip(700));
    }
    let (_, expected) = whole.with(&contents).check_repair();
    let options = RepairOptions { dry_run: false, layout: Some(whole.layout) };
    for pass in (0..).step_by(3) {
        let world = whole.with(&contents);
        let fault = FaultEnv::new(world.env.clone());
        fault.rule(Rule { op: "", path: "", pass, fail: u64::MAX, effect });
        let outcome = world.env.block_on(repair(&fault, Path::new(DIR), &options));
        if fault.fired() == 0 {
            assert!(outcome.unwrap().needed && pass > 30, "{pass} calls");
            return;
        }
        let mut left = world.contents();
        left.remove("LOCK");
        let (_, read) = whole.with(&left).check_repair_of_any();
        assert_eq!(read, expected, "{what} {effect:?} after {pass} calls");
    }
}

#[test]
fn a_repair_that_dies_at_any_call_is_done_by_the_next_one() {
    for layout in [Layout::PerTenant, Layout::Shared] {
        let whole = World::new(layout);
        for what in [".wal", ".sst", "MANIFEST"] {
            killed_at_each_call(&whole, what, Effect::Half);
        }
        killed_at_each_call(&whole, "CURRENT", Effect::Everything);
    }
}

#[test]
fn a_directory_with_the_name_of_a_table_is_left_alone() {
    let world = World::new(Layout::PerTenant);
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    OsEnv.block_on(async {
        for (name, bytes) in world.contents().iter().filter(|(name, _)| *name != "CURRENT") {
            let file = OsEnv.create(&dir.join(name)).await.unwrap();
            file.append(bytes, IoClass::Read).await.unwrap();
        }
        for name in ["009999.sst", "MANIFEST-009998", "18446744073709551616.sst", "-00001.sst"] {
            OsEnv.create_dir(&dir.join(name)).await.unwrap();
        }
        let first = repair(&OsEnv, dir, &RepairOptions::default()).await.unwrap();
        assert!(first.needed, "{first:?}");
        let db = Db::open(OsEnv, dir, options(world.layout)).await.unwrap();
        assert_eq!(db.tenants().len(), world.ids.len());
        db.close().await.unwrap();
    });
    assert!(dir.join("009999.sst").is_dir());
}

#[test]
fn a_cold_directory_of_nothing_is_refused() {
    let env = MemEnv::default();
    let dir = Path::new(DIR);
    env.block_on(async {
        env.create_dir(dir).await.unwrap();
        assert!(repair(&env, dir, &RepairOptions::default()).await.is_err());
        assert!(env.list(dir).await.unwrap().is_empty());
        assert!(verify_dir(&env, dir, |_| {}).await.unwrap().is_none());
    });
}

#[test]
fn an_open_database_is_refused_by_repair_and_verified_beside_its_writers() {
    let world = World::new(Layout::PerTenant);
    world.env.block_on(async {
        let dir = Path::new(DIR);
        let db = Db::open(world.env.clone(), dir, options(world.layout)).await.unwrap();
        let refused = repair(&world.env, dir, &RepairOptions::default()).await.unwrap_err();
        assert_eq!(refused.kind(), "locked");
        let mut calls = 0;
        let report = db.verify(|_| calls += 1).await.unwrap();
        assert!(report.is_clean() && calls > 5, "{:?}", report.findings);
        db.close().await.unwrap();
        assert_eq!(db.verify(|_| {}).await.unwrap_err().kind(), "closed");
    });
}

#[test]
fn verification_of_an_open_database_runs_beside_writes_flushes_compactions_and_drops() {
    let world = World::new(Layout::PerTenant);
    let dir = Path::new(DIR);
    let env = &world.env;
    let db = env.block_on(Db::open(env.clone(), dir, options(world.layout))).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (db, done) = (db.clone(), Arc::clone(&done));
        env.spawn("writer", move || async move {
            for round in 0..60_u32 {
                let ann = db.tenant("ann").unwrap();
                for key in 0..30_u32 {
                    let options = WriteOptions::default();
                    ann.put(&key.to_be_bytes(), &[7; 200], options).await.unwrap();
                }
                ann.flush().await.unwrap();
                if round % 7 == 0 {
                    ann.compact().await.unwrap();
                }
                let name = format!("t{round}");
                db.create_tenants(&[&name]).await.unwrap();
                db.drop_tenant(&name).await.unwrap();
            }
            done.store(true, Ordering::Release);
        })
    };
    let mut rounds = 0;
    while rounds == 0 || (!done.load(Ordering::Acquire) && rounds < 100_000) {
        let report = env.block_on(db.verify(|_| {})).unwrap();
        assert!(report.is_clean(), "round {rounds}: {:?}", report.findings);
        rounds += 1;
    }
    env.block_on(writer);
    assert!(done.load(Ordering::Acquire), "the writer failed");
    env.block_on(db.close()).unwrap();
}

fn how() -> impl Strategy<Value = Damage> {
    prop_oneof![
        2 => Just(Damage::Remove),
        2 => any::<usize>().prop_map(Damage::Cut),
        6 => any::<usize>().prop_map(Damage::Flip),
        1 => Just(Damage::Garbage),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_damaged_repair_invents_nothing(
        layout in prop::sample::select(LAYOUTS.to_vec()),
        damages in prop::collection::vec((any::<prop::sample::Index>(), how()), 1..6),
    ) {
        let whole = World::new(layout);
        let mut contents = whole.contents();
        contents.remove("LOCK");
        for (which, how) in damages {
            let files: Vec<String> = contents.keys().cloned().collect();
            if files.len() > 3 {
                damage(&mut contents, which.get::<String>(&files), &how);
            }
        }
        whole.with(&contents).check_repair();
    }
}
