//! Memtables that wait for their flush, and which of them one flush writes.
//!
//! A tree's memtables are flushed oldest first and one flush at a time, so only the oldest of each
//! tree is a candidate: those stand in the order of their sealing, and a pick costs the logarithm
//! of the number of trees, besides what it takes.

use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::{Next, backoff};
use crate::types::{Nanos, TreeId, to_u64};
use crate::version::tree::Tree;

/// A memtable that waits for its flush. Which one it is follows from its place among its tree's.
#[derive(Clone, Copy, Debug)]
struct Token {
    /// Its place among all; what comes back after a failure goes before all others.
    order: i64,
    bytes: u64,
    /// Memtables of one number above 0 are flushed into one file.
    pack: u64,
}

/// The flushes of one tree.
#[derive(Debug)]
struct TreeFlushes {
    tree: Arc<Tree>,
    waiting: VecDeque<Token>,
    not_before: Nanos,
    running: bool,
}

/// See [`Jobs`](super::Jobs).
#[derive(Debug, Default)]
pub(super) struct FlushQueue {
    trees: BTreeMap<TreeId, TreeFlushes>,
    /// The oldest of each tree that has no flush running: those that are due by their place, and
    /// those that are not known to be due by their time.
    ready: BTreeSet<(i64, TreeId)>,
    later: BTreeSet<(Nanos, i64, TreeId)>,
    orders: (i64, i64),
    /// Memtables that wait, and trees of which one is being flushed.
    counts: (usize, usize),
    /// What waits and is in no pack yet: memtables and their bytes.
    loose: (u64, u64),
    /// Packs that were asked for, by number, with the trees that wait for them.
    packs: BTreeMap<u64, BTreeSet<TreeId>>,
    pack_number: u64,
    /// Flushes that run and have installed nothing yet, and how many of them are packed.
    running: (u64, u64),
    /// Flushes of a tree that failed since one was done.
    failures: BTreeMap<TreeId, u32>,
}

/// What one flush writes: of each tree the oldest so many of its immutable memtables.
#[derive(Debug)]
pub(crate) struct FlushJob {
    members: Vec<(Arc<Tree>, Vec<Token>)>,
    is_installed: AtomicBool,
}

impl FlushJob {
    /// The trees, each once, and how many memtables of each.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&Arc<Tree>, usize)> {
        self.members.iter().map(|(tree, tokens)| (tree, tokens.len()))
    }

    /// Whether it writes several memtables into one file.
    pub(crate) fn is_packed(&self) -> bool {
        self.members.len() > 1 || self.members.iter().any(|(_, tokens)| tokens.len() > 1)
    }
}

impl FlushQueue {
    /// How often the tree's flush failed since one was done.
    pub(super) fn tries(&self, tree: TreeId) -> u32 {
        self.failures.get(&tree).copied().unwrap_or(0)
    }

    /// Memtables that wait, and trees of which one is being flushed.
    pub(super) fn count(&self) -> usize {
        self.counts.0 + self.counts.1
    }

    pub(super) fn add(&mut self, sealed: &[(Arc<Tree>, u64)], pack: bool) {
        let mut number = 0;
        if pack && sealed.len() > 1 {
            self.pack_number += 1;
            number = self.pack_number;
        }
        for (tree, bytes) in sealed {
            self.orders.1 += 1;
            let token = Token { order: self.orders.1, bytes: *bytes, pack: number };
            // Behind a flush that failed it waits as long as that one.
            self.unindex(tree.id);
            self.put_back(tree, token, VecDeque::push_back);
            self.index(tree.id);
        }
    }

    pub(super) fn next(&mut self, now: Nanos, pack_bytes: u64) -> Next<FlushJob> {
        while let Some((at, order, id)) = self.later.first().copied()
            && at <= now
        {
            self.later.pop_first();
            self.ready.insert((order, id));
        }
        let first = self.ready.iter().map(|(_, id)| *id).find(|id| !self.is_held_up(*id));
        let Some(first) = first else {
            return Next::Wait(self.later.first().map(|(at, _, _)| *at));
        };
        let pack = self.head(first).map_or(0, |token| token.pack);
        let members = if self.failures.contains_key(&first) {
            vec![self.take(first, 0)]
        } else if pack > 0 {
            let mut trees: Vec<(i64, TreeId)> = Vec::new();
            for id in self.packs.remove(&pack).unwrap_or_default() {
                let order = self.leave_or_join(id, pack);
                trees.extend(order.map(|order| (order, id)));
            }
            trees.sort_unstable();
            trees.into_iter().map(|(_, id)| self.take(id, pack)).collect()
        } else {
            let trees = self.gather(pack_bytes);
            trees.into_iter().map(|id| self.take(id, 0)).collect()
        };
        let members = members.into_iter().flatten().collect();
        let job = FlushJob { members, is_installed: AtomicBool::new(false) };
        self.running.0 += 1;
        self.running.1 += u64::from(job.is_packed());
        Next::Run(job)
    }

    /// Whether a flush of any tree runs.
    pub(super) fn runs(&self) -> bool {
        self.counts.1 > 0
    }

    pub(super) fn installed(&mut self, job: &FlushJob) {
        if !job.is_installed.swap(true, Ordering::Relaxed) {
            self.running.0 = self.running.0.saturating_sub(1);
            self.running.1 = self.running.1.saturating_sub(u64::from(job.is_packed()));
        }
    }

    pub(super) fn done(&mut self, job: &FlushJob, failed_at: Option<Nanos>) {
        self.installed(job);
        for (tree, tokens) in job.members.iter().rev() {
            self.counts.1 = self.counts.1.saturating_sub(1);
            if let Some(flushes) = self.trees.get_mut(&tree.id) {
                flushes.running = false;
            }
            match failed_at {
                None => {
                    self.failures.remove(&tree.id);
                }
                Some(now) => {
                    let not_before = now + backoff(&mut self.failures, tree.id);
                    for token in tokens.iter().rev() {
                        self.orders.0 -= 1;
                        let token = Token { order: self.orders.0, pack: 0, ..*token };
                        self.put_back(tree, token, VecDeque::push_front);
                    }
                    if let Some(flushes) = self.trees.get_mut(&tree.id) {
                        flushes.not_before = not_before;
                    }
                }
            }
            self.index(tree.id);
        }
    }

    pub(super) fn job_count(&self, pack_bytes: u64) -> Option<u32> {
        if pack_bytes == 0 && self.packs.is_empty() && self.running.1 == 0 {
            return None;
        }
        let (count, bytes) = self.loose;
        let loose = match pack_bytes {
            0 => count,
            pack_bytes => bytes.div_ceil(pack_bytes).max(1).min(count),
        };
        let jobs = loose + to_u64(self.packs.len()) + self.running.0;
        Some(u32::try_from(jobs).unwrap_or(u32::MAX))
    }

    /// Where a tree's oldest memtable waits to be picked, unless a flush of it runs.
    fn index(&mut self, id: TreeId) {
        match self.trees.get(&id) {
            Some(flushes) if flushes.running => {}
            Some(flushes) => match flushes.waiting.front() {
                Some(token) => {
                    self.later.insert((flushes.not_before, token.order, id));
                }
                None => {
                    self.trees.remove(&id);
                }
            },
            None => {}
        }
    }

    fn unindex(&mut self, id: TreeId) {
        if let Some(flushes) = self.trees.get(&id)
            && let Some(token) = flushes.waiting.front()
        {
            self.ready.remove(&(token.order, id));
            self.later.remove(&(flushes.not_before, token.order, id));
        }
    }

    /// Whether another tree has to flush a memtable that they share before one of this tree's own
    /// can be flushed: a tree's memtables are flushed oldest first. That flush wakes who skipped
    /// this tree. One that failed waits for nothing.
    fn is_held_up(&self, id: TreeId) -> bool {
        let Some(flushes) = self.trees.get(&id) else { return false };
        flushes.tree.failure().is_none()
            && flushes.tree.oldest_immutable().is_some_and(|m| m.home != id)
    }

    fn head(&self, id: TreeId) -> Option<&Token> {
        self.trees.get(&id)?.waiting.front()
    }

    /// Adds a memtable that waits at one end of its tree's.
    fn put_back(
        &mut self,
        tree: &Arc<Tree>,
        token: Token,
        put: impl FnOnce(&mut VecDeque<Token>, Token),
    ) {
        let flushes = self.trees.entry(tree.id).or_insert_with(|| TreeFlushes {
            tree: Arc::clone(tree),
            waiting: VecDeque::new(),
            not_before: 0,
            running: false,
        });
        if flushes.waiting.is_empty() {
            flushes.not_before = 0;
        }
        put(&mut flushes.waiting, token);
        self.counts.0 += 1;
        if token.pack == 0 {
            self.loose = (self.loose.0 + 1, self.loose.1 + token.bytes);
        } else {
            self.packs.entry(token.pack).or_default().insert(tree.id);
        }
    }

    /// A memtable does not wait any more.
    fn leave(&mut self, token: Token) {
        self.counts.0 = self.counts.0.saturating_sub(1);
        if token.pack == 0 {
            let (count, bytes) = self.loose;
            self.loose = (count.saturating_sub(1), bytes.saturating_sub(token.bytes));
        }
    }

    /// The trees whose oldest memtables are flushed together, first sealed first.
    fn gather(&self, pack_bytes: u64) -> Vec<TreeId> {
        let (mut trees, mut bytes) = (Vec::new(), 0_u64);
        for (_, id) in &self.ready {
            let Some(token) = self.head(*id) else { continue };
            if self.is_held_up(*id) {
                continue;
            }
            let is_alone = token.pack > 0 || self.failures.contains_key(id);
            if trees.is_empty() || !is_alone {
                trees.push(*id);
                bytes = bytes.saturating_add(token.bytes);
            }
            if bytes >= pack_bytes {
                break;
            }
        }
        trees
    }

    /// The place of a tree in a pack that is about to be flushed. One that cannot take part, since
    /// a flush of it runs or failed, is flushed by itself later.
    fn leave_or_join(&mut self, id: TreeId, pack: u64) -> Option<i64> {
        let has_failed = self.failures.contains_key(&id) || self.is_held_up(id);
        let flushes = self.trees.get_mut(&id)?;
        let token = flushes.waiting.iter_mut().find(|token| token.pack == pack)?;
        let order = token.order;
        if !flushes.running && !has_failed {
            return Some(order);
        }
        token.pack = 0;
        self.loose = (self.loose.0 + 1, self.loose.1 + token.bytes);
        None
    }

    /// Takes a tree's oldest memtable, or those up to the one that is in this pack.
    fn take(&mut self, id: TreeId, pack: u64) -> Option<(Arc<Tree>, Vec<Token>)> {
        self.unindex(id);
        let flushes = self.trees.get_mut(&id)?;
        let last = flushes.waiting.iter().position(|token| pack > 0 && token.pack == pack);
        let taken: Vec<Token> = flushes.waiting.drain(..=last.unwrap_or(0)).collect();
        flushes.running = true;
        let tree = Arc::clone(&flushes.tree);
        self.counts.1 += 1;
        for token in &taken {
            self.leave(*token);
            self.leave_pack(id, token.pack);
        }
        Some((tree, taken))
    }

    fn leave_pack(&mut self, id: TreeId, pack: u64) {
        if let Some(trees) = self.packs.get_mut(&pack) {
            trees.remove(&id);
            if trees.is_empty() {
                self.packs.remove(&pack);
            }
        }
    }

    /// Nothing of a tree waits any more.
    pub(super) fn forget(&mut self, id: TreeId) {
        self.failures.remove(&id);
        self.unindex(id);
        let Some(flushes) = self.trees.get_mut(&id) else { return };
        let gone = core::mem::take(&mut flushes.waiting);
        for token in gone {
            self.leave(token);
            self.leave_pack(id, token.pack);
        }
        self.index(id);
    }
}
