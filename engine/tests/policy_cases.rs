//! Runs the text cases of `testdata/policy`: views in, decisions out.
//!
//! A file is named after its policy. Its blocks are divided by empty lines; each gives one view,
//! then `----`, then what the policy answers, its own state included. `policy NAME [PARAM=VALUE..]`
//! makes a new policy; without it a block goes on with the policy of the block before. `#` begins a
//! comment. Fields have the names of the view's fields; those not given are 0. After a wanted
//! change, `cargo test -p forebay-engine --test policy_cases -- --ignored` writes the answers anew.
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "test data is read from the source tree")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use forebay_engine::policy::compaction::{self, CompactionPolicy};
use forebay_engine::policy::flush::{self, FlushPolicy};
use forebay_engine::policy::stall::{self, StallPolicy};
use forebay_engine::policy::view::{
    ChangeKind, FlushView, LevelsView, LoadView, StallLimits, TableFacts, TreeChange, TreeFacts,
    WriteView,
};
use forebay_engine::policy::{PolicyKind, PolicySpec};
use forebay_engine::types::{BranchId, TableId, TreeId};

/// The words and `name=value` fields of one line.
struct Line<'a> {
    words: Vec<&'a str>,
    fields: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn new(text: &'a str) -> Self {
        let (mut words, mut fields) = (Vec::new(), BTreeMap::new());
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => drop(fields.insert(name, value)),
                None => words.push(word),
            }
        }
        Self { words, fields }
    }

    /// Takes a field as a number, 0 where it is not given.
    fn take<T: TryFrom<u64>>(&mut self, name: &str) -> T {
        let value: u64 =
            self.fields.remove(name).map_or(0, |v| v.replace('_', "").parse().unwrap());
        T::try_from(value).ok().unwrap()
    }

    fn word(&self, place: usize) -> &'a str {
        self.words.get(place).copied().unwrap_or_default()
    }

    fn number(&self, place: usize) -> u64 {
        self.word(place).parse().unwrap()
    }

    /// Refuses fields that nothing took: they are typing errors.
    fn end(self) {
        assert!(self.fields.is_empty(), "unknown fields {:?}", self.fields);
    }

    fn spec(&self) -> PolicySpec {
        let mut spec = PolicySpec::named(self.word(1));
        for (name, value) in &self.fields {
            spec = spec.with(name, value.parse().unwrap());
        }
        spec
    }
}

/// Answers one block of input lines; keeps the policy between blocks.
trait Runner {
    fn run(&mut self, lines: Vec<Line<'_>>) -> String;
}

fn flush_view(line: &mut Line<'_>, view: &mut FlushView) {
    view.now_ns = line.take("now_ns");
    view.budget_bytes = line.take("budget_bytes");
    view.reserved_bytes = line.take("reserved_bytes");
    view.immutable_bytes = line.take("immutable_bytes");
    view.immutable_count = line.take("immutable_count");
    view.spooled_bytes = line.take("spooled_bytes");
    view.history_bytes = line.take("history_bytes");
    view.flushed_bytes = line.take("flushed_bytes");
    view.flush_job_count = match line.fields.get("flush_job_count") {
        Some(_) => line.take("flush_job_count"),
        None => view.immutable_count,
    };
    view.flush_slots = line.take("flush_slots");
    view.pack_bytes = line.take("pack_bytes");
    view.wal_bytes = line.take("wal_bytes");
    view.wal_bytes_max = line.take("wal_bytes_max");
    view.wal_oldest_segment = line.take("wal_oldest_segment");
    view.draw = line.take("draw");
}

#[derive(Default)]
struct FlushRunner(Option<Box<dyn FlushPolicy>>);

impl Runner for FlushRunner {
    fn run(&mut self, lines: Vec<Line<'_>>) -> String {
        let mut view = FlushView::default();
        for mut line in lines {
            match line.word(0) {
                "policy" => {
                    self.0 = Some(flush::build(&line.spec()).unwrap());
                    continue;
                }
                "view" => {
                    flush_view(&mut line, &mut view);
                }
                "tree" => {
                    let facts = TreeFacts {
                        tree: TreeId(line.number(1)),
                        memtable_bytes: line.take("memtable_bytes"),
                        memtable_bytes_max: line.take("memtable_bytes_max"),
                        immutable_bytes: line.take("immutable_bytes"),
                        immutable_count: line.take("immutable_count"),
                        memtable_created_ns: line.take("memtable_created_ns"),
                        written_bytes: line.take("written_bytes"),
                        wal_anchor_segment: line.take("wal_anchor_segment"),
                        l0_count: line.take("l0_count"),
                        first_write_ns: line.take("first_write_ns"),
                        last_write_ns: line.take("last_write_ns"),
                    };
                    view.mutable_bytes += facts.memtable_bytes;
                    if line.words.contains(&"written") {
                        view.written_slots.push(view.trees.len());
                    }
                    view.trees.push(facts);
                }
                other => panic!("unknown line {other:?}"),
            }
            line.end();
        }
        let policy = self.0.as_mut().unwrap();
        let mut copy = policy.clone();
        let decision = policy.decide(&view);
        assert_eq!(copy.decide(&view), decision, "a clone decides differently");
        let mut out = "flush".to_owned();
        for tree in &decision.flush {
            write!(out, " {tree}").unwrap();
        }
        if !decision.pack.is_empty() {
            out.push_str("\npack");
        }
        for tree in &decision.pack {
            write!(out, " {tree}").unwrap();
        }
        match decision.wake_at {
            Some(at) => writeln!(out, "\nwake_at {at}").unwrap(),
            None => writeln!(out, "\nwake_at none").unwrap(),
        }
        writeln!(out, "state {policy:?}").unwrap();
        out
    }
}

/// Each `change`, `load` and `write` line is told to the policy in turn.
#[derive(Default)]
struct StallRunner(Option<Box<dyn StallPolicy>>, StallLimits);

fn stall_limits(line: &mut Line<'_>) -> StallLimits {
    StallLimits {
        memtable_slowdown_count: line.take("memtable_slowdown_count"),
        memtable_stop_count: line.take("memtable_stop_count"),
        l0_slowdown_count: line.take("l0_slowdown_count"),
        l0_stop_count: line.take("l0_stop_count"),
        pending_compaction_slowdown_bytes: line.take("pending_compaction_slowdown_bytes"),
        pending_compaction_stop_bytes: line.take("pending_compaction_stop_bytes"),
        wal_bytes_stop: line.take("wal_bytes_stop"),
    }
}

fn write_view(line: &mut Line<'_>, limits: StallLimits) -> WriteView {
    let write_bytes = line.take("write_bytes");
    let tree_bytes = match line.fields.get("tree_bytes") {
        Some(_) => line.take("tree_bytes"),
        None => write_bytes,
    };
    WriteView {
        now_ns: line.take("now_ns"),
        tree: TreeId(line.take("tree")),
        branch: BranchId(line.take("branch")),
        draw: line.take("draw"),
        write_bytes,
        tree_bytes,
        budget_bytes: line.take("budget_bytes"),
        used_bytes: line.take("used_bytes"),
        mutable_bytes: line.take("mutable_bytes"),
        spooled_bytes: line.take("spooled_bytes"),
        history_bytes: line.take("history_bytes"),
        immutable_count: line.take("immutable_count"),
        l0_count: line.take("l0_count"),
        pending_compaction_bytes: line.take("pending_compaction_bytes"),
        pending_compaction_sum_bytes: line.take("pending_compaction_sum_bytes"),
        wal_bytes: line.take("wal_bytes"),
        delayed_ns: line.take("delayed_ns"),
        limits,
    }
}

fn tree_change(line: &mut Line<'_>, limits: StallLimits) -> TreeChange {
    let kind = match line.word(1) {
        "opened" => ChangeKind::Opened,
        "sealed" => ChangeKind::Sealed { bytes: line.take("bytes") },
        "flushed" => ChangeKind::Flushed {
            bytes: line.take("bytes"),
            table_bytes: line.take("table_bytes"),
            elapsed_ns: line.take("elapsed_ns"),
        },
        "compacted" => ChangeKind::Compacted {
            l0_input_bytes: line.take("l0_input_bytes"),
            input_bytes: line.take("input_bytes"),
            output_bytes: line.take("output_bytes"),
            elapsed_ns: line.take("elapsed_ns"),
        },
        "dropped" => ChangeKind::Dropped,
        other => panic!("unknown change {other:?}"),
    };
    TreeChange {
        now_ns: line.take("now_ns"),
        tree: TreeId(line.take("tree")),
        kind,
        immutable_count: line.take("immutable_count"),
        l0_count: line.take("l0_count"),
        pending_compaction_bytes: line.take("pending_compaction_bytes"),
        limits,
    }
}

impl Runner for StallRunner {
    fn run(&mut self, lines: Vec<Line<'_>>) -> String {
        let mut out = String::new();
        for mut line in lines {
            match line.word(0) {
                "policy" => {
                    self.0 = Some(stall::build(&line.spec()).unwrap());
                    continue;
                }
                "limits" => self.1 = stall_limits(&mut line),
                "write" => {
                    let view = write_view(&mut line, self.1);
                    let policy = self.0.as_mut().unwrap();
                    let mut copy = policy.clone();
                    let admission = policy.decide(&view);
                    assert_eq!(copy.decide(&view), admission, "a clone decides differently");
                    writeln!(out, "{admission:?}").unwrap();
                }
                "change" => {
                    let change = tree_change(&mut line, self.1);
                    if self.0.as_mut().unwrap().observe(&change) {
                        out.push_str("delays may end\n");
                    }
                }
                "load" => {
                    let view = LoadView {
                        now_ns: line.take("now_ns"),
                        budget_bytes: line.take("budget_bytes"),
                        used_bytes: line.take("used_bytes"),
                        spooled_bytes: line.take("spooled_bytes"),
                        history_bytes: line.take("history_bytes"),
                        pending_compaction_sum_bytes: line.take("pending_compaction_sum_bytes"),
                    };
                    writeln!(out, "{:?}", self.0.as_mut().unwrap().shares(&view)).unwrap();
                }
                other => panic!("unknown line {other:?}"),
            }
            line.end();
        }
        writeln!(out, "state {:?}", self.0.as_ref().unwrap()).unwrap();
        out
    }
}

#[derive(Default)]
struct CompactionRunner(Option<Box<dyn CompactionPolicy>>);

impl Runner for CompactionRunner {
    fn run(&mut self, lines: Vec<Line<'_>>) -> String {
        let mut view = LevelsView::default();
        for mut line in lines {
            match line.word(0) {
                "policy" => {
                    self.0 = Some(compaction::build(&line.spec()).unwrap());
                    continue;
                }
                "levels" => {
                    view.tree = TreeId(line.take("tree"));
                    view.now_ns = line.take("now_ns");
                    view.oldest_snapshot = line.take("oldest_snapshot");
                    view.l0_compaction_count = line.take("l0_compaction_count");
                    view.l0_slowdown_count = line.take("l0_slowdown_count");
                    view.level_base_bytes = line.take("level_base_bytes");
                    view.level_ratio = line.take("level_ratio");
                }
                "table" => {
                    let level = usize::try_from(line.number(1)).unwrap();
                    let (smallest, largest) = line.word(3).split_once("..").unwrap();
                    view.levels.resize(view.levels.len().max(level + 1), Vec::new());
                    view.levels[level].push(TableFacts {
                        table: TableId { file: line.number(2), offset: 0 },
                        bytes: line.take("bytes"),
                        entries: line.take("entries"),
                        tombstones: line.take("tombstones"),
                        tombstones_since_ns: line.take("tombstones_since_ns"),
                        max_seq: line.take("max_seq"),
                        smallest: Bytes::copy_from_slice(smallest.as_bytes()),
                        largest: Bytes::copy_from_slice(largest.as_bytes()),
                        compacting: line.word(4) == "compacting",
                    });
                }
                other => panic!("unknown line {other:?}"),
            }
            line.end();
        }
        let policy = self.0.as_mut().unwrap();
        let mut copy = policy.clone();
        let urgency = policy.urgency(&view);
        let mut out = format!("urgency {urgency}\npending_bytes {}\n", policy.pending_bytes(&view));
        if let Some(at) = policy.wake_at(&view) {
            writeln!(out, "wake_at {at}").unwrap();
        }
        let plan = policy.decide(&view);
        let idle = !view.levels.iter().flatten().any(|table| table.compacting);
        assert!(!idle || plan.is_some() == (urgency > 0), "urgency {urgency}, plan {plan:?}");
        assert_eq!(copy.decide(&view), plan, "a clone decides differently");
        match plan {
            None => out.push_str("no plan\n"),
            Some(plan) => {
                let word = if plan.trivial_move { "move" } else { "merge" };
                write!(out, "{word}").unwrap();
                for (level, table) in &plan.inputs {
                    write!(out, " L{level}:{}", table.file).unwrap();
                }
                writeln!(out, " -> L{}", plan.level_to).unwrap();
            }
        }
        writeln!(out, "state {policy:?}").unwrap();
        out
    }
}

fn runner(kind: PolicyKind) -> Box<dyn Runner> {
    match kind {
        PolicyKind::Flush => Box::new(FlushRunner::default()),
        PolicyKind::Stall => Box::new(StallRunner::default()),
        PolicyKind::Compaction => Box::new(CompactionRunner::default()),
    }
}

fn path(kind: PolicyKind, name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/policy");
    root.join(kind.name()).join(format!("{name}.txt"))
}

/// The file's text with every answer as the policy gives it now.
fn answered(kind: PolicyKind, text: &str) -> String {
    let mut runner = runner(kind);
    let blocks = text.split("\n\n").map(str::trim).filter(|block| !block.is_empty());
    let answered: Vec<String> = blocks
        .map(|block| {
            let input: Vec<&str> = block.lines().take_while(|line| *line != "----").collect();
            let lines: Vec<Line<'_>> = input
                .iter()
                .filter(|line| !line.starts_with('#'))
                .map(|line| Line::new(line))
                .collect();
            if lines.is_empty() {
                return format!("{}\n", input.join("\n"));
            }
            format!("{}\n----\n{}", input.join("\n"), runner.run(lines))
        })
        .collect();
    answered.join("\n")
}

#[test]
fn every_policy_answers_its_text_case() {
    for kind in PolicyKind::ALL {
        for info in kind.list() {
            let path = path(kind, info.name);
            let text = fs::read_to_string(&path).unwrap_or_else(|e| {
                panic!("{}: every policy has a text case: {e}", path.display())
            });
            assert!(text.contains(&format!("policy {}", info.name)), "{}", path.display());
            assert_eq!(answered(kind, &text), text, "{}", path.display());
        }
    }
}

#[test]
fn every_text_case_belongs_to_a_policy() {
    for kind in PolicyKind::ALL {
        let folder = path(kind, "x").parent().unwrap().to_owned();
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            kind.info(name).unwrap();
        }
    }
}

#[test]
#[ignore = "writes the answers of today into testdata/policy"]
fn rewrite() {
    for kind in PolicyKind::ALL {
        for info in kind.list() {
            let path = path(kind, info.name);
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, answered(kind, &text)).unwrap();
        }
    }
}

#[test]
fn lists_have_unique_names_and_defaults_within_bounds() {
    for kind in PolicyKind::ALL {
        let mut names: Vec<&str> = kind.list().iter().map(|info| info.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for info in kind.list() {
            for param in info.params {
                param.check(info.name, param.default).unwrap();
            }
            kind.check(&PolicySpec::named(info.name)).unwrap();
            let wrong = PolicySpec::named(info.name).with("no_such_param", 1.0);
            assert!(kind.check(&wrong).is_err());
        }
        assert!(kind.check(&PolicySpec::named("no-such-policy")).is_err());
    }
}
