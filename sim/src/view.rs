//! What a run looks like when it stops: what the model says was promised, and the files on the disk.

use core::fmt;

use forebay_engine::types::{Nanos, SeqNo};
use serde::Serialize;

use crate::check::model::{Known, Model, seconds};
use crate::check::value::tenant_name;
use crate::choices::Mode;
use crate::diary::Diary;
use crate::nth::SharedLog;
use crate::timeline::Timeline;

/// What to see of a run besides its verdict.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Stops here, on the clock that failure reports print.
    pub until: Option<Nanos>,
    /// Records the run.
    pub timeline: Option<Timeline>,
    /// Records the calls of the part in which the scenario has its n-th fault.
    pub calls: Option<SharedLog>,
    /// Writes down what happened, for a report.
    pub diary: Option<Diary>,
    /// Where what the scenario leaves open comes from.
    pub mode: Mode,
}

/// A tenant, as the model knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantView {
    /// Its name.
    pub name: String,
    /// Which life of the name.
    pub life: u32,
    /// The branch, once known.
    pub branch: Option<u64>,
    /// `live`, or what is under way or unknown.
    pub state: &'static str,
    /// Keys with a known write.
    pub keys: usize,
}

/// A file on the simulated disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileView {
    /// Its path.
    pub path: String,
    /// Its length, durable or not.
    pub bytes: u64,
}

impl FileView {
    /// These files.
    pub(crate) fn all(files: Vec<(String, u64)>) -> Vec<Self> {
        files.into_iter().map(|(path, bytes)| Self { path, bytes }).collect()
    }
}

/// A run at the moment in which it stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct View {
    /// The moment, in virtual time.
    pub at_ns: Nanos,
    /// Whether the run was stopped; else it had ended.
    pub stopped: bool,
    /// The highest sequence number given.
    pub last_seq: SeqNo,
    /// The highest one acknowledged.
    pub acked_seq: SeqNo,
    /// The highest one promised to survive a power loss.
    pub synced_seq: SeqNo,
    /// Tenants that are there, or may be.
    pub tenants: Vec<TenantView>,
    /// Files that have a name.
    pub files: Vec<FileView>,
}

impl View {
    /// The model and the disk's files, seen at a moment.
    pub(crate) fn of(model: &Model, files: Vec<(String, u64)>, at_ns: Nanos) -> Self {
        let state = |create, drop| match (create, drop) {
            (_, Known::Acked) | (Known::Not, _) => None,
            (_, Known::UnderWay) => Some("being dropped"),
            (_, Known::Failed) => Some("drop failed"),
            (Known::UnderWay, Known::Not) => Some("being created"),
            (Known::Failed, Known::Not) => Some("create failed"),
            (Known::Acked, Known::Not) => Some("live"),
        };
        let tenants = model.incs.iter().filter_map(|inc| {
            Some(TenantView {
                name: tenant_name(inc.tenant),
                life: inc.number,
                branch: inc.branch,
                state: state(inc.create, inc.drop)?,
                keys: inc.keys.len(),
            })
        });
        Self {
            at_ns,
            stopped: false,
            last_seq: model.last,
            acked_seq: model.acked,
            synced_seq: model.synced,
            tenants: tenants.collect(),
            files: FileView::all(files),
        }
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.stopped { "stopped" } else { "ended" };
        writeln!(f, "{word} at vt {} s", seconds(self.at_ns))?;
        let Self { last_seq, acked_seq, synced_seq, .. } = self;
        writeln!(f, "model   last seq {last_seq}, acked {acked_seq}, synced {synced_seq}")?;
        for tenant in &self.tenants {
            let TenantView { name, life, branch, state, keys } = tenant;
            let branch = branch.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
            writeln!(f, "tenant  {name} life {life}  branch {branch}  {state}, {keys} keys")?;
        }
        for file in &self.files {
            writeln!(f, "file    {:>10} B  {}", file.bytes, file.path)?;
        }
        Ok(())
    }
}
