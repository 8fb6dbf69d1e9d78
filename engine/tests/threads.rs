#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "threads of a test, outside the engine")]
//! Strategy: several threads write, read and scan their own tenants on a real disk, with memory so
//! short that every few writes seal, flush, compact and stall; then the directory is opened again.
//!
//! Invariants: nobody waits for ever, everybody reads what they wrote, before and after the reopen.

use std::collections::BTreeMap;
use std::thread;

use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::os::OsEnv;
use forebay_engine::options::{Layout, Options};
use forebay_engine::{WriteBatch, WriteOptions};

const THREADS: u64 = 4;
const WRITES: u64 = 1_500;

fn options(layout: Layout) -> Options {
    let mut options = Options { layout, ..Options::default() };
    for (key, value) in [
        ("budget_bytes", "262144"),
        ("memtable_bytes_max", "32768"),
        ("wal_segment_bytes", "65536"),
        ("table_bytes_max", "32768"),
        ("block_cache_bytes", "16384"),
        ("open_tables_max", "4"),
        ("compression", "lz4"),
        ("prefix_extractor", "fixed-2"),
        ("memtable_stop_count", "2"),
        ("stall_policy", "hard"),
        ("sync_interval_ns", "20000000"),
    ] {
        options.set(key, value).unwrap();
    }
    options
}

fn run(layout: Layout) {
    let dir = tempfile::tempdir().unwrap();
    let db = BlockingDb::open(OsEnv, dir.path(), options(layout)).unwrap();
    let names: Vec<String> = (0..THREADS).map(|t| format!("tenant-{t}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tenants = db.create_tenants(&names).unwrap();
    let writers: Vec<_> = tenants
        .into_iter()
        .zip(0..)
        .map(|(tenant, t): (_, u64)| {
            let db = db.clone();
            thread::spawn(move || {
                let mut model = BTreeMap::new();
                for i in 0..WRITES {
                    let key = format!("{:04}", (i * 7919 + t) % 400).into_bytes();
                    let value = format!("{t}/{i}/{}", "x".repeat(100)).into_bytes();
                    let options = WriteOptions { sync: i % 50 == 0, tag: i };
                    match i % 10 {
                        0 => {
                            tenant.delete(&key, options).unwrap();
                            model.remove(&key);
                        }
                        1 => {
                            let mut batch = WriteBatch::new();
                            tenant.tenant().put_in(&mut batch, &key, &value).unwrap();
                            tenant.tenant().put_in(&mut batch, b"same", &value).unwrap();
                            db.write(batch, options).unwrap();
                            model.insert(b"same".to_vec(), value.clone());
                            model.insert(key, value);
                        }
                        2 => {
                            let got = tenant.get(&key).unwrap();
                            assert_eq!(got.as_deref(), model.get(&key).map(Vec::as_slice));
                        }
                        _ => {
                            tenant.put(&key, &value, options).unwrap();
                            model.insert(key, value);
                        }
                    }
                    if i % 500 == 499 {
                        assert_eq!(tenant.scan(..).unwrap().count(), model.len());
                    }
                }
                model
            })
        })
        .collect();
    let models: Vec<BTreeMap<Vec<u8>, Vec<u8>>> =
        writers.into_iter().map(|w| w.join().unwrap()).collect();
    let metrics = db.db().metrics();
    assert!(metrics.flush_count > 10 && metrics.compaction_count > 0, "{metrics:?}");
    assert_eq!(metrics.reserved_bytes, 0);
    db.close().unwrap();
    let cached = || {
        let by_branch = db.db().cached_bytes_by_branch();
        (by_branch.iter().map(|(_, bytes)| bytes).sum::<u64>(), db.db().cached_bytes())
    };
    let (by_branch, in_all) = cached();
    assert_eq!(by_branch, in_all, "each cached byte is some branch's");
    let db = BlockingDb::open(OsEnv, dir.path(), options(layout)).unwrap();
    for (name, model) in names.iter().zip(&models) {
        let got = db.tenant(name).unwrap().scan(..).unwrap();
        let got: BTreeMap<Vec<u8>, Vec<u8>> =
            got.map(Result::unwrap).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        assert_eq!(&got, model, "{name}");
    }
    db.close().unwrap();
}

#[test]
fn threads_with_a_tree_each_read_what_they_wrote() {
    run(Layout::PerTenant);
}

#[test]
fn threads_that_share_trees_read_what_they_wrote() {
    run(Layout::Grouped(2));
    run(Layout::Shared);
}

/// Many threads at once: each key has one writer, and a value says of itself where it belongs and
/// how new it is.
mod crowd {
    use core::ops::Bound;
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::collections::BTreeMap;
    use std::thread;

    use forebay_engine::blocking::{BlockingDb, BlockingTenant};
    use forebay_engine::env::BlockingEnv as _;
    use forebay_engine::env::os::OsEnv;
    use forebay_engine::options::Layout;
    use forebay_engine::{Snapshot, WriteBatch, WriteOptions};

    const WRITERS: u64 = 8;
    const READERS: u64 = 4;
    const TENANTS: usize = 6;
    const KEYS: u64 = 24;
    const WRITES: u64 = 2_000;

    /// What a writer was told that a tenant's key holds: the number of the write; gone keys are not
    /// in it.
    type Model = BTreeMap<(usize, Vec<u8>), u64>;

    struct Crowd {
        db: BlockingDb<OsEnv>,
        tenants: Vec<BlockingTenant<OsEnv>>,
        /// The last acknowledged write of the key that each writer puts into all tenants at once.
        acknowledged: Vec<AtomicU64>,
        ends: AtomicBool,
    }

    fn draw(state: &mut u64, below: u64) -> u64 {
        // An LCG's high bits do for a choice.
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (*state >> 33) % below
    }

    fn key_of(writer: u64, n: u64) -> Vec<u8> {
        format!("{writer}-{n:02}").into_bytes()
    }

    fn everywhere(writer: u64) -> Vec<u8> {
        format!("everywhere-{writer}").into_bytes()
    }

    fn value_of(tenant: usize, key: &[u8], write: u64) -> Vec<u8> {
        let key = core::str::from_utf8(key).unwrap();
        format!("{tenant}/{key}/{write}/{}", "x".repeat(60)).into_bytes()
    }

    /// The number of the write, from a value that says it belongs here.
    fn write_of(tenant: usize, key: &[u8], value: &[u8]) -> u64 {
        let text = core::str::from_utf8(value).unwrap();
        let parts: Vec<&str> = text.split('/').collect();
        assert_eq!(parts[0], tenant.to_string(), "a value of another tenant: {text}");
        assert_eq!(parts[1].as_bytes(), key, "a value of another key: {text}");
        assert_eq!(parts[3].len(), 60, "a cut value: {text}");
        parts[2].parse().unwrap()
    }

    fn write(crowd: &Crowd, writer: u64) -> Model {
        let (mut model, mut state) = (Model::new(), writer);
        for i in 1..=WRITES {
            let tenant = usize::try_from(draw(&mut state, 6)).unwrap();
            let key = key_of(writer, draw(&mut state, KEYS));
            let to = &crowd.tenants[tenant];
            let options = WriteOptions { sync: i % 200 == 0, tag: i };
            match draw(&mut state, 10) {
                0 | 1 => {
                    to.delete(&key, options).unwrap();
                    model.remove(&(tenant, key));
                }
                2 => {
                    let (mut batch, all) = (WriteBatch::new(), everywhere(writer));
                    for (n, tenant) in crowd.tenants.iter().enumerate() {
                        let value = value_of(n, &all, i);
                        tenant.tenant().put_in(&mut batch, &all, &value).unwrap();
                        model.insert((n, all.clone()), i);
                    }
                    to.tenant().delete_in(&mut batch, &key).unwrap();
                    crowd.db.write(batch, options).unwrap();
                    crowd.acknowledged[usize::try_from(writer).unwrap()].store(i, Ordering::SeqCst);
                    model.remove(&(tenant, key));
                }
                3 => {
                    let got = to.get(&key).unwrap().map(|v| write_of(tenant, &key, &v));
                    assert_eq!(got, model.get(&(tenant, key)).copied(), "not what I wrote");
                }
                _ => {
                    to.put(&key, &value_of(tenant, &key, i), options).unwrap();
                    model.insert((tenant, key), i);
                }
            }
        }
        model
    }

    /// A scan's keys with their writes, found in order.
    fn scan(crowd: &Crowd, tenant: usize, at: Option<&Snapshot<OsEnv>>) -> Model {
        let handle = crowd.tenants[tenant].tenant();
        let all = (Bound::<&[u8]>::Unbounded, Bound::<&[u8]>::Unbounded);
        let mut scan = match at {
            Some(snapshot) => handle.scan_at(snapshot, all).unwrap(),
            None => handle.scan(all).unwrap(),
        };
        let (mut found, mut last) = (Model::new(), Vec::new());
        while let Some((key, value)) = OsEnv.block_on(scan.next()).unwrap() {
            assert!(last.as_slice() < &*key, "keys out of order");
            last = key.to_vec();
            let write = write_of(tenant, &key, &value);
            found.insert((tenant, last.clone()), write);
        }
        found
    }

    /// What a reader saw of a key last, and whether the key was gone since.
    type Seen = BTreeMap<(usize, Vec<u8>), (u64, bool)>;

    fn saw(seen: &mut Seen, at: (usize, Vec<u8>), write: Option<u64>) {
        let before = seen.get(&at).copied().unwrap_or_default();
        let Some(write) = write else {
            seen.insert(at, (before.0, true));
            return;
        };
        let forward = if before.1 { write > before.0 } else { write >= before.0 };
        assert!(forward, "{at:?} went back to write {write} from {before:?}");
        seen.insert(at, (write, false));
    }

    fn read_whole(crowd: &Crowd, writer: u64) {
        let floor = crowd.acknowledged[usize::try_from(writer).unwrap()].load(Ordering::SeqCst);
        let snapshot = crowd.tenants[0].tenant().snapshot();
        let key = everywhere(writer);
        let parts: Vec<Option<u64>> = crowd
            .tenants
            .iter()
            .enumerate()
            .map(|(n, tenant)| {
                let got = OsEnv.block_on(tenant.tenant().get_at(&snapshot, &key)).unwrap();
                got.map(|value| write_of(n, &key, &value))
            })
            .collect();
        assert!(parts.windows(2).all(|pair| pair[0] == pair[1]), "a part of a batch: {parts:?}");
        assert!(parts[0].unwrap_or(0) >= floor, "{parts:?}: write {floor} was acknowledged");
    }

    fn read(crowd: &Crowd, reader: u64) -> u64 {
        let (mut seen, mut state, mut rounds) = (Seen::new(), 100 + reader, 0);
        while !crowd.ends.load(Ordering::SeqCst) {
            rounds += 1;
            let tenant = usize::try_from(draw(&mut state, 6)).unwrap();
            for _ in 0..20 {
                let key = key_of(draw(&mut state, WRITERS), draw(&mut state, KEYS));
                let got = crowd.tenants[tenant].get(&key).unwrap();
                let write = got.map(|value| write_of(tenant, &key, &value));
                saw(&mut seen, (tenant, key), write);
            }
            read_whole(crowd, draw(&mut state, WRITERS));
            if rounds % 4 == reader {
                let found = scan(crowd, tenant, None);
                let absent: Vec<_> = seen.keys().filter(|at| at.0 == tenant).cloned().collect();
                for at in absent {
                    let write = found.get(&at).copied();
                    saw(&mut seen, at, write);
                }
                for (at, write) in found {
                    saw(&mut seen, at, Some(write));
                }
            }
            if rounds % 8 == reader {
                let snapshot = crowd.tenants[tenant].tenant().snapshot();
                let first = scan(crowd, tenant, Some(&snapshot));
                thread::yield_now();
                crowd.tenants[tenant].flush().unwrap();
                let second = scan(crowd, tenant, Some(&snapshot));
                assert_eq!(first, second, "what a snapshot shows changed");
            }
        }
        rounds
    }

    /// Flushes, compactions and tenants that come and go.
    fn disturb(crowd: &Crowd) -> u64 {
        let mut rounds = 0;
        while !crowd.ends.load(Ordering::SeqCst) {
            rounds += 1;
            let name = format!("passing-{rounds}");
            let passing = crowd.db.create_tenants(&[&name]).unwrap().remove(0);
            for n in 0..10 {
                passing.put(&key_of(n, n), b"nobody else's", WriteOptions::default()).unwrap();
            }
            let tenant = &crowd.tenants[usize::try_from(rounds % 6).unwrap()];
            if rounds % 3 == 0 {
                tenant.compact().unwrap();
            } else {
                tenant.flush().unwrap();
            }
            assert_eq!(passing.scan(..).unwrap().count(), 10, "{name} holds its own keys");
            crowd.db.drop_tenant(&name).unwrap();
            assert!(passing.get(&key_of(1, 1)).is_err(), "{name} was dropped");
        }
        rounds
    }

    pub(super) fn run(layout: Layout) {
        let dir = tempfile::tempdir().unwrap();
        let open = || BlockingDb::open(OsEnv, dir.path(), super::options(layout)).unwrap();
        let names: Vec<String> = (0..TENANTS).map(|n| format!("tenant-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let db = open();
        let tenants = db.create_tenants(&names).unwrap();
        let acknowledged = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
        let crowd = Crowd { db, tenants, acknowledged, ends: AtomicBool::new(false) };
        let model = thread::scope(|scope| {
            let crowd = &crowd;
            let writers: Vec<_> =
                (0..WRITERS).map(|w| scope.spawn(move || write(crowd, w))).collect();
            let readers: Vec<_> =
                (0..READERS).map(|r| scope.spawn(move || read(crowd, r))).collect();
            let disturber = scope.spawn(move || disturb(crowd));
            let models: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            // Before a failure is passed on: the others would go on for ever.
            crowd.ends.store(true, Ordering::SeqCst);
            for reader in readers {
                assert!(reader.join().unwrap() > 8, "a reader hardly read");
            }
            assert!(disturber.join().unwrap() > 8, "hardly a tenant came and went");
            models.into_iter().flat_map(|model| model.unwrap()).collect::<Model>()
        });
        let all =
            |crowd: &Crowd| (0..TENANTS).flat_map(|n| scan(crowd, n, None)).collect::<Model>();
        assert_eq!(all(&crowd), model, "before the reopen");
        let metrics = crowd.db.db().metrics();
        assert!(metrics.flush_count > 100 && metrics.compaction_count > 20, "{metrics:?}");
        assert_eq!(metrics.reserved_bytes, 0);
        crowd.db.close().unwrap();
        drop(crowd);
        let db = open();
        assert_eq!(db.db().tenants(), names);
        let tenants = names.iter().map(|name| db.tenant(name).unwrap()).collect();
        let crowd = Crowd { db, tenants, acknowledged: Vec::new(), ends: AtomicBool::new(true) };
        assert_eq!(all(&crowd), model, "behind the reopen");
        crowd.db.close().unwrap();
    }
}

#[test]
fn a_crowd_of_threads_agrees_with_a_tree_for_each_tenant() {
    crowd::run(Layout::PerTenant);
}

#[test]
fn a_crowd_of_threads_agrees_with_grouped_tenants() {
    crowd::run(Layout::Grouped(2));
}

#[test]
fn a_crowd_of_threads_agrees_with_one_shared_tree() {
    crowd::run(Layout::Shared);
}
