use super::*;

fn message(result: Result<()>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn defaults_are_valid_and_equal_the_listed_ones() {
    let mut options = Options::default();
    options.validate().unwrap();
    for info in KEYS {
        assert_eq!(options.get(info.name).as_deref(), Some(info.default), "{}", info.name);
        options.set(info.name, info.default).unwrap();
    }
    assert_eq!(options, Options::default());
}

#[test]
fn the_smallest_sizes_go_together() {
    let mut options = Options::default();
    for (key, value) in [
        ("budget_bytes", "16KiB"),
        ("memtable_bytes_max", "2 KiB"),
        ("wal_segment_bytes", "32KiB"),
        ("block_bytes", "64"),
        ("table_bytes_max", "1_024"),
        ("memtable_stop_count", "1"),
        ("layout", "grouped-16"),
    ] {
        options.set(key, value).unwrap();
    }
    options.validate().unwrap();
    assert_eq!(options.layout, Layout::Grouped(16));
    assert_eq!(options.memtable_cap_bytes(1), 2048);
    assert_eq!(options.memtable_cap_bytes(10), 4096);
    assert_eq!(options.batch_limit_bytes(), 2048);
    assert_eq!(options.wal_limit_bytes(), 128 * KIB);
    assert_eq!(options.stall_limits().memtable_slowdown_count, 1);
}

#[test]
fn values_out_of_bounds_name_key_and_bounds() {
    let mut options = Options::default();
    for (key, value, want) in [
        ("budget_bytes", "1KiB", "from 16384 to 1125899906842624"),
        ("budget_bytes", "-1", "budget_bytes"),
        ("budget_bytes", "_", "budget_bytes"),
        ("flush_slots", "0", "from 1 to 64"),
        ("flush_slots", "1KiB", "flush_slots"),
        ("memtable_history_bytes", "2000GiB", "from 0 to 1099511627776"),
        ("policy_override", "maybe", "neither true nor false"),
        ("layout", "grouped-0", "grouped-G"),
        ("layout", "per-galaxy", "per-tenant, shared"),
        ("flush_policy", "tallest", "largest, oldest-write, "),
        ("flush.largest.trigger_ratio", "1.5", "flush.largest.trigger_ratio = 1.5"),
        ("flush.largest.idle_flush_ns", "1.5", "whole number"),
        ("flush.largest.trigger_ratio", "NaN", "from 0.01 to 1"),
        ("flush.largest.size", "1", "trigger_ratio, scope_writer, idle_flush_ns"),
        ("stall.hard.delay_ns", "1", "it has: none"),
        ("stall.delay", "1", "delay_ns"),
        ("prefix_extractor", "fixed-0", "fixed-N with N from 1 to 65536"),
        ("prefix_extractor", "first-8", "delimiter-XX"),
        ("compression", "zstd", "none, lz4"),
        ("no_such_key", "1", "budget_bytes"),
        ("flux.largest.size", "1", "flush.NAME.PARAM"),
    ] {
        let text = message(options.set(key, value));
        assert!(text.contains(want), "{key}={value}: {text}");
        assert!(!text.contains('\n'));
        assert_eq!(options, Options::default(), "{key}={value} changed something");
    }
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    for (key, value, want) in [
        ("memtable_slowdown_count", "5", "memtable_stop_count = 4"),
        ("l0_slowdown_count", "37", "l0_stop_count = 36"),
        ("l0_compaction_count", "21", "l0_slowdown_count = 20"),
        ("batch_bytes_max", "33MiB", "a quarter of budget_bytes"),
        ("wal_bytes_max", "16MiB", "2 x wal_segment_bytes"),
        ("wal_bytes_stop", "1MiB", "wal_bytes_max"),
    ] {
        let mut options = Options::default();
        options.set(key, value).unwrap();
        let text = message(options.validate());
        assert!(text.contains(want), "{key}={value}: {text}");
    }
    let options = Options { flush_slots: 0, ..Options::default() };
    assert!(message(options.validate()).contains("flush_slots"));
    let extractor = Some(PrefixExtractor::FixedLength(0));
    let options = Options { prefix_extractor: extractor, ..Options::default() };
    assert!(message(options.validate()).contains("fixed-0"));
    let options = Options { layout: Layout::Grouped(0), ..Options::default() };
    assert!(message(options.validate()).contains("grouped-0"));
}

#[test]
fn parameters_reach_their_policy_in_any_order() {
    let mut options = Options::default();
    options.set("flush.largest.trigger_ratio", "0.5").unwrap();
    options.set("flush.trigger_ratio", "0.6").unwrap();
    options.set("stall.delay_ns", "2_000_000").unwrap();
    assert_eq!(options.flush_policy, PolicySpec::named("oldest-write").with("trigger_ratio", 0.6));
    options.set("flush_policy", "largest").unwrap();
    assert_eq!(options.flush_policy, PolicySpec::named("largest").with("trigger_ratio", 0.5));
    assert_eq!(options.stall_policy, PolicySpec::named("leveldb").with("delay_ns", 2e6));
    options.validate().unwrap();
    options.set("stall_policy", "none").unwrap();
    assert!(message(options.validate()).contains("no parameter \"delay_ns\""));
}

#[test]
fn names_of_tables_options_print_as_they_parse() {
    for (key, values) in [
        ("prefix_extractor", ["fixed-8", "delimiter-2f", "none"]),
        ("compression", ["lz4", "none", "lz4"]),
    ] {
        for value in values {
            let mut options = Options::default();
            options.set(key, value).unwrap();
            options.validate().unwrap();
            assert_eq!(options.get(key).as_deref(), Some(value));
        }
    }
}

#[test]
fn layouts_print_as_they_parse() {
    for layout in [Layout::PerTenant, Layout::Shared, Layout::Grouped(16)] {
        assert_eq!(layout.to_string().parse::<Layout>().unwrap(), layout);
    }
}
