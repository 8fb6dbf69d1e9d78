#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests look at files as a person would")]
//! Strategy: a small experiment is run, blessed, checked and spoilt, and so are the repository's
//! own results.
//!
//! Invariants: blessed results are what their rows make; one changed row is told as its cells with
//! exit 1; a run made again has the committed rows; what is not a whole run is not blessed.

mod program;
mod small;

use std::fs;
use std::path::Path;

use forebay::record::{Param, World};
use forebay::results::{Provenance, raw};
use program::{folder_with, forebay, refused, text};
use small::small;

const HEAD: &str = r#"
title = "small"
question = "Does one layout stall less than another?"
baseline = "per-tenant"
seeds = "0..2"
"#;

const FIGURES: &str = r#"
[[figure]]
kind = "bars"
metric = "p999"
[[figure]]
kind = "heat"
name = "stalls"
metric = "stall"
x = "tenant_count"
by = "layout"
"#;

fn blessed() -> tempfile::TempDir {
    let folder = folder_with(&[("small.toml", &small(HEAD, FIGURES))]);
    let run = forebay(folder.path(), &["run", "small.toml", "--out", "out", "-q"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let output = forebay(folder.path(), &["bless", "out"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.starts_with("results/small: 4 runs, 6 tables and figures, "), "{shown}");
    folder
}

/// Changes the row of an arm and a seed among the packed rows.
fn change_row(folder: &Path, (arm, seed): (&str, u64), from: &str, to: &str) {
    let path = folder.join("raw/runs.jsonl.gz");
    let is_it = |line: &str| line.contains(&format!("\"arm\":\"{arm}\",\"seed\":{seed},"));
    let mut count = 0;
    let rows: String = raw::text(&path)
        .unwrap()
        .lines()
        .map(|line| {
            count += usize::from(is_it(line));
            let line = if is_it(line) { line.replacen(from, to, 1) } else { line.to_owned() };
            line + "\n"
        })
        .collect();
    assert_eq!(count, 1);
    raw::pack(&path, &rows).unwrap();
}

#[test]
fn blessed_results_hold_until_a_row_or_a_table_changes() {
    let folder = blessed();
    let here = folder.path();
    let names = |sub: &str| {
        let entries = fs::read_dir(here.join("results/small").join(sub)).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["experiment.toml", "figures", "provenance.json", "raw", "tables"]);
    assert_eq!(names("raw"), ["hist.jsonl.gz", "runs.jsonl.gz", "series.csv.gz"]);
    assert_eq!(names("figures"), ["1-p999.svg", "stalls.svg"]);
    // Folders without an experiment are passed over.
    fs::create_dir_all(here.join("results/notes")).unwrap();
    let check = ["report", "--check", "results"];
    let same = forebay(here, &check);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stdout));
    assert_eq!(text(&same.stdout), "results/small: 6 files are what its rows make\n");

    change_row(&here.join("results/small"), ("shared", 1), "\"flush_count\":", "\"flush_count\":9");
    let differs = forebay(here, &check);
    let shown = text(&differs.stdout);
    assert_eq!(differs.status.code(), Some(1), "{shown}");
    assert!(shown.contains("\n  shared seed 1 flushes_count "), "{shown}");
    assert!(shown.contains(" -> 9") && shown.contains("%)"), "{shown}");
    assert!(shown.contains("\n  shared flushes_count "), "the median: {shown}");
    assert!(!shown.contains("seed 0") && !shown.contains("stalls.svg"), "{shown}");
    let line = text(&differs.stderr);
    assert_eq!(line, "1 of 1 folders differ\n");

    // Made again of the changed rows all is well, and a file that nothing makes is told.
    let again = forebay(here, &["report", "results/small"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert!(here.join("results/small/report.html").is_file());
    assert_eq!(forebay(here, &check).status.code(), Some(0));
    fs::write(here.join("results/small/figures/old.svg"), "<svg/>").unwrap();
    fs::remove_file(here.join("results/small/tables/arms.csv")).unwrap();
    let shown = text(&forebay(here, &check).stdout);
    assert!(shown.contains("figures/old.svg is made by nothing"), "{shown}");
    assert!(shown.contains("tables/arms.csv is not there"), "{shown}");
    // A setting that was edited since.
    let file = here.join("results/small/experiment.toml");
    fs::write(&file, small(HEAD, FIGURES).replace("tenant_count = 20", "tenant_count = 25"))
        .unwrap();
    let shown = text(&forebay(here, &check).stdout);
    let line = "  shared: tenant_count 20 -> 25 (+25.0%) in experiment.toml since its rows\n";
    assert!(shown.contains(line), "{shown}");
    refused(here, &["report", "--check", "results/notes"], 4, &["experiment.toml"]);
    refused(here, &["report", "results/notes"], 2, &["experiment.toml"]);
}

#[test]
fn runs_made_again_have_the_blessed_rows() {
    let folder = blessed();
    let here = folder.path();
    let check =
        ["run", "results/small/experiment.toml", "--only-seeds", "1..2", "--check-raw", "-q"];
    let same = forebay(here, &check);
    assert_eq!(same.status.code(), Some(0), "{}{}", text(&same.stdout), text(&same.stderr));
    assert_eq!(text(&same.stdout), "2 rows are the same\n");
    change_row(&here.join("results/small"), ("shared", 1), "\"flush_count\":", "\"flush_count\":9");
    let differs = forebay(here, &check);
    let shown = text(&differs.stdout);
    assert_eq!(differs.status.code(), Some(1));
    assert!(shown.starts_with("shared seed 1: flush_count 9"), "{shown}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
    let none = [&check[..2], &["--only-seeds", "5..6", "--check-raw"]].concat();
    refused(here, &none, 4, &["selects none"]);
}

#[test]
fn only_a_whole_run_of_the_file_is_blessed_and_changes_are_told() {
    let folder = folder_with(&[("small.toml", &small(HEAD, FIGURES))]);
    let here = folder.path();
    let run = |more: &[&str]| {
        let output = forebay(here, &[&["run", "small.toml", "--out", "out", "-q"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    };
    refused(here, &["bless", "none"], 2, &["none/experiment.toml"]);
    run(&["--seeds", "0..1"]);
    refused(here, &["bless", "out"], 2, &["per-tenant seed 1: no row", "not the whole"]);
    run(&["-s", "tenant_count=10"]);
    refused(here, &["bless", "out"], 2, &["per-tenant seed 0", "other settings"]);
    run(&[]);
    assert_eq!(forebay(here, &["bless", "out"]).status.code(), Some(0));
    let first = fs::read(here.join("results/small/raw/runs.jsonl.gz")).unwrap();
    change_row(&here.join("results/small"), ("shared", 1), "\"flush_count\":", "\"flush_count\":9");
    assert_eq!(forebay(here, &["report", "results/small"]).status.code(), Some(0));
    let again = text(&forebay(here, &["bless", "out"]).stdout);
    assert!(again.contains("  shared seed 1 flushes_count 9"), "{again}");
    assert_eq!(fs::read(here.join("results/small/raw/runs.jsonl.gz")).unwrap(), first);
    // A run that lies where it goes is packed in place, not what was packed before.
    change_row(&here.join("results/small"), ("shared", 1), "\"flush_count\":", "\"flush_count\":9");
    let output = forebay(here, &["run", "small.toml", "--out", "results/small", "-q"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(here.join("results/small/runs.jsonl").exists());
    assert_eq!(forebay(here, &["bless", "results/small"]).status.code(), Some(0));
    assert!(!here.join("results/small/runs.jsonl").exists());
    assert_eq!(fs::read(here.join("results/small/raw/runs.jsonl.gz")).unwrap(), first);
    assert_eq!(forebay(here, &["report", "--check", "results"]).status.code(), Some(0));
}

#[test]
fn runs_by_the_wall_clock_lie_apart_and_are_not_checked() {
    let folder = blessed();
    let here = folder.path();
    let fast =
        small(HEAD, FIGURES).replace("offered_ops_per_s = 200", "offered_ops_per_s = 20_000");
    fs::write(here.join("small.toml"), fast).unwrap();
    let run = ["run", "small.toml", "--world", "os", "--out", "wall", "-q"];
    let output = forebay(here, &run);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = forebay(here, &["bless", "wall"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("results/small/wall: 4 runs by the wall clock"));
    let summary = fs::read_to_string(here.join("results/small/tables/summary.md")).unwrap();
    assert!(
        summary.ends_with("\n4 runs by the wall clock had other settings and are not compared.\n")
    );
    assert!(!here.join("results/small/tables/sim-or-real.csv").exists());
    let rows = raw::rows(&here.join("results/small/wall/runs.jsonl.gz")).unwrap();
    assert!(rows.len() == 4 && rows.iter().all(|row| row.world == World::Os));
    let origin = Provenance::of_folder(&here.join("results/small/wall")).unwrap();
    assert!(origin.host.contains(" x ") && origin.world == World::Os, "{origin:?}");
    assert_eq!(forebay(here, &["report", "--check", "results"]).status.code(), Some(0));
    // As if the simulated runs had been asked the same: what stands beside them is checked.
    let mut same = String::new();
    for mut row in rows {
        row.params.insert("offered_ops_per_s".to_owned(), Param::Integer(200));
        same += &row.to_line().unwrap();
    }
    raw::pack(&here.join("results/small/wall/runs.jsonl.gz"), &same).unwrap();
    let shown = text(&forebay(here, &["report", "--check", "results"]).stdout);
    assert!(shown.contains("tables/sim-or-real.csv is not there"), "{shown}");
    assert_eq!(forebay(here, &["report", "results/small"]).status.code(), Some(0));
    let table = here.join("results/small/tables/sim-or-real.csv");
    let made = fs::read_to_string(&table).unwrap();
    assert_eq!(made.lines().count(), 1 + 2 * 5, "{made}");
    fs::write(&table, made.replacen(",2,2\n", ",2,1\n", 1)).unwrap();
    let shown = text(&forebay(here, &["report", "--check", "results"]).stdout);
    assert!(shown.contains("flushes_count simulated_runs 1 -> 2"), "{shown}");
    // Two machines are not compared.
    fs::create_dir(here.join("other")).unwrap();
    fs::copy(here.join("wall/runs.wall.jsonl"), here.join("other/runs.wall.jsonl")).unwrap();
    Provenance { host: "another".to_owned(), ..origin }.write(&here.join("other")).unwrap();
    refused(here, &["compare", "wall", "other"], 4, &["host differs", "another"]);
}

#[test]
fn the_repositorys_results_are_what_their_rows_make() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let output = forebay(&results, &["report", "--check", "."]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    for entry in fs::read_dir(&results).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let Ok(kept) = fs::read_to_string(folder.join("experiment.toml")) else { continue };
        let asked = results.with_file_name("experiments").join(format!("{name}.toml"));
        assert!(fs::read_to_string(asked).unwrap() == kept, "{name}: bless it again");
    }
}
