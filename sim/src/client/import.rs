//! An import: a directory is made whose numbers are above those of the database, and is taken in as a
//! tenant.
//!
//! The model sees it as one batch, which is in or out with the tenant: whole, at numbers that the other
//! database gave. Before the import is acknowledged it counts as a write that failed and may come back.

use std::path::{Path, PathBuf};

use forebay_engine::env::Env;
use forebay_engine::options::{Layout, Options};
use forebay_engine::types::{SeqNo, to_u64, to_usize};
use forebay_engine::{Db, Error, WriteBatch, WriteOptions};

use super::{Client, Handle, has_forks};
use crate::check::model::Wanted;
use crate::check::value::{self, Origin, key_bytes, op_number, tenant_name};
use crate::env::SimEnv;

/// So many numbers lie between the database's last one and those of the directory: more than are given
/// while it is made.
const AHEAD: SeqNo = 4000;

/// Entries of a batch that only takes numbers.
const FILLER_ENTRIES: u64 = 500;

/// Bytes of an imported value.
const VALUE_BYTES: usize = 60;

/// A tenant that is to come in.
struct Incoming {
    inc: usize,
    tag: u64,
    dir: PathBuf,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    above: SeqNo,
}

impl Client {
    /// Takes in a tenant with so many keys, where the name is free; once in a run.
    pub(super) async fn import(&self, tenant: usize, (first, count): (u32, u32)) {
        let Some(incoming) = self.begin_import(tenant, (first, count)) else { return };
        let Incoming { inc, tag, ref dir, .. } = incoming;
        let made = make(self.env, &incoming).await;
        let is_above = |last: SeqNo| self.board.lock().model.last < last - u64::from(count);
        let Some(last) = made.ok().filter(|last| is_above(*last)) else {
            // A fault came in its way: nothing was asked of the database.
            let mut board = self.board.lock();
            board.busy.remove(&tenant);
            board.model.failed(tag);
            board.model.refuse_create(inc);
            board.mark("import-not-made");
            return;
        };
        {
            let mut board = self.board.lock();
            board.model.sequenced(tag, last + 1 - u64::from(count), u64::from(count));
            board.model.failed(tag);
        }
        let result = self.db.import_as(dir, &tenant_name(tenant)).await;
        let mut board = self.board.lock();
        board.busy.remove(&tenant);
        match result {
            Ok(_) => {
                let there = self.db.tenant(&tenant_name(tenant));
                board.mark("import");
                board.model.end_create(inc, there.as_ref().map(|there| there.branch_id().0));
                board.model.acked(tag, self.env.now());
                board.model.promised(last);
                if let Some(there) = there {
                    board.handles.insert(tenant, Handle { inc, tenant: there });
                }
            }
            Err(error) => {
                let is_refused = matches!(
                    error,
                    Error::DiskFull { .. } | Error::Closed | Error::InvalidArgument(_)
                );
                if is_refused {
                    board.model.refuse_create(inc);
                } else if !matches!(error, Error::TenantExists(_))
                    || !has_forks(&mut board.model, inc)
                {
                    board.model.end_create(inc, None);
                }
                drop(board);
                self.error("import", error, &[]);
            }
        }
    }

    fn begin_import(&self, tenant: usize, (first, count): (u32, u32)) -> Option<Incoming> {
        let mut board = self.board.lock();
        let board = &mut *board;
        let is_taken = board.handles.keys().any(|number| value::tenant_of(*number) == tenant);
        // An open that found no branch does not tell which numbers were given.
        let is_known = board.model.opened_at < SeqNo::MAX;
        if is_taken || board.imports > 0 || !is_known || !board.busy.insert(tenant) {
            return None;
        }
        board.imports += 1;
        let inc = board.model.begin_create(tenant);
        let keys = first..first.saturating_add(count);
        let wanted = keys.clone().map(|key| Wanted { inc, key, put: true }).collect();
        let tag = board.model.begin_write(wanted, true);
        let number = board.model.incs.get(inc).map_or(0, |inc| inc.number);
        let entry = |(index, key): (usize, u32)| {
            let origin = Origin {
                tenant: u32::try_from(tenant).unwrap_or(u32::MAX),
                incarnation: number,
                key,
                op: op_number(tag, index),
            };
            (key_bytes(key), value::encode(origin, VALUE_BYTES))
        };
        let entries = keys.enumerate().map(entry).collect();
        let above = board.model.last.max(board.model.opened_at).saturating_add(AHEAD);
        let dir = PathBuf::from(format!("/from-{tenant}"));
        Some(Incoming { inc, tag, dir, entries, above })
    }
}

/// Makes a database of one tenant with these entries as its last ones; their last number. As its numbers
/// say, every other one keeps them in its log.
async fn make(env: SimEnv, incoming: &Incoming) -> Result<SeqNo, Error> {
    let options = Options {
        layout: Layout::PerTenant,
        budget_bytes: 16 << 20,
        wal_segment_bytes: 1 << 20,
        ..Options::default()
    };
    let db = Db::open(env, Path::new(&incoming.dir), options).await?;
    let filled = fill(&db, incoming).await;
    // Nothing of it goes on beside the database that is to be judged.
    let closed = db.close().await;
    let last = filled?;
    closed?;
    debug_assert!(last >= incoming.above + to_u64(incoming.entries.len()), "numbers ascend");
    Ok(last)
}

/// Writes the entries behind as many numbers as are to lie below theirs.
async fn fill(db: &Db<SimEnv>, incoming: &Incoming) -> Result<SeqNo, Error> {
    let [filler, tenant] = ["filler", "t"];
    let made = db.create_tenants(&[filler, tenant]).await?;
    let [filler_handle, tenant_handle] = made.as_slice() else { return Err(Error::Dropped) };
    let mut last = 0;
    while last < incoming.above {
        let mut batch = WriteBatch::new();
        for _ in 0..FILLER_ENTRIES {
            filler_handle.delete_in(&mut batch, b"k")?;
        }
        last = db.write(batch, WriteOptions::default()).await?;
    }
    db.drop_tenant(filler).await?;
    let mut batch = WriteBatch::new();
    for (key, value) in &incoming.entries {
        tenant_handle.put_in(&mut batch, key, value)?;
    }
    let last = db.write(batch, WriteOptions { sync: true, tag: 0 }).await?;
    if to_usize(incoming.tag).is_multiple_of(2) {
        tenant_handle.flush().await?;
    }
    Ok(last)
}
