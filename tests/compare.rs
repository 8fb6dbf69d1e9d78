#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests look at files as a person would")]
//! Strategy: one small experiment is run, its rows are changed by hand into those of another build,
//! and both are compared.
//!
//! Invariants: equal rows never fail; a regression beyond its gate ends with 5; what cannot be
//! compared is refused with 4 in one line.

mod program;
mod small;

use std::fs;
use std::path::Path;

use forebay::record::{RunRow, World, read_runs, write_runs};
use program::{folder_with, forebay, refused, text};
use small::small;

const HEAD: &str = "title = \"small\"\nbaseline = \"shared\"\nseeds = \"0..4\"";

/// A folder with `base` as a run left it.
fn base() -> tempfile::TempDir {
    let folder = folder_with(&[("small.toml", &small(HEAD, ""))]);
    let run = forebay(folder.path(), &["run", "small.toml", "--out", "base", "-q"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    // Several seeds: the run's own summary has the verdicts.
    let shown = text(&run.stdout);
    assert!(shown.contains("Against shared on the same seeds"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    let args = ["run", "small.toml", "--out", "base", "--resume", "-q", "--format", "json"];
    let shown = text(&forebay(folder.path(), &args).stdout);
    let last: serde_json::Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
    let lines = last["against_baseline"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[0]["arm"]), (5, &"per-tenant".into()));
    folder
}

/// Rows of `base` with a change, as file NAME.
fn changed(folder: &Path, name: &str, change: impl Fn(&mut RunRow)) {
    let mut rows = read_runs(&folder.join("base/runs.jsonl")).unwrap();
    rows.iter_mut().for_each(change);
    write_runs(&folder.join(name), &rows).unwrap();
}

fn slow(row: &mut RunRow) {
    if row.arm == "shared" {
        row.write_latency_ns.p999 +=
            (row.write_latency_ns.p999 * 3).div_euclid(10) + row.seed * 1000;
    }
}

#[test]
fn a_regression_ends_with_5_and_equal_or_noisy_rows_with_0() {
    let folder = base();
    let here = folder.path();
    changed(here, "slow.jsonl", slow);
    changed(here, "noisy.jsonl", |row| {
        let n = row.write_latency_ns.p999;
        row.write_latency_ns.p999 = if row.seed % 2 == 0 { n * 2 } else { (n * 2).div_euclid(3) };
    });
    let compare = |new: &str, more: &[&str]| {
        let output = forebay(here, &[&["compare", "base", new], more].concat());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let gate = ["--gate", "p999:+5%", "--gate", "throughput:-2%"];
    let (code, shown, _) = compare("base", &gate);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("4 paired seeds") && !shown.contains("WORSE"), "{shown}");
    let (code, shown, said) = compare("slow.jsonl", &gate);
    assert_eq!((code, said.as_str()), (Some(5), ""), "{shown}");
    let line = shown.lines().find(|line| line.contains("WORSE")).unwrap();
    assert!(line.contains("p99.9") && line.contains("+30%") && line.contains("> gate"), "{shown}");
    assert!(
        shown.ends_with("(virtual time: exact, running again will not change it)\n"),
        "{shown}"
    );
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    // Without a gate, or with a wider one, it is told and nothing fails.
    assert_eq!(compare("slow.jsonl", &[]).0, Some(0));
    assert_eq!(compare("slow.jsonl", &["--gate", "p999:+50%"]).0, Some(0));
    assert_eq!(compare("slow.jsonl", &["--gate", "p99:+5%"]).0, Some(0));
    // Its mean is far beyond the gate, but its interval holds 0.
    let (code, shown, _) = compare("noisy.jsonl", &gate);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("inconclusive"), "{shown}");
    // Programs read the same.
    let args = ["--gate", "p999:+5%", "--metric", "p999", "--format"];
    let (code, shown, _) = compare("slow.jsonl", &[&args[..], &["csv"]].concat());
    assert_eq!((code, shown.lines().count()), (Some(5), 3), "{shown}");
    assert!(shown.lines().nth(2).unwrap().ends_with(",share,4,worse,true"), "{shown}");
    let (_, shown, _) = compare("slow.jsonl", &[&args[..], &["json"]].concat());
    let last: serde_json::Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["schema"], &last["regressions"]),
        (&"forebay.compare-summary/1".into(), &1.into())
    );
    // A run that fails in the new build is a regression of every gate.
    changed(here, "broken.jsonl", |row| {
        if row.seed == 3 {
            row.outcome = forebay::record::Outcome::Fail;
        }
    });
    let (code, shown, _) = compare("broken.jsonl", &gate);
    assert!(shown.contains("Passed in the base and not since: per-tenant seed 3"), "{shown}");
    assert_eq!((code, compare("broken.jsonl", &[]).0), (Some(5), Some(0)));
}

#[test]
fn one_seed_cannot_fail_a_gate() {
    let folder = base();
    let here = folder.path();
    changed(here, "slow.jsonl", slow);
    let rows = read_runs(&here.join("slow.jsonl")).unwrap();
    let one: Vec<RunRow> = rows.into_iter().filter(|row| row.seed == 0).collect();
    write_runs(&here.join("one.jsonl"), &one).unwrap();
    let output = forebay(here, &["compare", "base", "one.jsonl", "--gate", "p999:+5%"]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(shown.contains("One paired seed has no interval"), "{shown}");
    assert!(shown.contains("one seed") && shown.contains("inconclusive"), "{shown}");
}

#[test]
fn arms_of_one_run_are_held_against_its_baseline() {
    let folder = base();
    let here = folder.path();
    let shown = text(&forebay(here, &["compare", "base", "--metric", "flushes"]).stdout);
    assert!(shown.contains("Arms against shared") && shown.contains("per-tenant"), "{shown}");
    let args = ["compare", "base", "--baseline", "per-tenant", "--gate", "flushes:+5%"];
    let shown = text(&forebay(here, &args).stdout);
    assert!(shown.contains("Arms against per-tenant"), "{shown}");
    refused(here, &["compare", "base", "--baseline", "x"], 2, &["\"x\" is no arm", "shared"]);
}

#[test]
fn what_is_not_comparable_is_refused() {
    let folder = base();
    let here = folder.path();
    let not = |name: &str, what: &[&str]| refused(here, &["compare", "base", name], 4, what);
    changed(here, "a.jsonl", |row| row.experiment = "other".to_owned());
    not("a.jsonl", &["experiment differs: \"small\" against \"other\""]);
    changed(here, "b.jsonl", |row| row.world = World::Os);
    not("b.jsonl", &["world differs: \"sim\" against \"os\""]);
    changed(here, "c.jsonl", |row| {
        row.params.insert("tenant_count".to_owned(), forebay::record::Param::Integer(21));
    });
    not("c.jsonl", &["per-tenant", "tenant_count is 20 against 21", "not comparable"]);
    changed(here, "d.jsonl", |row| row.seed += 100);
    not("d.jsonl", &["no arm and seed"]);
    let rows = fs::read_to_string(here.join("base/runs.jsonl")).unwrap();
    fs::write(here.join("e.jsonl"), rows.replace("forebay.run/1", "forebay.run/2")).unwrap();
    not("e.jsonl", &["e.jsonl:1", "forebay.run/2"]);
    fs::write(here.join("f.jsonl"), "").unwrap();
    not("f.jsonl", &["no rows"]);
    refused(here, &["compare", "base", "none"], 2, &["none"]);
    let bad = |flag: &str, value: &str, what: &[&str]| {
        refused(here, &["compare", "base", "base", flag, value], 2, what);
    };
    bad("--metric", "latency", &["latency", "throughput, p50"]);
    bad("--gate", "p999:-5%", &["p999:+N%"]);
    bad("--gate", "p999", &["METRIC:+N%"]);
}
