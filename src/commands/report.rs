//! `forebay report`: tables, figures and a page of the rows of a folder, or whether they still are
//! what its rows make.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{EXIT_FOUND, EXIT_NOTHING, Stop, print, run, say};
use crate::cli::{Format, Global};
use crate::events::read_events;
use crate::histogram::HistRow;
use crate::output::{OutputError, write_file};
use crate::record::Outcome;
use crate::report::{Provenance, ReportInput, html};
use crate::results::folder::{Folder, folders};
use crate::results::raw;
use crate::series::{SERIES_HEADER, SeriesRow};
use crate::text::append;

/// Flags of `report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// A folder of results, what `run` wrote, or with --check a folder of such folders
    pub folder: PathBuf,
    /// Where the page goes; default FOLDER/report.html
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub html: Option<PathBuf>,
    /// Compare tables and figures with what the rows make, and write nothing
    #[arg(long)]
    pub check: bool,
}

/// Most changed cells of a folder that are told one by one.
const TOLD_MAX: usize = 60;

/// Reports.
///
/// # Errors
///
/// 1 where the check differs, 2 where a folder cannot be read, 4 where there is none to check.
pub fn report(global: &Global, args: &ReportArgs) -> Result<(), Stop> {
    if args.check {
        return check(global, &args.folder);
    }
    let folder = Folder::open(&args.folder).map_err(Stop::usage)?;
    let count = folder.write().map_err(|error| Stop::with(EXIT_FOUND, error))?;
    let page = args.html.clone().unwrap_or_else(|| args.folder.join("report.html"));
    let input = page_of(&folder).map_err(Stop::usage)?;
    let text = html::render(&input).map_err(|error| Stop::with(EXIT_FOUND, error))?;
    write_file(&page, &text).map_err(|error| Stop::with(EXIT_FOUND, error))?;
    match global.format {
        Format::Json => print::json(&serde_json::json!({
            "schema": "forebay.report/1", "folder": args.folder, "files": count, "report": page,
        }))?,
        Format::Human | Format::Csv => {
            say(&format!("{count} tables and figures\n{}\n", page.display()));
        }
    }
    Ok(())
}

fn check(global: &Global, path: &Path) -> Result<(), Stop> {
    let folders = folders(path).map_err(Stop::usage)?;
    if folders.is_empty() {
        let line = format!("no experiment.toml in {} or a folder in it", path.display());
        return Err(Stop::with(EXIT_NOTHING, line));
    }
    let mut differing = 0;
    for path in &folders {
        let folder = Folder::open(path).map_err(Stop::usage)?;
        let told = folder.differences();
        differing += usize::from(!told.is_empty());
        let shown = path.display();
        match global.format {
            Format::Json => print::json(&serde_json::json!({
                "schema": "forebay.check/1", "folder": path, "differences": told,
            }))?,
            Format::Human | Format::Csv if told.is_empty() => {
                say(&format!("{shown}: {} files are what its rows make\n", folder.made().len()));
            }
            Format::Human | Format::Csv => {
                let mut text = format!("{shown}: {} differences\n", told.len());
                for line in told.iter().take(TOLD_MAX) {
                    append(&mut text, format_args!("  {line}\n"));
                }
                if let Some(more) = told.len().checked_sub(TOLD_MAX).filter(|more| *more > 0) {
                    append(&mut text, format_args!("  and {more} more\n"));
                }
                say(&text);
            }
        }
    }
    if differing > 0 {
        let line = format!("{differing} of {} folders differ", folders.len());
        return Err(Stop::with(EXIT_FOUND, line));
    }
    Ok(())
}

/// Everything that the page shows, of what lies in the folder; samples and distributions that are
/// not there leave their charts empty.
fn page_of(folder: &Folder) -> Result<ReportInput, String> {
    let facts = run::facts(&folder.experiment, &folder.rows)
        .map_err(|stop| stop.line.unwrap_or_default())?;
    let made = folder.provenance.clone().unwrap_or_default();
    let said = |error: OutputError| error.to_string();
    let raw = |file: &str| match raw::place(&folder.path, file) {
        Some(path) => raw::text(&path).map_err(said),
        None => Ok(String::new()),
    };
    let (samples, histograms) = (raw("series.csv")?, raw("hist.jsonl")?);
    let lines = samples.lines().filter(|line| !line.is_empty() && *line != SERIES_HEADER);
    let series = lines.map(SeriesRow::from_line).collect::<Result<Vec<_>, _>>()?;
    let histograms = histograms
        .lines()
        .map(|line| serde_json::from_str::<HistRow>(line).map_err(|error| error.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    let recorded = folder.path.join("events.jsonl");
    let events =
        if recorded.is_file() { read_events(&recorded).map_err(said)? } else { Vec::new() };
    let input = ReportInput {
        title: folder.experiment.title.clone(),
        question: folder.experiment.question.clone(),
        scale_lines: if facts.is_empty() { Vec::new() } else { print::scale_lines(&facts) },
        baseline_arm: folder.experiment.baseline.clone(),
        rows: folder.rows.clone(),
        series,
        events,
        provenance: Provenance {
            commit: made.commit,
            version: made.version,
            toolchain: concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"), " or newer").to_owned(),
            seeds: made.seeds,
            config_hash: made.config_hash,
            command: made.command,
        },
        ..ReportInput::default()
    };
    Ok(ReportInput { histograms, ..input })
}

/// How many rows of a folder did not pass.
pub(super) fn failed(folder: &Folder) -> usize {
    folder.rows.iter().filter(|row| row.outcome != Outcome::Pass).count()
}
