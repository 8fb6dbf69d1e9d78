#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests look at files as a person would")]
//! Strategy: forks on a real disk, made by the program as people run it, then listed, inspected and
//! dropped by it; docs/forks.md is run as printed.
//! Invariants: each form of output says the same; a branch's own manifest begins at its fork and
//! holds the edits that concern it; what cannot be is refused in one line, and changes nothing.

use std::fs;
use std::path::Path;

use serde_json::Value;

mod program;
use program::{fed, folder_with, forebay, refused, text};

fn shell(folder: &Path, lines: &str) -> Vec<Value> {
    let output = fed(folder, &["shell", "db"], lines.as_bytes());
    let answers = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{answers}");
    answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn json(folder: &Path, args: &[&str]) -> Vec<Value> {
    let output = forebay(folder, &[args, &["--format", "json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn own(folder: &Path, name: &str) -> (Value, Vec<String>) {
    let report = json(folder, &["inspect", "db", "--manifest", name]).remove(0);
    let edits = report["edits"].as_array().unwrap();
    let kinds = edits.iter().map(|e| e["kind"].as_str().unwrap().to_owned()).collect();
    (report, kinds)
}

/// A tenant `t` with two tables in L0, and `u` with one.
fn filled() -> tempfile::TempDir {
    let root = folder_with(&[]);
    shell(root.path(), "put t a 1\nput u x 1\nflush\nput t b 2\nflush t\n");
    root
}

#[test]
fn forks_are_made_listed_and_dropped() {
    let root = filled();
    let folder = root.path();
    let output = forebay(folder, &["fork", "db", "t", "f"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = text(&output.stdout);
    assert!(line.starts_with("t@f  forked at 3, copied 0 bytes, "), "{line}");
    let forked = json(folder, &["fork", "db", "t@f", "g", "--memtable", "share"]).remove(0);
    assert_eq!((&forked["name"], &forked["fork_seq"]), (&"t@g".into(), &3.into()));
    let forked = shell(folder, "fork t@main h\nput t@f b 3\nflush t@f\nget t b\nget t@g b\n");
    assert_eq!(forked[0]["branch"], "t@h");
    assert_eq!((&forked[3]["value"], &forked[4]["value"]), (&"2".into(), &"2".into()));

    let lines = json(folder, &["branches", "db"]);
    let names = |lines: &[Value]| -> Vec<String> {
        lines.iter().map(|l| format!("{} {}", l["depth"], l["name"].as_str().unwrap())).collect()
    };
    assert_eq!(names(&lines), ["0 t", "1 t@f", "2 t@g", "1 t@h", "0 u"]);
    let numbers = |at: usize| ["tables", "inherited_tables"].map(|field| lines[at][field].as_u64());
    assert_eq!([0, 1, 2].map(numbers), [[Some(2), None], [Some(3), Some(2)], [Some(2), Some(2)],]);
    assert_eq!((&lines[2]["parent"], &lines[2]["retained_bytes"]), (&"t@f".into(), &0.into()));
    assert!(lines[1]["retained_bytes"].as_u64() > Some(0));
    let human = text(&forebay(folder, &["branches", "db", "t"]).stdout);
    assert!(human.lines().all(|line| line.chars().count() <= 100), "{human}");
    assert!(human.contains("\n    t@g") && !human.contains("\nu "), "{human}");
    let csv = text(&forebay(folder, &["branches", "db", "--format", "csv"]).stdout);
    let fields = |line: &str| line.split(',').count();
    assert!(csv.lines().all(|line| fields(line) == 14), "{csv}");
    assert_eq!(csv.lines().count(), 6);

    shell(folder, "drop t@f\n");
    let lines = json(folder, &["branches", "db", "t"]);
    assert_eq!(names(&lines), ["0 t", "1 t@h", "0 t@g"]);
    assert_eq!((&lines[2]["parent"], &lines[2]["parent_branch"].is_u64()), (&Value::Null, &true));
    shell(folder, "drop t\n");
    assert_eq!(names(&json(folder, &["branches", "db"])), ["0 u"]);
}

#[test]
fn a_branchs_own_manifest_begins_at_its_fork() {
    let root = filled();
    let folder = root.path();
    let write = "fork t f\nput t@f c 3\nflush t@f\ncompact t@f\nput t d 4\nflush t\n";
    let answers = shell(folder, write);
    let seq = answers[0]["seq"].clone();
    let (report, kinds) = own(folder, "t@f");
    let manifest = &report["manifest"];
    assert_eq!((&manifest["begins"], &manifest["parent"]), (&"forked".into(), &"t".into()));
    assert_eq!((&manifest["fork_seq"], &manifest["flushed_upto"]), (&seq, &seq));
    let levels = |manifest: &Value| -> Vec<u64> {
        let tables = manifest["tables"].as_array().unwrap();
        tables.iter().map(|t| t["level"].as_u64().unwrap()).collect()
    };
    assert_eq!(levels(manifest), [0, 0]);
    assert_eq!(kinds, ["fork", "flush", "compact"]);
    let edits = report["edits"].as_array().unwrap();
    let offsets: Vec<u64> = edits.iter().map(|edit| edit["offset"].as_u64().unwrap()).collect();
    assert!(offsets.is_sorted() && offsets.iter().all(|offset| *offset > 0), "{offsets:?}");
    assert_eq!(report["tables"].as_array().unwrap().len(), 1, "{report}");
    // The parent's own manifest has none of it.
    let (report, kinds) = own(folder, "t");
    assert!(!kinds.contains(&"fork".to_owned()) && !kinds.contains(&"compact".to_owned()));
    assert_eq!(report["manifest"]["fork_seq"], Value::Null);

    // The next session begins the manifest anew: the chain begins with what the branch had.
    shell(folder, "put t@f e 5\nflush t@f\n");
    let (report, kinds) = own(folder, "t@f");
    assert_eq!(report["manifest"]["begins"], "taken-over");
    assert_eq!(report["manifest"]["fork_seq"], seq);
    assert_eq!(levels(&report["manifest"]).len(), 1, "{report}");
    assert_eq!(kinds, ["ancestry", "create-tenants", "tree-state", "flush"]);
    let human = text(&forebay(folder, &["inspect", "db", "--manifest", "t@f"]).stdout);
    assert!(human.starts_with("manifest  t@f  branch "), "{human}");
    assert!(human.contains("forked from t at 3") && human.contains("begins taken-over"), "{human}");
    assert!(human.lines().all(|line| line.chars().count() <= 100), "{human}");
}

#[test]
fn a_branch_moves_to_another_directory_and_into_another_database() {
    let root = filled();
    let folder = root.path();
    shell(folder, "fork t f\nput t@f b 3\n");
    let all = json(folder, &["fork-to", "db", "all"]).remove(0);
    assert_eq!(all["branches"], serde_json::json!(["t", "u", "t@f"]));
    assert!(all["linked_files"].as_u64() > Some(0), "{all}");
    let one = text(&forebay(folder, &["fork-to", "db", "one", "t@f"]).stdout);
    assert!(one.starts_with("1 branches at "), "{one}");
    let moved = json(folder, &["import", "all", "one", "--as", "moved"]).remove(0);
    assert_eq!(moved["branches"], serde_json::json!(["moved"]));
    fs::remove_dir_all(folder.join("db")).unwrap();
    fs::remove_dir_all(folder.join("one")).unwrap();
    fs::rename(folder.join("all"), folder.join("db")).unwrap();
    let answers = shell(folder, "get t b\nget t@f b\nget moved a\nget moved b\n");
    let values: Vec<&Value> = answers.iter().map(|answer| &answer["value"]).collect();
    assert_eq!(values, ["2", "3", "1", "3"]);
    for (args, what) in [
        (&["fork-to", "db", "db"][..], "not empty"),
        (&["fork-to", "nowhere", "x"], "holds no database"),
        (&["fork-to", "db", "x", "t@x"], "t@x"),
        (&["import", "db", "nowhere"], "nowhere"),
        (&["import", "nowhere", "db"], "holds no database"),
    ] {
        refused(folder, args, 2, &[what]);
    }
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let root = filled();
    let folder = root.path();
    shell(folder, "fork t f\n");
    for (args, what) in [
        (&["fork", "nowhere", "t", "g"][..], "holds no database"),
        (&["fork", "db", "t", "f"], "t@f"),
        (&["fork", "db", "t", "main"], "t"),
        (&["fork", "db", "nobody", "f"], "nobody"),
        (&["fork", "db", "t@x", "f"], "t@x"),
        (&["fork", "db", "t", "a@b"], "a@b"),
        (&["fork", "db", "t", "g", "--memtable", "half"], "allowed: share, copy, auto"),
        (&["fork", "db", "t", "g", "-s", "budget=1"], "budget"),
        (&["branches", "nowhere"], "holds no database"),
        (&["branches", "db", "nobody"], "nobody"),
        (&["branches", "db", "a@b"], "a@b"),
        (&["inspect", "db", "--manifest", "t@"], "--manifest"),
    ] {
        refused(folder, args, 2, &[what]);
    }
    let output = forebay(folder, &["inspect", "db", "--manifest", "t@x"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(folder, &["branches", "db", "t"]).len(), 2);
    let output = fed(folder, &["shell", "db"], b"put t@x k v\nfork t f\nget t@f@g k\n");
    assert_eq!(output.status.code(), Some(1));
    let kinds: Vec<String> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].to_string())
        .collect();
    assert_eq!(kinds, ["\"unknown-tenant\"", "\"tenant-exists\"", "\"invalid\""]);
}

#[test]
fn the_commands_of_the_page_on_forks_do_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/forks.md");
    #[expect(clippy::disallowed_methods, reason = "the page is what is tested")]
    let page = fs::read_to_string(page).unwrap();
    let root = folder_with(&[]);
    let mut count = 0;
    for block in page.split("```sh\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            let program = env!("CARGO_BIN_EXE_forebay");
            let command = line.replace("forebay ", &format!("{program} "));
            let output = std::process::Command::new("sh")
                .args(["-c", &command])
                .current_dir(root.path())
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(0), "{line}: {}", text(&output.stderr));
            count += 1;
        }
    }
    assert!(count >= 6, "{count}");
}
