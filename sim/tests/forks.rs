//! Strategy: a parent with tables, immutable memtables and a mutable one is forked, and both sides
//! go on; the process dies at every crash point from the fork's begin on, by a kill and by several
//! power losses, or the disk is full, or the fork's future is dropped at each of its awaits.
//!
//! Invariants: the branch is there whole or not at all, and always once it was acknowledged; what
//! is found is a prefix of what was done that reaches what was promised; the budget counts what the
//! trees hold; and a later fork works.
#![cfg(test)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use forebay_engine::env::Env;
use forebay_engine::options::ForkMemtable;
use forebay_engine::{Db, Error, Options, Tenant, WriteOptions};
use forebay_sim::disk::{DiskConfig, Profile};
use forebay_sim::{RunEnd, Sim, SimConfig, SimEnv};

const DIR: &str = "/db";
const KINDS: [ForkMemtable; 3] = [ForkMemtable::Share, ForkMemtable::Copy, ForkMemtable::Auto];

/// Crash states that are judged of each power loss.
const POWER_STATES: u32 = 3;

/// Writes before the fork, and those behind it.
const BEFORE: u32 = 24;
const BEHIND: u32 = 12;
const KEYS: u32 = 9;

type Map = BTreeMap<u32, u32>;

/// What `main` and the fork hold, where there is a fork.
type State = (Map, Option<Map>);

fn options() -> Options {
    Options {
        budget_bytes: 128 << 10,
        memtable_bytes_max: 4096,
        wal_segment_bytes: 32 << 10,
        wal_bytes_max: 128 << 10,
        block_bytes: 512,
        table_bytes_max: 4096,
        block_cache_bytes: 0,
        space_reserve_bytes: 1,
        ..Options::default()
    }
}

/// Which branch a write goes to, its key, and whether it is a put.
fn change(n: u32) -> (bool, u32, bool) {
    let to_fork = n >= BEFORE && n.is_multiple_of(2);
    (to_fork, (n * 5) % KEYS, n % 4 != 3)
}

fn is_synced(n: u32) -> bool {
    n % 7 == 2
}

/// What the writes below a number leave, with the fork or without.
fn state(count: u32, with_fork: bool) -> State {
    let (mut main, mut fork) = (Map::new(), Map::new());
    for n in 0..count {
        let (to_fork, key, is_put) = change(n);
        if n == BEFORE {
            fork = main.clone();
        }
        let map = if to_fork { &mut fork } else { &mut main };
        if is_put {
            map.insert(key, n);
        } else {
            map.remove(&key);
        }
    }
    if count <= BEFORE {
        fork = main.clone();
    }
    (main, with_fork.then_some(fork))
}

async fn write(branch: &Tenant<SimEnv>, n: u32) -> Result<u64, Error> {
    let (_, key, is_put) = change(n);
    let (key, options) = (format!("key{key}"), WriteOptions { sync: is_synced(n), tag: 0 });
    if is_put {
        let value = [&n.to_be_bytes()[..], &[b'x'; 500]].concat();
        branch.put(key.as_bytes(), &value, options).await
    } else {
        branch.delete(key.as_bytes(), options).await
    }
}

async fn held(branch: &Tenant<SimEnv>) -> Map {
    let mut out = Map::new();
    let mut scan = branch.scan(..).unwrap();
    while let Some((key, value)) = scan.next().await.unwrap() {
        let number = std::str::from_utf8(&key[3..]).unwrap().parse().unwrap();
        assert_eq!(branch.get(&key).await.unwrap().as_ref(), Some(&value));
        out.insert(number, u32::from_be_bytes(value[..4].try_into().unwrap()));
    }
    out
}

async fn parent(env: SimEnv) -> (Db<SimEnv>, Tenant<SimEnv>) {
    let db = Db::open(env, Path::new(DIR), options()).await.unwrap();
    let main = db.create_tenants(&["t"]).await.unwrap().remove(0);
    for n in 0..BEFORE {
        write(&main, n).await.unwrap();
    }
    (db, main)
}

/// How far a life came, on the clock of crash points.
#[derive(Debug, Default)]
struct Progress {
    begun: Cell<bool>,
    acked: Cell<u32>,
    synced: Cell<u32>,
    fork_seq: Cell<Option<u64>>,
}

async fn life(env: SimEnv, kind: ForkMemtable, progress: Rc<Progress>) {
    let (db, main) = parent(env).await;
    progress.acked.set(BEFORE);
    progress.synced.set((0..BEFORE).rfind(|n| is_synced(*n)).map_or(0, |n| n + 1));
    progress.begun.set(true);
    let forked = main.fork_with("f", kind).await.unwrap();
    progress.fork_seq.set(Some(forked.seq));
    progress.synced.set(BEFORE);
    for n in BEFORE..BEFORE + BEHIND {
        let branch = if change(n).0 { &forked.tenant } else { &main };
        write(branch, n).await.unwrap();
        progress.acked.set(n + 1);
        if is_synced(n) {
            progress.synced.set(n + 1);
        }
        if n == BEFORE + 5 {
            forked.tenant.flush().await.unwrap();
        }
    }
    main.compact().await.unwrap();
    db.close().await.unwrap();
}

/// What is there, twice, with everything flushed and compacted in between.
async fn judge(env: SimEnv) -> [(State, Option<u64>); 2] {
    let found = async |db: &Db<SimEnv>| {
        let main = db.tenant("t").unwrap();
        let fork = db.branch("t@f");
        let seq = fork.as_ref().map(|fork| fork.fork_point().unwrap().seq);
        let held_by_fork = match &fork {
            Some(fork) => Some(held(fork).await),
            None => None,
        };
        ((held(&main).await, held_by_fork), seq)
    };
    let db = Db::open(env, Path::new(DIR), options()).await.unwrap();
    let first = found(&db).await;
    for branch in db.branches("t") {
        branch.compact().await.unwrap();
    }
    assert_eq!(found(&db).await, first, "a compaction changes nothing");
    db.close().await.unwrap();
    let db = Db::open(env, Path::new(DIR), options()).await.unwrap();
    let again = found(&db).await;
    // A fork that never came about leaves its name free, and one that did can be forked.
    let name = if again.1.is_some() { "g" } else { "f" };
    let fork = db.tenant("t").unwrap().fork(name).await.unwrap();
    assert_eq!(held(&fork).await, again.0.0);
    [first, again]
}

fn world(profile: Profile) -> Sim {
    let mut config = SimConfig::fuzz(41);
    config.disk = DiskConfig { profile, ..DiskConfig::default() };
    Sim::new(&config)
}

fn assert_whole(sim: &Sim, progress: &Progress, power: bool, what: &str) -> bool {
    let [(first, seq), (again, _)] = sim.run(judge(sim.env())).done().expect("the opens end");
    assert_eq!(first, again, "{what}: opening twice changes nothing");
    let acked_fork = progress.fork_seq.get();
    if let Some(acked) = acked_fork {
        assert_eq!(seq, Some(acked), "{what}: an acknowledged fork is there, where it was");
    }
    let has_fork = first.1.is_some();
    let acked = progress.acked.get();
    let least = if power { progress.synced.get() } else { acked };
    // With the fork there is everything before it.
    let least = if has_fork { least.max(BEFORE) } else { least };
    let allowed = (least..=acked + 1).any(|count| state(count, has_fork) == first);
    assert!(allowed, "{what}: {progress:?} {first:?}");
    has_fork
}

/// Crash points before the fork begins, and those of all of a life.
fn points(kind: ForkMemtable, profile: Profile) -> (u64, u64) {
    let sim = world(profile);
    let env = sim.env();
    assert!(sim.run(async move { drop(parent(env).await) }).done().is_some());
    let begins = sim.crash_points();
    let sim = world(profile);
    assert!(sim.run(life(sim.env(), kind, Rc::default())).done().is_some());
    (begins, sim.crash_points())
}

#[test]
fn a_crash_at_every_step_of_a_fork_leaves_the_branch_whole_or_not_at_all() {
    for (kind, profile) in
        KINDS.into_iter().zip([Profile::Journal, Profile::Adversary, Profile::Strict])
    {
        let (begins, all) = points(kind, profile);
        let (mut with, mut without, mut tried) = (0, 0, 0);
        for point in begins.saturating_sub(3)..=all {
            let sim = world(profile);
            sim.crash_at_point(Some(point));
            let progress = Rc::new(Progress::default());
            let end = sim.run(life(sim.env(), kind, Rc::clone(&progress)));
            sim.crash_at_point(None);
            if !matches!(end, RunEnd::Crashed) || !progress.begun.get() {
                continue;
            }
            tried += 1;
            sim.kill_all();
            let before = sim.disk().clone();
            for nth in 0..=POWER_STATES {
                *sim.disk_mut() = before.clone();
                let power = nth > 0;
                if power {
                    sim.settle_power_loss();
                } else {
                    sim.settle_kill();
                }
                let what = format!("{kind} on {} at {point}, state {nth}", profile.name());
                if assert_whole(&sim, &progress, power, &what) {
                    with += 1;
                } else {
                    without += 1;
                    assert!(progress.fork_seq.get().is_none(), "{what}");
                }
                sim.kill_all();
            }
        }
        assert!(
            tried > 60 && with > 100 && without > 20,
            "{tried}: {with} with, {without} without"
        );
    }
}

#[test]
fn a_fork_on_a_full_disk_is_refused_changes_nothing_and_works_once_space_is_back() {
    for kind in KINDS {
        let sim = world(Profile::Journal);
        let env = sim.env();
        let main = sim.run(async move {
            let options = Options { space_reserve_bytes: 100_000, ..options() };
            let db = Db::open(env, Path::new(DIR), options).await.unwrap();
            let main = db.create_tenants(&["t"]).await.unwrap().remove(0);
            for n in 0..BEFORE {
                write(&main, n).await.unwrap();
            }
            db.wait_idle().await.unwrap();
            (db, main)
        });
        let (db, main) = main.done().expect("it fills");
        let free = sim.disk().free_bytes();
        sim.disk_mut().set_hog_bytes(free.saturating_sub(50_000));
        let (full, of) = (main.clone(), db.clone());
        let refused = sim.run(async move {
            // The disk is asked behind a flush.
            full.flush().await.unwrap();
            of.wait_idle().await.unwrap();
            env.sleep_until(env.now() + 10_000_000_000).await;
            let refused = full.fork_with("f", kind).await.map(|_| ());
            assert_eq!(of.branches("t").len(), 1);
            assert_eq!(held(&full).await, state(BEFORE, false).0);
            (refused, of.metrics().fork_count)
        });
        let (refused, fork_count) = refused.done().expect("it ends");
        assert!(matches!(refused, Err(Error::DiskFull { .. })), "{refused:?}");
        assert_eq!(fork_count, 0);
        sim.disk_mut().set_hog_bytes(0);
        let ended = sim.run(async move {
            env.sleep_until(env.now() + 10_000_000_000).await;
            let fork = main.fork_with("f", kind).await.unwrap().tenant;
            assert_eq!(held(&fork).await, state(BEFORE, false).0);
            drop((fork, main));
            db.close().await.unwrap();
        });
        assert!(ended.done().is_some());
        let ([(first, seq), _], whole) =
            (sim.run(judge(sim.env())).done().unwrap(), state(BEFORE, true));
        assert!(seq.is_some() && first == whole, "{first:?}");
    }
}

/// Polls a future so often, then drops it.
async fn polled<F: Future>(future: F, polls: u32) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match pin!(future.as_mut()).poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn assert_counted(db: &Db<SimEnv>) {
    let (metrics, trees) = (db.metrics(), db.watch().memory());
    let mutable: u64 = trees.iter().map(|tree| tree.mutable_bytes).sum();
    let immutable: u64 = trees.iter().map(|tree| tree.immutable_bytes).sum();
    let counted = (metrics.mutable_bytes, metrics.immutable_bytes, metrics.reserved_bytes);
    assert_eq!(counted, (mutable, immutable, 0));
}

/// A fork that is given up after so many polls, beside a writer. Says whether it ended before that.
async fn given_up(env: SimEnv, kind: ForkMemtable, polls: u32) -> (bool, bool) {
    let (db, main) = parent(env).await;
    let writer = main.clone();
    let beside = env.spawn("writer", move || async move {
        for n in 0..6_u8 {
            let options = WriteOptions { sync: n % 2 == 0, tag: 0 };
            writer.put(b"key100", &u32::from(n).to_be_bytes(), options).await.unwrap();
        }
    });
    let ended = polled(main.fork_with("f", kind), polls).await.map(Result::unwrap);
    let done = ended.is_some();
    drop(ended);
    beside.await;
    let mut whole = state(BEFORE, false).0;
    let there = db.branch("t@f").is_some();
    if let Some(fork) = db.branch("t@f") {
        let mut of_fork = held(&fork).await;
        of_fork.remove(&100);
        assert_eq!(of_fork, whole);
    }
    whole.insert(100, 5);
    assert_eq!(held(&main).await, whole);
    db.wait_idle().await.unwrap();
    assert_counted(&db);
    let later = main.fork_with(if db.branch("t@f").is_some() { "g" } else { "f" }, kind).await;
    let later = later.unwrap().tenant;
    assert_eq!(held(&later).await, whole);
    db.drop_branch(&later.full_name()).await.unwrap();
    db.wait_idle().await.unwrap();
    assert_counted(&db);
    assert_eq!(held(&main).await, whole);
    main.compact().await.unwrap();
    db.close().await.unwrap();
    drop((main, later, db));
    let db = Db::open(env, Path::new(DIR), options()).await.unwrap();
    assert_eq!(held(&db.tenant("t").unwrap()).await, whole);
    (done, there)
}

#[test]
fn a_fork_given_up_at_any_await_leaves_the_parent_whole_and_the_budget_exact() {
    for kind in KINDS {
        let (mut points, mut there) = (0, 0);
        loop {
            let sim = world(Profile::Journal);
            let end = sim.run(given_up(sim.env(), kind, points)).done();
            let (done, was_there) = end.unwrap_or_else(|| panic!("{kind}, {points} polls: stuck"));
            if done {
                break;
            }
            points += 1;
            there += u32::from(was_there);
            assert!(points < 1000);
        }
        assert!(points >= 4 && there < points, "{kind}: {points} awaits, {there} were there");
    }
}
