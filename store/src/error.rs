//! What can go wrong between a directory and an object store, by what the caller can do about it.

use std::path::PathBuf;

/// The result of a call of this crate.
pub type Result<T> = core::result::Result<T, Error>;

/// A failure. Unless a variant says otherwise no fork was changed; objects that nobody names may
/// be left in the store, and the next collection removes them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store refused a call. Whether it was carried out is unknown.
    #[error("{op} of {object} failed: {detail}")]
    Store {
        /// The call: `put`, `get`, `list`, `delete`.
        op: &'static str,
        /// The object, or the prefix of a listing.
        object: String,
        /// The store's own words.
        detail: String,
    },
    /// The directory's side failed.
    #[error(transparent)]
    Engine(#[from] forebay_engine::Error),
    /// A fork's name that would not be a plain name.
    #[error("{name:?} is no name of a fork: {what}")]
    InvalidName {
        /// The name as given.
        name: String,
        /// The rule that it breaks.
        what: &'static str,
    },
    /// The fork was to be new, but there is one.
    #[error("fork {fork} exists already, at version {version}")]
    ForkExists {
        /// Its name.
        fork: String,
        /// Its version.
        version: u64,
    },
    /// No fork has this name.
    #[error("fork {0} does not exist")]
    NoSuchFork(String),
    /// Another writer changed the fork first.
    #[error("fork {fork} is not at version {expected}: {}", at(*found))]
    Conflict {
        /// Its name.
        fork: String,
        /// The version that was to be replaced or deleted.
        expected: u64,
        /// What is there instead, nothing where it was deleted.
        found: Option<u64>,
    },
    /// The caller stalled while the catalog moved on. A push or a deletion may have held for a
    /// while and been undone by others since; it does not hold at present. A collection deleted
    /// nothing.
    #[error("{0} was overtaken by later changes of the catalog")]
    Overtaken(String),
    /// Others were faster in every one of many attempts.
    #[error("{what} gave up after {attempts} attempts, each overtaken by another writer")]
    Contended {
        /// The call.
        what: String,
        /// How often it tried.
        attempts: u32,
    },
    /// An object that this crate did not write, or that was damaged since.
    #[error("object {object} is damaged: {what}")]
    Damaged {
        /// Its name.
        object: String,
        /// What was found.
        what: String,
    },
    /// An object that a fork names is not there.
    #[error("object {0} is missing although a fork needs it")]
    Missing(String),
    /// Above a bound of this crate.
    #[error("{what}: {count}, above the limit of {count_max}")]
    TooLarge {
        /// What was counted.
        what: String,
        /// How much there is.
        count: u64,
        /// The limit.
        count_max: u64,
    },
    /// The directory is not one that can be carried, or not one to pull into.
    #[error("{}: {what}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What is in the way.
        what: String,
    },
}

fn at(found: Option<u64>) -> String {
    found.map_or_else(|| "it was deleted".to_owned(), |version| format!("it is at {version}"))
}

impl Error {
    pub(crate) fn damaged(object: &str, what: impl Into<String>) -> Self {
        Self::Damaged { object: object.to_owned(), what: what.into() }
    }

    pub(crate) fn directory(dir: &std::path::Path, what: impl Into<String>) -> Self {
        Self::Directory { dir: dir.to_owned(), what: what.into() }
    }
}
