//! Operations per second of the engine in the simulated world, on one core.
//!
//! `simulation` is a closed loop on a modelled device, with its load, as `forebay run` does it;
//! `checked` is a scenario without faults under the fuzzer's checker; `seeds` is the fuzzer as it is.
//! Time is the machine's, not the world's.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench stops at any failure")]

mod common;

use common::{Draws, key};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use forebay::config::Config;
use forebay::record::World;
use forebay::world;
use forebay_sim::run::{run_scenario, run_seed};
use forebay_sim::scenario::{End, Op, Phase, Scenario, Write};

const OPS: u64 = 50_000;

fn simulation(c: &mut Criterion) {
    let mut group = c.benchmark_group("simulation");
    group.throughput(Throughput::Elements(OPS)).sampling_mode(SamplingMode::Flat);
    // Every run has a seed of its own: what one seed makes cheap or dear is averaged out.
    let mut seeds = Draws(u64::from(key(1)[0]));
    for layout in ["per-tenant", "shared"] {
        let mut config = Config::default();
        for (key, value) in [
            ("layout", layout.to_owned()),
            ("op_count", OPS.to_string()),
            ("fill_count", "0".to_owned()),
            ("warmup_fill_count", "0".to_owned()),
            ("budget_bytes", "4MiB".to_owned()),
            ("memtable_bytes_max", "256KiB".to_owned()),
        ] {
            config.set(key, &value).unwrap();
        }
        config.validate().unwrap();
        group.bench_function(layout, |b| {
            b.iter(|| match world::run(World::Sim, &config, seeds.below(1 << 20)).measured {
                Ok(measured) => assert!(measured.ops >= OPS, "{} operations", measured.ops),
                Err(failed) => panic!("{failed:?}"),
            });
        });
    }
    group.finish();
}

/// One operation in two is a put of 100 bytes, the others are gets.
fn asked(draws: &mut Draws) -> Op {
    let tenant = usize::try_from(draws.below(8)).unwrap();
    let key = u32::try_from(draws.below(200)).unwrap();
    if draws.below(2) == 0 {
        Op::Write { writes: vec![Write { tenant, key, bytes: Some(100) }], sync: false }
    } else {
        Op::Get { tenant, key }
    }
}

fn checked(c: &mut Criterion) {
    let mut group = c.benchmark_group("checked");
    let mut draws = Draws(u64::from(key(1)[0]));
    let client = |draws: &mut Draws| (0..OPS >> 2).map(|_| asked(draws)).collect();
    let phase = Phase {
        clients: (0..4).map(|_| client(&mut draws)).collect(),
        end: End::Close,
        ..Phase::quiet()
    };
    let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let scenario = Scenario {
        creation_crashes: Vec::new(),
        options: vec![option("budget_bytes", "4MiB"), option("memtable_bytes_max", "256KiB")],
        profile: "journal".to_owned(),
        sync_persists_name: false,
        device: "none".to_owned(),
        tenants: 8,
        phases: vec![phase],
        creation_nth_fault: None,
        exhaustive: false,
        holds: false,
    };
    let mut seed = 0;
    group.throughput(Throughput::Elements(OPS)).sampling_mode(SamplingMode::Flat);
    group.bench_function("per-tenant", |b| {
        b.iter(|| {
            seed += 1;
            let outcome = run_scenario(seed, &scenario, None);
            assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
            assert!(outcome.ops >= OPS, "{} operations", outcome.ops);
        });
    });
    group.finish();
}

fn seeds(c: &mut Criterion) {
    let mut group = c.benchmark_group("seeds");
    let mut seed = 0;
    group.throughput(Throughput::Elements(20)).sampling_mode(SamplingMode::Flat);
    group.bench_function("fuzz", |b| {
        b.iter(|| {
            for _ in 0..20 {
                seed += 1;
                let outcome = run_seed(seed, &[], None);
                assert!(outcome.violation.is_none(), "seed {seed}: {:?}", outcome.violation);
            }
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = simulation, checked, seeds
}
criterion_main!(benches);
