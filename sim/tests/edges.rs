//! Strategy: the real engine on a modelled device, with policies and options that are known to be
//! unsound: each of them must show its defect, and rule L1 must see a wedge at the instant at which
//! it is one.
//!
//! Invariants: a policy with `known_defects` has an entry here; the same options with the engine's
//! own choice of victims do not wedge.
#![cfg(test)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use forebay_engine::env::Env;
use forebay_engine::events::{Event, Listener};
use forebay_engine::metrics::Metrics;
use forebay_engine::policy::PolicyKind;
use forebay_engine::types::Nanos;
use forebay_engine::waiting::Waiting;
use forebay_engine::{Db, Options, WriteOptions};
use forebay_sim::check::liveness::{l1_enabled, story, stranded};
use forebay_sim::check::{Rule, RuleCounts};
use forebay_sim::disk::device::DeviceSpec;
use forebay_sim::run::run_seed;
use forebay_sim::{Sim, SimConfig};

/// What a flush wrote, in the order of flushes.
#[derive(Debug, Default)]
struct Tables {
    bytes: Mutex<Vec<u64>>,
    /// Sealed and not flushed: at present, and most at any time.
    sealed: Mutex<(u64, u64)>,
}

impl Listener for Tables {
    fn event(&self, _: Nanos, event: &Event) {
        let mut sealed = self.sealed.lock().unwrap();
        if let Event::Sealed { .. } = event {
            *sealed = (sealed.0 + 1, sealed.1.max(sealed.0 + 1));
        } else if let Event::FlushEnd { table, .. } = event {
            sealed.0 -= 1;
            self.bytes.lock().unwrap().extend(table.map(|(_, bytes)| bytes));
        }
    }
}

/// What a run came to.
struct Ran {
    metrics: Metrics,
    tables: Vec<u64>,
    /// Most memtables that were sealed and not flushed.
    sealed_max: u64,
    /// Who waits, where the run did not end in its time.
    waits: Option<(Waiting, Vec<String>)>,
}

fn options(settings: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    for (key, value) in [
        ("budget_bytes", "661KiB"),
        ("memtable_bytes_max", "64KiB"),
        ("wal_segment_bytes", "64KiB"),
        ("stall_policy", "hard"),
    ]
    .iter()
    .chain(settings)
    {
        options.set(key, value).unwrap();
    }
    options
}

/// Writes 1,000 bytes `writes` times, each to the tree that `tree` says, from as many clients as
/// there are trees; gives up after an hour.
fn run(settings: &[(&str, &str)], trees: usize, writes: usize, tree: fn(usize) -> usize) -> Ran {
    let device = DeviceSpec::preset("nvme").unwrap().scaled(1000);
    let sim = Sim::new(&SimConfig::experiment(1, device));
    let (env, options) = (sim.env(), options(settings));
    let tables = Arc::new(Tables::default());
    let listener = Arc::<Tables>::clone(&tables);
    let end = sim.run(async move {
        let db = Db::open_with_listener(env, Path::new("/db"), options, Some(listener));
        let db = db.await.unwrap();
        let names: Vec<String> = (0..trees).map(|i| format!("t{i:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let tenants = db.create_tenants(&names).await.unwrap();
        let mut clients = Vec::new();
        for (at, tenant) in tenants.into_iter().enumerate() {
            clients.push(env.spawn("client", move || async move {
                for n in (0..writes).filter(|n| tree(*n) == at) {
                    let key = format!("key{:04}", n % 5000);
                    let put = tenant.put(key.as_bytes(), &[7; 1000], WriteOptions::default());
                    if put.await.is_err() {
                        break;
                    }
                }
            }));
        }
        let deadline = env.now() + 3_600_000_000_000;
        let all = async {
            for client in clients {
                client.await;
            }
        };
        let mut all = std::pin::pin!(all);
        let mut sleep = std::pin::pin!(env.sleep_until(deadline));
        let done = std::future::poll_fn(|cx| {
            use std::future::Future;
            if all.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(true);
            }
            sleep.as_mut().poll(cx).map(|()| false)
        })
        .await;
        let watch = db.watch();
        let waits = (!done).then(|| {
            let waiting = watch.waiting().unwrap();
            let lines = story(&waiting, &watch.memory());
            (waiting, lines)
        });
        let metrics = db.metrics();
        db.close().await.unwrap();
        (metrics, waits)
    });
    let (metrics, waits) = end.done().unwrap();
    let sealed_max = tables.sealed.lock().unwrap().1;
    let tables = tables.bytes.lock().unwrap().clone();
    Ran { metrics, tables, sealed_max, waits }
}

/// 28 trees that keep what they flushed until there is no room for anything else.
const WEDGE: [(&str, &str); 3] = [
    ("flush_policy", "wbm-creation"),
    ("memtable_history_bytes", "256KiB"),
    ("policy_override", "false"),
];

fn wbm_creation_wedges() {
    let ran = run(&WEDGE, 28, 3000, |n| n % 28);
    let (waiting, story) = ran.waits.expect("it wedges");
    assert_eq!(waiting.writers.len(), 28);
    assert!(stranded(&waiting).is_some() && waiting.flush_count == 0, "{story:?}");
    assert!(2 * waiting.mutable_bytes < waiting.budget_bytes, "{story:?}");
    let held = waiting.mutable_bytes + waiting.immutable_bytes + waiting.history_bytes;
    assert!(held + 2000 > waiting.budget_bytes, "{story:?}");
    let found = l1_enabled(&mut RuleCounts::default(), &waiting).unwrap_err();
    assert_eq!(found.rule, Rule::L1);
    assert!(found.found.contains("waits for budget") && story.len() > 8, "{story:?}");
    // The engine ends it, where it may.
    let sound = run(&WEDGE[..2], 28, 3000, |n| n % 28);
    assert!(sound.waits.is_none() && sound.metrics.policy_override_count > 0);
}

fn none_overshoots_the_budget() {
    let ran = run(&[("stall_policy", "none")], 28, 3000, |n| n % 28);
    assert!(ran.metrics.memtable_bytes_max_seen > 661 * 1024, "{:?}", ran.metrics);
    let held = run(&[("stall_policy", "hard")], 28, 3000, |n| n % 28);
    assert!(held.metrics.memtable_bytes_max_seen <= 661 * 1024, "{:?}", held.metrics);
}

/// Tests that show the known defects, by kind and name.
const DEFECTS: [(PolicyKind, &str, fn()); 2] = [
    (PolicyKind::Flush, "wbm-creation", wbm_creation_wedges),
    (PolicyKind::Stall, "none", none_overshoots_the_budget),
];

#[test]
fn every_policy_with_a_known_defect_shows_it() {
    for kind in PolicyKind::ALL {
        for info in kind.list().iter().filter(|info| !info.known_defects.is_empty()) {
            let test = DEFECTS.iter().find(|(k, name, _)| (*k, *name) == (kind, info.name));
            let (_, _, test) = test.unwrap_or_else(|| {
                panic!("{} {} has known defects and no test in DEFECTS", kind.name(), info.name)
            });
            test();
        }
    }
}

#[test]
fn the_swarm_sees_a_wedge_at_the_instant_at_which_it_is_one() {
    let settings = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let wedging = [
        ("flush_policy", "wbm-creation"),
        ("stall_policy", "hard"),
        ("budget_bytes", "16KiB"),
        ("memtable_history_bytes", "1GiB"),
    ];
    let (sound, mut broken) = (settings(&wedging), settings(&wedging));
    broken.push(("policy_override".to_owned(), "false".to_owned()));
    let mut found = 0;
    for seed in 0..12 {
        assert_eq!(run_seed(seed, &sound, None).violation, None, "seed {seed}");
        let outcome = run_seed(seed, &broken, None);
        let Some(violation) = outcome.violation else { continue };
        assert_eq!(violation.rule, Rule::L1, "seed {seed}: {violation:?}");
        // Where background work waits for the same, no writer need wait at that instant.
        found += u32::from(violation.found.contains("waits for nothing"));
    }
    assert!(found >= 3, "{found} of 12 seeds wedge");
}

/// 22 trees of which two take a write in a hundred: they pin the log.
fn cold(n: usize) -> usize {
    match n % 200 {
        0 => 20,
        100 => 21,
        n => n % 20,
    }
}

#[test]
fn cold_trees_do_not_pin_the_log_and_are_not_flushed_in_a_storm() {
    let limit = 512 * 1024;
    let settings = |serial| {
        [
            ("budget_bytes", "4MiB"),
            ("memtable_bytes_max", "256KiB"),
            ("wal_bytes_max", "512KiB"),
            ("wal_bytes_stop", "576KiB"),
            ("wal_seal_serial", serial),
        ]
    };
    let mut runs = Vec::new();
    for serial in ["true", "false"] {
        let ran = run(&settings(serial), 22, 20_000, cold);
        assert!(ran.waits.is_none());
        let most = ran.metrics.wal_retained_bytes_max;
        assert!(most > limit && most <= limit + 2 * 65536, "serial {serial}: {most}");
        runs.push((ran.sealed_max, ran.tables.len()));
    }
    let [(serial, tables), (at_once, tables_at_once)] = runs[..] else { panic!("{runs:?}") };
    assert!(serial <= 6 && at_once >= 20, "{runs:?}");
    assert!(tables <= tables_at_once + tables_at_once.div_ceil(10), "{runs:?}");
}
