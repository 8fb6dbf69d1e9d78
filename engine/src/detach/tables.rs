//! Tables from one directory to another: by a second name of their file, or byte by byte.
//!
//! A table's bytes say nothing of where they lie, so that they are the same under another number
//! and at another offset.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::{Renamed, TablesOf};
use crate::env::{Env, File, IoClass};
use crate::error::{Error, Result};
use crate::table::{TableMeta, table_path};
use crate::types::{FileNumber, TableId, to_usize};
use crate::version::Version;

const PIECE_BYTES: u64 = 1024 * 1024;

/// Brings tables into a directory.
pub(super) struct Placer<'a, E: Env> {
    env: &'a E,
    from: &'a Path,
    to: &'a Path,
    /// Files that may be there, for whoever cleans up.
    pub(super) begun: Vec<FileNumber>,
    pub(super) linked_files: u64,
    pub(super) linked_bytes: u64,
    pub(super) copied_bytes: u64,
}

/// Where tables lie in the directory that they were brought to.
#[derive(Default)]
pub(super) struct Placed {
    pub(super) tables: Renamed,
    /// Files that hold several, with their lengths.
    pub(super) packs: Vec<(FileNumber, u64)>,
}

/// The tables of one file, by offset.
type InFile = BTreeMap<u64, Arc<TableMeta>>;

impl<'a, E: Env> Placer<'a, E> {
    pub(super) fn new(env: &'a E, (from, to): (&'a Path, &'a Path)) -> Self {
        let (begun, linked_files, linked_bytes, copied_bytes) = (Vec::new(), 0, 0, 0);
        Self { env, from, to, begun, linked_files, linked_bytes, copied_bytes }
    }

    /// Brings every table of some versions over, each once. Whoever calls this makes the names
    /// durable.
    ///
    /// # Errors
    ///
    /// `Corruption` where tables overlap or are not in their files, the world's. Files may be left.
    pub(super) async fn place<'v>(
        &mut self,
        versions: impl Iterator<Item = &'v Version>,
        mut new_number: impl FnMut() -> FileNumber,
    ) -> Result<Placed> {
        let mut files: BTreeMap<FileNumber, InFile> = BTreeMap::new();
        for table in versions.flat_map(|version| version.tables().map(|(_, table)| table)) {
            let others = files.entry(table.id.file).or_default();
            let first = others.entry(table.id.offset).or_insert_with(|| Arc::clone(table));
            if first.bytes != table.bytes {
                return Err(self.damaged(table, "two tables of different lengths begin here"));
            }
        }
        let mut out = Placed::default();
        for (file, tables) in files {
            let number = new_number();
            self.begun.push(number);
            let bytes = self.place_file((file, number), &tables, &mut out.tables).await?;
            if tables.len() > 1 {
                out.packs.push((number, bytes));
            }
        }
        Ok(out)
    }

    fn damaged(&self, table: &TableMeta, what: &str) -> Error {
        Error::corruption(&table_path(self.from, table.id.file), table.id.offset, what)
    }

    /// Brings the tables of one file over; the length of the other file.
    async fn place_file(
        &mut self,
        (file, number): (FileNumber, FileNumber),
        tables: &InFile,
        out: &mut Renamed,
    ) -> Result<u64> {
        let path = table_path(self.from, file);
        let source = self.env.open(&path).await?;
        let (mut end, mut live) = (0, 0);
        for table in tables.values() {
            let (id, ends) = (table.id, table.id.offset.saturating_add(table.bytes));
            if id.offset < end {
                return Err(self.damaged(table, "the table before it reaches into it"));
            }
            if ends > source.len() {
                return Err(self.damaged(table, "the file ends before the table does"));
            }
            let to = TableId { file: number, offset: live };
            out.insert(id, TableMeta { id: to, ..TableMeta::clone(table) });
            (end, live) = (ends, live + table.bytes);
        }
        if live == source.len() && self.link(&path, number, live).await? {
            return Ok(live);
        }
        self.copy(&source, number, tables).await?;
        self.copied_bytes += live;
        Ok(live)
    }

    /// Gives a file a second name; false where the world has none to give.
    async fn link(&mut self, path: &Path, number: FileNumber, bytes: u64) -> Result<bool> {
        match self.env.link(path, &table_path(self.to, number)).await {
            Ok(()) => {
                self.linked_files += 1;
                self.linked_bytes += bytes;
                Ok(true)
            }
            Err(Error::Io {
                kind:
                    ErrorKind::CrossesDevices
                    | ErrorKind::Unsupported
                    | ErrorKind::TooManyLinks
                    | ErrorKind::PermissionDenied,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes tables one behind the other into a file of their own, and makes it durable.
    async fn copy(&self, source: &E::File, number: FileNumber, tables: &InFile) -> Result<()> {
        let class = IoClass::Compaction;
        let file = self.env.create(&table_path(self.to, number)).await?;
        for table in tables.values() {
            let (mut at, end) = (table.id.offset, table.id.offset + table.bytes);
            while at < end {
                let piece = PIECE_BYTES.min(end - at);
                file.append(&source.read_at(at, to_usize(piece), class).await?, class).await?;
                at += piece;
            }
        }
        file.sync_all(class).await
    }
}

/// A version's tables where they were brought, with their levels.
///
/// # Errors
///
/// `InvalidArgument` for a version that was not brought over.
pub(super) fn renamed(version: &Version, placed: &Renamed) -> Result<TablesOf> {
    let missing = |t: &TableMeta| Error::InvalidArgument(format!("table {} is not placed", t.id));
    let of = |(level, table): (u32, &Arc<TableMeta>)| {
        let to = placed.get(&table.id).ok_or_else(|| missing(table))?;
        // What the manifest says of it is this tree's word.
        Ok((level, TableMeta { id: to.id, ..TableMeta::clone(table) }))
    };
    version.tables().map(of).collect()
}
