//! The end of a run, when all is quiet: C9 for what the database consists of, C10 for its files.

use std::collections::BTreeSet;
use std::path::Path;

use forebay_engine::env::Env;
use forebay_engine::inspect::{self, Inspection, Look};
use forebay_engine::repair::{self, RepairOptions};
use forebay_engine::types::{Nanos, to_u64};
use forebay_engine::version::manifest::manifest_path;
use forebay_engine::waiting::TreeMemory;
use forebay_engine::{Error, verify};

use super::space::LOOKS_MAX;
use super::{DIR, Run};
use crate::check::files::{c9_memory, c9_verified, c10_files};
use crate::check::liveness::DEADLINE_NS;
use crate::check::{Checked, Rule, Violation, broken};
use crate::fault::atlas::FileKind;

/// Time in which what nobody reads any more is removed.
const COLLECTED_NS: Nanos = 5_000_000_000;

/// A policy may find one tree after another idle for long enough: so long for each branch beyond as
/// many as there are without forks.
const IDLE_NS: Nanos = 500_000_000;
const PLAIN_BRANCHES: usize = 8;

/// Of so many runs, one asks whether the directory needs a repair.
const REPAIR_ONE_IN: u64 = 8;

impl Run {
    /// Verifies the open database, closes it, and looks at its files.
    pub(super) fn finish(&mut self) -> Checked {
        self.verify()?;
        let fired = self.fired() > self.fired_at_open;
        let whole = !fired && !self.sim.atlas().voids(Rule::C10);
        if let Some(db) = self.db.clone().filter(|_| whole) {
            let env = self.sim.env();
            let more = to_u64(self.board.lock().handles.len().saturating_sub(PLAIN_BRANCHES));
            let quiet_ns = COLLECTED_NS.saturating_add(more.saturating_mul(IDLE_NS));
            let within = quiet_ns.saturating_add(4 * DEADLINE_NS);
            let idle = self.must_within("the background's work", within, async move {
                db.wait_idle().await?;
                env.sleep_until(env.now().saturating_add(quiet_ns)).await;
                // A policy may have found something idle for long enough.
                db.wait_idle().await
            })?;
            if let Err(error) = idle {
                return self.judge_error("wait_idle", None, &error, 0);
            }
            self.memory()?;
            self.files(true)?;
            self.space(true)?;
        }
        self.close()?;
        if self.sim.atlas().voids(Rule::C9) {
            return Ok(());
        }
        if whole {
            self.files(false)?;
            self.space(false)?;
        }
        if self.sim.choices().choose("harness.repair", REPAIR_ONE_IN) + 1 == REPAIR_ONE_IN {
            self.needs_no_repair()?;
        }
        Ok(())
    }

    /// What the budget counts against what the trees hold, while no job and no commit runs.
    fn memory(&self) -> Checked {
        let Some(db) = &self.db else { return Ok(()) };
        let (metrics, trees) = (db.metrics(), db.watch().memory());
        let sum = |of: fn(&TreeMemory) -> u64| trees.iter().map(of).sum();
        let counted = TreeMemory {
            mutable_bytes: sum(|m| m.mutable_bytes),
            immutable_bytes: sum(|m| m.immutable_bytes),
            history_bytes: sum(|m| m.history_bytes),
            ..TreeMemory::default()
        };
        let charged = TreeMemory {
            mutable_bytes: metrics.mutable_bytes,
            immutable_bytes: metrics.immutable_bytes,
            history_bytes: metrics.history_bytes,
            ..TreeMemory::default()
        };
        c9_memory(&mut self.board.lock().counts, (charged, metrics.reserved_bytes), counted)
    }

    fn verify(&mut self) -> Checked {
        let Some(db) = self.db.clone() else { return Ok(()) };
        let report =
            self.must_within("verify", 4 * DEADLINE_NS, async move { db.verify(|_| {}).await })?;
        let report = match report {
            Ok(report) => report,
            Err(error) => return self.judge_error("verify", None, &error, 0),
        };
        self.board.lock().mark("verified");
        self.judge_findings("verify", &report.findings)
    }

    fn judge_findings(&mut self, how: &str, findings: &[verify::Finding]) -> Checked {
        let env = self.sim.env();
        let may_be_hit = self.sim.atlas().voids(Rule::C9);
        let judged: Vec<(String, bool)> = findings
            .iter()
            .map(|finding| {
                let tree = finding.owners.tree.map(|tree| tree.0);
                (finding.error.to_string(), may_be_hit && env.excuses(&finding.error, tree))
            })
            .collect();
        let mut board = self.board.lock();
        if !judged.is_empty() {
            board.mark("verify-found-damage");
        }
        c9_verified(&mut board.counts, how, &judged)
    }

    fn needs_no_repair(&mut self) -> Checked {
        let env = self.sim.env();
        let report = self.must_within("repair", 4 * DEADLINE_NS, async move {
            let options = RepairOptions { dry_run: true, layout: None };
            repair::repair(&env, Path::new(DIR), &options).await
        })?;
        let report = match report {
            Ok(report) => report,
            Err(error) => return self.judge_error("repair", None, &error, 0),
        };
        self.board.lock().mark("repair-asked");
        self.judge_findings("repair", &report.lost)?;
        self.judge_findings("repair", &report.risks)?;
        let found = report.needed.then(|| (format!("it would do: {report:?}"), false));
        let found: Vec<(String, bool)> = found.into_iter().collect();
        c9_verified(&mut self.board.lock().counts, "repair", &found)
    }

    /// An inspection of a directory in which nothing changes meanwhile; nothing where something does again
    /// and again: a policy finds one tree after another idle for long enough.
    fn look_at_files(&mut self, is_open: bool) -> Checked<Option<Inspection>> {
        for _ in 0..LOOKS_MAX {
            let before = self.sim.disk().files();
            let env = self.sim.env();
            let inspected = self.must_within("inspect", 4 * DEADLINE_NS, async move {
                inspect::inspect(&env, Path::new(DIR), Look::default()).await
            })?;
            let is_quiet = !is_open || self.sim.disk().files() == before;
            match inspected {
                Ok(Some(inspected)) if is_quiet => return Ok(Some(inspected)),
                Ok(None) => return broken(Violation::new(Rule::C10, "a database", "none")),
                Err(error) if is_quiet => {
                    self.judge_error("inspect", None, &error, 0)?;
                    return Ok(None);
                }
                Ok(Some(_)) | Err(_) => {}
            }
            let idle = self.db.clone().map(|db| async move { db.wait_idle().await });
            if let Some(idle) = idle
                && let Err(error) = self.must("the background's work", idle)?
            {
                self.judge_error("wait_idle", None, &error, 0)?;
                return Ok(None);
            }
        }
        self.board.lock().mark("files-restless");
        Ok(None)
    }

    /// C10, for all files, or for tables alone while the database is open.
    fn files(&mut self, is_open: bool) -> Checked {
        let Some(inspected) = self.look_at_files(is_open)? else { return Ok(()) };
        let errors: Vec<(String, bool)> =
            inspected.errors.iter().map(|error: &Error| (error.to_string(), false)).collect();
        c9_verified(&mut self.board.lock().counts, "inspection", &errors)?;
        let mut reached: BTreeSet<String> = ["CURRENT", "LOCK"].map(str::to_owned).into();
        let manifest = inspected.edits.last().map(|edit| manifest_path(Path::new(""), edit.file));
        reached.extend(manifest.and_then(|path| path.to_str().map(str::to_owned)));
        reached.extend(inspected.tables.iter().map(|t| format!("{:06}.sst", t.meta.id.file)));
        reached.extend(inspected.wal.iter().map(|s| format!("{:06}.wal", s.segment)));
        let within = format!("{DIR}/");
        let files = self.sim.disk().files();
        let names = files.iter().filter_map(|(path, _)| path.strip_prefix(&within));
        let mut found: BTreeSet<String> = names.map(str::to_owned).collect();
        if is_open {
            // What the log holds changes by itself, and a spare segment is no leak.
            let is_table = |name: &String| FileKind::of(name) == FileKind::Table;
            reached.retain(is_table);
            found.retain(is_table);
        }
        c10_files(&mut self.board.lock().counts, &found, &reached)
    }
}
