//! Who waits for whom when a run hangs: task, resource, holder, as far as they are known.

use std::collections::BTreeMap;

use forebay_engine::types::Nanos;

use super::file_name;
use super::history::words;
use crate::check::Violation;
use crate::check::model::seconds;
use crate::diary::{Pages, What};
use crate::scenario::Op;

/// Clients that are named.
const CLIENTS_MAX: usize = 4;

/// Lines of the engine that are told.
const ENGINE_MAX: usize = 3;

#[derive(Default)]
struct Now<'a> {
    asked: BTreeMap<usize, (Nanos, &'a Op)>,
    syncs: Vec<(Nanos, &'a str)>,
    progress: Nanos,
}

/// One line each: clients with what they wait for, the engine's view, the scheduler's view.
pub(super) fn waits(pages: &Pages, found: &Violation) -> Vec<String> {
    let now = look(pages);
    let mut lines = Vec::new();
    for (client, (since, op)) in now.asked.iter().take(CLIENTS_MAX) {
        let since = seconds(*since);
        lines.push(format!(
            "client {client} -> {} -> {}   since vt {since}",
            words(op),
            resource(op, &now.syncs)
        ));
    }
    if now.asked.len() > CLIENTS_MAX {
        lines.push(format!("and {} more clients", now.asked.len() - CLIENTS_MAX));
    }
    for (since, path) in &now.syncs {
        let name = file_name(path);
        lines.push(format!("sync of {name} -> device   since vt {}, never ended", seconds(*since)));
    }
    lines.extend(pages.waits.engine.iter().take(ENGINE_MAX).cloned());
    let tasks: Vec<String> =
        pages.waits.tasks.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let tasks = if tasks.is_empty() { "none".to_owned() } else { tasks.join(", ") };
    lines.push(format!("tasks alive: {tasks}"));
    let how = if found.found.contains("nothing can run") {
        "0 runnable tasks, 0 timers: deadlock"
    } else if found.found.contains("polls without progress") {
        "tasks run and none gets on: livelock"
    } else {
        "timers only: time passes and nothing ends"
    };
    let quiet = found.at.saturating_sub(now.progress);
    let progress = seconds(now.progress);
    lines.push(format!("{how}; last progress vt {progress}, {} s ago", seconds(quiet)));
    lines
}

fn look(pages: &Pages) -> Now<'_> {
    let mut now = Now::default();
    for entry in &pages.entries {
        match &entry.what {
            What::Asked { client, op } => {
                now.asked.insert(*client, (entry.at, op));
            }
            What::Answered { client } => {
                now.asked.remove(client);
                now.progress = entry.at;
            }
            What::SyncBegin { path } => now.syncs.push((entry.at, path)),
            What::SyncEnd { path, .. } => {
                let begun = now.syncs.iter().position(|(_, known)| known == path);
                if let Some(begun) = begun {
                    now.syncs.remove(begun);
                }
            }
            What::Crash { .. } => {
                now.asked.clear();
                now.syncs.clear();
                now.progress = entry.at;
            }
            What::Engine(_) | What::Recovered { .. } => now.progress = entry.at,
            What::Tagged { .. }
            | What::Refused { .. }
            | What::Logged { .. }
            | What::Removed { .. }
            | What::Fault { .. } => {}
        }
    }
    now
}

/// What an operation waits for, where a call on a file that never ended can be it.
fn resource(op: &Op, syncs: &[(Nanos, &str)]) -> String {
    let held = |suffix: &str| syncs.iter().find(|(_, path)| path.ends_with(suffix));
    let log =
        || held(".wal").map(|(_, path)| format!("log, held by the sync of {}", file_name(path)));
    let table =
        || held(".sst").map(|(_, path)| format!("flush, held by the sync of {}", file_name(path)));
    let found = match op {
        Op::Write { .. } | Op::Sync => log().or_else(table),
        Op::Flush { .. }
        | Op::Compact { .. }
        | Op::Fork { .. }
        | Op::Create { .. }
        | Op::Import { .. }
        | Op::Drop { .. }
        | Op::DropBranch { .. }
        | Op::Extractor { .. } => table().or_else(log),
        Op::Get { .. }
        | Op::Scan { .. }
        | Op::Query { .. }
        | Op::Compare { .. }
        | Op::Snapshot { .. }
        | Op::Reread { .. }
        | Op::Sleep { .. } => None,
    };
    found.unwrap_or_else(|| "the engine".to_owned())
}
