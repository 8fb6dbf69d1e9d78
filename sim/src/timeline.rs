//! A run's timeline for a viewer: flushes, compactions and stalls as spans, the rest as instants.
//!
//! Times are virtual microseconds, as failure reports print them. A process of the viewer is a tenant, or
//! "db" for what belongs to none or to several; its threads are kinds, with more than one lane where spans
//! of a kind overlap. Listening draws nothing and waits for nothing, so a watched run is the same run.
//!
//! # Source
//!
//! "Trace Event Format" of the Chromium project, the JSON object form, which Perfetto reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_engine::events::{Event, Listener};
use forebay_engine::types::Nanos;
use serde_json::{Value, json};

use crate::check::Violation;
use crate::check::value::tenant_name;
use crate::diary::Diary;

/// Kinds of spans and instants; each has a hundred lanes.
const KINDS: [&str; 7] = ["flush", "compaction", "stall", "seal", "engine", "fault", "harness"];

const LANES: u64 = 100;

/// What an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Db,
    Tree(u64),
    Branch(u64),
}

#[derive(Debug)]
struct Span {
    owner: Owner,
    kind: &'static str,
    begin: Nanos,
    end: Nanos,
    args: Value,
}

#[derive(Debug)]
struct Instant {
    owner: Owner,
    kind: &'static str,
    name: String,
    at: Nanos,
    args: Value,
}

#[derive(Debug, Default)]
struct Recorded {
    spans: Vec<Span>,
    instants: Vec<Instant>,
    open: BTreeMap<(Owner, &'static str), Vec<Nanos>>,
    branches: BTreeMap<u64, usize>,
    trees: BTreeMap<u64, Option<usize>>,
}

/// A timeline in the making; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Timeline(Arc<Mutex<Recorded>>);

impl Timeline {
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A branch belongs to the tenant of this number.
    pub fn name_branch(&self, branch: u64, tenant: usize) {
        self.lock().branches.insert(branch, tenant);
    }

    /// A tree holds the tenant of this number; one with several belongs to none of them.
    pub fn name_tree(&self, tree: u64, tenant: usize) {
        let mut recorded = self.lock();
        let owner = recorded.trees.entry(tree).or_insert(Some(tenant));
        if *owner != Some(tenant) {
            *owner = None;
        }
    }

    /// A fault fired.
    pub fn fault(&self, at: Nanos, name: &str, path: &str) {
        self.lock().instant(Owner::Db, ("fault", name), at, json!({ "path": path }));
    }

    /// The harness did something: a crash, a recovery; `args` says how.
    pub fn harness(&self, at: Nanos, name: &str, args: Value) {
        self.lock().instant(Owner::Db, ("harness", name), at, args);
    }

    /// A rule was found broken.
    pub fn violation(&self, found: &Violation) {
        let name = format!("{} {}", found.rule, found.rule.verdict());
        let args = json!({
            "rule": found.rule, "tenant": found.tenant, "key": found.key, "seq": found.seq,
            "promised": found.promised, "found": found.found,
        });
        self.lock().instant(Owner::Db, ("harness", &name), found.at, args);
    }

    /// The process died, or the run ended: what had begun ends here.
    pub fn cut(&self, at: Nanos) {
        let mut recorded = self.lock();
        for ((owner, kind), begins) in core::mem::take(&mut recorded.open) {
            for begin in begins {
                let args = json!({ "cut": true });
                recorded.spans.push(Span { owner, kind, begin, end: at, args });
            }
        }
    }

    /// The whole timeline as JSON.
    pub fn chrome_json(&self) -> String {
        let recorded = self.lock();
        let mut events = Vec::new();
        let mut threads: BTreeMap<(u64, u64), String> = BTreeMap::new();
        let mut lanes: BTreeMap<(u64, u64), Vec<Nanos>> = BTreeMap::new();
        let mut spans: Vec<&Span> = recorded.spans.iter().collect();
        spans.sort_by_key(|span| (span.begin, span.end));
        for span in spans {
            let (pid, first) = (recorded.pid(span.owner), first_lane(span.kind));
            let ends = lanes.entry((pid, first)).or_default();
            let free = ends.iter().position(|end| *end <= span.begin);
            let lane = free.unwrap_or(ends.len());
            match ends.get_mut(lane) {
                Some(end) => *end = span.end,
                None => ends.push(span.end),
            }
            let lane = u64::try_from(lane).unwrap_or(0).min(LANES - 1);
            let (tid, name) = (first + lane, lane_name(span.kind, lane));
            threads.insert((pid, tid), name);
            let took = span.end.saturating_sub(span.begin);
            events.push(json!({
                "ph": "X", "name": span.kind, "cat": span.kind, "pid": pid, "tid": tid,
                "ts": micros(span.begin), "dur": micros(took), "args": span.args,
            }));
        }
        for instant in &recorded.instants {
            let (pid, tid) = (recorded.pid(instant.owner), first_lane(instant.kind));
            threads.insert((pid, tid), instant.kind.to_owned());
            events.push(json!({
                "ph": "i", "s": "p", "name": instant.name, "cat": instant.kind, "pid": pid,
                "tid": tid, "ts": micros(instant.at), "args": instant.args,
            }));
        }
        let mut all = names(&threads);
        all.append(&mut events);
        json!({ "displayTimeUnit": "ms", "traceEvents": all }).to_string()
    }
}

fn names(threads: &BTreeMap<(u64, u64), String>) -> Vec<Value> {
    let mut all = Vec::new();
    let mut last = None;
    for ((pid, tid), name) in threads {
        if last != Some(*pid) {
            last = Some(*pid);
            let number = pid.checked_sub(1).and_then(|n| usize::try_from(n).ok());
            let name = number.map_or_else(|| "db".to_owned(), tenant_name);
            all.push(json!({
                "ph": "M", "name": "process_name", "pid": pid, "args": { "name": name },
            }));
        }
        all.push(json!({
            "ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": { "name": name },
        }));
    }
    all
}

fn first_lane(kind: &str) -> u64 {
    let at = KINDS.iter().position(|known| *known == kind).unwrap_or(0);
    u64::try_from(at).unwrap_or(0) * LANES + 1
}

fn lane_name(kind: &str, lane: u64) -> String {
    if lane == 0 { kind.to_owned() } else { format!("{kind} {}", lane + 1) }
}

/// Microseconds with three decimals, as the format has them.
fn micros(ns: Nanos) -> Value {
    let text = format!("{}.{:03}", ns.div_euclid(1000), ns.rem_euclid(1000));
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

impl Recorded {
    fn pid(&self, owner: Owner) -> u64 {
        let tenant = match owner {
            Owner::Db => None,
            Owner::Tree(tree) => self.trees.get(&tree).copied().flatten(),
            Owner::Branch(branch) => self.branches.get(&branch).copied(),
        };
        tenant.and_then(|n| u64::try_from(n).ok()).map_or(0, |n| n + 1)
    }

    fn instant(
        &mut self,
        owner: Owner,
        (kind, name): (&'static str, &str),
        at: Nanos,
        args: Value,
    ) {
        self.instants.push(Instant { owner, kind, name: name.to_owned(), at, args });
    }

    fn begin(&mut self, owner: Owner, kind: &'static str, at: Nanos) {
        self.open.entry((owner, kind)).or_default().push(at);
    }

    fn end(&mut self, owner: Owner, kind: &'static str, (at, took): (Nanos, Nanos), args: Value) {
        let mut begin = at.saturating_sub(took);
        if let Some(open) = self.open.get_mut(&(owner, kind))
            && !open.is_empty()
        {
            let same = open.iter().position(|known| *known == begin).unwrap_or(0);
            begin = open.remove(same);
        }
        self.spans.push(Span { owner, kind, begin, end: at, args });
    }

    /// A job of a tree failed: of one that is alone the span ends, of several none is known to be it.
    fn failed(&mut self, tree: u64, at: Nanos, error: &str) {
        let owner = Owner::Tree(tree);
        self.instant(owner, ("engine", "job failed"), at, json!({ "tree": tree, "error": error }));
        let mut open =
            self.open.iter_mut().filter(|((of, _), begins)| *of == owner && !begins.is_empty());
        if let (Some(((_, kind), begins)), None) = (open.next(), open.next())
            && begins.len() == 1
        {
            let begin = begins.pop().unwrap_or(at);
            let (kind, args) = (*kind, json!({ "tree": tree, "failed": error }));
            self.spans.push(Span { owner, kind, begin, end: at, args });
        }
    }
}

impl Listener for Timeline {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a listener takes what it knows")]
    fn event(&self, now: Nanos, event: &Event) {
        let mut recorded = self.lock();
        match event {
            Event::Sealed { tree, bytes } => {
                let args = json!({ "tree": tree.0, "bytes": bytes });
                recorded.instant(Owner::Tree(tree.0), ("seal", "seal"), now, args);
            }
            Event::FlushBegin { tree, .. } => recorded.begin(Owner::Tree(tree.0), "flush", now),
            Event::FlushEnd { tree, table, elapsed_ns } => {
                let bytes = table.map_or(0, |(_, bytes)| bytes);
                let args = json!({ "tree": tree.0, "bytes": bytes });
                recorded.end(Owner::Tree(tree.0), "flush", (now, *elapsed_ns), args);
            }
            Event::CompactionBegin { tree, .. } => {
                recorded.begin(Owner::Tree(tree.0), "compaction", now);
            }
            Event::CompactionEnd { tree, output_bytes, elapsed_ns, dropped_entries, .. } => {
                let args = json!({
                    "tree": tree.0, "bytes": output_bytes, "dropped_entries": dropped_entries,
                });
                recorded.end(Owner::Tree(tree.0), "compaction", (now, *elapsed_ns), args);
            }
            Event::JobFailed { tree, error } => recorded.failed(tree.0, now, error),
            Event::StallBegin { branch, .. } => {
                recorded.begin(Owner::Branch(branch.0), "stall", now);
            }
            Event::StallEnd { branch, cause, caused_by, elapsed_ns } => {
                let args =
                    json!({ "cause": format!("{cause:?}"), "caused_by_branch": caused_by.0 });
                recorded.end(Owner::Branch(branch.0), "stall", (now, *elapsed_ns), args);
            }
            Event::PolicyOverride { tree } => {
                let args = json!({ "tree": tree.0 });
                recorded.instant(Owner::Tree(tree.0), ("engine", "policy override"), now, args);
            }
            Event::Relogged { tree, entries, bytes, from, to } => {
                let args = json!({
                    "tree": tree.0, "entries": entries, "bytes": bytes, "from": from, "to": to,
                });
                recorded.instant(Owner::Tree(tree.0), ("log", "relog"), now, args);
            }
            _ => {}
        }
    }
}

/// Tells one listener, then those that watch a run.
#[derive(Debug)]
pub(crate) struct Told<A> {
    pub(crate) first: A,
    pub(crate) timeline: Option<Timeline>,
    pub(crate) diary: Option<Diary>,
}

impl<A: Listener> Listener for Told<A> {
    fn event(&self, now: Nanos, event: &Event) {
        self.first.event(now, event);
        if let Some(timeline) = &self.timeline {
            timeline.event(now, event);
        }
        if let Some(diary) = &self.diary {
            diary.event(now, event);
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_engine::types::{BranchId, TreeId};

    use super::*;

    #[test]
    fn spans_that_overlap_get_lanes_and_a_crash_ends_what_had_begun() {
        let timeline = Timeline::default();
        timeline.name_tree(7, 2);
        timeline.name_branch(9, 2);
        let tree = TreeId(7);
        timeline.event(1000, &Event::FlushBegin { tree, bytes: 5 });
        timeline.event(2000, &Event::FlushBegin { tree, bytes: 5 });
        timeline.event(5500, &Event::FlushEnd { tree, table: None, elapsed_ns: 4500 });
        let cause = forebay_engine::policy::view::StallCause::L0;
        let (branch, caused_by) = (BranchId(9), BranchId(7));
        timeline.event(5600, &Event::StallBegin { branch, cause, caused_by });
        timeline.cut(6000);
        timeline.harness(6000, "crash", json!({}));
        let all: Value = serde_json::from_str(&timeline.chrome_json()).unwrap();
        let spans: Vec<(u64, u64, f64, f64)> = all["traceEvents"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["ph"] == "X")
            .map(|event| {
                let at = |key: &str| event[key].as_f64().unwrap();
                (
                    event["pid"].as_u64().unwrap(),
                    event["tid"].as_u64().unwrap(),
                    at("ts"),
                    at("dur"),
                )
            })
            .collect();
        assert_eq!(spans, [(3, 1, 1.0, 4.5), (3, 2, 2.0, 4.0), (3, 201, 5.6, 0.4)]);
    }
}
