//! Decisions apart from deeds: a view in, a choice out.
//!
//! A policy sees a small view of facts and keeps only such state as follows from the views it has
//! seen. It has no environment, clock, I/O or waiting, so the same object runs in the engine, in the
//! simulator, in a text case and in a model on sizes alone.

pub mod compaction;
pub mod flush;
pub mod stall;
pub mod view;

use std::collections::BTreeMap;

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
}

/// One parameter of a policy.
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
