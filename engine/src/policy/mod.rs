//! Decisions apart from deeds: a view in, a choice out.
//!
//! A policy sees a small view of facts and keeps only such state as follows from the views it has
//! seen. It has no environment, clock, I/O or waiting, so the same object runs in the engine, in
//! the simulator, in a text case and in a model on sizes alone.

pub mod compaction;
pub mod flush;
pub mod stall;
pub mod view;

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// A policy's name with its parameters, as options and files give them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySpec {
    /// The name on the command line, in files and in results.
    pub name: String,
    /// Parameters that differ from their defaults.
    pub params: BTreeMap<String, f64>,
}

impl PolicySpec {
    /// A policy with all parameters at their defaults.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), params: BTreeMap::new() }
    }

    /// The same policy with one parameter given.
    #[must_use]
    pub fn with(mut self, param: &str, value: f64) -> Self {
        self.params.insert(param.to_owned(), value);
        self
    }
}

/// One parameter of a policy. Only one whose name ends in `_ratio` takes fractions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParamInfo {
    /// Its name, unit last.
    pub name: &'static str,
    /// Smallest value allowed.
    pub min: f64,
    /// Largest value allowed.
    pub max: f64,
    /// The value where none is given.
    pub default: f64,
    /// What it does, in one line.
    pub about: &'static str,
}

impl ParamInfo {
    /// Refuses a value out of bounds, or a fraction where only whole numbers make sense.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` with the policy, the parameter and its bounds. Nothing was changed.
    pub fn check(&self, policy: &str, value: f64) -> Result<()> {
        let whole = !self.name.ends_with("_ratio");
        if (self.min..=self.max).contains(&value) && (!whole || value.fract() == 0.0) {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!(
            "{policy}.{} = {value} is not a{} number from {} to {}",
            self.name,
            if whole { " whole" } else { "" },
            self.min,
            self.max
        )))
    }
}

/// One policy in a list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyInfo {
    /// The name on the command line, in files and in results.
    pub name: &'static str,
    /// Its id in the literature list of this project: `P2`, `S1`, or `-`.
    pub id: &'static str,
    /// Where the idea comes from.
    pub source: &'static str,
    /// Its parameters.
    pub params: &'static [ParamInfo],
    /// What is known to be wrong with it; such a policy stays out of the fuzz swarm.
    pub known_defects: &'static [&'static str],
}

impl PolicyInfo {
    /// The parameter of this name.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the parameters that the policy has. Nothing was changed.
    pub fn param(&self, name: &str) -> Result<&'static ParamInfo> {
        self.params.iter().find(|p| p.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.params.iter().map(|p| p.name).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Error::InvalidArgument(format!(
                "policy {} has no parameter {name:?}; it has: {known}",
                self.name
            ))
        })
    }
}

/// A line of a list of policies: what it is, and how to make it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<P: ?Sized> {
    /// What `forebay list` prints.
    pub info: PolicyInfo,
    /// Makes one with these parameters and no state yet.
    pub build: fn(&Params<'_>) -> Box<P>,
}

/// Parameters of one policy, each within its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Params<'a> {
    info: &'a PolicyInfo,
    given: &'a BTreeMap<String, f64>,
}

impl Params<'_> {
    /// The value of a parameter, given or default.
    fn value(&self, name: &str) -> f64 {
        let default = || self.info.params.iter().find(|p| p.name == name).map(|p| p.default);
        let value = self.given.get(name).copied().or_else(default);
        debug_assert!(value.is_some(), "policy {} lists no parameter {name}", self.info.name);
        value.unwrap_or_default()
    }

    /// The value of a parameter that counts something.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float to an integer saturates, and bounds were checked"
    )]
    pub fn whole(&self, name: &str) -> u64 {
        self.value(name) as u64
    }

    /// The value of a ratio.
    pub fn ratio(&self, name: &str) -> Ratio {
        Ratio::new(self.value(name))
    }
}

/// A fraction in millionths, so that every machine rounds alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    millionths: u64,
}

impl Ratio {
    const ONE: u64 = 1_000_000;

    /// The nearest fraction in millionths; below 0 counts as 0.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float to an integer saturates"
    )]
    pub fn new(value: f64) -> Self {
        Self { millionths: (value * 1e6 + 0.5) as u64 }
    }

    /// That part of a number, rounded down; saturates.
    pub fn of(self, n: u64) -> u64 {
        let (high, low) = (n.div_euclid(Self::ONE), n.rem_euclid(Self::ONE));
        let low = low.saturating_mul(self.millionths).div_euclid(Self::ONE);
        high.saturating_mul(self.millionths).saturating_add(low)
    }
}

/// The information on the policy of this name.
fn find<'a, P: ?Sized>(kind: &str, list: &'a [Entry<P>], name: &str) -> Result<&'a Entry<P>> {
    list.iter().find(|e| e.info.name == name).ok_or_else(|| {
        let names: Vec<&str> = list.iter().map(|e| e.info.name).collect();
        Error::InvalidArgument(format!(
            "{kind}_policy {name:?} does not exist; allowed: {}",
            names.join(", ")
        ))
    })
}

/// Makes the policy of a list that a specification names.
fn build<P: ?Sized>(kind: &str, list: &[Entry<P>], spec: &PolicySpec) -> Result<Box<P>> {
    let entry = find(kind, list, &spec.name)?;
    for (name, value) in &spec.params {
        entry.info.param(name)?.check(&format!("{kind}.{}", entry.info.name), *value)?;
    }
    Ok((entry.build)(&Params { info: &entry.info, given: &spec.params }))
}

/// What a policy decides; the first word of its parameters' keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyKind {
    /// Whose memtable is flushed next.
    Flush,
    /// Whether a write goes on, is delayed or stops.
    Stall,
    /// Which tables are compacted next.
    Compaction,
}

impl PolicyKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Flush, Self::Stall, Self::Compaction];

    /// The word in keys and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::Stall => "stall",
            Self::Compaction => "compaction",
        }
    }

    /// All policies of the kind, in the order of the list.
    pub fn list(self) -> Vec<&'static PolicyInfo> {
        match self {
            Self::Flush => flush::list().collect(),
            Self::Stall => stall::list().collect(),
            Self::Compaction => compaction::list().collect(),
        }
    }

    /// The policy of this kind with this name.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the policies there are. Nothing was changed.
    pub fn info(self, name: &str) -> Result<&'static PolicyInfo> {
        match self {
            Self::Flush => find(self.name(), flush::LIST, name).map(|e| &e.info),
            Self::Stall => find(self.name(), stall::LIST, name).map(|e| &e.info),
            Self::Compaction => find(self.name(), compaction::LIST, name).map(|e| &e.info),
        }
    }

    /// Refuses a specification that no policy of the kind can be made from.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` as from the kind's `build`. Nothing was changed.
    pub fn check(self, spec: &PolicySpec) -> Result<()> {
        match self {
            Self::Flush => flush::build(spec).map(|_| ()),
            Self::Stall => stall::build(spec).map(|_| ()),
            Self::Compaction => compaction::build(spec).map(|_| ()),
        }
    }
}
