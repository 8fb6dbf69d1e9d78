//! What is looked at whenever nothing can run, before virtual time moves on.

use core::cell::Cell;
use std::rc::Rc;

use forebay_engine::Db;
use forebay_engine::env::Env;
use forebay_engine::types::Nanos;
use forebay_engine::waiting::{Load, Watch};

use super::Run;
use crate::SimEnv;
use crate::check::c9_structure::{Installs, c9_structure};
use crate::check::fairness::l3_log;
use crate::check::growth::{Caps, Sample, l8_growth};
use crate::check::liveness::{l1_enabled, story};
use crate::check::log_failure::l5_sealed;
use crate::check::{Checked, RuleCounts};
use crate::client::{Board, Shared};

/// Time between two looks at what could grow, where nothing is installed in between.
const SAMPLE_NS: Nanos = 50_000_000;

/// The eye on an open database.
struct Eye {
    env: SimEnv,
    watch: Watch<SimEnv>,
    installs: Installs<SimEnv>,
    board: Shared,
    caps: Caps,
    log_bound: u64,
    next_sample: Cell<Nanos>,
    /// Since when the log has been above its bound.
    above_since: Cell<Option<Nanos>>,
    failed_logs: Cell<usize>,
}

impl Eye {
    fn look(&self) {
        let now = self.env.now();
        let structure = self.installs.look();
        let installed = structure.is_some();
        let mut board = self.board.lock();
        if let Some(structure) = structure {
            board.mark(if structure.is_settled { "structure" } else { "structure-in-flush" });
            keep(&mut board, |counts| c9_structure(counts, &structure));
        }
        if installed || self.next_sample.get() <= now {
            self.next_sample.set(now.saturating_add(SAMPLE_NS));
            self.sample(&mut board, now);
        }
        let misuse = self.env.ledger(|ledger| (ledger.failed_logs(), ledger.misuse().cloned()));
        if let Some((failed, misuse)) = misuse
            && (misuse.is_some() || failed != self.failed_logs.replace(failed))
        {
            keep(&mut board, |counts| l5_sealed(counts, misuse.as_ref()));
        }
        let Some(waiting) = self.watch.waiting() else { return };
        board.mark("writer-waits");
        keep(&mut board, |counts| {
            let checked = l1_enabled(counts, &waiting);
            checked.map_err(|found| Box::new(found.waits(story(&waiting, &self.watch.memory()))))
        });
    }

    fn sample(&self, board: &mut Board, now: Nanos) {
        let Some(load) = self.watch.load() else { return };
        let tasks = self.env.ledger(crate::ledger::Ledger::tasks).unwrap_or(0);
        if tasks == 0 {
            // It is closed: what is open is the harness's own.
            return;
        }
        self.log(board, &load, now);
        let sample =
            Sample { load, handles: self.env.open_handles(), tasks, is_beside: board.imports > 0 };
        keep(board, |counts| l8_growth(counts, &self.caps, &sample));
    }

    /// L3, while nothing is wrong but that a tenant is cold.
    fn log(&self, board: &mut Board, load: &Load, now: Nanos) {
        if self.env.is_faulty() || self.env.is_damaged() || board.may_be_full || board.reopen {
            return self.above_since.set(None);
        }
        if load.wal_bytes <= self.log_bound {
            self.above_since.set(None);
        }
        let since = self.above_since.get().unwrap_or(now);
        if load.wal_bytes > self.log_bound {
            self.above_since.set(Some(since));
        }
        let above = now.saturating_sub(since);
        keep(board, |counts| l3_log(counts, (load.wal_bytes, self.log_bound), above));
    }
}

fn keep(board: &mut Board, ask: impl FnOnce(&mut RuleCounts) -> Checked) {
    if let Err(violation) = ask(&mut board.counts) {
        board.violation.get_or_insert(violation);
    }
}

impl Run {
    /// The log is to come down to this: its limit, one that stops writers, all memtables, two
    /// segments.
    pub(super) fn log_bound(&self) -> u64 {
        let options = &self.options;
        let segment = options.wal_segment_bytes.saturating_add(options.batch_limit_bytes());
        options
            .wal_limit_bytes()
            .max(options.wal_bytes_stop)
            .saturating_add(options.budget_bytes)
            .saturating_add(segment.saturating_mul(2))
    }

    /// Asks, whenever nothing can run, whether what was installed left all in order, whether every
    /// writer that waits does so for something, whether a failed log is left alone, and whether
    /// anything grows.
    pub(super) fn watch_writers(&self, db: &Db<SimEnv>) {
        let bounded = self.options.stall_policy.name != "none";
        let budget = bounded.then_some(self.options.budget_bytes);
        let eye = Eye {
            env: self.sim.env(),
            watch: db.watch(),
            installs: Installs::new(db.watch_structure()).within(budget),
            board: self.board.clone(),
            caps: Caps::new(&self.options, self.clients),
            log_bound: self.log_bound(),
            next_sample: Cell::new(0),
            above_since: Cell::new(None),
            failed_logs: Cell::new(0),
        };
        self.sim.on_idle(Some(Rc::new(move || eye.look())));
    }
}
