//! Forks where branches share trees: by copy, under a fresh id.
//!
//! Strategy: random operations on branches of two tenants in one tree or two (writes, batches
//! across tenants, forks of forks, snapshots, drops, flushes, compactions, reopens), held against
//! an ordered map for each branch and snapshot; then a fork with every call of it failed, with a
//! disk that is full, and dropped in the middle.
//! Invariants: every branch reads as its map at all times, and as that of its parent at a snapshot
//! from before the fork; a fork that fails changes nothing and leaves no file behind.
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "threads of a test, outside the engine")]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod fault_env;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

use fault_env::{Effect, FaultEnv, Rule};
use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::options::{ForkMemtable, Options};
use forebay_engine::tenant::{ScanOptions, Snapshot};
use forebay_engine::{Db, Error, Tenant, WriteBatch, WriteOptions};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type Model = BTreeMap<String, Map>;

const DIR: &str = "/db";

fn options(layout: &str) -> Options {
    let mut options = Options::default();
    for (key, value) in [
        ("budget_bytes", "65536"),
        ("memtable_bytes_max", "4096"),
        ("wal_segment_bytes", "32768"),
        ("block_bytes", "256"),
        ("table_bytes_max", "2048"),
        ("level_base_bytes", "8192"),
        ("block_cache_bytes", "4096"),
        ("open_tables_max", "3"),
        ("sync_interval_ns", "0"),
        ("layout", layout),
    ] {
        options.set(key, value).unwrap();
    }
    options
}

/// A stream of draws.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

struct World {
    env: MemEnv,
    options: Options,
    db: BlockingDb<MemEnv>,
    model: Model,
    snapshots: Vec<(Snapshot<MemEnv>, Model)>,
    draws: Draws,
    count: u64,
    copied: u64,
}

impl World {
    fn new(seed: u64, layout: &str) -> Self {
        let (env, options) = (MemEnv::default(), options(layout));
        let db = BlockingDb::open(env.clone(), Path::new(DIR), options.clone()).unwrap();
        db.create_tenants(&["a", "b"]).unwrap();
        let model = ["a", "b"].map(|name| (name.to_owned(), Map::new())).into();
        let (snapshots, draws) = (Vec::new(), Draws(seed * 2 + 1));
        Self { env, options, db, model, snapshots, draws, count: 0, copied: 0 }
    }

    fn any_branch(&mut self) -> Option<String> {
        let at = self.draws.below(self.model.len().max(1));
        self.model.keys().nth(at).cloned()
    }

    fn put(&mut self, batch: &mut WriteBatch, name: &str) {
        let branch = self.db.branch(name).unwrap();
        let key = format!("key{:02}", self.draws.below(40)).into_bytes();
        self.count += 1;
        let map = self.model.get_mut(name).unwrap();
        if self.draws.below(4) == 0 {
            branch.tenant().delete_in(batch, &key).unwrap();
            map.remove(&key);
        } else {
            let mut value = format!("{name} {} ", self.count).into_bytes();
            value.resize(value.len() + self.draws.below(120), b'.');
            branch.tenant().put_in(batch, &key, &value).unwrap();
            map.insert(key, value);
        }
    }

    fn fork(&mut self, name: &str) {
        self.count += 1;
        let fork = format!("f{}", self.count);
        let branch = self.db.branch(name).unwrap();
        let forked = branch.tenant().fork_with(&fork, ForkMemtable::Auto);
        let forked = self.env.block_on(forked).unwrap();
        let child = forked.tenant.full_name();
        assert_eq!(forked.copied_bytes == 0, self.model[name].is_empty() && self.quiet(name));
        self.copied += forked.copied_bytes;
        assert_eq!(forked.tenant.tree_id(), branch.tenant().tree_id());
        let fork_point = forked.tenant.fork_point().unwrap();
        assert_eq!((fork_point.parent, fork_point.seq), (branch.tenant().branch_id(), forked.seq));
        // What a snapshot saw of the parent it sees of the child.
        for model in self.snapshots.iter_mut().map(|(_, m)| m).chain([&mut self.model]) {
            if let Some(map) = model.get(name).cloned() {
                model.insert(child.clone(), map);
            }
        }
    }

    /// Whether no snapshot sees anything of a branch.
    fn quiet(&self, name: &str) -> bool {
        self.snapshots.iter().all(|(_, model)| model.get(name).is_none_or(Map::is_empty))
    }

    fn step(&mut self) {
        let Some(name) = self.any_branch() else { return };
        let branch = self.db.branch(&name).unwrap();
        match self.draws.below(44) {
            0..=26 => {
                let mut batch = WriteBatch::new();
                self.put(&mut batch, &name);
                if self.draws.below(5) == 0 {
                    let other = self.any_branch().unwrap();
                    self.put(&mut batch, &other);
                }
                self.db.write(batch, WriteOptions::default()).unwrap();
            }
            27..=31 if self.model.len() < 8 => self.fork(&name),
            32 | 33 if self.model.len() > 1 => {
                self.db.drop_branch(&name).unwrap();
                for model in self.snapshots.iter_mut().map(|(_, m)| m).chain([&mut self.model]) {
                    model.remove(&name);
                }
                assert!(matches!(branch.get(b"key00"), Err(Error::Dropped)));
                assert!(matches!(branch.fork("late"), Err(Error::Dropped)));
            }
            34 | 35 => branch.flush().unwrap(),
            36 => branch.compact().unwrap(),
            37 => {
                // A handle keeps the database open.
                drop(branch);
                self.reopen();
            }
            38 | 39 if self.snapshots.len() < 3 => {
                self.snapshots.push((branch.snapshot(), self.model.clone()));
            }
            40 if !self.snapshots.is_empty() => {
                let at = self.draws.below(self.snapshots.len());
                self.snapshots.swap_remove(at);
            }
            _ => self.check(),
        }
    }

    /// Without closing it: what was written and is in no table is in the log.
    fn reopen(&mut self) {
        self.snapshots.clear();
        let place = BlockingDb::open(MemEnv::default(), Path::new(DIR), Options::default());
        drop(core::mem::replace(&mut self.db, place.unwrap()));
        self.db = loop {
            match BlockingDb::open(self.env.clone(), Path::new(DIR), self.options.clone()) {
                Err(Error::Locked { .. }) => thread::yield_now(),
                other => break other.unwrap(),
            }
        };
        self.check();
    }

    fn check(&self) {
        let branches = ["a", "b"].map(|tenant| self.db.branches(tenant));
        let names: Vec<String> =
            branches.iter().flatten().map(|b| b.tenant().full_name()).collect();
        let expected: Vec<String> = self.model.keys().cloned().collect();
        assert_eq!(names, expected);
        let at = self.snapshots.iter().map(|(snapshot, model)| (Some(snapshot), model));
        for (snapshot, model) in at.chain([(None, &self.model)]) {
            let seen = |name: &String| self.seen(name, snapshot);
            let got: Model = model.keys().map(|name| (name.clone(), seen(name))).collect();
            assert_eq!(&got, model);
        }
        for (name, map) in &self.model {
            let branch = self.db.branch(name).unwrap();
            for key in (0..40).map(|n| format!("key{n:02}").into_bytes()) {
                let value = branch.get(&key).unwrap();
                assert_eq!(value.as_deref(), map.get(&key).map(|v| &**v), "{name}");
            }
        }
    }

    fn seen(&self, name: &str, snapshot: Option<&Snapshot<MemEnv>>) -> Map {
        let branch = self.db.branch(name).unwrap();
        let mut how = ScanOptions::default();
        if let Some(snapshot) = snapshot {
            how = how.at(snapshot);
        }
        let scan = branch.scan_with(.., how).unwrap().map(|e| e.unwrap());
        scan.map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
    }
}

/// Nothing is left in memory, and no file that nobody reaches.
async fn check_quiet<E: Env>(db: &Db<E>, env: &E) {
    db.flush().await.unwrap();
    db.wait_idle().await.unwrap();
    let metrics = db.metrics();
    assert_eq!((metrics.mutable_bytes, metrics.immutable_bytes), (0, 0));
    let report = db.verify(|_| ()).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let dir = Path::new(DIR);
    let look = forebay_engine::inspect::Look::default();
    let seen = forebay_engine::inspect::inspect(env, dir, look).await.unwrap().unwrap();
    let name = |file: u64| format!("{file:06}.sst");
    let reached: BTreeSet<String> = seen.tables.iter().map(|t| name(t.meta.id.file)).collect();
    // The collector comes round.
    let mut files = BTreeSet::new();
    for _ in 0..3_000 {
        files = env.list(dir).await.unwrap().into_iter().filter(|n| n.ends_with(".sst")).collect();
        if files == reached {
            return;
        }
        env.sleep_until(env.now() + 1_000_000).await;
    }
    assert_eq!(files, reached);
}

#[test]
fn copied_branches_read_as_their_maps_whatever_is_forked_and_dropped() {
    let mut copied = 0;
    for (seed, layout) in (0..24).flat_map(|seed| [(seed, "shared"), (seed, "grouped-2")]) {
        let mut world = World::new(seed, layout);
        for _ in 0..300 {
            world.step();
        }
        world.check();
        world.snapshots.clear();
        world.env.block_on(check_quiet(world.db.db(), &world.env));
        world.reopen();
        world.env.block_on(check_quiet(world.db.db(), &world.env));
        copied += world.copied;
    }
    assert!(copied > 0);
}

async fn held<E: Env>(tenant: &Tenant<E>) -> Map {
    let mut scan = tenant.scan(..).unwrap();
    let mut out = Map::new();
    while let Some((key, value)) = scan.next().await.unwrap() {
        out.insert(key.to_vec(), value.to_vec());
    }
    out
}

/// Two tenants in one tree, with tables in several levels and entries in memory.
async fn filled<E: Env>(env: &E) -> (Db<E>, Tenant<E>, Tenant<E>) {
    let options = options("shared");
    let db = Db::open(env.clone(), Path::new(DIR), options).await.unwrap();
    let mut tenants = db.create_tenants(&["a", "b"]).await.unwrap();
    for round in 0..3_u8 {
        for n in 0..60_u8 {
            for (tenant, name) in tenants.iter().zip(*b"ab") {
                let value = vec![name + round; 40];
                tenant.put(&[n, 1], &value, WriteOptions::default()).await.unwrap();
            }
        }
        if round == 0 {
            tenants[0].compact().await.unwrap();
        }
    }
    db.flush().await.unwrap();
    db.wait_idle().await.unwrap();
    for tenant in &tenants {
        tenant
            .put(&[9, 1], b"in memory and in no synced log", WriteOptions::default())
            .await
            .unwrap();
    }
    let (b, a) = (tenants.pop().unwrap(), tenants.pop().unwrap());
    (db, a, b)
}

#[test]
fn a_copy_lies_in_the_last_level_and_holds_no_tombstone_and_nothing_of_others() {
    let env = MemEnv::default();
    env.block_on(async {
        let (db, a, b) = filled(&env).await;
        let gone = [7, 1];
        a.delete(&gone, WriteOptions::default()).await.unwrap();
        let of_a = held(&a).await;
        let fork = a.fork_with("f", ForkMemtable::Auto).await.unwrap();
        a.put(&gone, b"back", WriteOptions::default()).await.unwrap();
        b.delete(&[8, 1], WriteOptions::default()).await.unwrap();
        assert_eq!((of_a.len(), held(&fork.tenant).await), (59, of_a));
        let dir = Path::new(DIR);
        let look = forebay_engine::inspect::Look::default();
        let seen = forebay_engine::inspect::inspect(&env, dir, look).await.unwrap().unwrap();
        let id = fork.tenant.branch_id().0.to_be_bytes();
        let copied: Vec<_> =
            seen.tables.iter().filter(|t| t.meta.largest.starts_with(&id)).collect();
        assert!(copied.len() > 1, "it is cut");
        let bytes: u64 = copied.iter().map(|t| t.meta.bytes).sum();
        assert_eq!((bytes, db.metrics().fork_copied_bytes), (fork.copied_bytes, bytes));
        let entries: u64 = copied.iter().map(|t| t.meta.entries).sum();
        assert_eq!(entries, 59);
        for table in copied {
            assert!(table.meta.smallest.starts_with(&id));
            assert!(table.meta.max_seq <= fork.seq && table.meta.tombstones == 0);
            assert_eq!(table.level, 6);
        }
        db.close().await.unwrap();
    });
}

#[test]
fn a_copy_holds_exactly_what_was_written_before_it_while_others_write_and_fork() {
    let env = MemEnv::default();
    let mut options = options("shared");
    options.set("budget_bytes", "262144").unwrap();
    let db = BlockingDb::open(env.clone(), Path::new(DIR), options).unwrap();
    let tenants = db.create_tenants(&["a", "b"]).unwrap();
    let done = AtomicBool::new(false);
    let (written, forks) = thread::scope(|scope| {
        let writers: Vec<_> = [0, 1]
            .map(|other| {
                let (db, tenants, done) = (&db, &tenants, &done);
                scope.spawn(move || {
                    let mut last = Vec::new();
                    for n in 0_u64.. {
                        // The same to two keys far apart, and something to the neighbour.
                        let mut batch = WriteBatch::new();
                        let value = [&n.to_be_bytes()[..], &[7; 100]].concat();
                        for key in [&b"a"[..], b"z", &(n % 50).to_be_bytes()] {
                            tenants[other].tenant().put_in(&mut batch, key, &value).unwrap();
                        }
                        tenants[1 - other].tenant().put_in(&mut batch, b"theirs", &value).unwrap();
                        last.push((db.write(batch, WriteOptions::default()).unwrap(), n));
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    last
                })
            })
            .into();
        let forkers: Vec<_> = [0, 1]
            .map(|which| {
                let (env, tenant) = (&env, &tenants[which]);
                scope.spawn(move || {
                    let fork = |n: usize| {
                        let name = format!("f{n}");
                        let fork = tenant.tenant().fork_with(&name, ForkMemtable::Auto);
                        let fork = env.block_on(fork).unwrap();
                        (which, fork.seq, fork.tenant.full_name())
                    };
                    (0..15).map(fork).collect::<Vec<_>>()
                })
            })
            .into();
        let forks: Vec<_> = forkers.into_iter().flat_map(|f| f.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        let written: Vec<_> = writers.into_iter().map(|w| w.join().unwrap()).collect();
        (written, forks)
    });
    for (which, seq, name) in forks {
        let branch = db.branch(&name).unwrap();
        let seen = |key: &[u8]| {
            let value = branch.get(key).unwrap();
            value.map(|v| u64::from_be_bytes(v[..8].try_into().unwrap()))
        };
        let last = |which: usize| {
            let before = written[which].iter().take_while(|(at, _)| *at <= seq);
            before.last().map(|(_, n)| *n)
        };
        let expected = [last(which), last(which), last(1 - which)];
        assert_eq!([seen(b"a"), seen(b"z"), seen(b"theirs")], expected, "{name} at {seq}");
        branch.put(b"own", b"1", WriteOptions::default()).unwrap();
        assert_eq!(tenants[which].get(b"own").unwrap(), None);
    }
    db.close().unwrap();
}

type Faulty = FaultEnv<MemEnv>;

/// The branches of a database in the files that a process leaves that dies now.
async fn after_kill(env: &Faulty) -> Model {
    let copy = MemEnv::default();
    env.copy_to(Path::new(DIR), &copy).await;
    let db = Db::open(copy.clone(), Path::new(DIR), options("shared")).await.unwrap();
    let mut model = Model::new();
    for branch in ["a", "b"].iter().flat_map(|tenant| db.branches(tenant)) {
        model.insert(branch.full_name(), held(&branch).await);
    }
    check_quiet(&db, &copy).await;
    db.close().await.unwrap();
    model
}

/// A fork of which one call fails, or hangs and is dropped. Returns whether one did.
async fn broken_fork(rule: Rule) -> bool {
    let env = Faulty::new(MemEnv::default());
    let (db, a, b) = filled(&env).await;
    let name = format!("{rule:?}");
    let before = Model::from([("a".into(), held(&a).await), ("b".into(), held(&b).await)]);
    let mut after = before.clone();
    after.insert("a@f".to_owned(), before["a"].clone());
    let (stuck, fired) = (rule.effect == Effect::Stuck, env.fired());
    env.rule(rule);
    let outcome = if stuck {
        let mut fork = pin!(a.fork("f"));
        let mut polled = Poll::Pending;
        while polled.is_pending() && env.fired() == fired {
            polled = fork.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        match polled {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    } else {
        Some(a.fork("f").await)
    };
    let killed = after_kill(&env).await;
    assert!(killed == before || killed == after, "{name}");
    let fired = env.fired() > fired;
    env.heal();
    if let Some(Ok(fork)) = outcome {
        assert_eq!((killed, held(&fork).await), (after.clone(), before["a"].clone()), "{name}");
    } else {
        assert!(fired && db.branch("a@f").is_none(), "{name}");
        assert_eq!(held(&a).await, before["a"], "{name}");
        // Its name is free.
        a.fork("f").await.unwrap();
    }
    assert_eq!(held(&db.branch("a@f").unwrap()).await, before["a"], "{name}");
    a.put(b"more", b"1", WriteOptions::default()).await.unwrap();
    b.put(b"more", b"2", WriteOptions::default()).await.unwrap();
    a.compact().await.unwrap();
    let mut last = after.clone();
    last.get_mut("a").unwrap().insert(b"more".to_vec(), b"1".to_vec());
    last.get_mut("b").unwrap().insert(b"more".to_vec(), b"2".to_vec());
    assert_eq!(after_kill(&env).await, last, "{name}");
    db.close().await.unwrap();
    fired
}

#[test]
fn a_fork_that_fails_at_any_call_changes_nothing_and_can_be_tried_again() {
    let mem = MemEnv::default();
    mem.block_on(async {
        for effect in [Effect::Nothing, Effect::Half, Effect::Everything, Effect::Stuck] {
            for path in [".sst", "MANIFEST", ".wal"] {
                let mut pass = 0;
                while broken_fork(Rule { op: "", path, pass, fail: 1, effect }).await {
                    pass += 1;
                }
                assert!(pass > 0, "{path}");
            }
        }
    });
}

#[test]
fn a_fork_that_the_disk_has_no_room_for_leaves_no_file_and_writes_go_on() {
    let mem = MemEnv::default();
    mem.block_on(async {
        let env = Faulty::new(MemEnv::default());
        let (db, a, _) = filled(&env).await;
        let before = held(&a).await;
        check_quiet(&db, &env).await;
        let files = env.files(Path::new(DIR), "sst").await;
        let mut free = 0;
        let fork = loop {
            env.set_free(Some(free));
            match a.fork("f").await {
                Ok(fork) => break fork,
                Err(error) => assert_eq!(error.kind(), "disk-full", "{error}"),
            }
            env.set_free(None);
            let written =
                async || a.put(&[7, 1], &before[&vec![7, 1]], WriteOptions::synced()).await;
            while written().await.is_err() {
                env.sleep_until(env.now() + 1_000_000).await;
            }
            assert!(db.branch("a@f").is_none());
            check_quiet(&db, &env).await;
            free += 1024;
        };
        assert!(free > 4096 && !files.is_empty());
        env.set_free(None);
        assert_eq!((held(&fork).await, held(&a).await), (before.clone(), before));
        db.close().await.unwrap();
    });
}
