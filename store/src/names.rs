//! Names: of forks, of a database's files, of objects. Nothing that a user or a store says becomes
//! a path before it went through here.
//!
//! | object | holds |
//! |---|---|
//! | `catalog/NNNNNNNNNNNN` | one state of everything: which forks there are |
//! | `forks/FORK/SHA256-GENERATION` | a fork's manifest: its files by their pieces |
//! | `data/H/SHA256-GENERATION` | a piece of a file; H is the first digit of its hash |

use core::fmt;
use core::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Numbers in names have twelve digits.
pub(crate) const NUMBER_MAX: u64 = 999_999_999_999;
const FORK_BYTES_MAX: usize = 200;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The name of the file that names the live manifest.
pub(crate) const CURRENT: &str = "CURRENT";
/// The lock file of a database.
pub(crate) const LOCK: &str = "LOCK";

/// A SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hash(pub(crate) [u8; 32]);

impl Hash {
    pub(crate) const ZERO: Self = Self([0; 32]);

    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 lower-case digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            for digit in pair {
                let value = DIGITS.iter().position(|d| d == digit)?;
                *byte = (*byte << 4) | u8::try_from(value).ok()?;
            }
        }
        Some(Self(hash))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An object by its content and the generation in which it was first put. A name that a collection
/// condemned belongs to a past generation, so no later push puts it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectId {
    pub(crate) hash: Hash,
    pub(crate) generation: u64,
}

impl ObjectId {
    pub(crate) fn data_name(self) -> String {
        let mut name = self.hash.to_string();
        name.truncate(1);
        format!("data/{name}/{self}")
    }

    pub(crate) fn fork_name(self, fork: &str) -> String {
        format!("forks/{fork}/{self}")
    }

    fn parse(text: &str) -> Option<Self> {
        let (hash, generation) = text.split_once('-')?;
        Some(Self { hash: Hash::parse(hash)?, generation: parse_number(generation)? })
    }

    /// The object of a name in `data/`.
    pub(crate) fn of_data_name(name: &str) -> Option<Self> {
        let id = Self::parse(name.rsplit('/').next()?)?;
        (id.data_name() == name).then_some(id)
    }

    /// The fork and the object of a name in `forks/`.
    pub(crate) fn of_fork_name(name: &str) -> Option<(&str, Self)> {
        let (fork, id) = name.strip_prefix("forks/")?.split_once('/')?;
        let id = Self::parse(id)?;
        (check_fork(fork).is_ok() && id.fork_name(fork) == name).then_some((fork, id))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hash.fmt(f)?;
        f.write_char('-')?;
        write!(f, "{:012}", self.generation)
    }
}

/// The prefixes below `data/`, so that no listing of the collector's holds all pieces.
pub(crate) fn data_prefixes() -> impl Iterator<Item = String> {
    DIGITS.iter().map(|digit| format!("data/{}", char::from(*digit)))
}

pub(crate) fn catalog_name(number: u64) -> String {
    format!("catalog/{number:012}")
}

pub(crate) fn of_catalog_name(name: &str) -> Option<u64> {
    parse_number(name.strip_prefix("catalog/")?)
}

fn parse_number(text: &str) -> Option<u64> {
    (text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Refuses a fork's name that is not a plain name: 1 to 200 letters, digits and `._@-`, the first a
/// letter or a digit.
pub(crate) fn check_fork(name: &str) -> Result<()> {
    let bad = |what| Err(Error::InvalidName { name: name.to_owned(), what });
    if name.is_empty() || name.len() > FORK_BYTES_MAX {
        return bad("it must have 1 to 200 bytes");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b)) {
        return bad("only letters, digits and ._@- may be in it");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return bad("it must begin with a letter or a digit");
    }
    Ok(())
}

/// What a file of a database directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Current,
    Manifest,
    Table,
    Segment,
}

/// Recognises the files that make a database, by the names that the engine gives.
pub(crate) fn file_kind(name: &str) -> Option<FileKind> {
    if name == CURRENT {
        return Some(FileKind::Current);
    }
    let (number, kind) = match name.strip_prefix("MANIFEST-") {
        Some(number) => (number, FileKind::Manifest),
        None => match name.split_once('.')? {
            (number, "sst") => (number, FileKind::Table),
            (number, "wal") => (number, FileKind::Segment),
            _ => return None,
        },
    };
    let parsed: u64 = number.parse().ok()?;
    (format!("{parsed:06}") == number).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back_and_only_in_one_spelling() {
        let hash = Hash::of(b"x");
        let text = hash.to_string();
        assert_eq!(Hash::parse(&text), Some(hash));
        assert_eq!(Hash::parse(&text.to_uppercase()), None);
        assert_eq!(Hash::parse(&format!("{text}0")), None);
    }

    #[test]
    fn names_of_objects_read_back_and_no_other_name_does() {
        let id = ObjectId { hash: Hash::of(b"x"), generation: 12 };
        assert_eq!(ObjectId::of_data_name(&id.data_name()), Some(id));
        assert_eq!(ObjectId::of_fork_name(&id.fork_name("a@b")), Some(("a@b", id)));
        let wrong_digit = id.data_name().replacen("data/2", "data/3", 1);
        assert_ne!(wrong_digit, id.data_name());
        assert_eq!(ObjectId::of_data_name(&wrong_digit), None);
        assert_eq!(ObjectId::of_fork_name(&format!("forks/a/b/{id}")), None);
        assert_eq!(of_catalog_name(&catalog_name(7)), Some(7));
        assert_eq!(of_catalog_name("catalog/7"), None);
        assert_eq!(of_catalog_name("catalog/+00000000007"), None);
    }

    #[test]
    fn a_forks_name_is_never_a_path() {
        for name in ["a", "alice@main", "A-1_2.3"] {
            assert!(check_fork(name).is_ok(), "{name}");
        }
        let long = "a".repeat(201);
        for name in ["", ".", "..", "a/b", "/a", "a\\b", "-a", "@a", "\u{e9}", "a b", "a\n", &long]
        {
            assert!(check_fork(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn only_the_engines_own_spelling_is_a_file_of_a_database() {
        assert_eq!(file_kind("CURRENT"), Some(FileKind::Current));
        assert_eq!(file_kind("MANIFEST-000001"), Some(FileKind::Manifest));
        assert_eq!(file_kind("000004.sst"), Some(FileKind::Table));
        assert_eq!(file_kind("1000000.wal"), Some(FileKind::Segment));
        for name in ["LOCK", "4.sst", "+00004.sst", "000004.tmp", "../000004.sst", "0000004.sst"] {
            assert_eq!(file_kind(name), None, "{name}");
        }
    }
}
