#![cfg(test)]
//! Strategy: the real engine with little memory on a slow disk, every layout under every stall
//! policy; writers of several tenants, batches across tenants, writers that give up while they
//! wait, and a tenant that is dropped while others write.
//!
//! Invariants: what tenants waited, what they caused and what was waited for each cause add up to
//! the same; events tell the same as the counters; every writer gets through or gets an error.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use forebay_engine::batch::WriteBatch;
use forebay_engine::env::Env;
use forebay_engine::events::{Event, Listener};
use forebay_engine::metrics::BranchStalls;
use forebay_engine::options::Options;
use forebay_engine::policy::PolicyKind;
use forebay_engine::types::{BranchId, Nanos};
use forebay_engine::write::WriteOptions;
use forebay_engine::{Db, Error, Tenant};
use forebay_sim::disk::device::DeviceSpec;
use forebay_sim::env::SimEnv;
use forebay_sim::{Sim, SimConfig};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "dropped"];
const WRITES: u64 = 60;

/// Sums of events.
#[derive(Debug, Default)]
struct Told {
    by_cause: [Nanos; 5],
    count: u64,
    branches: BTreeMap<BranchId, BranchStalls>,
    open: i64,
}

#[derive(Clone, Debug, Default)]
struct Ear(Arc<Mutex<Told>>);

impl Listener for Ear {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a listener takes what it knows")]
    fn event(&self, _: Nanos, event: &Event) {
        let mut told = self.0.lock().unwrap();
        match event {
            Event::StallBegin { .. } => told.open += 1,
            Event::StallEnd { branch, cause, caused_by, elapsed_ns } => {
                told.open -= 1;
                told.count += 1;
                told.by_cause[cause.index()] += elapsed_ns;
                told.branches.entry(*branch).or_default().waited_ns += elapsed_ns;
                told.branches.entry(*caused_by).or_default().caused_ns += elapsed_ns;
            }
            _ => {}
        }
    }
}

fn options(layout: &str, policy: &str) -> Options {
    let mut options = Options::default();
    let set = [
        ("layout", layout),
        ("stall_policy", policy),
        ("budget_bytes", "32768"),
        ("memtable_bytes_max", "4096"),
        ("memtable_stop_count", "4"),
        ("l0_compaction_count", "1"),
        ("l0_slowdown_count", "2"),
        ("l0_stop_count", "4"),
        ("pending_compaction_slowdown_bytes", "8192"),
        ("pending_compaction_stop_bytes", "65536"),
        ("wal_segment_bytes", "32768"),
        ("wal_bytes_stop", "262144"),
        ("block_bytes", "512"),
        ("table_bytes_max", "4096"),
        ("level_base_bytes", "8192"),
        ("stall.interval_ns", "10000000"),
        ("stall.tick_ns", "1000000"),
        ("stall.backoff_ns", "1000000"),
        ("stall.delay_max_ns", "50000000"),
    ];
    for (key, value) in set {
        options.set(key, value).unwrap();
    }
    options
}

/// Writes until the tenant is gone; every few writes one is given up, and one goes to a neighbour
/// as well.
async fn client(env: SimEnv, db: Db<SimEnv>, own: Tenant<SimEnv>, next: Tenant<SimEnv>) {
    for n in 0..WRITES {
        let key = n.to_be_bytes();
        let value = vec![7; 300 + usize::try_from(n % 5).unwrap() * 100];
        let outcome = if n % 7 == 3 {
            let mut batch = WriteBatch::new();
            own.put_in(&mut batch, &key, &value).unwrap();
            next.put_in(&mut batch, &key, &value).unwrap();
            db.write(batch, WriteOptions::default()).await
        } else if n % 11 == 5 {
            let mut write = pin!(own.put(&key, &value, WriteOptions::default()));
            let mut sleep = pin!(env.sleep_until(env.now() + 3_000_000));
            core::future::poll_fn(|cx| {
                if let Poll::Ready(outcome) = write.as_mut().poll(cx) {
                    return Poll::Ready(outcome);
                }
                // Dropped here while it waits.
                sleep.as_mut().poll(cx).map(|()| Ok(0))
            })
            .await
        } else {
            own.put(&key, &value, WriteOptions::default()).await
        };
        match outcome {
            Ok(_) | Err(Error::Interrupted) => {}
            Err(Error::Dropped) => return,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Runs the clients; the time that writes waited in all, and how many waits there were.
fn run(seed: u64, layout: &str, policy: &str) -> (Nanos, u64) {
    let sim = Sim::new(&SimConfig { device: DeviceSpec::HDD, ..SimConfig::fuzz(seed) });
    let (env, ear) = (sim.env(), Ear::default());
    let (options, listener) = (options(layout, policy), Arc::new(ear.clone()));
    let end = sim.run(async move {
        let db = Db::open_with_listener(env, Path::new("/db"), options, listener).await.unwrap();
        let tenants = db.create_tenants(&NAMES).await.unwrap();
        let tasks: Vec<_> = (0..NAMES.len())
            .map(|n| {
                let own = tenants[n].clone();
                let next = tenants[(n + 1) % NAMES.len()].clone();
                let db = db.clone();
                env.spawn("client", move || client(env, db, own, next))
            })
            .collect();
        env.sleep_until(env.now() + 200_000_000).await;
        db.drop_tenant("dropped").await.unwrap();
        for task in tasks {
            task.await;
        }
        let metrics = db.metrics();
        let stats: Vec<_> = tenants.iter().map(|t| (t.branch_id(), t.stats())).collect();
        db.close().await.unwrap();
        (metrics, stats)
    });
    let (metrics, stats) = end.done().expect("every writer gets through");
    let told = ear.0.lock().unwrap();
    let what = format!("seed {seed}, {layout}, {policy}: {told:?}");
    let total: Nanos = metrics.stall_ns.iter().sum();
    let dropped = metrics.stall_dropped;
    let waited = stats.iter().map(|(_, s)| s.stall_ns).sum::<Nanos>() + dropped.waited_ns;
    let caused = stats.iter().map(|(_, s)| s.stall_caused_ns).sum::<Nanos>() + dropped.caused_ns;
    assert_eq!((waited, caused), (total, total), "{what}");
    assert_eq!((told.by_cause, told.open), (metrics.stall_ns, 0), "{what}");
    let (gone, live) = stats.split_last().unwrap();
    for (branch, stats) in live {
        let told = told.branches.get(branch).copied().unwrap_or_default();
        let counted = (stats.stall_ns, stats.stall_caused_ns);
        assert_eq!((told.waited_ns, told.caused_ns), counted, "{branch}: {what}");
    }
    assert_eq!(told.branches.get(&gone.0).copied().unwrap_or_default(), dropped, "{what}");
    (total, told.count)
}

#[test]
fn stalls_add_up_over_tenants_and_over_causes() {
    for info in PolicyKind::Stall.list() {
        let mut sum = (0, 0);
        for (seed, layout) in (0..).zip(["per-tenant", "grouped-2", "shared"]) {
            let (ns, count) = run(seed, layout, info.name);
            sum = (sum.0 + ns, sum.1 + count);
        }
        assert_eq!(sum.0 > 0, info.name != "none", "{}: {sum:?}", info.name);
    }
}
