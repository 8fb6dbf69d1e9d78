//! `events.jsonl`: flushes, compactions, stalls and faults of a run by tenant, on virtual time.
//!
//! For the first seed of each arm. A run begins with a line that has a `schema`, the others follow
//! in the order of `at_ns`, one compact object a line; page and trace are made of this file alone.
//! A column that would be 0, empty or false is left out. A run tells all about its busiest tenants
//! and trees, and about the rest how much of each kind went on; its first line says what it leaves
//! out. Names may be added, never changed.
//!
//! | column of the first line | |
//! |---|---|
//! | `schema` | `forebay.events/1` |
//! | `run_id`, `arm`, `seed`, `world` | as in `runs.jsonl` |
//! | `end_ns` | when the run ended, since measuring began, as every time here |
//! | `owners` | names of those whose events follow, the busiest first |
//! | `owner_count` | tenants and trees that had an event or a memtable |
//! | `event_count` | events of the run |
//! | `left_out` | of them, those that do not follow: of others, or after `cut_ns` |
//! | `cut_ns` | from here on events were too many and are left out; absent where all are there |
//!
//! | column of an event | |
//! |---|---|
//! | `run_id` | the run |
//! | `kind` | `flush`, `compaction`, `stall`: a span; `memtable`: a gauge; `fault`, `override`: an instant; `all`: sums over everybody |
//! | `owner` | the tenant; a tree that several share is `tree N of M tenants` |
//! | `at_ns`, `took_ns` | begin and length |
//! | `bytes` | of a flush's or compaction's table; of a memtable from here on |
//! | `cause`, `caused_by` | why a write waited, and on whose account |
//! | `is_open` | the span was not over when the run ended |
//! | `note` | of an instant: what happened, in words |
//! | `flush_ns`, `compaction_ns`, `stall_ns` | of `all`: time that all spans of the kind take of this interval |

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::output::{OutputFile, Result, for_each_line};
use crate::record::{RunRow, World};

/// What the first line of a run says its format is.
pub const EVENTS_SCHEMA: &str = "forebay.events/1";

/// What an event is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// What went on in all, in an interval.
    #[default]
    All,
    /// Bytes of the memtable that takes writes, from here to the next of the owner.
    Memtable,
    /// An immutable memtable was written to a table.
    Flush,
    /// Tables were merged.
    Compaction,
    /// A write waited.
    Stall,
    /// A background job, the log or the disk failed.
    Fault,
    /// The engine flushed a tree that the policy did not name.
    Override,
}

impl EventKind {
    /// The kind as its line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Memtable => "memtable",
            Self::Flush => "flush",
            Self::Compaction => "compaction",
            Self::Stall => "stall",
            Self::Fault => "fault",
            Self::Override => "override",
        }
    }
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventRow {
    /// The run.
    pub run_id: String,
    /// What it is about.
    pub kind: EventKind,
    /// Whose it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Begin, since measuring began.
    #[serde(skip_serializing_if = "is_zero")]
    pub at_ns: u64,
    /// Length of a span or interval.
    #[serde(skip_serializing_if = "is_zero")]
    pub took_ns: u64,
    /// Bytes of a table or memtable.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Why a write waited: a name of [`ByCause`](crate::record::ByCause).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// On whose account it waited.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub caused_by: String,
    /// Whether the span was not over when the run ended.
    #[serde(skip_serializing_if = "is_false")]
    pub is_open: bool,
    /// What happened, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Of an interval: time in flushes, summed over all.
    #[serde(skip_serializing_if = "is_zero")]
    pub flush_ns: u64,
    /// Of an interval: time in compactions, summed over all.
    #[serde(skip_serializing_if = "is_zero")]
    pub compaction_ns: u64,
    /// Of an interval: time that writes waited, summed over all.
    #[serde(skip_serializing_if = "is_zero")]
    pub stall_ns: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(on: &bool) -> bool {
    !on
}

/// The first line of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventsHead {
    /// [`EVENTS_SCHEMA`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// Its arm.
    pub arm: String,
    /// Its seed.
    pub seed: u64,
    /// Whose clock it is.
    pub world: World,
    /// When it ended.
    pub end_ns: u64,
    /// Those whose events follow, the busiest first.
    pub owners: Vec<String>,
    /// Tenants and trees that had an event or a memtable.
    pub owner_count: u64,
    /// Events of the run.
    pub event_count: u64,
    /// Of them, those that do not follow.
    pub left_out: u64,
    /// From here on events are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_ns: Option<u64>,
}

/// The events of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunEvents {
    /// What they are of.
    pub head: EventsHead,
    /// In the order of their begin.
    pub rows: Vec<EventRow>,
}

impl RunEvents {
    /// Says which run they are of.
    pub fn name(&mut self, row: &RunRow) {
        EVENTS_SCHEMA.clone_into(&mut self.head.schema);
        self.head.run_id.clone_from(&row.run_id);
        self.head.arm.clone_from(&row.arm);
        self.head.seed = row.seed;
        self.head.world = row.world;
        for event in &mut self.rows {
            event.run_id.clone_from(&row.run_id);
        }
    }
}

/// Writes `events.jsonl`, in the order given.
///
/// # Errors
///
/// The file cannot be written; an older one of its name is still there.
pub fn write_events<'a>(path: &Path, runs: impl Iterator<Item = &'a RunEvents>) -> Result<()> {
    let mut file = OutputFile::create(path)?;
    // Structs of texts and numbers: writing them as JSON cannot fail.
    for run in runs {
        file.text(&serde_json::to_string(&run.head).unwrap_or_default())?;
        file.text("\n")?;
        for event in &run.rows {
            file.text(&serde_json::to_string(event).unwrap_or_default())?;
            file.text("\n")?;
        }
    }
    file.finish()
}

/// Reads `events.jsonl`.
///
/// # Errors
///
/// The file cannot be read, a line is not an event, or its run has no first line: the error names
/// file and line.
pub fn read_events(path: &Path) -> Result<Vec<RunEvents>> {
    let mut runs: Vec<RunEvents> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for_each_line(path, |_, line| {
        if line.starts_with("{\"schema\"") {
            let head: EventsHead = serde_json::from_str(line).map_err(|e| e.to_string())?;
            if head.schema != EVENTS_SCHEMA {
                return Err(format!("schema {:?} is not {EVENTS_SCHEMA}", head.schema));
            }
            if places.insert(head.run_id.clone(), runs.len()).is_some() {
                return Err(format!("run {} begins twice", head.run_id));
            }
            runs.push(RunEvents { head, rows: Vec::new() });
        } else {
            let event: EventRow = serde_json::from_str(line).map_err(|e| e.to_string())?;
            let place = places.get(&event.run_id).and_then(|at| runs.get_mut(*at));
            let run = place.ok_or_else(|| format!("run {} has no first line", event.run_id))?;
            run.rows.push(event);
        }
        Ok(())
    })?;
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::write_file;

    fn events() -> RunEvents {
        let row = RunRow { run_id: "00ff".to_owned(), arm: "a/b".to_owned(), ..RunRow::default() };
        let event = EventRow {
            kind: EventKind::Stall,
            owner: "t</script>\u{2028}\"\n".to_owned(),
            at_ns: 7,
            took_ns: u64::MAX,
            cause: "l0".to_owned(),
            is_open: true,
            ..EventRow::default()
        };
        let all = EventRow { flush_ns: 3, ..EventRow::default() };
        let mut run = RunEvents { rows: vec![all, event], ..RunEvents::default() };
        run.head.cut_ns = Some(9);
        run.name(&row);
        run
    }

    #[test]
    fn events_are_one_line_each_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut other = events();
        other.name(&RunRow { run_id: "0100".to_owned(), ..RunRow::default() });
        let runs = vec![events(), other];
        write_events(&path, runs.iter()).unwrap();
        assert_eq!(read_events(&path).unwrap(), runs);
        let mut lines = Vec::new();
        for_each_line(&path, |_, line| {
            lines.push(line.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[1], "{\"run_id\":\"00ff\",\"kind\":\"all\",\"flush_ns\":3}");
    }

    #[test]
    fn damaged_files_are_refused_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let head = serde_json::to_string(&events().head).unwrap();
        for (text, at) in [
            ("{\"run_id\":\"00ff\",\"kind\":\"flush\"}\n".to_owned(), ":1: run 00ff has no first"),
            (format!("{head}\n{head}\n"), ":2: run 00ff begins twice"),
            (format!("{head}\n{{\"run_id\":\"00ff\",\"kind\":\"x\"}}\n"), ":2: unknown variant"),
            (head.replace("events/1", "events/9"), ":1: schema"),
        ] {
            write_file(&path, &text).unwrap();
            let error = read_events(&path).unwrap_err().to_string();
            assert!(error.contains(at), "{error}");
        }
    }
}
