//! What the clients know: every write with its place in the order, and what was promised about it.
//!
//! The engine tells the place of each batch through `Event::WriteSequenced`, so that the model need not
//! guess an order: a state is explained by one number, the prefix of the order that is in it.
//!
//! A write is *definite* when a prefix that covers it must contain it, and *unknown* when it may be in or
//! out: it failed, or it was under way while faults were injected, and its failure may not have reached
//! its client yet. Recovery decides unknown writes once and for ever.

use std::collections::{BTreeMap, BTreeSet};

use forebay_engine::types::{Nanos, SeqNo, to_u64, to_usize};

use super::value::{self, op_number};

/// What is known of a write, a create or a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Never asked for.
    Not,
    /// Asked for, not answered.
    UnderWay,
    /// Answered Ok.
    Acked,
    /// Answered with an error after which it may come back.
    Failed,
}

/// One write of a batch, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The incarnation it goes to.
    pub inc: usize,
    /// The key.
    pub key: u32,
    /// Put, or delete.
    pub put: bool,
}

/// A batch.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its writes.
    pub ops: Vec<Wanted>,
    /// Whether it is durable when acknowledged.
    pub sync: bool,
    /// What is known of it.
    pub known: Known,
    /// Its first number; 0 before it has one.
    pub first: SeqNo,
    /// Its last number; 0 before it has one.
    pub last: SeqNo,
    /// When it was acknowledged.
    pub acked_at: Nanos,
    /// A read saw it.
    pub seen: bool,
}

/// A write in its key's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its place in the order.
    pub seq: SeqNo,
    /// Its number, as values carry it.
    pub op: u64,
    /// Put, or delete.
    pub put: bool,
    /// The batch it belongs to.
    pub tag: u64,
}

/// Where a life began that is a fork's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkOf {
    /// The life it was forked from.
    pub parent: usize,
    /// It began with the parent's writes up to this number, once known.
    pub seq: Option<SeqNo>,
}

/// One life of a branch's name.
#[derive(Clone, Debug)]
pub struct Incarnation {
    /// Number of the name.
    pub tenant: usize,
    /// Number of the life of this name.
    pub number: u32,
    /// The branch id, once known.
    pub branch: Option<u64>,
    /// What is known of its creation.
    pub create: Known,
    /// What is known of its end.
    pub drop: Known,
    /// Where it began, if it was forked.
    pub fork: Option<ForkOf>,
    /// Histories by key; of a fork they begin with what it inherited.
    pub keys: BTreeMap<u32, Vec<Placed>>,
}

/// The model.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Every life of every name.
    pub incs: Vec<Incarnation>,
    /// Their indices by name, oldest first.
    by_name: BTreeMap<usize, Vec<usize>>,
    batches: Vec<Batch>,
    /// Writes that a recovery left out.
    pub lost: BTreeSet<u64>,
    /// The last number given.
    pub last: SeqNo,
    /// The last number that the database knew when it was opened; it may be above what was found.
    pub opened_at: SeqNo,
    /// The highest acknowledged number.
    pub acked: SeqNo,
    /// The highest number promised to survive a power loss.
    pub synced: SeqNo,
    /// The highest number known to be visible.
    pub visible: SeqNo,
    /// Faults may have fired since the database was opened.
    pub faulty: bool,
    /// Damage hit what all tenants share: its rotten tail looks like a torn one, and so the last tenants
    /// may be missing, and the last that were dropped may be there.
    pub shared_hit: bool,
}

impl Model {
    /// A name's new life, about to be created. Returns its index.
    pub fn begin_create(&mut self, tenant: usize) -> usize {
        let lives = self.lives(tenant).count();
        self.by_name.entry(tenant).or_default().push(self.incs.len());
        self.incs.push(Incarnation {
            tenant,
            number: u32::try_from(lives).unwrap_or(u32::MAX),
            branch: None,
            create: Known::UnderWay,
            drop: Known::Not,
            fork: None,
            keys: BTreeMap::new(),
        });
        self.incs.len() - 1
    }

    /// A name's new life, about to be forked from this one. Returns its index.
    pub fn begin_fork(&mut self, number: usize, parent: usize) -> usize {
        let index = self.begin_create(number);
        if let Some(inc) = self.incs.get_mut(index) {
            inc.fork = Some(ForkOf { parent, seq: None });
        }
        index
    }

    /// A fork was acknowledged: it is durable, with everything up to its number.
    pub fn forked(&mut self, index: usize, branch: u64, seq: SeqNo) {
        self.inherit(index, seq);
        self.end_create(index, Some(branch));
        // Behind a recovery it may be a number that the recovery left out.
        self.last = self.last.max(seq);
        self.acked = self.acked.max(seq);
        self.visible = self.visible.max(seq);
        self.promised(seq);
    }

    /// A fork turned out to begin with its parent's writes up to a number. It has no write of its own
    /// yet.
    pub fn inherit(&mut self, index: usize, seq: SeqNo) {
        let fork = self.incs.get(index).and_then(|inc| inc.fork);
        let parent = fork.and_then(|fork| self.incs.get(fork.parent));
        let mut keys = parent.map(|parent| parent.keys.clone()).unwrap_or_default();
        for history in keys.values_mut() {
            history.retain(|placed| placed.seq <= seq);
        }
        keys.retain(|_, history| !history.is_empty());
        if let Some(inc) = self.incs.get_mut(index)
            && let Some(fork) = &mut inc.fork
        {
            fork.seq = Some(seq);
            inc.keys = keys;
        }
    }

    /// The life at the root of a fork's ancestors.
    pub fn root_of(&self, mut index: usize) -> usize {
        // A parent's index is below its child's.
        while let Some(fork) = self.incs.get(index).and_then(|inc| inc.fork) {
            index = fork.parent;
        }
        index
    }

    /// Numbers of all names that ever were, in order.
    pub fn names(&self) -> impl Iterator<Item = usize> + '_ {
        self.by_name.keys().copied()
    }

    /// The lives of a name with their indices, oldest first.
    pub fn lives(&self, name: usize) -> impl DoubleEndedIterator<Item = (usize, &Incarnation)> {
        let indices = self.by_name.get(&name).map_or(&[][..], Vec::as_slice);
        indices.iter().filter_map(|index| Some((*index, self.incs.get(*index)?)))
    }

    /// The life of these numbers, of a name and of its lives.
    pub fn life(&self, tenant: usize, number: u32) -> Option<usize> {
        self.lives(tenant).find(|(_, inc)| inc.number == number).map(|(index, _)| index)
    }

    /// The last life of a name.
    pub fn last_life(&self, number: usize) -> Option<usize> {
        self.by_name.get(&number).and_then(|lives| lives.last()).copied()
    }

    /// The lives of a tenant's branches that are being dropped, each with its name's number.
    pub fn being_dropped(&self, tenant: usize) -> Vec<(usize, usize)> {
        let of = |inc: &Incarnation| {
            value::tenant_of(inc.tenant) == tenant && inc.drop == Known::UnderWay
        };
        let lives = self.incs.iter().enumerate().filter(|(_, inc)| of(inc));
        lives.map(|(index, inc)| (inc.tenant, index)).collect()
    }

    /// Whether a branch of this tenant is there, or may be.
    pub fn may_have_branches(&self, tenant: usize) -> bool {
        let is_there = |inc: &Incarnation| inc.create != Known::Not && inc.drop != Known::Acked;
        self.incs.iter().any(|inc| value::tenant_of(inc.tenant) == tenant && is_there(inc))
    }

    /// A create was answered.
    pub fn end_create(&mut self, inc: usize, branch: Option<u64>) {
        if let Some(inc) = self.incs.get_mut(inc) {
            inc.branch = branch;
            inc.create = if branch.is_some() { Known::Acked } else { Known::Failed };
        }
    }

    /// A create was refused, and changed nothing.
    pub fn refuse_create(&mut self, inc: usize) {
        if let Some(inc) = self.incs.get_mut(inc) {
            inc.create = Known::Not;
        }
    }

    /// A drop was asked for or answered.
    pub fn set_drop(&mut self, inc: usize, known: Known) {
        if let Some(inc) = self.incs.get_mut(inc) {
            inc.drop = known;
        }
    }

    /// A batch is about to be written. Returns its tag.
    pub fn begin_write(&mut self, ops: Vec<Wanted>, sync: bool) -> u64 {
        self.batches.push(Batch {
            ops,
            sync,
            known: Known::UnderWay,
            first: 0,
            last: 0,
            acked_at: 0,
            seen: false,
        });
        to_u64(self.batches.len())
    }

    /// The batch of a tag.
    pub fn batch(&self, tag: u64) -> Option<&Batch> {
        self.batches.get(to_usize(tag.checked_sub(1)?))
    }

    pub(crate) fn batch_mut(&mut self, tag: u64) -> Option<&mut Batch> {
        self.batches.get_mut(to_usize(tag.checked_sub(1)?))
    }

    /// The engine gave a batch its numbers.
    pub fn sequenced(&mut self, tag: u64, first: SeqNo, count: u64) {
        let last = first.saturating_add(count).saturating_sub(1);
        self.last = self.last.max(last);
        let Some(batch) = self.batch_mut(tag) else { return };
        (batch.first, batch.last) = (first, last);
        let ops = batch.ops.clone();
        for (index, (seq, op)) in (first..).zip(ops).enumerate() {
            let placed = Placed { seq, op: op_number(tag, index), put: op.put, tag };
            if let Some(inc) = self.incs.get_mut(op.inc) {
                inc.keys.entry(op.key).or_default().push(placed);
            }
        }
    }

    /// A batch was acknowledged.
    pub fn acked(&mut self, tag: u64, now: Nanos) {
        let Some(batch) = self.batch_mut(tag) else { return };
        batch.known = Known::Acked;
        batch.acked_at = now;
        let (last, sync) = (batch.last, batch.sync);
        self.acked = self.acked.max(last);
        self.visible = self.visible.max(last);
        if sync {
            self.synced = self.synced.max(last);
        }
    }

    /// A batch was answered with an error. Returns whether a read had seen it.
    pub fn failed(&mut self, tag: u64) -> bool {
        let Some(batch) = self.batch_mut(tag) else { return false };
        batch.known = Known::Failed;
        batch.seen
    }

    /// Everything up to `seq` was promised to survive a power loss.
    pub fn promised(&mut self, seq: SeqNo) {
        self.synced = self.synced.max(seq);
    }

    /// Whether a prefix that covers this write must contain it.
    pub fn is_definite(&self, placed: &Placed) -> bool {
        match self.batch(placed.tag).map_or(Known::Acked, |batch| batch.known) {
            Known::Acked => true,
            Known::UnderWay => !self.faulty,
            Known::Failed | Known::Not => false,
        }
    }

    /// The history of a key.
    pub fn history(&self, inc: usize, key: u32) -> &[Placed] {
        self.incs.get(inc).and_then(|inc| inc.keys.get(&key)).map_or(&[], Vec::as_slice)
    }

    /// The numbers of every key that any life of a name ever had.
    pub fn keys_of(&self, tenant: usize) -> BTreeSet<u32> {
        let lives = self.lives(tenant);
        lives.flat_map(|(_, inc)| inc.keys.keys().copied()).collect()
    }

    /// A batch's range, where it has numbers, for every batch still in the order.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, &Batch)> + '_ {
        (1..).zip(&self.batches).filter(|(_, batch)| batch.last > 0)
    }

    /// One write in words.
    pub fn describe(&self, placed: &Placed) -> String {
        let Some(batch) = self.batch(placed.tag) else { return format!("seq {}", placed.seq) };
        let kind = if placed.put { "put" } else { "delete" };
        let sync = if batch.sync { "sync" } else { "flushed" };
        let known = match batch.known {
            Known::Acked => format!("acked at vt {}", seconds(batch.acked_at)),
            Known::UnderWay => "not answered".to_owned(),
            Known::Failed => "answered with an error".to_owned(),
            Known::Not => "left out by a recovery".to_owned(),
        };
        let of = if batch.ops.len() > 1 {
            format!(" of a batch {}..={}", batch.first, batch.last)
        } else {
            String::new()
        };
        format!("{kind} seq {}{of} {sync}, {known}", placed.seq)
    }

    /// Forgets what a recovery left out: numbers above `upto`, and these failed batches. What is left
    /// is durable.
    pub(crate) fn settle(&mut self, upto: SeqNo, came_back: &BTreeSet<u64>) {
        let mut out = BTreeSet::new();
        for (tag, batch) in (1_u64..).zip(&mut self.batches) {
            if batch.known == Known::Not || batch.last == 0 {
                batch.known = Known::Not;
                continue;
            }
            let unknown =
                batch.known == Known::Failed || (batch.known == Known::UnderWay && self.faulty);
            let is_in = if unknown { came_back.contains(&tag) } else { batch.last <= upto };
            if is_in {
                batch.known = Known::Acked;
            } else {
                batch.known = Known::Not;
                batch.last = 0;
                out.insert(tag);
            }
        }
        for inc in &mut self.incs {
            for history in inc.keys.values_mut() {
                history.retain(|placed| {
                    let gone = out.contains(&placed.tag);
                    if gone {
                        self.lost.insert(placed.op);
                    }
                    !gone
                });
            }
        }
        self.last = upto;
        self.acked = upto;
        self.synced = upto;
        self.visible = upto;
    }
}

/// Virtual time in words.
pub fn seconds(ns: Nanos) -> String {
    let (s, us) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000).div_euclid(1000));
    format!("{s}.{us:06}")
}

/// The name of an incarnation's tenant.
pub fn name_of(model: &Model, inc: usize) -> String {
    model.incs.get(inc).map_or_else(String::new, |inc| value::tenant_name(inc.tenant))
}
