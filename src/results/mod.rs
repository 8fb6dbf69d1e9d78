//! A folder of results: what lies where, what is made of it, and whether that is still true.
//!
//! ```text
//! experiment.toml    the question
//! provenance.json    who made the rows, and with what
//! raw/               runs.jsonl.gz series.csv.gz hist.jsonl.gz: rows, samples, distributions
//! wall/              runs.jsonl.gz provenance.json: rows of the same on a real disk
//! tables/ figures/   made of the experiment and the rows alone
//! ```
//!
//! What a run wrote by itself has `runs.jsonl` in the place of `raw/runs.jsonl.gz`. Packed files
//! are compared unpacked: their bytes depend on the packer's version.

pub mod cells;
pub mod folder;
pub mod provenance;
pub mod raw;
pub mod side;
pub mod sizes;
pub mod tables;

pub use provenance::Provenance;

/// The experiment's file in a folder of results.
pub const EXPERIMENT: &str = "experiment.toml";

/// The folder of rows on a real disk, in a folder of results.
pub const WALL: &str = "wall";

/// Who made the rows, in a folder of results.
pub const PROVENANCE: &str = "provenance.json";
