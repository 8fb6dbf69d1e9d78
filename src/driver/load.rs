//! The load: every key of every tenant once, before anything is measured.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use forebay_engine::env::Env;
use forebay_engine::types::Nanos;
use forebay_engine::{Db, Error, Tenant, WriteBatch, WriteOptions};
use forebay_workloads::Workload;

use super::wedge::{Patience, Stop};

/// How often it is looked whether the load still gets on.
const LOOK_NS: Nanos = 10_000_000_000;

/// Entries of one batch of the load.
const BATCH_ENTRIES: u64 = 64;

/// Creates the workload's tenants, puts every key once and waits until no flush and no compaction
/// is due.
///
/// # Errors
///
/// The engine's, or who waits where writers wait for nothing; part of the keys may be there.
pub async fn load<E: Env>(
    env: E,
    db: &Db<E>,
    workload: &Workload,
    batch_bytes: u64,
) -> Result<(), Stop> {
    let mut patience = Patience::new(db.watch());
    let mut loading = pin!(put_all(db, workload, batch_bytes));
    loop {
        let mut sleep = pin!(env.sleep_until(env.now().saturating_add(LOOK_NS)));
        let ended = poll_fn(|cx| {
            if let Poll::Ready(ended) = loading.as_mut().poll(cx) {
                return Poll::Ready(Some(ended));
            }
            sleep.as_mut().poll(cx).map(|()| None)
        })
        .await;
        if let Some(ended) = ended {
            return Ok(ended?);
        }
        patience.look()?;
    }
}

async fn put_all<E: Env>(db: &Db<E>, workload: &Workload, batch_bytes: u64) -> Result<(), Error> {
    let names: Vec<&str> = workload.tenants().iter().map(|t| t.name.as_str()).collect();
    let tenants = db.create_tenants(&names).await?;
    let mut batch = WriteBatch::new();
    let (mut entries, mut bytes) = (0, 0);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for (number, op) in (0..).zip(workload.load_ops()) {
        let Some(tenant) = tenant_of(&tenants, op.tenant) else { continue };
        workload.fill_key(op.tenant, op.key(), &mut key);
        workload.fill_value(op.tenant, op.key(), number, &mut value);
        let size = forebay_engine::types::to_u64(key.len() + value.len());
        // A quarter of what a batch may charge leaves room for what the engine adds to each entry.
        if entries > 0 && (entries >= BATCH_ENTRIES || bytes + size > batch_bytes >> 2) {
            db.write(core::mem::take(&mut batch), WriteOptions::default()).await?;
            (entries, bytes) = (0, 0);
        }
        tenant.put_in(&mut batch, &key, &value)?;
        entries += 1;
        bytes += size;
    }
    if entries > 0 {
        db.write(batch, WriteOptions::default()).await?;
    }
    db.wait_idle().await
}

fn tenant_of<E: Env>(tenants: &[Tenant<E>], number: u32) -> Option<&Tenant<E>> {
    tenants.get(usize::try_from(number).unwrap_or(usize::MAX))
}
