#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests look at files and wait as a person would")]
//! Strategy: each long command is interrupted once its first result is out, resumed, and compared
//! with the same command left alone.
//!
//! Invariants: SIGINT ends it with exit 6 and complete files of some of its runs; `--resume` ends with
//! 0 and the bytes of a run that nobody interrupted, in every file; a second SIGINT ends it with 130.

mod program;
mod small;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use program::{folder_with, forebay, refused, text};
use small::small;

const HEAD: &str = r#"
title = "small"
question = "Is a run that was interrupted the same run?"
baseline = "per-tenant"
seeds = "0..8"
"#;

/// Where a command says that one of its runs is done.
#[derive(Clone, Copy, PartialEq)]
enum FirstResult {
    Stdout,
    Stderr,
}

fn started(folder: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    let sent = Command::new("sh").args(["-c", "kill -INT \"$0\" 2>&1", &pid]).output().unwrap();
    assert!(sent.status.success() || text(&sent.stdout).contains("No such"), "{sent:?}");
}

/// Runs a command until its first line and interrupts it: its exit code, and what it said in all.
fn interrupted(folder: &Path, args: &[&str], first: FirstResult) -> (Option<i32>, String) {
    let mut child = started(folder, args);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    if first == FirstResult::Stdout {
        stdout.read_line(&mut said).unwrap();
    } else {
        stderr.read_line(&mut said).unwrap();
    }
    interrupt(&child);
    // Neither pipe has room for more than these commands say on the other.
    stdout.read_to_string(&mut said).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn lines(folder: &Path, file: &str) -> usize {
    fs::read_to_string(folder.join(file)).unwrap().lines().count()
}

/// Interrupts `command` into `part`, resumes it, and compares with `whole`, which nobody interrupts.
/// Gives back how many rows of `file` were there after the interrupt, and how many there are.
fn same_bytes(
    here: &Path,
    (command, loud): (&[&str], &[&str]),
    first: FirstResult,
    file: &str,
) -> (usize, usize) {
    let run = |more: &[&str]| forebay(here, &[command, more].concat());
    let mut words: Vec<&str> = command.to_vec();
    words.extend(["--out", "part", "-j", "1"]);
    words.extend(loud);
    let (code, said) = interrupted(here, &words, first);
    assert_eq!(code, Some(6), "{command:?}: {said}");
    let before = lines(&here.join("part"), file);
    let resumed = run(&["--out", "part", "--resume", "-q"]);
    assert_eq!(resumed.status.code(), Some(0), "{command:?}: {}", text(&resumed.stderr));
    let whole = run(&["--out", "whole", "-q"]);
    assert_eq!(whole.status.code(), Some(0), "{command:?}: {}", text(&whole.stderr));
    let (part, whole) = (files(&here.join("part")), files(&here.join("whole")));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&part), names(&whole), "{command:?}");
    for (name, bytes) in &whole {
        assert!(part[name] == *bytes, "{command:?}: {name} differs");
    }
    (before, lines(&here.join("whole"), file))
}

#[test]
fn a_run_that_was_interrupted_goes_on_to_the_same_bytes() {
    let folder = folder_with(&[("small.toml", &small(HEAD, ""))]);
    let here = folder.path();
    let command = ["run", "small.toml"];
    let (before, all) = same_bytes(here, (&command, &["-v"]), FirstResult::Stderr, "runs.jsonl");
    assert!((1..16).contains(&before) && all == 16, "{before} of {all}");
    let names: Vec<String> = files(&here.join("whole")).into_keys().collect();
    let expected =
        ["events.jsonl", "experiment.toml", "hist.jsonl", "provenance.json", "report.html"];
    assert_eq!(names, [&expected[..], &["runs.jsonl", "series.csv"]].concat());
}

#[test]
fn a_model_that_was_interrupted_goes_on_to_the_same_bytes() {
    let folder = folder_with(&[("small.toml", &small(HEAD, ""))]);
    let here = folder.path();
    // The sizes alone are too quick to wait for the first of them.
    let command = ["model", "small.toml", "-s", "fill_count=20"];
    let mut child = started(here, &[&command[..], &["--out", "part", "-j", "1"]].concat());
    while !listens(&child) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(6));
    let left = lines(&here.join("part"), "model.jsonl");
    for more in [&["--out", "part", "--resume"][..], &["--out", "whole"]] {
        assert_eq!(forebay(here, &[&command[..], more].concat()).status.code(), Some(0));
    }
    assert!(left < 16 && lines(&here.join("whole"), "model.jsonl") == 16, "{left}");
    assert!(files(&here.join("part")) == files(&here.join("whole")), "model.jsonl differs");

    let folder = folder_with(&[("small.toml", &small(HEAD, ""))]);
    let command = ["model", "small.toml", "--check-engine"];
    let told = (&command[..], &["-v"][..]);
    let (before, all) = same_bytes(folder.path(), told, FirstResult::Stderr, "model-check.jsonl");
    assert!((1..16).contains(&before) && all == 16, "{before} of {all}");
}

#[test]
fn a_fuzz_and_a_sweep_that_were_interrupted_go_on_to_the_same_bytes() {
    let folder = folder_with(&[]);
    let here = folder.path();
    let fuzz = ["fuzz", "--seeds", "0..60"];
    let json = ["--format", "json"];
    let (before, all) = same_bytes(here, (&fuzz, &json), FirstResult::Stdout, "runs.jsonl");
    assert!((1..60).contains(&before) && all == 60, "{before} of {all}");
    let folder = folder_with(&[]);
    let here = folder.path();
    let sweep = ["sweep", "--only", "flush", "--slice", "1/4"];
    let (before, all) = same_bytes(here, (&sweep, &["-v"]), FirstResult::Stderr, "runs.jsonl");
    assert!((1..all).contains(&before), "{before} of {all}");
    // Programs get the rows, the summary last, and those who resume nothing run twice.
    let again = ["sweep", "--only", "flush", "--slice", "1/4", "--out", "whole", "--resume"];
    let shown = text(&forebay(here, &[&again[..], &["--format", "json"]].concat()).stdout);
    assert_eq!(shown.lines().count(), all + 1);
    assert!(shown.lines().last().unwrap().contains("\"schema\":\"forebay.sweep/1\""), "{shown}");
    let csv = text(&forebay(here, &[&again[..], &["--format", "csv"]].concat()).stdout);
    assert!(csv.starts_with("number,step,outcome,") && csv.lines().count() == all + 1, "{csv}");
    // Rows of other runs are not taken for these.
    let other = ["sweep", "--only", "deletes", "--out", "whole", "--resume"];
    refused(here, &other, 2, &["runs.jsonl:1: this row is of other scripts"]);
}

/// Whether a process handles SIGINT by itself.
fn listens(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 2 > 0)
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    // The first run is short, the second takes minutes.
    let text = small(HEAD, "fill_count = [2, 4000]").replace("\nfill_count = 2\n", "\n");
    let text = text.replace("[\"per-tenant\", \"shared\"]", "[\"per-tenant\"]");
    let text = text.replace("\"per-tenant\"\nseeds", "\"per-tenant/fill_count=2\"\nseeds");
    let folder = folder_with(&[("small.toml", &text)]);
    let rows = folder.path().join("out/runs.jsonl");
    let args = ["run", "small.toml", "--seeds", "0..1", "-j", "1", "-q", "--out", "out"];
    let mut child = started(folder.path(), &args);
    while !rows.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be interrupted");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Rows are there before the next run begins.
    std::thread::sleep(Duration::from_millis(500));
    let ended = loop {
        interrupt(&child);
        std::thread::sleep(Duration::from_millis(100));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
    };
    assert_eq!(ended.code(), Some(130));
    assert_eq!(fs::read_to_string(rows).unwrap().lines().count(), 1);
}
