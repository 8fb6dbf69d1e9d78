//! `forebay keep`: a failure file becomes a regression test.

use std::path::{Path, PathBuf};

use clap::Args;
use forebay_sim::scenario::Case;

use super::{Stop, files, say};
use crate::output::write_file;

/// Flags of `keep`.
#[derive(Clone, Debug, Args)]
pub struct KeepArgs {
    /// A failure file
    pub file: PathBuf,
}

/// Copies the file to `sim/regressions`, where `cargo test` replays it.
///
/// # Errors
///
/// 2 where the file is no failure file, or the current folder is not forebay's own.
pub fn keep(args: &KeepArgs) -> Result<(), Stop> {
    let text = files::text(&args.file)?;
    let refused = |detail: String| Stop::usage(format!("{}: {detail}", args.file.display()));
    let case = Case::parse(&text).map_err(refused)?;
    let folder = Path::new("sim/regressions");
    if !folder.is_dir() {
        let line = "there is no folder sim/regressions here: run it in forebay's own folder";
        return Err(Stop::usage(line));
    }
    let rule = case.rule.map_or("case", |rule| rule.name()).to_lowercase();
    let to = folder.join(format!("{rule}-seed-{}.json", case.seed));
    write_file(&to, &text).map_err(Stop::usage)?;
    say(&format!("wrote {}: cargo test replays it\n", to.display()));
    Ok(())
}
