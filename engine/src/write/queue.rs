//! The commit queue's leader: sequence numbers, log, memtables, publish, acknowledge.
//!
//! One group at a time, in order, so that visibility is a prefix of the order of writes. A group is
//! published only after its append, any sync that a member asks for, and its insert. Where its
//! append or its sync fails, nothing of it is published, and the log goes on in the next segment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::env::{Env, Site, Work as CpuWork};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::group::Work;
use crate::memtable::{Left, Memtable};
use crate::policy::view::ChangeKind;
use crate::pressure::Victims;
use crate::shared::{Barrier, Request, Shared};
use crate::types::{SEQ_MAX, SeqNo, TreeId, to_u64};
use crate::version::tree::{Tree, TreeView};
use crate::wal::writer::{Mark, SegmentWriter};
use crate::wal::{encode_batch_header, encode_entry};

use super::{log_limit, relog, segments, stalls};

const GROUP_REQUESTS_MAX: usize = 128;
const GROUP_BYTES_MAX: usize = 1 << 20;

/// Puts a request in the queue and waits for its answer.
pub(crate) async fn submit<E: Env>(shared: &Shared<E>, request: Request) -> Result<SeqNo> {
    shared.commits.submit(request, &Leader { shared }).await
}

/// Makes everything acknowledged up to `seq` durable.
///
/// # Errors
///
/// The world's, where neither this segment nor the next one could be synced.
pub(crate) async fn sync_through<E: Env>(shared: &Shared<E>, seq: SeqNo) -> Result<()> {
    if shared.synced.load(Ordering::Acquire) >= seq {
        return Ok(());
    }
    match submit(shared, Request::Sync).await {
        // The next segment may have made durable what this one failed to.
        Err(_) if shared.synced.load(Ordering::Acquire) >= seq => Ok(()),
        other => other.map(|_| ()),
    }
}

struct Leader<'a, E: Env> {
    shared: &'a Shared<E>,
}

/// The segment writer while a leader has it; put back when dropped. What was appended and is not
/// published then is void: its group is told that it failed.
struct Taken<'a, E: Env> {
    shared: &'a Shared<E>,
    writer: Option<SegmentWriter<E>>,
    unpublished: Option<Mark>,
}

impl<E: Env> Drop for Taken<'_, E> {
    fn drop(&mut self) {
        if let (Some(writer), Some(mark)) = (&mut self.writer, self.unpublished) {
            writer.void_behind(mark);
        }
        *self.shared.wal.lock() = self.writer.take();
    }
}

impl<E: Env> Work for Leader<'_, E> {
    type Item = Request;
    type Reply = Result<SeqNo>;

    fn joins(&self, group: &[Request], next: &Request) -> bool {
        let is_write = |r: &Request| matches!(r, Request::Write { .. } | Request::Sync);
        let bytes = |r: &Request| match r {
            Request::Write { ops, .. } => ops.iter().map(|(_, op)| op.data.len()).sum(),
            Request::Seal { .. }
            | Request::Relog
            | Request::Raise(_)
            | Request::Sync
            | Request::Barrier(_)
            | Request::Drop(_)
            | Request::Close => 0_usize,
        };
        group.len() < GROUP_REQUESTS_MAX
            && group.first().is_some_and(is_write)
            && is_write(next)
            && group.iter().map(bytes).sum::<usize>() < GROUP_BYTES_MAX
    }

    async fn run(&self, items: &mut Vec<Request>) -> Vec<Result<SeqNo>> {
        release_dropped(self.shared);
        match items.first_mut() {
            Some(Request::Seal { trees, overridden, pack }) => {
                if *overridden {
                    for tree in trees {
                        self.shared.counters.policy_override_count.add(1);
                        self.shared.emit(&Event::PolicyOverride { tree: tree.id });
                        seal(self.shared, core::slice::from_ref(tree), *pack);
                    }
                } else {
                    seal(self.shared, trees, *pack);
                }
                vec![Ok(self.shared.visible_seq())]
            }
            Some(Request::Barrier(barrier)) => vec![self.barrier(barrier)],
            Some(Request::Drop(branch)) => {
                let reply = if branch.is_dropped() {
                    Err(Error::Dropped)
                } else {
                    branch.set_dropped(true);
                    Ok(self.shared.visible_seq())
                };
                vec![reply]
            }
            Some(Request::Relog) => vec![self.relog().await],
            Some(Request::Raise(seq)) => vec![self.raise(*seq).await],
            Some(Request::Close) => vec![self.close().await],
            Some(Request::Write { .. } | Request::Sync) | None => {
                let mut replies = Vec::with_capacity(items.len());
                if let Err(error) = self.commit(items, &mut replies).await {
                    return items.iter().map(|_| Err(error.clone())).collect();
                }
                replies
            }
        }
    }

    fn abandoned(&self) -> Result<SeqNo> {
        Err(Error::Interrupted)
    }
}

impl<E: Env> Leader<'_, E> {
    async fn commit(&self, items: &mut [Request], replies: &mut Vec<Result<SeqNo>>) -> Result<()> {
        let shared = self.shared;
        if let Some(cause) = &*shared.read_only.lock() {
            return Err(Error::ReadOnly(Arc::clone(cause)));
        }
        let mut taken = Taken { shared, writer: shared.wal.lock().take(), unpublished: None };
        let Some(writer) = &mut taken.writer else { return Err(Error::Closed) };
        if writer.has_ended() || writer.valid_bytes() >= shared.options.wal_segment_bytes {
            self.roll(writer).await?;
        }
        let (records, given) = self.encode(items, replies);
        // Numbers of a group that failed are in no log: a group without writes must not publish
        // them, since a fork at one of them would begin behind the end of the log.
        let last_seq = if records.is_empty() { shared.visible_seq() } else { given };
        let sync = items.iter().any(owes_sync);
        taken.unpublished = Some(writer.mark());
        let log_before = shared.log.bytes();
        if let Err(error) = self.log(writer, (&records, last_seq), sync).await {
            segments::leave_failed(shared, writer, &error).await;
            // Of the next segment nothing is to be taken back, and of this one nothing counts.
            taken.unpublished = None;
            return Err(error);
        }
        let segment = writer.segment();
        shared.env.yield_point(Site("commit-insert")).await;
        let full = self.insert(items, replies, segment);
        shared.published.store(last_seq, Ordering::Release);
        taken.unpublished = None;
        drop(taken);
        seal(shared, &full, false);
        ask_flush_policy(shared);
        look_after_waiting(shared, log_before);
        let unsynced = shared.synced.load(Ordering::Relaxed) < last_seq;
        if shared.options.sync_interval_ns > 0
            && unsynced
            && !shared.sync_due.swap(true, Ordering::AcqRel)
        {
            shared.tick.raise();
        }
        Ok(())
    }

    /// Appends a group's records, and syncs where a member asks for it.
    async fn log(
        &self,
        writer: &mut SegmentWriter<E>,
        (records, last_seq): (&[Vec<u8>], SeqNo),
        sync: bool,
    ) -> Result<()> {
        let shared = self.shared;
        if !records.is_empty() {
            let bytes = writer.append(records, last_seq).await?;
            shared.counters.wal_bytes.add(bytes);
            shared.log.grow(writer.segment(), bytes);
            shared.counters.wal_retained_bytes_max.raise_to(shared.log.bytes());
        }
        if sync { self.sync(writer).await } else { Ok(()) }
    }

    /// Appends entries of some trees that are to be re-logged, and syncs them: then their old
    /// segments need not be there.
    async fn relog(&self) -> Result<SeqNo> {
        let shared = self.shared;
        if let Some(cause) = &*shared.read_only.lock() {
            return Err(Error::ReadOnly(Arc::clone(cause)));
        }
        // Nothing of it is void where this leader is dropped: it says what was there before.
        let mut taken = Taken { shared, writer: shared.wal.lock().take(), unpublished: None };
        let Some(writer) = &mut taken.writer else { return Err(Error::Closed) };
        // A full one takes what little there is: else re-logging would fill the log by itself, roll
        // it, and so find more to re-log without end.
        if writer.has_ended() {
            self.roll(writer).await?;
        }
        let step = relog::gather(shared, writer);
        let before = writer.valid_bytes();
        if let Err(error) = self.log(writer, (&step.records, 0), true).await {
            segments::leave_failed(shared, writer, &error).await;
            return Err(error);
        }
        shared.counters.relog_bytes.add(writer.valid_bytes() - before);
        relog::release(shared, &step, writer.segment());
        Ok(shared.visible_seq())
    }

    /// Makes the log reach a number: a segment begins that says so, and the number is given.
    async fn raise(&self, seq: SeqNo) -> Result<SeqNo> {
        let shared = self.shared;
        if let Some(cause) = &*shared.read_only.lock() {
            return Err(Error::ReadOnly(Arc::clone(cause)));
        }
        let mut taken = Taken { shared, writer: shared.wal.lock().take(), unpublished: None };
        let Some(writer) = &mut taken.writer else { return Err(Error::Closed) };
        if seq > shared.visible_seq() {
            // Numbers of failed groups may be above it.
            shared.next_seq.fetch_max(seq + 1, Ordering::Relaxed);
            self.end_segment(writer).await?;
            segments::begin_next(shared, writer, seq).await?;
            // Not before the log says so: a flush or a fork at that number needs it.
            shared.published.fetch_max(seq, Ordering::AcqRel);
        } else if writer.has_ended() {
            self.roll(writer).await?;
        } else if let Err(error) = self.sync(writer).await {
            segments::leave_failed(shared, writer, &error).await;
            return Err(error);
        }
        Ok(shared.visible_seq())
    }

    fn barrier(&self, barrier: &mut Barrier) -> Result<SeqNo> {
        let shared = self.shared;
        if let Some(cause) = &*shared.read_only.lock() {
            return Err(Error::ReadOnly(Arc::clone(cause)));
        }
        if shared.wal.lock().is_none() {
            return Err(Error::Closed);
        }
        barrier.run()
    }

    /// Syncs and gives the log up: whoever comes later gets `Closed`.
    async fn close(&self) -> Result<SeqNo> {
        let shared = self.shared;
        let Some(mut writer) = shared.wal.lock().take() else { return Err(Error::Closed) };
        if let Some(cause) = &*shared.read_only.lock() {
            // Who was told that it is read-only has lost nothing where all is durable.
            let failed = Error::ReadOnly(Arc::clone(cause));
            return if shared.is_log_durable() { Ok(shared.visible_seq()) } else { Err(failed) };
        }
        if writer.has_failed() || self.sync(&mut writer).await.is_err() {
            // Nothing of it may be lost that the next segment can still carry.
            segments::begin_next(shared, &mut writer, shared.visible_seq()).await?;
        }
        Ok(shared.visible_seq())
    }

    /// Gives numbers and encodes; answers members that are refused.
    fn encode(&self, items: &[Request], replies: &mut Vec<Result<SeqNo>>) -> (Vec<Vec<u8>>, SeqNo) {
        let shared = self.shared;
        let mut next = shared.next_seq.load(Ordering::Relaxed);
        let mut records = Vec::with_capacity(items.len());
        for item in items {
            let Request::Write { ops, tag, .. } = item else {
                replies.push(Ok(shared.visible_seq()));
                continue;
            };
            if ops.iter().any(|(branch, _)| branch.is_dropped()) {
                replies.push(Err(Error::Dropped));
                continue;
            }
            let count = to_u64(ops.len());
            if SEQ_MAX.saturating_sub(next) < count {
                let what = "no sequence numbers are left".to_owned();
                replies.push(Err(Error::InvalidArgument(what)));
                continue;
            }
            let mut record = Vec::with_capacity(ops.iter().map(|(_, op)| op.data.len() + 24).sum());
            encode_batch_header(&mut record, next, count);
            for (branch, op) in ops {
                if let Some((tree, _)) = branch.places.first() {
                    let owner = (tree.id, branch.id);
                    encode_entry(&mut record, owner, op.kind, op.key_bytes, &op.data);
                }
                shared.counters.user_bytes.add(op.user_bytes());
                shared.env.charge(CpuWork::WriteEntry);
            }
            shared.emit(&Event::WriteSequenced { tag: *tag, first_seq: next, entry_count: count });
            next += count;
            replies.push(Ok(next - 1));
            records.push(record);
        }
        // Numbers of a group that fails are not given again: its records may come back.
        shared.next_seq.store(next, Ordering::Relaxed);
        (records, next - 1)
    }

    fn insert(
        &self,
        items: &mut [Request],
        replies: &[Result<SeqNo>],
        segment: u64,
    ) -> Vec<Arc<Tree>> {
        let shared = self.shared;
        let now = shared.env.now();
        let mut full: Vec<Arc<Tree>> = Vec::new();
        for (item, reply) in items.iter_mut().zip(replies) {
            let (Request::Write { ops, reservation, .. }, Ok(last)) = (item, reply) else {
                continue;
            };
            let first = *last + 1 - to_u64(ops.len());
            for (seq, (branch, op)) in (first..).zip(ops.drain(..)) {
                let Some((tree, place)) = branch.places.first() else { continue };
                let (key_bytes, kind) = (op.key_bytes, op.kind);
                let is_shared = place.prefix.is_some();
                // Moved into whichever memtable takes it: a clone would cost an allocation.
                let mut data = Some(op.data);
                let mut insert = |m: &Memtable| {
                    let data = data.take().unwrap_or_default();
                    let bytes = m.insert(data, key_bytes, seq, kind);
                    if is_shared {
                        m.charge_to(branch.id, bytes);
                    }
                    (bytes, m.anchor_segment())
                };
                let (bytes, anchor) = match tree.with_memtable(&mut insert) {
                    Some(done) => done,
                    None => insert(&open_memtable(shared, tree, segment)),
                };
                reservation.charge(bytes);
                if shared.pressure.on_write(tree, bytes, now, anchor)
                    && !full.iter().any(|t| t.id == tree.id)
                {
                    full.push(Arc::clone(tree));
                }
            }
        }
        full
    }

    async fn sync(&self, writer: &mut SegmentWriter<E>) -> Result<()> {
        writer.sync().await?;
        self.shared.counters.wal_sync_count.add(1);
        self.shared.synced.fetch_max(writer.synced_seq(), Ordering::AcqRel);
        Ok(())
    }

    /// Ends the newest segment and begins the next one.
    async fn roll(&self, writer: &mut SegmentWriter<E>) -> Result<()> {
        let shared = self.shared;
        self.end_segment(writer).await?;
        if writer.has_failed() {
            segments::retry_failed(shared, writer).await?;
        } else {
            segments::begin_next(shared, writer, shared.visible_seq()).await?;
        }
        seal(shared, &log_limit::victims(shared, true), false);
        Ok(())
    }

    /// Makes the newest segment durable where it takes records still.
    async fn end_segment(&self, writer: &mut SegmentWriter<E>) -> Result<()> {
        let shared = self.shared;
        if !writer.has_ended()
            && let Err(error) = self.sync(writer).await
        {
            segments::leave_failed(shared, writer, &error).await;
            return Err(error);
        }
        Ok(())
    }
}

/// Whether a group with this member is synced before it is acknowledged.
fn owes_sync(request: &Request) -> bool {
    match request {
        Request::Write { sync, .. } => *sync,
        Request::Sync => true,
        Request::Seal { .. }
        | Request::Relog
        | Request::Raise(_)
        | Request::Barrier(_)
        | Request::Drop(_)
        | Request::Close => false,
    }
}

/// Gives back what dropped trees held in memory and in the log. Only the queue's leader moves
/// memtables, so that no seal runs at the same time.
fn release_dropped<E: Env>(shared: &Shared<E>) {
    let trees = core::mem::take(&mut *shared.dropped.lock());
    for tree in trees {
        let mut gone = TreeView::default();
        // The version goes too: its tables are free once no scan holds them.
        tree.change(|view| {
            let immutables = view.immutables.clone();
            gone = core::mem::replace(view, TreeView { immutables, ..TreeView::default() });
        });
        let unneeded = leave_immutables(&tree, &gone);
        shared.set.leave_beside(&tree);
        let keeps_flushes = tree.oldest_immutable().is_some();
        // Under the policy's lock: who schedules a compaction has seen the drop or comes before it.
        let mut policy = shared.compaction_policy.lock();
        shared.jobs.remove_tree(tree.id, keeps_flushes);
        policy.forget(tree.id);
        drop(policy);
        shared.pressure.remove_tree(&tree);
        for (memtable, holders) in unneeded {
            for holder in &shared.set.owners(&holders).1 {
                holder.change(|view| view.immutables.retain(|m| !Arc::ptr_eq(m, &memtable)));
                shared.set.leave_beside(holder);
            }
            shared.log.unpin(memtable.anchor_segment());
            shared.budget.release_immutable(memtable.bytes());
        }
        shared.budget.release_history(gone.history.iter().map(|m| m.bytes()).sum());
        if let Some(memtable) = &gone.memtable {
            shared.log.unpin(memtable.anchor_segment());
            shared.budget.release_mutable(memtable.bytes());
        }
        tree.released.raise();
        // Whoever waits for a job of the tree, or for none to be left.
        shared.job_ended.raise();
    }
}

/// Memtables with the trees that have them in their view.
type Held = Vec<(Arc<Memtable>, Vec<TreeId>)>;

/// A tree that was dropped leaves its immutable memtables: those that nobody needs any more, with
/// the trees beside the set that have them in their view. It keeps those that others need.
fn leave_immutables(tree: &Tree, view: &TreeView) -> Held {
    let mut unneeded = Vec::new();
    for memtable in &view.immutables {
        match memtable.leave(tree.id) {
            Left::Needed => continue,
            Left::Unneeded(holders) => unneeded.push((Arc::clone(memtable), holders)),
            Left::Released => {}
        }
        tree.change(|view| view.immutables.retain(|m| !Arc::ptr_eq(m, memtable)));
    }
    unneeded
}

fn open_memtable<E: Env>(shared: &Shared<E>, tree: &Tree, segment: u64) -> Arc<Memtable> {
    let memtable = Arc::new(Memtable::new(shared.env.now(), segment).of_tree(tree.id));
    shared.log.pin(segment);
    tree.change(|view| view.memtable = Some(Arc::clone(&memtable)));
    memtable
}

/// The trees' memtables become immutable and wait for their flushes, into one file where `pack` is
/// true; an empty one seals nothing. Only the queue's leader may call this.
pub(super) fn seal<E: Env>(shared: &Shared<E>, trees: &[Arc<Tree>], pack: bool) {
    let mut flushes = Vec::new();
    for tree in trees {
        let mut sealed = None;
        tree.change(|view| {
            if let Some(memtable) = view.memtable.take() {
                let bytes = memtable.bytes();
                if let Some(leader) = memtable.leading_branch() {
                    tree.last_leader.store(leader.0, Ordering::Relaxed);
                }
                view.immutables.insert(0, memtable);
                sealed = Some((bytes, view.trim_history(shared.options.memtable_history_bytes)));
            }
        });
        if let Some((bytes, trimmed_bytes)) = sealed {
            shared.budget.seal(bytes);
            shared.budget.release_history(trimmed_bytes);
            shared.pressure.on_seal(tree, shared.env.now());
            shared.emit(&Event::Sealed { tree: tree.id, bytes });
            stalls::observe(shared, tree, ChangeKind::Sealed { bytes });
            flushes.push((Arc::clone(tree), bytes));
        }
    }
    // At once: a worker that looked in between would not see which of them it can flush together.
    shared.jobs.add_flushes(&flushes, pack);
}

/// Asks the flush policy and seals whom it names. Only the queue's leader may call this.
fn ask_flush_policy<E: Env>(shared: &Shared<E>) {
    let victims = victims(shared);
    seal(shared, &victims.flush, false);
    seal(shared, &victims.pack, true);
}

/// What a group that was written brings about beside the flush policy's choice. `log_before`: bytes
/// of the log before it was appended. Only the queue's leader may call this.
fn look_after_waiting<E: Env>(shared: &Shared<E>, log_before: u64) {
    // Above the limit already, the answer changes only with a flush or a segment.
    if log_before <= shared.options.wal_limit_bytes() {
        seal(shared, &log_limit::victims(shared, false), false);
    }
    // A writer may have begun to wait while nothing could be flushed, as all was reserved.
    if shared.budget.has_waiters() && shared.jobs.flush_count() == 0 {
        shared.budget.wake_first();
    }
}

/// Seals the next ones of those that pin the log above its limit.
pub(crate) async fn seal_pinning<E: Env>(shared: &Shared<E>) {
    seal_trees(shared, log_limit::victims(shared, false), false).await;
}

/// As [`seal_pinning`], where the open has just ended a segment.
pub(crate) async fn seal_pinning_at_open<E: Env>(shared: &Shared<E>) {
    seal_trees(shared, log_limit::victims(shared, true), false).await;
}

async fn seal_trees<E: Env>(shared: &Shared<E>, trees: Vec<Arc<Tree>>, pack: bool) {
    if !trees.is_empty() {
        // Where the queue refuses, the database closes or is read-only: nothing is to be sealed.
        drop(submit(shared, Request::Seal { trees, overridden: false, pack }).await);
    }
}

/// Seals whom the flush policy names now.
pub(crate) async fn seal_victims<E: Env>(shared: &Shared<E>) {
    let victims = victims(shared);
    seal_trees(shared, victims.flush, false).await;
    seal_trees(shared, victims.pack, true).await;
}

/// Whom the flush policy names now.
fn victims<E: Env>(shared: &Shared<E>) -> Victims {
    let wal = (shared.log.bytes(), shared.log.oldest());
    let jobs = shared.jobs.flush_job_count(shared.options.pack_target_bytes());
    let victims = shared.pressure.decide(shared.env.now(), &shared.budget, wal, jobs);
    if victims.looked > 0 {
        shared.env.charge(CpuWork::Decide(victims.looked));
        shared.tick.raise();
    }
    victims
}
