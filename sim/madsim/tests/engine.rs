//! Strategy: the suite of the real engine that forebay's own runtime passes, under madsim's
//! scheduler. Invariants: as there.
#![cfg(test)]
#![cfg(madsim)]

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use forebay_engine::options::Layout;
use forebay_sim::suite::{TENANT_COUNT, expected, read, write, write_together};
use forebay_sim::{RunEnd, SimConfig};
use forebay_sim_madsim::MadsimSim;

const DIR: &str = "/db";

#[test]
fn a_crash_at_any_point_loses_nothing_that_was_durable() {
    let mut crashes = 0;
    for seed in 0..12_u64 {
        let layout = if seed % 2 == 0 { Layout::PerTenant } else { Layout::Shared };
        let sim = MadsimSim::new(&SimConfig::fuzz(seed));
        sim.crash_at_point(Some(1 + seed * 70));
        let acked = Rc::new(Cell::new(0));
        let told = Rc::clone(&acked);
        let env = sim.env();
        let end = sim.run(async move {
            write(env, Path::new(DIR), layout, (0, 80), |n| told.set(n + 1)).await
        });
        crashes += usize::from(matches!(end, RunEnd::Crashed));
        sim.crash_at_point(None);
        if seed % 3 == 0 {
            sim.kill();
        } else {
            sim.power_loss();
        }
        let env = sim.env();
        let held = sim.run(async move { read(env, Path::new(DIR), layout).await });
        let held = held.done().expect("the read ends").expect("open works after any crash");
        let acked = acked.get();
        let none = held.is_empty() && acked == 0;
        assert!(none || held.len() == usize::try_from(TENANT_COUNT).unwrap(), "seed {seed}");
        for tenant in &held {
            let allowed = [expected(acked), expected(acked + 1)];
            assert!(allowed.contains(tenant), "seed {seed} acked {acked}");
        }
    }
    assert!(crashes >= 6, "only {crashes} of 12 runs crashed");
}

#[test]
fn writers_that_meet_in_the_queue_all_finish() {
    for seed in 0..5 {
        let sim = MadsimSim::new(&SimConfig::fuzz(seed));
        let env = sim.env();
        let end = sim.run(async move { write_together(env, Path::new(DIR), Layout::Shared).await });
        assert!(end.done().unwrap().unwrap() > 0);
    }
}

#[test]
fn one_seed_gives_one_trace() {
    let hash = |seed| {
        let sim = MadsimSim::new(&SimConfig::fuzz(seed));
        let env = sim.env();
        let end =
            sim.run(async move { write_together(env, Path::new(DIR), Layout::PerTenant).await });
        assert!(end.done().unwrap().is_ok());
        sim.trace_hash()
    };
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
