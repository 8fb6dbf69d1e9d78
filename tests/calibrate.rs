#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests look at files as a person would")]
//! Strategy: the probe runs for a second on the disk of temporary files, is refused, and is
//! interrupted.
//!
//! Invariants: the folder is left as it was; the table it prints is the device of an experiment
//! file as it stands; what cannot be probed is refused in one line.

mod program;
mod small;

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use program::{folder_with, forebay, refused, text};
use small::small;

const HEAD: &str = "seeds = \"0..1\"\nbaseline = \"per-tenant\"\n";

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn its_table_is_the_device_of_an_experiment_and_nothing_else_is_left() {
    let folder = folder_with(&[]);
    let here = folder.path();
    let probe = ["calibrate", "--dir", ".", "--seconds", "1"];
    let made = forebay(here, &[&probe[..], &["--out", "device.toml"]].concat());
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    assert_eq!(text(&made.stdout), "device.toml\n");
    assert_eq!(names(here), ["device.toml"]);
    let table = fs::read_to_string(here.join("device.toml")).unwrap();
    let (_, device) = table.split_once("[device]\n").unwrap();
    let file = small(HEAD, "").replace("[device]\n", &format!("[device]\n{device}"));
    fs::write(here.join("small.toml"), file).unwrap();
    let dry = forebay(here, &["run", "small.toml", "--dry-run"]);
    assert_eq!(dry.status.code(), Some(0), "{}", text(&dry.stderr));
    let config = forebay(here, &["run", "small.toml", "--print-config", "--format", "csv"]);
    let config = text(&config.stdout);
    let plain = device.replace('_', "");
    for key in ["sync_ns", "write_bytes_per_s", "writeback_bytes", "fifo", "depth"] {
        let start = format!("{} = ", key.replace('_', ""));
        let value = plain.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
        let line = config.lines().find(|line| line.starts_with(&format!("device.{key},")));
        assert!(line.unwrap().contains(&format!(",{value},")), "{key} {value}: {line:?}");
    }
    let json = forebay(here, &[&probe[..], &["--format", "json", "--cached-reads"]].concat());
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["schema"], "forebay.calibrate/1");
    assert!(json["device"]["sync_ns"].as_u64().unwrap() > 0, "{json}");
    assert_eq!(names(here), ["device.toml", "small.toml"]);
}

#[test]
fn what_cannot_be_probed_is_refused_in_one_line() {
    let folder = folder_with(&[("file", "")]);
    let here = folder.path();
    refused(here, &["calibrate", "--dir", "nowhere"], 2, &["cannot probe nowhere"]);
    refused(here, &["calibrate", "--dir", "file"], 2, &["cannot probe file"]);
    refused(here, &["calibrate", "--seconds", "0"], 2, &["--seconds", "1..=600"]);
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let folder = folder_with(&[]);
    let here = folder.path();
    let mut child = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["calibrate", "--dir", ".", "--seconds", "60", "-q"])
        .current_dir(here)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It listens before it opens its first file.
    let is_open = || names(here).iter().any(|name| !names(&here.join(name)).is_empty());
    while child.try_wait().unwrap().is_none() && !is_open() {}
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(6), "{said}");
    assert_eq!(said, "interrupted: nothing was printed\n");
    assert_eq!(names(here), Vec::<String>::new());
}
