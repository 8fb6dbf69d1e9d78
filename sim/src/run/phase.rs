//! A phase: clients work, faults end, what waits ends, and the process ends as the scenario says.

use core::cell::Cell;
use core::future::Future;
use core::pin::pin;
use core::task::Poll;
use std::path::Path;
use std::rc::Rc;

use forebay_engine::Error;
use forebay_engine::env::Env;
use forebay_engine::types::Nanos;

use super::{DIR, Part, READ_KEY_NS, Run};
use crate::check::c7_balance::c7_balance;
use crate::check::full_disk::{Refused, l4_pace, l4_refused, l4_resumes};
use crate::check::liveness::{DEADLINE_NS, l1_progress, story};
use crate::check::reads::{c6_excused, c7_errors};
use crate::check::sickness::{Neighbour, l6_log, l6_nothing_waits, l6_others_go_on};
use crate::check::{Checked, Rule, Violation, broken};
use crate::client::{Client, Handle};
use crate::env::SimTask;
use crate::fault::atlas::FileKind;
use crate::fault::{Fault, FaultPlan};
use crate::ledger::Failure;
use crate::scenario::{Crash, CrashKind, End, NthPart, Op, Phase, Write};
use crate::sometimes;

/// Within this time the engine tries again what nobody waits for.
const RETRIED_NS: Nanos = 2_000_000_000;

/// How long nobody asks for anything while the disk is full.
const QUIET_NS: Nanos = 3_000_000_000;

/// A database may take this long to see that space is back: what its ticker waits for may be slow.
const FULL_DISK_NOTICED_NS: Nanos = 5_000_000_000;

impl Run {
    pub(super) fn phase(&mut self, phase: &Phase) -> Checked {
        let ended = self.work(phase)?;
        self.change_options(phase);
        if let Some(kind) = Self::crash_behind(phase, ended) {
            self.end_calls();
            return self.crash(phase, kind);
        }
        let reopen = self.board.lock().reopen;
        if reopen || phase.end == End::Close {
            if !self.board.lock().closing {
                let crash = nth_crash(phase);
                self.resume_calls(phase);
                let closed = if let Some(crash) = crash {
                    self.close_or_crash(crash)
                } else {
                    self.let_go().map(|()| None)
                };
                self.end_calls();
                if let Some(kind) = closed? {
                    self.board.lock().mark("crash-in-close");
                    return self.crash(phase, kind);
                }
            }
            let power = self.sim.choices().choose("harness.after-close", 2) == 1;
            let kind = if power { CrashKind::PowerLoss } else { CrashKind::Kill };
            return self.crash(phase, kind);
        }
        self.end_calls();
        Ok(())
    }

    /// Sets what the next open takes other values of.
    fn change_options(&mut self, phase: &Phase) {
        let mut board = self.board.lock();
        let stalls = phase.end != End::GoOn && board.under_way.stalls();
        sometimes!(board, "close-in-stall", stalls);
        if phase.reopen_options.is_empty() || phase.end == End::GoOn {
            return;
        }
        let mut changed = self.options.clone();
        let set = |(key, value): &(String, String)| changed.set(key, value).is_ok();
        // A scenario was looked at before it ran: see `Scenario::engine_options`.
        if phase.reopen_options.iter().all(set) && changed.validate().is_ok() {
            sometimes!(board, "options-changed", changed != self.options);
            drop(board);
            self.options = changed;
        }
    }

    /// The crash that ends the phase, if one does.
    fn crash_behind(phase: &Phase, ended: bool) -> Option<CrashKind> {
        let nth = phase.nth_fault.as_ref();
        let then = nth.and_then(|nth| nth.fault(NthPart::Work)).and_then(|(_, _, then)| then);
        match phase.end {
            _ if then.is_some() => then,
            _ if !ended && nth_crash(phase).is_some() => nth_crash(phase).map(|crash| crash.kind),
            End::Crash(crash) => Some(crash.kind),
            End::Close | End::GoOn if !ended => Some(CrashKind::Kill),
            End::Close | End::GoOn => None,
        }
    }

    /// Calls of a part of the run are counted from here on, for the fault at one of them.
    pub(super) fn count_calls(&self, phase: &Phase, part: NthPart) {
        let Some(nth) = phase.nth_fault.as_ref().filter(|nth| nth.part == part) else { return };
        self.sim.fail_call(nth.fault(part).map(|(call, faults, _)| (call, faults)));
    }

    /// Counting goes on, once faults of the plan are over and the database was asked.
    fn resume_calls(&self, phase: &Phase) {
        if phase.nth_fault.as_ref().is_some_and(|nth| nth.part == NthPart::Work) {
            self.sim.pause_calls(false);
            self.sim.crash_at_point(self.held_point);
        }
    }

    /// The count ends.
    pub(super) fn end_calls(&mut self) {
        self.held_point = None;
        self.sim.crash_at_point(None);
        let log = self.sim.end_calls();
        if let Some(shared) = self.watch.calls.as_ref().filter(|_| !log.calls.is_empty()) {
            shared.put(log);
        }
    }

    /// Clients work, faults end, what waits ends. Says whether the process is still alive.
    fn work(&mut self, phase: &Phase) -> Checked<bool> {
        let faulty = phase.faults != FaultPlan::default() || phase.free_bytes.is_some();
        let nth = phase.nth_fault.as_ref().and_then(|nth| nth.fault(NthPart::Work));
        self.board.lock().model.faulty |= faulty || nth.is_some();
        {
            let mut board = self.board.lock();
            board.may_be_full = phase.free_bytes.is_some();
            board.writes.clear();
        }
        if let Some(free) = phase.free_bytes {
            let mut disk = self.sim.disk_mut();
            let taken = disk.free_bytes().saturating_sub(free);
            disk.set_hog_bytes(taken);
        }
        self.own_tables();
        self.sim.set_faults(phase.faults);
        if let End::Crash(crash) = phase.end {
            self.crash_later(crash.point);
        }
        self.count_calls(phase, NthPart::Work);
        if let Some(crash) = nth_crash(phase) {
            self.crash_later(crash.point);
            self.held_point = Some(self.sim.crash_points().saturating_add(crash.point));
        }
        let tasks = self.start(phase);
        let ops: u64 = phase.clients.iter().flatten().map(Op::reads).sum();
        // A client asks one thing after another: the last one waits for all before it.
        let deadline_ns = DEADLINE_NS.saturating_add(ops.saturating_mul(READ_KEY_NS));
        let window = if faulty { phase.faults_ns } else { deadline_ns };
        let ended = match self.join(tasks, window)? {
            Part::Crashed => Part::Crashed,
            Part::Done(tasks) => {
                let (closed, tasks) = self.close_early(phase, tasks)?;
                if closed {
                    self.judge_errors(phase)?;
                    return Ok(true);
                }
                if tasks.is_empty() && self.full_and_quiet(phase)? {
                    Part::Crashed
                } else {
                    Part::Done(tasks)
                }
            }
        };
        self.heal();
        let ended = match ended {
            Part::Crashed => Part::Crashed,
            Part::Done(tasks) if tasks.is_empty() => Part::Done(tasks),
            Part::Done(tasks) => self.join(tasks, deadline_ns)?,
        };
        self.sim.crash_at_point(None);
        self.sim.pause_calls(true);
        self.judge_errors(phase)?;
        match ended {
            Part::Crashed => Ok(false),
            Part::Done(tasks) => {
                let waits = self.board.lock().waits();
                self.ended("every operation", tasks.is_empty(), &waits)?;
                if faulty || nth.is_some_and(|(_, _, then)| then.is_none()) {
                    self.probe()?;
                    self.balance()?;
                }
                Ok(true)
            }
        }
    }

    pub(super) fn crash_later(&self, points: u64) {
        self.sim.crash_at_point(Some(self.sim.crash_points().saturating_add(points)));
    }

    fn start(&self, phase: &Phase) -> Vec<SimTask> {
        let Some(db) = &self.db else { return Vec::new() };
        let env = self.sim.env();
        let client = |(number, ops): (usize, &Vec<Op>)| {
            let client = Client::new(env, db.clone(), self.board.clone(), number, self.bug);
            let ops = ops.clone();
            env.spawn("client", move || client.work(ops))
        };
        phase.clients.iter().enumerate().map(client).collect()
    }

    /// Waits for clients, for some virtual time; gives back those that still work.
    pub(super) fn join(
        &mut self,
        tasks: Vec<SimTask>,
        within: Nanos,
    ) -> Checked<Part<Vec<SimTask>>> {
        let deadline = self.sim.now().saturating_add(within);
        let left = Rc::new(Cell::new(Vec::new()));
        let mut waiting = Waiting { tasks, left: Rc::clone(&left) };
        let part = self.drive(deadline, async move { waiting.all().await })?;
        let violation = self.board.lock().violation.take();
        if let Some(violation) = violation {
            return Err(violation);
        }
        Ok(match part {
            Part::Done(_) => Part::Done(left.take()),
            Part::Crashed => Part::Crashed,
        })
    }

    /// Whether a full disk was the only fault since the database was opened.
    fn is_only_full(&self, phase: &Phase) -> bool {
        let counts = self.sim.fault_counts();
        let full = counts.get(Fault::Enospc.name()).copied().unwrap_or(0);
        phase.free_bytes.is_some() && self.sim.atlas().is_empty() && self.fired() == full
    }

    /// L4: nobody asks for anything, the disk is still full, and the engine does not spin. Says whether
    /// the process died meanwhile.
    fn full_and_quiet(&mut self, phase: &Phase) -> Checked<bool> {
        if phase.free_bytes.is_none() || !self.board.lock().is_full {
            return Ok(false);
        }
        // What is under way, and what became due, is done first.
        if self.sleep(QUIET_NS)? {
            return Ok(true);
        }
        let before = self.sim.ledger().full_disk_calls();
        if self.sleep(QUIET_NS)? {
            return Ok(true);
        }
        let after = self.sim.ledger().full_disk_calls();
        let calls = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        let mut board = self.board.lock();
        board.mark("full-and-quiet");
        let tasks = self.sim.ledger().tasks();
        l4_pace(&mut board.counts, calls, tasks, QUIET_NS)?;
        Ok(false)
    }

    /// Lets virtual time pass. Says whether the process died.
    fn sleep(&mut self, ns: Nanos) -> Checked<bool> {
        let env = self.sim.env();
        let until = env.now().saturating_add(ns);
        let slept = self.drive(Nanos::MAX, async move { env.sleep_until(until).await })?;
        Ok(matches!(slept, Part::Crashed))
    }

    fn judge_errors(&mut self, phase: &Phase) -> Checked {
        let only_full = self.is_only_full(phase);
        let fired = self.fired().saturating_sub(self.fired_at_open);
        let errors = {
            let mut board = self.board.lock();
            if board.reopen {
                board.mark("reopen-needed");
            }
            core::mem::take(&mut board.errors)
        };
        for (what, tree, error) in &errors {
            if only_full {
                let free_bytes = phase.free_bytes.unwrap_or(u64::MAX);
                let refused = Refused { what, error, free_bytes };
                l4_refused(&mut self.board.lock().counts, &refused)?;
            }
            self.judge_error(what, *tree, error, fired)?;
        }
        Ok(())
    }

    /// L1, or L6 where a damaged table may be what others wait for.
    fn ended(&self, what: &str, ended: bool, waiting: &str) -> Checked {
        let waits = if ended { Vec::new() } else { self.who_waits() };
        let mut board = self.board.lock();
        let counts = &mut board.counts;
        let sick = if self.sim.disk().has_lost_sectors() {
            l6_nothing_waits(counts, ended, waiting)
        } else {
            Ok(())
        };
        let checked = sick.and_then(|()| l1_progress(counts, ended, what, waiting));
        checked.map_err(|found| Box::new(found.waits(waits)))
    }

    /// C7: what became of every call that was failed.
    fn balance(&mut self) -> Checked {
        if !self.unsettled().is_empty() {
            // What is tried again after a while is not given up yet.
            self.sleep(RETRIED_NS)?;
        }
        let left = self.unsettled();
        self.sim.settle_balance();
        let mut board = self.board.lock();
        board.told.clear();
        let is_degraded = board.reopen;
        c7_balance(&mut board.counts, is_degraded, &left)
    }

    fn unsettled(&self) -> Vec<Failure> {
        let mut left = self.sim.balance(&self.board.lock().told);
        // What could not be removed is gone by now, or the next open removes it. An edit of the
        // manifest that nobody waits for goes with the next one, which may not be due; of a renewal
        // that failed, the engine looks up whether it was done.
        let is_later = |failure: &Failure| {
            failure.call == Some("remove")
                || Path::new(&failure.path).extension().is_some_and(|kind| kind == "tmp")
                || FileKind::of(&failure.path) == FileKind::Manifest
        };
        // What a client makes beside the database, to be imported, is for the client to mind.
        let is_own = |failure: &Failure| Path::new(&failure.path).starts_with(DIR);
        left.retain(|failure| is_own(failure) && !is_later(failure));
        left
    }

    /// An error is right where its file was hit, or a fault explains it.
    pub(super) fn judge_error(
        &self,
        what: &str,
        tree: Option<u64>,
        error: &Error,
        fired: u64,
    ) -> Checked {
        self.own_tables();
        let mut board = self.board.lock();
        let excused = self.sim.env().excuses(error, tree);
        if c6_excused(&mut board.counts, excused) {
            board.mark("damage-told");
            return Ok(());
        }
        c7_errors(&mut board.counts, what, error, fired)
    }

    /// Tells the atlas whose the tables are that flushes made.
    pub(super) fn own_tables(&self) {
        for (table, bytes, tree) in core::mem::take(&mut self.board.lock().tables) {
            let extent = (table.offset, table.offset.saturating_add(bytes));
            self.sim.own_table(&format!("{DIR}/{:06}.sst", table.file), extent, tree);
        }
    }

    /// Once faults are over, the database takes writes, unless it said that it must be opened again.
    fn probe(&mut self) -> Checked {
        let Some(db) = self.db.clone() else { return Ok(()) };
        if self.board.lock().reopen {
            return Ok(());
        }
        let client = Client::new(self.sim.env(), db.clone(), self.board.clone(), 99, self.bug);
        let tenants: Vec<usize> = self.board.lock().handles.keys().copied().collect();
        let env = self.sim.env();
        let was_full = core::mem::take(&mut self.board.lock().may_be_full);
        let probed = {
            // Who is to notice that there is space may itself be in a call that has not come back.
            let healed = self.sim.now().max(self.sim.stalled_until());
            let deadline = healed.saturating_add(DEADLINE_NS);
            self.drive(deadline, async move {
                if was_full {
                    // Within this time writes are taken again, without anybody asking for it.
                    env.sleep_until(healed.saturating_add(FULL_DISK_NOTICED_NS)).await;
                }
                for tenant in tenants {
                    client.write(&[Write { tenant, key: 0, bytes: Some(40) }], true).await;
                    client.flush(tenant).await;
                }
                db.wait_idle().await
            })?
        };
        let waits = format!("{} alive: {:?}", self.board.lock().waits(), self.sim.alive());
        let what = "writes, and the background's work, once faults are over";
        let Part::Done(Some(idle)) = probed else { return self.ended(what, false, &waits) };
        self.ended(what, true, "")?;
        let mut board = self.board.lock();
        board.mark("probe");
        if let Some(violation) = board.violation.take() {
            return Err(violation);
        }
        if board.reopen || matches!(idle, Err(Error::ReadOnly(_))) {
            // The database said so: it must be opened again.
            board.reopen = true;
            board.mark("read-only");
            board.errors.clear();
            return Ok(());
        }
        let errors = core::mem::take(&mut board.errors);
        if was_full {
            let refused = errors.iter().map(|(.., error)| error).find(|e| e.is_storage_full());
            l4_resumes(&mut board.counts, refused)?;
        }
        drop(board);
        self.neighbours(&errors)?;
        errors.iter().try_for_each(|(what, tree, error)| {
            self.judge_error(&format!("{what} after faults ended"), *tree, error, 0)
        })
    }
}

impl Run {
    /// As [`close`](Self::close), where a crash may end it; says which did.
    fn close_or_crash(&mut self, crash: Crash) -> Checked<Option<CrashKind>> {
        let Some(db) = self.db.clone() else { return Ok(None) };
        let acked = self.board.lock().model.acked;
        let deadline = self.sim.now().saturating_add(DEADLINE_NS);
        self.sim.set_closing();
        match self.drive(deadline, async move { db.close().await })? {
            Part::Done(Some(closed)) => self.closed(acked, closed).map(|()| None),
            Part::Done(None) => broken(Violation::new(Rule::L7, "close", "it did not end")),
            Part::Crashed => Ok(Some(crash.kind)),
        }
    }

    /// L6: what every tenant got while a table is damaged, and the log beside it.
    fn neighbours(&mut self, errors: &[(String, Option<u64>, Error)]) -> Checked {
        if self.sim.atlas().is_empty() {
            return Ok(());
        }
        let env = self.sim.env();
        let handles: Vec<(usize, Option<u64>)> = {
            let board = self.board.lock();
            let tree = |handle: &Handle| handle.tenant.tree_id().map(|tree| tree.0);
            board.handles.iter().map(|(number, handle)| (*number, tree(handle))).collect()
        };
        let mut neighbours = Vec::new();
        for (tenant, tree) in handles {
            let mut of = errors.iter().filter(|(_, at, _)| at.is_some() && *at == tree);
            let error = of.next().map(|(.., error)| error);
            let is_hit = error.is_some_and(|error| env.excuses(error, tree));
            neighbours.push(Neighbour { tenant, is_hit, error });
        }
        let retained = self.db.as_ref().map_or(0, |db| db.metrics().wal_retained_bytes);
        let bound = self.log_bound();
        let mut board = self.board.lock();
        board.mark("neighbours");
        l6_others_go_on(&mut board.counts, &neighbours)?;
        l6_log(&mut board.counts, (retained, bound))
    }

    /// Who waits for what, as far as the world and the engine know.
    pub(super) fn who_waits(&self) -> Vec<String> {
        let mut lines = self.sim.who_waits();
        lines.extend(
            self.board
                .lock()
                .waiting
                .iter()
                .map(|(client, op)| format!("client {client} waits for its operation: {op}")),
        );
        if let Some(watch) = self.db.as_ref().map(forebay_engine::Db::watch)
            && let Some(waiting) = watch.waiting()
        {
            lines.extend(story(&waiting, &watch.memory()));
        }
        lines
    }
}

impl Phase {
    /// Nothing happens and nothing goes wrong.
    pub fn quiet() -> Self {
        Self {
            clients: Vec::new(),
            faults: FaultPlan::default(),
            free_bytes: None,
            faults_ns: 0,
            end: End::GoOn,
            recovery_crashes: Vec::new(),
            recovery_faults: FaultPlan::default(),
            crash_states: 1,
            open_twice: false,
            nth_fault: None,
            reopen_options: Vec::new(),
        }
    }
}

/// The crash at a point of the phase's work.
fn nth_crash(phase: &Phase) -> Option<Crash> {
    phase.nth_fault.as_ref().and_then(|nth| nth.crash(NthPart::Work))
}

/// Tasks that are waited for; those left are given back when the wait is given up.
struct Waiting {
    tasks: Vec<SimTask>,
    left: Rc<Cell<Vec<SimTask>>>,
}

impl Waiting {
    async fn all(&mut self) {
        core::future::poll_fn(|cx| {
            self.tasks.retain_mut(|task| pin!(task).poll(cx).is_pending());
            if self.tasks.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.left.set(core::mem::take(&mut self.tasks));
    }
}
