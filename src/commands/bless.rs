//! `forebay bless`: a finished run becomes committed results.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{EXIT_FOUND, Stop, files, print, report, say};
use crate::cli::{Format, Global};
use crate::output::{OutputError, create_folder, write_file};
use crate::record::{World, run_id};
use crate::results::folder::Folder;
use crate::results::{EXPERIMENT, WALL, raw, sizes};
use crate::text::append;

/// Flags of `bless`.
#[derive(Clone, Debug, Args)]
pub struct BlessArgs {
    /// What `run` wrote
    pub folder: PathBuf,
    /// Where it goes; default results/NAME of the experiment
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
}

/// Above this a packed file of samples or distributions stays out of the repository.
const COMMITTED_MAX: usize = 1 << 20;

/// Puts a run's output into the layout of committed results.
///
/// # Errors
///
/// 2 where the folder is not a whole run of its own experiment file, and nothing was written; 1
/// where the disk refused a file.
pub fn bless(global: &Global, args: &BlessArgs) -> Result<(), Stop> {
    let run = Folder::open_run(&args.folder).map_err(Stop::usage)?;
    let Some(made) = run.provenance.clone() else {
        let line = format!("{} holds no provenance.json of a run", args.folder.display());
        return Err(Stop::usage(line));
    };
    whole(&run)?;
    let into = args.into.clone().unwrap_or_else(|| Path::new("results").join(&made.experiment));
    let failed = |error: OutputError| Stop::with(EXIT_FOUND, error);
    if made.world == World::Os {
        keep_wall(&run, &into).map_err(failed)?;
        let (count, place) = (run.rows.len(), into.join(WALL));
        if raw::place(&into, "runs.jsonl").is_some() {
            // What stands beside simulated runs is made again.
            let blessed = Folder::open(&into).map_err(|line| Stop::with(EXIT_FOUND, line))?;
            blessed.write().map_err(failed)?;
        }
        say(&format!("{}: {count} runs by the wall clock, never checked\n", place.display()));
        return Ok(());
    }
    let changed = changed(&run, &into);
    let kept = keep(&run, &into).map_err(failed)?;
    let blessed = Folder::open(&into).map_err(|line| Stop::with(EXIT_FOUND, line))?;
    let count = blessed.write().map_err(failed)?;
    if global.format == Format::Json {
        return print::json(&serde_json::json!({
            "schema": "forebay.bless/1", "into": into, "runs": run.rows.len(), "files": count,
            "raw_bytes": kept, "changed": changed,
        }));
    }
    let mut text = String::new();
    for line in changed.iter().take(60) {
        append(&mut text, format_args!("  {line}\n"));
    }
    let not_passed = match report::failed(&run) {
        0 => String::new(),
        failed => format!(", of which {failed} did not pass"),
    };
    append(
        &mut text,
        format_args!(
            "{}: {} runs{not_passed}, {count} tables and figures, {} of raw files\n",
            into.display(),
            run.rows.len(),
            crate::number::bytes(kept),
        ),
    );
    say(&text);
    Ok(())
}

/// What of the tables and figures blessed before the run changes; nothing where none were.
fn changed(run: &Folder, into: &Path) -> Vec<String> {
    if !into.join("tables").is_dir() {
        return Vec::new();
    }
    let (experiment, rows) = (run.experiment.clone(), run.rows.clone());
    let sizes = run.sizes.clone();
    let provenance = run.provenance.clone();
    let wall = Folder::wall(into).unwrap_or_default();
    Folder { path: into.to_owned(), experiment, rows, wall, sizes, provenance }.differences()
}

/// Whether the rows are all of the experiment's and nothing else: no `-s`, no `--seeds`, no rest of
/// an interrupt, no two worlds.
fn whole(run: &Folder) -> Result<(), Stop> {
    let refuse = |line: String| Err(Stop::usage(format!("{}: {line}", run.path.display())));
    if let Some(line) = run.missing().first() {
        return refuse(format!("{line}: not the whole experiment"));
    }
    for row in &run.rows {
        let arm = run.experiment.arms.iter().find(|arm| arm.name == row.arm);
        let is_own =
            arm.is_some_and(|arm| row.run_id == run_id(&arm.config.hash(), row.seed, row.world));
        if !is_own || run.provenance.as_ref().is_some_and(|made| made.world != row.world) {
            let what = "is of other settings than the experiment's or of another world";
            return refuse(format!("{} seed {} {what}", row.arm, row.seed));
        }
    }
    Ok(())
}

/// Writes rows of the wall clock and who made them.
fn keep_wall(run: &Folder, into: &Path) -> Result<(), OutputError> {
    let wall = into.join(WALL);
    create_folder(&wall)?;
    if let Some(place) = raw::fresh(&run.path, "runs.jsonl") {
        raw::pack(&wall.join("runs.jsonl.gz"), &raw::text(&place)?)?;
    }
    run.provenance.clone().unwrap_or_default().write(&wall)
}

/// Writes experiment, raw files and provenance, and gives back how many bytes the raw files have. A
/// run that lies where it goes loses its plain files, which the packed ones hold.
fn keep(run: &Folder, into: &Path) -> Result<u64, OutputError> {
    create_folder(into)?;
    let experiment = raw::text(&run.path.join(EXPERIMENT))?;
    let mut made = run.provenance.clone().unwrap_or_default();
    made.large.clear();
    let mut ignored = String::new();
    let mut bytes = 0;
    for file in raw::FILES {
        let Some(place) = raw::fresh(&run.path, file) else { continue };
        let text = raw::text(&place)?;
        let packed = raw::pack(&into.join(format!("raw/{file}.gz")), &text)?;
        bytes += forebay_engine::types::to_u64(packed);
        // Tables and figures are made of the rows, so these are kept whatever they weigh.
        if packed > COMMITTED_MAX && !["runs.jsonl", sizes::ROWS].contains(&file) {
            made.large.insert(file.to_owned(), raw::sha256_of(&text));
            append(&mut ignored, format_args!("{file}.gz\n"));
        }
    }
    let list = into.join("raw/.gitignore");
    if ignored.is_empty() {
        files::remove(&list)?;
    } else {
        write_file(&list, &ignored)?;
    }
    write_file(&into.join(EXPERIMENT), &experiment)?;
    made.write(into)?;
    for file in raw::FILES {
        files::remove(&into.join(file))?;
    }
    Ok(bytes)
}
