//! `series.csv`: what a run looked like over time, one line a sample.
//!
//! `ops`, `stall_ns` and `p99_ns` cover the interval that ends at `at_ms` and began at the sample
//! before it (the first one at 0); the other columns are gauges read at `at_ms`.

use std::fmt::Write as _;
use std::path::Path;

use crate::output::{OutputFile, Result, for_each_line};

/// The first line of the file.
pub const SERIES_HEADER: &str = "run_id,at_ms,tenant,ops,stall_ns,memtable_bytes,imm,l0_files,\
pending_compaction_bytes,p99_ns,table_bytes,fork_table_bytes";

/// One sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesRow {
    /// The run.
    pub run_id: String,
    /// End of the interval, since the run began.
    pub at_ms: u64,
    /// The tenant; empty for the whole Db.
    pub tenant: String,
    /// Operations served in the interval.
    pub ops: u64,
    /// Time writers were stalled in the interval, summed over writers.
    pub stall_ns: u64,
    /// Bytes that all memtables hold.
    pub memtable_bytes: u64,
    /// Immutable memtables.
    pub imm: u64,
    /// Tables in level 0.
    pub l0_files: u64,
    /// Bytes that compaction owes.
    pub pending_compaction_bytes: u64,
    /// 99th percentile of the latency of writes in the interval.
    pub p99_ns: u64,
    /// Bytes of the tables that branches reach, each table once.
    pub table_bytes: u64,
    /// Of them, those that only forks reach.
    pub fork_table_bytes: u64,
}

impl SeriesRow {
    /// The sample as a line of CSV (RFC 4180), with its newline.
    pub fn to_line(&self) -> String {
        let mut line = String::new();
        push_field(&mut line, &self.run_id);
        // Writing to a string cannot fail.
        write!(line, ",{},", self.at_ms).unwrap_or_default();
        push_field(&mut line, &self.tenant);
        let numbers = [
            self.ops,
            self.stall_ns,
            self.memtable_bytes,
            self.imm,
            self.l0_files,
            self.pending_compaction_bytes,
            self.p99_ns,
            self.table_bytes,
            self.fork_table_bytes,
        ];
        for number in numbers {
            write!(line, ",{number}").unwrap_or_default();
        }
        line.push('\n');
        line
    }

    /// The sample in a line of CSV.
    ///
    /// # Errors
    ///
    /// The line has other than twelve fields, or one of them is not a number.
    pub fn from_line(line: &str) -> core::result::Result<Self, String> {
        let mut fields = split_fields(line)?.into_iter();
        let mut text = |name: &str| fields.next().ok_or_else(|| format!("no field {name}"));
        let run_id = text("run_id")?;
        let at_ms = number("at_ms", &text("at_ms")?)?;
        let tenant = text("tenant")?;
        let mut next = |name: &str| number(name, &text(name)?);
        let row = Self {
            run_id,
            at_ms,
            tenant,
            ops: next("ops")?,
            stall_ns: next("stall_ns")?,
            memtable_bytes: next("memtable_bytes")?,
            imm: next("imm")?,
            l0_files: next("l0_files")?,
            pending_compaction_bytes: next("pending_compaction_bytes")?,
            p99_ns: next("p99_ns")?,
            table_bytes: next("table_bytes")?,
            fork_table_bytes: next("fork_table_bytes")?,
        };
        if fields.next().is_some() { Err("more than twelve fields".to_owned()) } else { Ok(row) }
    }
}

/// Writes `series.csv`, in the order given.
///
/// # Errors
///
/// The file cannot be written; an older one of its name is still there.
pub fn write_series(path: &Path, rows: &[SeriesRow]) -> Result<()> {
    let mut file = OutputFile::create(path)?;
    file.text(SERIES_HEADER)?;
    file.text("\n")?;
    for row in rows {
        file.text(&row.to_line())?;
    }
    file.finish()
}

/// Reads `series.csv`. Tenants' names hold no newline.
///
/// # Errors
///
/// The file cannot be read, has another header, or a line is not a sample: the error names it.
pub fn read_series(path: &Path) -> Result<Vec<SeriesRow>> {
    let mut rows = Vec::new();
    for_each_line(path, |number, line| {
        if number > 1 {
            rows.push(SeriesRow::from_line(line)?);
        } else if line != SERIES_HEADER {
            return Err(format!("the header is not {SERIES_HEADER}"));
        }
        Ok(())
    })?;
    Ok(rows)
}

fn number(name: &str, text: &str) -> core::result::Result<u64, String> {
    text.parse().map_err(|error| format!("{name} is {text:?}: {error}"))
}

fn push_field(line: &mut String, field: &str) {
    if !field.contains([',', '"', '\n', '\r']) {
        line.push_str(field);
        return;
    }
    line.push('"');
    for letter in field.chars() {
        match letter {
            '"' => line.push_str("\"\""),
            // One sample is one line, whatever a tenant is called.
            '\n' | '\r' => line.push(' '),
            _ => line.push(letter),
        }
    }
    line.push('"');
}

pub(crate) fn split_fields(line: &str) -> core::result::Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(core::mem::take(&mut field)),
            _ => field.push(letter),
        }
    }
    fields.push(field);
    if quoted { Err("a quote is not closed".to_owned()) } else { Ok(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tenant: &str) -> SeriesRow {
        SeriesRow {
            run_id: "00ff".to_owned(),
            at_ms: 400,
            tenant: tenant.to_owned(),
            ops: 17_640,
            stall_ns: 3,
            memtable_bytes: 1 << 26,
            imm: 2,
            l0_files: 7,
            pending_compaction_bytes: u64::MAX,
            p99_ns: 531_000,
            table_bytes: 9_000,
            fork_table_bytes: 4_000,
        }
    }

    #[test]
    fn a_sample_is_one_line_and_comes_back() {
        assert_eq!(
            row("").to_line(),
            "00ff,400,,17640,3,67108864,2,7,18446744073709551615,531000,9000,4000\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("series.csv");
        let rows = vec![row(""), row("a,\"b\" </script>"), row("plain")];
        write_series(&path, &rows).unwrap();
        assert_eq!(read_series(&path).unwrap(), rows);
        assert_eq!(row("a\nb").to_line().lines().count(), 1);
    }

    #[test]
    fn damaged_lines_are_refused() {
        assert!(SeriesRow::from_line("a,1").unwrap_err().contains("tenant"));
        assert!(SeriesRow::from_line("a,x,,1,1,1,1,1,1,1,1,1").unwrap_err().contains("at_ms"));
        assert!(SeriesRow::from_line("a,1,,1,1,1,1,1,1,1,1,1,1").unwrap_err().contains("twelve"));
        assert!(SeriesRow::from_line("a,1,\"x,1,1,1,1,1,1,1,1,1").unwrap_err().contains("quote"));
    }
}
