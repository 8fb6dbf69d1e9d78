//! The one order of all changes: numbered catalogs, each put only if its number is free.
//!
//! The catalog with the highest number is the state; the others only serve those who still read
//! them. Since old ones are deleted, a number can be free again: a writer that stalled between
//! reading the head and its put may succeed with a number of the past. Its catalog is nobody's
//! head, and [`ForkStore::commit`] finds that out before it says anything.

use bytes::Bytes;
use forebay_engine::types::{to_u64, to_usize};

use crate::error::{Error, Result};
use crate::format::{Catalog, Index, PIECE_BYTES_MAX, Piece, TEXT_BYTES_MAX};
use crate::names::{Hash, NUMBER_MAX, ObjectId, catalog_name, of_catalog_name};
use crate::{Flaw, ForkStore, Store};

/// A catalog and its hash.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) catalog: Catalog,
    pub(crate) hash: Hash,
}

/// What became of a put of a catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// It followed the head that it was made for.
    Done,
    /// Its number was taken: nothing changed.
    Lost,
    /// It was put, and a later head does not descend from it, or that can no longer be told.
    Overtaken,
}

impl<S: Store> ForkStore<S> {
    /// Reads the state.
    pub(crate) async fn head(&self) -> Result<Head> {
        for _ in 0..self.options.attempts_max {
            let Some(number) = self.highest().await? else {
                return Ok(Head { catalog: Catalog::default(), hash: Hash::ZERO });
            };
            // Deleted since, as there is a later one.
            let Some(bytes) = self.catalog_bytes(number).await? else { continue };
            // Still the highest after it was read: its number was never free before, so that these
            // are not the bytes of a stalled writer's put.
            if self.has(Flaw::OneLook) || self.highest().await? == Some(number) {
                let catalog = Catalog::decode(&catalog_name(number), number, &bytes)?;
                return Ok(Head { catalog, hash: Hash::of(&bytes) });
            }
        }
        Err(self.contended("reading the catalog"))
    }

    async fn highest(&self) -> Result<Option<u64>> {
        let names = self.store.list("catalog").await?;
        Ok(names.iter().filter_map(|name| of_catalog_name(name)).max())
    }

    async fn catalog_bytes(&self, number: u64) -> Result<Option<Bytes>> {
        let name = catalog_name(number);
        let bytes = self.store.get(&name, 0, TEXT_BYTES_MAX.saturating_add(1)).await?;
        match bytes {
            Some(bytes) if to_u64(bytes.len()) > TEXT_BYTES_MAX => {
                Err(Error::damaged(&name, "it is longer than a catalog may be"))
            }
            other => Ok(other),
        }
    }

    /// Puts the catalog that follows `head`.
    ///
    /// # Errors
    ///
    /// The store's; the change may hold or not.
    pub(crate) async fn commit(&self, head: &Head, mut next: Catalog) -> Result<Committed> {
        let number = next_number(head)?;
        next.number = number;
        next.parent = Some(head.hash);
        let bytes = next.encode()?;
        // Before the put, so that no failure of it hides what became of the put.
        if let Some(old) = number.checked_sub(self.options.keep_count.max(2)) {
            self.store.delete(&catalog_name(old)).await?;
        }
        if !self.store.put_new(&catalog_name(number), bytes.clone()).await? {
            // The store may have put it and been asked again on the way.
            let found = self.catalog_bytes(number).await?;
            if found.is_none_or(|found| found != bytes) {
                return Ok(Committed::Lost);
            }
        }
        if self.has(Flaw::NoConfirm) {
            return Ok(Committed::Done);
        }
        if self.highest().await? == Some(number) {
            return Ok(Committed::Done);
        }
        let next_name = catalog_name(number.saturating_add(1));
        let Some(after) = self.catalog_bytes(number.saturating_add(1)).await? else {
            return Ok(Committed::Overtaken);
        };
        let after = Catalog::decode(&next_name, number.saturating_add(1), &after)?;
        let follows = after.parent == Some(Hash::of(&bytes));
        Ok(if follows { Committed::Done } else { Committed::Overtaken })
    }

    /// Reads the index that a catalog names, or nothing where a later catalog replaced it.
    pub(crate) async fn index(&self, catalog: &Catalog) -> Result<Option<Index>> {
        let mut bytes = Vec::new();
        for piece in &catalog.index {
            let Some(part) = self.fetch(&piece.id.data_name(), piece).await? else {
                return Ok(None);
            };
            bytes.extend_from_slice(&part);
        }
        Index::decode(&catalog_name(catalog.number), &bytes).map(Some)
    }

    /// Reads a whole object and checks it, or nothing where it is not there.
    pub(crate) async fn fetch(&self, name: &str, piece: &Piece) -> Result<Option<Bytes>> {
        let Some(bytes) = self.store.get(name, 0, piece.bytes).await? else { return Ok(None) };
        if to_u64(bytes.len()) != piece.bytes || Hash::of(&bytes) != piece.id.hash {
            return Err(Error::damaged(name, "its content is not what its name says"));
        }
        Ok(Some(bytes))
    }

    /// Puts content under the name that it has in a generation, unless it is there. Whether it was
    /// put.
    pub(crate) async fn put_object(&self, name: &str, bytes: Bytes) -> Result<bool> {
        let len = to_u64(bytes.len());
        match self.store.size(name).await? {
            None => self.store.put_new(name, bytes).await,
            Some(found) if found == len => Ok(false),
            Some(found) => {
                Err(Error::damaged(name, format!("it has {found} bytes instead of {len}")))
            }
        }
    }

    /// Puts bytes as pieces of data.
    pub(crate) async fn put_pieces(&self, mut bytes: Bytes, generation: u64) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(self.piece_len()));
            let id = ObjectId { hash: Hash::of(&part), generation };
            pieces.push(Piece { id, bytes: to_u64(part.len()) });
            self.put_object(&id.data_name(), part).await?;
        }
        Ok(pieces)
    }

    /// Bytes of a piece that is written.
    pub(crate) fn piece_len(&self) -> usize {
        let bytes = self.options.piece_bytes.clamp(1, PIECE_BYTES_MAX);
        to_usize(bytes)
    }

    pub(crate) fn contended(&self, what: &str) -> Error {
        Error::Contended { what: what.to_owned(), attempts: self.options.attempts_max }
    }
}

/// The number of the catalog that follows a head.
pub(crate) fn next_number(head: &Head) -> Result<u64> {
    let number = head.catalog.number.saturating_add(1);
    if number > NUMBER_MAX {
        let what = "numbers of catalogs".to_owned();
        return Err(Error::TooLarge { what, count: number, count_max: NUMBER_MAX });
    }
    Ok(number)
}
