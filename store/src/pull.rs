//! Into a directory: every file from its pieces, each checked, and CURRENT last.
//!
//! Until then CURRENT says that a pull is under way, so that a directory half filled is refused by
//! the engine, not opened as a database that lacks something. A pull that was interrupted may be
//! begun again in the same directory.

use std::path::Path;

use forebay_engine::env::{Env, File as _, IoClass};
use forebay_engine::types::{to_u64, to_usize};

use crate::error::{Error, Result};
use crate::format::{FileEntry, Fork, decode_files};
use crate::names::{CURRENT, FileKind, LOCK, check_fork, file_kind};
use crate::{ForkStore, Store};

/// What CURRENT holds while a pull is under way. It names no manifest.
const UNDER_WAY: &[u8] = b"a pull is under way\n";
/// Bytes of a CURRENT that names a manifest.
const CURRENT_BYTES_MAX: u64 = 64;
/// Holds the real CURRENT until it is renamed; a name that the engine removes as scrap.
const CURRENT_NEXT: &str = "000000.tmp";

/// What a pull made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulled {
    /// The fork's version.
    pub version: u64,
    /// Files of the directory.
    pub file_count: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl<S: Store> ForkStore<S> {
    /// Makes a directory out of a fork, durable when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchFork`]; [`Error::Directory`] where the directory is not empty, other than by
    /// a pull that was interrupted, or has too little space: nothing of it was changed.
    /// [`Error::Damaged`] and [`Error::Missing`] for what the store lost. [`Error::Overtaken`]
    /// where the fork was deleted or replaced, and collected, meanwhile. After any of these the
    /// directory may hold files, and the engine refuses it; another pull may take it.
    pub async fn pull<E: Env>(&self, env: &E, fork: &str, dir: &Path) -> Result<Pulled> {
        check_fork(fork)?;
        let Some(entry) = self.head().await?.catalog.forks.remove(fork) else {
            return Err(Error::NoSuchFork(fork.to_owned()));
        };
        match self.pull_version(env, (fork, &entry), dir).await {
            Err(Error::Missing(object)) => {
                // A fork that is live has all its objects.
                let found = self.head().await?.catalog.forks.remove(fork);
                if found.as_ref() == Some(&entry) {
                    Err(Error::Missing(object))
                } else {
                    Err(Error::Overtaken(format!("pulling {fork}")))
                }
            }
            other => other,
        }
    }

    async fn pull_version<E: Env>(
        &self,
        env: &E,
        (fork, entry): (&str, &Fork),
        dir: &Path,
    ) -> Result<Pulled> {
        let files = self.files(fork, entry).await?;
        let bytes = files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.bytes()));
        env.create_dir(dir).await?;
        let _lock = env.lock(&dir.join(LOCK)).await?;
        let free_bytes = env.free_bytes(dir).await?;
        if free_bytes < bytes {
            let what = format!("the fork has {bytes} bytes, and {free_bytes} are free");
            return Err(Error::directory(dir, what));
        }
        clear(env, dir).await?;
        write_file(env, &dir.join(CURRENT), UNDER_WAY).await?;
        env.sync_dir(dir).await?;
        let mut current = None;
        for file in &files {
            if file.kind == FileKind::Current {
                current = Some(self.current(file, &files).await?);
            } else {
                self.pull_file(env, file, dir).await?;
            }
        }
        env.sync_dir(dir).await?;
        write_file(env, &dir.join(CURRENT_NEXT), &current.unwrap_or_default()).await?;
        env.rename(&dir.join(CURRENT_NEXT), &dir.join(CURRENT)).await?;
        env.sync_dir(dir).await?;
        if let Some(parent) = dir.parent().filter(|parent| *parent != Path::new("")) {
            env.sync_dir(parent).await?;
        }
        Ok(Pulled { version: entry.version, file_count: to_u64(files.len()), bytes })
    }

    /// Reads a fork's manifest.
    pub(crate) async fn files(&self, fork: &str, entry: &Fork) -> Result<Vec<FileEntry>> {
        let name = entry.manifest.id.fork_name(fork);
        match self.fetch(&name, &entry.manifest).await? {
            Some(bytes) => decode_files(&name, &bytes),
            None => Err(Error::Missing(name)),
        }
    }

    async fn pull_file<E: Env>(&self, env: &E, file: &FileEntry, dir: &Path) -> Result<()> {
        let handle = env.create(&dir.join(&file.name)).await?;
        for piece in &file.pieces {
            let name = piece.id.data_name();
            let bytes = self.fetch(&name, piece).await?.ok_or(Error::Missing(name))?;
            handle.append(&bytes, IoClass::Compaction).await?;
        }
        Ok(handle.sync_all(IoClass::Compaction).await?)
    }

    /// Reads CURRENT, which must name the manifest that comes with it.
    async fn current(&self, file: &FileEntry, files: &[FileEntry]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if file.bytes() <= CURRENT_BYTES_MAX {
            for piece in &file.pieces {
                let name = piece.id.data_name();
                let part = self.fetch(&name, piece).await?.ok_or(Error::Missing(name))?;
                bytes.extend_from_slice(&part);
            }
        }
        let manifest = files.iter().find(|file| file.kind == FileKind::Manifest);
        if manifest.is_none_or(|file| format!("{}\n", file.name).as_bytes() != bytes) {
            return Err(Error::damaged(CURRENT, "it does not name the fork's MANIFEST"));
        }
        Ok(bytes)
    }
}

/// Refuses a directory that has anything but the remains of a pull, and removes those.
async fn clear<E: Env>(env: &E, dir: &Path) -> Result<()> {
    let names = env.list(dir).await?;
    // A CURRENT alone may be what a power loss left of the first file.
    if names.iter().all(|name| name == LOCK || name == CURRENT) {
        return Ok(());
    }
    let is_own = |name: &String| file_kind(name).is_some() || name == CURRENT_NEXT || name == LOCK;
    if !names.iter().all(is_own) || !is_under_way(env, dir, &names).await? {
        return Err(Error::directory(dir, "it is not empty"));
    }
    for name in names.iter().filter(|name| *name != LOCK && *name != CURRENT) {
        env.remove(&dir.join(name)).await?;
    }
    Ok(())
}

async fn is_under_way<E: Env>(env: &E, dir: &Path, names: &[String]) -> Result<bool> {
    if !names.iter().any(|name| name == CURRENT) {
        return Ok(false);
    }
    let file = env.open(&dir.join(CURRENT)).await?;
    if file.len() != to_u64(UNDER_WAY.len()) {
        return Ok(false);
    }
    let bytes = file.read_at(0, to_usize(file.len()), IoClass::Read).await?;
    Ok(bytes == UNDER_WAY)
}

async fn write_file<E: Env>(env: &E, path: &Path, bytes: &[u8]) -> Result<()> {
    let file = env.create(path).await?;
    file.append(bytes, IoClass::Manifest).await?;
    Ok(file.sync_all(IoClass::Manifest).await?)
}
