//! Strategy: a short life of a database, in which each call on the disk fails once, by its number,
//! without effect, in the middle or after its effect; then the process is killed or the power
//! fails, and it is opened twice. And what each durability option promises, with nothing failing
//! but the power.
//!
//! Invariants: what was acknowledged is there as its option says, batches are whole across tenants,
//! a failed call is told or made good, and one failure never ends a database.
#![cfg(test)]

#[expect(dead_code, reason = "each test file uses a part of it")]
#[path = "../../engine/tests/fault_env/mod.rs"]
mod fault_env;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use fault_env::{Effect, FaultEnv, Rule};
use forebay_engine::env::Env;
use forebay_engine::error::Result;
use forebay_engine::options::Layout;
use forebay_engine::{Db, Options, Tenant, WriteBatch, WriteOptions};
use forebay_sim::disk::device::DeviceSpec;
use forebay_sim::disk::{DiskConfig, Profile};
use forebay_sim::{Sim, SimConfig, SimEnv};

const DIR: &str = "/db";
const KEYS: u32 = 12;

type World = FaultEnv<SimEnv>;

/// What was written: each write gives one key of both tenants its number.
#[derive(Debug, Default)]
struct Told {
    /// Of each key, the writes that were acknowledged, in their order.
    acked: BTreeMap<u32, Vec<u32>>,
    /// Writes that were answered with an error, and are nowhere to be seen until a crash.
    failed: BTreeMap<u32, Vec<u32>>,
    /// Of each key, the last write that a sync covered.
    durable: BTreeMap<u32, u32>,
    dropped: bool,
}

impl Told {
    fn note(&mut self, n: u32, sync: bool, done: bool) {
        let list = if done { &mut self.acked } else { &mut self.failed };
        list.entry(n.rem_euclid(KEYS)).or_default().push(n);
        if sync && done {
            self.synced();
        }
    }

    fn synced(&mut self) {
        for (key, writes) in &self.acked {
            if let Some(last) = writes.last() {
                self.durable.insert(*key, *last);
            }
        }
    }

    /// Whether a key may hold this write after a crash.
    fn allows(&self, key: u32, held: Option<u32>, power: bool) -> bool {
        let newest = self.acked.get(&key).and_then(|writes| writes.last().copied());
        let least = if power { self.durable.get(&key).copied() } else { newest };
        let known = |n: &u32| {
            let of = |all: &BTreeMap<u32, Vec<u32>>| all.get(&key).is_some_and(|w| w.contains(n));
            of(&self.acked) || of(&self.failed)
        };
        match (held, least) {
            (None, least) => least.is_none(),
            (Some(n), least) => known(&n) && least.is_none_or(|least| n >= least),
        }
    }
}

fn options(layout: Layout) -> Options {
    Options {
        layout,
        budget_bytes: 64 << 10,
        memtable_bytes_max: 8 << 10,
        wal_segment_bytes: 32 << 10,
        l0_compaction_count: 2,
        block_bytes: 512,
        table_bytes_max: 8 << 10,
        block_cache_bytes: 0,
        ..Options::default()
    }
}

fn key(n: u32) -> Vec<u8> {
    format!("key{:02}", n.rem_euclid(KEYS)).into_bytes()
}

async fn write(db: &Db<World>, n: u32, sync: bool) -> Result<u64> {
    let mut batch = WriteBatch::new();
    let value = [&n.to_be_bytes()[..], &[b'x'; 700]].concat();
    for name in ["a", "b"] {
        let tenant = db.tenant(name).unwrap();
        tenant.put_in(&mut batch, &key(n), &value).unwrap();
    }
    db.write(batch, WriteOptions { sync, tag: 0 }).await
}

async fn held<E: Env>(tenant: &Tenant<E>) -> BTreeMap<u32, u32> {
    let mut scan = tenant.scan(..).unwrap();
    let mut out = BTreeMap::new();
    while let Some((key, value)) = scan.next().await.unwrap() {
        let number = std::str::from_utf8(&key[3..]).unwrap().parse().unwrap();
        out.insert(number, u32::from_be_bytes(value[..4].try_into().unwrap()));
    }
    out
}

async fn open(env: &World, layout: Layout) -> Result<Db<World>> {
    Db::open(env.clone(), Path::new(DIR), options(layout)).await
}

/// A short life: tenants, writes, flushes, a roll or two, compactions, a drop.
async fn life(env: World, layout: Layout, told: Rc<RefCell<Told>>) {
    let mut tries = 0;
    let db = loop {
        match open(&env, layout).await {
            Ok(db) => break db,
            Err(error) => assert!(error.kind() == "io" && tries < 5, "{error}"),
        }
        tries += 1;
    };
    while db.tenant("a").is_none() {
        tries += 1;
        assert!(tries < 5);
        drop(db.create_tenants(&["a", "b", "c"]).await);
    }
    let c = db.tenant("c").unwrap();
    for n in 0..40 {
        let sync = n % 3 == 0;
        let result = write(&db, n, sync).await;
        told.borrow_mut().note(n, sync, result.is_ok());
        drop(c.put(b"c", b"c", WriteOptions::default()).await);
        match n {
            15 => drop(db.tenant("b").unwrap().flush().await),
            25 if db.drop_tenant("c").await.is_ok() => told.borrow_mut().dropped = true,
            30 if db.sync().await.is_ok() => told.borrow_mut().synced(),
            _ => {}
        }
    }
    // A single failure is met once.
    let mut errors = Vec::new();
    for n in 40..43 {
        let result = write(&db, n, true).await;
        told.borrow_mut().note(n, true, result.is_ok());
        errors.extend(result.err());
    }
    assert!(errors.len() < 2, "one failure ended the database: {errors:?}");
    // What is read is to be judged, not whether it can be.
    env.heal();
    for name in ["a", "b"] {
        for (key, n) in held(&db.tenant(name).unwrap()).await {
            assert_eq!(
                told.borrow().acked[&key].last(),
                Some(&n),
                "key {key} reads what was acknowledged"
            );
        }
    }
}

async fn judge(env: World, layout: Layout, told: Rc<RefCell<Told>>, power: bool) {
    let mut first = None;
    for _ in 0..2 {
        let db = open(&env, layout).await.expect("open works after any crash");
        let a = held(&db.tenant("a").unwrap()).await;
        assert_eq!(a, held(&db.tenant("b").unwrap()).await, "batches are whole across tenants");
        for key in 0..KEYS {
            let held = a.get(&key).copied();
            let allowed = told.borrow().allows(key, held, power);
            assert!(allowed, "key {key} holds {held:?}: {told:?}");
        }
        assert!(
            !told.borrow().dropped || db.tenant("c").is_none(),
            "a drop that was done stays done"
        );
        assert!(first.is_none() || first.as_ref() == Some(&a), "opening twice changes nothing");
        first = Some(a);
        db.close().await.unwrap();
    }
}

/// One life with one call that fails. Returns the calls it made, and whether one failed.
fn one_call_fails(seed: u64, rule: Option<Rule>, layout: Layout) -> (u64, bool) {
    let config = SimConfig::fuzz(seed);
    let profile = [Profile::Journal, Profile::Adversary, Profile::Strict];
    let profile = profile[usize::try_from(seed % 3).unwrap()];
    let sim = Sim::new(&SimConfig { disk: DiskConfig { profile, ..config.disk }, ..config });
    let env = World::new(sim.env());
    if let Some(rule) = rule {
        env.rule(rule);
    }
    let told = Rc::new(RefCell::new(Told::default()));
    let end = sim.run(life(env.clone(), layout, Rc::clone(&told)));
    end.done().expect("the life ends");
    let (calls, fired) = (env.calls(), env.fired() > 0);
    env.heal();
    let power = seed.is_multiple_of(2);
    if power {
        sim.power_loss();
    } else {
        sim.kill();
    }
    let end = sim.run(judge(env.around(sim.env()), layout, told, power));
    end.done().expect("the opens end");
    (calls, fired)
}

#[test]
fn each_call_fails_once_and_nothing_acknowledged_is_lost() {
    let calls = one_call_fails(0, None, Layout::Shared).0;
    assert!(calls > 150, "{calls} calls are too few to be worth it");
    let mut fired = 0;
    for pass in 0..calls {
        let effects = [Effect::Nothing, Effect::Half, Effect::Everything];
        for (kind, effect) in (0..).zip(effects) {
            let seed = pass * 3 + kind;
            let layout = if pass % 4 < 2 { Layout::PerTenant } else { Layout::Grouped(2) };
            let rule = Rule { op: "", path: "", pass, fail: 1, effect };
            fired += u64::from(one_call_fails(seed, Some(rule), layout).1);
        }
    }
    assert!(fired > calls * 2, "{fired} of {} faults fired", calls * 3);
}

/// What a key of one tenant holds after the power failed.
fn after_power_loss<F: Future<Output = ()> + 'static>(
    config: &SimConfig,
    life: impl FnOnce(SimEnv) -> F,
) -> Vec<Option<Vec<u8>>> {
    let disk = DiskConfig { profile: Profile::Strict, ..DiskConfig::default() };
    let sim = Sim::new(&SimConfig { disk, ..config.clone() });
    sim.run(life(sim.env())).done().expect("the life ends");
    sim.power_loss();
    let env = sim.env();
    let end = sim.run(async move {
        let db = Db::open(env, Path::new(DIR), options(Layout::Shared)).await.unwrap();
        let tenant = db.tenant("a").unwrap();
        let mut out = Vec::new();
        for key in [b"one", b"two"] {
            out.push(tenant.get(key).await.unwrap().map(|value| value.to_vec()));
        }
        out
    });
    end.done().expect("the open ends")
}

/// Writes without a sync, waits, and says what a power failure leaves of it.
fn left_after(interval_ns: u64, wait_ns: u64) -> bool {
    let life = async move |env: SimEnv| {
        let options = Options { sync_interval_ns: interval_ns, ..options(Layout::Shared) };
        let db = Db::open(env, Path::new(DIR), options).await.unwrap();
        let tenant = db.create_tenants(&["a"]).await.unwrap().remove(0);
        // The interval counts from the write, not from the open.
        env.sleep_until(env.now() + 7_777_777).await;
        tenant.put(b"one", b"1", WriteOptions::default()).await.unwrap();
        env.sleep_until(env.now() + wait_ns).await;
    };
    let config = SimConfig { device: DeviceSpec::HDD, ..SimConfig::fuzz(interval_ns ^ wait_ns) };
    after_power_loss(&config, life)[0].is_some()
}

#[test]
fn a_flushed_write_older_than_the_interval_survives_a_power_loss() {
    const MS: u64 = 1_000_000;
    for interval in [10 * MS, 100 * MS, 1000 * MS] {
        // A sync of the modelled disk takes some 20 ms, and another may run when it is due.
        assert!(left_after(interval, interval + 100 * MS), "interval {interval}");
        assert!(!left_after(interval, interval - 5 * MS), "nothing else synced it");
    }
    assert!(!left_after(0, 5000 * MS), "without an interval nothing syncs it");
}

#[test]
fn a_synced_write_survives_a_power_loss_and_a_flushed_one_behind_it_waits_for_it() {
    for seed in 0..30 {
        let life = async move |env: SimEnv| {
            let db = Db::open(env, Path::new(DIR), options(Layout::Shared)).await.unwrap();
            let tenant = db.create_tenants(&["a"]).await.unwrap().remove(0);
            let order = Arc::new(Mutex::new(Vec::new()));
            let write = |key: &'static [u8], sync: bool| {
                let (tenant, order) = (tenant.clone(), Arc::clone(&order));
                env.spawn("writer", move || async move {
                    let options = WriteOptions { sync, tag: 0 };
                    let seq = tenant.put(key, b"v", options).await.unwrap();
                    order.lock().unwrap().push(seq);
                })
            };
            let first = write(b"one", true);
            env.sleep_until(env.now() + 1000).await;
            let second = write(b"two", false);
            first.await;
            second.await;
            let order = order.lock().unwrap().clone();
            assert!(order.is_sorted(), "acknowledged in the order of their numbers: {order:?}");
        };
        let config = SimConfig { device: DeviceSpec::HDD, ..SimConfig::fuzz(seed) };
        let held = after_power_loss(&config, life);
        assert!(held[0].is_some(), "seed {seed}: the synced one is there");
    }
}
