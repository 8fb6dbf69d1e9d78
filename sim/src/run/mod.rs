//! One run: a seed's scenario in a world of its own, judged from beginning to end.
//!
//! Phases follow one another on one disk: clients work, faults end, what waits must end, then a crash, a
//! close or nothing, then recovery and the whole state against the model. Of a crash several outcomes can
//! be judged; the run goes on with the last.

mod closing;
mod copies;
mod finish;
mod idle;
mod phase;
mod recover;
mod space;

use core::future::Future;
use core::pin::pin;
use core::task::Poll;
use std::collections::BTreeMap;

use forebay_engine::env::Env;
use forebay_engine::options::Layout;
use forebay_engine::types::{Nanos, to_u64};
use forebay_engine::{Db, Error, Options};

use crate::bugs::Bug;
use crate::check::liveness::{DEADLINE_NS, l1_progress, l2_running, story};
use crate::check::model::{Model, seconds};
use crate::check::value::tenant_name;
use crate::check::{Checked, Rule, RuleCounts, Violation, broken};
use crate::client::{Board, Handle, Shared};
use crate::diary::Waits;
use crate::disk::device::DeviceSpec;
use crate::disk::{DiskConfig, Profile};
use crate::fault::{Fault, FaultPlan};
use crate::lists::Lists;
use crate::runtime::RunEnd;
use crate::scenario::{CrashKind, FORKS_PROFILE, Phase, Scenario, TENANTS_PROFILE};
use crate::sim::{Sim, SimConfig};
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
    /// Ends of a process that were judged, in as many different states as they left.
    pub crashes: u64,
    /// Those states.
    pub crash_states: u64,
    /// Of those ends, the ones of which every state was judged that could be.
    pub crashes_exhausted: u64,
    /// Faults and crashes by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often each rule was asked.
    pub counts: RuleCounts,
    /// Rare things that happened, by name.
    pub marks: BTreeMap<&'static str, u64>,
    /// Crashes, recoveries and faults, one line each, oldest first.
    pub story: Vec<String>,
    /// Events of the world: what the run cost, the same on every machine.
    pub events: u64,
    /// What was decided where the scenario leaves it open, in a run that records.
    pub choices: Lists,
}

/// Runs the scenario of a seed.
pub fn run_seed(seed: u64, settings: &[(String, String)], bug: Option<Bug>) -> Outcome {
    run_scenario(seed, &scenario_of(seed, settings), bug)
}

/// The scenario of a seed, with settings in place of what the seed drew.
pub fn scenario_of(seed: u64, settings: &[(String, String)]) -> Scenario {
    let mut scenario = drawn(seed, settings);
    for (key, value) in settings.iter().filter(|setting| !is_swarm(setting)) {
        // Callers have checked them: see `check_settings`.
        drop(scenario.set(key, value));
    }
    scenario
}

/// Whether a setting names a swarm, and with it how a scenario is drawn.
fn is_swarm((key, value): &(String, String)) -> bool {
    key == "profile" && [FORKS_PROFILE, TENANTS_PROFILE].contains(&value.as_str())
}

fn drawn(seed: u64, settings: &[(String, String)]) -> Scenario {
    match settings.iter().rfind(|setting| is_swarm(setting)) {
        Some((_, name)) if name == FORKS_PROFILE => Scenario::draw_forks(seed),
        Some(_) => Scenario::draw_tenants(seed),
        None => Scenario::draw(seed),
    }
}

/// Refuses settings that no scenario can have.
///
/// # Errors
///
/// One line that names the setting.
pub fn check_settings(seed: u64, settings: &[(String, String)]) -> Result<(), String> {
    let mut scenario = drawn(seed, settings);
    for (key, value) in settings.iter().filter(|setting| !is_swarm(setting)) {
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
    config.mode = watch.mode.clone();
    let sim = Sim::new(&config);
    sim.keep_diary(watch.diary.clone());
    let mut run = Run {
        sim,
        board: Shared::default(),
        db: None,
        options,
        bug,
        fired_at_open: 0,
        log_at_open: 0,
        clients: scenario.phases.iter().map(|p| to_u64(p.clients.len())).max().unwrap_or(0),
        forgot_at_open: 0,
        story: Vec::new(),
        watch: watch.clone(),
        stopped: false,
        over: false,
        held_point: None,
        exhaustive: scenario.exhaustive,
        crashes: 0,
        crash_states: 0,
        crashes_exhausted: 0,
    };
    run.sim.hold_tasks(scenario.holds);
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
        crashes: 0,
        crash_states: 0,
        crashes_exhausted: 0,
        faults: BTreeMap::new(),
        counts: RuleCounts::default(),
        marks: BTreeMap::new(),
        story: Vec::new(),
        events: 0,
        choices: Lists::default(),
    }
}

/// How a part of a run ended.
enum Part<T> {
    Done(T),
    Crashed,
}

/// What an open came to; nothing where it took too long.
type Opened = Part<Option<Result<Db<crate::SimEnv>, Error>>>;

struct Run {
    // Field order is drop order: handles first, the world last.
    db: Option<Db<crate::SimEnv>>,
    board: Shared,
    sim: Sim,
    options: Options,
    bug: Option<Bug>,
    fired_at_open: u64,
    /// Bytes of segments when the database was last about to be opened.
    log_at_open: u64,
    /// Clients of the phase that has most of them.
    clients: u64,
    /// How often the page cache had forgotten something, before the database was last open.
    forgot_at_open: u64,
    story: Vec<String>,
    watch: Watch,
    stopped: bool,
    /// Damage ended the run, and the database said so.
    over: bool,
    /// Where the process dies that was to die at a point of a phase, once it closes.
    held_point: Option<u64>,
    exhaustive: bool,
    crashes: u64,
    crash_states: u64,
    crashes_exhausted: u64,
}

impl Run {
    fn run(&mut self, scenario: &Scenario) -> Checked {
        self.board.lock().own_extractors = self.options.layout == Layout::PerTenant;
        let recovery_crashes = scenario.creation_crashes.clone();
        let nth_fault = scenario.creation_nth_fault.clone();
        let creation = Phase { recovery_crashes, nth_fault, ..Phase::quiet() };
        self.recover(&creation, recover::Loss { power: true }, true)?;
        self.create_tenants(scenario.tenants)?;
        for phase in &scenario.phases {
            self.phase(phase)?;
        }
        self.finish()?;
        self.crash(&Phase::quiet(), CrashKind::PowerLoss)
    }

    fn end(mut self, seed: u64, checked: Checked) -> (Outcome, View) {
        let checked = checked.and_then(|()| self.board.lock().violation.take().map_or(Ok(()), Err));
        let found = checked.err().filter(|_| !self.stopped && !self.over);
        let violation = found.map(|violation| {
            let at = if violation.at == 0 { self.sim.now() } else { violation.at };
            violation.at(at)
        });
        let trace_hash = self.sim.trace_hash();
        let (events, choices) = (self.sim.trace_count(), self.sim.choices().lists());
        let virtual_ns = self.sim.now();
        let faults = self.sim.fault_counts();
        for fault in self.sim.fault_log().iter().rev().take(8).rev() {
            let line = format!("fault   vt {}  {} {}", seconds(fault.at), fault.name, fault.path);
            self.story.push(line);
        }
        let mut view = View::of(&self.board.lock().model, self.sim.disk().files(), self.sim.now());
        view.stopped = self.stopped;
        self.watch_end();
        if let (Some(timeline), Some(found)) = (&self.watch.timeline, &violation) {
            timeline.violation(found);
        }
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
            crashes: self.crashes,
            crash_states: self.crash_states,
            crashes_exhausted: self.crashes_exhausted,
            faults,
            counts: core::mem::take(counts),
            marks: core::mem::take(marks),
            story: core::mem::take(&mut self.story),
            events,
            choices,
        };
        (outcome, view)
    }

    /// Names what the timeline has seen so far, and ends what the process had begun.
    fn watch_process_end(&self) {
        let (timeline, diary) = (&self.watch.timeline, &self.watch.diary);
        let board = self.board.lock();
        for (number, handle) in &board.handles {
            let Some(tree) = handle.tenant.tree_id() else { continue };
            if let Some(timeline) = timeline {
                timeline.name_tree(tree.0, *number);
            }
            if let Some(diary) = diary {
                diary.name_tree(tree.0, *number);
            }
        }
        if let Some(timeline) = timeline {
            timeline.cut(self.sim.now());
        }
    }

    /// Who waits when the run ends.
    fn write_waits(&self) {
        let Some(diary) = &self.watch.diary else { return };
        let mut waits = Waits::default();
        for name in self.sim.alive() {
            *waits.tasks.entry(name).or_default() += 1;
        }
        let board = self.board.lock();
        waits.clients = board.waiting.iter().map(|(at, what)| (*at, what.clone())).collect();
        if let Some(db) = &self.db {
            let watch = db.watch();
            let waiting = watch.waiting().filter(|waiting| !waiting.writers.is_empty());
            waits.engine = waiting.map_or_else(Vec::new, |w| story(&w, &watch.memory()));
        }
        diary.set_waits(waits);
    }

    fn watch_end(&self) {
        self.write_waits();
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

    fn note(&self, name: &str, args: serde_json::Value) {
        if let Some(timeline) = &self.watch.timeline {
            timeline.harness(self.sim.now(), name, args);
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

    /// Faults that fired so far; damage excuses by its place alone, and see
    /// [`Fault::excuses_errors`].
    fn fired(&self) -> u64 {
        let counts = self.sim.fault_counts();
        let excuses = Fault::ALL.into_iter().filter(|fault| fault.excuses_errors());
        excuses.filter_map(|fault| counts.get(fault.name())).sum()
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
        let end =
            self.sim.run(async move { before((env, || env.give_up()), deadline, future).await });
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
        let graph = self.who_waits();
        let mut board = self.board.lock();
        let waits = board.waits();
        l2_running(&mut board.counts, Some(&format!("{stuck}; {waits}")))
            .map_err(|found| Box::new(found.waits(graph)))?;
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
        let graph = if matches!(part, Part::Done(Some(_))) { Vec::new() } else { self.who_waits() };
        let mut board = self.board.lock();
        let waits = format!("{} alive: {alive:?}", board.waits());
        match part {
            Part::Done(Some(value)) => {
                l1_progress(&mut board.counts, true, what, &waits)?;
                Ok(value)
            }
            Part::Done(None) | Part::Crashed => {
                l1_progress(&mut board.counts, false, what, &waits)
                    .map_err(|found| Box::new(found.waits(graph)))?;
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
            Err(error) => {
                // A sync of the open before may tell its error only now.
                for inc in &incs {
                    board.model.end_create(*inc, None);
                }
                drop(board);
                return self.judge_error("create", None, &error, 0);
            }
        };
        for (tenant, (inc, made)) in incs.into_iter().zip(made).enumerate() {
            board.model.end_create(inc, Some(made.branch_id().0));
            board.handles.insert(tenant, Handle { inc, tenant: made });
        }
        Ok(())
    }
}

/// Ends with the future, or at the deadline with nothing.
async fn before<E: Env, T>(
    (env, gives_up): (E, impl Fn()),
    deadline: Nanos,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    let mut sleep = pin!(env.sleep_until(deadline));
    core::future::poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        sleep.as_mut().poll(cx).map(|()| {
            gives_up();
            None
        })
    })
    .await
}
