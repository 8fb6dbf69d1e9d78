#![cfg(test)]
//! Strategy: states of a crash by copy. Invariants: the walk over all states meets each once, a run that
//! judges all finds what a run that judges one misses, and a crash is judged in several states.

use std::collections::BTreeSet;
use std::path::Path;

use forebay_engine::env::{Env, File, IoClass};
use forebay_sim::bugs::Bug;
use forebay_sim::disk::{DiskConfig, Profile};
use forebay_sim::run::{run_scenario, run_seed};
use forebay_sim::scenario::{End, Scenario};
use forebay_sim::sweep::scripts;
use forebay_sim::{Sim, SimConfig};

/// A disk on which the first bytes of three pages of a synced file, and a new name, are pending.
fn pending(profile: Profile) -> Sim {
    let config = SimConfig::fuzz(1);
    let sim = Sim::new(&SimConfig { disk: DiskConfig { profile, ..config.disk }, ..config });
    sim.disk_mut().create_dir("/d");
    let env = sim.env();
    sim.run(async move {
        let file = env.create(Path::new("/d/a")).await.unwrap();
        file.append(&[1; 3 * 4096], IoClass::Wal).await.unwrap();
        file.sync_data(IoClass::Wal).await.unwrap();
        env.sync_dir(Path::new("/d")).await.unwrap();
        for page in 0..3 {
            file.write_at(page * 4096, &[2; 100], IoClass::Wal).await.unwrap();
        }
        env.rename(Path::new("/d/a"), Path::new("/d/b")).await.unwrap();
    })
    .done()
    .unwrap();
    sim
}

fn states(sim: &Sim) -> (usize, usize) {
    let disk = sim.disk();
    let all: Vec<u64> = disk.crash_states().map(|(after, _)| after.fingerprint()).collect();
    (all.iter().collect::<BTreeSet<_>>().len(), all.len())
}

#[test]
fn the_walk_meets_every_subset_that_a_profile_allows() {
    let sim = pending(Profile::Journal);
    assert_eq!(sim.disk().crash_units(), 4);
    assert_eq!(states(&sim).0, 8 * 2, "three pages, and one name or the other");
    assert_eq!(states(&pending(Profile::Strict)).0, 1);
    let sim = pending(Profile::Adversary);
    assert_eq!(states(&sim).0, 8 * 3, "three sectors, and one name, the other, or both");
    let drawn: BTreeSet<u64> =
        (0..4000).map(|_| sim.disk().crash_power(sim.choices()).0.fingerprint()).collect();
    assert_eq!(drawn.len(), 8 * 3, "what is drawn is among them");
}

#[test]
fn all_states_of_a_crash_show_what_one_of_them_hides() {
    let scripts = scripts().unwrap();
    let script = scripts.iter().find(|s| s.name == "put-then-sync/shared").unwrap();
    let (mut missed, mut exhausted) = (0, 0);
    for seed in 0..24 {
        let mut scenario = script.scenario.clone();
        let one = run_scenario(seed, &scenario, Some(Bug::WalSkipSync));
        if one.violation.is_some() {
            continue;
        }
        missed += 1;
        scenario.exhaustive = true;
        let all = run_scenario(seed, &scenario, Some(Bug::WalSkipSync));
        assert!(all.violation.is_some(), "seed {seed}: {} states", all.crash_states);
        exhausted += all.crashes_exhausted;
    }
    assert!(missed > 2, "{missed} of 24 samples missed it; {exhausted}");
}

#[test]
fn a_sound_engine_passes_every_state() {
    let mut scenario = Scenario::draw(3);
    for phase in &mut scenario.phases {
        phase.clients.truncate(1);
        phase.clients.iter_mut().for_each(|ops| ops.truncate(12));
    }
    scenario.exhaustive = true;
    let outcome = run_scenario(3, &scenario, None);
    assert_eq!(outcome.violation, None);
    assert!(outcome.crashes_exhausted > 0 && outcome.crash_states >= outcome.crashes);
}

#[test]
fn several_states_of_a_crash_are_judged() {
    let (mut seeds, mut crashes, mut states) = (0, 0, 0);
    let crashing = |seed: &u64| {
        Scenario::draw(*seed).phases.iter().any(|phase| matches!(phase.end, End::Crash(_)))
    };
    for seed in (0..80).filter(crashing) {
        let outcome = run_seed(seed, &[], None);
        seeds += 1;
        crashes += outcome.crashes;
        states += outcome.crash_states;
    }
    let text = format!("{states} states of {crashes} crashes in {seeds} seeds");
    // Behind a close, and at the end, all is durable: such a crash leaves one state.
    assert!(seeds > 20 && states > 2 * seeds && states * 10 > crashes * 13, "{text}");
}
