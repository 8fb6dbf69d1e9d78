#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests run the program and a browser on its page")]
//! Strategy: a small experiment is run, its files are read back with names that try to break out of
//! the page, and Chromium loads the page that is made of them; what panels drew stands in their
//! attributes. A script put at the page's end plays the reader.
//!
//! Invariants: the page says nothing on the console; a name is text; every panel with a time axis
//! shows the same range, whatever moved it; without scripts there is a table.

use std::path::{Path, PathBuf};
use std::process::Command;

use forebay::events::{EventKind, RunEvents, read_events};
use forebay::histogram::read_histograms;
use forebay::record::read_runs;
use forebay::report::{ReportInput, html};
use forebay::series::read_series;

const EXPERIMENT: &str = r#"
title = "page"
question = "Does every panel move?"
baseline = "per-tenant/stop=1"
seeds = "0..2"
[options]
budget_bytes = 524288
memtable_bytes_max = 65536
wal_segment_bytes = 65536
block_cache_bytes = 131072
table_bytes_max = 32768
flush_policy = "oldest-write"
[device]
preset = "nvme"
scale = 20000
[workload]
name = "twitter-53"
tenant_count = 30
offered_ops_per_s = 200
[stop]
fill_count = 2
warmup_fill_count = 1
[arms]
layout = ["per-tenant", "shared"]
memtable_stop_count = [1, 4]
"#;

const EVIL: &str = "</script><img src=x onerror=\"document.documentElement.dataset.pwned=1\">\
'\"&lt;\u{2028}\r\u{0}";

/// Panels with a time axis: six charts and the timeline.
const PANELS: usize = 7;

/// Fills a folder with a run; gives back its events.
fn ran(folder: &Path) -> Vec<RunEvents> {
    std::fs::write(folder.join("page.toml"), EXPERIMENT).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["run", "page.toml", "--out", "out", "--trace", "trace.json", "--progress", "none"])
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    read_events(&folder.join("out/events.jsonl")).unwrap()
}

/// A page made of the run's files, with evil names, and this script at its end.
fn page(folder: &Path, script: &str, with_samples: bool) -> PathBuf {
    let out = folder.join("out");
    let mut input = ReportInput {
        title: EVIL.to_owned(),
        question: EVIL.to_owned(),
        scale_lines: vec![EVIL.to_owned()],
        rows: read_runs(&out.join("runs.jsonl")).unwrap(),
        series: read_series(&out.join("series.csv")).unwrap(),
        histograms: read_histograms(&out.join("hist.jsonl")).unwrap(),
        events: read_events(&out.join("events.jsonl")).unwrap(),
        ..ReportInput::default()
    };
    if !with_samples {
        input.series.clear();
    }
    let evil = |name: &mut String| name.insert_str(0, EVIL);
    for row in &mut input.rows {
        evil(&mut row.arm);
        row.tenants.iter_mut().for_each(|tenant| evil(&mut tenant.name));
        row.replay = EVIL.to_owned();
    }
    for run in &mut input.events {
        evil(&mut run.head.arm);
        run.head.owners.iter_mut().for_each(evil);
        run.rows
            .iter_mut()
            .filter(|row| !row.owner.is_empty())
            .for_each(|row| evil(&mut row.owner));
    }
    input.baseline_arm = input.rows[0].arm.clone();
    let page = html::render(&input).unwrap();
    let (start, end) = page.rsplit_once("</body>").unwrap();
    let path = folder.join("page.html");
    std::fs::write(&path, format!("{start}<script>{script}</script></body>{end}")).unwrap();
    path
}

/// The document after its scripts, and the console. Where the browser ends before the page is
/// ready, as it may on a machine that has no time for it, it is asked again.
fn dom(folder: &Path, url: &str, flags: &[&str]) -> (String, Vec<String>) {
    const TRIES: usize = 4;
    let mut found = (String::new(), Vec::new());
    for _ in 0..TRIES {
        found = loaded(folder, url, flags);
        if found.0.contains("data-ready=\"yes\"") || found.0.contains("data-error") {
            break;
        }
    }
    found
}

/// Loads a page once.
fn loaded(folder: &Path, url: &str, flags: &[&str]) -> (String, Vec<String>) {
    let program = std::env::var("FOREBAY_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    let profile = format!("--user-data-dir={}", folder.join("profile").display());
    let output = Command::new(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,2000"])
        .args(["--virtual-time-budget=20000", "--enable-logging=stderr", "--v=0", &profile])
        .args(flags)
        .args(["--dump-dom", url])
        .output()
        .expect("Chromium is installed; FOREBAY_CHROMIUM names it where it is not `chromium`");
    let said = String::from_utf8_lossy(&output.stderr);
    let console = said.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned);
    (String::from_utf8_lossy(&output.stdout).into_owned(), console.collect())
}

/// Loads the page with a script; gives back the range of each panel.
fn ranges(folder: &Path, fragment: &str, script: &str) -> Vec<(f64, f64)> {
    let page = page(folder, script, true);
    let url = format!("file://{}{fragment}", page.display());
    let (dom, console) = dom(folder, &url, &[]);
    assert_eq!(console, Vec::<String>::new(), "the console is silent");
    assert!(dom.contains("data-ready=\"yes\"") && !dom.contains("data-error"), "{dom:.300}");
    assert!(!dom.contains("data-pwned") && !dom.contains("<img"), "a name is text");
    let mut ranges = Vec::new();
    for part in dom.split("data-zoom=\"").skip(1) {
        let (range, _) = part.split_once('"').unwrap();
        let (min, max) = range.split_once(',').unwrap();
        ranges.push((min.parse().unwrap(), max.parse().unwrap()));
    }
    assert_eq!(ranges.len(), PANELS);
    assert!(ranges.iter().all(|range| *range == ranges[0]), "{fragment} {script}: {ranges:?}");
    ranges
}

/// Goes back to the whole run where the arm of the address is shown.
const WHEN_NAMED: &str = "
setTimeout(() => { if (document.getElementById('arm').value === options[3].value) key('0'); }, 100);
";

const PLAY: &str = "
const panel = document.getElementById('over-time');
const key = (key) => panel.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
const drag = (at, names, from, to) => {
  const box = at.getBoundingClientRect();
  names.forEach((name, n) => {
    const x = box.left + box.width * (n ? to : from), y = box.top + 20;
    const init = { clientX: x, clientY: y, button: 0, buttons: 1, movementX: n, bubbles: true, detail: 1 };
    const event = name.startsWith('pointer') ? new PointerEvent(name, init) : new MouseEvent(name, init);
    at.dispatchEvent(event);
  });
};
const POINTER = ['pointerdown', 'pointermove', 'pointerup'];
const MOUSE = ['mousedown', 'mousemove', 'mouseup'];
const canvas = document.querySelector('#timeline-chart canvas');
const options = document.getElementById('arm').options;
const plot = document.querySelector('#charts .u-over');
";

#[test]
#[ignore = "needs Chromium: just page-test"]
fn the_page_renders_and_zoom_moves_every_panel() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let events = ran(folder);
    assert_eq!(events.len(), 4, "the first seed of each arm");
    assert!(events.iter().any(|run| run.rows.iter().any(|row| row.kind == EventKind::Flush)));
    let play = |script: &str| {
        ranges(folder, "", &format!("{PLAY} setTimeout(() => {{{script}}}, 50);"))[0]
    };
    let (begin, end) = play("");
    assert!(begin == 0.0 && end > 20.0, "{begin} {end}");

    assert_eq!(ranges(folder, "#zoom=2,6.5", "")[0], (2.0, 6.5));
    assert_eq!(ranges(folder, "#zoom=-3,nonsense", "")[0], (0.0, end));
    let (min, max) = play("key('+');");
    assert!((min - end / 4.0).abs() < 0.01 && (max - end * 0.75).abs() < 0.01, "{min} {max}");
    let (right, _) = play("key('+'); key('ArrowRight');");
    assert!(right > min, "{right} {min}");
    assert_eq!(play("key('+'); key('+'); key('-'); key('0');"), (0.0, end));
    assert_eq!(play("key('-'); key('ArrowLeft'); key('ArrowRight');"), (0.0, end));
    assert_eq!(play("key('+'); document.getElementById('reset').click();"), (0.0, end));

    let (min, max) = play("drag(plot, MOUSE, 0.25, 0.5);");
    assert!((min / end - 0.25).abs() < 0.02 && (max / end - 0.5).abs() < 0.02, "{min} {max}");
    let (min, max) = play("drag(canvas, POINTER, 0.5, 0.75);");
    assert!(min > end / 3.0 && max < end * 0.8, "{min} {max}");
    let back =
        "drag(canvas, POINTER, 0.5, 0.75); canvas.dispatchEvent(new MouseEvent('dblclick'));";
    assert_eq!(play(back), (0.0, end));
    let named = "location.hash = '#zoom=1,2&arm=' + encodeURIComponent(options[3].value);";
    assert_eq!(play(&format!("{named} {WHEN_NAMED}")), (0.0, end));
    let other = "key('+'); document.querySelectorAll('#headline tr.pick')[2].click();";
    assert_eq!(play(other), play("key('+');"), "another arm is shown at the same range");
}

#[test]
#[ignore = "needs Chromium: just page-test"]
fn a_page_is_whole_without_samples_without_scripts_and_in_the_dark() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ran(folder);
    let url = format!("file://{}#zoom=3,5", page(folder, "", false).display());
    let (bare, console) = dom(folder, &url, &[]);
    assert_eq!(console, Vec::<String>::new());
    assert_eq!(bare.matches("data-zoom=\"").count(), 1, "a timeline needs no samples");
    assert!(bare.contains("data-zoom=\"3.000,5.000\"") && bare.contains("left no samples"));
    // A document that a script parses is one without scripting: its `noscript` has elements.
    let told = "
        const text = document.documentElement.outerHTML;
        const plain = new DOMParser().parseFromString(text, 'text/html');
        document.title = plain.querySelectorAll('noscript tr').length + ' rows, '
          + getComputedStyle(document.body).backgroundColor;";
    let url = format!("file://{}", page(folder, told, true).display());
    let title = |flags: &[&str]| {
        let (page, _) = dom(folder, &url, flags);
        page.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0.to_owned()
    };
    assert_eq!(title(&[]), "5 rows, rgb(255, 255, 255)");
    assert_eq!(title(&["--blink-settings=preferredColorScheme=0"]), "5 rows, rgb(20, 23, 29)");
}

#[test]
fn the_programs_own_page_has_every_panel_and_its_trace_every_arm() {
    let folder = tempfile::tempdir().unwrap();
    let events = ran(folder.path());
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(page.len() < 250_000, "{} bytes", page.len());
    let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["timelines"].as_array().unwrap().len(), 4);
    let trace = std::fs::read_to_string(folder.path().join("trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&trace).unwrap();
    let written = trace["traceEvents"].as_array().unwrap();
    let spans = written.iter().filter(|event| event["ph"] == "X").count();
    let kinds = [EventKind::Flush, EventKind::Compaction, EventKind::Stall];
    let told = events.iter().flat_map(|run| &run.rows).filter(|row| kinds.contains(&row.kind));
    assert_eq!(spans, told.count());
    assert!(events.iter().all(|run| run.head.left_out == 0));
}
