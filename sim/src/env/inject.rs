//! How an injected failure looks to the engine: the error table of the fault model, call by call.
//!
//! `EINTR` is not here: the standard library asks again by itself, so that no caller sees it. `EMLINK`,
//! `EXDEV` and the like leave what an input/output error before the effect leaves.

use std::io::ErrorKind;

use forebay_engine::error::{Error, Result};

use crate::disk::DiskError;
use crate::fault::Fault;
use crate::fault::atlas::Damage;
use crate::ledger::Did;
use crate::world::World;

/// Why an injected call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// `EIO`.
    Io,
    /// `ENOSPC`.
    Full,
    /// `EDQUOT`.
    Quota,
    /// `EROFS`.
    ReadOnly,
}

/// A call on a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameCall {
    Open,
    Create,
    CreateDir,
    Rename,
    Remove,
    Link,
    List,
    SyncDir,
}

impl NameCall {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::CreateDir => "create_dir",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::Link => "link",
            Self::List => "list",
            Self::SyncDir => "sync_dir",
        }
    }

    /// Whether it needs a filesystem that takes changes.
    pub(super) fn changes(self) -> bool {
        match self {
            Self::Open | Self::List => false,
            Self::Create
            | Self::CreateDir
            | Self::Rename
            | Self::Remove
            | Self::Link
            | Self::SyncDir => true,
        }
    }

    /// Whether it may need space in a directory.
    pub(super) fn makes_name(self) -> bool {
        match self {
            Self::Create | Self::CreateDir | Self::Rename | Self::Link => true,
            Self::Open | Self::Remove | Self::List | Self::SyncDir => false,
        }
    }
}

pub(super) fn io(
    op: &'static str,
    path: &str,
    offset: Option<u64>,
    what: (ErrorKind, &str),
) -> Error {
    let (kind, detail) = what;
    Error::Io { op, path: path.into(), offset, kind, detail: detail.to_owned() }
}

pub(super) fn killed(op: &'static str, path: &str) -> Error {
    io(op, path, None, (ErrorKind::NotConnected, "the process was killed"))
}

pub(super) fn failed(op: &'static str, path: &str, offset: Option<u64>, why: Failure) -> Error {
    let what = match why {
        Failure::Io => (ErrorKind::Other, "input/output error (injected)"),
        Failure::Full => (ErrorKind::StorageFull, "no space left on device (injected)"),
        Failure::Quota => (ErrorKind::QuotaExceeded, "disk quota exceeded (injected)"),
        Failure::ReadOnly => {
            (ErrorKind::ReadOnlyFilesystem, "read-only file system (after an injected error)")
        }
    };
    io(op, path, offset, what)
}

pub(super) fn eio(op: &'static str, path: &str, offset: Option<u64>) -> Error {
    failed(op, path, offset, Failure::Io)
}

impl World {
    /// The engine's error for a disk's refusal.
    pub(super) fn refused(
        &self,
        op: &'static str,
        path: &str,
        offset: Option<u64>,
        why: DiskError,
    ) -> Error {
        let what = match why {
            DiskError::NotFound => (ErrorKind::NotFound, "no such file or directory"),
            DiskError::Exists => (ErrorKind::AlreadyExists, "the name is taken"),
            DiskError::Eof => (ErrorKind::UnexpectedEof, "the file ends before"),
            DiskError::Full => {
                self.note(Fault::Enospc, path, offset);
                (ErrorKind::StorageFull, "no space left on device")
            }
        };
        io(op, path, offset, what)
    }

    pub(super) fn emfile(&self, op: &'static str, path: &str) -> Result<()> {
        if self.fires(Fault::Emfile, path, None) {
            self.ledger.borrow_mut().name_call(op);
            return Err(io(op, path, None, (ErrorKind::Other, "too many open files (injected)")));
        }
        Ok(())
    }

    /// After a call on a name: may crash, and reports the error of a call that took effect.
    pub(super) async fn leave(
        &self,
        op: &'static str,
        path: &str,
        fails: Option<Failure>,
    ) -> Result<()> {
        if self.fuzz {
            self.crash_point().await;
        }
        if let Some(why) = fails {
            return Err(failed(op, path, None, why));
        }
        let did = match op {
            "sync_data" | "sync_all" => Did::Sync,
            "set_len" => Did::Resize,
            name => Did::Name(name),
        };
        self.ledger.borrow_mut().did(did, path);
        Ok(())
    }

    /// After a change failed: the filesystem may take no more of them.
    pub(super) fn remount_after_error(&self, path: &str) {
        if self.fires(Fault::RemountReadOnly, path, None) {
            self.faults.borrow_mut().set_read_only(true);
        }
    }

    /// Records that a fault which fired took these bytes.
    pub(super) fn hits(&self, fault: Fault, path: &str, bytes: (u64, u64)) {
        self.faults.borrow_mut().damage(Damage { fault, path: path.to_owned(), bytes });
    }

    /// As [`fires`](World::fires), for a fault that damages these bytes of a file.
    pub(super) fn damages(&self, fault: Fault, path: &str, bytes: (u64, u64)) -> bool {
        let fires = self.fires(fault, path, Some(bytes.0));
        if fires {
            self.hits(fault, path, bytes);
        }
        fires
    }
}
