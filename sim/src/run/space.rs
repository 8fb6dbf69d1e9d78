//! C10 at quiescence, asked of a run that met no fault.

use std::collections::BTreeMap;
use std::path::Path;

use forebay_engine::inspect::{self, Inspection, Look};
use forebay_engine::options::Layout;
use forebay_engine::types::to_u64;
use forebay_engine::version::manifest::manifest_path;

use super::{DIR, Run};
use crate::check::c10_space::{Amplification, Space, c10_space, c10_tables};
use crate::check::liveness::DEADLINE_NS;
use crate::check::model::Known;
use crate::check::value::key_bytes;
use crate::check::{Checked, Rule, Violation, broken};
use crate::client::read_everything;

/// What a policy finds idle for long enough may be flushed between two looks; so often they are
/// taken again.
pub(super) const LOOKS_MAX: u32 = 4;

impl Run {
    /// Holds the whole directory against what the database needs of it; no job runs.
    pub(super) fn space(&mut self, is_open: bool) -> Checked {
        for _ in 0..LOOKS_MAX {
            let before = self.sim.disk().files();
            let env = self.sim.env();
            let inspected = self.must_within("inspect", 4 * DEADLINE_NS, async move {
                inspect::inspect(&env, Path::new(DIR), Look::default()).await
            })?;
            let inspected = match inspected {
                Ok(Some(inspected)) => inspected,
                Ok(None) => return broken(Violation::new(Rule::C10, "a database", "none")),
                Err(error) => return self.judge_error("inspect", None, &error, 0),
            };
            if self.sim.disk().files() == before {
                let space = self.space_of(is_open, &inspected);
                {
                    let mut board = self.board.lock();
                    board.mark(if is_open { "space-open" } else { "space-closed" });
                    c10_space(&mut board.counts, &space)?;
                }
                return if is_open { self.tables(&inspected) } else { Ok(()) };
            }
            let idle = self.db.clone().map(|db| async move { db.wait_idle().await });
            if let Some(idle) = idle
                && let Err(error) = self.must("the background's work", idle)?
            {
                return self.judge_error("wait_idle", None, &error, 0);
            }
        }
        self.board.lock().mark("space-restless");
        Ok(())
    }

    /// What tables hold against what can be read.
    fn tables(&mut self, inspected: &Inspection) -> Checked {
        let Some(db) = self.db.clone() else { return Ok(()) };
        let is_dropped = self.board.lock().model.incs.iter().any(|life| life.drop != Known::Not);
        if is_dropped && self.options.layout != Layout::PerTenant {
            // What a dropped tenant leaves in a shared tree goes when its tables are compacted next,
            // and no write may make that due.
            return Ok(());
        }
        let trees = db.metrics().tree_count;
        let env = self.sim.env();
        let all = self.must_within("reading everything", 4 * DEADLINE_NS, async move {
            read_everything(env, &db, BTreeMap::new()).await
        })??;
        let branches = all.tenants.values().flat_map(|tenant| &tenant.values);
        let live = branches.map(|(key, value)| to_u64(key_bytes(*key).len() + value.len()));
        let options = &self.options;
        // A shared memtable is as large as those of its tenants.
        let sharers = match options.layout {
            Layout::PerTenant => 1,
            Layout::Shared | Layout::Grouped(_) => to_u64(self.board.lock().model.names().count()),
        };
        let cap = options
            .memtable_cap_bytes(sharers)
            .max(options.memtable_bytes_max.min(options.budget_bytes));
        let found = Amplification {
            table_bytes: inspected.tables.iter().map(|table| table.meta.bytes).sum(),
            tables: to_u64(inspected.tables.len()),
            live_bytes: live.sum(),
            trees,
            memtable_bytes: cap.saturating_add(options.batch_limit_bytes()),
            l0_count: u64::from(options.l0_compaction_count),
            policy: options.compaction_policy.name.clone(),
        };
        c10_tables(&mut self.board.lock().counts, &found)
    }

    fn space_of(&self, is_open: bool, inspected: &Inspection) -> Space {
        let within = format!("{DIR}/");
        let (disk, options) = (self.sim.disk(), &self.options);
        let files = disk.files().into_iter();
        let named =
            files.filter_map(|(path, bytes)| Some((path.strip_prefix(&within)?.to_owned(), bytes)));
        let manifest = inspected.edits.last().map(|edit| manifest_path(Path::new(""), edit.file));
        let metrics = self.db.as_ref().filter(|_| is_open).map(forebay_engine::Db::metrics);
        let unflushed = metrics.map(|m| m.mutable_bytes.saturating_add(m.immutable_bytes));
        Space {
            files: named.collect(),
            tables: inspected.tables.iter().map(|t| format!("{:06}.sst", t.meta.id.file)).collect(),
            manifest: manifest.and_then(|path| path.to_str().map(str::to_owned)),
            segments: inspected.wal.iter().map(|s| format!("{:06}.wal", s.segment)).collect(),
            // A closed database tells no more how much it had in memory: the budget is the most.
            unflushed_bytes: unflushed.unwrap_or(options.budget_bytes),
            wal_limit_bytes: options.wal_limit_bytes(),
            segment_bytes: options.wal_segment_bytes,
            batch_bytes: options.batch_limit_bytes(),
            handles: disk.open_handles(),
            removed_handles: disk.removed_handles(),
            open_tables: self.db.as_ref().map_or(0, |db| to_u64(db.open_table_count())),
            is_open,
        }
    }
}
