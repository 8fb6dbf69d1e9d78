//! A simulation as its harness holds it: configure, run, crash, look inside, run again.
//!
//! ```
//! use forebay_engine::env::Env;
//! use forebay_sim::{RunEnd, Sim, SimConfig};
//!
//! let sim = Sim::new(&SimConfig::fuzz(7));
//! let env = sim.env();
//! let end = sim.run(async move {
//!     env.sleep_until(5_000_000_000).await;
//!     env.now()
//! });
//! assert_eq!(end, RunEnd::Done(5_000_000_000));
//! ```

use core::cell::{Ref, RefMut};
use core::fmt;
use core::future::Future;
use std::collections::BTreeMap;
use std::rc::Rc;

use forebay_engine::types::Nanos;

use crate::bugs::Bug;
use crate::check::model::seconds;
use crate::choices::{Choices, Mode, Recording};
use crate::cpu::{Cores, CpuCosts};
use crate::diary::{Diary, What};
use crate::disk::device::{Device, DeviceSpec};
use crate::disk::{CrashReport, DiskConfig, SimDisk};
use crate::env::SimEnv;
use crate::fault::atlas::Atlas;
use crate::fault::{Fault, FaultEvent, FaultPlan, Faults};
use crate::ledger::{Failure, Ledger};
use crate::nth::{CallLog, FaultSet};
use crate::runtime::own::{Order, OwnRuntime};
use crate::runtime::{RunEnd, Runtime, WaitingTask};
use crate::trace::{Event, Trace};
use crate::world::{Parts, World};

/// How a simulation behaves.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The only source of chance.
    pub seed: u64,
    /// Drawn, recorded or replayed.
    pub mode: Mode,
    /// Schedules, latencies, yields and crash points are drawn. Without it tasks run first come,
    /// first served, and calls take what the device says.
    pub fuzz: bool,
    /// The disk at the start.
    pub disk: DiskConfig,
    /// The device under it.
    pub device: DeviceSpec,
    /// What CPU work costs.
    pub costs: CpuCosts,
    /// Virtual cores.
    pub cores: usize,
    /// How often faults happen.
    pub faults: FaultPlan,
    /// A planted bug.
    pub bug: Option<Bug>,
    /// Polls without progress that make a livelock.
    pub polls_max: u64,
    /// Whether every trace event is kept.
    pub trace_log: bool,
}

impl SimConfig {
    /// Everything drawn from the seed, durability tracked, no faults.
    pub fn fuzz(seed: u64) -> Self {
        Self {
            seed,
            mode: Mode::Plain,
            fuzz: true,
            disk: DiskConfig::default(),
            device: DeviceSpec::NONE,
            costs: CpuCosts::free(),
            cores: 8,
            faults: FaultPlan::default(),
            bug: None,
            polls_max: 1_000_000,
            trace_log: false,
        }
    }

    /// A modelled device and modelled cores, first come, first served, no crash possible.
    pub fn experiment(seed: u64, device: DeviceSpec) -> Self {
        Self {
            fuzz: false,
            disk: DiskConfig { track_durability: false, ..DiskConfig::default() },
            device,
            costs: CpuCosts::default(),
            polls_max: 1_000_000_000,
            ..Self::fuzz(seed)
        }
    }
}

/// A world on any runtime. The second runtime builds one of these over its own executor.
pub struct SimWorld {
    world: Rc<World>,
}

impl fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimWorld").field("id", &self.world.id).finish_non_exhaustive()
    }
}

impl SimWorld {
    /// A world over a runtime that shares `choices` and `trace` with it. It lives on this thread.
    pub fn new(
        config: &SimConfig,
        runtime: Rc<dyn Runtime>,
        choices: Rc<Choices>,
        trace: Rc<Trace>,
    ) -> Self {
        let world = World::start(Parts {
            runtime,
            choices,
            trace,
            disk: SimDisk::new(config.disk),
            device: Device::new(config.device),
            faults: Faults::new(config.faults),
            cores: Cores::new(config.cores),
            costs: config.costs,
            fuzz: config.fuzz,
            bug: config.bug,
        });
        Self { world }
    }

    /// The env of the process that lives now; after a crash, ask again.
    pub fn env(&self) -> SimEnv {
        SimEnv { world: self.world.id, epoch: self.world.epoch.get() }
    }

    /// A future that pays for its own CPU work: what a runtime should run as its main future.
    pub fn track<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        self.world.track(future)
    }

    /// The disk.
    pub fn disk(&self) -> Ref<'_, SimDisk> {
        self.world.disk.borrow()
    }

    /// The disk, to change: space, contents, a state to go on from.
    pub fn disk_mut(&self) -> RefMut<'_, SimDisk> {
        self.world.disk.borrow_mut()
    }

    /// The device.
    pub fn device(&self) -> Ref<'_, Device> {
        self.world.device.borrow()
    }

    /// The choices.
    pub fn choices(&self) -> &Rc<Choices> {
        &self.world.choices
    }

    /// Choices made so far, where they are recorded.
    pub fn recording(&self) -> Recording {
        self.world.choices.recording()
    }

    /// How many events there were so far.
    pub fn trace_count(&self) -> u64 {
        self.world.trace.count()
    }

    /// Writes down from here on what happens, or no more.
    pub fn keep_diary(&self, diary: Option<Diary>) {
        self.world.diary.replace(diary);
    }

    /// Adds to the diary, where one is kept.
    pub(crate) fn write_down(&self, what: impl FnOnce() -> What) {
        self.world.write_down(what);
    }

    /// Hash over everything that happened.
    pub fn trace_hash(&self) -> u64 {
        self.world.trace.hash()
    }

    /// Every event so far, where they are kept.
    pub fn take_trace(&self) -> Vec<Event> {
        self.world.trace.take_log()
    }

    /// Virtual time.
    pub fn now(&self) -> Nanos {
        self.world.now()
    }

    /// CPU time that all cores spent.
    pub fn cpu_busy_ns(&self) -> u64 {
        self.world.cores.borrow().busy_ns()
    }

    /// How often each fault fired.
    pub fn fault_counts(&self) -> BTreeMap<&'static str, u64> {
        self.world.faults.borrow().counts().clone()
    }

    /// How often the page cache lost what had been written and not synced, although the machine went on:
    /// after a failed sync not even the death of the process alone leaves what was handed to the system.
    pub fn forgotten(&self) -> u64 {
        let faults = self.world.faults.borrow();
        let count = |fault: Fault| faults.counts().get(fault.name()).copied().unwrap_or(0);
        count(Fault::SyncReverted).saturating_add(count(Fault::CacheEviction))
    }

    /// The faults that fired.
    pub fn fault_log(&self) -> Vec<FaultEvent> {
        self.world.faults.borrow().log().to_vec()
    }

    /// The damage that faults did.
    pub fn atlas(&self) -> Atlas {
        self.world.faults.borrow().atlas().clone()
    }

    /// Tells the atlas whose a table is.
    pub fn own_table(&self, path: &str, extent: (u64, u64), tree: u64) {
        self.world.faults.borrow_mut().own_table(path, extent, tree);
    }

    pub(crate) fn given_up(&self) -> RefMut<'_, Vec<String>> {
        self.world.given_up.borrow_mut()
    }

    /// Calls that have not ended, by the number of their task.
    pub(crate) fn calls(&self) -> BTreeMap<u64, String> {
        let calls = self.world.in_calls.borrow();
        calls.iter().map(|(task, (op, path))| (*task, format!("{op} {path}"))).collect()
    }

    /// What the world has kept of its own doings.
    pub fn ledger(&self) -> Ref<'_, Ledger> {
        self.world.ledger.borrow()
    }

    /// Failures that nothing made good and that none of these words tell of; see [`Ledger`].
    pub fn balance(&self, told: &[(Nanos, String)]) -> Vec<Failure> {
        self.world.ledger.borrow_mut().balance(told)
    }

    /// What is open in the ledger was judged.
    pub fn settle_balance(&self) {
        self.world.ledger.borrow_mut().settle();
    }

    /// Says that the harness closes the database, for the planted bug that minds it.
    pub fn set_closing(&self) {
        self.world.closing.set(true);
    }

    /// Replaces the fault plan; the default one heals.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.world.faults.borrow_mut().set_plan(plan);
    }

    /// When the last stall that began is over. A call that waits in one goes on waiting after
    /// [`set_faults`](Self::set_faults).
    pub fn stalled_until(&self) -> Nanos {
        self.world.faults.borrow().stalled_until()
    }

    /// Holds tasks that could go on back now and then, or not, in fuzz mode.
    pub fn hold_tasks(&self, holds: bool) {
        self.world.holds.set(holds);
    }

    /// Plants a bug, or heals it.
    pub fn set_bug(&self, bug: Option<Bug>) {
        self.world.bug.set(bug);
    }

    /// Crash points passed so far: before, in and after calls, and at yields; in fuzz mode only.
    pub fn crash_points(&self) -> u64 {
        self.world.points.get()
    }

    /// Lets the process die at a crash point, counted from the start of the world.
    pub fn crash_at_point(&self, point: Option<u64>) {
        self.world.crash_at.set(point);
    }

    /// Counts calls on the disk from here on; where one is named, it meets these faults, of which each
    /// fires that fits it.
    pub fn fail_call(&self, call: Option<(u64, &[Fault])>) {
        let armed = call.map(|(n, faults)| (n, FaultSet::of(faults)));
        self.world.calls.begin(armed, self.world.points.get());
    }

    /// Stops counting calls for a while, or goes on with it.
    pub fn pause_calls(&self, paused: bool) {
        self.world.calls.pause(paused);
    }

    /// Ends the count: what was not met yet is not met any more. Gives what was called.
    pub fn end_calls(&self) -> CallLog {
        self.world.calls.end()
    }

    /// The machine restarts: with so many chances in a million its wall clock is another from here on.
    pub fn restart_clock(&self, per_million: u32) {
        if self.choices().chance("fault.clock_step", per_million) {
            self.world.note(Fault::ClockStep, "", None);
            self.world.wall_frozen.set(None);
            self.world.move_wall("fault.clock-step-ns");
        }
    }

    /// Ends the process's epoch, before its tasks are dropped: what they still call does nothing.
    pub fn end_epoch(&self) {
        self.world.end_epoch();
    }

    /// Goes on with what a kill leaves of the disk. The epoch must have ended and its tasks be
    /// gone.
    pub fn settle_kill(&self) -> CrashReport {
        let (after, report) = self.disk().crash_kill(self.choices());
        *self.disk_mut() = after;
        self.world.note(Fault::Kill, "", None);
        report
    }

    /// Goes on with what a power loss leaves of the disk. The epoch must have ended and its tasks
    /// be gone.
    pub fn settle_power_loss(&self) -> CrashReport {
        let (after, report) = self.disk().crash_power(self.choices());
        self.settle_on(after);
        report
    }

    /// Goes on with this disk, which a power loss left. The epoch must have ended and its tasks be gone.
    pub fn settle_on(&self, after: SimDisk) {
        *self.disk_mut() = after;
        self.world.note(Fault::PowerLoss, "", None);
        self.world.faults.borrow_mut().set_read_only(false);
    }
}

impl Drop for SimWorld {
    fn drop(&mut self) {
        self.world.end();
    }
}

/// A world on forebay's own runtime.
#[derive(Debug)]
pub struct Sim {
    // Field order is drop order: tasks die while their world can still be found.
    runtime: Rc<OwnRuntime>,
    world: SimWorld,
}

impl Sim {
    /// A world at [`START_NS`](crate::runtime::START_NS) with an empty disk.
    pub fn new(config: &SimConfig) -> Self {
        let trace = Rc::new(Trace::new(config.trace_log));
        let choices = Rc::new(Choices::new(config.seed, config.mode.clone(), Rc::clone(&trace)));
        let order = match (config.fuzz, config.bug) {
            (_, Some(Bug::Unseeded)) => Order::Unseeded,
            (true, _) => Order::Seeded,
            (false, _) => Order::Fifo,
        };
        let runtime =
            OwnRuntime::new(order, config.polls_max, Rc::clone(&choices), Rc::clone(&trace));
        let runtime = Rc::new(runtime);
        let shared: Rc<dyn Runtime> = Rc::<OwnRuntime>::clone(&runtime);
        let world = SimWorld::new(config, shared, choices, trace);
        Self { runtime, world }
    }

    /// Runs until the future ends, or nothing can.
    pub fn run<T, F>(&self, main: F) -> RunEnd<T>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        self.runtime.run(self.world.track(main))
    }

    /// Calls this whenever nothing can run, before virtual time moves on. Who waits then waits for
    /// what time brings. It must not touch the world.
    pub fn on_idle(&self, look: Option<Rc<dyn Fn()>>) {
        self.runtime.on_idle(look);
    }

    /// Names of the tasks that have not ended.
    pub fn alive(&self) -> Vec<&'static str> {
        self.runtime.alive()
    }

    /// Who waits for what: one line for each task, with the call that it is in, or the timer, or that it
    /// waits for another task's signal.
    pub fn who_waits(&self) -> Vec<String> {
        let calls = self.world.calls();
        let line = |task: WaitingTask| {
            let on = match (calls.get(&task.task), task.sleeps, task.is_ready) {
                (Some(call), _, _) => format!("the device: {call}"),
                (None, _, true) => "its turn: it can run".to_owned(),
                (None, Some(at), false) => {
                    format!("a signal, or the timer at vt {}", seconds(at))
                }
                (None, None, false) => "a signal of another task, and no timer is set".to_owned(),
            };
            format!(
                "{}#{} waits for {on}; it last ran at vt {}",
                task.name,
                task.task,
                seconds(task.ran_at)
            )
        };
        let given_up = core::mem::take(&mut *self.world.given_up());
        self.runtime.waiting().into_iter().map(line).chain(given_up).collect()
    }

    /// Kills the process: every task is dropped at once, handles and locks are void. The disk is
    /// left as it is, with its handles and what was in flight, for [`SimDisk::crash_kill`] or
    /// [`SimDisk::crash_power`].
    pub fn kill_all(&self) {
        self.world.end_epoch();
        self.runtime.kill_all();
    }

    /// Kills the process and goes on with what a kill leaves of the disk.
    pub fn kill(&self) -> CrashReport {
        self.kill_all();
        self.world.settle_kill()
    }

    /// Takes the power and goes on with what that leaves of the disk.
    pub fn power_loss(&self) -> CrashReport {
        self.kill_all();
        self.world.settle_power_loss()
    }
}

impl core::ops::Deref for Sim {
    type Target = SimWorld;

    fn deref(&self) -> &SimWorld {
        &self.world
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.kill_all();
    }
}
