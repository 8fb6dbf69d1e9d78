//! The fuzz swarm, seed after seed, up to the first broken rule or the end of its processor time.
//!
//! One line of JSON says what was found. Three of four seeds are those of `forebay fuzz`; every
//! fourth one is drawn as with `-s profile=forks`. A panic counts as found by the rule `panic`, a
//! seed that does not end as found by `L2`: what a mutant does to the engine must not be lost with
//! the process.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the process's own time is what a budget and a watchdog are about"
)]

use std::io::{self, Write};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use forebay_sim::run::{Outcome, run_scenario, scenario_of};
use forebay_sim::scenario::{FORKS_PROFILE, Scenario};
use forebay_sim::shrink::{Shrunk, shrink};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Of so many seeds, the last one is of the forks swarm.
const FORKS_EVERY: u64 = 4;

/// Processor time after which a seed hangs: the slowest takes less than a hundredth of it.
const HANG_CPU_S: f64 = 20.0;

/// Time after which a seed hangs that needs no processor.
const HANG_WALL: Duration = Duration::from_mins(4);

/// Seeds between two lines that say how far it came.
const TOLD_EVERY: u64 = 20;

/// What the swarm came to.
#[derive(Clone, Debug, Serialize)]
struct Found {
    /// Seeds run, the one that failed included.
    seeds: u64,
    /// Processor seconds up to there.
    cpu_s: f64,
    /// The seed that failed.
    seed: Option<u64>,
    /// The rule that it broke.
    rule: Option<String>,
    /// What was found, in one line.
    detail: String,
    /// Operations of the smallest scenario that breaks the same rule.
    shrunk_ops: Option<u64>,
    /// That scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    shrunk: Option<Scenario>,
    /// Crashes, recoveries and faults of its run.
    story: Vec<String>,
    /// Whether a changed place was passed; nothing where the engine does not say.
    reached: Option<bool>,
    /// Whether this is the last line.
    done: bool,
}

/// What the watchdog looks at.
#[derive(Debug)]
struct Watched {
    /// What would be said if nothing more came.
    found: Found,
    since: Instant,
    since_cpu_s: f64,
}

/// Whether a changed place of the engine was passed. A patch replaces this where the engine can say.
fn reached() -> Option<bool> {
    None
}

fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(nanos).unwrap_or(0)).as_secs_f64()
}

fn say(found: &Found) {
    let mut out = io::stdout().lock();
    let line = serde_json::to_string(found).unwrap_or_default();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap_or_default();
}

/// The settings that a seed of the swarm is run with.
fn settings_of(seed: u64) -> Vec<(String, String)> {
    if seed % FORKS_EVERY == FORKS_EVERY - 1 {
        vec![("profile".to_owned(), FORKS_PROFILE.to_owned())]
    } else {
        Vec::new()
    }
}

/// Runs something of the engine; a panic is an error that says where.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let place = Arc::new(Mutex::new(String::from("a panic")));
    let told = Arc::clone(&place);
    panic::set_hook(Box::new(move |info| {
        let line = info.to_string().replace('\n', " ");
        *told.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }));
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    drop(panic::take_hook());
    outcome.map_err(|_payload| place.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Ends the process where a seed does not end by itself.
fn watch(watched: &Mutex<Watched>) {
    loop {
        thread::sleep(Duration::from_millis(500));
        let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = cpu_s() - watched.since_cpu_s;
        if spent < HANG_CPU_S && watched.since.elapsed() < HANG_WALL {
            continue;
        }
        let mut found = watched.found.clone();
        if found.rule.is_none() {
            found.rule = Some("L2".to_owned());
            found.detail = format!("hang: a seed did not end in {spent:.0} CPU s");
            found.seeds += 1;
            found.seed = Some(found.seeds - 1);
            found.cpu_s = cpu_s();
        }
        say(&Found { reached: reached(), done: true, ..found });
        leave();
    }
}

#[expect(clippy::exit, reason = "a seed that does not end cannot be left in another way")]
fn leave() -> ! {
    std::process::exit(0)
}

/// A small scenario that still breaks the rule; none where that hangs or panics.
fn shrunk(seed: u64, outcome: &Outcome) -> Option<Shrunk> {
    let scenario = scenario_of(seed, &settings_of(seed));
    caught(|| shrink(seed, &scenario, None, outcome)).ok()?
}

/// Runs one seed; whether it ended well.
fn step(seed: u64, watched: &Mutex<Watched>) -> bool {
    let lock = || watched.lock().unwrap_or_else(PoisonError::into_inner);
    {
        let mut watched = lock();
        (watched.since, watched.since_cpu_s) = (Instant::now(), cpu_s());
    }
    let scenario = scenario_of(seed, &settings_of(seed));
    let ran = caught(|| run_scenario(seed, &scenario, None));
    let (rule, detail) = match &ran {
        Ok(Outcome { violation: None, .. }) => (None, String::new()),
        Ok(Outcome { violation: Some(found), .. }) => {
            let what = format!("promised {}; found {}", found.promised, found.found);
            (Some(found.rule.name().to_owned()), what)
        }
        Err(place) => (Some("panic".to_owned()), place.clone()),
    };
    {
        let mut watched = lock();
        let failed = rule.is_some();
        let found = &mut watched.found;
        found.seeds = seed + 1;
        found.cpu_s = cpu_s();
        found.seed = failed.then_some(seed);
        (found.rule, found.detail) = (rule, detail);
        found.reached = reached();
        // Shrinking gets the watchdog's time once for each run that it may take.
        (watched.since, watched.since_cpu_s) = (Instant::now(), cpu_s());
        if !failed {
            return true;
        }
    }
    if let Ok(outcome) = &ran
        && let Some(shrunk) = shrunk(seed, outcome)
    {
        let found = &mut lock().found;
        found.shrunk_ops = Some(shrunk.scenario.ops());
        found.story = shrunk.outcome.story;
        found.shrunk = Some(shrunk.scenario);
    }
    false
}

/// `--cpu-s N`, and the seeds `--from N` on, up to `--to N`.
fn arguments() -> Option<(f64, Range<u64>)> {
    let (mut limit, mut seeds) = (180.0, 0..u64::MAX);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match name.as_str() {
            "--cpu-s" => limit = value.parse().ok()?,
            "--from" => seeds.start = value.parse().ok()?,
            "--to" => seeds.end = value.parse().ok()?,
            _ => return None,
        }
    }
    Some((limit, seeds))
}

fn main() -> ExitCode {
    let Some((limit, seeds)) = arguments() else { return ExitCode::from(2) };
    let found = Found {
        seeds: seeds.start,
        cpu_s: 0.0,
        seed: None,
        rule: None,
        detail: String::new(),
        shrunk_ops: None,
        shrunk: None,
        story: Vec::new(),
        reached: reached(),
        done: false,
    };
    let watched = Watched { found, since: Instant::now(), since_cpu_s: 0.0 };
    let watched = Arc::new(Mutex::new(watched));
    let dog = Arc::clone(&watched);
    drop(thread::Builder::new().spawn(move || watch(&dog)));
    for seed in seeds {
        if cpu_s() >= limit || !step(seed, &watched) {
            break;
        }
        if (seed + 1).is_multiple_of(TOLD_EVERY) {
            say(&watched.lock().unwrap_or_else(PoisonError::into_inner).found);
        }
    }
    let found = watched.lock().unwrap_or_else(PoisonError::into_inner).found.clone();
    say(&Found { done: true, ..found });
    ExitCode::SUCCESS
}
