//! Branches that are forked beside the load: each at its time, whatever became of those before it;
//! the oldest are dropped, and a share of the puts goes to them, so that they and their parents
//! part.
//!
//! Where answers are compared with a reference model, some keys of each fork are read when it is
//! there and again before it goes: `check` says what they may give.

use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::Poll;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_engine::env::Env;
use forebay_engine::types::{Nanos, to_u64, to_usize};
use forebay_engine::{Error, Tenant};
use forebay_workloads::rng::{Rng, mix};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;

use super::check::Read;
use super::measure::{histogram, record};
use super::{Driver, Plan};
use crate::config::{Config, ForkParents};

/// Keys of a fork that are watched: any, and as many that were written last.
const WATCHED_EACH: u64 = 3;

/// What forks took while the run was measured.
#[derive(Clone, Debug)]
pub struct ForkTally {
    /// Forks that were asked for.
    pub asked: u64,
    /// Of them, those answered before the run was over.
    pub in_time: u64,
    /// Of them, those whose parent, a fork itself, was dropped meanwhile.
    pub lost: u64,
    /// Puts that went to forks.
    pub puts: u64,
    /// Time from when a fork was due until it was durable.
    pub fork: Histogram<u64>,
    /// Time to drop one.
    pub drop: Histogram<u64>,
}

impl ForkTally {
    pub(super) fn new() -> Self {
        let (fork, drop) = (histogram(), histogram());
        Self { asked: 0, in_time: 0, lost: 0, puts: 0, fork, drop }
    }

    /// Something happened; `is_measured` where the run is.
    pub(super) fn record(&mut self, step: Step, now: Nanos, is_measured: bool) {
        let one = u64::from(is_measured);
        match step {
            Step::Asked => self.asked += one,
            Step::Lost => self.lost += 1,
            Step::Put => self.puts += one,
            Step::Forked(due) => {
                self.in_time += one;
                record(&mut self.fork, now.saturating_sub(due));
            }
            Step::Dropped(begin) if is_measured => {
                record(&mut self.drop, now.saturating_sub(begin));
            }
            Step::Dropped(_) => {}
        }
    }
}

/// What becomes of forks. `Lost` and `Forked` are told only of those that were asked for while the
/// run was measured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Asked,
    Lost,
    /// When it was due.
    Forked(Nanos),
    Put,
    /// When its drop began.
    Dropped(Nanos),
}

/// A fork that is there.
struct Fork<E: Env> {
    /// From 1.
    number: u64,
    tenant: u32,
    /// Forks between it and its tenant's `main`, itself included.
    depth: u64,
    branch: Tenant<E>,
}

struct Live<E: Env> {
    rng: Rng,
    /// In the order in which they were answered.
    all: VecDeque<Arc<Fork<E>>>,
    by_tenant: BTreeMap<u32, Vec<Arc<Fork<E>>>>,
    /// Places of the keys that each tenant wrote last.
    recent: BTreeMap<u32, VecDeque<u64>>,
}

/// Every fork that is there, and how more come.
pub(super) struct Forks<E: Env> {
    interval_ns: Nanos,
    live_max: u64,
    depth: u64,
    write_percent: u64,
    /// The one tenant that is forked; any where `None`.
    hot: Option<u32>,
    live: Mutex<Live<E>>,
}

impl<E: Env> Forks<E> {
    /// `None` where the plan has no forks.
    pub(super) fn new(plan: &Plan) -> Option<Self> {
        let config: &Config = &plan.config;
        let by_weight = (0_u32..).zip(plan.workload.tenants());
        let hottest = by_weight.max_by_key(|(at, profile)| (profile.weight, u32::MAX - at));
        let live = Live {
            rng: Rng::new(plan.workload.spec().seed, "forks"),
            all: VecDeque::new(),
            by_tenant: BTreeMap::new(),
            recent: BTreeMap::new(),
        };
        (config.fork_interval_ns > 0).then(|| Self {
            interval_ns: config.fork_interval_ns,
            live_max: config.fork_live_max,
            depth: config.fork_depth,
            write_percent: config.fork_write_percent,
            hot: match config.fork_parents {
                ForkParents::Random => None,
                ForkParents::Hot => hottest.map(|(at, _)| at),
            },
            live: Mutex::new(live),
        })
    }

    fn live(&self) -> MutexGuard<'_, Live<E>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to fork next: a tenant, and one of its forks where those are not deep enough yet.
    fn parent(&self, tenant_count: usize) -> (u32, Option<Arc<Fork<E>>>) {
        let mut live = self.live();
        let drawn = live.rng.below(to_u64(tenant_count));
        let tenant = self.hot.or_else(|| u32::try_from(drawn).ok()).unwrap_or(0);
        let newest = live.by_tenant.get(&tenant).and_then(|forks| forks.last());
        (tenant, newest.filter(|fork| fork.depth < self.depth).cloned())
    }

    /// A fork is there; gives back the oldest where there are too many.
    fn add(&self, fork: Fork<E>) -> Option<Arc<Fork<E>>> {
        let (mut live, fork) = (self.live(), Arc::new(fork));
        live.by_tenant.entry(fork.tenant).or_default().push(Arc::clone(&fork));
        live.all.push_back(fork);
        if to_u64(live.all.len()) <= self.live_max {
            return None;
        }
        let oldest = live.all.pop_front()?;
        if let Some(forks) = live.by_tenant.get_mut(&oldest.tenant) {
            forks.retain(|fork| fork.number != oldest.number);
        }
        Some(oldest)
    }

    /// The fork that takes a tenant's put; `None` for its `main`.
    fn taking(&self, tenant: u32, number: u64, place: u64) -> Option<Arc<Fork<E>>> {
        let mut live = self.live();
        let recent = live.recent.entry(tenant).or_default();
        recent.push_back(place);
        if to_u64(recent.len()) > WATCHED_EACH {
            recent.pop_front();
        }
        let forks = live.by_tenant.get(&tenant)?;
        let draw = mix(number);
        if draw.checked_rem(100)? >= self.write_percent {
            return None;
        }
        let at = mix(draw).checked_rem(to_u64(forks.len()))?;
        forks.get(to_usize(at)).cloned()
    }
}

type Visit = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// Forks at equal gaps until the run is over; ends when the last was answered.
pub(super) async fn storm<E: Env>(driver: Arc<Driver<E>>) {
    let Some(interval_ns) = driver.forks.as_ref().map(|forks| forks.interval_ns) else { return };
    let mut running: FuturesUnordered<Visit> = FuturesUnordered::new();
    for number in 1_u64.. {
        let due = driver.at(number.saturating_mul(interval_ns));
        let mut sleep = pin!(driver.env.sleep_until(due));
        poll_fn(|cx| {
            while let Poll::Ready(Some(ended)) = running.poll_next_unpin(cx) {
                driver.gone(ended);
            }
            sleep.as_mut().poll(cx)
        })
        .await;
        if driver.is_over() {
            break;
        }
        running.push(Box::pin(fork(Arc::clone(&driver), number, due)));
    }
    while let Some(ended) = running.next().await {
        driver.gone(ended);
    }
    let last = driver.forks.as_ref().map(|forks| core::mem::take(&mut forks.live().all));
    for fork in last.into_iter().flatten() {
        driver.gone(look_again(&driver, &fork).await);
    }
}

/// One fork, and the drop of the one that it replaces.
async fn fork<E: Env>(driver: Arc<Driver<E>>, number: u64, due: Nanos) -> Result<(), Error> {
    let Some(forks) = &driver.forks else { return Ok(()) };
    let is_counted = driver.fork_step(Step::Asked);
    let (tenant, from) = forks.parent(driver.tenants.len());
    let main = driver.tenants.get(to_usize(u64::from(tenant)));
    let parent = from.as_ref().map(|fork| &fork.branch).or(main);
    let parent = parent.ok_or_else(|| Error::UnknownTenant(tenant.to_string()))?;
    let mut reads = begin_reads(&driver, tenant, from.as_deref());
    let forked = parent.fork(&format!("f{number:07}")).await;
    for read in reads.iter_mut().flatten() {
        driver.check(|check| check.close_read(read));
    }
    let branch = match forked {
        Err(Error::Dropped) if from.is_some() => {
            if is_counted {
                driver.fork_step(Step::Lost);
            }
            return Ok(());
        }
        forked => forked?,
    };
    if is_counted {
        driver.fork_step(Step::Forked(due));
    }
    let depth = from.map_or(1, |from| from.depth.saturating_add(1));
    let fork = Fork { number, tenant, depth, branch };
    for read in reads.iter().flatten() {
        look_first(&driver, &fork, read).await?;
    }
    if let Some(oldest) = forks.add(fork) {
        look_again(&driver, &oldest).await?;
        let begin = driver.env.now();
        driver.db.drop_branch(&oldest.branch.full_name()).await?;
        driver.fork_step(Step::Dropped(begin));
        driver.check(|check| check.forget(oldest.number));
    }
    Ok(())
}

/// Begins to read the keys of the parent that are to be watched in a fork; nothing where there is
/// no reference model.
fn begin_reads<E: Env>(
    driver: &Driver<E>,
    tenant: u32,
    from: Option<&Fork<E>>,
) -> Option<Vec<Read>> {
    let forks = driver.forks.as_ref()?;
    driver.check(|check| {
        let mut places = if let Some(from) = from {
            check.watched(from.number)
        } else {
            let live = &mut *forks.live();
            let key_count = driver.workload.tenant(tenant).map_or(0, |t| t.key_count);
            let any = (0..WATCHED_EACH).map(|_| live.rng.below(key_count));
            let any = any.filter_map(|key| driver.workload.key_place(tenant, key));
            let mut places: Vec<u64> = any.collect();
            places.extend(live.recent.get(&tenant).into_iter().flatten());
            places
        };
        places.sort_unstable();
        places.dedup();
        let branch = from.map_or(0, |from| from.number);
        places.into_iter().map(|place| check.begin_read((branch, place))).collect()
    })
}

/// The key of a tenant at a place among all keys, and its bytes.
fn key_at<E: Env>(driver: &Driver<E>, tenant: u32, place: u64) -> (u64, Vec<u8>) {
    let first = driver.workload.key_place(tenant, 0).unwrap_or(0);
    let (key, mut bytes) = (place.saturating_sub(first), Vec::new());
    driver.workload.fill_key(tenant, key, &mut bytes);
    (key, bytes)
}

/// Reads a key of a fork to which nobody wrote yet: it gives what the parent held at an instant of
/// the fork.
async fn look_first<E: Env>(driver: &Driver<E>, fork: &Fork<E>, read: &Read) -> Result<(), Error> {
    let place = read.place();
    let (key, bytes) = key_at(driver, fork.tenant, place);
    let value = fork.branch.get(&bytes).await?;
    driver.check(|check| {
        let of = (&*driver.workload, fork.tenant, key);
        if let Some(number) = check.compare(read, of, value.as_deref()) {
            check.watch((fork.number, place), number);
        }
    });
    Ok(())
}

/// Reads the watched keys of a fork.
async fn look_again<E: Env>(driver: &Driver<E>, fork: &Fork<E>) -> Result<(), Error> {
    for place in driver.check(|check| check.watched(fork.number)).unwrap_or_default() {
        let (key, bytes) = key_at(driver, fork.tenant, place);
        let read = driver.check(|check| check.begin_read((fork.number, place)));
        let value = fork.branch.get(&bytes).await?;
        if let Some(read) = read {
            let of = (&*driver.workload, fork.tenant, key);
            driver.check(|check| check.end_read(read, of, value.as_deref()));
        }
    }
    Ok(())
}

impl<E: Env> Driver<E> {
    /// Puts to one of the tenant's forks, where there is one and it is its turn; whether it did.
    pub(super) async fn put_to_fork(
        &self,
        tenant: u32,
        (number, place): (u64, u64),
        (key, value): (&[u8], &[u8]),
    ) -> Result<bool, Error> {
        let fork = self.forks.as_ref().and_then(|forks| forks.taking(tenant, number, place));
        let Some(fork) = fork else { return Ok(false) };
        let at = (fork.number, place);
        self.check(|check| check.begin_write(at, number, false));
        match fork.branch.put(key, value, self.write_options).await {
            Ok(_) => {
                self.check(|check| check.end_write(at, number));
                self.fork_step(Step::Put);
                Ok(true)
            }
            // It was dropped meanwhile: the put is one of the tenant's own.
            Err(Error::Dropped) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
