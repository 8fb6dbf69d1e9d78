//! `forebay inspect DIR --table FILE`: one file of tables, without a manifest.

use std::io::{self, Write};
use std::path::Path;

use forebay_engine::Error;
use forebay_engine::env::os::OsEnv;
use forebay_engine::env::{BlockingEnv as _, Env as _};
use forebay_engine::inspect::table::{TableDump, tables};
use forebay_engine::table::table_path;
use forebay_engine::types::{FileNumber, to_u64};
use serde::Serialize;

use super::failure::{Failure, Text};
use super::inspect::section;
use super::{complain, print_report};
use crate::number::thousands;

#[derive(Serialize)]
struct Block {
    offset: u64,
    bytes: u64,
    last_key: Text,
}

#[derive(Serialize)]
struct Table {
    file: String,
    offset: u64,
    bytes: u64,
    tree: u64,
    entries: u64,
    tombstones: u64,
    data_bytes: u64,
    index_bytes: u64,
    filter_bytes: u64,
    key_bytes: u64,
    value_bytes: u64,
    compression: String,
    prefix_extractor: String,
    smallest: Text,
    largest: Text,
    min_seq: u64,
    max_seq: u64,
    blocks: Vec<Block>,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    tables: Vec<Table>,
    errors: Vec<Failure>,
}

fn number_of(file: &str) -> Option<FileNumber> {
    file.strip_suffix(".sst").unwrap_or(file).parse().ok()
}

fn table(file: &str, dump: &TableDump) -> Table {
    let (meta, sizes) = (&dump.properties.meta, &dump.properties.sizes);
    let block = |b: &forebay_engine::inspect::table::BlockReport| Block {
        offset: b.offset,
        bytes: b.bytes,
        last_key: Text(b.last_key.clone()),
    };
    Table {
        file: file.to_owned(),
        offset: meta.id.offset,
        bytes: meta.bytes,
        tree: meta.tree.0,
        entries: meta.entries,
        tombstones: meta.tombstones,
        data_bytes: sizes.data_bytes,
        index_bytes: sizes.index_bytes,
        filter_bytes: sizes.filter_bytes,
        key_bytes: sizes.key_bytes,
        value_bytes: sizes.value_bytes,
        compression: dump.properties.compression.to_string(),
        prefix_extractor: dump.properties.extractor.clone(),
        smallest: Text(meta.smallest.clone()),
        largest: Text(meta.largest.clone()),
        min_seq: meta.min_seq,
        max_seq: meta.max_seq,
        blocks: dump.blocks.iter().map(block).collect(),
    }
}

/// Prints the file and returns the exit code.
pub(super) fn run(dir: &Path, file: &str, json: bool) -> u8 {
    let path = number_of(file).map(|number| (number, table_path(dir, number)));
    let there = |path: &Path| OsEnv.block_on(OsEnv.open(path)).map(drop);
    let (number, path) = match path.ok_or_else(|| format!("--table: {file} is not NNNNNN.sst")) {
        Ok((number, path)) => match there(&path) {
            Ok(()) => (number, path),
            Err(error) => {
                complain(&format!("error: {error}"));
                return super::EXIT_USAGE;
            }
        },
        Err(what) => {
            complain(&format!("error: {what}"));
            return super::EXIT_USAGE;
        }
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (dumps, damage) = OsEnv.block_on(tables(&OsEnv, dir, number));
    let errors: Vec<&Error> = dumps.iter().flat_map(|d| &d.errors).chain(&damage).collect();
    let report = Report {
        schema: "forebay.inspect-table/1",
        tables: dumps.iter().map(|dump| table(&name, dump)).collect(),
        errors: errors.iter().map(|error| Failure::from(*error)).collect(),
    };
    print_report(&report, json, show);
    for error in &errors {
        complain(&format!("error: {error}"));
    }
    u8::from(!errors.is_empty())
}

/// A key for people: bytes that are no letters are escaped.
fn key(text: &Text) -> String {
    text.0.escape_ascii().to_string()
}

fn show(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for table in &report.tables {
        let Table { file, offset, .. } = table;
        writeln!(out, "table  {file} at byte {offset}")?;
        for (name, value) in [
            ("bytes", table.bytes),
            ("data bytes", table.data_bytes),
            ("index bytes", table.index_bytes),
            ("filter bytes", table.filter_bytes),
            ("key bytes", table.key_bytes),
            ("value bytes", table.value_bytes),
            ("tree", table.tree),
            ("entries", table.entries),
            ("tombstones", table.tombstones),
            ("smallest seq", table.min_seq),
            ("largest seq", table.max_seq),
            ("blocks", to_u64(table.blocks.len())),
        ] {
            writeln!(out, "  {name:<13} {:>14}", thousands(value))?;
        }
        let extractor = match table.prefix_extractor.as_str() {
            "" => "none",
            name => name,
        };
        writeln!(out, "  {:<13} {:>14}", "compression", table.compression)?;
        writeln!(out, "  {:<13} {extractor:>14}", "extractor")?;
        for (name, text) in [("smallest key", &table.smallest), ("largest key", &table.largest)] {
            let line: String = format!("  {name:<13} {}", key(text)).chars().take(100).collect();
            writeln!(out, "{line}")?;
        }
        section(out, ("blocks", "      offset        bytes  last key"), &table.blocks, |b| {
            format!("{:>12} {:>12}  {}", thousands(b.offset), thousands(b.bytes), key(&b.last_key))
        })?;
    }
    Ok(())
}
