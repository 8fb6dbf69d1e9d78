#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "a test reads the repository's own file")]
//! Strategy: experiment files made of arbitrary text, of keys and values in all combinations, and
//! of a real file with changed bytes.
//!
//! Invariants: a file that holds together or an error in one line that names a line of the file;
//! never a panic. See `forebay::experiment::check`.

use std::fs;
use std::path::Path;

use forebay::experiment::{ExperimentFile, check};
use proptest::prelude::*;

fn demo() -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read(root.join("experiments/demo.toml")).unwrap()
}

#[test]
fn a_real_file_is_read() {
    let text = String::from_utf8(demo()).unwrap();
    assert!(ExperimentFile::parse("f.toml", &text).is_ok());
    check(text.as_bytes());
}

fn line() -> impl Strategy<Value = String> {
    let head = prop::sample::select(vec![
        "title",
        "question",
        "baseline",
        "seeds",
        "options",
        "workload",
        "device",
        "stop",
        "measure",
        "arms",
        "arm.x",
        "quick",
        "full",
        "arms.coupled",
        "arms.exclude",
    ]);
    let key = prop::sample::select(vec![
        "budget_bytes",
        "layout",
        "flush_policy",
        "flush.x",
        "name",
        "tenant_count",
        "preset",
        "scale",
        "fill_count",
        "duration_ns",
        "sample_interval_ns",
        "params.theta",
        "coupled",
        "exclude",
        "a.b.c",
        "\"\"",
        "core_count",
    ]);
    let value = prop::sample::select(vec![
        "1",
        "-1",
        "0x7f",
        "1e400",
        "nan",
        "true",
        "\"A..B\"",
        "\"0..3\"",
        "[]",
        "[1, 2]",
        "[[]]",
        "{}",
        "{ budget_bytes = [1, 2] }",
        "[{ layout = \"shared\" }]",
        "2020-01-01",
        "\"\"\"\n\"\"\"",
        "99999999999999999999999999999999999999999",
        "[[{ budget_bytes = 1048576 }]]",
        "\"zipf\"",
    ]);
    prop_oneof![
        head.clone().prop_map(|head| format!("[{head}]")),
        (head, value.clone()).prop_map(|(head, value)| format!("{head} = {value}")),
        (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_text_gives_a_file_or_an_error_in_one_line(text in any::<String>()) {
        check(text.as_bytes());
    }

    #[test]
    fn keys_and_values_of_all_kinds_give_a_file_or_an_error_in_one_line(
        lines in prop::collection::vec(line(), 0..6),
    ) {
        check(lines.join("\n").as_bytes());
    }

    #[test]
    fn a_real_file_with_changed_bytes_gives_a_file_or_an_error_in_one_line(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..128), 1..5),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let mut bytes = demo();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        check(&bytes);
    }
}
