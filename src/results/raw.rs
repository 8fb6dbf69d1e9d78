//! Raw files of results, packed or not.

#![expect(
    clippy::disallowed_types,
    reason = "result files are outside every world; the engine never sees them"
)]

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

use crate::output::{OutputError, OutputFile, Result};
use crate::record::RunRow;
use crate::text::append;

/// Most bytes of a raw file, unpacked: one that unpacks to more is refused, not read.
pub const BYTES_MAX: u64 = 1 << 30;

/// The raw files of a simulated run, and of a model where there was one.
pub const FILES: [&str; 4] = ["runs.jsonl", "series.csv", "hist.jsonl", super::sizes::ROWS];

/// Where a folder holds one of [`FILES`]: packed under `raw/`, plain there, or as a run leaves it.
pub fn place(folder: &Path, file: &str) -> Option<PathBuf> {
    let raw = folder.join("raw");
    let mut places = vec![raw.join(format!("{file}.gz")), raw.join(file), folder.join(file)];
    if file == "runs.jsonl" {
        places.push(folder.join("runs.wall.jsonl"));
    }
    places.into_iter().find(|path| path.is_file())
}

/// As [`place`], what a run left before what was packed of an earlier one.
pub fn fresh(folder: &Path, file: &str) -> Option<PathBuf> {
    Some(folder.join(file)).filter(|path| path.is_file()).or_else(|| place(folder, file))
}

/// The text of a file, unpacked where its name ends in `.gz`.
///
/// # Errors
///
/// The file cannot be read, is damaged, or holds more than [`BYTES_MAX`].
pub fn text(path: &Path) -> Result<String> {
    let failed = |source: io::Error| OutputError::Io { op: "read", path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    let read = if path.extension().is_some_and(|extension| extension == "gz") {
        flate2::read::GzDecoder::new(file).take(BYTES_MAX).read_to_string(&mut text)
    } else {
        file.take(BYTES_MAX).read_to_string(&mut text)
    };
    let read = read.map_err(failed)?;
    if u64::try_from(read).is_ok_and(|read| read >= BYTES_MAX) {
        return Err(failed(io::Error::other("larger than 1 GiB unpacked")));
    }
    Ok(text)
}

/// The rows of a file.
///
/// # Errors
///
/// As [`text`], or a line is not a row of this schema: the error names it.
pub fn rows(path: &Path) -> Result<Vec<RunRow>> {
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(text(path)?.lines()) {
        if !line.is_empty() {
            let row = RunRow::from_line(line).map_err(|detail| OutputError::Line {
                path: path.to_owned(),
                line: number,
                detail,
            })?;
            rows.push(row);
        }
    }
    Ok(rows)
}

/// sha256 of a file's bytes as they are, 64 hex digits.
///
/// # Errors
///
/// The file cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let failed = |source: io::Error| OutputError::Io { op: "read", path: path.to_owned(), source };
    let mut file = fs::File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0_u8; 1 << 16];
    loop {
        let read = file.read(&mut block).map_err(failed)?;
        let Some(bytes) = block.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(hex(&hasher.finalize()));
        };
        hasher.update(bytes);
    }
}

/// sha256 of text, 64 hex digits.
pub fn sha256_of(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        append(&mut text, format_args!("{byte:02x}"));
    }
    text
}

/// Text packed: the same bytes for the same text, since no time and no name is in them.
///
/// # Errors
///
/// None that memory can cause; the packer's own are handed on.
pub fn packed(text: &str) -> io::Result<Vec<u8>> {
    let mut packer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(9));
    packer.write_all(text.as_bytes())?;
    packer.finish()
}

/// Writes text packed; gives back how many bytes that takes.
///
/// # Errors
///
/// The file cannot be written; an older one of its name is still there.
pub fn pack(path: &Path, text: &str) -> Result<usize> {
    let failed = |source: io::Error| OutputError::Io { op: "pack", path: path.to_owned(), source };
    let bytes = packed(text).map_err(failed)?;
    let mut file = OutputFile::create(path)?;
    file.bytes(&bytes)?;
    file.finish()?;
    Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::mock;

    #[test]
    fn packed_text_comes_back_and_its_header_holds_no_time() {
        let bytes = packed("one\ntwo\n").unwrap();
        assert_eq!(bytes[..4], [0x1f, 0x8b, 8, 0], "no name");
        assert_eq!(bytes[4..8], [0; 4], "no time");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("raw/x.gz");
        pack(&path, "one\ntwo\n").unwrap();
        assert_eq!(text(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn rows_are_found_packed_plain_or_as_a_run_left_them() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        assert_eq!(place(here, "runs.jsonl"), None);
        let line = mock::small_row().to_line().unwrap();
        crate::output::write_file(&here.join("runs.jsonl"), &line).unwrap();
        assert_eq!(place(here, "runs.jsonl"), Some(here.join("runs.jsonl")));
        pack(&here.join("raw/runs.jsonl.gz"), &line).unwrap();
        let found = place(here, "runs.jsonl").unwrap();
        assert_eq!(found, here.join("raw/runs.jsonl.gz"));
        assert_eq!(fresh(here, "runs.jsonl"), Some(here.join("runs.jsonl")));
        assert_eq!(rows(&found).unwrap(), [mock::small_row()]);
    }

    #[test]
    fn damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.jsonl.gz");
        let bytes = packed("{}\n").unwrap();
        let write = |bytes: &[u8]| {
            let mut file = OutputFile::create(&path).unwrap();
            file.bytes(bytes).unwrap();
            file.finish().unwrap();
        };
        write(&bytes);
        assert!(rows(&path).unwrap_err().to_string().contains("runs.jsonl.gz:1: "));
        write(&bytes[..12]);
        assert!(text(&path).unwrap_err().to_string().starts_with("cannot read "));
    }
}
