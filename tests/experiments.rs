#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "a test reads the repository's own files")]
//! Strategy: every file in `experiments/` is read, resolved, and its baseline set up.
//!
//! Invariants: it says what it asks; its arms have distinct names and build their workload; what it
//! is a smaller form of can be compared with it; `docs/experiments.md` tells of it.

use std::fs;
use std::path::Path;

use forebay::experiment::{Experiment, ExperimentFile, Overrides};
use forebay::scale;
use forebay_engine::policy::PolicyKind;
use forebay_workloads::Workload;

fn experiments() -> Vec<(String, Experiment)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let file = ExperimentFile::parse(&name, &text).unwrap();
        let experiment = Experiment::resolve(&name, &file, &Overrides::default()).unwrap();
        found.push((name, experiment));
    }
    found
}

#[test]
fn every_experiment_asks_something_and_can_be_set_up() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/experiments.md");
    let page = fs::read_to_string(page).unwrap();
    let experiments = experiments();
    assert!(experiments.len() >= 6);
    for (name, experiment) in experiments {
        assert!(!experiment.title.is_empty() && experiment.question.len() > 40, "{name}");
        assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/experiments.md");
        let arm = experiment.baseline_arm().unwrap();
        assert_eq!(arm.name, experiment.baseline, "{name}");
        for arm in &experiment.arms {
            let spec = arm.config.workload_spec(0);
            assert!(Workload::new(spec).is_ok(), "{name}: {}", arm.name);
        }
        if let Some(full) = &experiment.full {
            assert!(scale::facts(full, &arm.config, None).is_ok(), "{name}");
        }
    }
}

#[test]
fn the_closing_table_has_every_flush_policy_in_four_scenarios() {
    let experiments = experiments();
    let (_, experiment) = experiments.iter().find(|(name, _)| name == "policies").unwrap();
    let scenarios = ["steady-zipf", "rotating-burst", "noisy-neighbour", "thundering-hour"];
    for info in PolicyKind::Flush.list() {
        for scenario in scenarios {
            let found = experiment.arms.iter().any(|arm| {
                arm.config.options.flush_policy.name == info.name && arm.config.workload == scenario
            });
            assert!(found, "{} in {scenario}", info.name);
        }
    }
    assert_eq!((experiment.seeds.start, experiment.seeds.end), (0, 5));
}
