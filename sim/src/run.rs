//! One run: a seed's scenario in a world of its own, judged from beginning to end.
//!
//! Phases follow one another on one disk: clients work, faults end, what waits must end, then a crash, a
//! close or nothing, then recovery and the whole state against the model. Of a crash several outcomes can
//! be judged; the run goes on with the last.

use core::cell::Cell;
use core::future::Future;
use core::pin::pin;
use core::task::Poll;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use forebay_engine::env::Env;
use forebay_engine::events::Listener;
use forebay_engine::types::{Nanos, to_u64};
use forebay_engine::{Db, Error, Options};

use crate::bugs::Bug;
use crate::check::liveness::{DEADLINE_NS, c11_open, c11_same, l1_progress, l2_running};
use crate::check::model::{Model, seconds};
use crate::check::reads::c7_errors;
use crate::check::recovery::{Explained, State, TenantState, c3_invention, c4_tenants, judge};
use crate::check::value::tenant_name;
use crate::check::{Checked, Rule, RuleCounts, Violation, broken};
use crate::client::{Board, Client, Everything, Handle, Shared, read_everything};
use crate::disk::device::DeviceSpec;
use crate::disk::{DiskConfig, Profile, SimDisk};
use crate::env::SimTask;
use crate::fault::FaultPlan;
use crate::runtime::RunEnd;
use crate::scenario::{CrashKind, End, Phase, Scenario, Write};
use crate::sim::{Sim, SimConfig};
use crate::timeline::Both;
use crate::view::{View, Watch};

const DIR: &str = "/db";

/// Longest that reading one key by itself may take: a hundred reads of the slowest disk.
const READ_KEY_NS: Nanos = 2_000_000_000;

/// Most lines of a run's story that are kept.
const STORY_MAX: usize = 200;

/// What a run found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The broken rule; none where all held.
    pub violation: Option<Violation>,
    /// Hash over everything that happened.
    pub trace_hash: u64,
    /// Operations answered.
    pub ops: u64,
    /// Virtual time that passed.
    pub virtual_ns: Nanos,
    /// Faults and crashes by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often each rule was asked.
    pub counts: RuleCounts,
    /// Rare things that happened, by name.
    pub marks: BTreeMap<&'static str, u64>,
    /// Crashes, recoveries and faults, one line each, oldest first.
    pub story: Vec<String>,
}

/// Runs the scenario of a seed.
pub fn run_seed(seed: u64, settings: &[(String, String)], bug: Option<Bug>) -> Outcome {
    run_scenario(seed, &scenario_of(seed, settings), bug)
}

/// The scenario of a seed, with settings in place of what the seed drew.
pub fn scenario_of(seed: u64, settings: &[(String, String)]) -> Scenario {
    let mut scenario = Scenario::draw(seed);
    for (key, value) in settings {
        // Callers have checked them: see `check_settings`.
        drop(scenario.set(key, value));
    }
    scenario
}

/// Refuses settings that no scenario can have.
///
/// # Errors
///
/// One line that names the setting.
pub fn check_settings(seed: u64, settings: &[(String, String)]) -> Result<(), String> {
    let mut scenario = Scenario::draw(seed);
    for (key, value) in settings {
        scenario.set(key, value)?;
    }
    scenario.engine_options().map(|_| ())
}

/// Runs a scenario; what it leaves open is drawn from the seed.
pub fn run_scenario(seed: u64, scenario: &Scenario, bug: Option<Bug>) -> Outcome {
    run_watched(seed, scenario, bug, &Watch::default()).0
}

/// As [`run_scenario`], with an eye on it: up to the moment where it is stopped, it is the same run.
pub fn run_watched(
    seed: u64,
    scenario: &Scenario,
    bug: Option<Bug>,
    watch: &Watch,
) -> (Outcome, View) {
    let options = match scenario.engine_options() {
        Ok(options) => options,
        Err(error) => {
            return (refused(seed, error), View::of(&Model::default(), Vec::new(), 0));
        }
    };
    let profile = Profile::ALL.into_iter().find(|profile| profile.name() == scenario.profile);
    let mut config = SimConfig::fuzz(seed);
    config.disk = DiskConfig {
        profile: profile.unwrap_or(Profile::Journal),
        sync_persists_name: scenario.sync_persists_name,
        ..DiskConfig::default()
    };
    config.device = DeviceSpec::preset(&scenario.device).unwrap_or(DeviceSpec::NONE);
    config.bug = bug;
    let mut run = Run {
        sim: Sim::new(&config),
        board: Shared::default(),
        db: None,
        options,
        bug,
        fired_at_open: 0,
        story: Vec::new(),
        watch: watch.clone(),
        stopped: false,
    };
    let checked = run.run(scenario);
    run.end(seed, checked)
}

fn refused(seed: u64, error: String) -> Outcome {
    let violation = Violation::new(Rule::C7, "options that the engine takes", error);
    Outcome {
        seed,
        violation: Some(violation),
        trace_hash: 0,
        ops: 0,
        virtual_ns: 0,
        faults: BTreeMap::new(),
        counts: RuleCounts::default(),
        marks: BTreeMap::new(),
        story: Vec::new(),
    }
}

/// How a part of a run ended.
enum Part<T> {
    Done(T),
    Crashed,
}

/// What an open came to; nothing where it took too long.
type Opened = Part<Option<Result<Db<crate::SimEnv>, Error>>>;

/// A database may take this long to see that space is back: what its ticker waits for may be slow.
const FULL_DISK_NOTICED_NS: Nanos = 5_000_000_000;

struct Run {
    // Field order is drop order: handles first, the world last.
    db: Option<Db<crate::SimEnv>>,
    board: Shared,
    sim: Sim,
    options: Options,
    bug: Option<Bug>,
    fired_at_open: u64,
    story: Vec<String>,
    watch: Watch,
    stopped: bool,
}

/// What may be missing after the crashes since the database was last open.
#[derive(Clone, Copy)]
struct Loss {
    power: bool,
}

impl Run {
    fn run(&mut self, scenario: &Scenario) -> Checked {
        let recovery_crashes = scenario.creation_crashes.clone();
        let creation = Phase { recovery_crashes, ..Phase::quiet() };
        self.recover(&creation, Loss { power: true }, true)?;
        self.create_tenants(scenario.tenants)?;
        for phase in &scenario.phases {
            self.phase(phase)?;
        }
        self.close()?;
        self.crash(&Phase::quiet(), CrashKind::PowerLoss)
    }

    fn end(mut self, seed: u64, checked: Checked) -> (Outcome, View) {
        let found = checked.err().filter(|_| !self.stopped);
        let violation = found.map(|violation| {
            let at = if violation.at == 0 { self.sim.now() } else { violation.at };
            violation.at(at)
        });
        let trace_hash = self.sim.trace_hash();
        let virtual_ns = self.sim.now();
        let faults = self.sim.fault_counts();
        for fault in self.sim.fault_log().iter().rev().take(8).rev() {
            let line = format!("fault   vt {}  {} {}", seconds(fault.at), fault.name, fault.path);
            self.story.push(line);
        }
        let mut view = View::of(&self.board.lock().model, self.sim.disk().files(), self.sim.now());
        view.stopped = self.stopped;
        self.watch_end();
        self.sim.kill_all();
        let mut board = self.board.lock();
        let Board { counts, marks, ops, handles, .. } = &mut *board;
        handles.clear();
        let outcome = Outcome {
            seed,
            violation,
            trace_hash,
            ops: *ops,
            virtual_ns,
            faults,
            counts: core::mem::take(counts),
            marks: core::mem::take(marks),
            story: core::mem::take(&mut self.story),
        };
        (outcome, view)
    }

    /// Names what the timeline has seen so far, and ends what the process had begun.
    fn watch_process_end(&self) {
        let Some(timeline) = &self.watch.timeline else { return };
        let board = self.board.lock();
        for (number, handle) in &board.handles {
            if let Some(tree) = handle.tenant.tree_id() {
                timeline.name_tree(tree.0, *number);
            }
        }
        timeline.cut(self.sim.now());
    }

    fn watch_end(&self) {
        self.watch_process_end();
        let Some(timeline) = &self.watch.timeline else { return };
        for inc in &self.board.lock().model.incs {
            if let Some(branch) = inc.branch {
                timeline.name_branch(branch, inc.tenant);
            }
        }
        for fault in self.sim.fault_log() {
            timeline.fault(fault.at, fault.name, &fault.path);
        }
    }

    fn note(&self, name: &str) {
        if let Some(timeline) = &self.watch.timeline {
            timeline.harness(self.sim.now(), name);
        }
    }

    /// The end of a run that was to go no further; what a client found before that counts.
    fn stop<T>(&mut self) -> Checked<T> {
        if let Some(violation) = self.board.lock().violation.take() {
            return Err(violation);
        }
        self.stopped = true;
        broken(Violation::new(Rule::L1, "goes on", "stopped"))
    }

    fn tell(&mut self, line: String) {
        if self.story.len() < STORY_MAX {
            self.story.push(line);
        }
    }

    /// Faults that fired so far; crashes, slow calls and clock jumps excuse no error.
    fn fired(&self) -> u64 {
        let excuses =
            |name: &str| !matches!(name, "power_loss" | "kill" | "latency" | "clock_jump");
        self.sim.fault_counts().iter().filter(|(name, _)| excuses(name)).map(|(_, n)| n).sum()
    }

    /// Runs a future to its end, at most until `deadline` in virtual time.
    fn drive<T: 'static>(
        &mut self,
        deadline: Nanos,
        future: impl Future<Output = T> + 'static,
    ) -> Checked<Part<Option<T>>> {
        let env = self.sim.env();
        let until = self.watch.until.unwrap_or(Nanos::MAX);
        let deadline = deadline.min(until);
        let end = self.sim.run(async move { before(env, deadline, future).await });
        let stuck = match end {
            RunEnd::Done(_) | RunEnd::Crashed if self.sim.now() >= until => return self.stop(),
            RunEnd::Done(value) => {
                l2_running(&mut self.board.lock().counts, None)?;
                return Ok(Part::Done(value));
            }
            RunEnd::Crashed => return Ok(Part::Crashed),
            RunEnd::Deadlock { waiting } => format!("nothing can run; waiting: {waiting:?}"),
            RunEnd::Livelock { polls, alive } => {
                format!("{polls} polls without progress; alive: {alive:?}")
            }
        };
        let mut board = self.board.lock();
        let waits = board.waits();
        l2_running(&mut board.counts, Some(&format!("{stuck}; {waits}")))?;
        Ok(Part::Crashed)
    }

    /// As [`drive`](Self::drive), where the end must come within the deadline of L1 and no crash is set.
    fn must<T: 'static>(
        &mut self,
        what: &str,
        future: impl Future<Output = T> + 'static,
    ) -> Checked<T> {
        self.must_within(what, DEADLINE_NS, future)
    }

    /// As [`must`](Self::must), within this time.
    fn must_within<T: 'static>(
        &mut self,
        what: &str,
        within: Nanos,
        future: impl Future<Output = T> + 'static,
    ) -> Checked<T> {
        let deadline = self.sim.now().saturating_add(within);
        let part = self.drive(deadline, future)?;
        let alive = self.sim.alive();
        let mut board = self.board.lock();
        let waits = format!("{} alive: {alive:?}", board.waits());
        match part {
            Part::Done(Some(value)) => {
                l1_progress(&mut board.counts, true, what, &waits)?;
                Ok(value)
            }
            Part::Done(None) | Part::Crashed => {
                l1_progress(&mut board.counts, false, what, &waits)?;
                broken(Violation::new(Rule::L1, what, "it did not end"))
            }
        }
    }

    fn heal(&self) {
        self.sim.set_faults(FaultPlan::default());
        self.sim.disk_mut().set_hog_bytes(0);
    }

    fn create_tenants(&mut self, count: usize) -> Checked {
        let Some(db) = self.db.clone() else { return Ok(()) };
        let names: Vec<String> = (0..count).map(tenant_name).collect();
        let incs: Vec<usize> = {
            let mut board = self.board.lock();
            (0..count).map(|tenant| board.model.begin_create(tenant)).collect()
        };
        let made = self.must("create", async move {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            db.create_tenants(&names).await
        })?;
        let mut board = self.board.lock();
        let made = match made {
            Ok(made) => made,
            Err(error) => return c7_errors(&mut board.counts, "create", &error, 0),
        };
        for (tenant, (inc, made)) in incs.into_iter().zip(made).enumerate() {
            board.model.end_create(inc, Some(made.branch_id().0));
            board.handles.insert(tenant, Handle { inc, tenant: made });
        }
        Ok(())
    }

    fn phase(&mut self, phase: &Phase) -> Checked {
        let ended = self.work(phase)?;
        let crash = match phase.end {
            End::Crash(crash) => Some(crash),
            End::Close | End::GoOn => None,
        };
        if let Some(crash) = crash {
            return self.crash(phase, crash.kind);
        }
        if !ended {
            return self.crash(phase, CrashKind::Kill);
        }
        let reopen = self.board.lock().reopen;
        if reopen || phase.end == End::Close {
            self.close()?;
            let power = self.sim.choices().choose("harness.after-close", 2) == 1;
            let kind = if power { CrashKind::PowerLoss } else { CrashKind::Kill };
            return self.crash(phase, kind);
        }
        Ok(())
    }

    /// Clients work, faults end, what waits ends. Says whether the process is still alive.
    fn work(&mut self, phase: &Phase) -> Checked<bool> {
        let faulty = phase.faults != FaultPlan::default() || phase.free_bytes.is_some();
        self.board.lock().model.faulty |= faulty;
        self.board.lock().may_be_full = phase.free_bytes.is_some();
        if let Some(free) = phase.free_bytes {
            let mut disk = self.sim.disk_mut();
            let taken = disk.free_bytes().saturating_sub(free);
            disk.set_hog_bytes(taken);
        }
        self.sim.set_faults(phase.faults);
        if let End::Crash(crash) = phase.end {
            self.crash_later(crash.point);
        }
        let tasks = self.start(phase);
        let ops: usize = phase.clients.iter().map(Vec::len).sum();
        // A client asks one thing after another: the last one waits for all before it.
        let deadline_ns = DEADLINE_NS.saturating_add(to_u64(ops).saturating_mul(READ_KEY_NS));
        let window = if faulty { phase.faults_ns } else { deadline_ns };
        let ended = self.join(tasks, window)?;
        self.heal();
        let ended = match ended {
            Part::Crashed => Part::Crashed,
            Part::Done(tasks) if tasks.is_empty() => Part::Done(tasks),
            Part::Done(tasks) => self.join(tasks, deadline_ns)?,
        };
        self.sim.crash_at_point(None);
        self.judge_errors()?;
        match ended {
            Part::Crashed => Ok(false),
            Part::Done(tasks) => {
                {
                    let mut board = self.board.lock();
                    let waits = board.waits();
                    l1_progress(&mut board.counts, tasks.is_empty(), "every operation", &waits)?;
                }
                if faulty {
                    self.probe()?;
                }
                Ok(true)
            }
        }
    }

    fn crash_later(&self, points: u64) {
        self.sim.crash_at_point(Some(self.sim.crash_points().saturating_add(points)));
    }

    fn start(&self, phase: &Phase) -> Vec<SimTask> {
        let Some(db) = &self.db else { return Vec::new() };
        let env = self.sim.env();
        let client = |(number, ops): (usize, &Vec<crate::scenario::Op>)| {
            let client = Client::new(env, db.clone(), self.board.clone(), number, self.bug);
            let ops = ops.clone();
            env.spawn("client", move || client.work(ops))
        };
        phase.clients.iter().enumerate().map(client).collect()
    }

    /// Waits for clients, for some virtual time; gives back those that still work.
    fn join(&mut self, tasks: Vec<SimTask>, within: Nanos) -> Checked<Part<Vec<SimTask>>> {
        let deadline = self.sim.now().saturating_add(within);
        let left = Rc::new(Cell::new(Vec::new()));
        let mut waiting = Waiting { tasks, left: Rc::clone(&left) };
        let part = self.drive(deadline, async move { waiting.all().await })?;
        let violation = self.board.lock().violation.take();
        if let Some(violation) = violation {
            return Err(violation);
        }
        Ok(match part {
            Part::Done(_) => Part::Done(left.take()),
            Part::Crashed => Part::Crashed,
        })
    }

    fn judge_errors(&mut self) -> Checked {
        let fired = self.fired().saturating_sub(self.fired_at_open);
        let mut board = self.board.lock();
        if board.reopen {
            board.mark("reopen-needed");
        }
        for (what, error) in core::mem::take(&mut board.errors) {
            c7_errors(&mut board.counts, &what, &error, fired)?;
        }
        Ok(())
    }

    /// Once faults are over, the database takes writes, unless it said that it must be opened again.
    fn probe(&mut self) -> Checked {
        let Some(db) = self.db.clone() else { return Ok(()) };
        if self.board.lock().reopen {
            return Ok(());
        }
        let client = Client::new(self.sim.env(), db.clone(), self.board.clone(), 99, self.bug);
        let tenants: Vec<usize> = self.board.lock().handles.keys().copied().collect();
        let env = self.sim.env();
        let was_full = core::mem::take(&mut self.board.lock().may_be_full);
        let idle =
            self.must("writes, and the background's work, once faults are over", async move {
                if was_full {
                    // Within this time writes are taken again, without anybody asking for it.
                    env.sleep_until(env.now().saturating_add(FULL_DISK_NOTICED_NS)).await;
                }
                for tenant in tenants {
                    client.write(&[Write { tenant, key: 0, bytes: Some(40) }], true).await;
                }
                db.wait_idle().await
            })?;
        let mut board = self.board.lock();
        board.mark("probe");
        if let Some(violation) = board.violation.take() {
            return Err(violation);
        }
        if board.reopen || matches!(idle, Err(Error::ReadOnly(_))) {
            // The database said so: it must be opened again.
            board.reopen = true;
            board.mark("read-only");
            board.errors.clear();
            return Ok(());
        }
        for (what, error) in core::mem::take(&mut board.errors) {
            c7_errors(&mut board.counts, &format!("{what} after faults ended"), &error, 0)?;
        }
        Ok(())
    }

    fn close(&mut self) -> Checked {
        let Some(db) = self.db.clone() else { return Ok(()) };
        let acked = self.board.lock().model.acked;
        let closed = self.must("close", async move { db.close().await })?;
        match closed {
            Ok(()) => {
                let mut board = self.board.lock();
                // A database that is read-only closes without making anything durable.
                if !board.reopen {
                    board.model.promised(acked);
                }
                Ok(())
            }
            Err(error) => {
                let fired = self.fired().saturating_sub(self.fired_at_open);
                c7_errors(&mut self.board.lock().counts, "close", &error, fired)
            }
        }
    }

    /// The process dies; each of some outcomes is judged, and the run goes on with the last.
    fn crash(&mut self, phase: &Phase, kind: CrashKind) -> Checked {
        self.leave();
        let before = self.sim.disk().clone();
        for _ in 1..phase.crash_states {
            self.settle(kind);
            self.recover(phase, kind.into(), false)?;
            self.leave();
            self.restore(&before);
        }
        self.settle(kind);
        self.recover(phase, kind.into(), true)
    }

    /// Lets go of everything of the dying process.
    fn leave(&mut self) {
        self.heal();
        self.watch_process_end();
        self.sim.kill_all();
        self.db = None;
        let mut board = self.board.lock();
        let handles = core::mem::take(&mut board.handles);
        board.forget_process();
        drop(board);
        drop(handles);
    }

    fn restore(&self, disk: &SimDisk) {
        let old = core::mem::replace(&mut *self.sim.disk_mut(), disk.clone());
        drop(old);
    }

    fn settle(&mut self, kind: CrashKind) {
        let report = match kind {
            CrashKind::PowerLoss => self.sim.power_loss(),
            CrashKind::Kill => self.sim.kill(),
        };
        let name = match kind {
            CrashKind::PowerLoss => "power_loss",
            CrashKind::Kill => "kill",
        };
        self.note("crash");
        let now = seconds(self.sim.now());
        self.tell(format!(
            "crash   vt {now}  {name}  pages kept {} lost {} torn {}, names kept {} lost {}, \
             writes cut {}",
            report.pages_kept,
            report.pages_lost,
            report.pages_torn,
            report.names_kept,
            report.names_lost,
            report.writes_cut
        ));
    }

    /// Opens the database after crashes, judges all that is there, and goes on from it where `go_on`.
    fn recover(&mut self, phase: &Phase, mut loss: Loss, go_on: bool) -> Checked {
        for crash in &phase.recovery_crashes {
            self.crash_later(crash.point);
            let opened = self.open(DEADLINE_NS);
            self.sim.crash_at_point(None);
            if let opened @ Part::Done(_) = opened? {
                self.opened("while it recovers", opened)?;
                break;
            }
            let mut board = self.board.lock();
            let creation = board.model.incs.is_empty();
            board.mark(if creation { "crash-in-creation" } else { "crash-in-recovery" });
            drop(board);
            self.leave();
            self.settle(crash.kind);
            loss.power |= crash.kind == CrashKind::PowerLoss;
        }
        let mut faulty = false;
        if self.db.is_none() && phase.recovery_faults != FaultPlan::default() {
            faulty = self.open_with_faults(phase)?;
        }
        if self.db.is_none() {
            self.fired_at_open = self.fired();
            let opened = self.open(DEADLINE_NS)?;
            self.opened("after a crash", opened)?;
        }
        let (state, explained) = self.judge_all(loss)?;
        if phase.open_twice && !faulty {
            self.leave();
            self.settle(CrashKind::Kill);
            let opened = self.open(DEADLINE_NS)?;
            self.opened("a second time", opened)?;
            let (again, _) = self.judge_all(loss)?;
            c11_same(&mut self.board.lock().counts, &state.tenants, &again.tenants)?;
        }
        self.note("recover");
        let line = format!("recover vt {}  up to seq {}", seconds(self.sim.now()), explained.upto);
        self.tell(line);
        if go_on {
            self.adopt(&state, &explained, faulty);
        }
        Ok(())
    }

    /// Opens with faults; says whether that worked.
    fn open_with_faults(&mut self, phase: &Phase) -> Checked<bool> {
        self.fired_at_open = self.fired();
        self.sim.set_faults(phase.recovery_faults);
        let opened = self.open(DEADLINE_NS)?;
        self.heal();
        if let Part::Done(Some(Ok(db))) = opened {
            self.db = Some(db);
            self.board.lock().mark("opened-with-faults");
            return Ok(true);
        }
        if let Part::Done(Some(Err(error))) = opened {
            let fired = self.fired().saturating_sub(self.fired_at_open);
            c7_errors(&mut self.board.lock().counts, "open", &error, fired)?;
        }
        self.board.lock().mark("open-failed-with-faults");
        self.leave();
        self.settle(CrashKind::Kill);
        Ok(false)
    }

    fn open(&mut self, within: Nanos) -> Checked<Opened> {
        let (env, options, board) = (self.sim.env(), self.options.clone(), self.board.clone());
        let deadline = self.sim.now().saturating_add(within);
        let listener: Arc<dyn Listener> = match &self.watch.timeline {
            Some(timeline) => Arc::new(Both(board, timeline.clone())),
            None => Arc::new(board),
        };
        self.drive(deadline, async move {
            Db::open_with_listener(env, Path::new(DIR), options, Some(listener)).await
        })
    }

    fn opened(&mut self, when: &str, opened: Opened) -> Checked {
        let mut board = self.board.lock();
        match opened {
            Part::Done(Some(Ok(db))) => {
                self.db = Some(db);
                c11_open(&mut board.counts, when, None)
            }
            Part::Done(Some(Err(error))) => {
                c11_open(&mut board.counts, when, Some(&error.to_string()))
            }
            Part::Done(None) | Part::Crashed => {
                l1_progress(&mut board.counts, false, "open", "recovery")
            }
        }
    }

    /// Reads everything and explains it.
    fn judge_all(&mut self, loss: Loss) -> Checked<(State, Explained)> {
        let Some(db) = self.db.clone() else { return Ok((State::default(), no_state())) };
        let keys: BTreeMap<usize, BTreeSet<u32>> = {
            let board = self.board.lock();
            let names: BTreeSet<usize> = board.model.incs.iter().map(|inc| inc.tenant).collect();
            names.into_iter().map(|name| (name, board.model.keys_of(name))).collect()
        };
        // Each key is read by itself, on a slow device from a dozen tables without a cache.
        let key_count = to_u64(keys.values().map(BTreeSet::len).sum());
        let within = DEADLINE_NS.saturating_add(key_count.saturating_mul(READ_KEY_NS));
        let read = async move { read_everything(&db, keys).await };
        let all = self.must_within("reading everything", within, read)??;
        let mut board = self.board.lock();
        let Board { model, counts, .. } = &mut *board;
        let state = decode(model, counts, &all)?;
        let bound = if loss.power {
            (model.synced, "it survives a power loss")
        } else {
            (model.acked, "it survives the death of the process")
        };
        let explained = judge(model, counts, &state, bound)?;
        Ok((state, explained))
    }

    /// The model goes on from what was found.
    fn adopt(&mut self, state: &State, explained: &Explained, faulty: bool) {
        let Some(db) = &self.db else { return };
        let mut board = self.board.lock();
        if !explained.came_back.is_empty() {
            board.mark("failed-write-came-back");
        }
        board.model.recovered(explained);
        board.model.faulty = faulty;
        for (name, inc) in &explained.live {
            if let Some(found) = state.tenants.get(name) {
                board.model.learn_branch(*inc, found.branch);
            }
            if let Some(tenant) = db.tenant(&tenant_name(*name)) {
                board.handles.insert(*name, Handle { inc: *inc, tenant });
            }
        }
    }
}

impl From<CrashKind> for Loss {
    fn from(kind: CrashKind) -> Self {
        Self { power: kind == CrashKind::PowerLoss }
    }
}

impl Phase {
    /// Nothing happens and nothing goes wrong.
    pub fn quiet() -> Self {
        Self {
            clients: Vec::new(),
            faults: FaultPlan::default(),
            free_bytes: None,
            faults_ns: 0,
            end: End::GoOn,
            recovery_crashes: Vec::new(),
            recovery_faults: FaultPlan::default(),
            crash_states: 1,
            open_twice: false,
        }
    }
}

fn no_state() -> Explained {
    Explained { upto: 0, came_back: BTreeSet::new(), live: BTreeMap::new() }
}

fn decode(model: &Model, counts: &mut RuleCounts, all: &Everything) -> Checked<State> {
    let branches = all.tenants.iter().map(|(name, (branch, _))| (*name, *branch)).collect();
    let live = c4_tenants(model, counts, &branches)?;
    let mut state = State { last: all.last, ..State::default() };
    for (name, (branch, values)) in &all.tenants {
        let mut found = TenantState { branch: *branch, values: BTreeMap::new() };
        let Some(inc) = live.get(name) else { continue };
        for (key, bytes) in values {
            found.values.insert(*key, c3_invention(model, counts, (*inc, *key), bytes)?);
        }
        state.tenants.insert(*name, found);
    }
    Ok(state)
}

/// Tasks that are waited for; those left are given back when the wait is given up.
struct Waiting {
    tasks: Vec<SimTask>,
    left: Rc<Cell<Vec<SimTask>>>,
}

impl Waiting {
    async fn all(&mut self) {
        core::future::poll_fn(|cx| {
            self.tasks.retain_mut(|task| pin!(task).poll(cx).is_pending());
            if self.tasks.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.left.set(core::mem::take(&mut self.tasks));
    }
}

/// Ends with the future, or at the deadline with nothing.
async fn before<E: Env, T>(env: E, deadline: Nanos, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut sleep = pin!(env.sleep_until(deadline));
    core::future::poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await
}
