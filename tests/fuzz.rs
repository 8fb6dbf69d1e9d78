//! `fuzz`, `replay` and `keep` as people call them: exit codes, lines that can be pasted, files.

#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests look at files as a person would")]

mod program;

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use program::{folder_with, forebay, refused, text};

fn json_lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder with the failure file of a planted bug, and what was said about it.
fn with_failure() -> (tempfile::TempDir, String) {
    let folder = folder_with(&[]);
    let output =
        forebay(folder.path(), &["fuzz", "--bug", "wal-skip-sync", "--seeds", "0..20", "-q"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    (folder, shown)
}

/// The rule that the first line of a report names.
fn rule_of(shown: &str) -> String {
    let first = shown.lines().next().unwrap();
    first.split_once("[rule ").unwrap().1.split(']').next().unwrap().to_owned()
}

fn line_of<'a>(shown: &'a str, name: &str) -> &'a str {
    shown.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim()
}

#[test]
fn wrong_input_is_refused_in_one_line_and_nothing_is_written() {
    let folder = folder_with(&[("taken", "{}")]);
    let here = folder.path();
    refused(here, &["fuzz", "--seeds", "5..5"], 2, &["5..5", "empty", "A..B"]);
    refused(here, &["fuzz", "--seeds", "9..3"], 2, &["9..3", "empty", "A..B"]);
    refused(here, &["fuzz", "--bug", "wal-skip"], 2, &["wal-skip", "wal-skip-sync", "unseeded"]);
    refused(here, &["fuzz", "-s", "budget=1"], 2, &["budget", "allowed", "budget_bytes"]);
    refused(here, &["fuzz", "-s", "flush_policy=oldest"], 2, &["flush_policy", "oldest-write"]);
    refused(here, &["fuzz", "-s", "profile=ext4"], 2, &["ext4", "journal"]);
    refused(here, &["fuzz", "--time", "soon"], 2, &["soon", "whole number"]);
    refused(here, &["replay", "--seed", "1", "--until", "1.5"], 2, &["1.5", "ms"]);
    refused(here, &["replay", "none.json"], 2, &["none.json"]);
    refused(here, &["fuzz", "--seeds", "0..1", "--out", "taken/out"], 2, &["taken/out"]);
    refused(here, &["replay", "--seed", "1", "--trace", "taken/t.json"], 2, &["taken"]);
    refused(here, &["replay", "taken"], 2, &["taken"]);
    refused(here, &["keep", "taken"], 2, &["taken"]);
    let schema = r#"{"schema":"forebay.case/1","seed":1,"rule":null,"bug":null,"#;
    let scenario = r#""scenario":{"options":[],"profile":"journal","device":"none","tenants":1,"#;
    let hostile =
        format!(r#"{schema}{scenario}"phases":[]}},"choices":{{"sched":"0x9999999999"}}}}"#);
    fs::write(here.join("hostile.json"), hostile).unwrap();
    refused(here, &["replay", "hostile.json"], 2, &["hostile.json", "sched", "more than"]);
}

#[test]
fn a_failure_says_the_line_that_shows_it_again_and_can_be_kept() {
    let (folder, shown) = with_failure();
    let here = folder.path();
    let rule = rule_of(&shown);
    assert!(shown.starts_with("ACKED WRITE LOST   tenant "), "{shown}");
    for what in [" promised ", " found ", " history (", " what if ", " stable "] {
        assert!(shown.lines().any(|line| line.starts_with(what)), "{what:?} is missing: {shown}");
    }
    assert!(shown.contains(" 5/5 replays identical, event hash "), "{shown}");
    let elsewhere = folder_with(&[]);
    for name in ["Reproduce:", "From seed:"] {
        let line = line_of(&shown, name);
        let again =
            Command::new("sh").args(["-c", line]).current_dir(elsewhere.path()).output().unwrap();
        let said = text(&again.stdout);
        assert_eq!(again.status.code(), Some(1), "{line}: {said}");
        assert_eq!(rule_of(&said), rule, "{line}: {said}");
    }
    let file = line_of(&shown, "Reproduce:").rsplit(' ').next().unwrap();
    refused(here, &["keep", file], 2, &["sim/regressions"]);
    fs::create_dir_all(here.join("sim/regressions")).unwrap();
    let kept = forebay(here, &["keep", file]);
    assert_eq!(kept.status.code(), Some(0), "{}", text(&kept.stderr));
    let to = text(&kept.stdout);
    let to = to.strip_prefix("wrote ").unwrap().split(':').next().unwrap();
    assert!(to.starts_with("sim/regressions/"), "{to}");
    assert_eq!(fs::read(here.join(to)).unwrap(), fs::read(file).unwrap());
    assert!(fs::read_to_string(here.join(to)).unwrap().contains("\"choices\""));

    // The same once more is the same file; another one of this name goes beside it.
    assert_eq!(forebay(here, &["keep", file]).status.code(), Some(0));
    fs::write(here.join(to), "{}").unwrap();
    let beside = text(&forebay(here, &["keep", file]).stdout);
    assert!(beside.contains("-2.json: cargo test replays it; it breaks "), "{beside}");
    let mut passes: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    passes["rule"] = "C9".into();
    fs::write(here.join("other.json"), passes.to_string()).unwrap();
    refused(here, &["keep", "other.json"], 2, &["other.json", "wal-skip-sync", "is not found"]);
}

#[test]
fn a_scheduler_without_a_seed_is_its_own_result() {
    let folder = folder_with(&[]);
    let args = ["fuzz", "--bug", "unseeded", "--seeds", "0..3", "-q", "--format", "json"];
    let output = forebay(folder.path(), &args);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stdout));
    let lines = json_lines(&output);
    let summary = lines.last().unwrap();
    assert_eq!((&summary["mismatches"], &summary["failed"]), (&1.into(), &0.into()));
    assert_eq!(lines[0]["outcome"], "nondeterministic");
}

#[test]
fn a_resumed_sweep_reruns_nothing_and_sums_up_all_of_it() {
    let folder = folder_with(&[]);
    let here = folder.path();
    let args = ["fuzz", "--seeds", "0..24", "-q", "--format", "json", "--resume"];
    let first = forebay(here, &args);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stdout));
    let lines = json_lines(&first);
    let mut before = lines.last().unwrap().clone();
    assert_eq!(lines.len(), 25);
    let named = ["crash_states", "crashes", "elapsed_wall_s", "failed", "failures", "faults"];
    let counted =
        ["marks", "marks_unmet", "mismatches", "ops", "passed", "rules", "schema", "seeds"];
    let keys: Vec<&str> = before.as_object().unwrap().keys().map(String::as_str).collect();
    let mut wanted = [named.as_slice(), &counted].concat();
    wanted.sort_unstable();
    let mut sorted = keys;
    sorted.sort_unstable();
    assert_eq!(sorted, wanted);
    for rule in ["C1", "C2", "C3", "C4", "C7", "C8", "C11", "C12", "L1", "L2"] {
        assert!(before["rules"][rule].as_u64().unwrap() > 0, "{rule}: {before}");
    }
    let states = &before["crash_states"];
    assert!(states["judged"].as_u64() > states["of_crashes"].as_u64(), "{states}");
    assert!(before["crashes"]["power_loss"].as_u64().unwrap() > 0, "{before}");
    let rows = fs::read(here.join("target/forebay/fuzz/runs.jsonl")).unwrap();

    let again = forebay(here, &args);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stdout));
    let mut after = json_lines(&again);
    assert_eq!(after.len(), 1, "a row was told again");
    let mut after = after.remove(0);
    before["elapsed_wall_s"] = Value::Null;
    after["elapsed_wall_s"] = Value::Null;
    assert_eq!(after, before);
    assert!(rows == fs::read(here.join("target/forebay/fuzz/runs.jsonl")).unwrap());

    let other = [args.as_slice(), &["-s", "profile=strict"]].concat();
    let output = forebay(here, &other);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("other settings"), "{}", text(&output.stderr));
}

#[test]
fn a_sweep_out_of_time_is_incomplete_and_goes_on() {
    let folder = folder_with(&[]);
    let sweep = |range: &str| {
        let args = ["fuzz", "--seeds", range, "--time", "1s", "-q", "--resume", "--format", "json"];
        let output = forebay(folder.path(), &args);
        let seeds = json_lines(&output).last().unwrap()["seeds"].as_u64().unwrap();
        (output.status.code(), seeds)
    };
    let (code, first) = sweep("0..9000000");
    assert_eq!(code, Some(6));
    let (code, both) = sweep("0..9000000");
    assert!(code == Some(6) && both > first, "{first}, then {both}");
    let (code, all) = sweep(&format!("0..{}", first.min(both)));
    assert_eq!((code, all), (Some(0), first.min(both)));
}

#[test]
fn a_replay_can_stop_and_shows_model_and_disk() {
    let folder = folder_with(&[]);
    let here = folder.path();
    let replay = |until: &str| {
        let args = ["replay", "--seed", "3", "--until", until, "--format", "json"];
        let output = forebay(here, &args);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
        json_lines(&output).remove(0)
    };
    // A run's clock starts at one second.
    let begun = replay("1s");
    let (early, late) = (replay("1000500us"), replay("900000s"));
    assert_eq!((&begun["outcome"], &begun["ops"]), (&"stopped".into(), &0.into()));
    assert_eq!(early["outcome"], "stopped");
    assert_eq!(early["view"]["at_ns"], 1_000_500_000_u64);
    assert_eq!((&late["outcome"], &late["view"]["stopped"]), (&"pass".into(), &false.into()));
    let files = late["view"]["files"].as_array().unwrap();
    assert!(files.iter().any(|file| file["path"] == "/db/CURRENT" && file["bytes"] != 0));
    assert!(late["view"]["acked_seq"].as_u64() > early["view"]["acked_seq"].as_u64());
    let output = forebay(here, &["replay", "--seed", "3", "--until", "1.5s"]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    for what in ["at vt 1", "model   last seq", "tenant  ", "file    "] {
        assert!(shown.contains(what), "{shown} lacks {what}");
    }
}

#[test]
fn a_timeline_holds_flushes_crashes_and_names_and_watching_changes_nothing() {
    let (folder, shown) = with_failure();
    let file = line_of(&shown, "Reproduce:").rsplit(' ').next().unwrap();
    let bare = forebay(folder.path(), &["replay", file, "--format", "json"]);
    let args = ["replay", file, "--trace", "t/trace.json", "--format", "json"];
    let watched = forebay(folder.path(), &args);
    assert_eq!(watched.status.code(), Some(1));
    let said = json_lines(&watched).remove(0);
    assert_eq!(said["report"]["violation"], said["violation"]);
    assert!(!said["report"]["history"].as_array().unwrap().is_empty());
    assert_eq!(text(&watched.stdout), text(&bare.stdout));
    let seed = forebay(folder.path(), &["replay", "--seed", "3", "--trace", "t/seed.json"]);
    assert_eq!(seed.status.code(), Some(0));
    let load = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(folder.path().join("t").join(name)).unwrap()).unwrap()
    };
    let has = |all: &Value, phase: &str, name: &str| {
        let events = all["traceEvents"].as_array().unwrap();
        events.iter().any(|event| event["ph"] == phase && event["name"] == name)
    };
    let (failure, passed) = (load("trace.json"), load("seed.json"));
    assert!(has(&failure, "i", "crash"));
    assert!(has(&passed, "i", "crash") && has(&passed, "i", "recover"));
    let broken = failure["traceEvents"].as_array().unwrap().last().unwrap();
    assert_eq!((&broken["ph"], &broken["args"]["rule"]), (&"i".into(), &rule_of(&shown).into()));
    assert!(has(&passed, "X", "flush") && has(&passed, "i", "seal"));
    assert!(has(&passed, "M", "process_name") && has(&passed, "M", "thread_name"));
}
