//! Experiments with memtable policies: what a run measured, how it is stored and how it is shown.

pub mod calibrate;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod config;
pub mod driver;
pub mod events;
pub mod experiment;
pub mod figures;
pub mod histogram;
pub mod load_row;
pub mod metric;
pub mod model;
pub mod number;
pub mod outcome;
pub mod output;
pub mod progress;
pub mod record;
pub mod report;
pub mod results;
pub mod scale;
pub mod series;
pub mod stats;
mod text;
pub mod trace;
pub mod world;
