//! `forebay verify`: reads and checks everything that a closed database directory consists of.
//!
//! It takes no lock and changes nothing. Exit code 0 where all is as it should be, 1 where it is
//! not, each finding on a line of its own, and 2 where there is no database to verify.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;

use forebay_engine::env::BlockingEnv as _;
use forebay_engine::env::os::OsEnv;
use forebay_engine::verify::{Checked, Finding, VerifyReport, verify_dir};
use serde::Serialize;

use super::failure::Failure;
use super::{EXIT_FOUND, Stop, complain, say};
use crate::number::thousands;

/// Tables and segments between two lines of progress.
const PROGRESS_EVERY: u64 = 64;

/// Arguments of `forebay verify`.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// The directory of the database; nobody should have it open
    pub dir: PathBuf,
}

/// A finding for machines.
#[derive(Debug, Serialize)]
pub(super) struct FindingLine {
    part: &'static str,
    tree: Option<u64>,
    tenants: Vec<String>,
    tenant_count: u64,
    #[serde(flatten)]
    failure: Failure,
}

impl From<&Finding> for FindingLine {
    fn from(finding: &Finding) -> Self {
        Self {
            part: finding.part.name(),
            tree: finding.owners.tree.map(|tree| tree.0),
            tenants: finding.owners.tenants.clone(),
            tenant_count: finding.owners.tenant_count,
            failure: Failure::from(&finding.error),
        }
    }
}

/// A finding for people: what is wrong, and whose data it hits.
pub(super) fn line(finding: &Finding) -> String {
    let owners = &finding.owners;
    let more = owners.tenant_count.saturating_sub(1);
    let whose = match owners.tenants.first() {
        None => String::new(),
        Some(first) if more == 0 => format!(" (tenant {first})"),
        Some(first) => format!(" (tenant {first} and {more} more)"),
    };
    format!("{}{whose}", finding.error)
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    clean: bool,
    findings: Vec<FindingLine>,
    left_out: u64,
    edits: u64,
    trees: u64,
    tables: u64,
    table_bytes: u64,
    blocks: u64,
    entries: u64,
    segments: u64,
    records: u64,
}

impl Report {
    fn new(report: &VerifyReport) -> Self {
        let checked = report.checked;
        Self {
            schema: "forebay.verify/1",
            clean: report.is_clean(),
            findings: report.findings.iter().map(FindingLine::from).collect(),
            left_out: report.left_out,
            edits: checked.edits,
            trees: checked.trees,
            tables: checked.tables,
            table_bytes: checked.table_bytes,
            blocks: checked.blocks,
            entries: checked.entries,
            segments: checked.segments,
            records: checked.records,
        }
    }
}

/// Runs the command.
///
/// # Errors
///
/// The exit code for findings, or that of a wrong argument with its line.
pub fn run(args: &VerifyArgs, (json, quiet): (bool, bool)) -> Result<(), Stop> {
    let watched = !quiet && io::stderr().is_terminal();
    let mut next = PROGRESS_EVERY;
    let progress = |checked: &Checked| {
        if watched && checked.tables + checked.segments >= next {
            next += PROGRESS_EVERY;
            let (tables, bytes) = (thousands(checked.tables), thousands(checked.table_bytes));
            // Progress is lost on a closed stderr, and nothing else.
            write!(io::stderr(), "\r{tables} tables, {bytes} bytes").unwrap_or_default();
        }
    };
    let found = OsEnv.block_on(verify_dir(&OsEnv, &args.dir, progress)).map_err(Stop::usage)?;
    let found =
        found.ok_or_else(|| Stop::usage(format!("{} holds no database", args.dir.display())))?;
    if watched && next > PROGRESS_EVERY {
        complain("");
    }
    if json {
        let text = serde_json::to_string(&Report::new(&found)).map_err(Stop::usage)?;
        say(&format!("{text}\n"));
    } else {
        say(&human(&found));
    }
    for finding in &found.findings {
        complain(&format!("error: {}", line(finding)));
    }
    if found.is_clean() { Ok(()) } else { Err(Stop { code: EXIT_FOUND, line: None }) }
}

fn human(found: &VerifyReport) -> String {
    let checked = found.checked;
    let verdict = match found.findings.len() {
        0 => "clean".to_owned(),
        1 => "1 finding".to_owned(),
        n => format!("{n} findings"),
    };
    format!(
        "{verdict}: {} edits, {} tables of {} trees with {} blocks and {} entries, {} records in \
         {} log segments\n",
        thousands(checked.edits),
        thousands(checked.tables),
        thousands(checked.trees),
        thousands(checked.blocks),
        thousands(checked.entries),
        thousands(checked.records),
        thousands(checked.segments)
    )
}
