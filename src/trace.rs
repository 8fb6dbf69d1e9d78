//! A timeline for Perfetto or `chrome://tracing`, made of the events of runs.
//!
//! Times are virtual microseconds. A process is a tenant, or a tree that several share, of one arm;
//! its threads are `flush`, `compaction` and `stall`, with more than one of a kind where spans of
//! it overlap, and `fault`; its memtable is a counter. Events are written in the order of their
//! time, so each thread's are, and the file ends early rather than grow past a limit.
//!
//! # Source
//!
//! "Trace Event Format" of the Chromium project, the JSON object form, which Perfetto reads.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::events::{EventKind, EventRow, RunEvents};
use crate::output::{OutputFile, Result};

/// Bytes that a trace may have.
pub const TRACE_BYTES_MAX: u64 = 100_000_000;

/// Threads that spans of one kind may take; where more overlap, the rest is on the last.
const LANES: usize = 10_000;

/// Processes of one arm, at most.
const ARM_PIDS: u64 = 100_000;

/// Writes the trace; gives back the virtual time from which something is missing, where it is.
///
/// # Errors
///
/// The file cannot be written; an older one of its name is still there.
pub fn write_trace(path: &Path, runs: &[&RunEvents], bytes_max: u64) -> Result<Option<u64>> {
    let mut tracks = Tracks::default();
    let events = tracks.events(runs);
    let mut file = OutputFile::create(path)?;
    file.text("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n")?;
    let mut written = 0_u64;
    let mut cut = runs.iter().filter_map(|run| run.head.cut_ns).min();
    let mut separator = "";
    let mut line = |file: &mut OutputFile, value: &Value| {
        let text = value.to_string();
        written = written.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX) + 2);
        if written > bytes_max {
            return Ok(false);
        }
        file.text(separator)?;
        separator = ",\n";
        file.text(&text).map(|()| true)
    };
    for name in tracks.names(runs) {
        line(&mut file, &name)?;
    }
    for (at_ns, value) in &events {
        if !line(&mut file, value)? {
            cut = Some(cut.map_or(*at_ns, |cut| cut.min(*at_ns)));
            break;
        }
    }
    file.text("\n]")?;
    if let Some(at_ns) = cut {
        let said = Value::from(format!("truncated at vt={}", crate::number::duration(at_ns)));
        file.text(&format!(",\"otherData\":{{\"warning\":{said}}}"))?;
    }
    file.text("}\n")?;
    file.finish()?;
    Ok(cut)
}

/// Which processes and threads there are.
#[derive(Default)]
struct Tracks {
    /// Process by run and owner.
    pids: BTreeMap<(usize, String), u64>,
    threads: BTreeMap<(u64, u64), String>,
    /// When each lane is free again, by process and kind.
    lanes: BTreeMap<(u64, EventKind), Vec<u64>>,
}

impl Tracks {
    /// Everything that happened, by time.
    fn events(&mut self, runs: &[&RunEvents]) -> Vec<(u64, Value)> {
        let mut events = Vec::new();
        for (place, run) in runs.iter().enumerate() {
            for (owner, n) in run.head.owners.iter().zip(1..ARM_PIDS) {
                let pid = u64::try_from(place).unwrap_or(0).saturating_mul(ARM_PIDS) + n;
                self.pids.insert((place, owner.clone()), pid);
            }
            for row in &run.rows {
                if let Some(value) = self.event(place, row) {
                    events.push((row.at_ns, value));
                }
            }
        }
        events.sort_by_key(|(at_ns, _)| *at_ns);
        events
    }

    fn event(&mut self, run: usize, row: &EventRow) -> Option<Value> {
        let pid = *self.pids.get(&(run, row.owner.clone()))?;
        let (kind, ts) = (row.kind.name(), micros(row.at_ns));
        match row.kind {
            EventKind::All => None,
            EventKind::Memtable => Some(json!({
                "ph": "C", "name": "memtable bytes", "cat": kind, "pid": pid, "tid": 0, "ts": ts,
                "args": { "bytes": row.bytes },
            })),
            EventKind::Flush | EventKind::Compaction | EventKind::Stall => {
                let tid = self.thread(pid, row);
                let mut args = json!({});
                if row.kind == EventKind::Stall {
                    args = json!({ "cause": row.cause, "caused_by": row.caused_by });
                } else if let Some(args) = args.as_object_mut() {
                    args.insert("bytes".to_owned(), Value::from(row.bytes));
                }
                if let Some(args) = args.as_object_mut().filter(|_| row.is_open) {
                    args.insert("is_open".to_owned(), Value::from(true));
                }
                Some(json!({
                    "ph": "X", "name": kind, "cat": kind, "pid": pid, "tid": tid, "ts": ts,
                    "dur": micros(row.took_ns), "args": args,
                }))
            }
            EventKind::Fault | EventKind::Override => {
                let tid = first_thread(row.kind);
                self.threads.entry((pid, tid)).or_insert_with(|| kind.to_owned());
                Some(json!({
                    "ph": "i", "s": "p", "name": row.note, "cat": kind, "pid": pid, "tid": tid,
                    "ts": ts, "args": {},
                }))
            }
        }
    }

    /// The first thread of its kind that is free for the span.
    fn thread(&mut self, pid: u64, row: &EventRow) -> u64 {
        let ends = self.lanes.entry((pid, row.kind)).or_default();
        let free = ends.iter().position(|end| *end <= row.at_ns);
        let lane = free.unwrap_or(ends.len()).min(LANES - 1);
        let end = row.at_ns.saturating_add(row.took_ns);
        match ends.get_mut(lane) {
            Some(known) => *known = end,
            None => ends.push(end),
        }
        let lane = u64::try_from(lane).unwrap_or(0);
        let tid = first_thread(row.kind) + lane;
        self.threads.entry((pid, tid)).or_insert_with(|| match lane {
            0 => row.kind.name().to_owned(),
            _ => format!("{} {}", row.kind.name(), lane + 1),
        });
        tid
    }

    fn names(&self, runs: &[&RunEvents]) -> Vec<Value> {
        let mut names = Vec::new();
        for ((run, owner), pid) in &self.pids {
            let arm = runs.get(*run).map_or("", |run| run.head.arm.as_str());
            let name = if runs.len() > 1 { format!("{owner} ({arm})") } else { owner.clone() };
            names.push(json!({
                "ph": "M", "name": "process_name", "pid": pid, "args": { "name": name },
            }));
            names.push(json!({
                "ph": "M", "name": "process_sort_index", "pid": pid, "args": { "sort_index": pid },
            }));
        }
        names.extend(self.threads.iter().map(|((pid, tid), name)| {
            json!({
                "ph": "M", "name": "thread_name", "pid": pid, "tid": tid,
                "args": { "name": name },
            })
        }));
        names
    }
}

fn first_thread(kind: EventKind) -> u64 {
    match kind {
        EventKind::All | EventKind::Memtable => 0,
        EventKind::Flush => 10_000,
        EventKind::Compaction => 20_000,
        EventKind::Stall => 30_000,
        EventKind::Fault => 1,
        EventKind::Override => 2,
    }
}

/// Microseconds with three decimals, as the format has them.
fn micros(ns: u64) -> Value {
    let text = format!("{}.{:03}", ns.div_euclid(1000), ns.rem_euclid(1000));
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::mock;

    fn read(runs: &[&RunEvents], bytes_max: u64) -> (Value, Option<u64>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let cut = write_trace(&path, runs, bytes_max).unwrap();
        let mut text = String::new();
        crate::output::for_each_line(&path, |_, line| {
            text.push_str(line);
            text.push('\n');
            Ok(())
        })
        .unwrap();
        (serde_json::from_str(&text).unwrap(), cut, text.len())
    }

    /// Virtual nanoseconds: the three decimals are exact.
    fn ns(value: &Value) -> u64 {
        let text = value.to_string();
        let (micros, rest) = text.split_once('.').unwrap();
        format!("{micros}{rest:0<3}").parse().unwrap()
    }

    #[test]
    fn every_event_is_read_back_in_order_and_no_two_spans_of_a_thread_overlap() {
        let input = mock::input(1, 50);
        let runs: Vec<_> = input.events.iter().take(3).collect();
        let (trace, cut, _) = read(&runs, TRACE_BYTES_MAX);
        assert_eq!(cut, None);
        let events = trace["traceEvents"].as_array().unwrap();
        let mut last: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        let mut ends: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        let mut names: BTreeMap<u64, String> = BTreeMap::new();
        let mut spans = 0;
        for event in events {
            let pid = event["pid"].as_u64().unwrap();
            if event["name"] == "process_name" {
                let name = event["args"]["name"].as_str().unwrap().to_owned();
                assert!(names.insert(pid, name).is_none(), "one process, one name");
            }
            if event["ph"] == "M" {
                continue;
            }
            assert!(names.contains_key(&pid), "{event}");
            let thread = (pid, event["tid"].as_u64().unwrap());
            let at = ns(&event["ts"]);
            assert!(last.insert(thread, at).unwrap_or(0) <= at, "{event}");
            if event["ph"] == "X" {
                spans += 1;
                let end = ends.insert(thread, at + ns(&event["dur"])).unwrap_or(0);
                assert!(end <= at, "{event} begins before {end}");
            }
        }
        let told = |run: &&RunEvents| {
            run.rows.iter().filter(|r| r.took_ns > 0 && !r.owner.is_empty()).count()
        };
        assert_eq!(spans, runs.iter().map(told).sum::<usize>());
        let rows = runs.iter().flat_map(|run| &run.rows).filter(|row| !row.owner.is_empty());
        let written = events.iter().filter(|event| event["ph"] != "M").count();
        assert_eq!(written, rows.count());
        assert!(names.values().any(|name| name.ends_with(&format!("({})", runs[0].head.arm))));
        let overlapping = events.iter().filter(|event| event["args"]["name"] == "flush 2");
        assert!(overlapping.count() > 0, "the runs have flushes beside each other");
    }

    #[test]
    fn a_trace_that_is_too_long_ends_early_and_says_where() {
        let input = mock::input(1, 50);
        let (trace, cut, length) = read(&[&input.events[0]], 40_000);
        let cut = cut.unwrap();
        assert!(length < 40_200, "{length}");
        let said = trace["otherData"]["warning"].as_str().unwrap();
        assert_eq!(said, format!("truncated at vt={}", crate::number::duration(cut)));
        assert!(cut > 0 && cut < input.events[0].head.end_ns);
        let mut run = input.events[0].clone();
        run.head.cut_ns = Some(7_000_000);
        let (trace, cut, _) = read(&[&run], TRACE_BYTES_MAX);
        assert_eq!(cut, Some(7_000_000), "its events were too many already");
        assert_eq!(trace["otherData"]["warning"], "truncated at vt=7.00ms");
    }

    #[test]
    fn spans_beside_each_other_take_threads_and_free_ones_are_taken_again() {
        let mut run = RunEvents::default();
        run.head.owners = vec!["t\"1".to_owned()];
        for (at_ns, took_ns) in [(0, 10), (5, 20), (10, 5)] {
            let owner = "t\"1".to_owned();
            let kind = EventKind::Flush;
            run.rows.push(EventRow { kind, owner, at_ns, took_ns, ..EventRow::default() });
        }
        let (trace, _, _) = read(&[&run], TRACE_BYTES_MAX);
        let spans = trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "X");
        let tids: Vec<_> = spans.map(|event| event["tid"].as_u64().unwrap()).collect();
        assert_eq!(tids, [10_000, 10_001, 10_000]);
    }
}
