//! Flushes of many tenants' memtables into one file: what such a file holds, when it goes, and what
//! a failure in the middle of it does.
#![cfg(test)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod fault_env;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use fault_env::{Effect, FaultEnv, Rule};
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::error::Result;
use forebay_engine::events::{Event, Listener};
use forebay_engine::inspect::{Look, inspect, table::tables};
use forebay_engine::repair::RepairOptions;
use forebay_engine::types::{Nanos, TableId};
use forebay_engine::{Db, Options, Tenant, WriteOptions};
use parking_lot::Mutex;

const DIR: &str = "/db";
const HALF: usize = 12;
const TENANTS: usize = 2 * HALF;

type World = FaultEnv<MemEnv>;

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Listener for Recorder {
    fn event(&self, _now: Nanos, event: &Event) {
        self.0.lock().push(event.clone());
    }
}

fn options(changes: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    let small = [
        ("budget_bytes", "262144"),
        ("memtable_bytes_max", "65536"),
        ("wal_segment_bytes", "65536"),
        ("block_bytes", "256"),
        ("flush_slots", "1"),
        ("packed_flush", "true"),
        ("pack_bytes", "65536"),
    ];
    for (key, value) in small.iter().chain(changes) {
        options.set(key, value).unwrap();
    }
    options
}

/// What was acknowledged: by tenant and key, the last value.
type Model = BTreeMap<(usize, u32), u8>;

struct Opened {
    env: World,
    db: Db<World>,
    tenants: Vec<Tenant<World>>,
    events: Arc<Recorder>,
}

impl Opened {
    async fn open(env: &World, options: Options) -> Result<Self> {
        let events = Arc::new(Recorder::default());
        let listener = Some(Arc::clone(&events) as Arc<dyn Listener>);
        let db = Db::open_with_listener(env.clone(), Path::new(DIR), options, listener).await?;
        if db.tenants().is_empty() {
            let names: Vec<String> = (0..TENANTS).map(|t| format!("t{t}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            drop(db.create_tenants(&names).await?);
        }
        let tenants = (0..TENANTS).filter_map(|t| db.tenant(&format!("t{t}"))).collect();
        Ok(Self { env: env.clone(), db, tenants, events })
    }

    async fn put(&self, model: &mut Model, (tenant, key): (usize, u32), value: u8) -> Result<()> {
        let (name, bytes) = (key.to_be_bytes(), [value; 100]);
        self.tenants[tenant].put(&name, &bytes, WriteOptions::default()).await?;
        model.insert((tenant, key), value);
        Ok(())
    }

    /// So many puts to each tenant, one tenant after the other.
    async fn fill(&self, model: &mut Model, (keys, value): (u32, u8)) -> Result<()> {
        for key in 0..keys {
            for tenant in 0..self.tenants.len() {
                self.put(model, (tenant, key), value).await?;
            }
        }
        Ok(())
    }

    async fn check(&self, model: &Model) {
        for ((tenant, key), value) in model {
            let found = self.tenants[*tenant].get(&key.to_be_bytes()).await.unwrap();
            assert_eq!(found.as_deref(), Some(&[*value; 100][..]), "t{tenant} key {key}");
        }
    }

    /// Tables that flushes made, by file.
    fn flushed(&self) -> BTreeMap<u64, Vec<TableId>> {
        let mut files: BTreeMap<u64, Vec<TableId>> = BTreeMap::new();
        for event in self.events.0.lock().iter() {
            if let Event::FlushEnd { table: Some((id, _)), .. } = event {
                files.entry(id.file).or_default().push(*id);
            }
        }
        files
    }

    /// The files of tables that are there, with their lengths, and those that the manifest names.
    async fn files(&self) -> (BTreeMap<String, u64>, BTreeSet<String>, u64) {
        let found = inspect(&self.env, Path::new(DIR), Look::default()).await.unwrap().unwrap();
        assert!(found.errors.is_empty(), "{:?}", found.errors);
        let named = found.tables.iter().map(|t| format!("{:06}.sst", t.meta.id.file)).collect();
        let live = found.tables.iter().map(|t| t.meta.bytes).sum();
        let mut there = BTreeMap::new();
        for name in self.env.list(Path::new(DIR)).await.unwrap() {
            if is_table(&name) {
                let path = Path::new(DIR).join(&name);
                let file = self.env.open(&path).await.unwrap();
                there.insert(name, forebay_engine::env::File::len(&file));
            }
        }
        (there, named, live)
    }
}

fn is_table(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|kind| kind == "sst")
}

fn world() -> (MemEnv, World) {
    (MemEnv::default(), World::new(MemEnv::default()))
}

#[test]
fn victims_of_a_decision_share_a_file_and_are_read_from_it() {
    let (mem, env) = world();
    mem.block_on(async {
        let mut model = Model::new();
        let world = Opened::open(&env, options(&[])).await.unwrap();
        world.fill(&mut model, (60, 1)).await.unwrap();
        world.db.wait_idle().await.unwrap();
        let flushed = world.flushed();
        let most = flushed.values().map(Vec::len).max().unwrap_or(0);
        assert!(most > 4, "the fullest file has {most} tables");
        let metrics = world.db.metrics();
        let packed: usize = flushed.values().map(Vec::len).filter(|n| *n > 1).sum();
        assert_eq!(metrics.packed_table_count, u64::try_from(packed).unwrap());
        assert_eq!(metrics.flush_job_count, u64::try_from(flushed.len()).unwrap());
        let (memtables, jobs) = (metrics.flush_count, metrics.flush_job_count);
        assert!(memtables > jobs, "{memtables} memtables in {jobs} flushes");
        world.check(&model).await;
        // Without a manifest, each table of a file is found from the file alone.
        let (file, ids) = flushed.iter().max_by_key(|(_, ids)| ids.len()).unwrap();
        let (found, damage) = tables(&env, Path::new(DIR), *file).await;
        assert!(damage.is_none());
        assert!(found.iter().all(|t| t.errors.is_empty()));
        let found: BTreeSet<TableId> = found.iter().map(|t| t.properties.meta.id).collect();
        assert_eq!(found, ids.iter().copied().collect());
        assert!(world.db.verify(|_| ()).await.unwrap().is_clean());
        world.db.close().await.unwrap();
        let world = Opened::open(&env, options(&[])).await.unwrap();
        world.check(&model).await;
        world.db.close().await.unwrap();
    });
}

#[test]
fn without_the_option_each_file_holds_one_table() {
    let (mem, env) = world();
    mem.block_on(async {
        let world = Opened::open(&env, options(&[("packed_flush", "false")])).await.unwrap();
        world.fill(&mut Model::new(), (60, 1)).await.unwrap();
        world.db.wait_idle().await.unwrap();
        assert!(world.flushed().values().all(|ids| ids.len() == 1));
        assert_eq!(world.db.metrics().pack_count, 0);
        world.db.close().await.unwrap();
    });
}

#[test]
fn a_close_may_flush_everything_into_one_file_and_ends_where_that_fails() {
    for fails in [false, true] {
        let (mem, env) = world();
        let closing = options(&[("packed_flush", "false"), ("flush_on_close", "true")]);
        mem.block_on(async {
            let mut model = Model::new();
            let world = Opened::open(&env, closing.clone()).await.unwrap();
            world.fill(&mut model, (3, 7)).await.unwrap();
            if fails {
                let rule =
                    Rule { op: "", path: ".sst", pass: 0, fail: u64::MAX, effect: Effect::Nothing };
                env.rule(rule);
            }
            world.db.close().await.unwrap();
            let files = world.flushed();
            let tables: usize = files.values().map(Vec::len).sum();
            assert_eq!((files.len(), tables), if fails { (0, 0) } else { (1, TENANTS) });
            env.heal();
            let again = Opened::open(&env, closing.clone()).await.unwrap();
            assert_eq!(again.db.metrics().mutable_bytes > 0, fails, "what is left to replay");
            again.check(&model).await;
            again.db.close().await.unwrap();
        });
    }
}

#[test]
fn a_file_goes_with_the_last_tenant_in_it_and_not_before() {
    let (mem, env) = world();
    mem.block_on(async {
        // Nothing is compacted by count.
        let options = options(&[
            ("l0_compaction_count", "1000"),
            ("l0_slowdown_count", "1000"),
            ("l0_stop_count", "2000"),
        ]);
        let mut model = Model::new();
        let world = Opened::open(&env, options.clone()).await.unwrap();
        world.fill(&mut model, (40, 1)).await.unwrap();
        world.db.wait_idle().await.unwrap();
        assert!(world.flushed().values().any(|ids| ids.len() > 4));
        // Half of them through an open, which derives anew what is live.
        for t in 0..HALF {
            world.db.drop_tenant(&format!("t{t}")).await.unwrap();
        }
        model.retain(|(tenant, _), _| *tenant >= HALF);
        world.check(&model).await;
        world.db.close().await.unwrap();
        let world = Opened::open(&env, options).await.unwrap();
        let at = |(tenant, key): &(usize, u32)| (tenant - HALF, *key);
        let model: Model = model.iter().map(|(place, value)| (at(place), *value)).collect();
        world.check(&model).await;
        for tenant in &world.tenants {
            tenant.flush().await.unwrap();
        }
        world.db.wait_idle().await.unwrap();
        world.check(&model).await;
        for t in HALF..TENANTS {
            world.db.drop_tenant(&format!("t{t}")).await.unwrap();
        }
        world.db.close().await.unwrap();
        let left = env.list(Path::new(DIR)).await.unwrap();
        let db = Db::open(env.clone(), Path::new(DIR), self::options(&[])).await.unwrap();
        let open = env.list(Path::new(DIR)).await.unwrap();
        assert!(!open.iter().any(|name| is_table(name)), "{left:?}, then {open:?}");
        db.close().await.unwrap();
    });
}

/// A tenth of the tenants are overwritten and compacted again and again, the others keep one table
/// each in files that die around them.
#[test]
fn space_is_bounded_by_twice_what_is_live() {
    for policy in ["leveled", "tiered", "lazy-leveled"] {
        let (mem, env) = world();
        mem.block_on(async {
            let mut model = Model::new();
            let options = options(&[("compaction_policy", policy)]);
            let world = Opened::open(&env, options).await.unwrap();
            for round in 0..10_u8 {
                for key in 0..12_u32 {
                    for tenant in 0..TENANTS {
                        world
                            .put(&mut model, (tenant, u32::from(round) * 100 + key), round)
                            .await
                            .unwrap();
                    }
                }
                for _ in 0..3 {
                    for key in 0..40_u32 {
                        for tenant in [0, 7, 19] {
                            world.put(&mut model, (tenant, key), round).await.unwrap();
                        }
                    }
                }
                world.db.wait_idle().await.unwrap();
            }
            assert!(world.db.metrics().packed_table_count > 0, "{policy}");
            for tenant in [0, 7, 19] {
                world.tenants[tenant].compact().await.unwrap();
            }
            world.db.wait_idle().await.unwrap();
            world.check(&model).await;
            let (mut there, mut named, mut live) = world.files().await;
            for _ in 0..100 {
                if there.keys().all(|name| named.contains(name)) {
                    break;
                }
                env.sleep_until(env.now() + 50_000_000).await;
                (there, named, live) = world.files().await;
            }
            let found: BTreeSet<String> = there.keys().cloned().collect();
            assert_eq!(found, named, "{policy}");
            let held: u64 = there.values().sum();
            assert!(held <= 2 * live + 65_536, "{policy}: {held} bytes hold {live}");
            world.db.close().await.unwrap();
        });
    }
}

/// A pack that fails at any of its calls is tried again, one memtable after the other, and nothing
/// that was acknowledged is lost.
#[test]
fn a_pack_that_fails_is_flushed_one_by_one() {
    for (op, effect) in [
        ("create", Effect::Nothing),
        ("append", Effect::Nothing),
        ("append", Effect::Half),
        ("append", Effect::Everything),
        ("sync_all", Effect::Nothing),
    ] {
        let (mem, env) = world();
        mem.block_on(async {
            let mut model = Model::new();
            let world = Opened::open(&env, options(&[])).await.unwrap();
            env.fail(op, ".sst", effect);
            world.fill(&mut model, (60, 1)).await.unwrap();
            world.db.wait_idle().await.unwrap();
            let events = world.events.0.lock().clone();
            let failed = events.iter().position(|e| matches!(e, Event::JobFailed { .. })).unwrap();
            let trees: BTreeSet<_> = events
                .iter()
                .filter_map(
                    |e| if let Event::JobFailed { tree, .. } = e { Some(*tree) } else { None },
                )
                .collect();
            assert!(trees.len() > 4, "{op}: {} trees failed", trees.len());
            let mut shared: BTreeMap<u64, u32> = BTreeMap::new();
            for event in &events {
                if let Event::FlushEnd { table: Some((id, _)), .. } = event {
                    *shared.entry(id.file).or_default() += 1;
                }
            }
            for tree in trees {
                let first = events.iter().skip(failed).find_map(|event| {
                    let Event::FlushEnd { tree: of, table: Some((id, _)), .. } = event else {
                        return None;
                    };
                    (*of == tree).then_some(id)
                });
                assert_eq!(shared[&first.unwrap().file], 1, "{op}: tree {tree}");
            }
            world.check(&model).await;
            world.db.close().await.unwrap();
            let world = Opened::open(&env, options(&[])).await.unwrap();
            world.check(&model).await;
            assert!(world.db.verify(|_| ()).await.unwrap().is_clean());
            world.db.close().await.unwrap();
        });
    }
}

/// Strategy: the world's n-th change from the first pack on and all behind it fail, as if the
/// process ended there; the directory is opened again.
/// Invariants: what was acknowledged is there, no file is left that nothing names, and repair finds
/// nothing to do.
#[test]
fn a_crash_at_every_call_of_a_pack_loses_nothing() {
    let mut fired = 0;
    for n in 0..60 {
        let (mem, env) = world();
        mem.block_on(async {
            let mut model = Model::new();
            let world = Opened::open(&env, options(&[("sync_interval_ns", "0")])).await.unwrap();
            let rule = Rule { op: "", path: "", pass: n, fail: u64::MAX, effect: Effect::Half };
            let mut left = 0;
            for key in 0..60 {
                for tenant in 0..TENANTS {
                    if key == 14 && tenant == 0 {
                        env.rule(rule.clone());
                    }
                    left += u32::from(world.put(&mut model, (tenant, key), 1).await.is_err());
                }
                if left > 0 {
                    break;
                }
            }
            fired += u32::from(left > 0);
            drop(world.db.close().await);
            let packs = world.flushed().values().filter(|ids| ids.len() > 1).count();
            drop(world);
            env.heal();
            let world = Opened::open(&env, options(&[])).await.unwrap();
            world.check(&model).await;
            world.db.wait_idle().await.unwrap();
            world.db.close().await.unwrap();
            let (there, named, _) = world.files().await;
            let there: BTreeSet<String> = there.into_keys().collect();
            assert_eq!(there, named, "call {n}, {packs} packs before it");
            let report = Db::repair(
                &env,
                Path::new(DIR),
                &RepairOptions { dry_run: true, ..RepairOptions::default() },
            )
            .await
            .unwrap();
            assert!(!report.needed, "{report:?}");
        });
    }
    assert!(fired > 30, "{fired} runs ended early");
}

#[test]
fn repair_finds_the_tables_of_a_file_without_a_manifest() {
    let (mem, env) = world();
    mem.block_on(async {
        let mut model = Model::new();
        let world = Opened::open(&env, options(&[])).await.unwrap();
        world.fill(&mut model, (60, 1)).await.unwrap();
        world.db.wait_idle().await.unwrap();
        assert!(world.flushed().values().any(|ids| ids.len() > 4));
        world.db.close().await.unwrap();
        for name in env.list(Path::new(DIR)).await.unwrap() {
            if name.starts_with("MANIFEST") || name == "CURRENT" {
                env.remove(&Path::new(DIR).join(name)).await.unwrap();
            }
        }
        let layout = Some(forebay_engine::options::Layout::PerTenant);
        let repair = RepairOptions { layout, ..RepairOptions::default() };
        let report = Db::repair(&env, Path::new(DIR), &repair).await.unwrap();
        assert!(report.adopted > 0);
        let db = Db::open(env.clone(), Path::new(DIR), options(&[])).await.unwrap();
        let mut found: BTreeMap<u32, usize> = BTreeMap::new();
        for name in &report.recovered {
            let tenant = db.tenant(name).unwrap();
            for (_, key) in model.keys().filter(|(tenant, _)| *tenant == 0) {
                let value = tenant.get(&key.to_be_bytes()).await.unwrap();
                *found.entry(*key).or_default() += usize::from(value.is_some());
            }
        }
        assert_eq!(found.len(), 60);
        assert!(found.values().all(|n| *n == TENANTS), "{found:?}");
        // Compactions after a repair, whose manifest does not tell how long the files were.
        for name in report.recovered.iter().take(HALF) {
            db.tenant(name).unwrap().compact().await.unwrap();
        }
        db.wait_idle().await.unwrap();
        assert!(db.verify(|_| ()).await.unwrap().is_clean());
        db.close().await.unwrap();
    });
}
