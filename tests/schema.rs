#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "the test reads a document")]
//! Strategy: rows with every part that a row may have are written as files have them, and their
//! fields are compared with those that `docs/schema.md` tells.
//!
//! Invariants: each field of each file stands in the page, and the page tells of no other.

use std::collections::BTreeSet;
use std::path::Path;

use forebay::beside_row::{ChurnRow, ForkRow, MoveRow};
use forebay::events::{EVENTS_SCHEMA, EventKind, EventRow, EventsHead};
use forebay::histogram::HistRow;
use forebay::load_row::KindRow;
use forebay::record::{ClassRow, RunRow, TenantRow, WrittenBytes};
use forebay::series::SERIES_HEADER;
use serde_json::Value;

/// Paths of the fields below a value; those of `params` are settings.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let parts = value.as_array().filter(|parts| parts.iter().any(Value::is_object));
    if let Some(object) = value.as_object().filter(|_| path != "params") {
        for (key, value) in object {
            let dot = if path.is_empty() { "" } else { "." };
            fields(value, &format!("{path}{dot}{key}"), found);
        }
    } else if let Some(parts) = parts {
        for part in parts {
            fields(part, &format!("{path}[]"), found);
        }
    } else {
        found.insert(path.to_owned());
    }
}

fn fields_of(values: &[Value]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for value in values {
        fields(value, "", &mut found);
    }
    found
}

/// The fields that the section of a file tells: `a{b,c}` is `a.b` and `a.c`.
fn told(page: &str, file: &str) -> BTreeSet<String> {
    let (_, section) = page.split_once(&format!("\n## `{file}`\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut found = BTreeSet::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cell = line.split('|').nth(1).unwrap();
        for name in cell.split('`').skip(1).step_by(2) {
            let (path, parts) = name.split_once('{').unwrap_or((name, ""));
            for part in parts.trim_end_matches('}').split(',') {
                let dot = if part.is_empty() { "" } else { "." };
                assert!(found.insert(format!("{path}{dot}{part}")), "{name} is told twice");
            }
        }
    }
    found
}

fn json(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn every_field_of_every_file_stands_in_the_page_with_what_it_is() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema.md");
    let page = std::fs::read_to_string(page).unwrap();
    let run = RunRow {
        rule: Some("C2".to_owned()),
        written_bytes: WrittenBytes { relog: 1, ..WrittenBytes::default() },
        churn: Some(ChurnRow { moves: Some(MoveRow::default()), ..ChurnRow::default() }),
        forks: Some(ForkRow::default()),
        arriving_ops_per_s: Some(forebay::number::Thousandths(1)),
        max_ops_per_s: Some(forebay::number::Thousandths(1)),
        kinds: vec![KindRow::default()],
        tenants: vec![TenantRow::default()],
        classes: vec![ClassRow::default()],
        ..RunRow::default()
    };
    assert_eq!(told(&page, "runs.jsonl"), fields_of(&[json(run)]));
    let series: BTreeSet<String> = SERIES_HEADER.split(',').map(str::to_owned).collect();
    assert_eq!(told(&page, "series.csv"), series);
    let histogram = HistRow { class: "hot".to_owned(), ..HistRow::default() };
    assert_eq!(told(&page, "hist.jsonl"), fields_of(&[json(histogram)]));
    let text = || "x".to_owned();
    let head =
        EventsHead { cut_ns: Some(1), schema: EVENTS_SCHEMA.to_owned(), ..EventsHead::default() };
    let event = EventRow {
        run_id: text(),
        kind: EventKind::All,
        owner: text(),
        at_ns: 1,
        took_ns: 1,
        bytes: 1,
        cause: text(),
        caused_by: text(),
        is_open: true,
        note: text(),
        flush_ns: 1,
        compaction_ns: 1,
        stall_ns: 1,
    };
    assert_eq!(told(&page, "events.jsonl"), fields_of(&[json(head), json(event)]));
}
