//! The protocol under a seeded schedule: pushers, deleters, collectors and pullers, a step a call.
//!
//! Strategy: a seed draws what each does, who takes the next step, who sleeps how long, who crashes
//! or sleeps until all is over, which call fails, is carried out twice or lands long after. The
//! protocol is the real one; directories are small and made up, three names and few contents, so
//! that pushes share pieces and compete.
//!
//! Invariants, after every change of the store: catalogs form one chain; every fork of the last is
//! whole. A push that succeeded is in that chain, onto a state that it expected. A pull gives what
//! was pushed or says that it was overtaken. After a collection in quiet nothing is left that no
//! fork names; and again, after those who slept through it woke up and another collection.

use core::task::{Context, Poll, Waker};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{Env as _, File as _, IoClass};

mod world;

use self::world::{Task, World, run, wake};
use crate::format::Catalog;
use crate::names::catalog_name;
use crate::{Error, Expect, Flaw, ForkStore, Grace, StoreOptions};

const KEEP_COUNT: u64 = 2;
const NAMES: [&str; 3] = ["a", "b", "c"];

type Store = ForkStore<Rc<World>>;

fn store(world: &Rc<World>, writer: u64, flaw: Option<Flaw>) -> Store {
    let options = StoreOptions::default().piece_bytes(16).keep_count(KEEP_COUNT).writer(writer);
    let mut store = ForkStore::new(Rc::clone(world), options);
    store.flaw = flaw;
    store
}

/// Makes a directory with one of a few contents.
async fn fill(env: &MemEnv, dir: &Path, world: &World) {
    env.create_dir(dir).await.unwrap();
    let chance = &world.chance;
    let table = format!("table of {} and {}", chance.below(3), chance.below(2));
    let files = [
        ("CURRENT", "MANIFEST-000001\n".to_owned()),
        ("MANIFEST-000001", format!("m{}", chance.below(2))),
        ("000002.sst", table),
        ("000003.wal", String::new()),
    ];
    for (name, content) in &files {
        let file = env.create(&dir.join(name)).await.unwrap();
        file.append(content.as_bytes(), IoClass::Flush).await.unwrap();
    }
}

/// Whether an error is one that others or the store's faults explain.
fn is_fair(error: &Error) -> bool {
    matches!(
        error,
        Error::Store { .. }
            | Error::ForkExists { .. }
            | Error::NoSuchFork(_)
            | Error::Conflict { .. }
            | Error::Overtaken(_)
    )
}

fn expectation(world: &World, name: &str) -> Expect {
    let version = world.state().forks.get(name).map(|fork| fork.version);
    version.map_or(Expect::Absent, Expect::Version)
}

async fn push(world: Rc<World>, store: Rc<Store>) {
    for round in 0..3 {
        let (env, name) = (MemEnv::default(), NAMES[world.chance.below(NAMES.len())]);
        fill(&env, Path::new("/db"), &world).await;
        let expect = expectation(&world, name);
        match store.push(&env, Path::new("/db"), name, expect).await {
            Ok(pushed) => {
                let history = world.history.borrow();
                let at = usize::try_from(pushed.version).unwrap();
                let before = history.get(at - 1).and_then(|(state, _)| state.forks.get(name));
                let after = history.get(at).and_then(|(state, _)| state.forks.get(name));
                let expected = match expect {
                    Expect::Absent => None,
                    Expect::Version(version) => Some(version),
                };
                if before.map(|fork| fork.version) != expected
                    || after.map(|fork| fork.version) != Some(pushed.version)
                    || after.is_none_or(|fork| !fork.by.ends_with(&format!("-{round}")))
                {
                    drop(history);
                    world.fail(format!("{name} {expect:?} to {} is not so", pushed.version));
                }
            }
            Err(error) if is_fair(&error) => {}
            Err(error) => world.fail(format!("push {name}: {error}")),
        }
    }
}

async fn delete(world: Rc<World>, store: Rc<Store>) {
    for _ in 0..3 {
        let name = NAMES[world.chance.below(NAMES.len())];
        match store.delete_fork(name, None).await {
            Err(error) if !is_fair(&error) => world.fail(format!("delete {name}: {error}")),
            Ok(()) | Err(_) => {}
        }
    }
}

async fn collect(world: Rc<World>, store: Rc<Store>) {
    for _ in 0..3 {
        let grace = if world.chance.one_in(3) { Grace::One } else { Grace::None };
        match store.collect(grace).await {
            Err(error) if !is_fair(&error) => world.fail(format!("collect: {error}")),
            Ok(_) | Err(_) => {}
        }
    }
}

async fn pull(world: Rc<World>, store: Rc<Store>) {
    for _ in 0..3 {
        let (env, name) = (MemEnv::default(), NAMES[world.chance.below(NAMES.len())]);
        match store.pull(&env, name, Path::new("/db")).await {
            Ok(pulled) if pulled.file_count != 4 => world.fail(format!("{pulled:?}")),
            Err(error) if !is_fair(&error) => world.fail(format!("pull {name}: {error}")),
            Ok(_) | Err(_) => {}
        }
    }
}

/// What a schedule came to.
#[derive(Debug, Default)]
struct Tally {
    steps: u64,
    commits: u64,
    wrong: Option<String>,
}

fn quiet_collection(world: &Rc<World>, flaw: Option<Flaw>) {
    world.has_faults.set(false);
    while world.late_count() > 0 {
        world.land();
    }
    let collector = store(world, 99, flaw);
    let mut tasks = [Task::new({
        let world = Rc::clone(world);
        async move {
            if let Err(error) = collector.collect(Grace::None).await {
                world.fail(format!("collect in quiet: {error}"));
            }
        }
    })];
    run(world, &mut tasks);
    let leftovers = world.leftovers(KEEP_COUNT);
    if !leftovers.is_empty() {
        world.fail(format!("left over: {leftovers:?}"));
    }
}

fn schedule(seed: u64, flaw: Option<Flaw>) -> Tally {
    let world = Rc::new(World::new(seed));
    let mut tasks = Vec::new();
    for writer in 0..8 {
        let (world, store) = (Rc::clone(&world), Rc::new(store(&world, writer, flaw)));
        tasks.push(match writer {
            0..3 => Task::new(push(world, store)),
            3 => Task::new(delete(world, store)),
            4..7 => Task::new(collect(world, store)),
            _ => Task::new(pull(world, store)),
        });
    }
    let mut steps = run(&world, &mut tasks);
    quiet_collection(&world, flaw);
    // Those who slept through all of it go on as if nothing had been.
    wake(&mut tasks);
    steps += run(&world, &mut tasks);
    quiet_collection(&world, flaw);
    let commits = world.history.borrow().len() as u64 - 1;
    let wrong = world.wrong.borrow_mut().take();
    Tally { steps, commits, wrong }
}

const SEEDS: u64 = 2_000;

#[test]
fn every_fork_is_whole_at_every_step_of_every_schedule() {
    let (mut steps, mut commits) = (0, 0);
    for seed in 0..SEEDS {
        let tally = schedule(seed, None);
        assert_eq!(tally.wrong, None, "seed {seed}");
        steps += tally.steps;
        commits += tally.commits;
    }
    println!("{SEEDS} schedules, {steps} steps, {commits} commits");
    assert!(commits > SEEDS * 5, "only {commits} commits: the schedules do too little");
}

fn is_found(flaw: Flaw) {
    let found = (0..SEEDS).find_map(|seed| Some((seed, schedule(seed, Some(flaw)).wrong?)));
    let (seed, wrong) = found.unwrap_or_else(|| panic!("no schedule shows {flaw:?}"));
    println!("{flaw:?}: seed {seed}: {wrong}");
}

#[test]
fn a_stalled_push_that_does_not_ask_again_loses_tables() {
    is_found(Flaw::NoRecheck);
}

#[test]
fn a_collector_that_deletes_before_it_commits_loses_tables() {
    is_found(Flaw::DeleteFirst);
}

#[test]
fn names_without_a_generation_lose_tables_to_a_late_delete() {
    is_found(Flaw::NoGeneration);
}

#[test]
fn a_collector_without_a_boundary_loses_tables_of_pushes_under_way() {
    is_found(Flaw::NoBoundary);
}

#[test]
fn a_writer_that_does_not_look_after_its_put_believes_in_the_past() {
    is_found(Flaw::NoConfirm);
}

/// A reader lists the catalogs, sleeps until they are deleted, and then a stalled put of the first
/// one's number lands. What it takes for the forks.
fn read_across_a_stalled_put(flaw: Option<Flaw>) -> Vec<String> {
    let world = Rc::new(World::new(1));
    world.has_faults.set(false);
    let writer = Rc::new(store(&world, 1, None));
    run(&world, &mut [Task::new(push(Rc::clone(&world), Rc::clone(&writer)))]);
    let reader = store(&world, 2, flaw);
    let mut reading = Box::pin(async move {
        let forks = reader.list_forks().await.unwrap();
        forks.into_iter().map(|fork| fork.name).collect::<Vec<_>>()
    });
    let mut poll = || reading.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    // Up to the listing, and through it.
    assert!(poll().is_pending() && poll().is_pending());
    let (old, hash) = world.history.borrow().last().cloned().unwrap();
    run(&world, &mut [Task::new(push(Rc::clone(&world), writer))]);
    let stalled = Catalog { parent: Some(hash), forks: BTreeMap::new(), ..old };
    let is_put = world.put(&catalog_name(stalled.number), &stalled.encode().unwrap());
    assert!(is_put, "the number is free again");
    loop {
        if let Poll::Ready(forks) = poll() {
            return forks;
        }
    }
}

#[test]
fn a_reader_that_slept_takes_no_stalled_put_for_the_state() {
    assert!(!read_across_a_stalled_put(None).is_empty());
    assert!(read_across_a_stalled_put(Some(Flaw::OneLook)).is_empty());
}

/// How many pieces a push puts that a number of collections overtake right before its commit.
fn put_count(collections: u64, grace: Grace) -> u64 {
    let world = Rc::new(World::new(3));
    world.has_faults.set(false);
    let pusher = store(&world, 1, None);
    let chance = Rc::clone(&world);
    let mut pushing = Box::pin(async move {
        let env = MemEnv::default();
        fill(&env, Path::new("/db"), &chance).await;
        pusher.push(&env, Path::new("/db"), "a", Expect::Absent).await.unwrap()
    });
    let mut poll = || pushing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    while !world.holds("forks/a/") {
        assert!(poll().is_pending(), "it committed already");
    }
    for writer in 0..collections {
        let collector = store(&world, 10 + writer, None);
        let collection =
            async move { assert_eq!(collector.collect(grace).await.unwrap().fork_count, 0) };
        run(&world, &mut [Task::new(collection)]);
    }
    loop {
        if let Poll::Ready(pushed) = poll() {
            assert_eq!(*world.wrong.borrow(), None);
            return pushed.put_count;
        }
    }
}

#[test]
fn with_grace_a_push_that_one_collection_overtakes_uploads_nothing_again() {
    let once = put_count(0, Grace::None);
    assert_eq!(put_count(1, Grace::One), once);
    assert_eq!(put_count(2, Grace::One), 2 * once);
    assert_eq!(put_count(1, Grace::None), 2 * once);
}
