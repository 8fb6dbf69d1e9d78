//! Out of a directory: pieces that the store lacks, the fork's manifest, and the catalog last.

use std::path::Path;

use bytes::Bytes;
use forebay_engine::env::{Env, File as _, IoClass};
use forebay_engine::types::{to_u64, to_usize};
use forebay_engine::version::manifest::{manifest_path, read_current};

use crate::catalog::{Committed, Head, next_number};
use crate::error::{Error, Result};
use crate::format::{FileEntry, Fork, Index, Piece, encode_files};
use crate::names::{FileKind, Hash, LOCK, ObjectId, check_fork, file_kind};
use crate::{Flaw, ForkStore, Store};

/// What must be true of a fork for a push to take its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is none of this name.
    Absent,
    /// It is at this version.
    Version(u64),
}

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// The fork's version.
    pub version: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Pieces that were put.
    pub put_count: u64,
    /// Bytes of them.
    pub put_bytes: u64,
    /// Pieces that were in the store already.
    pub shared_count: u64,
}

/// One push under way: what it found in the directory and where it has it in the store.
#[derive(Debug)]
struct Plan<'a, E: Env> {
    env: &'a E,
    dir: &'a Path,
    fork: &'a str,
    files: Vec<FileEntry>,
    /// Whether `files` has the pieces.
    is_placed: bool,
    pushed: Pushed,
}

impl<S: Store> ForkStore<S> {
    /// Puts a closed database directory into the store as a fork. The directory's lock is held
    /// meanwhile, and nothing else of it is changed.
    ///
    /// # Errors
    ///
    /// [`Error::ForkExists`], [`Error::NoSuchFork`], [`Error::Conflict`] where the fork is not as
    /// expected; of several pushes with one expectation exactly one succeeds.
    /// [`Error::Directory`] where it is not a closed database. [`Error::Store`]: the fork may be
    /// there or appear, whole. [`Error::Overtaken`], [`Error::Contended`].
    pub async fn push<E: Env>(
        &self,
        env: &E,
        dir: &Path,
        fork: &str,
        expect: Expect,
    ) -> Result<Pushed> {
        check_fork(fork)?;
        let _lock = env.lock(&dir.join(LOCK)).await?;
        let files = scan(env, dir).await?;
        let pushed = Pushed::default();
        let mut plan = Plan { env, dir, fork, files, is_placed: false, pushed };
        let by = self.signature();
        for _ in 0..self.options.attempts_max {
            let head = self.head().await?;
            check(&head, fork, expect)?;
            let Some(index) = self.index(&head.catalog).await? else { continue };
            if !plan.is_placed || !self.has(Flaw::NoRecheck) {
                self.place(&mut plan, &head, &index).await?;
            }
            let manifest = self.put_manifest(&plan, &head).await?;
            let version = next_number(&head)?;
            let entry = Fork { version, by: by.clone(), manifest };
            let mut next = head.catalog.clone();
            next.by.clone_from(&by);
            next.forks.insert(fork.to_owned(), entry.clone());
            plan.pushed.version = version;
            match self.commit(&head, next).await? {
                Committed::Done => return Ok(plan.pushed),
                Committed::Lost => {}
                Committed::Overtaken => {
                    // It holds if what holds is this push's.
                    return if self.head().await?.catalog.forks.get(fork) == Some(&entry) {
                        Ok(plan.pushed)
                    } else {
                        Err(Error::Overtaken(format!("pushing {fork}")))
                    };
                }
            }
        }
        Err(self.contended("pushing a fork"))
    }

    /// Gives every piece an object that a commit onto `head` may name.
    async fn place<E: Env>(
        &self,
        plan: &mut Plan<'_, E>,
        head: &Head,
        index: &Index,
    ) -> Result<()> {
        let mut files = core::mem::take(&mut plan.files);
        plan.pushed.bytes = 0;
        for file in &mut files {
            if plan.is_placed {
                self.place_again(plan, file, head, index).await?;
            } else {
                self.place_file(plan, file, head, index).await?;
            }
            plan.pushed.bytes = plan.pushed.bytes.saturating_add(file.bytes());
        }
        plan.files = files;
        plan.is_placed = true;
        Ok(())
    }

    async fn place_file<E: Env>(
        &self,
        plan: &mut Plan<'_, E>,
        file: &mut FileEntry,
        head: &Head,
        index: &Index,
    ) -> Result<()> {
        let handle = plan.env.open(&plan.dir.join(&file.name)).await?;
        let (mut offset, len) = (0, handle.len());
        while offset < len {
            let part = len.saturating_sub(offset).min(to_u64(self.piece_len()));
            let bytes = handle.read_at(offset, to_usize(part), IoClass::Compaction).await?;
            let hash = Hash::of(&bytes);
            let id = self.place_piece(plan, (hash, bytes), head, index).await?;
            file.pieces.push(Piece { id, bytes: part });
            offset = offset.saturating_add(part);
        }
        Ok(())
    }

    /// As `place_file` for one whose pieces have objects; only those that a collection may have
    /// deleted since are looked at.
    async fn place_again<E: Env>(
        &self,
        plan: &mut Plan<'_, E>,
        file: &mut FileEntry,
        head: &Head,
        index: &Index,
    ) -> Result<()> {
        let mut offset = 0_u64;
        for piece in &mut file.pieces {
            if piece.id.generation < head.catalog.boundary && !index.contains(piece.id) {
                let path = plan.dir.join(&file.name);
                let handle = plan.env.open(&path).await?;
                let bytes =
                    handle.read_at(offset, to_usize(piece.bytes), IoClass::Compaction).await?;
                if Hash::of(&bytes) != piece.id.hash {
                    let what = format!("{} was changed while it was pushed", file.name);
                    return Err(Error::directory(plan.dir, what));
                }
                piece.id = self.place_piece(plan, (piece.id.hash, bytes), head, index).await?;
            }
            offset = offset.saturating_add(piece.bytes);
        }
        Ok(())
    }

    async fn place_piece<E: Env>(
        &self,
        plan: &mut Plan<'_, E>,
        (hash, bytes): (Hash, Bytes),
        head: &Head,
        index: &Index,
    ) -> Result<ObjectId> {
        if let Some(id) = index.find(hash) {
            plan.pushed.shared_count += 1;
            return Ok(id);
        }
        let id = ObjectId { hash, generation: self.generation(head) };
        let len = to_u64(bytes.len());
        if self.put_object(&id.data_name(), bytes).await? {
            plan.pushed.put_count += 1;
            plan.pushed.put_bytes = plan.pushed.put_bytes.saturating_add(len);
        } else {
            plan.pushed.shared_count += 1;
        }
        Ok(id)
    }

    async fn put_manifest<E: Env>(&self, plan: &Plan<'_, E>, head: &Head) -> Result<Piece> {
        let bytes = encode_files(&plan.files)?;
        let id = ObjectId { hash: Hash::of(&bytes), generation: self.generation(head) };
        let piece = Piece { id, bytes: to_u64(bytes.len()) };
        self.put_object(&id.fork_name(plan.fork), bytes).await?;
        Ok(piece)
    }

    /// The generation of what is put for a commit onto a head.
    pub(crate) fn generation(&self, head: &Head) -> u64 {
        if self.has(Flaw::NoGeneration) { 0 } else { head.catalog.generation }
    }
}

fn check(head: &Head, fork: &str, expect: Expect) -> Result<()> {
    let found = head.catalog.forks.get(fork).map(|fork| fork.version);
    match (expect, found) {
        (Expect::Absent, Some(version)) => {
            Err(Error::ForkExists { fork: fork.to_owned(), version })
        }
        (Expect::Version(expected), found) if found != Some(expected) => {
            Err(Error::Conflict { fork: fork.to_owned(), expected, found })
        }
        (Expect::Absent, None) | (Expect::Version(_), _) => Ok(()),
    }
}

/// The files that make the database: its live manifest, tables and segments.
async fn scan<E: Env>(env: &E, dir: &Path) -> Result<Vec<FileEntry>> {
    let Some(live) = read_current(env, dir).await? else {
        return Err(Error::directory(dir, "it has no CURRENT, so it is no database"));
    };
    let live = manifest_path(dir, live);
    let mut files = Vec::new();
    for name in env.list(dir).await? {
        let Some(kind) = file_kind(&name) else {
            let is_scrap = Path::new(&name).extension().is_some_and(|e| e == "tmp");
            if name == LOCK || is_scrap {
                continue;
            }
            return Err(Error::directory(dir, format!("{name} is no file of a database")));
        };
        if kind != FileKind::Manifest || dir.join(&name) == live {
            files.push(FileEntry { name, kind, pieces: Vec::new() });
        }
    }
    if !files.iter().any(|file| file.kind == FileKind::Manifest) {
        return Err(Error::directory(dir, "CURRENT names a manifest that is not there"));
    }
    Ok(files)
}
