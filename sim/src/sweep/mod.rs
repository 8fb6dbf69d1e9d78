//! The sweep of the n-th fault: short scripts in which every call on the disk fails once, in every way
//! that the error table has for it, and in which the process ends at every crash point of a call.
//!
//! First each part of a script runs clean and its calls and crash points are counted; then one run
//! follows for each of them and each way. Every run is a [`Scenario`] with an
//! [`NthFault`] in it, judged by the checker that judges all runs: faults end with the n-th, the
//! database must take writes again, and then crash and recovery are judged. Nothing is drawn that decides
//! what is run, so the sweep is the same on every machine, and any slice of it too.
//!
//! # Source
//!
//! `SQLite`'s test harness, which fails the n-th allocation and the n-th call on a file for n = 1, 2, ...
//! until a script passes without meeting the fault ("How `SQLite` Is Tested", sections on anomaly tests).

mod parse;

use crate::check::Rule;
use crate::disk::Profile;
use crate::fault::Fault;
use crate::nth::{CallLog, SharedLog};
use crate::run::{Outcome, run_watched};
use crate::scenario::{Case, Crash, CrashKind, NthFault, NthPart, NthWhat, Scenario};
use crate::view::Watch;

/// The scripts.
const SCRIPTS: &str = include_str!("scripts.txt");

/// A script in one layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its name, with the layout behind a slash.
    pub name: String,
    /// Draws what the scenario leaves open.
    pub seed: u64,
    /// Whether calls fail too while the database is created.
    pub creation: bool,
    /// What happens without a fault.
    pub scenario: Scenario,
}

/// A part of a script in which calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Which phase; none for the creation of the database.
    pub phase: Option<usize>,
    /// Which part of it.
    pub part: NthPart,
}

/// One run of the sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where.
    pub site: Site,
    /// What.
    pub what: NthWhat,
    /// What a power loss may do.
    pub profile: Profile,
}

/// Every script in each of its layouts.
///
/// # Errors
///
/// One line that names the line of the text, or the script whose options are wrong.
pub fn scripts() -> Result<Vec<Script>, String> {
    let scripts = parse::scripts(SCRIPTS)?;
    for script in &scripts {
        script.scenario.engine_options().map_err(|error| format!("{}: {error}", script.name))?;
    }
    Ok(scripts)
}

/// The ways in which a call may fail; of each, all classes fire that fit.
fn ways(op: &str) -> &'static [&'static [Fault]] {
    use Fault::{
        BitRot, EioMeta, EioRead, EioResize, EioSync, EioWrite, Emfile, EnospcMeta, EnospcSync,
        EnospcWrite, ErrorAfterEffect, LatentSector, Misdirected, MisdirectedFile, RemountReadOnly,
        ShortRead, ShortWrite, SyncLate, SyncLies, SyncReverted, WriteAfterEffect,
    };
    match op {
        "open" => &[&[EioMeta], &[Emfile]],
        "create" => &[
            &[EioMeta],
            &[EioMeta, ErrorAfterEffect],
            &[EnospcMeta],
            &[EnospcMeta, ErrorAfterEffect],
            &[Emfile],
            &[EioMeta, RemountReadOnly],
        ],
        "create_dir" | "rename" | "link" => &[
            &[EioMeta],
            &[EioMeta, ErrorAfterEffect],
            &[EnospcMeta],
            &[EnospcMeta, ErrorAfterEffect],
        ],
        "remove" => &[&[EioMeta], &[EioMeta, ErrorAfterEffect]],
        "sync_dir" => {
            &[&[EioMeta], &[EioMeta, ErrorAfterEffect], &[EioMeta, RemountReadOnly], &[SyncLies]]
        }
        "list" => &[&[EioMeta]],
        "append" | "write_at" => &[
            &[EioWrite],
            &[ShortWrite],
            &[WriteAfterEffect],
            &[EnospcWrite],
            &[EioWrite, RemountReadOnly],
            &[Misdirected],
            &[MisdirectedFile],
        ],
        "read_at" => &[&[EioRead], &[ShortRead], &[BitRot], &[LatentSector]],
        "sync_data" | "sync_all" => &[
            &[EioSync],
            &[EioSync, SyncReverted],
            &[EnospcSync],
            &[EnospcSync, SyncReverted],
            &[EioSync, RemountReadOnly],
            &[SyncLate],
            &[SyncLies],
        ],
        "allocate" => &[&[EioResize]],
        "set_len" => &[&[EioMeta], &[EioResize]],
        _ => &[],
    }
}

impl Script {
    /// Operations.
    pub fn ops(&self) -> u64 {
        parse::op_count(&self.scenario)
    }

    fn sites(&self) -> Vec<Site> {
        let of = |phase| [NthPart::Work, NthPart::Recovery].map(|part| Site { phase, part });
        let creation = Site { phase: None, part: NthPart::Recovery };
        let phases = (0..self.scenario.phases.len()).flat_map(|phase| of(Some(phase)));
        self.creation.then_some(creation).into_iter().chain(phases).collect()
    }

    fn with(&self, site: Site, what: NthWhat, profile: Profile) -> Scenario {
        let mut scenario = self.scenario.clone();
        profile.name().clone_into(&mut scenario.profile);
        let nth = Some(NthFault { part: site.part, what });
        match site.phase {
            None => scenario.creation_nth_fault = nth,
            Some(phase) => {
                if let Some(phase) = scenario.phases.get_mut(phase) {
                    phase.nth_fault = nth;
                }
            }
        }
        scenario
    }

    /// The calls of a part, in a run in which none fails.
    fn count(&self, site: Site, what: NthWhat) -> Result<CallLog, Box<Outcome>> {
        let log = SharedLog::default();
        let watch = Watch { calls: Some(log.clone()), ..Watch::default() };
        let scenario = self.with(site, what, Profile::Journal);
        let (outcome, _) = run_watched(self.seed, &scenario, None, &watch);
        if outcome.violation.is_some() { Err(Box::new(outcome)) } else { Ok(log.take()) }
    }

    /// Every run of the script, in an order that is always the same.
    ///
    /// # Errors
    ///
    /// The outcome of a run without a fault that breaks a rule.
    pub fn steps(&self) -> Result<Vec<Step>, Box<Outcome>> {
        let mut out = Vec::new();
        for site in self.sites() {
            let never = |then| NthWhat::Fault { call: u64::MAX, faults: Vec::new(), then };
            let probed = self.count(site, never(None))?.calls;
            let abrupt = self.count(site, never(Some(CrashKind::PowerLoss)))?.calls;
            for (calls, then) in [(probed, None), (abrupt, Some(CrashKind::PowerLoss))] {
                out.extend(faults(site, &calls, then));
            }
            let never = Crash { kind: CrashKind::Kill, point: u64::MAX };
            out.extend(crashes(site, &self.count(site, NthWhat::Crash(never))?.points));
        }
        Ok(out)
    }

    /// The scenario of a step.
    pub fn scenario(&self, step: &Step) -> Scenario {
        self.with(step.site, step.what.clone(), step.profile)
    }

    /// Runs a step and judges it.
    pub fn run(&self, step: &Step) -> Outcome {
        run_watched(self.seed, &self.scenario(step), None, &Watch::default()).0
    }

    /// A step as a failure file holds it.
    pub fn case(&self, step: &Step, rule: Option<Rule>) -> Case {
        self.case_of(self.scenario(step), rule)
    }

    /// The script without a fault, as a failure file holds it.
    pub fn clean_case(&self, rule: Option<Rule>) -> Case {
        self.case_of(self.scenario.clone(), rule)
    }

    fn case_of(&self, scenario: Scenario, rule: Option<Rule>) -> Case {
        Case { rule, ..Case::new(self.seed, scenario, None) }
    }
}

fn faults(site: Site, calls: &[&'static str], then: Option<CrashKind>) -> Vec<Step> {
    let mut out = Vec::new();
    for (call, op) in (1_u64..).zip(calls) {
        for (way, faults) in (0_usize..).zip(ways(op)) {
            let what = NthWhat::Fault { call, faults: faults.to_vec(), then };
            // Each way meets each profile as calls go by.
            let turn = forebay_engine::types::to_usize(call).wrapping_add(way);
            let profile = Profile::ALL.get(turn.rem_euclid(Profile::ALL.len())).copied();
            out.push(Step { site, what, profile: profile.unwrap_or(Profile::Journal) });
        }
    }
    out
}

fn crashes(site: Site, points: &[u64]) -> Vec<Step> {
    let mut out = Vec::new();
    for point in points {
        let crash = |kind| NthWhat::Crash(Crash { kind, point: *point });
        for profile in Profile::ALL {
            out.push(Step { site, what: crash(CrashKind::PowerLoss), profile });
        }
        out.push(Step { site, what: crash(CrashKind::Kill), profile: Profile::Adversary });
    }
    out
}

impl core::fmt::Display for Step {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.site.phase {
            None => f.write_str("creation")?,
            Some(phase) => {
                let part = match self.site.part {
                    NthPart::Work => "work",
                    NthPart::Recovery => "recovery",
                };
                write!(f, "phase {} {part}", phase.saturating_add(1))?;
            }
        }
        match &self.what {
            NthWhat::Fault { call, faults, then } => {
                let names: Vec<&str> = faults.iter().map(|fault| fault.name()).collect();
                write!(f, ", call {call}: {}", names.join("+"))?;
                if then.is_some() {
                    f.write_str(", then power_loss")?;
                }
            }
            NthWhat::Crash(crash) => {
                let kind = match crash.kind {
                    CrashKind::PowerLoss => "power_loss",
                    CrashKind::Kill => "kill",
                };
                write!(f, ", point {}: {kind}", crash.point)?;
            }
        }
        write!(f, ", {}", self.profile.name())
    }
}
