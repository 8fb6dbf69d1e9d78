//! Files that hold several tables, and how much of each is live.
//!
//! A table joins its file's when it is written and leaves when nothing reaches it any more: no
//! version, no scan, no job. The file goes with its last table. None of that is stored: an open
//! derives it from the versions. Only a file's length is in the manifest, since what is left of a
//! file does not tell how much of it is dead.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::Version;
use crate::table::TableMeta;
use crate::types::FileNumber;

#[derive(Debug, Default)]
struct Pack {
    /// Length of the file, as far as it is known.
    bytes: u64,
    live_bytes: u64,
    /// The length of a table by its offset.
    live: BTreeMap<u64, u64>,
}

impl Pack {
    fn is_sparse(&self) -> bool {
        self.live_bytes < self.bytes.div_ceil(2)
    }

    fn add(&mut self, table: &TableMeta) {
        if self.live.insert(table.id.offset, table.bytes).is_none() {
            self.live_bytes += table.bytes;
        }
        self.bytes = self.bytes.max(table.id.offset.saturating_add(table.bytes));
    }
}

/// What is left of a file when one of its tables is reached no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing: it can go.
    Nothing,
    /// Other tables.
    Tables,
    /// Other tables, and less than half of the file is live by this.
    Sparse,
}

/// The files that hold several tables.
#[derive(Debug, Default)]
pub struct Packs {
    files: Mutex<BTreeMap<FileNumber, Pack>>,
}

impl Packs {
    /// A file with several tables was written. It is known before any edit names it, so that no
    /// table can leave it before.
    pub fn add<'a>(
        &self,
        file: FileNumber,
        bytes: u64,
        tables: impl IntoIterator<Item = &'a TableMeta>,
    ) {
        let mut files = self.files.lock();
        let pack = files.entry(file).or_default();
        pack.bytes = pack.bytes.max(bytes);
        for table in tables {
            pack.add(table);
        }
    }

    /// A file of which no edit may name a table.
    pub fn forget(&self, file: FileNumber) {
        self.files.lock().remove(&file);
    }

    /// Finds the tables of an open's versions. A file counts as one of several tables where a live
    /// table of it is not the whole of it.
    pub fn find<'a>(&self, versions: impl Iterator<Item = &'a Version>) {
        let mut files = self.files.lock();
        let mut singles: BTreeMap<FileNumber, &TableMeta> = BTreeMap::new();
        for table in versions.flat_map(|v| v.tables().map(|(_, t)| t)) {
            let file = table.id.file;
            let first = singles.get(&file).filter(|first| first.id != table.id).copied();
            if table.id.offset == 0 && first.is_none() && !files.contains_key(&file) {
                singles.insert(file, table);
                continue;
            }
            let pack = files.entry(file).or_default();
            pack.add(table);
            if let Some(first) = first {
                pack.add(first);
            }
        }
        files.retain(|_, pack| !pack.live.is_empty());
    }

    /// Nothing reaches a table any more.
    pub fn release(&self, table: &TableMeta) -> Left {
        let mut files = self.files.lock();
        let Some(pack) = files.get_mut(&table.id.file) else { return Left::Nothing };
        let was_sparse = pack.is_sparse();
        if let Some(bytes) = pack.live.remove(&table.id.offset) {
            pack.live_bytes = pack.live_bytes.saturating_sub(bytes);
        }
        if pack.live.is_empty() {
            files.remove(&table.id.file);
            return Left::Nothing;
        }
        if was_sparse || !pack.is_sparse() { Left::Tables } else { Left::Sparse }
    }

    /// Whether a file holds several tables and less than half of it is live.
    pub fn is_sparse(&self, file: FileNumber) -> bool {
        self.files.lock().get(&file).is_some_and(Pack::is_sparse)
    }

    /// The length of each file that holds several tables.
    pub fn lengths(&self) -> Vec<(FileNumber, u64)> {
        self.files.lock().iter().map(|(file, pack)| (*file, pack.bytes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::TableId;

    fn table(file: FileNumber, offset: u64, bytes: u64) -> TableMeta {
        let id = TableId { file, offset };
        TableMeta { id, bytes, ..TableMeta::default() }
    }

    #[test]
    fn a_file_goes_with_its_last_table_and_tells_once_when_it_is_sparse() {
        let packs = Packs::default();
        let tables = [table(7, 0, 10), table(7, 10, 10), table(7, 20, 10), table(7, 30, 10)];
        packs.add(7, 40, &tables);
        assert_eq!(packs.release(&tables[0]), Left::Tables);
        // One half exactly is not below one half.
        assert_eq!(packs.release(&tables[3]), Left::Tables);
        assert!(!packs.is_sparse(7));
        assert_eq!(packs.release(&tables[1]), Left::Sparse);
        assert!(packs.is_sparse(7));
        assert_eq!(packs.release(&tables[2]), Left::Nothing);
        assert_eq!(packs.lengths(), []);
        // A file of one table is not known here.
        assert_eq!(packs.release(&table(8, 0, 5)), Left::Nothing);
    }

    #[test]
    fn an_open_finds_what_is_left_of_each_file() {
        let version = |tables: &[TableMeta]| {
            let tables: Vec<_> = tables.iter().map(|t| (0, Arc::new(t.clone()))).collect();
            Version::default().with_compacted(&[], &tables)
        };
        let versions = [
            version(&[table(1, 0, 10), table(2, 10, 10), table(3, 0, 10)]),
            version(&[table(3, 10, 10), table(4, 0, 10)]),
        ];
        let packs = Packs::default();
        packs.add(4, 100, []);
        packs.add(5, 100, []);
        packs.find(versions.iter());
        assert_eq!(packs.lengths(), [(2, 20), (3, 20), (4, 100)]);
        assert!(packs.is_sparse(4) && !packs.is_sparse(2) && !packs.is_sparse(3));
        assert_eq!(packs.release(&table(3, 10, 10)), Left::Tables);
        assert_eq!(packs.release(&table(3, 0, 10)), Left::Nothing);
    }
}
