#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "files of a database are damaged on purpose")]
//! Strategy: `shell` fills a directory, files in it are damaged by a flipped byte, a cut or a
//! removal, and `shell` and `inspect` are run as a user runs them.
//!
//! Invariants: answers are the JSON that is promised; damage gives a typed error with file and
//! offset and exit code 1, never a panic (101) and never another directory; a wrong argument gives
//! one line and 2.

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use program::{fed, folder_with, forebay, refused, text};

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn shell(dir: &Path, settings: &[&str], lines: &str) -> (i32, Vec<Value>) {
    let mut args = vec!["shell", dir.to_str().unwrap()];
    for setting in settings {
        args.extend(["-s", setting]);
    }
    let output = fed(dir.parent().unwrap(), &args, lines.as_bytes());
    let text = text(&output.stdout);
    (code(&output), text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn inspect(dir: &Path, more: &[&str]) -> (i32, Value) {
    let args = [&["inspect", dir.to_str().unwrap(), "--format", "json"], more].concat();
    let output = forebay(dir, &args);
    (code(&output), serde_json::from_slice(&output.stdout).unwrap())
}

/// Lines that leave a table in the last level, one in L0 and batches in the log.
const FILL: &str = "put a k1 one\nput a k2 two\nput b k1 other\ndel a k2\ncompact\nput a k3 three\n\
                    flush a\nput a k4 four\nput a k1 again\n";

fn filled() -> (tempfile::TempDir, PathBuf) {
    let root = folder_with(&[]);
    let dir = root.path().join("db");
    let (code, answers) = shell(&dir, &[], FILL);
    assert_eq!((code, answers.len()), (0, 9), "{answers:?}");
    (root, dir)
}

fn files(dir: &Path, part: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().contains(part);
    let mut found: Vec<PathBuf> = all.filter(named).collect();
    found.sort();
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, to: usize) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..to]).unwrap();
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(dir, "").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Both commands see the damage, and `inspect` changes nothing.
fn assert_damaged(dir: &Path, file: &str, lines: &str) -> Value {
    let before = contents(dir);
    let (code, report) = inspect(dir, &[]);
    let error = &report["errors"][0];
    assert_eq!((code, &error["kind"]), (1, &Value::from("corruption")), "{report}");
    assert!(error["file"].as_str().unwrap().contains(file), "{error}");
    assert!(error["offset"].is_u64(), "{error}");
    let human = forebay(dir, &["inspect", dir.to_str().unwrap()]);
    assert_eq!(self::code(&human), 1);
    assert!(text(&human.stderr).contains(file));
    assert_eq!(contents(dir), before);
    let (code, answers) = shell(dir, &[], lines);
    let failure = answers.last().unwrap();
    assert_eq!((code, &failure["kind"]), (1, &Value::from("corruption")), "{answers:?}");
    assert!(failure["file"].as_str().unwrap().contains(file), "{failure}");
    assert!(failure["offset"].is_u64(), "{failure}");
    report
}

#[test]
fn answers_are_the_promised_json_and_survive_the_next_shell() {
    let (_root, dir) = filled();
    let (code, answers) =
        shell(&dir, &[], "get a k1\nget a k2\nscan a k1 k4\nprefix a@main k4\nsnapshot a\n");
    assert_eq!(code, 0);
    assert_eq!(answers[0].to_string(), r#"{"found":true,"value":"again"}"#);
    assert_eq!(answers[1].to_string(), r#"{"found":false,"value":null}"#);
    let keys = |answer: &Value| {
        let entries = answer["entries"].as_array().unwrap();
        entries.iter().map(|e| e["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&answers[2]), ["k1", "k3"]);
    let stats = &answers[2]["stats"];
    assert_eq!(stats["tables"], 2);
    assert_eq!((&stats["blocks_at_start"], &stats["blocks"]), (&2.into(), &2.into()));
    assert_eq!(keys(&answers[3]), ["k4"]);
    assert_eq!(answers[3]["stats"]["pruned_bounds"], 2);
    assert_eq!(answers[4]["seq"], 7);
}

#[test]
fn bytes_that_are_no_text_come_back_without_loss() {
    let root = folder_with(&[]);
    let dir = root.path().join("db");
    let output =
        fed(root.path(), &["shell", dir.to_str().unwrap()], b"put a k \xff a\x00b \nget a k\n");
    assert_eq!(code(&output), 0);
    let text = text(&output.stdout);
    assert!(text.ends_with("{\"found\":true,\"value\":{\"base64\":\"/yBhAGIg\"}}\n"), "{text}");
}

#[test]
fn compact_leaves_one_table_in_the_last_level_without_tombstones() {
    for layout in ["per-tenant", "shared", "grouped-2"] {
        let root = folder_with(&[]);
        let dir = root.path().join("db");
        let setting = format!("layout={layout}");
        let lines = "put a k 1\nflush\nput a k 2\ndel a gone\nflush a\ndel a k\ncompact a\nget a k\n\
                     put a k 3\ncompact\ndel a k\ncompact\nscan a\n";
        let (code, answers) = shell(&dir, &[&setting], lines);
        assert_eq!(code, 0, "{answers:?}");
        assert_eq!(answers[7]["found"], false);
        assert_eq!(answers[12]["entries"], Value::Array(Vec::new()));
        assert_eq!(answers[12]["stats"]["tables"], 0, "{layout}");
        let (code, report) = inspect(&dir, &[]);
        assert_eq!((code, &report["tables"]), (0, &Value::Array(Vec::new())));
    }
}

#[test]
fn a_snapshot_keeps_what_it_sees_through_a_compaction() {
    let root = folder_with(&[]);
    let dir = root.path().join("db");
    let lines = "put a k 1\nsnapshot a\nput a k 2\ndel a k\ncompact\n";
    let (code, answers) = shell(&dir, &[], lines);
    assert_eq!((code, &answers[1]["seq"]), (0, &1.into()));
    let (_, report) = inspect(&dir, &["--key", "a", "k"]);
    let in_table = |v: &&Value| v["where"].as_str().unwrap().contains(".sst");
    let history: Vec<&Value> =
        report["history"].as_array().unwrap().iter().filter(in_table).collect();
    assert_eq!(history.len(), 2, "{report}");
    assert_eq!((&history[0]["seq"], &history[0]["kind"]), (&3.into(), &"delete".into()));
    assert_eq!((&history[1]["seq"], &history[1]["kind"]), (&1.into(), &"put".into()));
    assert!(history[0]["where"].as_str().unwrap().ends_with("level 6"));
}

#[test]
fn lines_that_make_no_sense_are_told_and_the_others_are_done() {
    let root = folder_with(&[]);
    let dir = root.path().join("db");
    let long = "n".repeat(256);
    let lines = format!(
        "put  k v\nput {long} k v\nput a/b/c k v\nput a@fork k v\nget a k\nscan a reverse\n\
         fork a main f\nput a\nbogus\ndrop nobody\n\nput a k v\nget a k\n"
    );
    let (code, answers) = shell(&dir, &[], &lines);
    assert_eq!((code, answers.len()), (1, 12));
    for answer in &answers[..10] {
        assert!(answer["error"].is_string() && answer["file"].is_null(), "{answer}");
        assert!(answer["error"].as_str().unwrap().len() < 300, "{answer}");
    }
    assert!(answers[1]["error"].as_str().unwrap().contains("255"));
    assert_eq!(answers[4]["kind"], "unknown-tenant");
    assert_eq!(answers[11]["value"], "v");
}

#[test]
fn wrong_arguments_are_one_line_and_exit_code_2() {
    let (root, dir) = filled();
    let file = root.path().join("file");
    fs::write(&file, "x").unwrap();
    let (dir, file) = (dir.to_str().unwrap(), file.to_str().unwrap());
    let (long, empty) = ("n".repeat(256), root.path().join("empty"));
    fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    for args in [
        vec!["shell", dir, "-s", "budget=1"],
        vec!["shell", dir, "-s", "budget_bytes"],
        vec!["shell", dir, "-s", "flush_policy=oldest"],
        vec!["shell", dir, "-s", "layout=shared"],
        vec!["shell", file],
        vec!["inspect", empty],
        vec!["inspect", "/nonexistent/db"],
        vec!["inspect", dir, "--key", "", "k"],
        vec!["inspect", dir, "--key", &long, "k"],
        vec!["inspect", dir, "--manifest", "a/b"],
    ] {
        refused(root.path(), &args, 2, &[]);
    }
    assert_eq!(fs::read_dir(empty).unwrap().count(), 0);
}

#[test]
fn a_whole_directory_is_listed_in_both_forms() {
    let (_root, dir) = filled();
    let (code, report) = inspect(&dir, &["--key", "a", "k1"]);
    assert_eq!((code, &report["errors"]), (0, &Value::Array(Vec::new())));
    let tables = report["tables"].as_array().unwrap();
    let level = |t: &Value| (t["branches"][0].clone(), t["level"].clone());
    let levels: Vec<_> = tables.iter().map(level).collect();
    let want = [("a", 0), ("a", 6), ("b", 6)].map(|(b, l)| (Value::from(b), Value::from(l)));
    assert_eq!(levels, want);
    let history = report["history"].as_array().unwrap();
    assert_eq!(history[0]["seq"], 7);
    assert!(history.iter().any(|v| v["where"].as_str().unwrap().contains(".sst")));
    let edits = |report: &Value| report["edits"].as_array().unwrap().len();
    let (_, of_b) = inspect(&dir, &["--manifest", "b@main"]);
    assert!(edits(&of_b) < edits(&report) && edits(&of_b) >= 2, "{of_b}");
    let human = forebay(&dir, &["inspect", dir.to_str().unwrap()]);
    let human = text(&human.stdout);
    assert!(human.lines().all(|line| line.chars().count() <= 100), "{human}");
    assert!(human.contains("tables  3") && human.contains("trees  2"), "{human}");
    // A tenant that is not there is an error, and the rest is printed.
    let (code, report) = inspect(&dir, &["--key", "nobody", "k"]);
    assert_eq!((code, &report["errors"][0]["kind"]), (1, &Value::from("unknown-tenant")));
}

#[test]
fn a_damaged_manifest_is_told_with_what_lies_before() {
    let (_root, dir) = filled();
    let manifest = files(&dir, "MANIFEST").pop().unwrap();
    let (_, whole) = inspect(&dir, &[]);
    let offsets: Vec<u64> =
        whole["edits"].as_array().unwrap().iter().map(|e| e["offset"].as_u64().unwrap()).collect();
    let last = *offsets.last().unwrap();
    let at = *offsets.iter().rev().find(|o| **o < last).unwrap();
    flip(&manifest, usize::try_from(at).unwrap() + 20);
    let report = assert_damaged(&dir, "MANIFEST", "get a k1\n");
    assert_eq!(report["errors"][0]["offset"], at);
    let before = offsets.iter().filter(|o| **o < at).count();
    assert_eq!(report["edits"].as_array().unwrap().len(), before);
    assert!(!report["tables"].as_array().unwrap().is_empty());

    let (_root, dir) = filled();
    cut(&files(&dir, "MANIFEST").pop().unwrap(), 10);
    assert_damaged(&dir, "MANIFEST", "get a k1\n");
    let (_root, dir) = filled();
    fs::write(dir.join("CURRENT"), "MANIFEST-xyz\n").unwrap();
    assert_damaged(&dir, "CURRENT", "get a k1\n");
    let (_root, dir) = filled();
    fs::remove_file(dir.join("CURRENT")).unwrap();
    assert_damaged(&dir, "CURRENT", "get a k1\n");
    let (_root, dir) = filled();
    fs::remove_file(files(&dir, "MANIFEST").pop().unwrap()).unwrap();
    assert_damaged(&dir, "MANIFEST", "get a k1\n");
}

#[test]
fn a_damaged_log_is_told_with_the_batches_before() {
    // The second shell opens a segment that names the valid length of the first.
    let (_root, dir) = filled();
    assert_eq!(shell(&dir, &[], "put a k5 five\n").0, 0);
    let (_, whole) = inspect(&dir, &["--key", "a", "k4"]);
    let place = whole["history"][0]["where"].as_str().unwrap().to_owned();
    let (segment, offset) = place.split_once('+').unwrap();
    flip(&dir.join(segment), offset.parse::<usize>().unwrap() + 20);
    let report = assert_damaged(&dir, segment, "get a k1\n");
    assert_eq!(report["errors"][0]["offset"].to_string(), offset);
    assert_eq!(report["wal"].as_array().unwrap().len(), 2);
    assert_eq!(report["tables"].as_array().unwrap().len(), 3);

    let (_root, dir) = filled();
    assert_eq!(shell(&dir, &[], "put a k5 five\n").0, 0);
    cut(&files(&dir, ".wal").first().unwrap().clone(), 60);
    assert_damaged(&dir, ".wal", "get a k1\n");
    let (_root, dir) = filled();
    assert_eq!(shell(&dir, &[], "put a k5 five\n").0, 0);
    fs::remove_file(files(&dir, ".wal").first().unwrap()).unwrap();
    assert_damaged(&dir, ".wal", "get a k1\n");
}

#[test]
fn a_damaged_table_is_told_and_the_others_are_read() {
    let (_root, dir) = filled();
    let tables = files(&dir, ".sst");
    assert_eq!(tables.len(), 3);
    let len = usize::try_from(fs::metadata(&tables[0]).unwrap().len()).unwrap();
    // A data block, the footer, the end.
    for at in [3, len - 60, len - 1] {
        let (_root, dir) = filled();
        let table = files(&dir, ".sst").remove(0);
        flip(&table, at);
        let name = table.file_name().unwrap().to_str().unwrap().to_owned();
        let report = assert_damaged(&dir, &name, "get a k1\nscan a\n");
        assert_eq!(report["errors"].as_array().unwrap().len(), 1, "{report}");
        assert_eq!(report["trees"].as_array().unwrap().len(), 2);
    }
    let (_root, dir) = filled();
    let table = files(&dir, ".sst").remove(0);
    cut(&table, len >> 1);
    assert_damaged(&dir, table.file_name().unwrap().to_str().unwrap(), "scan a\n");
    let (_root, dir) = filled();
    fs::remove_file(files(&dir, ".sst").remove(0)).unwrap();
    let (code, report) = inspect(&dir, &[]);
    assert_eq!((code, &report["errors"][0]["kind"]), (1, &Value::from("io")));
}

#[test]
fn no_byte_that_flips_makes_a_command_panic() {
    let (_root, dir) = filled();
    for path in [files(&dir, "MANIFEST").pop().unwrap(), files(&dir, ".wal").pop().unwrap()] {
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len().min(400)).step_by(29) {
            flip(&path, at);
            let output = forebay(&dir, &["inspect", dir.to_str().unwrap()]);
            assert!(code(&output) <= 1, "{} byte {at}: {output:?}", path.display());
            fs::write(&path, &whole).unwrap();
        }
    }
}
