//! Asks how much space is left, and keeps a spare segment, off the path of writes.

use crate::env::Env;
use crate::events::Event;
use crate::shared::Shared;
use crate::write::segments::{create_spare, is_newest, remove_segment};

/// Asks the disk and lets writers know where that changes anything. While the disk is full it is
/// asked at most ten times a second.
pub(crate) async fn ask<E: Env>(shared: &Shared<E>) {
    if shared.env.now() < shared.disk.ask_at() {
        return;
    }
    let Ok(free_bytes) = shared.env.free_bytes(&shared.dir).await else {
        // What it said last holds.
        shared.disk.unknown(shared.env.now());
        return;
    };
    let facts = (shared.spare.lock().is_some(), shared.manifest.bytes());
    if shared.disk.set(shared.env.now(), free_bytes, facts) {
        let needed_bytes = shared.disk.needed_bytes();
        let full = shared.disk.is_full();
        shared.emit(&Event::DiskFull { full, free_bytes, needed_bytes });
        // Those that wait are refused, those that were refused may come again, and the ticker looks
        // at the time from which it may ask.
        shared.wake_writers();
        shared.tick.raise();
    }
}

/// Makes a spare segment where there is none, or one that a later segment has overtaken. Returns
/// whether one is still wanted.
pub(crate) async fn ensure_spare<E: Env>(shared: &Shared<E>) -> bool {
    if shared.check_writable().is_err() {
        return false;
    }
    let overtaken = {
        let mut spare = shared.spare.lock();
        if spare.as_ref().is_some_and(|spare| is_newest(shared, spare)) {
            return false;
        }
        spare.take()
    };
    if let Some(overtaken) = overtaken {
        remove_segment(shared, overtaken.segment()).await;
    }
    // What is left is for what makes space.
    if shared.disk.is_full() {
        return false;
    }
    match create_spare(shared).await {
        Ok(spare) if !is_newest(shared, &spare) => {
            remove_segment(shared, spare.segment()).await;
            true
        }
        Ok(spare) => {
            *shared.spare.lock() = Some(spare);
            ask(shared).await;
            false
        }
        Err(error) => {
            if error.is_storage_full() {
                shared.disk.suspect();
                ask(shared).await;
            }
            true
        }
    }
}
