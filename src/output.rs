//! Files a command leaves behind: complete or absent.
//!
//! A file is written under a temporary name beside its own and renamed once it is complete and
//! synced, so that an interrupt never leaves half a table for a later command to read. These files
//! belong to the person at the terminal, not to a database, and so they do not go through an `Env`.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "result files are outside every world; the engine never sees them"
)]

use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Why a result file could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// A folder or file refused a call. Nothing under the file's own name was changed.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried: `create`, `write`, `rename`, `read`.
        op: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// A line of a result file is not what its format says.
    #[error("{}:{line}: {detail}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// A histogram could not be encoded or decoded.
    #[error("histogram of run {run_id}: {detail}")]
    Histogram {
        /// The run it belongs to.
        run_id: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The page could not be made of its template.
    #[error("report template: {0}")]
    Template(String),
}

/// The result of writing and reading result files.
pub type Result<T> = core::result::Result<T, OutputError>;

/// A file in the making. Dropped without [`OutputFile::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    partial: PathBuf,
    writer: Option<BufWriter<fs::File>>,
}

impl OutputFile {
    /// Starts a file that will appear as `path`, and makes the folder it is in.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or written. Nothing was changed but folders made on the way.
    pub fn create(path: &Path) -> Result<Self> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        create_folder(folder)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(name);
        let file = fs::File::create(&partial).map_err(io_error("create", path))?;
        Ok(Self { path: path.to_owned(), partial, writer: Some(BufWriter::new(file)) })
    }

    /// Appends text.
    ///
    /// # Errors
    ///
    /// The disk refused it; the file will not appear.
    pub fn text(&mut self, text: &str) -> Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// The disk refused them; the file will not appear.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(writer) = self.writer.as_mut() else { return Ok(()) };
        writer.write_all(bytes).map_err(io_error("write", &self.path))
    }

    /// Makes the file durable and gives it its name, replacing an older one.
    ///
    /// # Errors
    ///
    /// The disk refused a step; an older file of this name is still there.
    pub fn finish(mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let file = writer
            .into_inner()
            .map_err(|error| io_error("write", &self.path)(error.into_error()))?;
        file.sync_all().map_err(io_error("write", &self.path))?;
        fs::rename(&self.partial, &self.path).map_err(io_error("rename", &self.path))
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if self.writer.take().is_some() || self.partial.exists() {
            // A file that cannot be removed keeps its `.partial` name, which no command reads.
            fs::remove_file(&self.partial).unwrap_or_default();
        }
    }
}

/// Writes a whole file at once.
///
/// # Errors
///
/// As [`OutputFile::create`] and [`OutputFile::finish`].
pub fn write_file(path: &Path, text: &str) -> Result<()> {
    let mut file = OutputFile::create(path)?;
    file.text(text)?;
    file.finish()
}

/// Makes a folder and those above it, and checks that files can be made in it.
///
/// # Errors
///
/// The folder cannot be made, is a file, or takes no files.
pub fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(io_error("create the folder", folder))?;
    let probe = folder.join(format!(".probe.{}.partial", std::process::id()));
    fs::File::create(&probe).map_err(io_error("write into the folder", folder))?;
    fs::remove_file(&probe).map_err(io_error("write into the folder", folder))
}

/// Calls `each` with every line that is not empty and its number, counted from 1.
///
/// # Errors
///
/// The file cannot be read, or `each` refuses a line: the error names file and line.
pub fn for_each_line(
    path: &Path,
    mut each: impl FnMut(u64, &str) -> core::result::Result<(), String>,
) -> Result<()> {
    let file = fs::File::open(path).map_err(io_error("read", path))?;
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(io_error("read", path))?;
        if !line.is_empty() {
            each(number, &line).map_err(|detail| OutputError::Line {
                path: path.to_owned(),
                line: number,
                detail,
            })?;
        }
    }
    Ok(())
}

fn io_error(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path = path.to_owned();
    move |source| OutputError::Io { op, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_only_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/runs.jsonl");
        let mut file = OutputFile::create(&path).unwrap();
        file.text("one\n").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);

        write_file(&path, "two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_a_file_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("taken");
        write_file(&file, "x").unwrap();
        let error = create_folder(&file.join("out")).unwrap_err().to_string();
        assert!(error.contains("cannot create the folder") && error.contains("taken"), "{error}");
    }

    #[test]
    fn a_refused_line_is_named_by_file_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows");
        write_file(&file, "good\n\nbad\n").unwrap();
        let error =
            for_each_line(
                &file,
                |_, line| {
                    if line == "bad" { Err("not good".to_owned()) } else { Ok(()) }
                },
            );
        assert!(error.unwrap_err().to_string().ends_with("rows:3: not good"));
    }
}
