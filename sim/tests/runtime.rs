//! Strategy: small programs on the simulation's env, run twice or with another seed.
//! Invariants: the same seed gives the same trace; time moves only when nothing can run; a dead
//! process changes nothing.
#![cfg(test)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use forebay_engine::env::{Env, File, IoClass, Site, Work, conformance};
use forebay_sim::bugs::Bug;
use forebay_sim::choices::Mode;
use forebay_sim::disk::device::DeviceSpec;
use forebay_sim::runtime::{Reschedule, START_NS};
use forebay_sim::{RunEnd, Sim, SimConfig, SimEnv};

async fn busy(env: SimEnv) -> Vec<u64> {
    env.create_dir(Path::new("/d")).await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..5_u64 {
        tasks.push(env.spawn("worker", move || async move {
            let path = format!("/d/{n}");
            let file = env.create(Path::new(&path)).await.unwrap();
            for _ in 0..10 {
                file.append(&[7; 100], IoClass::Wal).await.unwrap();
                env.yield_point(Site("test.yield")).await;
                file.sync_data(IoClass::Wal).await.unwrap();
                env.sleep_until(env.now() + n * 1000).await;
            }
        }));
    }
    for task in tasks {
        task.await;
    }
    vec![env.now(), env.random_u64(Site("test.draw"))]
}

fn hash(config: &SimConfig) -> (u64, RunEnd<Vec<u64>>) {
    let sim = Sim::new(config);
    let end = sim.run(busy(sim.env()));
    (sim.trace_hash(), end)
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    assert_eq!(hash(&SimConfig::fuzz(1)), hash(&SimConfig::fuzz(1)));
    let hashes: BTreeSet<u64> = (0..50).map(|seed| hash(&SimConfig::fuzz(seed)).0).collect();
    assert_eq!(hashes.len(), 50);
}

#[test]
fn a_trace_does_not_depend_on_the_thread() {
    let here = hash(&SimConfig::fuzz(3));
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..2).map(|_| scope.spawn(|| hash(&SimConfig::fuzz(3)))).collect();
        for run in runs {
            assert_eq!(run.join().unwrap(), here);
        }
    });
}

#[test]
fn a_recorded_run_replays_without_its_seed() {
    let recorded = Sim::new(&SimConfig { mode: Mode::Record, ..SimConfig::fuzz(9) });
    let first = recorded.run(busy(recorded.env()));
    let mode = Mode::Replay(recorded.recording());
    let replayed = Sim::new(&SimConfig { mode, ..SimConfig::fuzz(0) });
    assert_eq!(replayed.run(busy(replayed.env())), first);
    assert_eq!(replayed.trace_hash(), recorded.trace_hash());
}

#[test]
fn the_unseeded_bug_gives_one_seed_many_traces() {
    let config = SimConfig { bug: Some(Bug::Unseeded), ..SimConfig::fuzz(1) };
    let hashes: BTreeSet<u64> = (0..5).map(|_| hash(&config).0).collect();
    assert!(hashes.len() > 1);
}

#[test]
fn sleepers_wake_in_the_order_of_time_and_then_of_sleep() {
    let sim = Sim::new(&SimConfig::experiment(1, DeviceSpec::NONE));
    let env = sim.env();
    let order = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&order);
    let end = sim.run(async move {
        let mut tasks = Vec::new();
        for (name, at) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            tasks.push(env.spawn("sleeper", move || async move {
                env.sleep_until(START_NS + at).await;
                env.note_progress(name);
            }));
        }
        for at in [5_u64, 10, 15, 30] {
            env.sleep_until(START_NS + at).await;
            seen.borrow_mut().push(env.now() - START_NS);
        }
        for task in tasks {
            task.await;
        }
        env.now() - START_NS
    });
    assert_eq!(end, RunEnd::Done(30));
    assert_eq!(*order.borrow(), [5, 10, 15, 30]);
}

#[test]
fn every_order_of_two_ready_tasks_is_drawn() {
    let orders: BTreeSet<Vec<u8>> = (0..40)
        .map(|seed| {
            let sim = Sim::new(&SimConfig::fuzz(seed));
            let env = sim.env();
            let end = sim.run(async move {
                let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
                let tasks = [1_u8, 2].map(|n| {
                    let order = std::sync::Arc::clone(&order);
                    env.spawn("t", move || async move { order.lock().unwrap().push(n) })
                });
                for task in tasks {
                    task.await;
                }
                order.lock().unwrap().clone()
            });
            end.done().unwrap()
        })
        .collect();
    assert_eq!(orders, BTreeSet::from([vec![1, 2], vec![2, 1]]));
}

#[test]
fn nothing_to_run_and_no_timer_is_a_deadlock_with_names() {
    let sim = Sim::new(&SimConfig::fuzz(1));
    let env = sim.env();
    let end: RunEnd<()> = sim.run(async move {
        let stuck = env.spawn("stuck", std::future::pending::<()>);
        stuck.await;
    });
    assert_eq!(end, RunEnd::Deadlock { waiting: vec!["main", "stuck"] });
}

#[test]
fn polls_without_time_or_progress_are_a_livelock() {
    let sim = Sim::new(&SimConfig { polls_max: 1000, ..SimConfig::fuzz(1) });
    let env = sim.env();
    let end: RunEnd<()> = sim.run(async move {
        loop {
            Reschedule::default().await;
            env.charge(Work::PointRead);
        }
    });
    assert!(matches!(end, RunEnd::Livelock { .. }), "{end:?}");
}

#[test]
fn a_killed_process_runs_its_destructors_and_touches_nothing() {
    struct Bomb(SimEnv);
    impl Drop for Bomb {
        fn drop(&mut self) {
            let env = self.0;
            drop(env.spawn("heir", move || async move {
                env.create(Path::new("/d/late")).await.unwrap();
            }));
        }
    }
    let sim = Sim::new(&SimConfig::fuzz(1));
    let env = sim.env();
    let end: RunEnd<()> = sim.run(async move {
        env.create_dir(Path::new("/d")).await.unwrap();
        let lock = env.lock(Path::new("/d/LOCK")).await.unwrap();
        let file = env.create(Path::new("/d/a")).await.unwrap();
        drop(env.spawn("worker", move || async move {
            let _held = (Bomb(env), lock, file);
            std::future::pending::<()>().await;
        }));
        env.sleep_until(START_NS + 10).await;
        env.request_crash();
        std::future::pending::<()>().await;
    });
    assert_eq!(end, RunEnd::Crashed);
    sim.kill();
    assert!(sim.alive().is_empty());
    assert_eq!(sim.disk().open_handles(), 0);
    let (old, env) = (env, sim.env());
    let end = sim.run(async move {
        assert!(old.open(Path::new("/d/a")).await.is_err());
        env.lock(Path::new("/d/LOCK")).await.unwrap();
        env.list(Path::new("/d")).await.unwrap()
    });
    assert_eq!(end, RunEnd::Done(vec!["LOCK".to_owned(), "a".to_owned()]));
}

#[test]
fn a_process_can_die_at_every_crash_point() {
    let whole = Sim::new(&SimConfig::fuzz(4));
    assert!(whole.run(busy(whole.env())).done().is_some());
    let points = whole.crash_points();
    assert!(points > 100);
    for point in (1..=points).step_by(7) {
        let sim = Sim::new(&SimConfig::fuzz(4));
        sim.crash_at_point(Some(point));
        assert_eq!(sim.run(busy(sim.env())), RunEnd::Crashed);
        sim.power_loss();
        assert_eq!(sim.fault_counts().get("power_loss"), Some(&1));
        for (path, len) in sim.disk().files() {
            assert!(len <= 1000, "{path}");
        }
    }
}

#[test]
#[should_panic(expected = "only on the thread")]
fn an_env_is_refused_on_another_thread() {
    let sim = Sim::new(&SimConfig::fuzz(1));
    let env = sim.env();
    let foreign = std::thread::scope(|scope| scope.spawn(move || env.now()).join());
    std::panic::resume_unwind(foreign.unwrap_err());
}

#[test]
fn an_env_outlives_its_world_without_harm() {
    let sim = Sim::new(&SimConfig::fuzz(1));
    let env = sim.env();
    let file = sim
        .run(async move {
            env.create_dir(Path::new("/d")).await.unwrap();
            env.create(Path::new("/d/a")).await.unwrap()
        })
        .done()
        .unwrap();
    drop(sim);
    assert_eq!((env.now(), file.len()), (0, 0));
    env.charge(Work::WriteEntry);
    drop(file);
}

#[test]
fn work_queues_on_the_cores() {
    let config = SimConfig { cores: 2, ..SimConfig::experiment(1, DeviceSpec::NONE) };
    let sim = Sim::new(&config);
    let env = sim.env();
    let end = sim.run(async move {
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                env.spawn("worker", move || async move {
                    for _ in 0..1000 {
                        env.charge(Work::WriteEntry);
                        env.yield_point(Site("w")).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        env.now() - START_NS
    });
    // 4 x 1000 x 900 ns on 2 cores.
    assert_eq!(sim.cpu_busy_ns(), 3_600_000);
    assert_eq!(end, RunEnd::Done(1_800_000));
}

#[test]
fn the_simulation_passes_the_conformance_suite_of_every_world() {
    let mut configs: Vec<SimConfig> = (0..20).map(SimConfig::fuzz).collect();
    configs.extend(
        DeviceSpec::NAMES.map(|name| SimConfig::experiment(1, DeviceSpec::preset(name).unwrap())),
    );
    for config in configs {
        let sim = Sim::new(&config);
        let env = sim.env();
        let end = sim.run(async move { conformance::run(&env, Path::new("/suite")).await });
        assert_eq!(end, RunEnd::Done(Ok(())), "{config:?}");
    }
}
