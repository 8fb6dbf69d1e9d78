//! The reference model of a measured run: whether every read gives what some order of the writes
//! to its key allows.
//!
//! A key is a register. A read may give a write that was not yet overwritten when the read began:
//! one over which no other write began after it was answered and was itself answered before the
//! read; or a write that began while the read was under way. Where no writes overlap that is one
//! value, and a byte of any other is a broken rule. Between operations a key costs eight bytes, so
//! that millions of keys are watched.
//!
//! A fork is a read of every key of its parent at one instant between its begin and its answer, and
//! a register of its own from then on. Of each fork some keys are watched: the first read of one
//! says what the fork began with, and must give what such a read of the parent may give; after it
//! only the fork's own writes change the key.
//!
//! A scan's entries are only compared with what they say of themselves: that they were written by
//! this tenant, to this key; and with each other, for their order.

use std::collections::BTreeMap;

use forebay_workloads::{ValueOrigin, Workload};

/// A write that deletes has this bit beside its number.
const DELETES: u64 = 1 << 63;

/// What a key holds that was not loaded: the delete of an operation that nobody asked for.
const NEVER: u64 = u64::MAX;

/// A key of a branch: the branch, 0 for every `main` and else the fork's number from 1, and the key's
/// place among all keys of all tenants.
pub(super) type At = (u64, u64);

/// A rule that a read broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The rule's name: `C3` for a value that nobody wrote to this key, `C8` for one that was
    /// overwritten, and for a scan out of order.
    pub rule: &'static str,
    /// Which read, what it gave and what it may give.
    pub detail: String,
}

/// A write, in ticks of the model: each begin and each answer is one.
#[derive(Clone, Copy, Debug)]
struct Written {
    number: u64,
    begin: u64,
    end: Option<u64>,
}

/// A key with operations under way.
#[derive(Debug, Default)]
struct Busy {
    writes: Vec<Written>,
    reads: u64,
}

/// What every key may hold.
#[derive(Debug)]
pub(super) struct Check {
    /// The number of the last write to each key of a `main` that is not busy.
    last: Vec<u64>,
    /// The same of the keys that are watched in forks.
    watched: BTreeMap<At, u64>,
    busy: BTreeMap<At, Busy>,
    tick: u64,
    checked: u64,
    broken: Option<Broken>,
}

/// A read under way.
#[derive(Debug)]
pub(super) struct Read {
    at: At,
    begin: u64,
    allowed: Vec<u64>,
}

impl Read {
    /// The place of its key.
    pub(super) fn place(&self) -> u64 {
        self.at.1
    }
}

impl Busy {
    /// Whether another write was answered that began after this one was.
    fn is_overwritten(&self, write: &Written) -> bool {
        let over =
            |other: &Written| other.end.is_some() && write.end.is_some_and(|end| end < other.begin);
        self.writes.iter().any(over)
    }

    fn forget_overwritten(&mut self) {
        if self.reads == 0 {
            let gone: Vec<bool> = self.writes.iter().map(|w| self.is_overwritten(w)).collect();
            let mut gone = gone.into_iter();
            self.writes.retain(|_| !gone.next().unwrap_or(false));
        }
    }
}

impl Check {
    /// Every key as the load left it: written by the operation whose number is the key's place, or
    /// not there.
    pub(super) fn new(workload: &Workload) -> Self {
        let total = workload.key_total();
        let mut last: Vec<u64> = if workload.load_op_count() == total {
            (0..total).collect()
        } else {
            (0..total).map(|_| NEVER).collect()
        };
        for op in workload.load_ops().filter(|_| workload.load_op_count() < total) {
            let place = workload.key_place(op.tenant, op.key()).unwrap_or(u64::MAX);
            if let Some(slot) = usize::try_from(place).ok().and_then(|at| last.get_mut(at)) {
                *slot = place;
            }
        }
        let (watched, busy) = (BTreeMap::new(), BTreeMap::new());
        Self { last, watched, busy, tick: 0, checked: 0, broken: None }
    }

    fn last(&mut self, at: At) -> Option<&mut u64> {
        let (branch, place) = at;
        if branch > 0 {
            return self.watched.get_mut(&at);
        }
        usize::try_from(place).ok().and_then(|place| self.last.get_mut(place))
    }

    fn busy(&mut self, at: At) -> &mut Busy {
        let last = self.last(at).copied();
        let before = last.map(|number| Written { number, begin: 0, end: Some(0) });
        let fresh = || Busy { writes: before.into_iter().collect(), reads: 0 };
        self.busy.entry(at).or_insert_with(fresh)
    }

    /// Whether writes to a key are to be told: in a fork only those to watched ones.
    fn is_watched(&self, at: At) -> bool {
        at.0 == 0 || self.watched.contains_key(&at)
    }

    /// The keys of a fork that are watched.
    pub(super) fn watched(&self, fork: u64) -> Vec<u64> {
        let keys = self.watched.range((fork, 0)..=(fork, u64::MAX));
        keys.map(|((_, place), _)| *place).collect()
    }

    /// From now on a key of a fork is watched; it holds what this write wrote.
    pub(super) fn watch(&mut self, at: At, number: u64) {
        self.watched.insert(at, number);
    }

    /// A fork is dropped.
    pub(super) fn forget(&mut self, fork: u64) {
        self.watched.retain(|(branch, _), _| *branch != fork);
        self.busy.retain(|(branch, _), _| *branch != fork);
    }

    /// A write begins.
    pub(super) fn begin_write(&mut self, at: At, number: u64, deletes: bool) {
        if !self.is_watched(at) {
            return;
        }
        self.tick += 1;
        let begin = self.tick;
        let number = if deletes { number | DELETES } else { number };
        self.busy(at).writes.push(Written { number, begin, end: None });
    }

    /// A write was answered.
    pub(super) fn end_write(&mut self, at: At, number: u64) {
        if !self.is_watched(at) {
            return;
        }
        self.tick += 1;
        let tick = self.tick;
        let busy = self.busy(at);
        let of_number = |w: &&mut Written| w.number & !DELETES == number && w.end.is_none();
        if let Some(write) = busy.writes.iter_mut().rev().find(of_number) {
            write.end = Some(tick);
        }
        self.settle(at);
    }

    /// A read begins.
    pub(super) fn begin_read(&mut self, at: At) -> Read {
        self.tick += 1;
        let begin = self.tick;
        let busy = self.busy(at);
        busy.reads += 1;
        let current = busy.writes.iter().filter(|write| !busy.is_overwritten(write));
        Read { at, begin, allowed: current.map(|write| write.number).collect() }
    }

    /// A read was answered.
    pub(super) fn end_read(
        &mut self,
        mut read: Read,
        of: (&Workload, u32, u64),
        value: Option<&[u8]>,
    ) {
        self.close_read(&mut read);
        self.compare(&read, of, value);
    }

    /// The time is over in which a read was under way: writes that begin later are none of what it
    /// may give.
    pub(super) fn close_read(&mut self, read: &mut Read) {
        let busy = self.busy(read.at);
        busy.reads = busy.reads.saturating_sub(1);
        let since = busy.writes.iter().filter(|write| write.begin > read.begin);
        read.allowed.extend(since.map(|write| write.number));
        self.settle(read.at);
    }

    /// Compares what a closed read gave; the write whose value that is.
    pub(super) fn compare(
        &mut self,
        read: &Read,
        (workload, tenant, key): (&Workload, u32, u64),
        value: Option<&[u8]>,
    ) -> Option<u64> {
        self.checked += 1;
        let mut wanted = Vec::new();
        let found = read.allowed.iter().copied().find(|number| match value {
            None => number & DELETES != 0,
            Some(value) => {
                workload.fill_value(tenant, key, *number, &mut wanted);
                number & DELETES == 0 && value == wanted
            }
        });
        if found.is_none() {
            self.breaks(told(&read.allowed, (tenant, key), value));
        }
        found
    }

    /// A scan of a tenant gave an entry.
    pub(super) fn scanned(&mut self, workload: &Workload, tenant: u32, entry: (&[u8], &[u8])) {
        let (key, value) = entry;
        let Some(origin) = ValueOrigin::of(value) else { return };
        self.checked += 1;
        let mut wanted = Vec::new();
        workload.fill_key(origin.tenant, origin.key, &mut wanted);
        if origin.tenant != tenant || wanted != key {
            let detail = format!("a scan of tenant {tenant} gave {origin:?} at key {key:?}");
            self.breaks(Broken { rule: "C3", detail });
        }
    }

    /// A scan gave a key after another one.
    pub(super) fn in_order(&mut self, tenant: u32, keys: (Option<&[u8]>, &[u8]), reverse: bool) {
        let (Some(before), key) = keys else { return };
        let is_in_order = if reverse { key < before } else { before < key };
        if !is_in_order {
            let way = if reverse { "backwards" } else { "forwards" };
            let detail =
                format!("a scan {way} of tenant {tenant} gave key {key:?} after {before:?}");
            self.breaks(Broken { rule: "C8", detail });
        }
    }

    fn breaks(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    /// A key without anything under way and with one possible value is no longer busy.
    fn settle(&mut self, at: At) {
        let Some(busy) = self.busy.get_mut(&at) else { return };
        busy.forget_overwritten();
        let ([one], 0) = (busy.writes.as_slice(), busy.reads) else { return };
        let (number, is_answered) = (one.number, one.end.is_some());
        if is_answered && let Some(last) = self.last(at) {
            *last = number;
            self.busy.remove(&at);
        }
    }

    /// Answers compared, and the first rule that one broke.
    pub(super) fn outcome(&self) -> (u64, Option<Broken>) {
        (self.checked, self.broken.clone())
    }

    /// Whether a rule was broken.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }
}

/// A wrong answer in words.
fn told(allowed: &[u64], (tenant, key): (u32, u64), value: Option<&[u8]>) -> Broken {
    let origin = value.and_then(ValueOrigin::of);
    let own = origin.is_none_or(|origin| (origin.tenant, origin.key) == (tenant, key));
    let rule = if own { "C8" } else { "C3" };
    let write = |number: &u64| match number & DELETES {
        0 => format!("the value of operation {number}"),
        _ if *number == NEVER => "nothing, as it was not loaded".to_owned(),
        _ => format!("nothing, by operation {}", number & !DELETES),
    };
    let allowed: Vec<String> = allowed.iter().map(write).collect();
    let found = match (value, origin) {
        (None, _) => "nothing".to_owned(),
        (Some(_), Some(origin)) => format!("{origin:?}"),
        (Some(value), None) => format!("{} bytes", value.len()),
    };
    let detail =
        format!("tenant {tenant} key {key}: read {found}, allowed: {}", allowed.join(" or "));
    Broken { rule, detail }
}

#[cfg(test)]
mod tests {
    use forebay_workloads::WorkloadSpec;

    use super::*;

    struct World {
        workload: Workload,
        check: Check,
    }

    fn world() -> World {
        let mut spec = WorkloadSpec::named("steady-zipf");
        spec.tenant_count = 2;
        spec.budget_bytes = 4096;
        let workload = Workload::new(spec).unwrap();
        let check = Check::new(&workload);
        World { workload, check }
    }

    impl World {
        fn value(&self, number: u64) -> Vec<u8> {
            let mut value = Vec::new();
            self.workload.fill_value(0, 3, number, &mut value);
            value
        }

        fn end(&mut self, read: Read, value: Option<&[u8]>) -> Option<&'static str> {
            self.check.end_read(read, (&self.workload, 0, 3), value);
            self.check.broken.take().map(|broken| broken.rule)
        }
    }

    #[test]
    fn a_quiet_key_holds_its_last_write_and_costs_nothing_more() {
        let mut world = world();
        let read = world.check.begin_read((0, 3));
        let value = world.value(3);
        assert_eq!(world.end(read, Some(&value)), None);
        world.check.begin_write((0, 3), 1000, false);
        world.check.end_write((0, 3), 1000);
        assert!(world.check.busy.is_empty());
        let read = world.check.begin_read((0, 3));
        assert_eq!(world.end(read, Some(&value)), Some("C8"), "an overwritten value");
        let read = world.check.begin_read((0, 3));
        assert_eq!(world.end(read, None), Some("C8"), "absence of what was written");
        let mut foreign = Vec::new();
        world.workload.fill_value(1, 3, 1000, &mut foreign);
        let read = world.check.begin_read((0, 3));
        assert_eq!(world.end(read, Some(&foreign)), Some("C3"), "another tenant's value");
        world.check.begin_write((0, 3), 1001, true);
        world.check.end_write((0, 3), 1001);
        let read = world.check.begin_read((0, 3));
        assert_eq!(world.end(read, None), None);
        let read = world.check.begin_read((0, 3));
        let back = world.value(1000);
        assert_eq!(world.end(read, Some(&back)), Some("C8"), "a deleted value");
    }

    #[test]
    fn a_read_may_give_what_overlaps_it_and_nothing_older() {
        let mut world = world();
        world.check.begin_write((0, 3), 1000, false);
        // Began before the write was answered: old or new.
        for number in [3, 1000] {
            let (read, value) = (world.check.begin_read((0, 3)), world.value(number));
            assert_eq!(world.end(read, Some(&value)), None);
        }
        let early = world.check.begin_read((0, 3));
        world.check.end_write((0, 3), 1000);
        world.check.begin_write((0, 3), 1001, false);
        world.check.end_write((0, 3), 1001);
        // A read that began afterwards sees only the newest, one from before may see any of them.
        let (late, old) = (world.check.begin_read((0, 3)), world.value(1000));
        assert_eq!(world.end(late, Some(&old)), Some("C8"));
        assert_eq!(world.end(early, Some(&old)), None);
        let again = world.check.begin_read((0, 3));
        let newest = world.value(1001);
        assert_eq!(world.end(again, Some(&newest)), None);
        assert!(world.check.busy.is_empty());
    }

    #[test]
    fn either_of_two_writes_that_overlap_may_be_the_last() {
        let mut world = world();
        world.check.begin_write((0, 3), 1000, false);
        world.check.begin_write((0, 3), 1001, false);
        world.check.end_write((0, 3), 1001);
        world.check.end_write((0, 3), 1000);
        for number in [1000, 1001] {
            let (read, value) = (world.check.begin_read((0, 3)), world.value(number));
            assert_eq!(world.end(read, Some(&value)), None);
        }
        let (read, value) = (world.check.begin_read((0, 3)), world.value(3));
        assert_eq!(world.end(read, Some(&value)), Some("C8"));
        world.check.begin_write((0, 3), 1002, false);
        world.check.end_write((0, 3), 1002);
        assert!(world.check.busy.is_empty());
    }

    #[test]
    fn a_scan_may_not_give_another_tenants_entry() {
        let mut world = world();
        let (mut key, mut value) = (Vec::new(), Vec::new());
        world.workload.fill_key(1, 2, &mut key);
        world.workload.fill_value(1, 2, 7, &mut value);
        let workload = world.workload.clone();
        world.check.scanned(&workload, 1, (&key, &value));
        assert!(!world.check.is_broken());
        world.check.scanned(&workload, 0, (&key, &value));
        assert_eq!(world.check.outcome().1.map(|broken| broken.rule), Some("C3"));
    }

    #[test]
    fn a_fork_holds_what_its_parent_held_at_one_instant_and_its_own_writes() {
        let mut world = world();
        world.check.begin_write((0, 3), 1000, false);
        let mut read = world.check.begin_read((0, 3));
        world.check.end_write((0, 3), 1000);
        world.check.close_read(&mut read);
        // Behind the fork's answer: none of its business.
        world.check.begin_write((0, 3), 1001, false);
        let compare = |world: &mut World, read: &Read, number| {
            let (workload, value) = (world.workload.clone(), world.value(number));
            let found = world.check.compare(read, (&workload, 0, 3), Some(&value));
            (found, world.check.broken.take().map(|broken| broken.rule))
        };
        assert_eq!(compare(&mut world, &read, 1001), (None, Some("C8")));
        assert_eq!(compare(&mut world, &read, 1000), (Some(1000), None));
        world.check.watch((7, 3), 1000);
        world.check.end_write((0, 3), 1001);
        for (number, rule) in [(1000, None), (1001, Some("C8"))] {
            let (read, value) = (world.check.begin_read((7, 3)), world.value(number));
            assert_eq!(world.end(read, Some(&value)), rule, "{number}");
        }
        world.check.begin_write((7, 3), 1002, false);
        world.check.end_write((7, 3), 1002);
        let (read, value) = (world.check.begin_read((7, 3)), world.value(1002));
        assert_eq!(world.end(read, Some(&value)), None);
        let (read, value) = (world.check.begin_read((0, 3)), world.value(1002));
        assert_eq!(world.end(read, Some(&value)), Some("C8"), "the fork's write in its parent");
        assert_eq!(world.check.watched(7), [3]);
        world.check.forget(7);
        // Its last answers may come behind its drop.
        world.check.end_write((7, 3), 1003);
        assert!(world.check.watched(7).is_empty() && world.check.busy.is_empty());
    }
}
