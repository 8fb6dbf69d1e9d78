//! What people look at: a table in the terminal and one page of HTML, both made of rows alone.

pub mod against;
pub mod chart;
mod detail;
mod forks;
mod headline;
mod heat;
pub mod html;
mod load;
#[cfg(test)]
pub(crate) mod mock;
pub mod model;
pub mod summary;
pub mod table;
pub mod timeline;

use serde::Serialize;

use crate::events::RunEvents;
use crate::histogram::HistRow;
use crate::record::RunRow;
use crate::series::SeriesRow;

/// Where the numbers of a report come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Provenance {
    /// Commit of the code, with `(dirty)` where it was changed since.
    pub commit: String,
    /// Version of forebay.
    pub version: String,
    /// Compiler that built it.
    pub toolchain: String,
    /// The seeds, as the command line names them.
    pub seeds: String,
    /// Hash over the configurations of all arms.
    pub config_hash: String,
    /// The command that made the rows.
    pub command: String,
}

/// Everything a report shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportInput {
    /// Name of the experiment.
    pub title: String,
    /// What it asks, in a sentence or two.
    pub question: String,
    /// The scale it ran at, against the scale it is about: one fact a line.
    pub scale_lines: Vec<String>,
    /// The arm that others are compared with; the first one where no arm has this name.
    pub baseline_arm: String,
    /// All runs, in the order arms are to be shown.
    pub rows: Vec<RunRow>,
    /// Samples over time; those of a tenant are passed over.
    pub series: Vec<SeriesRow>,
    /// Latency distributions; those of a tenant are passed over.
    pub histograms: Vec<HistRow>,
    /// What happened in one run of each arm.
    pub events: Vec<RunEvents>,
    /// Where the numbers come from.
    pub provenance: Provenance,
}
