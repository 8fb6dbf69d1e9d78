//! Tenants that come and go beside the load: each is created, written to and dropped.

use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::Poll;
use std::sync::Arc;

use forebay_engine::detach::Detached;
use forebay_engine::env::Env;
use forebay_engine::types::Nanos;
use forebay_engine::{Error, Tenant};
use forebay_workloads::Churn;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;

use super::Driver;
use super::measure::{histogram, record};

/// What visitors saw while the run was measured.
#[derive(Clone, Debug)]
pub struct ChurnTally {
    /// Time to create one.
    pub create: Histogram<u64>,
    /// Latency of their puts.
    pub put: Histogram<u64>,
    /// Time to drop one, until its memory and, in a tree of its own, its files are given back.
    pub drop: Histogram<u64>,
    /// Those that moved out before.
    pub moved: MoveTally,
}

/// Visitors that moved out, each into a directory of its own.
#[derive(Clone, Debug)]
pub struct MoveTally {
    /// Time until the copy was durable.
    pub latency: Histogram<u64>,
    /// Bytes of tables that both directories name.
    pub linked_bytes: u64,
    /// Bytes of tables that were written anew.
    pub copied_bytes: u64,
    /// Entries of memtables in the copies' logs.
    pub logged_entries: u64,
}

impl ChurnTally {
    pub(super) fn new() -> Self {
        let moved =
            MoveTally { latency: histogram(), linked_bytes: 0, copied_bytes: 0, logged_entries: 0 };
        Self { create: histogram(), put: histogram(), drop: histogram(), moved }
    }
}

/// Something that a visitor did.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Create,
    Put(u64),
    Move(Detached),
    Drop,
}

impl ChurnTally {
    pub(super) fn record(&mut self, step: &Step, ns: Nanos) {
        let histogram = match step {
            Step::Create => &mut self.create,
            Step::Put(_) => &mut self.put,
            Step::Move(copy) => {
                let moved = &mut self.moved;
                moved.linked_bytes = moved.linked_bytes.saturating_add(copy.linked_bytes);
                moved.copied_bytes = moved.copied_bytes.saturating_add(copy.copied_bytes);
                moved.logged_entries = moved.logged_entries.saturating_add(copy.logged_entries);
                &mut moved.latency
            }
            Step::Drop => &mut self.drop,
        };
        record(histogram, ns);
    }
}

type Visit = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// Lets visitors come at their times, whatever became of those before, until the run is over; ends
/// when all of them are gone.
pub(super) async fn visitors<E: Env>(driver: Arc<Driver<E>>, churn: Churn) {
    let mut there: FuturesUnordered<Visit> = FuturesUnordered::new();
    for visitor in 0.. {
        let mut sleep = pin!(driver.env.sleep_until(driver.at(churn.comes_ns(visitor))));
        poll_fn(|cx| {
            while let Poll::Ready(Some(gone)) = there.poll_next_unpin(cx) {
                driver.gone(gone);
            }
            sleep.as_mut().poll(cx)
        })
        .await;
        if driver.is_over() {
            break;
        }
        there.push(Box::pin(visit(Arc::clone(&driver), churn, visitor)));
    }
    while let Some(gone) = there.next().await {
        driver.gone(gone);
    }
}

async fn visit<E: Env>(driver: Arc<Driver<E>>, churn: Churn, visitor: u64) -> Result<(), Error> {
    let name = churn.name(visitor);
    let mut begin = driver.env.now();
    let created = driver.db.create_tenants(&[&name]).await?;
    begin = driver.visited(&Step::Create, begin);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for tenant in &created {
        for put in 0..churn.key_count {
            if driver.is_over() {
                break;
            }
            let bytes = churn.fill(visitor, put, (&mut key, &mut value));
            tenant.put(&key, &value, driver.write_options).await?;
            begin = driver.visited(&Step::Put(bytes), begin);
        }
    }
    if !driver.is_over() {
        driver.env.sleep_until(driver.at(churn.goes_ns(visitor))).await;
    }
    if driver.visitors_move {
        for tenant in &created {
            move_out(&driver, tenant, visitor).await?;
        }
    }
    begin = driver.env.now();
    driver.db.drop_tenant(&name).await?;
    driver.visited(&Step::Drop, begin);
    Ok(())
}

/// Copies a visitor into a directory of its own, which is removed when it was seen to be whole.
async fn move_out<E: Env>(
    driver: &Driver<E>,
    tenant: &Tenant<E>,
    visitor: u64,
) -> Result<(), Error> {
    let mut name = driver.dir.file_name().unwrap_or_default().to_owned();
    name.push(format!("-moved-{visitor}"));
    let dir = driver.dir.with_file_name(name);
    let begin = driver.env.now();
    let copy = tenant.fork_to(&dir).await?;
    driver.visited(&Step::Move(copy), begin);
    for file in driver.env.list(&dir).await? {
        driver.env.remove(&dir.join(file)).await?;
    }
    Ok(())
}
