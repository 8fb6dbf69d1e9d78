//! Typed errors: each names the file, the offset or the key, and says what state is left.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::types::TreeId;

/// The result of every fallible call of the engine.
pub type Result<T> = core::result::Result<T, Error>;

/// What went wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The world refused a call on a file or directory. What the call left behind is unknown unless
    /// the method that returned it says otherwise.
    #[error("{op} {} failed{}: {detail}", path.display(), at(*offset))]
    Io {
        /// The call: `append`, `sync_data`, `rename`, ...
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Byte offset in the file, where the call has one.
        offset: Option<u64>,
        /// The class of the failure; `StorageFull` for a full disk.
        kind: io::ErrorKind,
        /// The world's own words.
        detail: String,
    },
    /// Bytes on disk that this engine did not write, or that were damaged since. Nothing was
    /// changed.
    #[error("{} is damaged at byte {offset}: {what}", file.display())]
    Corruption {
        /// The damaged file.
        file: PathBuf,
        /// Where in it the damage was noticed.
        offset: u64,
        /// What was found and what would be right.
        what: String,
    },
    /// An argument or an option out of its bounds. Nothing was changed.
    #[error("{0}")]
    InvalidArgument(String),
    /// No tenant has this name. Nothing was changed.
    #[error("tenant {0:?} does not exist")]
    UnknownTenant(String),
    /// A tenant with this name exists already. Nothing was changed.
    #[error("tenant {0:?} exists already")]
    TenantExists(String),
    /// The tenant or branch behind this handle was dropped.
    #[error("the tenant of this handle was dropped")]
    Dropped,
    /// A batch above `batch_bytes_max`. Nothing of it was written.
    #[error("the batch holds {bytes} bytes, above batch_bytes_max = {bytes_max}")]
    BatchTooLarge {
        /// What the batch would charge to the budget.
        bytes: u64,
        /// The option it exceeds.
        bytes_max: u64,
    },
    /// The database takes no writes until it is opened again; reads go on.
    #[error("the database is read-only until it is opened again: {0}")]
    ReadOnly(Arc<Error>),
    /// The disk has too little space for a write, so that flushes, compactions and drops keep
    /// enough of it. Nothing was written; reads go on, and so do writes once space is back.
    #[error("the disk is full: {free_bytes} bytes are free, writes need {needed_bytes}")]
    DiskFull {
        /// Bytes that were free when last asked.
        free_bytes: u64,
        /// Bytes that must be free for writes.
        needed_bytes: u64,
    },
    /// A background job of one tree fails for good; other trees go on.
    #[error("tree {tree} takes no writes: {cause}")]
    TreeFailed {
        /// The tree whose flush or compaction fails.
        tree: TreeId,
        /// What the job met.
        cause: Arc<Error>,
    },
    /// The task that did this request together with its own was dropped in the middle of it: the
    /// request's outcome is unknown until the next open.
    #[error("the request was interrupted: whether it was done is known at the next open")]
    Interrupted,
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// Another process holds the directory.
    #[error("{} is in use by another process", .0.display())]
    Locked(PathBuf),
}

fn at(offset: Option<u64>) -> String {
    offset.map_or_else(String::new, |o| format!(" at byte {o}"))
}

impl Error {
    /// An I/O error with the words of the operating system.
    pub fn io(op: &'static str, path: &Path, offset: Option<u64>, source: &io::Error) -> Self {
        Self::Io {
            op,
            path: path.to_owned(),
            offset,
            kind: source.kind(),
            detail: source.to_string(),
        }
    }

    /// Damage in a file at an offset.
    pub fn corruption(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corruption { file: file.to_owned(), offset, what: what.into() }
    }

    /// Whether the disk was full.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, Self::Io { kind: io::ErrorKind::StorageFull, .. } | Self::DiskFull { .. })
    }

    /// Whether a file was not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { kind: io::ErrorKind::NotFound, .. })
    }

    /// One word for machines: `io`, `corruption`, `invalid`, ...
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Corruption { .. } => "corruption",
            Self::InvalidArgument(_) => "invalid",
            Self::UnknownTenant(_) => "unknown-tenant",
            Self::TenantExists(_) => "tenant-exists",
            Self::Dropped => "dropped",
            Self::BatchTooLarge { .. } => "batch-too-large",
            Self::ReadOnly(_) => "read-only",
            Self::DiskFull { .. } => "disk-full",
            Self::TreeFailed { .. } => "tree-failed",
            Self::Interrupted => "interrupted",
            Self::Closed => "closed",
            Self::Locked(_) => "locked",
        }
    }

    /// The file and offset that the error names, through the errors that wrap one.
    pub fn location(&self) -> (Option<&Path>, Option<u64>) {
        match self {
            Self::Io { path, offset, .. } => (Some(path), *offset),
            Self::Corruption { file, offset, .. } => (Some(file), Some(*offset)),
            Self::ReadOnly(cause) | Self::TreeFailed { cause, .. } => cause.location(),
            Self::Locked(path) => (Some(path), None),
            Self::InvalidArgument(_)
            | Self::UnknownTenant(_)
            | Self::TenantExists(_)
            | Self::Dropped
            | Self::BatchTooLarge { .. }
            | Self::DiskFull { .. }
            | Self::Interrupted
            | Self::Closed => (None, None),
        }
    }
}
