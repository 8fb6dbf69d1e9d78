//! `forebay calibrate`: a short probe of a real disk prints the `[device]` table that describes it.

#![expect(
    clippy::disallowed_types,
    reason = "the probe's own file is told to leave the page cache; no engine has it open"
)]

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use forebay_engine::env::os::OsEnv;
use forebay_engine::env::{BlockingEnv, Env};
use rustix::fs::{Advice, fadvise};

use super::{EXIT_FOUND, EXIT_INCOMPLETE, Stop, interrupt, pool, print, say};
use crate::calibrate::{
    CalibrateError, Calibration, DISK_BYTES_MAX, Terms, calibrate as measure, probe_count,
};
use crate::cli::{Format, Global};
use crate::output::write_file;
use crate::progress::{Progress, ProgressMode};
use crate::results::provenance::this_host;

/// Flags of `calibrate`.
#[derive(Clone, Debug, Args)]
pub struct CalibrateArgs {
    /// A folder on the disk; default the one for temporary files, where `run --world os` runs
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// About how long it takes
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Write the table there instead
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Reads as the page cache answers them: for runs on this disk whose data fits in free memory
    #[arg(long)]
    pub cached_reads: bool,
}

/// Probes a disk; its files are in a folder of their own, which goes away however it ends.
///
/// # Errors
///
/// 2 where the folder cannot be used, 1 where the disk refused a call, 6 where it was interrupted.
pub fn calibrate(global: &Global, args: &CalibrateArgs) -> Result<(), Stop> {
    // Before there is anything to remove.
    interrupt::listen();
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let shown = dir.display();
    let folder = tempfile::Builder::new().prefix("forebay-calibrate-").tempdir_in(&dir);
    let folder = folder.map_err(|error| Stop::usage(format!("cannot probe {shown}: {error}")))?;
    let env = OsEnv;
    let free = env.block_on(env.free_bytes(folder.path())).map_err(Stop::usage)?;
    if free < DISK_BYTES_MAX {
        let need = crate::number::bytes(DISK_BYTES_MAX);
        let line =
            format!("cannot probe {shown}: {} free, needs {need}", crate::number::bytes(free));
        return Err(Stop::usage(line));
    }
    let mode = if global.quiet { ProgressMode::None } else { global.progress };
    let progress = Progress::new(mode, probe_count(), "probes");
    let told = |name: &str| {
        if !name.is_empty() {
            progress.note(name);
            progress.add(1);
        }
        !interrupt::asked()
    };
    let terms = Terms {
        duration_ns: args.seconds.saturating_mul(1_000_000_000),
        cached_reads: args.cached_reads,
        core_count: forebay_engine::types::to_u64(pool::processors()),
        forget,
    };
    let measured = measure(&env, folder.path(), &terms, &told);
    progress.finish();
    let removed = folder.close();
    let measured = measured.map_err(|error| match error {
        CalibrateError::Stopped => Stop::with(EXIT_INCOMPLETE, "interrupted: nothing was printed"),
        CalibrateError::Refused(_) | CalibrateError::Forget(_) => Stop::with(EXIT_FOUND, error),
    })?;
    removed
        .map_err(|error| Stop::with(EXIT_FOUND, format!("cannot clean up in {shown}: {error}")))?;
    tell(global.format, args, &measured)
}

fn tell(format: Format, args: &CalibrateArgs, measured: &Calibration) -> Result<(), Stop> {
    let host = this_host();
    let head = [format!("forebay calibrate, {} s: {host}", args.seconds)];
    if let Some(path) = &args.out {
        write_file(path, &measured.toml(&head)).map_err(|error| Stop::with(EXIT_FOUND, error))?;
    }
    match (format, &args.out) {
        (Format::Json, out) => {
            let head = [("seconds", args.seconds.into()), ("host", host.into())];
            let mut object = measured.json(&head);
            if let (Some(path), Some(object)) = (out, object.as_object_mut()) {
                object.insert("out".to_owned(), path.display().to_string().into());
            }
            print::json(&object)?;
        }
        (Format::Csv, _) => say(&measured.csv()),
        (Format::Human, None) => say(&measured.toml(&head)),
        (Format::Human, Some(path)) => say(&format!("{}\n", path.display())),
    }
    Ok(())
}

/// Pages that are not on the disk stay; all of the probe's are synced before.
fn forget(path: &Path) -> io::Result<()> {
    Ok(fadvise(File::open(path)?, 0, None, Advice::DontNeed)?)
}
