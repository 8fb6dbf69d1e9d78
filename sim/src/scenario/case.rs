//! A case: a run to repeat, as a failure file holds it.
//!
//! With its recorded choices it replays without the generator and without the seed: a change of how
//! seeds are drawn leaves it as it is. Without them the seed draws what the scenario leaves open.

use serde::{Deserialize, Serialize};

use super::{CrashKind, End, Op, Scenario};
use crate::bugs::Bug;
use crate::check::Rule;
use crate::check::value::FORK_STEP;
use crate::choices::Mode;
use crate::disk::Profile;
use crate::disk::device::DeviceSpec;
use crate::lists::Lists;
use crate::run::{Outcome, run_watched};
use crate::view::{View, Watch};

/// The schema of a [`Case`].
pub const CASE_SCHEMA: &str = "forebay.case/1";

/// Bounds of what a file may ask for; those of the generator are far below.
const TENANTS_MAX: usize = 10_000;
const PHASES_MAX: usize = 64;
const CLIENTS_MAX: usize = 256;
const OPS_MAX: u64 = 100_000;
const CRASHES_MAX: usize = 64;
const WRITES_MAX: usize = 10_000;
const VALUE_BYTES_MAX: u32 = 1 << 20;
const FORKS_MAX: usize = 10_000;
const KEY_MAX: u32 = 9999;
const IMPORT_KEYS_MAX: u32 = 9999;

/// A run to repeat: what a failure file holds, and what a regression test replays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// [`CASE_SCHEMA`].
    pub schema: String,
    /// Draws what the scenario leaves open, where no choices are recorded.
    pub seed: u64,
    /// The rule that it broke when it was written.
    pub rule: Option<Rule>,
    /// The planted bug it ran with.
    pub bug: Option<String>,
    /// What happens.
    pub scenario: Scenario,
    /// What was decided where the scenario leaves it open; what is not listed is 0, the simplest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Lists>,
}

impl Case {
    /// A scenario with a seed that draws what it leaves open.
    pub fn new(seed: u64, scenario: Scenario, bug: Option<Bug>) -> Self {
        Self {
            schema: CASE_SCHEMA.to_owned(),
            seed,
            rule: None,
            bug: bug.map(|bug| bug.name().to_owned()),
            scenario,
            choices: None,
        }
    }

    /// Reads a case.
    ///
    /// # Errors
    ///
    /// One line that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let case: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if case.schema != CASE_SCHEMA {
            return Err(format!("schema {:?} is not {CASE_SCHEMA:?}", case.schema));
        }
        if let Some(bug) = &case.bug
            && Bug::from_name(bug).is_none()
        {
            return Err(format!("bug {bug:?} does not exist"));
        }
        case.scenario.engine_options()?;
        case.scenario.is_bounded()?;
        Ok(case)
    }

    /// The planted bug.
    pub fn planted(&self) -> Option<Bug> {
        self.bug.as_deref().and_then(Bug::from_name)
    }

    /// Runs it.
    pub fn run(&self) -> Outcome {
        self.run_watched(&Watch::default()).0
    }

    /// Runs it with an eye on it. Where no choices are recorded, the watch says where they come from.
    pub fn run_watched(&self, watch: &Watch) -> (Outcome, View) {
        let mode = self.choices.clone().map_or_else(|| watch.mode.clone(), Mode::follow);
        let watch = Watch { mode, ..watch.clone() };
        run_watched(self.seed, &self.scenario, self.planted(), &watch)
    }
}

fn at_most<T: Copy + PartialOrd + core::fmt::Display>(
    what: &str,
    n: T,
    max: T,
) -> Result<(), String> {
    if n > max { Err(format!("{what}: {n} is more than {max}")) } else { Ok(()) }
}

impl Scenario {
    /// Refuses what no generator draws and a run would choke on.
    fn is_bounded(&self) -> Result<(), String> {
        if !Profile::ALL.iter().any(|profile| profile.name() == self.profile) {
            return Err(format!("profile {:?} does not exist", self.profile));
        }
        if DeviceSpec::preset(&self.device).is_none() {
            return Err(format!("device {:?} does not exist", self.device));
        }
        at_most("tenants", self.tenants, TENANTS_MAX)?;
        at_most("phases", self.phases.len(), PHASES_MAX)?;
        at_most("operations", self.ops(), OPS_MAX)?;
        at_most("creation crashes", self.creation_crashes.len(), CRASHES_MAX)?;
        for phase in &self.phases {
            at_most("clients", phase.clients.len(), CLIENTS_MAX)?;
            at_most("recovery crashes", phase.recovery_crashes.len(), CRASHES_MAX)?;
            at_most("crash states", phase.crash_states, 64)?;
            phase.clients.iter().flatten().try_for_each(Op::is_bounded)?;
        }
        Ok(())
    }

    /// Crashes that it asks for, of this kind.
    pub fn crashes(&self, kind: CrashKind) -> usize {
        let is_one = |end: End| matches!(end, End::Crash(crash) if crash.kind == kind);
        self.phases.iter().filter(|phase| is_one(phase.end)).count()
    }
}

impl Op {
    fn is_bounded(&self) -> Result<(), String> {
        match self {
            Self::Write { writes, .. } => {
                at_most("writes of a batch", writes.len(), WRITES_MAX)?;
                for write in writes {
                    at_most("key", write.key, KEY_MAX)?;
                    at_most("bytes of a value", write.bytes.unwrap_or(0), VALUE_BYTES_MAX)?;
                }
                Ok(())
            }
            Self::Get { key, .. } | Self::Reread { key } => at_most("key", *key, KEY_MAX),
            Self::Scan { from, to, .. } => at_most("key", *from.max(to), KEY_MAX),
            Self::Create { tenant, .. } => at_most("tenant", *tenant, FORK_STEP - 1),
            Self::Import { tenant, first, count } => {
                at_most("tenant", *tenant, FORK_STEP - 1)?;
                at_most("keys to import", *count, IMPORT_KEYS_MAX)?;
                at_most("key", first.saturating_add(*count), KEY_MAX)
            }
            Self::Fork { fork, .. } => at_most("fork", *fork, FORKS_MAX),
            Self::Query { .. }
            | Self::Compare { .. }
            | Self::Compact { .. }
            | Self::Extractor { .. }
            | Self::Snapshot { .. }
            | Self::Flush { .. }
            | Self::Sync
            | Self::Drop { .. }
            | Self::DropBranch { .. }
            | Self::Sleep { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_choices_is_one_of_before_and_those_it_has_survive() {
        let mut case = Case::new(5, Scenario::draw(5), None);
        let old = serde_json::to_string(&case).unwrap();
        assert!(!old.contains("choices"));
        assert_eq!(Case::parse(&old).unwrap(), case);
        case.choices = Some(Lists::new([("sched".to_owned(), vec![3, 0, 1])]));
        let text = serde_json::to_string(&case).unwrap();
        assert_eq!(Case::parse(&text).unwrap(), case);
    }

    #[test]
    fn a_hostile_file_is_refused_in_one_line() {
        let case = serde_json::to_value(Case::new(5, Scenario::draw(5), None)).unwrap();
        let refused = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut bad = case.clone();
            change(&mut bad);
            let error = Case::parse(&bad.to_string()).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
            error
        };
        let huge = 1_u64 << 40;
        let said = refused(&|v| v["scenario"]["tenants"] = huge.into());
        assert!(said.starts_with("tenants: "), "{said}");
        let said = refused(&|v| v["scenario"]["profile"] = "ext4".into());
        assert_eq!(said, "profile \"ext4\" does not exist");
        let said =
            refused(&|v| v["scenario"]["phases"][0]["crash_states"] = 4_000_000_000_u64.into());
        assert!(said.starts_with("crash states: "), "{said}");
        let op = serde_json::json!({"write": {"sync": true, "writes":
            [{"tenant": 0, "key": 0, "bytes": 4_000_000_000_u64}]}});
        let said = refused(&|v| v["scenario"]["phases"][0]["clients"] = serde_json::json!([[op]]));
        assert!(said.starts_with("bytes of a value: "), "{said}");
        let said = refused(&|v| v["choices"] = serde_json::json!({"sched": "0x99999999999"}));
        assert!(said.contains("more than"), "{said}");
        refused(&|v| v["schema"] = "other".into());
        refused(&|v| v["bug"] = "other".into());
    }
}
