//! `forebay repair`: makes a damaged database directory one that opens, from whatever is whole.
//!
//! Exit code 0 where nothing was lost, 1 where something was, or where a dry run finds work to do,
//! and 2 where there is no database to repair, or somebody has it open.

use std::path::PathBuf;

use forebay_engine::Db;
use forebay_engine::env::BlockingEnv as _;
use forebay_engine::env::os::OsEnv;
use forebay_engine::options::Layout;
use forebay_engine::repair::{RepairOptions, RepairReport};
use serde::Serialize;

use super::verify::{FindingLine, line};
use super::{EXIT_FOUND, Stop, complain, say};
use crate::number::thousands;

/// Arguments of `forebay repair`.
#[derive(Clone, Debug, clap::Args)]
pub struct RepairArgs {
    /// The directory of the database; nobody may have it open
    pub dir: PathBuf,
    /// Show what would be done, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The layout, where no manifest can be read that says it
    #[arg(long, value_parser = layout)]
    pub layout: Option<Layout>,
}

fn layout(text: &str) -> Result<Layout, String> {
    text.parse().ok().ok_or_else(|| "allowed: per-tenant, shared, grouped-G".to_owned())
}

#[derive(Serialize)]
struct Log {
    rewritten: bool,
    segments: u64,
    entries: u64,
    carried: u64,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    needed: bool,
    dry_run: bool,
    manifest: Option<String>,
    base: Option<String>,
    base_is_complete: bool,
    lost: Vec<FindingLine>,
    risks: Vec<FindingLine>,
    recovered: &'a [String],
    tables: u64,
    adopted: u64,
    relocated: u64,
    merged_trees: u64,
    log: Log,
    set_aside: &'a [String],
}

fn name(number: u64) -> String {
    format!("MANIFEST-{number:06}")
}

/// Runs the command.
///
/// # Errors
///
/// The exit code for what was lost, or that of a wrong argument with its line.
pub fn run(args: &RepairArgs, json: bool) -> Result<(), Stop> {
    let options = RepairOptions { dry_run: args.dry_run, layout: args.layout };
    let report = OsEnv.block_on(Db::repair(&OsEnv, &args.dir, &options)).map_err(Stop::usage)?;
    if json {
        let text = Report {
            schema: "forebay.repair/1",
            needed: report.needed,
            dry_run: args.dry_run,
            manifest: report.manifest.map(name),
            base: report.base.map(name),
            base_is_complete: report.base_is_complete,
            lost: report.lost.iter().map(FindingLine::from).collect(),
            risks: report.risks.iter().map(FindingLine::from).collect(),
            recovered: &report.recovered,
            tables: report.tables,
            adopted: report.adopted,
            relocated: report.relocated,
            merged_trees: report.merged_trees,
            log: Log {
                rewritten: report.log.rewritten,
                segments: report.log.segments,
                entries: report.log.entries,
                carried: report.log.carried,
            },
            set_aside: &report.set_aside,
        };
        say(&format!("{}\n", serde_json::to_string(&text).map_err(Stop::usage)?));
    } else {
        say(&human(&report, args.dry_run));
    }
    for finding in &report.lost {
        complain(&format!("lost: {}", line(finding)));
    }
    for finding in &report.risks {
        complain(&format!("risk: {}", line(finding)));
    }
    let to_do = args.dry_run && report.needed;
    if report.lost.is_empty() && !to_do {
        return Ok(());
    }
    Err(Stop { code: EXIT_FOUND, line: None })
}

fn human(report: &RepairReport, dry_run: bool) -> String {
    if !report.needed {
        return "nothing to repair\n".to_owned();
    }
    let verb = if dry_run { "would keep" } else { "kept" };
    let mut out = format!("{verb} {} tables", thousands(report.tables));
    for (count, what) in
        [(report.adopted, "in no readable manifest"), (report.relocated, "under another name")]
    {
        if count > 0 {
            out += &format!(", {} of them {what}", thousands(count));
        }
    }
    out.push('\n');
    if report.merged_trees > 0 {
        out += &format!("merged: the tables of {} trees\n", thousands(report.merged_trees));
    }
    if report.log.rewritten {
        let (found, carried) = (thousands(report.log.entries), thousands(report.log.carried));
        out += &if dry_run {
            format!("log: {found} entries would be sifted into a new one\n")
        } else {
            format!("log: {carried} of {found} entries are in a new one\n")
        };
    }
    for tenant in &report.recovered {
        out += &format!("tenant without a name: {tenant}\n");
    }
    for file in &report.set_aside {
        out += &format!("set aside: {file}\n");
    }
    if let Some(number) = report.manifest {
        out += &format!("CURRENT names {}\n", name(number));
    }
    out
}
