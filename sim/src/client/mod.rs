//! Clients: they do what a scenario says, tell the model what they asked and were told, and judge every
//! answer at once.
//!
//! A client is a task of the simulated process and dies with it. Everything clients share is a [`Board`]
//! behind a lock that is never held across an await.

mod fork;
mod import;
mod query;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use forebay_engine::env::Env;
use forebay_engine::events::{Event, Listener};
use forebay_engine::options::TenantOptions;
use forebay_engine::types::{Nanos, SeqNo, TableId};
use forebay_engine::{Db, Error, Snapshot, Tenant, WriteBatch, WriteOptions};

use crate::bugs::Bug;
use crate::check::fairness::{is_hot, l3_cold_write};
use crate::check::full_disk::{is_read, l4_read};
use crate::check::liveness::DEADLINE_NS;
use crate::check::log_failure::l5_told;
use crate::check::model::{Batch, Known, Model, Placed, Wanted};
use crate::check::reads::{Window, c8_failed_unseen, c8_get};
use crate::check::recovery::c3_invention;
use crate::check::value::{self, Origin, key_bytes, op_number, tenant_name};
use crate::check::{Checked, Rule, RuleCounts, Violation, broken};
use crate::diary::What;
use crate::env::SimEnv;
use crate::marks::{self, UnderWay};
use crate::scenario::{KeyEnd, Keys, Op, Write};
use crate::sometimes;

/// Snapshots that one client keeps.
const SNAPSHOTS_MAX: usize = 3;

/// A tenant as clients reach it.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Which life of the name.
    pub inc: usize,
    /// The engine's handle.
    pub tenant: Tenant<SimEnv>,
}

/// What clients share.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not the states of one thing")]
pub struct Board {
    /// What was promised.
    pub model: Model,
    /// Tenants that exist, by number of the name.
    pub handles: BTreeMap<usize, Handle>,
    /// Names that are being created.
    busy: BTreeSet<usize>,
    /// Tenants of which a branch is being dropped, or all.
    dropping: BTreeSet<usize>,
    /// Of those, the tenants that are dropped with all their branches, and how often that was done.
    dropping_all: BTreeSet<usize>,
    dropped_all: BTreeMap<usize, u64>,
    /// How often each rule was asked.
    pub counts: RuleCounts,
    /// The first broken rule.
    pub violation: Option<Box<Violation>>,
    /// Errors that need a fault as their cause: what was done, to which tree, and the error.
    pub errors: Vec<(String, Option<u64>, Error)>,
    /// Tables that flushes made, with their trees, of which the atlas was not told yet.
    pub tables: Vec<(TableId, u64, u64)>,
    /// The database takes no writes, or a part of it, until it is opened again.
    pub reopen: bool,
    /// The disk is made full, or was a moment ago.
    pub may_be_full: bool,
    /// The database says that the disk is full.
    pub is_full: bool,
    /// The harness closes the database while clients work.
    pub closing: bool,
    /// What callers and listeners were told of errors, and when; since it was last held against the
    /// world's ledger.
    pub told: Vec<(Nanos, String)>,
    /// Writes that were under way in a segment which failed.
    doomed: BTreeSet<u64>,
    /// Writes of the phase by tenant.
    pub writes: BTreeMap<usize, u64>,
    /// Tenants may have extractors of their own.
    pub own_extractors: bool,
    /// How often a tenant was to come in from another directory.
    pub imports: u64,
    /// What clients wait for, by client.
    pub waiting: BTreeMap<usize, String>,
    /// Operations that were answered.
    pub ops: u64,
    /// What the process is in the middle of.
    pub under_way: UnderWay,
    /// Rare things that happened.
    pub marks: BTreeMap<&'static str, u64>,
}

impl Board {
    /// Counts a rare thing.
    pub fn mark(&mut self, name: &'static str) {
        debug_assert!(marks::is_known(name), "no mark is called {name}");
        *self.marks.entry(name).or_default() += 1;
    }

    fn keep(&mut self, checked: Checked, now: Nanos) {
        if let Err(violation) = checked {
            self.violation.get_or_insert_with(|| Box::new(violation.at(now)));
        }
    }

    fn stops(&self) -> bool {
        self.violation.is_some() || self.reopen || self.closing
    }

    /// The process died: nobody waits, nothing is busy, errors told nobody.
    pub fn forget_process(&mut self) {
        self.under_way = UnderWay::default();
        self.busy.clear();
        self.dropping.clear();
        self.dropping_all.clear();
        self.waiting.clear();
        self.errors.clear();
        self.reopen = false;
        self.is_full = false;
        self.closing = false;
        self.told.clear();
        self.doomed.clear();
    }

    /// Counts a write of a phase; says whether another tenant than this one is hot.
    fn count_write(&mut self, tenant: usize) -> bool {
        *self.writes.entry(tenant).or_default() += 1;
        let all = self.writes.values().sum();
        self.writes.iter().any(|(other, n)| *other != tenant && is_hot(*n, all))
    }

    /// A segment failed: writes above what was published are to be answered with errors.
    fn doom(&mut self, published: SeqNo) {
        let is_doomed = |batch: &Batch| batch.known == Known::UnderWay && batch.first > published;
        let tags = self.model.ranges().filter(|(_, batch)| is_doomed(batch)).map(|(tag, _)| tag);
        self.doomed = tags.collect();
    }

    /// L5 for an answer to a write.
    fn answered(&mut self, tag: u64, is_acked: bool, now: Nanos) {
        if self.doomed.remove(&tag) {
            let range = self.model.batch(tag).map_or((0, 0), |batch| (batch.first, batch.last));
            let checked = l5_told(&mut self.counts, is_acked, range);
            self.keep(checked, now);
        }
    }

    /// The process dies: counts what it was in the middle of.
    pub fn crashes(&mut self) {
        for met in self.under_way.crash() {
            self.mark(met);
        }
        let is_fork = |number: &usize| value::tenant_of(*number) != *number;
        let forks = self.busy.iter().any(is_fork);
        let creates = self.busy.iter().any(|number| !is_fork(number));
        let drops = !self.dropping.is_empty();
        sometimes!(self, "crash-in-fork", forks);
        sometimes!(self, "crash-in-create", creates);
        sometimes!(self, "crash-in-drop", drops);
    }

    /// What waits, in one line.
    pub fn waits(&self) -> String {
        let all: Vec<String> = self.waiting.values().cloned().collect();
        all.join("; ")
    }
}

/// The board, shared by clients, the listener and the harness.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Board>>);

impl Shared {
    /// Locks the board.
    pub fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Shared {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a listener takes what it knows")]
    fn event(&self, now: Nanos, event: &Event) {
        let mut board = self.lock();
        for met in board.under_way.event(event) {
            board.mark(met);
        }
        match event {
            Event::WriteSequenced { tag, first_seq, entry_count } => {
                board.model.sequenced(*tag, *first_seq, *entry_count);
            }
            Event::FlushEnd { tree, table, .. } => {
                board.mark("flush");
                board.tables.extend(table.map(|(id, bytes)| (id, bytes, tree.0)));
                if table.is_some_and(|(id, _)| id.offset > 0) {
                    board.mark("packed-flush");
                }
            }
            Event::CompactionEnd { .. } => board.mark("compaction"),
            Event::JobFailed { error, .. } => {
                board.mark("job-failed");
                board.told.push((now, error.clone()));
            }
            Event::SegmentLeft { published, error, .. } => {
                board.mark("segment-left");
                board.told.push((now, error.clone()));
                board.doom(*published);
            }
            Event::DiskFull { full, .. } => board.is_full = *full,
            Event::StallBegin { .. } => board.mark("stall"),
            Event::PolicyOverride { .. } => board.mark("policy-override"),
            Event::FileRemoved { .. } => board.mark("file-removed"),
            Event::Relogged { .. } => board.mark("relogged"),
            _ => {}
        }
    }
}

struct Held {
    handle: Handle,
    snapshot: Snapshot<SimEnv>,
}

/// One client.
pub struct Client {
    env: SimEnv,
    db: Db<SimEnv>,
    board: Shared,
    number: usize,
    bug: Option<Bug>,
    snapshots: VecDeque<Held>,
}

impl core::fmt::Debug for Client {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of an open database.
    pub fn new(
        env: SimEnv,
        db: Db<SimEnv>,
        board: Shared,
        number: usize,
        bug: Option<Bug>,
    ) -> Self {
        Self { env, db, board, number, bug, snapshots: VecDeque::new() }
    }

    /// Does operations one after another, until one finds a broken rule or the database must be opened
    /// again.
    pub async fn work(mut self, ops: Vec<Op>) {
        for op in ops {
            {
                let mut board = self.board.lock();
                if board.stops() {
                    break;
                }
                board.waiting.insert(self.number, format!("{op:?}"));
            }
            // Whoever looks at the wall clock meets what is wrong with it.
            self.env.wall();
            self.env.write_down(|| What::Asked { client: self.number, op: op.clone() });
            self.act(&op).await;
            self.env.write_down(|| What::Answered { client: self.number });
            let ops = {
                let mut board = self.board.lock();
                board.ops += 1;
                board.waiting.remove(&self.number);
                board.ops
            };
            self.env.note_progress(ops);
        }
    }

    async fn act(&mut self, op: &Op) {
        match op {
            Op::Write { writes, sync } => self.write(writes, *sync).await,
            Op::Get { tenant, key } => self.get(*tenant, *key).await,
            Op::Scan { tenant, from, to } => self.scan(*tenant, *from, *to).await,
            Op::Snapshot { tenant } => self.snapshot(*tenant),
            Op::Reread { key } => self.reread(*key).await,
            Op::Flush { tenant } => self.flush(*tenant).await,
            Op::Sync => self.sync().await,
            Op::Drop { tenant } => self.drop_branches(*tenant, true).await,
            Op::DropBranch { tenant } => self.drop_branches(*tenant, false).await,
            Op::Fork { tenant, fork, memtable } => {
                self.fork(*tenant, *fork, memtable.as_deref()).await;
            }
            Op::Import { tenant, first, count } => self.import(*tenant, (*first, *count)).await,
            Op::Create { tenant, extractor } => self.create(*tenant, extractor.as_deref()).await,
            Op::Query { tenant, keys, reverse, seek } => {
                self.query((*tenant, *keys), *reverse, *seek).await;
            }
            Op::Compare { tenant, keys, old } => self.compare((*tenant, *keys), *old).await,
            Op::Compact { tenant, keys } => self.compact(*tenant, *keys).await,
            Op::Extractor { tenant, extractor } => {
                self.extractor(*tenant, extractor.as_deref()).await;
            }
            Op::Sleep { ns } => {
                self.env.sleep_until(self.env.now().saturating_add(*ns)).await;
            }
        }
    }

    fn handle(&self, tenant: usize) -> Option<Handle> {
        self.board.lock().handles.get(&tenant).cloned()
    }

    /// Sorts an error: expected here, or in need of a fault as its cause.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other kinds need a fault")]
    fn error(&self, what: &str, error: Error, incs: &[usize]) {
        let client = self.number;
        self.env.write_down(|| What::Refused { client, error: format!("{what}: {error}") });
        let mut board = self.board.lock();
        if self.bug == Some(Bug::DeafClient) && is_read(what) && self.env.is_faulty() {
            return;
        }
        board.told.push((self.env.now(), error.to_string()));
        let dropped =
            |inc: &usize| board.model.incs.get(*inc).is_none_or(|life| life.drop != Known::Not);
        match &error {
            Error::Dropped if incs.iter().any(dropped) => return,
            Error::BatchTooLarge { bytes, bytes_max } if bytes > bytes_max => return,
            Error::Closed if board.closing => return,
            Error::DiskFull { free_bytes, needed_bytes } if free_bytes < needed_bytes => {
                board.mark("disk-full");
                if board.may_be_full && !is_read(what) && what != "drop" {
                    return;
                }
            }
            // A tree that damage took says so for ever; the others go on.
            Error::TreeFailed { .. } if self.env.is_damaged() => board.mark("tree-failed"),
            Error::ReadOnly(_) | Error::TreeFailed { .. } | Error::Closed => board.reopen = true,
            _ => {}
        }
        let of = |inc: &usize| board.handles.values().find(|handle| handle.inc == *inc);
        let tree = match incs {
            [inc] => of(inc).and_then(|handle| handle.tenant.tree_id()).map(|tree| tree.0),
            _ => None,
        };
        board.errors.push((what.to_owned(), tree, error));
    }

    /// Flushes a tenant's tree. Public as [`write`](Self::write) is.
    pub async fn flush(&self, tenant: usize) {
        let Some(handle) = self.handle(tenant) else { return };
        if let Err(error) = handle.tenant.flush().await {
            self.error("flush", error, &[handle.inc]);
        }
    }

    /// Writes a batch. Public so that the harness can ask whether the database takes writes.
    pub async fn write(&self, writes: &[Write], sync: bool) {
        let (tag, batch, incs, single) = self.begin_write(writes, sync);
        if batch.is_empty() {
            return;
        }
        self.env.write_down(|| What::Tagged { client: self.number, tag });
        let options = WriteOptions { sync, tag };
        let tenant = writes.first().map_or(0, |write| write.tenant);
        let is_cold = self.board.lock().count_write(tenant);
        let began = self.env.now();
        if is_cold && self.bug == Some(Bug::ColdWaits) {
            self.env.sleep_until(began.saturating_add(DEADLINE_NS + 1)).await;
        }
        let result = match single {
            Some((tenant, key, Some(value))) => tenant.put(&key, &value, options).await,
            Some((tenant, key, None)) => tenant.delete(&key, options).await,
            None => self.db.write(batch, options).await,
        };
        let now = self.env.now();
        {
            let mut board = self.board.lock();
            if is_cold {
                let took = now.saturating_sub(began);
                let checked = l3_cold_write(&mut board.counts, tenant, took);
                board.keep(checked, now);
            }
            board.answered(tag, result.is_ok(), now);
        }
        match result {
            Ok(seq) => {
                let mut board = self.board.lock();
                board.model.acked(tag, now);
                let last = board.model.batch(tag).map_or(0, |batch| batch.last);
                if seq != last {
                    let promised = format!("the write's last number, {last}");
                    let wrong = Violation::new(Rule::C8, promised, format!("number {seq}"));
                    board.keep(broken(wrong), now);
                }
            }
            Err(error) => {
                {
                    let mut board = self.board.lock();
                    let board = &mut *board;
                    let checked = c8_failed_unseen(&mut board.model, &mut board.counts, tag);
                    board.keep(checked, now);
                    board.mark("write-failed");
                }
                self.error("write", error, &incs);
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "used once, one line below its name")]
    fn begin_write(
        &self,
        writes: &[Write],
        sync: bool,
    ) -> (u64, WriteBatch, Vec<usize>, Option<(Tenant<SimEnv>, Vec<u8>, Option<Vec<u8>>)>) {
        let mut board = self.board.lock();
        let known: Vec<(Handle, &Write)> = writes
            .iter()
            .filter_map(|write| Some((board.handles.get(&write.tenant)?.clone(), write)))
            .collect();
        let wanted = |(handle, write): &(Handle, &Write)| Wanted {
            inc: handle.inc,
            key: write.key,
            put: write.bytes.is_some(),
        };
        let tag = board.model.begin_write(known.iter().map(wanted).collect(), sync);
        let mut batch = WriteBatch::new();
        let mut single = None;
        for (index, (handle, write)) in known.iter().enumerate() {
            let number = board.model.incs.get(handle.inc).map_or(0, |inc| inc.number);
            let key = key_bytes(write.key);
            let origin = Origin {
                tenant: u32::try_from(write.tenant).unwrap_or(u32::MAX),
                incarnation: number,
                key: write.key,
                op: op_number(tag, index),
            };
            let value = write.bytes.map(|bytes| {
                value::encode(origin, forebay_engine::types::to_usize(u64::from(bytes)))
            });
            let added = match &value {
                Some(value) => handle.tenant.put_in(&mut batch, &key, value),
                None => handle.tenant.delete_in(&mut batch, &key),
            };
            if let Err(error) = added {
                board.errors.push(("batch".to_owned(), None, error));
            }
            single = Some((handle.tenant.clone(), key, value));
        }
        let incs = known.iter().map(|(handle, _)| handle.inc).collect();
        // A single write takes the shorter way through the engine as often as the longer.
        let short = known.len() == 1 && tag & 1 == 0;
        (tag, batch, incs, single.filter(|_| short))
    }

    /// A planted bug: now and then a read goes to another tenant that has one of these keys.
    fn routed(&self, handle: &Handle, keys: Keys) -> Tenant<SimEnv> {
        if self.bug == Some(Bug::CrossTenant) && self.env.choose("bug.cross-tenant", 8) == 7 {
            let board = self.board.lock();
            let has = |other: &&Handle| {
                let life = board.model.incs.get(other.inc).filter(|_| other.inc != handle.inc);
                life.is_some_and(|life| {
                    let newest = |history: &Vec<Placed>| history.last().is_some_and(|p| p.put);
                    life.drop == Known::Not
                        && life
                            .keys
                            .iter()
                            .any(|(key, history)| newest(history) && keys.holds(&key_bytes(*key)))
                })
            };
            // A relative may have the same value, and rightly.
            let is_kin = |other: &Handle| other.tenant.name() == handle.tenant.name();
            if let Some(other) = board.handles.values().filter(|h| !is_kin(h)).find(has) {
                return other.tenant.clone();
            }
        }
        let parent = handle.tenant.fork_point().filter(|_| self.bug == Some(Bug::ForkSeesParent));
        if let Some(point) = parent {
            let board = self.board.lock();
            let mut all = board.handles.values();
            if let Some(found) = all.find(|other| other.tenant.branch_id() == point.parent) {
                return found.tenant.clone();
            }
        }
        handle.tenant.clone()
    }

    async fn get(&self, tenant: usize, key: u32) {
        let Some(handle) = self.handle(tenant) else { return };
        let low = self.board.lock().model.visible;
        let read = self
            .routed(&handle, Keys::Between(KeyEnd::Included(key), KeyEnd::Included(key)))
            .get(&key_bytes(key))
            .await;
        let high = self.board.lock().model.last;
        self.judge_get((handle.inc, key), read, Window { low, high });
    }

    fn judge_get(
        &self,
        (inc, key): (usize, u32),
        read: Result<Option<Bytes>, Error>,
        window: Window,
    ) {
        let found = match read {
            Ok(found) => found,
            Err(error) => return self.error("get", error, &[inc]),
        };
        let now = self.env.now();
        let mut board = self.board.lock();
        let Board { model, counts, is_full, .. } = &mut *board;
        if *is_full {
            l4_read(counts);
        }
        let op = found.map(|bytes| c3_invention(model, counts, (inc, key), &bytes)).transpose();
        let checked = op.and_then(|op| c8_get(model, counts, (inc, key), op, window));
        board.keep(checked, now);
    }

    async fn scan(&self, tenant: usize, from: u32, to: u32) {
        let keys = Keys::Between(KeyEnd::Included(from), KeyEnd::Included(to));
        self.query((tenant, keys), false, None).await;
    }

    fn snapshot(&mut self, tenant: usize) {
        let Some(handle) = self.handle(tenant) else { return };
        let snapshot = handle.tenant.snapshot();
        self.snapshots.push_back(Held { handle, snapshot });
        let gone = self.snapshots.len() > SNAPSHOTS_MAX;
        if gone {
            self.snapshots.pop_front();
        }
        self.board.lock().under_way.snapshots(1, u64::from(gone));
    }

    async fn reread(&self, key: u32) {
        for held in &self.snapshots {
            let seq = held.snapshot.seq();
            let read = held.handle.tenant.get_at(&held.snapshot, &key_bytes(key)).await;
            self.judge_get((held.handle.inc, key), read, Window { low: seq, high: seq });
        }
        let Some(held) = self.snapshots.front() else { return };
        let window = Window { low: held.snapshot.seq(), high: held.snapshot.seq() };
        match held.handle.tenant.scan_at(&held.snapshot, ..) {
            Ok(scan) => {
                let all = drain(scan).await;
                let whole = Keys::Between(KeyEnd::Unbounded, KeyEnd::Unbounded);
                self.judge_scan((held.handle.inc, &|key| whole.holds(key)), (all, false), window);
                self.board.lock().mark("snapshot-reread");
            }
            Err(error) => self.error("scan_at", error, &[held.handle.inc]),
        }
    }

    async fn sync(&self) {
        let acked = self.board.lock().model.acked;
        match self.db.sync().await {
            Ok(()) => self.board.lock().model.promised(acked),
            Err(error) => self.error("sync", error, &[]),
        }
    }

    async fn create(&self, tenant: usize, extractor: Option<&str>) {
        let inc = {
            let mut board = self.board.lock();
            let is_taken = board.handles.keys().any(|number| value::tenant_of(*number) == tenant);
            if is_taken || !board.busy.insert(tenant) {
                return;
            }
            board.model.begin_create(tenant)
        };
        let name = tenant_name(tenant);
        let own = extractor.filter(|_| self.board.lock().own_extractors);
        let own = own.and_then(|name| name.parse().ok());
        let result = match own {
            Some(own) => {
                let options = TenantOptions { prefix_extractor: Some(own) };
                self.db.create_tenant_with(&name, &options).await
            }
            None => self
                .db
                .create_tenants(&[&name])
                .await
                .and_then(|made| made.into_iter().next().ok_or(Error::Dropped)),
        };
        let mut board = self.board.lock();
        board.busy.remove(&tenant);
        let made = match result {
            // It is there, and another client dropped it already.
            Err(Error::Dropped) => None,
            Ok(made) => Some(made),
            // A fork of a `main` that is gone took the name meanwhile.
            Err(Error::TenantExists(_)) if has_forks(&mut board.model, inc) => return,
            Err(error) => {
                board.model.end_create(inc, None);
                drop(board);
                return self.error("create", error, &[]);
            }
        };
        board.model.end_create(inc, made.as_ref().map(|tenant| tenant.branch_id().0));
        if let Some(made) = made {
            board.handles.insert(tenant, Handle { inc, tenant: made });
        }
    }
}

/// Every entry of a scan.
async fn drain(mut scan: forebay_engine::read::Scan<SimEnv>) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let mut all = Vec::new();
    while let Some(entry) = scan.next().await? {
        all.push(entry);
    }
    Ok(all)
}

/// A refused create: says whether forks of the tenant may have the name.
fn has_forks(model: &mut Model, inc: usize) -> bool {
    let Some(tenant) = model.incs.get(inc).map(|inc| inc.tenant) else { return false };
    model.refuse_create(inc);
    let may_have = model.may_have_branches(tenant);
    if !may_have {
        model.end_create(inc, None);
    }
    may_have
}

/// What a reading of one branch found.
#[derive(Debug, Default)]
pub struct TenantBytes {
    /// Its branch.
    pub branch: u64,
    /// Each key's bytes.
    pub values: BTreeMap<u32, Bytes>,
    /// Keys that could not be read since their table is damaged.
    pub unread: BTreeSet<u32>,
    /// Where it was forked: its parent's id, and the number.
    pub fork: Option<(u64, SeqNo)>,
}

/// What a reading of the whole database found.
#[derive(Debug, Default)]
pub struct Everything {
    /// By number of the name.
    pub tenants: BTreeMap<usize, TenantBytes>,
    /// The last visible number.
    pub last: Option<SeqNo>,
}

/// Reads all branches by scan and by get. What damage excuses is left unread.
///
/// # Errors
///
/// C8 where the two differ, C3 for a name or a key that nobody wrote, C2 where a value cannot be read
/// since its table is damaged though nothing damaged it, C7 for any other error.
pub async fn read_everything(
    env: SimEnv,
    db: &Db<SimEnv>,
    keys: BTreeMap<usize, BTreeSet<u32>>,
) -> Checked<Everything> {
    let mut out = Everything::default();
    for name in db.tenants() {
        let (Some(number), Some(tenant)) = (value::name_number(&name), db.branch(&name)) else {
            let found = format!("a tenant named {name:?}");
            return broken(Violation::new(Rule::C3, "tenants that were created", found));
        };
        let known = keys.get(&number).cloned().unwrap_or_default();
        out.last = Some(tenant.snapshot().seq());
        out.tenants.insert(number, read_tenant(env, number, &tenant, known).await?);
    }
    Ok(out)
}

async fn read_tenant(
    env: SimEnv,
    number: usize,
    tenant: &Tenant<SimEnv>,
    mut asked: BTreeSet<u32>,
) -> Checked<TenantBytes> {
    let tree = tenant.tree_id().map(|tree| tree.0);
    let fork = tenant.fork_point().map(|point| (point.parent.0, point.seq));
    if let Some((parent, _)) = fork {
        env.share_tables(tenant.branch_id().0, parent);
    }
    let failed = |key: Option<u32>, error: Error| {
        if env.excuses(&error, tree) {
            return Ok(());
        }
        let lost = crate::check::reads::is_damage(&error) || error.is_not_found();
        let rule = if lost { Rule::C2 } else { Rule::C7 };
        let promised = "what is there can be read: no fault was injected since the crash";
        broken(Violation::new(rule, promised, error.to_string()).of(number, key))
    };
    let mut found = TenantBytes { branch: tenant.branch_id().0, fork, ..TenantBytes::default() };
    let all = match tenant.scan(..) {
        Ok(scan) => drain(scan).await,
        Err(error) => Err(error),
    };
    let scanned = all.is_ok();
    match all {
        Ok(all) => {
            for (text, bytes) in all {
                let Some(key) = value::key_number(&text) else {
                    let found = format!("the key {text:?}");
                    return broken(Violation::new(Rule::C3, "keys that were written", found));
                };
                found.values.insert(key, bytes);
            }
        }
        Err(error) => failed(None, error)?,
    }
    asked.extend(found.values.keys());
    for key in asked {
        match tenant.get(&key_bytes(key)).await {
            Ok(read) if scanned => same_as_scan(&found, (number, key), read.as_ref())?,
            Ok(read) => found.values.extend(read.map(|bytes| (key, bytes))),
            Err(error) => {
                failed(Some(key), error)?;
                if !scanned {
                    found.unread.insert(key);
                }
            }
        }
    }
    Ok(found)
}

fn same_as_scan(found: &TenantBytes, (tenant, key): (usize, u32), read: Option<&Bytes>) -> Checked {
    let scanned = found.values.get(&key);
    if read == scanned {
        return Ok(());
    }
    let words = |found: Option<&Bytes>| match found.map(|b| value::decode(b)) {
        None => "no value".to_owned(),
        Some(origin) => format!("{origin:?}"),
    };
    let promised = format!("a scan gives {}", words(scanned));
    let found = format!("a get gives {}", words(read));
    broken(Violation::new(Rule::C8, promised, found).of(tenant, Some(key)))
}
