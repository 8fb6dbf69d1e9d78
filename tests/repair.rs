#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "files of a database are damaged on purpose")]
//! Strategy: `shell` fills a directory, a file in it is damaged, and `verify`, `repair` and `shell`
//! are run as a user runs them.
//!
//! Invariants: `verify` exits with 0, 1 or 2 and names the file; `repair` loses nothing that is
//! whole, deletes nothing, and exits with 1 only for what is lost; a dry run writes nothing; wrong
//! arguments give one line and 2.

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use program::{fed, folder_with, refused, text};

/// The exit code, and all that it said.
fn forebay(args: &[&str], stdin: &str) -> (i32, Output) {
    let output = fed(Path::new("."), args, stdin.as_bytes());
    (output.status.code().unwrap(), output)
}

fn json(command: &str, dir: &Path, more: &[&str]) -> (i32, Value) {
    let args = [&[command, dir.to_str().unwrap(), "--format", "json"], more].concat();
    let (code, output) = forebay(&args, "");
    (code, serde_json::from_slice(&output.stdout).unwrap())
}

/// Two tenants with a table each, and one with a batch in the log.
fn filled() -> (tempfile::TempDir, PathBuf) {
    let root = folder_with(&[]);
    let dir = root.path().join("db");
    let lines = "put a k1 one\nput b k1 other\nflush\nput a k2 two\n";
    assert_eq!(forebay(&["shell", dir.to_str().unwrap()], lines).0, 0);
    (root, dir)
}

fn get(dir: &Path, tenant: &str, key: &str) -> Value {
    let line = format!("get {tenant} {key}\n");
    let (_, output) = forebay(&["shell", dir.to_str().unwrap()], &line);
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["value"].clone()
}

fn find(dir: &Path, part: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        all.filter(|p| p.file_name().unwrap().to_str().unwrap().contains(part)).collect();
    found.sort();
    found
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    find(dir, "").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_whole_directory_is_clean_and_needs_no_repair() {
    let (_root, dir) = filled();
    let before = contents(&dir);
    let (code, report) = json("verify", &dir, &[]);
    assert_eq!((code, &report["clean"], &report["tables"]), (0, &true.into(), &2.into()));
    let (code, output) = forebay(&["verify", dir.to_str().unwrap()], "");
    assert_eq!((code, output.stderr.len()), (0, 0));
    assert!(output.stdout.starts_with(b"clean: "));
    let (code, report) = json("repair", &dir, &[]);
    assert_eq!((code, &report["needed"]), (0, &false.into()));
    assert_eq!(contents(&dir), before);
}

#[test]
fn a_lost_table_is_told_and_the_rest_is_there_again() {
    let (_root, dir) = filled();
    let table = find(&dir, ".sst").remove(0);
    let mut bytes = fs::read(&table).unwrap();
    bytes[3] ^= 1;
    fs::write(&table, &bytes).unwrap();
    let (code, report) = json("verify", &dir, &[]);
    let finding = &report["findings"][0];
    assert_eq!(
        (code, &finding["part"], &finding["kind"]),
        (1, &"table".into(), &"corruption".into())
    );
    assert_eq!(finding["tenants"][0], "a");
    let (code, output) = forebay(&["verify", dir.to_str().unwrap()], "");
    let told = text(&output.stderr);
    assert!(code == 1 && told.lines().count() == 1 && told.contains("(tenant a)"), "{told}");

    let before = contents(&dir);
    let (code, report) = json("repair", &dir, &["--dry-run"]);
    assert_eq!((code, &report["manifest"]), (1, &Value::Null));
    assert_eq!(contents(&dir), before);
    let (code, report) = json("repair", &dir, &[]);
    assert_eq!((code, report["lost"].as_array().unwrap().len()), (1, 1), "{report}");
    let aside = dir.join(report["set_aside"][0].as_str().unwrap());
    assert_eq!(json("verify", &dir, &[]).0, 0);
    assert_eq!(get(&dir, "b", "k1"), "other");
    assert_eq!(get(&dir, "a", "k2"), "two");
    // The opens of the shell removed the table's own name, and left the other.
    assert!(!table.exists());
    assert_eq!(fs::read(aside).unwrap(), bytes);
}

#[test]
fn without_a_manifest_the_layout_is_asked_for_and_tenants_get_new_names() {
    let (_root, dir) = filled();
    fs::remove_file(find(&dir, "MANIFEST").remove(0)).unwrap();
    for segment in find(&dir, ".wal") {
        fs::remove_file(segment).unwrap();
    }
    let (code, output) = forebay(&["repair", dir.to_str().unwrap()], "");
    let told = text(&output.stderr);
    assert!(code == 2 && told.lines().count() == 1 && told.contains("layout"), "{told}");
    let (code, report) = json("repair", &dir, &["--layout", "per-tenant"]);
    assert_eq!((code, report["recovered"].as_array().unwrap().len()), (1, 2), "{report}");
    let names = report["recovered"].as_array().unwrap();
    let values: Vec<Value> = names.iter().map(|n| get(&dir, n.as_str().unwrap(), "k1")).collect();
    assert_eq!(values, ["one", "other"]);
}

#[test]
fn wrong_arguments_are_one_line_and_exit_code_2() {
    let (root, dir) = filled();
    let empty = root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let (dir, empty) = (dir.to_str().unwrap(), empty.to_str().unwrap());
    for args in [
        vec!["verify", empty],
        vec!["verify", "/nonexistent/db"],
        vec!["repair", empty],
        vec!["repair", "/nonexistent/db"],
        vec!["repair", dir, "--layout", "each-its-own"],
        vec!["inspect", dir, "--table", "000777.sst"],
    ] {
        refused(root.path(), &args, 2, &[]);
    }
    assert_eq!(fs::read_dir(empty).unwrap().count(), 0);
}

#[test]
fn inspect_lists_the_records_of_the_log_and_one_file_of_tables() {
    let (_root, dir) = filled();
    let (code, report) = json("inspect", &dir, &["--wal"]);
    let records = report["records"].as_array().unwrap();
    let last = records.iter().rfind(|r| r["kind"] == "batch").unwrap();
    assert_eq!((code, &last["entries"], &last["trees"][0]), (0, &1.into(), &1.into()));
    assert_eq!(records[0]["kind"], "predecessor");
    let human = forebay(&["inspect", dir.to_str().unwrap(), "--wal"], "").1.stdout;
    assert!(text(&human).contains("records  "));

    let file = find(&dir, ".sst").remove(0);
    let name = file.file_name().unwrap().to_str().unwrap();
    let (code, report) = json("inspect", &dir, &["--table", name]);
    let table = &report["tables"][0];
    assert_eq!((code, &table["entries"], &table["largest"]), (0, &1.into(), &"k1".into()));
    assert_eq!(table["blocks"][0]["last_key"], "k1");
    let (code, output) = forebay(&["inspect", dir.to_str().unwrap(), "--table", name], "");
    let human = text(&output.stdout);
    assert!(code == 0 && human.lines().all(|line| line.len() <= 100), "{human}");
    let mut bytes = fs::read(&file).unwrap();
    bytes[3] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (code, report) = json("inspect", &dir, &["--table", name]);
    assert_eq!((code, report["tables"].as_array().unwrap().len()), (1, 1), "{report}");
    assert!(report["errors"][0]["file"].as_str().unwrap().contains(name));
}
