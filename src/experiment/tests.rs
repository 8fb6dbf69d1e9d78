//! Files that are right make the arms they should; files that are wrong are told in one line.

use super::*;

const DEMO: &str = include_str!("../../experiments/demo.toml");

fn demo(overrides: &Overrides) -> Experiment {
    let file = ExperimentFile::parse("demo.toml", DEMO).unwrap();
    Experiment::resolve("demo", &file, overrides).unwrap()
}

fn flags(flags: &[(&str, &str)]) -> Overrides {
    let settings = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Overrides { settings, ..Overrides::default() }
}

fn names(experiment: &Experiment) -> Vec<&str> {
    experiment.arms.iter().map(|arm| arm.name.as_str()).collect()
}

fn refused(text: &str) -> String {
    let experiment = ExperimentFile::parse("x.toml", text)
        .and_then(|file| Experiment::resolve("x", &file, &Overrides::default()));
    let error = experiment.unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn the_demo_has_its_eighteen_arms() {
    let experiment = demo(&Overrides::default());
    assert_eq!(experiment.arms.len(), 18);
    assert_eq!(names(&experiment)[0], "per-tenant/largest/stop=2");
    assert_eq!(names(&experiment)[17], "shared/oldest-write/stop=4");
    let shared = names(&experiment).iter().filter(|name| name.starts_with("shared")).count();
    assert_eq!(shared, 2);
    let arm = experiment.baseline_arm().unwrap();
    assert_eq!(arm.name, "per-tenant/oldest-write/stop=4");
    assert_eq!(arm.config.options.budget_bytes, 13_421_773);
    assert_eq!(arm.config.device_spec().write_bytes_per_s, 195_312);
    assert_eq!(arm.config.options.stall_limits().memtable_slowdown_count, 3);
    assert_eq!(experiment.full.unwrap().device_spec().write_bytes_per_s, 2_000_000_000);
}

#[test]
fn a_flag_turns_an_axis_into_one_value() {
    let experiment = demo(&flags(&[("memtable_stop_count", "3"), ("layout", "grouped-8")]));
    assert_eq!(names(&experiment).len(), 4);
    assert_eq!(names(&experiment)[0], "grouped-8/largest/stop=3");
    let origin = |key: &str| experiment.resolved.iter().find(|r| r.key == key).unwrap().origin;
    assert_eq!(origin("layout"), Origin::Flag);
    assert_eq!(origin("level_ratio"), Origin::Default);
    assert!(matches!(origin("budget_bytes"), Origin::File(line) if line > 20));
}

#[test]
fn all_policies_are_the_axis_that_their_list_is() {
    let list = forebay_engine::policy::PolicyKind::Stall.list();
    let text = "[arms]\nstall_policy = \"all\"\nflush_policy = [\"lru\", \"sound\"]\n\
                exclude = [{ flush_policy = \"sound\", stall_policy = \"none\" }]\n[arm.own]\n";
    let file = ExperimentFile::parse("x.toml", text).unwrap();
    let resolve = |overrides| Experiment::resolve("x", &file, &overrides).unwrap();
    let experiment = resolve(flags(&[("flush_policy", "lru")]));
    let stalls = names(&experiment).iter().filter(|name| name.ends_with("/lru")).count();
    assert_eq!((stalls, names(&experiment)[0]), (list.len() - 1, "hard/lru"));
    let flushes = forebay_engine::policy::PolicyKind::Flush.list();
    let sound = flushes.iter().filter(|info| info.known_defects.is_empty()).count();
    let one = &[("stall_policy", "hard"), ("flush_policy", "sound")];
    let experiment = resolve(flags(one));
    assert!(names(&experiment).iter().filter(|name| name.starts_with("hard/")).count() == sound);
    let error = refused("[options]\nflush_policy = \"all\"\n");
    assert!(error.contains("flush_policy is a list; only [arms]"), "{error}");
    assert!(refused("[arms]\nlayout = \"all\"\n").contains("layout"));
}

#[test]
fn what_flags_ask_for_is_run_though_the_file_leaves_it_out() {
    let experiment = demo(&flags(&[("layout", "shared"), ("flush_policy", "lru")]));
    assert_eq!(names(&experiment), ["shared/lru/stop=2", "shared/lru/stop=4"]);
}

#[test]
fn a_quick_run_is_smaller_and_a_flag_still_wins() {
    let quick = Overrides { quick: true, ..flags(&[("tenant_count", "50")]) };
    let experiment = demo(&quick);
    assert_eq!(experiment.arms.len(), 10);
    assert_eq!(experiment.arms[0].config.tenant_count, 50);
    assert_eq!(experiment.arms[0].config.fill_count, 3);
}

#[test]
fn coupled_axes_and_named_arms_join_the_grid() {
    let text = r#"
[arms]
layout = ["per-tenant", "shared"]
coupled = [[
    { memtable_stop_count = 2, l0_stop_count = 30 },
    { memtable_stop_count = 8, l0_stop_count = 60 },
]]
[arm.wild]
stall_policy = "none"
flush.trigger_ratio = 0.5
"#;
    let file = ExperimentFile::parse("x.toml", text).unwrap();
    let experiment = Experiment::resolve("x", &file, &Overrides::default()).unwrap();
    assert_eq!(experiment.arms.len(), 5);
    assert_eq!(names(&experiment)[1], "per-tenant/l0_stop_count=60/stop=8");
    assert_eq!(names(&experiment)[4], "wild");
    assert_eq!(experiment.arms[4].config.options.stall_policy.name, "none");
    let named =
        text.replace("{ memtable_stop_count = 8,", "{ name = \"many\", memtable_stop_count = 8,");
    let file = ExperimentFile::parse("x.toml", &named).unwrap();
    let experiment = Experiment::resolve("x", &file, &Overrides::default()).unwrap();
    assert_eq!(names(&experiment)[..2], ["per-tenant/l0_stop_count=30/stop=2", "per-tenant/many"]);
    assert_eq!(experiment.arms[1].config.options.l0_stop_count, 60);
    assert!(!experiment.arms[1].values.contains_key("name"));
}

#[test]
fn arms_are_compared_by_what_the_file_names_or_by_the_usual() {
    let names = |text: &str| -> Vec<&str> {
        let file = ExperimentFile::parse("x.toml", text).unwrap();
        let experiment = Experiment::resolve("x", &file, &Overrides::default()).unwrap();
        experiment.metrics.iter().map(|metric| metric.name).collect()
    };
    assert_eq!(names("metrics = [\"victims_p99\", \"flushes\"]\n"), ["victims_p99", "flushes"]);
    assert_eq!(names("title = \"x\"\n"), metric::USUAL);
}

#[test]
fn slips_are_told_with_file_line_key_and_what_is_allowed() {
    let error = refused("title = \"x\"\n\n[options]\nbudget = 1\n");
    assert!(error.starts_with("x.toml:4: unknown key \"budget\" in [options]; allowed: layout, "));
    let error = refused("[arms]\nflush_policy = [\"largest\", \"oldest\"]\n");
    assert!(
        error.starts_with("x.toml:2: flush_policy \"oldest\" does not exist; allowed: static, "),
        "{error}"
    );
    assert!(
        refused("[workload]\nnam = 1\n").contains("x.toml:2: unknown key \"nam\" in [workload]")
    );
    assert!(refused("[device]\npreset = \"tape\"\n").contains("allowed: none, nvme"));
    assert!(refused("seeds = \"5..5\"\n").contains("x.toml:1: seeds \"5..5\" are an empty range"));
    assert!(refused("baseline = \"x\"\n").contains("x.toml:1: baseline \"x\" is no arm"));
    assert!(
        refused("tittle = 1\n").starts_with("x.toml:1: unknown key \"tittle\"; allowed: title")
    );
    let refused_metric = refused("metrics = [\n\"p99\",\n\"p98\"]\n");
    assert!(refused_metric.starts_with("x.toml:3: unknown metric \"p98\"; allowed: throughput, "));
    assert!(refused("metrics = [\"p99\", \"p99\"]\n").contains("metrics has \"p99\" twice"));
    assert!(refused("metrics = []\n").contains("a list of names of metrics"));
    assert!(refused("[options\n").starts_with("x.toml:1: "));
    assert!(refused("[options]\nlayout = [\"shared\"]\n").contains("only [arms]"));
    assert!(
        refused("[stop]\nfill_count = 2\nwarmup_fill_count = 2\n").contains("warmup_fill_count")
    );
    assert!(
        refused("[options]\nbudget_bytes = 20_000\nblock_bytes = 8192\n")
            .contains("4 x block_bytes")
    );
    assert!(refused("[options]\nbudget_bytes = 100\n").contains("x.toml:2: budget_bytes"));
}

#[test]
fn flags_that_mean_nothing_are_told_in_one_line() {
    let file = ExperimentFile::parse("demo.toml", DEMO).unwrap();
    let error = Experiment::resolve("demo", &file, &flags(&[("flush", "x")])).unwrap_err();
    assert!(error.0.starts_with("-s flush=x: unknown key \"flush\"; allowed: layout"));
    assert_eq!(error.0.lines().count(), 1);
    for text in ["1", "a..b", "3..3", "4..2", "1..", "..2"] {
        assert!(text.parse::<Seeds>().is_err(), "{text}");
    }
    assert_eq!("0..20".parse::<Seeds>().unwrap(), Seeds { start: 0, end: 20 });
}
