//! What the objects hold: the catalog and a fork's manifest as JSON, the index as sorted records.
//!
//! Everything is checked when it is read, against bounds first: a store that lies costs an error,
//! never memory, and no name out of it reaches a directory unchecked.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use forebay_engine::types::to_u64;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::names::{FileKind, Hash, NUMBER_MAX, ObjectId, check_fork, file_kind};

/// Bytes of a catalog or a fork's manifest.
pub(crate) const TEXT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of a piece, and so of what is held in memory of a file.
pub(crate) const PIECE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Pieces that all forks may name together.
pub(crate) const INDEX_COUNT_MAX: usize = 1 << 20;
/// Bytes of an object's hash and generation in the index.
const RECORD_BYTES: usize = 40;
const MAGIC: &str = "forebay-store 1 catalog ";

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) id: ObjectId,
    pub(crate) bytes: u64,
}

/// A fork at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fork {
    /// The number of the catalog that introduced it.
    pub(crate) version: u64,
    /// Who wrote it, so that two pushes of the same content are told apart.
    pub(crate) by: String,
    /// The object below `forks/`.
    pub(crate) manifest: Piece,
}

/// One state of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalog {
    pub(crate) number: u64,
    /// The hash of the catalog before it; zeros before the first.
    pub(crate) parent: Option<Hash>,
    pub(crate) by: String,
    /// Objects of a generation below it may have been deleted unless the index names them.
    pub(crate) boundary: u64,
    /// Of objects put from here on: the number of the last collection.
    pub(crate) generation: u64,
    /// The objects that the forks named at the last collection.
    pub(crate) index: Vec<Piece>,
    pub(crate) forks: BTreeMap<String, Fork>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PieceText {
    sha256: String,
    generation: u64,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForkText {
    version: u64,
    by: String,
    manifest: PieceText,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogText {
    number: u64,
    parent: String,
    by: String,
    boundary: u64,
    generation: u64,
    index: Vec<PieceText>,
    forks: BTreeMap<String, ForkText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    name: String,
    pieces: Vec<PieceText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestText {
    files: Vec<FileText>,
}

impl PieceText {
    fn of(piece: &Piece) -> Self {
        let Piece { id, bytes } = piece;
        Self { sha256: id.hash.to_string(), generation: id.generation, bytes: *bytes }
    }

    fn read(&self, bytes_max: u64) -> core::result::Result<Piece, String> {
        let hash = Hash::parse(&self.sha256).ok_or("a hash is not 64 digits")?;
        if self.generation > NUMBER_MAX {
            return Err(format!("generation {} is out of range", self.generation));
        }
        if self.bytes == 0 || self.bytes > bytes_max {
            return Err(format!("a piece of {} bytes is out of range", self.bytes));
        }
        Ok(Piece { id: ObjectId { hash, generation: self.generation }, bytes: self.bytes })
    }
}

fn bounded(what: &str, text: Vec<u8>) -> Result<Bytes> {
    let count = to_u64(text.len());
    if count > TEXT_BYTES_MAX {
        let what = format!("bytes of {what}");
        return Err(Error::TooLarge { what, count, count_max: TEXT_BYTES_MAX });
    }
    Ok(text.into())
}

fn unwritable(what: &str, cause: &serde_json::Error) -> Error {
    Error::damaged(what, format!("it cannot be written: {cause}"))
}

impl Catalog {
    /// Its text, behind a line with the text's hash.
    pub(crate) fn encode(&self) -> Result<Bytes> {
        let forks = self.forks.iter().map(|(name, fork)| {
            let manifest = PieceText::of(&fork.manifest);
            (name.clone(), ForkText { version: fork.version, by: fork.by.clone(), manifest })
        });
        let text = CatalogText {
            number: self.number,
            parent: self.parent.unwrap_or(Hash::ZERO).to_string(),
            by: self.by.clone(),
            boundary: self.boundary,
            generation: self.generation,
            index: self.index.iter().map(PieceText::of).collect(),
            forks: forks.collect(),
        };
        let body = serde_json::to_vec(&text).map_err(|e| unwritable("catalog", &e))?;
        let mut sealed = format!("{MAGIC}{}\n", Hash::of(&body)).into_bytes();
        sealed.extend_from_slice(&body);
        bounded("the catalog", sealed)
    }

    /// Reads the catalog of one number.
    pub(crate) fn decode(object: &str, number: u64, bytes: &[u8]) -> Result<Self> {
        let bad = |what: String| Error::damaged(object, what);
        let mut parts = bytes.splitn(2, |b| *b == b'\n');
        let (seal, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if seal != format!("{MAGIC}{}", Hash::of(body)).as_bytes() {
            return Err(bad("its first line is not that of its content".to_owned()));
        }
        let text: CatalogText = serde_json::from_slice(body).map_err(|e| bad(e.to_string()))?;
        let catalog = text.read().map_err(bad)?;
        if catalog.number != number {
            return Err(bad(format!("it says that it is number {}", catalog.number)));
        }
        Ok(catalog)
    }
}

impl CatalogText {
    fn read(self) -> core::result::Result<Catalog, String> {
        let (number, boundary, generation) = (self.number, self.boundary, self.generation);
        if boundary > generation || generation > number || number > NUMBER_MAX {
            return Err("boundary, generation and number are not in this order".to_owned());
        }
        let parent = Hash::parse(&self.parent).ok_or("its parent is no hash")?;
        let mut forks = BTreeMap::new();
        for (name, fork) in self.forks {
            check_fork(&name).map_err(|e| e.to_string())?;
            if fork.version == 0 || fork.version > number {
                return Err(format!("fork {name} has version {}", fork.version));
            }
            let manifest = fork.manifest.read(TEXT_BYTES_MAX)?;
            forks.insert(name, Fork { version: fork.version, by: fork.by, manifest });
        }
        let index = self.index.iter().map(|piece| piece.read(PIECE_BYTES_MAX));
        let index = index.collect::<core::result::Result<_, _>>()?;
        let parent = Some(parent);
        Ok(Catalog { number, parent, by: self.by, boundary, generation, index, forks })
    }
}

/// A file of a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileEntry {
    pub(crate) name: String,
    pub(crate) kind: FileKind,
    pub(crate) pieces: Vec<Piece>,
}

impl FileEntry {
    /// The file's length; the sum cannot overflow, as text of bounded length lists its pieces.
    pub(crate) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).sum()
    }
}

/// Writes a fork's manifest.
pub(crate) fn encode_files(files: &[FileEntry]) -> Result<Bytes> {
    let files = files.iter().map(|file| FileText {
        name: file.name.clone(),
        pieces: file.pieces.iter().map(PieceText::of).collect(),
    });
    let text = ManifestText { files: files.collect() };
    bounded("a fork's manifest", serde_json::to_vec(&text).map_err(|e| unwritable("fork", &e))?)
}

/// Reads a fork's manifest.
pub(crate) fn decode_files(object: &str, bytes: &[u8]) -> Result<Vec<FileEntry>> {
    let bad = |what: String| Error::damaged(object, what);
    let text: ManifestText = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
    let (mut files, mut names) = (Vec::new(), BTreeSet::new());
    for FileText { name, pieces } in text.files {
        let kind = file_kind(&name).ok_or_else(|| bad(format!("{name:?} is no database file")))?;
        let pieces = pieces.iter().map(|piece| piece.read(PIECE_BYTES_MAX));
        let pieces = pieces.collect::<core::result::Result<_, _>>().map_err(bad)?;
        if !names.insert(name.clone()) {
            return Err(bad(format!("{name} is in it twice")));
        }
        files.push(FileEntry { name, kind, pieces });
    }
    let count = |kind| files.iter().filter(|file| file.kind == kind).count();
    if count(FileKind::Current) != 1 || count(FileKind::Manifest) != 1 {
        return Err(bad("it has not one CURRENT and one MANIFEST".to_owned()));
    }
    Ok(files)
}

/// Objects that no collection up to the catalog that names this index deletes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index(Vec<ObjectId>);

impl Index {
    pub(crate) fn new(ids: &BTreeSet<ObjectId>) -> Result<Self> {
        if ids.len() > INDEX_COUNT_MAX {
            return Err(Error::TooLarge {
                what: "objects of all forks".to_owned(),
                count: to_u64(ids.len()),
                count_max: to_u64(INDEX_COUNT_MAX),
            });
        }
        Ok(Self(ids.iter().copied().collect()))
    }

    pub(crate) fn contains(&self, id: ObjectId) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    /// The newest object with this content.
    pub(crate) fn find(&self, hash: Hash) -> Option<ObjectId> {
        let end = self.0.partition_point(|id| id.hash <= hash);
        self.0.get(end.checked_sub(1)?).copied().filter(|id| id.hash == hash)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.0.len() * RECORD_BYTES);
        for id in &self.0 {
            bytes.extend_from_slice(&id.hash.0);
            bytes.extend_from_slice(&id.generation.to_le_bytes());
        }
        bytes.into()
    }

    pub(crate) fn decode(object: &str, bytes: &[u8]) -> Result<Self> {
        let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
        let ids = records.iter().map(|record| {
            let (hash, generation) = record.split_first_chunk::<32>()?;
            let generation = u64::from_le_bytes(generation.try_into().ok()?);
            (generation <= NUMBER_MAX).then_some(ObjectId { hash: Hash(*hash), generation })
        });
        let ids = ids.collect::<Option<Vec<_>>>().unwrap_or_default();
        if ids.len() != records.len() || !rest.is_empty() || !ids.is_sorted_by(|a, b| a < b) {
            return Err(Error::damaged(object, "the index is not a sorted list of objects"));
        }
        Ok(Self(ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(content: &[u8], generation: u64) -> Piece {
        let id = ObjectId { hash: Hash::of(content), generation };
        Piece { id, bytes: to_u64(content.len()) }
    }

    fn catalog() -> Catalog {
        let fork = Fork { version: 3, by: "1-2".to_owned(), manifest: piece(b"m", 2) };
        Catalog {
            number: 3,
            parent: Some(Hash::of(b"p")),
            by: "1-2".to_owned(),
            boundary: 1,
            generation: 2,
            index: vec![piece(b"i", 1)],
            forks: [("f".to_owned(), fork)].into(),
        }
    }

    #[test]
    fn a_catalog_reads_back_and_no_flipped_bit_passes() {
        let bytes = catalog().encode().unwrap();
        assert_eq!(Catalog::decode("c", 3, &bytes).unwrap(), catalog());
        assert!(Catalog::decode("c", 4, &bytes).is_err());
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            assert!(Catalog::decode("c", 3, &flipped).is_err(), "byte {at}");
            assert!(Catalog::decode("c", 3, &bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_sealed_catalog_is_still_checked_field_by_field() {
        let body = |from: &str, to: &str| {
            let bytes = catalog().encode().unwrap();
            let text = core::str::from_utf8(&bytes).unwrap();
            let (_, body) = text.split_once('\n').unwrap();
            let changed = body.replacen(from, to, 1);
            assert!(from == to || changed != body, "{from}");
            format!("{MAGIC}{}\n{changed}", Hash::of(changed.as_bytes()))
        };
        assert!(Catalog::decode("c", 3, body("f", "f").as_bytes()).is_ok());
        for (from, to) in [
            ("\"f\":", "\"../f\":"),
            ("\"version\":3", "\"version\":4"),
            ("\"boundary\":1", "\"boundary\":9"),
            ("\"bytes\":1", "\"bytes\":99999999999"),
            ("\"bytes\":1", "\"bytes\":-1"),
            ("\"sha256\":\"", "\"sha256\":\"z"),
            ("\"by\"", "\"bye\""),
        ] {
            assert!(Catalog::decode("c", 3, body(from, to).as_bytes()).is_err(), "{to}");
        }
    }

    #[test]
    fn a_forks_manifest_names_database_files_only_and_each_once() {
        let file = |name: &str| format!("{{\"name\":\"{name}\",\"pieces\":[]}}");
        let decode = |names: &[&str]| {
            let files: Vec<String> = names.iter().map(|name| file(name)).collect();
            decode_files("o", format!("{{\"files\":[{}]}}", files.join(",")).as_bytes())
        };
        assert_eq!(decode(&["CURRENT", "MANIFEST-000001", "000002.sst"]).unwrap().len(), 3);
        assert!(decode(&["CURRENT", "MANIFEST-000001", "../000002.sst"]).is_err());
        assert!(decode(&["CURRENT", "MANIFEST-000001", "MANIFEST-000002"]).is_err());
        assert!(decode(&["CURRENT", "CURRENT", "MANIFEST-000001"]).is_err());
        assert!(decode(&["MANIFEST-000001"]).is_err());
        let deep = "[".repeat(100_000);
        assert!(decode_files("o", deep.as_bytes()).is_err());
    }

    #[test]
    fn an_index_finds_the_newest_object_of_a_content() {
        let ids = [piece(b"a", 1).id, piece(b"a", 4).id, piece(b"b", 2).id];
        let index = Index::new(&ids.into()).unwrap();
        assert_eq!(index.find(Hash::of(b"a")), Some(ids[1]));
        assert_eq!(index.find(Hash::of(b"c")), None);
        let bytes = index.encode();
        let again = Index::decode("o", &bytes).unwrap();
        assert!(ids.iter().all(|id| again.contains(*id)));
        assert!(Index::decode("o", &bytes[1..]).is_err());
        assert!(Index::decode("o", &[&bytes[..], &bytes[..]].concat()).is_err());
    }
}
