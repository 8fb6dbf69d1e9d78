//! Who issues operations: lanes of an open loop, clients of a closed one.

use core::future::{Future, poll_fn};
use core::ops::Bound;
use core::pin::{Pin, pin};
use core::task::Poll;
use std::sync::Arc;

use forebay_engine::env::Env;
use forebay_engine::tenant::ScanOptions;
use forebay_engine::types::{Nanos, to_u64};
use forebay_engine::{Error, Tenant};
use forebay_workloads::{Op, OpKind};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Driver;

/// Operations of one lane that may wait at once. Further arrivals wait for one of them; their
/// latency counts from their arrival all the same.
const WAITING_MAX: usize = 10_000;

/// An answered operation.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) tenant: u32,
    /// What it was.
    pub(super) kind: OpKind,
    pub(super) is_write: bool,
    /// User bytes of a write.
    pub(super) bytes: u64,
    /// Intended arrival.
    pub(super) at: Nanos,
    /// The answer.
    pub(super) end: Nanos,
    pub(super) error: Option<Error>,
}

type Running = Pin<Box<dyn Future<Output = Done>>>;

/// One lane of an open loop: takes operations in the order of their arrival, each at its time, and
/// goes on while earlier ones wait.
pub(super) async fn open<E: Env>(driver: Arc<Driver<E>>) {
    let mut waiting: FuturesUnordered<Running> = FuturesUnordered::new();
    while let Some((number, op, at)) = driver.next_op() {
        if driver.env.now() < at {
            wait_until(&driver, at, &mut waiting).await;
        }
        let mut running: Running = Box::pin(run(Arc::clone(&driver), number, op, at));
        let done = poll_fn(|cx| match running.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Poll::Ready(None),
        })
        .await;
        match done {
            Some(done) => driver.answered(&done),
            None => waiting.push(running),
        }
        while waiting.len() >= WAITING_MAX {
            if let Some(done) = waiting.next().await {
                driver.answered(&done);
            }
        }
    }
    while let Some(done) = waiting.next().await {
        driver.answered(&done);
    }
}

/// Waits for the next arrival, and takes the answers that come before.
async fn wait_until<E: Env>(
    driver: &Driver<E>,
    at: Nanos,
    waiting: &mut FuturesUnordered<Running>,
) {
    let mut sleep = pin!(driver.env.sleep_until(at));
    poll_fn(|cx| {
        while let Poll::Ready(Some(done)) = waiting.poll_next_unpin(cx) {
            driver.answered(&done);
        }
        sleep.as_mut().poll(cx)
    })
    .await;
}

/// One client of a closed loop: asks, waits for the answer, asks again.
pub(super) async fn closed<E: Env>(driver: Arc<Driver<E>>) {
    ask_in_turn(&driver, || driver.next_op().map(|(number, op, _)| (number, op))).await;
}

/// One client of the tenant that asks flat out beside the others.
pub(super) async fn flat_out<E: Env>(driver: Arc<Driver<E>>) {
    ask_in_turn(&driver, || driver.next_flat_out()).await;
}

async fn ask_in_turn<E: Env>(driver: &Arc<Driver<E>>, next: impl Fn() -> Option<(u64, Op)>) {
    while let Some((number, op)) = next() {
        // Every call of a world whose disk is free could be ready at once: time must pass.
        let at = driver.env.now();
        driver.env.sleep_until(at).await;
        let done = run(Arc::clone(driver), number, op, at).await;
        driver.answered(&done);
    }
}

async fn run<E: Env>(driver: Arc<Driver<E>>, number: u64, op: Op, at: Nanos) -> Done {
    let result = perform(&driver, number, op).await;
    let (bytes, error) = match result {
        Ok(bytes) => (bytes, None),
        Err(error) => (0, Some(error)),
    };
    let end = driver.env.now();
    let (kind, is_write) = (op.kind, op.is_write());
    Done { tenant: op.tenant, kind, is_write, bytes, at, end, error }
}

/// Asks the engine; gives back the user bytes that were written.
async fn perform<E: Env>(driver: &Driver<E>, number: u64, op: Op) -> Result<u64, Error> {
    let at = usize::try_from(op.tenant).unwrap_or(usize::MAX);
    let Some(tenant) = driver.tenants.get(at) else {
        return Err(Error::UnknownTenant(op.tenant.to_string()));
    };
    let mut key = Vec::new();
    driver.workload.fill_key(op.tenant, op.key(), &mut key);
    let place = driver.workload.key_place(op.tenant, op.key()).unwrap_or(u64::MAX);
    match op.kind {
        OpKind::Put { .. } | OpKind::Insert { .. } => {
            put(driver, tenant, (number, place, op), &key).await
        }
        OpKind::Delete { .. } => {
            driver.check(|check| check.begin_write((0, place), number, true));
            tenant.delete(&key, driver.write_options).await?;
            driver.check(|check| check.end_write((0, place), number));
            Ok(to_u64(key.len()))
        }
        OpKind::Get { .. } => {
            get(driver, tenant, (place, op), &key).await?;
            Ok(0)
        }
        OpKind::ReadModifyWrite { .. } => {
            get(driver, tenant, (place, op), &key).await?;
            put(driver, tenant, (number, place, op), &key).await
        }
        OpKind::Scan { limit, reverse, .. } => {
            scan(driver, tenant, (op, limit, reverse), &key).await?;
            Ok(0)
        }
    }
}

async fn put<E: Env>(
    driver: &Driver<E>,
    tenant: &Tenant<E>,
    (number, place, op): (u64, u64, Op),
    key: &[u8],
) -> Result<u64, Error> {
    let mut value = Vec::new();
    driver.workload.fill_value(op.tenant, op.key(), number, &mut value);
    let bytes = to_u64(key.len()).saturating_add(to_u64(value.len()));
    if driver.put_to_fork(op.tenant, (number, place), (key, &value)).await? {
        return Ok(bytes);
    }
    driver.check(|check| check.begin_write((0, place), number, false));
    tenant.put(key, &value, driver.write_options).await?;
    driver.check(|check| check.end_write((0, place), number));
    Ok(bytes)
}

async fn get<E: Env>(
    driver: &Driver<E>,
    tenant: &Tenant<E>,
    (place, op): (u64, Op),
    key: &[u8],
) -> Result<(), Error> {
    let read = driver.check(|check| check.begin_read((0, place)));
    let value = tenant.get(key).await?;
    if let Some(read) = read {
        let of = (&*driver.workload, op.tenant, op.key());
        driver.check(|check| check.end_read(read, of, value.as_deref()));
    }
    Ok(())
}

async fn scan<E: Env>(
    driver: &Driver<E>,
    tenant: &Tenant<E>,
    (op, limit, reverse): (Op, u32, bool),
    key: &[u8],
) -> Result<(), Error> {
    let mut scan = if reverse {
        let options = ScanOptions::default().reversed();
        tenant.scan_with((Bound::Unbounded, Bound::Included(key)), options)?
    } else {
        tenant.scan((Bound::Included(key), Bound::Unbounded))?
    };
    let mut last: Option<Vec<u8>> = None;
    for _ in 0..limit {
        let Some((key, value)) = scan.next().await? else { break };
        let entry = (key.as_ref(), value.as_ref());
        driver.check(|check| check.scanned(&driver.workload, op.tenant, entry));
        let ordered = driver.check(|check| {
            check.in_order(op.tenant, (last.as_deref(), key.as_ref()), reverse);
        });
        if ordered.is_some() {
            last = Some(key.to_vec());
        }
    }
    Ok(())
}
