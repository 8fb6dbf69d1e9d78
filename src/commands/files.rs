//! Files that the user names on the command line, outside every world.

#![expect(clippy::disallowed_methods, reason = "a person's files; the engine never sees them")]

use std::path::{Path, PathBuf};

use super::{EXIT_NOTHING, Stop};
use crate::output::OutputError;
use crate::record::RunRow;
use crate::results::raw;

/// The text of an experiment file.
pub(super) fn text(path: &Path) -> Result<String, Stop> {
    raw::text(path).map_err(Stop::usage)
}

/// Removes a file; one that is not there is removed.
pub(super) fn remove(path: &Path) -> Result<(), OutputError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(OutputError::Io { op: "remove", path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// sha256 of this program; empty where it cannot be read.
pub(super) fn this_program() -> String {
    std::env::current_exe().ok().and_then(|path| raw::sha256(&path).ok()).unwrap_or_default()
}

/// The first of these files that is there.
pub(super) fn first_there(paths: &[PathBuf]) -> Option<&PathBuf> {
    paths.iter().find(|path| path.is_file())
}

/// The rows of `runs.jsonl`, packed or not.
pub(super) fn rows(path: &Path) -> Result<Vec<RunRow>, Stop> {
    raw::rows(path).map_err(Stop::usage)
}

/// The rows of a folder or a file that is to be compared; rows of another schema are not
/// comparable.
pub(super) fn compared(path: &Path) -> Result<Vec<RunRow>, Stop> {
    let found = if path.is_dir() { raw::place(path, "runs.jsonl") } else { Some(path.to_owned()) };
    let Some(found) = found else {
        let places = "raw/runs.jsonl.gz, raw/runs.jsonl, runs.jsonl, runs.wall.jsonl";
        return Err(Stop::usage(format!("no rows in {}; looked for {places}", path.display())));
    };
    let rows = raw::rows(&found).map_err(|error| match &error {
        OutputError::Line { detail, .. } if detail.starts_with("schema is") => {
            Stop::with(EXIT_NOTHING, error)
        }
        OutputError::Line { .. }
        | OutputError::Io { .. }
        | OutputError::Histogram { .. }
        | OutputError::Template(_) => Stop::usage(error),
    })?;
    if rows.is_empty() {
        return Err(Stop::with(EXIT_NOTHING, format!("{} holds no rows", found.display())));
    }
    Ok(rows)
}
