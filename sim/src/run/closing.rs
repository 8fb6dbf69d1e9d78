//! How a process lets go of its database: by a close, by two at once, beside stalls, or by dropping it.

use core::future::Future;

use forebay_engine::Error;
use forebay_engine::env::Env;
use forebay_engine::types::Nanos;

use super::{Part, Run};
use crate::check::closing::{l7_closed, l7_let_go};
use crate::check::liveness::DEADLINE_NS;
use crate::check::{Checked, Rule, Violation, broken};
use crate::env::SimTask;
use crate::scenario::{End, Phase};

/// How often it is asked whether all tasks have ended.
const ASK_NS: Nanos = 10_000_000;

/// Ways to let go of a database at the end of a phase.
const WAYS: u64 = 4;

impl Run {
    /// Ends the phase by a close: of four, two at once in one, none but dropped handles in another.
    pub(super) fn let_go(&mut self) -> Checked {
        match self.sim.choices().choose("harness.close-how", WAYS) {
            2 => self.close_twice(),
            3 => self.drop_unclosed(),
            _ => self.close(),
        }
    }

    /// As [`must_within`](Self::must_within), where it is L7 that it ends.
    fn must_close<T: 'static>(
        &mut self,
        how: &str,
        future: impl Future<Output = T> + 'static,
    ) -> Checked<T> {
        let deadline = self.sim.now().saturating_add(DEADLINE_NS);
        self.sim.set_closing();
        let part = self.drive(deadline, future)?;
        let waits = self.who_waits();
        let told = format!("alive: {:?}", self.sim.alive());
        let mut board = self.board.lock();
        match part {
            Part::Done(Some(value)) => {
                l7_closed(&mut board.counts, how, true, "")?;
                Ok(value)
            }
            Part::Done(None) | Part::Crashed => {
                l7_closed(&mut board.counts, how, false, &told)
                    .map_err(|found| Box::new(found.waits(waits)))?;
                broken(Violation::new(Rule::L7, how, "it did not end"))
            }
        }
    }

    pub(super) fn close(&mut self) -> Checked {
        let Some(db) = self.db.clone() else { return Ok(()) };
        let acked = self.board.lock().model.acked;
        let closed = self.must_close("a close", async move { db.close().await })?;
        self.closed(acked, closed)?;
        self.is_let_go("a close")
    }

    fn close_twice(&mut self) -> Checked {
        let Some(db) = self.db.clone() else { return Ok(()) };
        let acked = self.board.lock().model.acked;
        let env = self.sim.env();
        let (first, second) = self.must_close("a close and a second one", async move {
            let other = db.clone();
            let task = env.spawn("second-close", move || async move {
                // The first one tells what went wrong.
                drop(other.close().await);
            });
            let first = db.close().await;
            task.await;
            (first, db.close().await)
        })?;
        self.board.lock().mark("closed-twice");
        self.closed(acked, first)?;
        self.closed(acked, second)?;
        self.is_let_go("a close and a second one")
    }

    /// Nobody closes; the last handle goes.
    fn drop_unclosed(&mut self) -> Checked {
        let db = self.db.take();
        let handles = core::mem::take(&mut self.board.lock().handles);
        drop(handles);
        drop(db);
        let env = self.sim.env();
        self.must_close("the end of all tasks behind the last handle", async move {
            while env.ledger(crate::ledger::Ledger::tasks).unwrap_or(0) > 0 {
                env.sleep_until(env.now().saturating_add(ASK_NS)).await;
            }
        })?;
        self.board.lock().mark("dropped-unclosed");
        self.is_let_go("dropping all handles")
    }

    /// Closes while clients work and faults happen, where the seed says so. Gives back the clients that
    /// still work where it does not.
    pub(super) fn close_early(
        &mut self,
        phase: &Phase,
        tasks: Vec<SimTask>,
    ) -> Checked<(bool, Vec<SimTask>)> {
        let wanted = phase.end == End::Close && !tasks.is_empty() && self.db.is_some();
        if !wanted || self.sim.choices().choose("harness.close-early", 2) == 0 {
            return Ok((false, tasks));
        }
        let Some(db) = self.db.clone() else { return Ok((false, tasks)) };
        let acked = {
            let mut board = self.board.lock();
            board.closing = true;
            board.mark("closed-beside-stalls");
            board.model.acked
        };
        let closed = self.must_close("a close beside stalls", async move { db.close().await })?;
        self.closed(acked, closed)?;
        self.heal();
        let left = match self.join(tasks, DEADLINE_NS)? {
            Part::Done(left) => left,
            Part::Crashed => Vec::new(),
        };
        let waits = self.who_waits();
        let mut board = self.board.lock();
        let told = board.waits();
        let what = "what waits when the database is closed";
        l7_closed(&mut board.counts, what, left.is_empty(), &told)
            .map_err(|found| Box::new(found.waits(waits)))?;
        Ok((true, left))
    }

    pub(super) fn closed(&mut self, acked: u64, closed: Result<(), Error>) -> Checked {
        match closed {
            Ok(()) => {
                self.board.lock().model.promised(acked);
                Ok(())
            }
            Err(error) => {
                let fired = self.fired().saturating_sub(self.fired_at_open);
                self.judge_error("close", None, &error, fired)
            }
        }
    }

    fn is_let_go(&self, how: &str) -> Checked {
        let env = self.sim.env();
        let held = (env.is_locked(), self.sim.ledger().tasks());
        l7_let_go(&mut self.board.lock().counts, how, held)
    }
}
