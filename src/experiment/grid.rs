//! From axes to arms: every combination but the excluded ones, then the arms with a name of their
//! own.

use std::collections::BTreeMap;

use super::file::{Assignment, ExperimentFile, NAME, Setting, expanded};
use super::{ExperimentError, Origin, Overrides, Resolved};
use crate::config::{Config, OWN_KEYS};
use crate::text::append;

/// Most arms of one experiment.
const ARMS_MAX: usize = 10_000;

/// One way to run the engine, and its whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// Its values on the axes: `per-tenant/oldest-write/stop=4`.
    pub name: String,
    /// Everything that decides what it does.
    pub config: Config,
    /// Its values on the axes by key.
    pub values: BTreeMap<String, String>,
}

impl Arm {
    /// The command that runs this arm alone, with one seed; `command` runs all of them.
    pub fn replay(&self, command: &str, seed: u64) -> String {
        let mut replay = command.to_owned();
        for (key, value) in &self.values {
            append(&mut replay, format_args!(" -s {key}={value}"));
        }
        append(&mut replay, format_args!(" --seeds {seed}..{}", seed.saturating_add(1)));
        replay
    }
}

/// One step of the grid.
struct Step {
    choices: Vec<Choice>,
    origin: Origin,
}

/// Values of keys that change together.
#[derive(Clone, Default)]
struct Choice {
    values: Vec<(String, String)>,
    /// What arms are called after; the values themselves where there is no name.
    name: Option<String>,
}

impl Choice {
    fn name(&self) -> String {
        let parts = || self.values.iter().map(|(key, value)| part(key, value)).collect::<Vec<_>>();
        self.name.clone().unwrap_or_else(|| parts().join("/"))
    }

    /// This choice and another one.
    fn and(&self, other: &Self) -> Self {
        let both = [self.name(), other.name()];
        let name = both.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join("/");
        let values = [self.values.as_slice(), other.values.as_slice()].concat();
        Self { values, name: Some(name) }
    }
}

/// All values with their origins, the grid's steps apart from the rest.
pub(super) struct Layers {
    base: Vec<(String, String, Origin)>,
    steps: Vec<Step>,
    /// Values that hold in arms with a name of their own, too; an axis does not.
    flags: Vec<(String, String)>,
    label: String,
}

fn scalar(setting: &Setting) -> String {
    setting.values.first().cloned().unwrap_or_default()
}

fn single(setting: &Setting) -> (String, String) {
    (setting.key.clone(), scalar(setting))
}

impl Layers {
    pub(super) fn new(
        file: &ExperimentFile,
        overrides: &Overrides,
    ) -> Result<Self, ExperimentError> {
        let mut flags = Vec::new();
        for (key, value) in &overrides.settings {
            let values = expanded(key, value);
            for each in &values {
                Config::default()
                    .set(key, each)
                    .map_err(|detail| ExperimentError(format!("-s {key}={value}: {detail}")))?;
            }
            flags.push(Setting { key: key.clone(), values, line: 0 });
        }
        let set = |s: &Setting| (s.key.clone(), scalar(s), Origin::File(s.line));
        let mut layers = Self {
            base: file.settings.iter().map(set).collect(),
            steps: Vec::new(),
            flags: flags.iter().filter(|flag| flag.values.len() == 1).map(single).collect(),
            label: file.label.clone(),
        };
        for axis in &file.axes {
            layers.steps.push(Step::new(axis, Origin::File(axis.line)));
        }
        for axis in &file.coupled {
            layers.steps.push(Step::coupled(axis));
        }
        for setting in file.quick.iter().filter(|_| overrides.quick) {
            layers.replace(setting, Origin::Quick(setting.line));
        }
        for flag in &flags {
            layers.replace(flag, Origin::Flag);
        }
        Ok(layers)
    }

    /// An axis takes the new values; elsewhere the value replaces the file's.
    fn replace(&mut self, setting: &Setting, origin: Origin) {
        let mut found = false;
        for step in &mut self.steps {
            if step.values().all(|(key, _)| *key == setting.key) {
                *step = Step::new(setting, origin);
                found = true;
            } else {
                for (key, value) in step.choices.iter_mut().flat_map(|choice| &mut choice.values) {
                    if *key == setting.key {
                        *value = scalar(setting);
                        found = true;
                    }
                }
            }
        }
        if found {
            return;
        }
        if setting.values.len() > 1 {
            self.steps.push(Step::new(setting, origin));
        } else {
            self.base.retain(|(key, _, _)| *key != setting.key);
            self.base.push((setting.key.clone(), scalar(setting), origin));
        }
    }

    pub(super) fn arms(&self, file: &ExperimentFile) -> Result<Vec<Arm>, ExperimentError> {
        let mut combinations = vec![Choice::default()];
        for step in &self.steps {
            let mut longer = Vec::new();
            for combination in &combinations {
                for choice in &step.choices {
                    longer.push(combination.and(choice));
                }
            }
            if longer.len() > ARMS_MAX {
                let detail = format!("{}: more than {ARMS_MAX} arms", self.label);
                return Err(ExperimentError(detail));
            }
            combinations = longer;
        }
        let kept = |choice: &Choice| !file.exclude.iter().any(|e| matches(e, &choice.values));
        // What is asked for by name on the command line is run, even where the file would leave it
        // out.
        if combinations.iter().any(kept) {
            combinations.retain(kept);
        }
        if self.steps.is_empty() && !file.named.is_empty() {
            combinations.clear();
        }
        let mut arms = Vec::new();
        for choice in combinations {
            let name = Some(choice.name()).filter(|name| !name.is_empty());
            arms.push(self.arm(&name.unwrap_or_else(|| "default".to_owned()), &choice.values)?);
        }
        for (name, settings) in &file.named {
            let mut values: Vec<(String, String)> =
                settings.iter().map(|s| (s.key.clone(), scalar(s))).collect();
            values.extend(self.flags.clone());
            arms.push(self.arm(name, &values)?);
        }
        self.distinct(arms)
    }

    /// Arms that came out equal are one: the first.
    fn distinct(&self, arms: Vec<Arm>) -> Result<Vec<Arm>, ExperimentError> {
        let mut kept: Vec<Arm> = Vec::new();
        for arm in arms {
            if kept.iter().any(|other| other.config == arm.config) {
                continue;
            }
            if kept.iter().any(|other| other.name == arm.name) {
                let detail = format!("{}: two arms are called {:?}", self.label, arm.name);
                return Err(ExperimentError(detail));
            }
            kept.push(arm);
        }
        Ok(kept)
    }

    fn arm(&self, name: &str, values: &[(String, String)]) -> Result<Arm, ExperimentError> {
        let refused =
            |detail: String| ExperimentError(format!("{}: arm {name}: {detail}", self.label));
        let mut config = Config::default();
        for (key, value, _) in &self.base {
            config.set(key, value).map_err(refused)?;
        }
        for (key, value) in values {
            config.set(key, value).map_err(refused)?;
        }
        config.validate().map_err(refused)?;
        Ok(Arm { name: name.to_owned(), config, values: values.iter().cloned().collect() })
    }

    pub(super) fn full(
        &self,
        file: &ExperimentFile,
        like: Option<&Arm>,
    ) -> Result<Option<Config>, ExperimentError> {
        let Some(arm) = like.filter(|_| !file.full.is_empty()) else { return Ok(None) };
        let mut config = Config { device_scale: 1, ..arm.config.clone() };
        for setting in &file.full {
            config.set(&setting.key, &scalar(setting)).map_err(|detail| {
                ExperimentError(format!("{}:{}: {detail}", self.label, setting.line))
            })?;
        }
        Ok(Some(config))
    }

    /// What `[full]` sets and no flag does.
    pub(super) fn full_values(&self, file: &ExperimentFile) -> Vec<(String, String)> {
        let is_flag = |key: &str| self.flags.iter().any(|(flag, _)| flag == key);
        let values = file.full.iter().filter(|setting| !is_flag(&setting.key));
        values.map(|setting| (setting.key.clone(), scalar(setting))).collect()
    }

    /// Every key: those of the grid with all their values.
    pub(super) fn resolved(&self) -> Vec<Resolved> {
        let mut resolved: Vec<Resolved> = Vec::new();
        for step in &self.steps {
            for (key, value) in step.values() {
                match resolved.iter_mut().find(|r| r.key == *key) {
                    Some(known) if known.values.contains(value) => {}
                    Some(known) => known.values.push(value.clone()),
                    None => resolved.push(Resolved {
                        key: key.clone(),
                        values: vec![value.clone()],
                        origin: step.origin,
                    }),
                }
            }
        }
        for (key, value, origin) in &self.base {
            if !resolved.iter().any(|r| r.key == *key) {
                let values = vec![value.clone()];
                resolved.push(Resolved { key: key.clone(), values, origin: *origin });
            }
        }
        for (key, value) in Config::default().entries() {
            if !resolved.iter().any(|r| r.key == key) {
                resolved.push(Resolved { key, values: vec![value], origin: Origin::Default });
            }
        }
        resolved
    }
}

impl Step {
    fn new(setting: &Setting, origin: Origin) -> Self {
        let values = |value: &String| vec![(setting.key.clone(), value.clone())];
        let choice = |value: &String| Choice { values: values(value), name: None };
        Self { choices: setting.values.iter().map(choice).collect(), origin }
    }

    fn coupled(assignments: &[Assignment]) -> Self {
        let first = |values: &Vec<String>| values.first().cloned().unwrap_or_default();
        let choice = |assignment: &Assignment| {
            let keys = assignment.iter().filter(|(key, _)| *key != NAME);
            let values = keys.map(|(key, values)| (key.clone(), first(values))).collect();
            Choice { values, name: assignment.get(NAME).map(first) }
        };
        Self { choices: assignments.iter().map(choice).collect(), origin: Origin::File(0) }
    }

    fn values(&self) -> impl Iterator<Item = &(String, String)> {
        self.choices.iter().flat_map(|choice| &choice.values)
    }
}

/// Whether an arm agrees with an exclusion in every key that it names.
fn matches(exclude: &Assignment, values: &[(String, String)]) -> bool {
    exclude.iter().all(|(key, out)| values.iter().any(|(k, v)| k == key && out.contains(v)))
}

/// How an arm's name tells one value: names by themselves, the commonest counts in short.
fn part(key: &str, value: &str) -> String {
    let named = forebay_engine::options::KEYS.iter().map(|info| (info.name, info.unit));
    let mut named = named.chain(OWN_KEYS.iter().map(|own| (own.name, own.unit)));
    match key {
        "memtable_stop_count" => format!("stop={value}"),
        "memtable_slowdown_count" => format!("delay={value}"),
        _ if named.any(|(name, unit)| name == key && unit == "name") => value.to_owned(),
        _ => format!("{key}={value}"),
    }
}
