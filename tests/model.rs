//! `forebay model` as people call it: refusals in one line, the same bytes again, rows that come
//! back, and how far it is from the engine.

#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests look at files as a person would")]

mod program;

use std::fs;

use program::{folder_with, forebay, refused, text};

const SMALL: &str = r#"
title = "small"
baseline = "oldest-write"
seeds = "0..2"
[full]
tenant_count = 500
budget_bytes = 4_194_304
memtable_bytes_max = 524_288
offered_ops_per_s = 10_000
[options]
budget_bytes = 1_048_576
memtable_bytes_max = 131_072
wal_segment_bytes = 65_536
table_bytes_max = 32_768
block_cache_bytes = 131_072
stall_policy = "hard"
[device]
preset = "nvme"
scale = 20_000
[workload]
name = "steady-zipf"
tenant_count = 100
offered_ops_per_s = 400
params.write_ratio = 0.9
params.data_share_ratio = 0.5
[stop]
fill_count = 6
warmup_fill_count = 2
[arms]
flush_policy = ["oldest-write", "largest"]
"#;

#[test]
fn wrong_input_is_refused_in_one_line_and_nothing_is_written() {
    let folder = folder_with(&[("small.toml", SMALL)]);
    let here = folder.path();
    let model = ["model", "small.toml"];
    let with = |more: &[&'static str]| [model.as_slice(), more].concat();
    refused(here, &["model", "none.toml"], 2, &["none.toml"]);
    refused(here, &with(&["-s", "flush_policy=oldest"]), 2, &["oldest-write"]);
    refused(here, &with(&["-s", "offered_ops_per_s=0"]), 2, &["offered_ops_per_s"]);
    refused(here, &with(&["-s", "relog=true"]), 2, &["relog"]);
    refused(here, &with(&["-s", "tenant_count=0"]), 2, &["tenant_count"]);
    refused(here, &with(&["--only-seeds", "7..9"]), 4, &["seeds 0..2"]);
    refused(here, &with(&["--unit", "x"]), 2, &["--unit"]);
    refused(here, &with(&["--out", "small.toml/out"]), 2, &["small.toml/out"]);
    let typo = SMALL.replace("\nfill_count", "\nfill");
    let typo = folder_with(&[("small.toml", &typo)]);
    refused(typo.path(), &model, 2, &["\"fill\""]);
}

#[test]
fn a_dry_run_names_the_runs_and_writes_nothing() {
    let folder = folder_with(&[("small.toml", SMALL)]);
    let dry = forebay(folder.path(), &["model", "small.toml", "--dry-run"]);
    assert_eq!(dry.status.code(), Some(0), "{}", text(&dry.stderr));
    assert_eq!(text(&dry.stdout).matches("  seed ").count(), 4, "{}", text(&dry.stdout));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_model_is_of_the_full_machine_and_the_same_bytes_on_any_number_of_threads() {
    let folder = folder_with(&[("small.toml", SMALL)]);
    let here = folder.path();
    let first = forebay(here, &["model", "small.toml", "--out", "a", "-j", "2"]);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let shown = text(&first.stdout);
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    assert_eq!(shown.lines().last(), Some("a/model.jsonl"));
    let read = |path: &str| fs::read_to_string(here.join(path)).unwrap();
    let rows = read("a/model.jsonl");
    assert_eq!(rows.matches("\"schema\":\"forebay.model/1\"").count(), 4);
    assert_eq!(rows.matches("\"budget_bytes\":4194304").count(), 4);
    assert_eq!(rows.matches("\"tree_count\":500,").count(), 4);

    // A file that lost rows, and one thread.
    fs::create_dir(here.join("b")).unwrap();
    fs::write(here.join("b/model.jsonl"), format!("{}\n", rows.lines().nth(2).unwrap())).unwrap();
    let args = ["model", "small.toml", "--out", "b", "-j", "1", "--resume", "-v"];
    let again = forebay(here, &args);
    assert_eq!(text(&again.stderr).matches("pass ").count(), 3, "{}", text(&again.stderr));
    assert!(rows == read("b/model.jsonl"), "rows differ");

    // A flag replaces what [full] says; the replay line makes the same row.
    let args = ["model", "small.toml", "--out", "c", "--format", "json", "-q"];
    let flags = ["-s", "tenant_count=50", "-s", "flush_policy=largest", "--seeds", "3..4"];
    let one = text(&forebay(here, &[&args[..], &flags].concat()).stdout);
    let objects: Vec<serde_json::Value> =
        one.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((objects.len(), objects[0]["tree_count"].as_u64()), (2, Some(50)));
    assert_eq!(objects[1]["schema"], "forebay.model-summary/1");
    let replay = objects[0]["replay"].as_str().unwrap();
    let line = "forebay model small.toml -s tenant_count=50 -s flush_policy=largest --seeds 3..4";
    assert_eq!(replay, line);
    let args: Vec<&str> = replay.split(' ').skip(1).chain(["--format", "json", "-q"]).collect();
    assert_eq!(text(&forebay(here, &args).stdout).lines().next(), one.lines().next());

    let csv = text(
        &forebay(here, &["model", "small.toml", "--out", "a", "--resume", "-q", "--format", "csv"])
            .stdout,
    );
    assert_eq!(csv.lines().count(), 5);
    let cells = csv.lines().map(|line| line.split(',').count());
    assert!(cells.into_iter().all(|count| count == 23), "{csv}");
}

#[test]
fn model_and_engine_agree_on_flushes_and_their_sizes() {
    let folder = folder_with(&[("small.toml", SMALL)]);
    let args = ["model", "small.toml", "--check-engine", "--out", "o", "-q"];
    let output = forebay(folder.path(), &[&args[..], &["--format", "csv"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert_eq!(shown.lines().count(), 5, "{shown}");
    for line in shown.lines().skip(1) {
        let mut cells = line.split(',').skip(2).map(|cell| cell.parse::<f64>().unwrap());
        while let (Some(engine), Some(model)) = (cells.next(), cells.next()) {
            assert!((model / engine - 1.0).abs() < 0.05, "{line}: {model} for {engine}");
        }
    }
    let rows = fs::read_to_string(folder.path().join("o/model-check.jsonl")).unwrap();
    assert_eq!(rows.matches("\"schema\":\"forebay.model-check/1\"").count(), 4);
}
