//! Policies on the real disk: layout x flush policy x stall threshold with 1,000 tenants.
//!
//! Each arm keeps one database open and writes to it for all its samples, so that after the warm-up
//! the budget is full and every sample pays for flushes, compactions and stalls. Tenants are drawn
//! with a skew: half of all writes go to an eighth of them. `cargo bench --bench policies --
//! --save-baseline X`, and later `-- --baseline X`, compares two builds.
#![expect(clippy::unwrap_used, reason = "a bench stops at any failure")]

mod common;

use std::time::Duration;

use common::{Draws, key};
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use forebay_engine::blocking::{BlockingDb, BlockingTenant};
use forebay_engine::env::os::OsEnv;
use forebay_engine::policy::flush;
use forebay_engine::{Options, WriteOptions};

const TENANTS: u64 = 1_000;
const KEYS_PER_TENANT: u64 = 64;
const VALUE: [u8; 400] = [0x5a; 400];

struct Arm {
    db: BlockingDb<OsEnv>,
    tenants: Vec<BlockingTenant<OsEnv>>,
    draws: Draws,
    _directory: tempfile::TempDir,
}

impl Arm {
    fn new(layout: &str, flush_policy: &str, memtable_stop_count: u32) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut options = Options::default();
        let stop = memtable_stop_count.to_string();
        for (key, value) in [
            ("layout", layout),
            ("flush_policy", flush_policy),
            ("memtable_stop_count", &stop),
            ("budget_bytes", "4MiB"),
            ("memtable_bytes_max", "64KiB"),
            ("wal_segment_bytes", "1MiB"),
            ("table_bytes_max", "1MiB"),
        ] {
            options.set(key, value).unwrap();
        }
        let db = BlockingDb::open(OsEnv, directory.path(), options).unwrap();
        let names: Vec<String> = (0..TENANTS).map(|n| format!("t{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let tenants = db.create_tenants(&names).unwrap();
        Self { db, tenants, draws: Draws(1), _directory: directory }
    }

    fn write(&mut self) {
        let among = if self.draws.draw() & 1 == 0 { TENANTS } else { TENANTS >> 3 };
        let tenant = usize::try_from(self.draws.below(among)).unwrap();
        let key = key(self.draws.below(KEYS_PER_TENANT));
        if let Some(tenant) = self.tenants.get(tenant) {
            tenant.put(&key, &VALUE, WriteOptions::default()).unwrap();
        }
    }
}

fn policies(c: &mut Criterion) {
    for layout in ["per-tenant", "grouped-16", "shared"] {
        let mut group = c.benchmark_group(layout);
        group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(700));
        for info in flush::list() {
            for stop in [2, 4] {
                let arm = BenchmarkId::new(info.name, format!("stop-{stop}"));
                let mut state: Option<Arm> = None;
                group.bench_function(arm, |b| {
                    let arm = state.get_or_insert_with(|| Arm::new(layout, info.name, stop));
                    b.iter(|| arm.write());
                });
                if let Some(arm) = state {
                    arm.db.close().unwrap();
                }
            }
            if layout == "shared" {
                // One tree: whom to flush is no question.
                break;
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = policies
}
criterion_main!(benches);
