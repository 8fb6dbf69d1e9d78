#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests look at files as a person would")]
//! Strategy: small runs of benchmarks by the command line, one recorded and replayed, one in two
//! phases, one offered more than it can serve.
//!
//! Invariants: a replay has the trace hash of what was recorded; what is not one stream is not
//! recorded; a damaged file is one line with its place; what two phases found and what a queue does
//! that grows stands in row, table and page.

mod program;

use std::fs;
use std::path::Path;

use program::{folder_with, forebay, refused, text};
use serde_json::Value;

const SMALL: &str = r#"
title = "small"
question = "Is it the same again?"
seeds = "4..5"
[options]
budget_bytes = 524_288
memtable_bytes_max = 65_536
wal_segment_bytes = 65_536
table_bytes_max = 32_768
block_cache_bytes = 131_072
[device]
scale = 20_000
[workload]
name = "ycsb-e"
tenant_count = 8
offered_ops_per_s = 100
[stop]
fill_count = 0
warmup_fill_count = 0
op_count = 400
[arms]
layout = ["per-tenant", "shared"]
"#;

fn row(folder: &Path) -> Value {
    let rows = fs::read_to_string(folder.join("out/runs.jsonl")).unwrap();
    assert_eq!(rows.lines().count(), 1);
    serde_json::from_str(rows.lines().next().unwrap()).unwrap()
}

fn run(folder: &Path, more: &[&str]) -> String {
    let args = ["run", "small.toml", "--out", "out", "-q", "-s", "layout=shared"];
    let output = forebay(folder, &[&args, more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn what_was_recorded_is_replayed_with_the_same_trace_hash() {
    let folder = folder_with(&[("small.toml", SMALL)]);
    let here = folder.path();
    run(here, &["--record-ops", "ops.txt"]);
    let first = row(here);
    let ops = fs::read_to_string(here.join("ops.txt")).unwrap();
    assert!(ops.starts_with("forebay-ops 1\narrival open 100\norder "), "{ops}");
    assert!(ops.contains("\ntenant t0000-rank") && ops.contains("\nend 4"));
    let kinds: Vec<&str> =
        first["kinds"].as_array().unwrap().iter().map(|k| k["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["scan", "insert"]);
    let hist = fs::read_to_string(here.join("out/hist.jsonl")).unwrap();
    assert!(hist.contains("\"op\":\"scan\",\"class\":\""));

    let replay = ["-s", "workload=trace", "-s", "workload_file=ops.txt"];
    run(here, &replay);
    let second = row(here);
    assert_eq!(second["trace_hash"], first["trace_hash"]);
    assert_eq!(second["ops"], first["ops"]);
    assert_ne!(second["config_hash"], first["config_hash"]);
    assert_eq!(second["params"]["workload_file"], "ops.txt");
    assert!(first["params"].get("workload_file").is_none());
    // The file's bytes are part of the configuration: another file is another configuration.
    fs::write(here.join("ops.txt"), ops.replacen(" i ", " p ", 1)).unwrap();
    run(here, &replay);
    assert_ne!(row(here)["config_hash"], second["config_hash"]);
}

#[test]
fn what_cannot_be_recorded_or_replayed_is_one_line() {
    let folder = folder_with(&[
        ("small.toml", SMALL),
        (
            "cut.txt",
            "forebay-ops 1\narrival closed\norder -\nvalues fixed\ntenant a 4 9 9 9\nops\n",
        ),
    ]);
    let here = folder.path();
    let record = ["run", "small.toml", "--record-ops", "ops.txt"];
    refused(here, &record, 2, &["--record-ops", "one run", "2 are selected"]);
    let one = [record.as_slice(), &["-s", "layout=shared"]].concat();
    let with = |more: &[&'static str]| [one.as_slice(), more].concat();
    let visitors = with(&["-s", "workload=come-and-go"]);
    refused(here, &visitors, 2, &["--record-ops", "visitors"]);
    let phases = with(&["-s", "two_phase_percent=95", "-s", "offered_ops_per_s=0"]);
    refused(here, &phases, 2, &["--record-ops", "two phases"]);

    let replay = |more: &[&'static str]| [["run", "small.toml"].as_slice(), more].concat();
    let no_file = replay(&["-s", "workload=trace"]);
    refused(here, &no_file, 2, &["set workload_file"]);
    let cut = replay(&["-s", "workload=trace", "-s", "workload_file=cut.txt"]);
    refused(here, &cut, 2, &["cut.txt", "line 7", "ends before"]);
    let gone = replay(&["-s", "workload_file=gone.txt"]);
    refused(here, &gone, 2, &["workload_file", "gone.txt"]);
    let both = replay(&["-s", "two_phase_percent=95"]);
    refused(here, &both, 2, &["two_phase_percent", "offered_ops_per_s"]);
}

#[test]
fn two_phases_are_one_run_that_tells_the_maximum() {
    let folder = folder_with(&[("small.toml", SMALL)]);
    let here = folder.path();
    let two = ["-s", "workload=ycsb-a", "-s", "offered_ops_per_s=0"];
    run(here, &two);
    assert!(row(here).get("max_ops_per_s").is_none());
    let two = [two.as_slice(), &["-s", "two_phase_percent=50"]].concat();
    let shown = run(here, &two);
    let row = row(here);
    let most = row["max_ops_per_s"].as_f64().unwrap();
    let offered = row["offered_ops_per_s"].as_f64().unwrap();
    assert!((offered - (most / 2.0).floor()).abs() < 1.0, "{offered} of {most}");
    assert_eq!(row["params"]["two_phase_percent"], 50);
    assert!(shown.contains("Closed loop first, for the maximum: "), "{shown}");
    assert!(!shown.contains("latencies are too kind"), "{shown}");
}

#[test]
fn a_queue_that_grows_is_told_in_words_in_place_of_a_percentile() {
    let folder = folder_with(&[("small.toml", SMALL)]);
    let here = folder.path();
    let writes = ["-s", "workload=overwrite", "-s", "op_count=1000", "-s", "device_scale=50000"];
    let small = ["-s", "budget_bytes=128KiB", "-s", "memtable_bytes_max=32KiB"];
    let rate = ["-s", "offered_ops_per_s=2000"];
    let shown = run(here, &[writes.as_slice(), &small, &rate].concat());
    let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("shared offered 2.00k/s, served "), "{shown}");
    assert!(flat.contains(": the queue grows without bound"), "{shown}");
    assert!(flat.contains(" grows grows "), "{shown}");
    let page = fs::read_to_string(here.join("out/report.html")).unwrap();
    assert!(page.contains("the queue grows without bound"));
}

/// The blocks of a page that begin with these words.
fn blocks(page: &str, start: &str) -> Vec<String> {
    let blocks = page.split("```").skip(1).step_by(2);
    let of = |block: &str| Some(block.split_once('\n')?.1.to_owned());
    blocks.filter_map(of).filter(|block| block.starts_with(start)).collect()
}

#[test]
fn the_page_on_workloads_tells_a_trace_that_is_one_and_a_command_that_records() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/workloads.md");
    let page = fs::read_to_string(page).unwrap();
    let [example] = &blocks(&page, "forebay-ops 1")[..] else { unreachable!("one example") };
    assert_eq!(forebay_workloads::Trace::read(example.as_bytes()).unwrap().op_count(), 3);
    let [command] = &blocks(&page, "forebay run")[..] else { unreachable!("one command") };
    let folder = folder_with(&[]);
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/demo.toml");
    fs::create_dir(folder.path().join("experiments")).unwrap();
    fs::copy(demo, folder.path().join("experiments/demo.toml")).unwrap();
    let args: Vec<&str> = command.split_whitespace().skip(1).collect();
    let output = forebay(folder.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let ops = fs::read_to_string(folder.path().join("ops.txt")).unwrap();
    assert!(ops.starts_with("forebay-ops 1\narrival open 652\n"));
    let names = forebay_workloads::list().iter().map(|info| info.name);
    assert!(names.clone().count() > 20);
    for name in names {
        assert!(page.contains(&format!("`{name}`")) || name.starts_with("ycsb-"), "{name}");
    }
}
