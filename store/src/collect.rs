//! Deletes what no fork names: the boundary and the index are committed first, then objects go.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::{Committed, Head, next_number};
use crate::error::{Error, Result};
use crate::format::{Catalog, FileEntry, Index};
use crate::names::{ObjectId, data_prefixes, of_catalog_name};
use crate::{Flaw, ForkStore, Store};

/// Which objects of no fork a collection spares for pushes that are under way. It decides how
/// often they upload again, never whether they are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// None: a push under way uploads again what it has not committed.
    None,
    /// Those put since the last collection: a push is spared unless two collections overtake it.
    One,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Forks that were live.
    pub fork_count: u64,
    /// Objects that they name.
    pub live_count: u64,
    /// Objects that were deleted, old catalogs not counted.
    pub deleted_count: u64,
    /// Objects whose names are not of this crate; left alone.
    pub foreign_count: u64,
}

/// What a head's forks name.
#[derive(Debug, Default)]
struct Roots {
    data: BTreeSet<ObjectId>,
    manifests: BTreeSet<(String, ObjectId)>,
}

/// Manifests that were read for an earlier head.
type Read = BTreeMap<(String, ObjectId), Vec<FileEntry>>;

impl<S: Store> ForkStore<S> {
    /// Deletes every object that no fork names, as far as `grace` allows. Any number may run at
    /// once, beside pushes and deletions of forks.
    ///
    /// # Errors
    ///
    /// [`Error::Overtaken`], [`Error::Contended`], [`Error::Damaged`], [`Error::Missing`]: nothing
    /// was deleted. [`Error::Store`]: some may have been; no fork names it.
    pub async fn collect(&self, grace: Grace) -> Result<Collected> {
        let (by, mut read) = (self.signature(), Read::new());
        for _ in 0..self.options.attempts_max {
            let head = self.head().await?;
            let Some(mut roots) = self.roots(&head, &mut read).await? else { continue };
            let number = next_number(&head)?;
            let last = head.catalog.generation;
            let boundary = match grace {
                Grace::None => number,
                Grace::One => last.max(head.catalog.boundary),
            };
            let index = Index::new(&roots.data)?.encode();
            let index = self.put_pieces(index, self.generation(&head)).await?;
            let generation = number;
            let forks = head.catalog.forks.clone();
            let next = Catalog {
                by: by.clone(),
                boundary,
                generation,
                index,
                forks,
                ..Catalog::default()
            };
            roots.data.extend(next.index.iter().map(|piece| piece.id));
            let mut done =
                Collected { fork_count: count(next.forks.len()), ..Collected::default() };
            done.live_count = count(roots.data.len() + roots.manifests.len());
            if self.has(Flaw::DeleteFirst) {
                self.sweep(&roots, boundary, &mut done).await?;
            }
            match self.commit(&head, next).await? {
                Committed::Done => {
                    self.sweep(&roots, boundary, &mut done).await?;
                    self.sweep_catalogs(number).await?;
                    return Ok(done);
                }
                Committed::Lost => {}
                Committed::Overtaken => return Err(Error::Overtaken("a collection".to_owned())),
            }
        }
        Err(self.contended("a collection"))
    }

    /// What the forks of a head name, or nothing where the head is not the head any more.
    async fn roots(&self, head: &Head, read: &mut Read) -> Result<Option<Roots>> {
        let mut roots = Roots::default();
        let mut live = Read::new();
        for (name, fork) in &head.catalog.forks {
            let key = (name.clone(), fork.manifest.id);
            let files = match read.remove(&key) {
                Some(files) => files,
                None => match self.files(name, fork).await {
                    Ok(files) => files,
                    Err(Error::Missing(object)) => return self.missing(head, object).await,
                    Err(error) => return Err(error),
                },
            };
            let pieces = files.iter().flat_map(|file| &file.pieces);
            roots.data.extend(pieces.map(|piece| piece.id));
            roots.manifests.insert(key.clone());
            live.insert(key, files);
        }
        *read = live;
        Ok(Some(roots))
    }

    async fn missing(&self, head: &Head, object: String) -> Result<Option<Roots>> {
        if self.head().await?.hash == head.hash { Err(Error::Missing(object)) } else { Ok(None) }
    }

    async fn sweep(&self, roots: &Roots, boundary: u64, done: &mut Collected) -> Result<()> {
        let boundary = if self.has(Flaw::NoBoundary) { u64::MAX } else { boundary };
        for prefix in data_prefixes() {
            for name in self.store.list(&prefix).await? {
                match ObjectId::of_data_name(&name) {
                    Some(id) if id.generation >= boundary || roots.data.contains(&id) => {}
                    Some(_) => self.remove(&name, done).await?,
                    None => done.foreign_count += 1,
                }
            }
        }
        for name in self.store.list("forks").await? {
            match ObjectId::of_fork_name(&name) {
                Some((fork, id)) => {
                    let is_live = roots.manifests.contains(&(fork.to_owned(), id));
                    if id.generation < boundary && !is_live {
                        self.remove(&name, done).await?;
                    }
                }
                None => done.foreign_count += 1,
            }
        }
        Ok(())
    }

    async fn remove(&self, name: &str, done: &mut Collected) -> Result<()> {
        done.deleted_count += 1;
        self.store.delete(name).await
    }

    /// Deletes catalogs that nobody needs, those of stalled writers among them.
    async fn sweep_catalogs(&self, number: u64) -> Result<()> {
        let kept = number.saturating_sub(self.options.keep_count.max(2));
        for name in self.store.list("catalog").await? {
            if of_catalog_name(&name).is_some_and(|old| old <= kept) {
                self.store.delete(&name).await?;
            }
        }
        Ok(())
    }
}

fn count(len: usize) -> u64 {
    forebay_engine::types::to_u64(len)
}
