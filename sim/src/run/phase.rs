//! A phase: clients work, faults end, what waits ends, and the process ends as the scenario says.

use core::cell::Cell;
use core::future::Future;
use core::pin::pin;
use core::task::Poll;
use std::rc::Rc;

use forebay_engine::Error;
use forebay_engine::env::Env;
use forebay_engine::types::Nanos;

use super::{DIR, Part, READ_KEY_NS, Run};
use crate::check::liveness::{DEADLINE_NS, l1_progress};
use crate::check::reads::{c6_excused, c7_errors};
use crate::check::{Checked, Rule, Violation, broken};
use crate::client::Client;
use crate::env::SimTask;
use crate::fault::FaultPlan;
use crate::scenario::{Crash, CrashKind, End, NthPart, Op, Phase, Write};

/// A database may take this long to see that space is back: what its ticker waits for may be slow.
const FULL_DISK_NOTICED_NS: Nanos = 5_000_000_000;

impl Run {
    pub(super) fn phase(&mut self, phase: &Phase) -> Checked {
        let ended = self.work(phase)?;
        if let Some(kind) = self.crash_behind(phase, ended) {
            self.end_calls();
            return self.crash(phase, kind);
        }
        let reopen = self.board.lock().reopen;
        if reopen || phase.end == End::Close {
            let crash = nth_crash(phase);
            self.resume_calls(phase);
            let closed = self.close_or_crash(crash.is_some());
            self.end_calls();
            if let (Part::Crashed, Some(crash)) = (closed?, crash) {
                self.board.lock().mark("crash-in-close");
                return self.crash(phase, crash.kind);
            }
            let power = self.sim.choices().choose("harness.after-close", 2) == 1;
            let kind = if power { CrashKind::PowerLoss } else { CrashKind::Kill };
            return self.crash(phase, kind);
        }
        self.end_calls();
        Ok(())
    }

    /// The crash that ends the phase, if one does.
    fn crash_behind(&self, phase: &Phase, ended: bool) -> Option<CrashKind> {
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
        self.board.lock().may_be_full = phase.free_bytes.is_some();
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
        let ended = self.join(tasks, window)?;
        self.heal();
        let ended = match ended {
            Part::Crashed => Part::Crashed,
            Part::Done(tasks) if tasks.is_empty() => Part::Done(tasks),
            Part::Done(tasks) => self.join(tasks, deadline_ns)?,
        };
        self.sim.crash_at_point(None);
        self.sim.pause_calls(true);
        self.judge_errors()?;
        match ended {
            Part::Crashed => Ok(false),
            Part::Done(tasks) => {
                {
                    let mut board = self.board.lock();
                    let waits = board.waits();
                    l1_progress(&mut board.counts, tasks.is_empty(), "every operation", &waits)?;
                }
                if faulty || nth.is_some_and(|(_, _, then)| then.is_none()) {
                    self.probe()?;
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
    fn join(&mut self, tasks: Vec<SimTask>, within: Nanos) -> Checked<Part<Vec<SimTask>>> {
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

    fn judge_errors(&mut self) -> Checked {
        let fired = self.fired().saturating_sub(self.fired_at_open);
        let errors = {
            let mut board = self.board.lock();
            if board.reopen {
                board.mark("reopen-needed");
            }
            core::mem::take(&mut board.errors)
        };
        errors
            .iter()
            .try_for_each(|(what, tree, error)| self.judge_error(what, *tree, error, fired))
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
    fn own_tables(&self) {
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
        let idle =
            self.must("writes, and the background's work, once faults are over", async move {
                if was_full {
                    // Within this time writes are taken again, without anybody asking for it.
                    env.sleep_until(env.now().saturating_add(FULL_DISK_NOTICED_NS)).await;
                }
                for tenant in tenants {
                    client.write(&[Write { tenant, key: 0, bytes: Some(40) }], true).await;
                }
                db.wait_idle().await
            })?;
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
        drop(board);
        errors.iter().try_for_each(|(what, tree, error)| {
            self.judge_error(&format!("{what} after faults ended"), *tree, error, 0)
        })
    }

    pub(super) fn close(&mut self) -> Checked {
        self.close_or_crash(false).map(drop)
    }

    fn close_or_crash(&mut self, may_crash: bool) -> Checked<Part<()>> {
        let Some(db) = self.db.clone() else { return Ok(Part::Done(())) };
        let acked = self.board.lock().model.acked;
        let closed = if may_crash {
            let deadline = self.sim.now().saturating_add(DEADLINE_NS);
            match self.drive(deadline, async move { db.close().await })? {
                Part::Done(Some(closed)) => closed,
                Part::Done(None) => return broken(Violation::new(Rule::L1, "close", "no end")),
                Part::Crashed => return Ok(Part::Crashed),
            }
        } else {
            self.must("close", async move { db.close().await })?
        };
        match closed {
            Ok(()) => {
                let mut board = self.board.lock();
                // A database that is read-only closes without making anything durable.
                if !board.reopen {
                    board.model.promised(acked);
                }
                Ok(Part::Done(()))
            }
            Err(error) => {
                let fired = self.fired().saturating_sub(self.fired_at_open);
                self.judge_error("close", None, &error, fired).map(Part::Done)
            }
        }
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
