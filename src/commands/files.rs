//! Files that the user names on the command line, outside every world.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a person's files; the engine never sees them"
)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Stop;
use crate::record::RunRow;

/// The text of an experiment file.
pub(super) fn text(path: &Path) -> Result<String, Stop> {
    fs::read_to_string(path)
        .map_err(|error| Stop::usage(format!("cannot read {}: {error}", path.display())))
}

/// The first of these files that is there.
pub(super) fn first_there(paths: &[PathBuf]) -> Option<&PathBuf> {
    paths.iter().find(|path| path.is_file())
}

/// The rows of `runs.jsonl`, packed or not.
pub(super) fn rows(path: &Path) -> Result<Vec<RunRow>, Stop> {
    let refused =
        |detail: &dyn core::fmt::Display| Stop::usage(format!("{}: {detail}", path.display()));
    let file = fs::File::open(path).map_err(|error| refused(&error))?;
    let mut text = String::new();
    let packed = path.extension().is_some_and(|extension| extension == "gz");
    let read = if packed {
        flate2::read::GzDecoder::new(file).read_to_string(&mut text)
    } else {
        std::io::BufReader::new(file).read_to_string(&mut text)
    };
    read.map_err(|error| refused(&error))?;
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| RunRow::from_line(line).map_err(|error| refused(&error))).collect()
}
