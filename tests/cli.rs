//! The program as people call it: exit codes, one-line refusals, files that are complete or absent.

#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests look at files as a person would")]

mod program;

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use forebay::cli::Cli;
use program::{folder_with, forebay, refused, text};

const SMALL: &str = r#"
title = "small"
baseline = "per-tenant/oldest-write"
seeds = "0..2"
[options]
budget_bytes = 524_288
memtable_bytes_max = 65_536
wal_segment_bytes = 65_536
table_bytes_max = 32_768
block_cache_bytes = 131_072
[device]
preset = "nvme"
scale = 20_000
[workload]
name = "twitter-53"
tenant_count = 20
offered_ops_per_s = 200
[stop]
fill_count = 2
warmup_fill_count = 1
[arms]
layout = ["per-tenant", "shared"]
flush_policy = ["oldest-write"]
"#;

#[test]
fn wrong_input_is_refused_in_one_line_and_nothing_is_written() {
    let folder = folder_with(&[("small.toml", SMALL)]);
    let here = folder.path();
    refused(here, &["run", "none.toml"], 2, &["none.toml"]);
    let run = ["run", "small.toml"];
    let with = |more: &[&'static str]| [run.as_slice(), more].concat();
    refused(here, &with(&["-s", "flush_policy=oldest"]), 2, &["flush_policy", "oldest-write"]);
    refused(here, &with(&["-s", "budget=1"]), 2, &["budget", "allowed", "budget_bytes"]);
    refused(here, &with(&["-s", "budget_bytes=100"]), 2, &["budget_bytes", "from 16384"]);
    refused(here, &with(&["--only-seeds", "7..9"]), 4, &["seeds 0..2"]);
    refused(here, &with(&["--check-raw"]), 2, &["no stored rows"]);
    fs::write(here.join("taken"), "x").unwrap();
    refused(here, &with(&["--out", "taken/out"]), 2, &["taken/out"]);
    fs::write(here.join("typo.toml"), SMALL.replace("\nfill_count", "\nfill")).unwrap();
    refused(here, &["run", "typo.toml"], 2, &["typo.toml:19", "\"fill\"", "fill_count"]);
    for bad in [["--seeds", "3..3"], ["--seeds", "x"], ["-j", "0"], ["-s", "novalue"]] {
        let output = forebay(here, &with(&bad));
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
    }
    assert!(!here.join("target").exists());
}

#[test]
fn the_same_experiment_twice_gives_the_same_bytes_on_any_number_of_threads() {
    let folder = folder_with(&[("small.toml", SMALL)]);
    let here = folder.path();
    let first = forebay(here, &["run", "small.toml", "--out", "a", "-j", "2"]);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let shown = text(&first.stdout);
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    assert_eq!(shown.lines().last(), Some("a/report.html"));
    assert!(shown.contains("Best is ") || shown.contains("No arm is best"), "{shown}");
    let again = forebay(here, &["run", "small.toml", "--out", "b", "-j", "1", "-q"]);
    assert_eq!((again.status.code(), text(&again.stderr)), (Some(0), String::new()));
    let read = |path: &str| fs::read_to_string(here.join(path)).unwrap();
    let rows = read("a/runs.jsonl");
    assert_eq!(rows.lines().count(), 4);
    assert!(rows == read("b/runs.jsonl"), "rows differ");
    assert!(read("a/series.csv") == read("b/series.csv"), "samples differ");
    assert!(read("a/events.jsonl") == read("b/events.jsonl"), "events differ");
    let histograms = read("a/hist.jsonl");
    assert!(histograms == read("b/hist.jsonl") && histograms.lines().count() >= 8);
}

#[test]
fn a_wedge_breaks_l1_and_says_who_holds_what_and_ends_without_what_makes_it() {
    let folder = folder_with(&[]);
    let here = folder.path();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/wedge.toml");
    let run = ["run", file.to_str().unwrap(), "--out", "a"];
    let output = forebay(here, &run);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}{}", text(&output.stderr));
    let line = "L1 stuck: 28 writers wait for budget, and nothing can end it";
    assert!(shown.lines().any(|l| l.starts_with("fail  wbm-creation") && l.ends_with(line)));
    for what in
        ["waits for budget since vt ", "flushes 0, compactions 0", "budget M 676864", "tree "]
    {
        assert!(shown.contains(what), "{shown} lacks {what}");
    }
    let fits = |line: &str| line.starts_with("Reproduce:") || line.chars().count() <= 100;
    assert!(shown.lines().all(fits), "{shown}");
    let rows = fs::read_to_string(here.join("a/runs.jsonl")).unwrap();
    assert!(rows.contains("\"outcome\":\"fail\",\"rule\":\"L1\""), "{rows}");
    let events = fs::read_to_string(here.join("a/events.jsonl")).unwrap();
    let held = events.lines().filter(|line| line.contains("\"cause\":\"budget\""));
    assert!(held.clone().count() >= 10 && held.clone().all(|l| l.contains("\"is_open\":true")));
    let sound = ["-s", "flush_policy=above-mean-oldest", "-s", "memtable_history_bytes=0"];
    let output = forebay(here, &[run.as_slice(), &sound].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_folder_that_lost_runs_gets_the_same_bytes_back_and_a_changed_row_is_found() {
    let folder = folder_with(&[("small.toml", SMALL)]);
    let here = folder.path();
    let read = |path: &str| fs::read_to_string(here.join(path)).unwrap();
    forebay(here, &["run", "small.toml", "--out", "a"]);
    let (rows, series) = (read("a/runs.jsonl"), read("a/series.csv"));
    let events = read("a/events.jsonl");
    let kept = format!("{}\n", rows.lines().next().unwrap());
    fs::write(here.join("a/runs.jsonl"), kept).unwrap();
    let resumed = forebay(here, &["run", "small.toml", "--out", "a", "--resume", "-v", "-j", "1"]);
    assert_eq!(text(&resumed.stderr).matches("pass ").count(), 3, "{}", text(&resumed.stderr));
    assert!(rows == read("a/runs.jsonl"), "rows differ after --resume");
    assert!(series == read("a/series.csv"), "samples differ after --resume");
    assert!(events == read("a/events.jsonl"), "events differ after --resume");

    let check = ["run", "small.toml", "--out", "a", "--only-seeds", "1..2", "--check-raw", "-q"];
    let same = forebay(here, &check);
    let expected = "2 rows are the same\n".to_owned();
    assert_eq!((same.status.code(), text(&same.stdout)), (Some(0), expected));
    let changed = rows.replace("\"flush_count\":", "\"flush_count\":1");
    fs::write(here.join("a/runs.jsonl"), changed).unwrap();
    let differs = forebay(here, &check);
    assert_eq!(differs.status.code(), Some(1));
    assert!(text(&differs.stdout).contains("flush_count"), "{}", text(&differs.stdout));
}

#[test]
fn a_dry_run_and_print_config_write_nothing() {
    let folder = folder_with(&[("small.toml", SMALL)]);
    let dry = forebay(folder.path(), &["run", "small.toml", "--dry-run", "-j", "2"]);
    assert_eq!(dry.status.code(), Some(0));
    assert_eq!(text(&dry.stdout).matches("  seed ").count(), 4, "{}", text(&dry.stdout));
    let second = text(&dry.stdout).lines().nth(1).unwrap().to_owned();
    assert!(second.starts_with("about ") && second.contains(" s of one core, "), "{second}");
    let args = ["run", "small.toml", "--print-config", "-s", "device=hdd"];
    let shown = text(&forebay(folder.path(), &args).stdout);
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("device = hdd").ends_with("# -s"));
    assert!(line("budget_bytes = 524288").ends_with("# small.toml:6"));
    assert!(line("level_ratio = 10").ends_with("# default"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn json_is_one_object_a_line_with_a_schema_and_the_summary_last() {
    let folder = folder_with(&[("small.toml", SMALL)]);
    let args = ["run", "small.toml", "--out", "o", "--format", "json", "--seeds", "5..6"];
    let output = forebay(folder.path(), &args);
    let shown = text(&output.stdout);
    let objects: Vec<serde_json::Value> =
        shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 3);
    assert!(objects.iter().all(|object| object["schema"].is_string()));
    assert_eq!(objects[2]["schema"], "forebay.summary/1");
    assert_eq!(objects[2]["passed"], 2);
    let replay = objects[0]["replay"].as_str().unwrap();
    assert_eq!(
        replay,
        "forebay run small.toml -s flush_policy=oldest-write -s layout=per-tenant --seeds 5..6"
    );
    // The replay line makes the same run.
    let args: Vec<&str> = replay.split(' ').skip(1).chain(["--format", "json", "-q"]).collect();
    let again = text(&forebay(folder.path(), &args).stdout);
    assert_eq!(again.lines().next(), shown.lines().next());
}

#[test]
fn the_real_disk_has_a_file_of_its_own() {
    let fast = SMALL.replace("offered_ops_per_s = 200", "offered_ops_per_s = 20_000");
    let folder = folder_with(&[("small.toml", &fast)]);
    let args = ["run", "small.toml", "--world", "os", "--out", "o", "--seeds", "0..1", "-q"];
    let output = forebay(folder.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let rows = fs::read_to_string(folder.path().join("o/runs.wall.jsonl")).unwrap();
    assert_eq!(rows.matches("\"world\":\"os\"").count(), 2);
    assert!(!folder.path().join("o/runs.jsonl").exists());
}

#[test]
fn lists_are_there() {
    let folder = folder_with(&[]);
    for (what, name) in [
        ("flush", "oldest-write"),
        ("stall", "leveldb"),
        ("compaction", "leveled"),
        ("layout", "grouped-G"),
        ("workload", "twitter-53"),
        ("device", "nvme"),
        ("bug", "wal-skip-sync"),
    ] {
        let output = forebay(folder.path(), &["list", what, "--format", "json"]);
        let items: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let item = items.iter().find(|item| item["name"] == name).unwrap();
        assert!(item["id"].is_string() && item["source"].is_string() && item["params"].is_array());
        let human = text(&forebay(folder.path(), &["list", what]).stdout);
        assert!(human.contains(name) && human.lines().all(|line| line.chars().count() <= 100));
    }
}

#[test]
fn verdicts_are_coloured_where_somebody_asks_for_it_and_numbers_for_programs_never_are() {
    let folder = folder_with(&[]);
    let shown = |more: &[&str]| {
        let args = [&["fuzz", "--seeds", "0..2", "--out", "o", "-q"], more].concat();
        text(&forebay(folder.path(), &args).stdout)
    };
    assert!(shown(&["--color", "always"]).starts_with("\u{1b}[32mok\u{1b}[0m    2 seeds"));
    for plain in [&[][..], &["--color", "never"], &["--color", "always", "--format", "json"]] {
        assert!(!shown(plain).contains('\u{1b}'), "{plain:?}");
    }
    let csv = shown(&["--color", "always", "--format", "csv"]);
    assert!(csv.starts_with("seed,outcome,rule,ops,virtual_ns,trace_hash\n0,pass,,"), "{csv}");
    assert_eq!(csv.lines().count(), 3);
}

#[test]
fn completions_and_manual_pages_name_every_command_and_flag() {
    let folder = folder_with(&[]);
    let here = folder.path();
    let mut all = Cli::command();
    all.build();
    let commands: Vec<&clap::Command> =
        all.get_subcommands().filter(|command| command.get_name() != "help").collect();
    assert!(commands.len() >= 20);
    for (shell, begins) in [("bash", "_forebay()"), ("zsh", "#compdef forebay"), ("fish", "#")] {
        let script = text(&forebay(here, &["completions", shell]).stdout);
        assert!(script.starts_with(begins), "{shell}: {script:.80}");
        for command in &commands {
            assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(script.contains(flag), "{shell}: {} --{flag}", command.get_name());
            }
        }
    }
    // The script in the shell that it is for.
    let completed = "eval \"$(\"$0\" completions bash)\"; COMP_WORDS=(forebay com); COMP_CWORD=1; \
                     _forebay forebay com forebay; echo \"${COMPREPLY[@]}\"";
    let program = env!("CARGO_BIN_EXE_forebay");
    let output = Command::new("bash").args(["-c", completed, program]).output().unwrap();
    assert_eq!(text(&output.stdout), "compare completions\n", "{}", text(&output.stderr));

    let first = text(&forebay(here, &["man"]).stdout);
    assert_eq!(forebay(here, &["man", "--out", "man"]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(here.join("man/forebay.1")).unwrap(), first);
    let roff = |name: &str| name.replace('-', "\\-");
    for command in &commands {
        let name = command.get_name();
        assert!(first.contains(&format!("forebay\\-{}(1)", roff(name))), "{name}");
        let page = fs::read_to_string(here.join(format!("man/forebay-{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH forebay-{name} 1")), "{name}: {page:.200}");
        for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&roff(flag)), "{name} --{flag}");
        }
    }
    assert_eq!(fs::read_dir(here.join("man")).unwrap().count(), commands.len() + 1);
    assert!(first.contains("EXIT STATUS") && first.contains("interrupted or out of time"));
}
