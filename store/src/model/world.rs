//! A store whose every call is a step, and who takes the next step is drawn from a seed.

use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use crate::format::{Catalog, decode_files};
use crate::names::{Hash, ObjectId, catalog_name, of_catalog_name};
use crate::{Error, Result, Store};

/// Chance, as `SplitMix64` has it.
#[derive(Debug)]
pub(super) struct Chance(Cell<u64>);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number below `n`.
    pub(super) fn below(&self, n: usize) -> usize {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }

    pub(super) fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug)]
enum Late {
    Put(String, Bytes),
    Delete(String),
}

/// The objects, and what was ever the state.
#[derive(Debug)]
pub(super) struct World {
    pub(super) chance: Chance,
    objects: RefCell<BTreeMap<String, Bytes>>,
    /// Calls that failed and are carried out some time later.
    late: RefCell<Vec<Late>>,
    pub(super) has_faults: Cell<bool>,
    /// Every state by its number, in one chain.
    pub(super) history: RefCell<Vec<(Catalog, Hash)>>,
    /// The first thing that was wrong.
    pub(super) wrong: RefCell<Option<String>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed),
            objects: RefCell::default(),
            late: RefCell::default(),
            has_faults: Cell::new(true),
            history: RefCell::new(vec![(Catalog::default(), Hash::ZERO)]),
            wrong: RefCell::default(),
        }
    }

    pub(super) fn fail(&self, what: impl Into<String>) {
        self.wrong.borrow_mut().get_or_insert(what.into());
    }

    pub(super) fn put(&self, name: &str, bytes: &Bytes) -> bool {
        let is_new = !self.objects.borrow().contains_key(name);
        if is_new {
            self.objects.borrow_mut().insert(name.to_owned(), bytes.clone());
            self.look(name);
        }
        is_new
    }

    fn remove(&self, name: &str) {
        if self.objects.borrow_mut().remove(name).is_some() {
            self.look(name);
        }
    }

    fn is_fault(&self, n: usize) -> bool {
        self.has_faults.get() && self.chance.one_in(n)
    }

    /// Whether some object's name begins so.
    pub(super) fn holds(&self, prefix: &str) -> bool {
        self.objects.borrow().keys().any(|name| name.starts_with(prefix))
    }

    /// Carries out a call that failed long ago.
    pub(super) fn land(&self) {
        let count = self.late.borrow().len();
        if count > 0 {
            let late = self.late.borrow_mut().swap_remove(self.chance.below(count));
            match late {
                Late::Put(name, bytes) => drop(self.put(&name, &bytes)),
                Late::Delete(name) => self.remove(&name),
            }
        }
    }

    pub(super) fn late_count(&self) -> usize {
        self.late.borrow().len()
    }

    pub(super) fn state(&self) -> Catalog {
        self.history.borrow().last().unwrap().0.clone()
    }

    /// Checks the invariants after a change: states form a chain, and each fork of the last one is
    /// whole.
    fn look(&self, changed: &str) {
        let objects = self.objects.borrow();
        let highest = objects.keys().filter_map(|name| of_catalog_name(name)).max().unwrap_or(0);
        let last = self.history.borrow().len() as u64 - 1;
        if highest == last + 1 {
            let bytes = &objects[&catalog_name(highest)];
            let catalog = Catalog::decode("head", highest, bytes).unwrap();
            if catalog.parent != Some(self.history.borrow()[usize::try_from(last).unwrap()].1) {
                self.fail(format!("catalog {highest} does not follow {last}"));
            }
            self.history.borrow_mut().push((catalog, Hash::of(bytes)));
        } else if highest != last {
            self.fail(format!("after {changed} the head went from {last} to {highest}"));
        }
        for name in self.named(&objects) {
            if !objects.contains_key(&name) {
                self.fail(format!("after {changed} a fork of {last} lacks {name}"));
            }
        }
    }

    /// What the last state names.
    fn named(&self, objects: &BTreeMap<String, Bytes>) -> Vec<String> {
        let catalog = self.state();
        let data_name = |id: ObjectId| id.data_name();
        let mut names: Vec<_> = catalog.index.iter().map(|p| data_name(p.id)).collect();
        for (fork, entry) in &catalog.forks {
            let name = entry.manifest.id.fork_name(fork);
            if let Some(bytes) = objects.get(&name) {
                let files = decode_files(&name, bytes).unwrap();
                names.extend(files.iter().flat_map(|f| &f.pieces).map(|p| data_name(p.id)));
            }
            names.push(name);
        }
        names
    }

    /// Objects that the last state does not need; the head alone of all catalogs, and those that
    /// are kept for readers.
    pub(super) fn leftovers(&self, keep_count: u64) -> Vec<String> {
        let objects = self.objects.borrow();
        let (named, head) = (self.named(&objects), self.history.borrow().len() as u64 - 1);
        let is_left = |name: &&String| match of_catalog_name(name) {
            Some(number) => number + keep_count <= head,
            None => !named.contains(name),
        };
        objects.keys().filter(is_left).cloned().collect()
    }
}

/// Lets others go first.
async fn step() {
    let mut is_first = true;
    core::future::poll_fn(|_| {
        if core::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

fn refused(op: &'static str, object: &str) -> Error {
    Error::Store { op, object: object.to_owned(), detail: "made up".to_owned() }
}

impl Store for Rc<World> {
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool> {
        step().await;
        if self.is_fault(60) {
            match self.chance.below(3) {
                // It was put, nobody heard of it, and it was asked for again.
                0 => drop(self.put(name, &bytes)),
                1 => {
                    self.put(name, &bytes);
                    return Err(refused("put", name));
                }
                _ => {
                    self.late.borrow_mut().push(Late::Put(name.to_owned(), bytes));
                    return Err(refused("put", name));
                }
            }
        }
        let is_new = self.put(name, &bytes);
        step().await;
        Ok(is_new)
    }

    async fn get(&self, name: &str, offset: u64, bytes_max: u64) -> Result<Option<Bytes>> {
        step().await;
        let Some(bytes) = self.objects.borrow().get(name).cloned() else { return Ok(None) };
        let at = usize::try_from(offset).unwrap().min(bytes.len());
        let end = usize::try_from(offset + bytes_max).unwrap().min(bytes.len());
        Ok(Some(bytes.slice(at..end)))
    }

    async fn size(&self, name: &str) -> Result<Option<u64>> {
        step().await;
        Ok(self.objects.borrow().get(name).map(|bytes| bytes.len() as u64))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        step().await;
        let prefix = format!("{prefix}/");
        let objects = self.objects.borrow();
        Ok(objects.keys().filter(|name| name.starts_with(&prefix)).cloned().collect())
    }

    async fn delete(&self, name: &str) -> Result<()> {
        step().await;
        if self.is_fault(40) {
            self.late.borrow_mut().push(Late::Delete(name.to_owned()));
            return Err(refused("delete", name));
        }
        self.remove(name);
        Ok(())
    }
}

/// Somebody who works on the store.
pub(super) struct Task {
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// It takes no step before this one.
    asleep_until: u64,
}

impl Task {
    pub(super) fn new(future: impl Future<Output = ()> + 'static) -> Self {
        Self { future: Some(Box::pin(future)), asleep_until: 0 }
    }

    fn poll(&mut self) {
        let Some(future) = &mut self.future else { return };
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            self.future = None;
        }
    }
}

/// Takes steps until all tasks ended, or those that are left sleep for ever, or something is
/// wrong. Tasks fall asleep, some for ever; some crash.
pub(super) fn run(world: &World, tasks: &mut [Task]) -> u64 {
    let chance = &world.chance;
    for now in 0_u64.. {
        let awake = |task: &Task| task.future.is_some() && task.asleep_until <= now;
        let ready: Vec<usize> = (0..tasks.len()).filter(|at| awake(&tasks[*at])).collect();
        let is_waiting = tasks.iter().any(|t| t.future.is_some() && t.asleep_until < u64::MAX);
        if !is_waiting || world.wrong.borrow().is_some() {
            return now;
        }
        assert!(now < 1_000_000, "no end in sight");
        if ready.is_empty() {
            continue;
        }
        let task = &mut tasks[ready[chance.below(ready.len())]];
        // Some go far before another does.
        for _ in 0..[1, 1, 4, 40][chance.below(4)] {
            task.poll();
        }
        if world.has_faults.get() {
            match chance.below(2_000) {
                0..4 => task.future = None,
                4..8 => task.asleep_until = u64::MAX,
                8..80 => task.asleep_until = now + chance.below(300) as u64,
                80..130 => world.land(),
                _ => {}
            }
        }
    }
    0
}

/// Wakes those who sleep for ever.
pub(super) fn wake(tasks: &mut [Task]) {
    for task in tasks {
        task.asleep_until = 0;
    }
}
