//! The collector: removes files that nothing reaches, after the edit that freed them is durable.
//!
//! What is live is derived from who holds a table (versions, scans, running jobs), never stored. A
//! file that holds several tables goes with the last of them. A removal that fails is tried again,
//! at the latest when the next open finds the orphan.

use std::sync::Arc;

use crate::env::Env;
use crate::events::Event;
use crate::shared::Shared;
use crate::table::table_path;
use crate::version::edit::Edit;
use crate::version::packs::Left;
use crate::wal::segment_path;

/// Removes the tables that left every version and that no scan and no job holds. Where some are
/// held, the ticker is told to look again: their readers do not tell when they let go.
pub(crate) async fn collect_or_later<E: Env>(shared: &Shared<E>) {
    collect(shared).await;
    if !shared.garbage.lock().is_empty() {
        shared.tick.raise();
    }
}

/// As [`collect_or_later`], for the ticker.
pub(crate) async fn collect<E: Env>(shared: &Shared<E>) {
    let mut free = Vec::new();
    shared.garbage.lock().retain(|table| {
        let unreached = Arc::strong_count(table) == 1;
        if unreached {
            free.push(Arc::clone(table));
        }
        !unreached
    });
    for table in free {
        match shared.set.packs().release(&table) {
            Left::Nothing => {}
            Left::Tables => {
                shared.space.purge_table(&table);
                continue;
            }
            Left::Sparse => {
                shared.space.purge_table(&table);
                // What is left of a file that is mostly dead is written anew, tree by tree: by each
                // that holds a table of it, whichever tree that was written for.
                for tree in shared.set.trees_holding(|t| t.id.file == table.id.file) {
                    shared.schedule_compaction(&tree, 0);
                }
                continue;
            }
        }
        shared.space.purge_file(table.id.file);
        let path = table_path(&shared.dir, table.id.file);
        match shared.env.remove(&path).await {
            Ok(()) => shared.emit(&Event::FileRemoved { file: table.id.file }),
            Err(error) if error.is_not_found() => {}
            Err(_) => shared.garbage.lock().push(table),
        }
    }
}

/// Removes WAL segments that no memtable needs, after an edit says so.
pub(crate) async fn reclaim_log<E: Env>(shared: &Shared<E>) {
    let floor = shared.log.floor();
    if floor <= shared.log.oldest() {
        return;
    }
    // Writers that wait for the log wait for this.
    let _at_work = shared.waiting.work();
    let edit = Edit::WalFloor { segment: floor };
    if shared.manifest.commit(vec![edit], None).await.is_err() {
        // The segments stay until the next flush tries again.
        return;
    }
    for segment in shared.log.take_below(floor) {
        // A segment below the floor that stays behind is an orphan for the next open.
        if shared.env.remove(&segment_path(&shared.dir, segment)).await.is_ok() {
            shared.emit(&Event::FileRemoved { file: segment });
        }
    }
    shared.budget.wake_first();
}
