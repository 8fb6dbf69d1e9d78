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

/// Copies the file to `sim/regressions`, where `cargo test` replays it, and says whether it fails still.
/// A file of the same seed and rule that says something else stays beside it.
///
/// # Errors
///
/// 2 where the file is no failure file, the current folder is not forebay's own, or a planted bug is not
/// found with it: it would fail for ever.
pub fn keep(args: &KeepArgs) -> Result<(), Stop> {
    let text = files::text(&args.file)?;
    let refused = |detail: String| Stop::usage(format!("{}: {detail}", args.file.display()));
    let case = Case::parse(&text).map_err(refused)?;
    let folder = Path::new("sim/regressions");
    if !folder.is_dir() {
        let line = "there is no folder sim/regressions here: run it in forebay's own folder";
        return Err(Stop::usage(line));
    }
    let found = case.run().violation.map(|found| found.rule);
    if let Some(bug) = &case.bug
        && (found.is_none() || found != case.rule)
    {
        let now = found.map_or_else(|| "passes".to_owned(), |rule| format!("breaks {rule}"));
        return Err(refused(format!("the planted bug {bug} is not found with it: it {now}")));
    }
    let state = match found {
        Some(rule) => format!("it breaks {rule}"),
        None => "it passes".to_owned(),
    };
    let rule = case.rule.map_or("case", |rule| rule.name()).to_lowercase();
    let name = format!("{rule}-seed-{}", case.seed);
    let mut to = folder.join(format!("{name}.json"));
    let mut number = 1_u32;
    while to.exists() && files::text(&to)? != text {
        number += 1;
        to = folder.join(format!("{name}-{number}.json"));
    }
    write_file(&to, &text).map_err(Stop::usage)?;
    say(&format!("wrote {}: cargo test replays it; {state} at present\n", to.display()));
    Ok(())
}
