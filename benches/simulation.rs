//! Operations per second of the engine in the simulated world, on one core.
//!
//! A closed loop on a modelled device, with its load, as `forebay run` does it; time is the
//! machine's, not the world's. The fuzzer's checker is not part of it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench stops at any failure")]

mod common;

use common::{Draws, key};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use forebay::config::Config;
use forebay::record::World;
use forebay::world;

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
                Err((outcome, what)) => panic!("{outcome:?}: {what}"),
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = simulation
}
criterion_main!(benches);
