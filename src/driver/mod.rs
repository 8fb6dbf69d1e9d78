//! Feeds a workload to a database and times every operation from its intended arrival.
//!
//! The same driver runs in every world: it knows time and tasks only through the world's
//! [`Env`]. In an open loop operations arrive whether or not earlier ones were answered, and one
//! that waits is put aside, so that a stalled tenant holds up nobody but itself; in a closed loop
//! each client waits for its answer. Beside either a tenant may ask flat out, tenants may come and
//! go, and branches may be forked. A run is cut by user bytes into fills of the budget, of which
//! the first are not measured.

mod check;
mod churn;
mod forks;
mod gauges;
mod lane;
mod load;
mod measure;
mod recorder;
mod state;
mod tally;
mod wedge;

use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_engine::env::Env;
use forebay_engine::types::Nanos;
use forebay_engine::{Db, Error, Tenant, WriteOptions};
use forebay_workloads::Workload;

use crate::config::Config;
use check::Check;
use forks::Forks;
use state::State;
use wedge::Patience;

pub use check::Broken;
pub use churn::{ChurnTally, MoveTally};
pub use forks::ForkTally;
pub use gauges::{Gauges, tree_name};
pub use load::load;
pub use measure::{Interval, Measured, TenantTally};
pub use recorder::Recording;
pub use tally::Tally;
pub use wedge::Stop;

/// A tenant without a write for this long holds its memtable's bytes for nothing.
const IDLE_NS: Nanos = 10_000_000_000;

/// Samples in the time that a fill takes, where nothing else is asked for.
const SAMPLES_PER_FILL: u64 = 20;

/// What lanes and clients share.
pub(crate) struct Driver<E: Env> {
    pub(crate) env: E,
    pub(crate) db: Db<E>,
    pub(crate) workload: Arc<Workload>,
    pub(crate) tenants: Vec<Tenant<E>>,
    pub(crate) tally: Arc<Tally>,
    /// How every write is asked for.
    pub(crate) write_options: WriteOptions,
    state: Mutex<State>,
    /// Where answers are compared with a reference model.
    check: Option<Mutex<Check>>,
    /// Where branches are forked beside the load.
    forks: Option<Forks<E>>,
    /// The database's directory.
    dir: PathBuf,
    /// Visitors move out before they are dropped.
    visitors_move: bool,
}

/// What a run is made of, beside its database.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The arm's configuration.
    pub config: Config,
    /// The workload with the run's seed.
    pub workload: Arc<Workload>,
    /// Tasks that share the arrivals of an open loop.
    pub lane_count: u64,
}

impl<E: Env> Driver<E> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the model, where there is one.
    fn check<R>(&self, f: impl FnOnce(&mut Check) -> R) -> Option<R> {
        let check = self.check.as_ref()?;
        Some(f(&mut check.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Runs a plan's workload against the loaded database of a directory, whose listener is `tally`.
///
/// # Errors
///
/// The first error that an operation met, after the others were stopped and waited for; or who
/// waits, where writers wait for nothing: their tasks are left to themselves.
pub async fn measure<E: Env>(
    env: E,
    (db, dir): (Db<E>, &Path),
    plan: &Plan,
    tally: Arc<Tally>,
) -> Result<Measured, Stop> {
    let find = |name: &str| db.tenant(name).ok_or_else(|| Error::UnknownTenant(name.to_owned()));
    let profiles = plan.workload.tenants();
    let tenants = profiles.iter().map(|p| find(&p.name)).collect::<Result<Vec<_>, _>>()?;
    tally.know(&tenants, profiles);
    let state = State::new(plan, env.now());
    let driver = Arc::new(Driver {
        env: env.clone(),
        db,
        workload: Arc::clone(&plan.workload),
        tenants,
        tally,
        write_options: WriteOptions { sync: plan.config.sync_writes > 0, tag: 0 },
        state: Mutex::new(state),
        check: (plan.config.check > 0).then(|| Mutex::new(Check::new(&plan.workload))),
        forks: Forks::new(plan),
        dir: dir.to_owned(),
        visitors_move: plan.config.visitor_moves > 0,
    });
    let percent = plan.config.two_phase_percent;
    phase(&driver, plan, plan.config.offered_ops_per_s).await?;
    if percent > 0
        && let Some(ops_per_s) = driver.next_phase(percent)
    {
        phase(&driver, plan, ops_per_s).await?;
    }
    Ok(driver.finish()?)
}

/// Runs from a cold start of the record to the end that the stop rule sets: an open loop where
/// operations arrive by themselves, else a closed one.
async fn phase<E: Env>(driver: &Arc<Driver<E>>, plan: &Plan, ops_per_s: u64) -> Result<(), Stop> {
    let env = &driver.env;
    driver.begin_if_warm();
    let tasks = start(driver, plan, ops_per_s > 0);
    let sample_every = sample_interval(plan, ops_per_s);
    let mut ended = pin!(async {
        for task in tasks {
            task.await;
        }
    });
    let mut next = env.now().saturating_add(sample_every);
    let mut patience = Patience::new(driver.db.watch());
    loop {
        let mut sleep = pin!(env.sleep_until(next));
        let over = poll_fn(|cx| {
            if ended.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            sleep.as_mut().poll(cx).map(|()| false)
        })
        .await;
        if over {
            return Ok(());
        }
        patience.look()?;
        next = driver.sample().max(env.now()).saturating_add(sample_every);
    }
}

fn start<E: Env>(driver: &Arc<Driver<E>>, plan: &Plan, open: bool) -> Vec<E::Task> {
    let count = if open { plan.lane_count } else { plan.config.client_count };
    let mut tasks = Vec::new();
    for _ in 0..count.max(1) {
        let driver = Arc::clone(driver);
        let env = driver.env.clone();
        tasks.push(if open {
            env.spawn("lane", move || lane::open(driver))
        } else {
            env.spawn("client", move || lane::closed(driver))
        });
    }
    for _ in 0..plan.workload.flat_out().map_or(0, |who| who.client_count) {
        let (driver, env) = (Arc::clone(driver), driver.env.clone());
        tasks.push(env.spawn("flat-out", move || lane::flat_out(driver)));
    }
    if let Some(churn) = plan.workload.churn() {
        let (driver, env) = (Arc::clone(driver), driver.env.clone());
        tasks.push(env.spawn("visitors", move || churn::visitors(driver, churn)));
    }
    if driver.forks.is_some() {
        let (driver, env) = (Arc::clone(driver), driver.env.clone());
        tasks.push(env.spawn("forks", move || forks::storm(driver)));
    }
    tasks
}

/// Time between two samples: as asked for, else a part of the time that a fill is meant to take.
fn sample_interval(plan: &Plan, ops_per_s: u64) -> Nanos {
    const SECOND_NS: u64 = 1_000_000_000;
    let config = &plan.config;
    if config.sample_interval_ns > 0 {
        return config.sample_interval_ns;
    }
    let bytes_per_s = write_bytes_per_s(&plan.workload, ops_per_s);
    let fill_ns = u128::from(config.options.budget_bytes)
        .saturating_mul(u128::from(SECOND_NS))
        .checked_div(u128::from(bytes_per_s));
    let fill_ns = fill_ns.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0);
    let derived = fill_ns.div_euclid(SAMPLES_PER_FILL);
    if derived == 0 { SECOND_NS } else { derived.max(1_000_000) }
}

/// User bytes that an open loop's writes bring each second in the long run.
pub fn write_bytes_per_s(workload: &Workload, ops_per_s: u64) -> u64 {
    // Write fractions in millionths, so that every machine rounds alike.
    let mut weights = 0_u128;
    let mut bytes = 0_u128;
    for tenant in workload.tenants() {
        let millionths = crate::number::from_f64(tenant.write_fraction * 1e6).unwrap_or(0);
        weights += u128::from(tenant.weight);
        bytes = bytes.saturating_add(
            u128::from(tenant.weight)
                .saturating_mul(u128::from(millionths))
                .saturating_mul(u128::from(tenant.entry_bytes())),
        );
    }
    // An operation's mean bytes in 2^-20 bytes: weights of 2^40 and more leave no room for the
    // rate.
    let mean = bytes.checked_div(weights.saturating_mul(1_000_000) >> 20).unwrap_or(0);
    u64::try_from(mean.saturating_mul(u128::from(ops_per_s)) >> 20).unwrap_or(u64::MAX)
}
