//! `hist.jsonl`: whole latency distributions, so that any percentile can be asked for later.
//!
//! A line holds an `HdrHistogram` in its V2 deflate encoding, base64: what other tools read
//! (hdr-histogram-js `decodeFromCompressedBase64`). The compressed bytes depend on the compressor's
//! version: two files are compared by decoded counts, never by text.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::output::{OutputError, OutputFile, Result, for_each_line};

/// Significant decimal digits that histograms keep.
pub const SIGFIG: u8 = 3;

/// One latency distribution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistRow {
    /// The run.
    pub run_id: String,
    /// The tenant; empty for the whole Db.
    pub tenant: String,
    /// `write`, `read` or `fork`; in a row of a class of tenants the kind of operation.
    pub op: String,
    /// The class of tenants; not there for all of them, and for one tenant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// `ns`.
    pub unit: String,
    /// Significant decimal digits.
    pub sigfig: u8,
    /// base64 of the V2 deflate encoding.
    pub v2z: String,
}

impl HistRow {
    /// Encodes a histogram of nanoseconds.
    ///
    /// # Errors
    ///
    /// The encoder refuses the histogram: a count above its bounds.
    pub fn encode(
        run_id: &str,
        tenant: &str,
        op: &str,
        histogram: &Histogram<u64>,
    ) -> Result<Self> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(histogram, &mut bytes)
            .map_err(|error| refused(run_id, &error))?;
        Ok(Self {
            run_id: run_id.to_owned(),
            tenant: tenant.to_owned(),
            op: op.to_owned(),
            class: String::new(),
            unit: "ns".to_owned(),
            sigfig: histogram.sigfig(),
            v2z: STANDARD.encode(bytes),
        })
    }

    /// The histogram in the line.
    ///
    /// # Errors
    ///
    /// The text is not base64, or its bytes are not a histogram.
    pub fn decode(&self) -> Result<Histogram<u64>> {
        let bytes = STANDARD.decode(&self.v2z).map_err(|error| refused(&self.run_id, &error))?;
        Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| refused(&self.run_id, &error))
    }
}

/// Writes `hist.jsonl`, in the order given.
///
/// # Errors
///
/// The file cannot be written; an older one of its name is still there.
pub fn write_histograms(path: &Path, rows: &[HistRow]) -> Result<()> {
    let mut file = OutputFile::create(path)?;
    for row in rows {
        file.text(&serde_json::to_string(row).map_err(|error| refused(&row.run_id, &error))?)?;
        file.text("\n")?;
    }
    file.finish()
}

/// Reads `hist.jsonl` without decoding the histograms.
///
/// # Errors
///
/// The file cannot be read, or a line is not a row: the error names it.
pub fn read_histograms(path: &Path) -> Result<Vec<HistRow>> {
    let mut rows = Vec::new();
    for_each_line(path, |_, line| {
        rows.push(serde_json::from_str(line).map_err(|error| error.to_string())?);
        Ok(())
    })?;
    Ok(rows)
}

fn refused(run_id: &str, error: &dyn core::fmt::Display) -> OutputError {
    OutputError::Histogram { run_id: run_id.to_owned(), detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_comes_back_with_all_its_counts() {
        let mut histogram = Histogram::<u64>::new(SIGFIG).unwrap();
        for n in 1..10_000_u64 {
            histogram.record(n * 997).unwrap();
        }
        let row = HistRow::encode("00ff", "", "write", &histogram).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hist.jsonl");
        write_histograms(&path, core::slice::from_ref(&row)).unwrap();
        let rows = read_histograms(&path).unwrap();
        assert_eq!(rows, vec![row]);
        assert_eq!(rows[0].decode().unwrap(), histogram);
    }

    #[test]
    fn damage_is_an_error_that_names_the_run() {
        let row =
            HistRow { run_id: "00ff".to_owned(), v2z: "HISTFAAA".to_owned(), ..HistRow::default() };
        assert!(row.decode().unwrap_err().to_string().contains("00ff"));
    }
}
