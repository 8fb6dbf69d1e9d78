//! Opening: recovery, then the live state that all verbs share.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::budget::Budget;
use crate::disk_space::DiskSpace;
use crate::env::{Env, Site};
use crate::error::{Error, Result};
use crate::events::Listener;
use crate::group::GroupQueue;
use crate::jobs::Jobs;
use crate::log_space::LogSpace;
use crate::metrics::Counters;
use crate::options::Options;
use crate::policy::view::ChangeKind;
use crate::policy::{compaction, stall};
use crate::pressure::Pressure;
use crate::recovery;
use crate::replay::{self, ReplayTo};
use crate::shared::Shared;
use crate::signal::Signal;
use crate::space;
use crate::table::TableSpace;
use crate::types::{FileNumber, Nanos};
use crate::version::edit::Edit;
use crate::version::manifest::Manifest;
use crate::version::set::VersionSet;
use crate::waiting::WaitingRoom;
use crate::wal::segment_path;
use crate::wal::writer::{Predecessor, SegmentWriter, Spare};
use crate::write::stalls;

/// Creates the directory, and makes its name durable and those of the parents that were missing.
///
/// # Errors
///
/// The world's. Some parents may have been created.
pub(crate) async fn create_dir<E: Env>(env: &E, dir: &Path) -> Result<()> {
    let mut parents: Vec<PathBuf> = Vec::new();
    let mut at = dir;
    while let Some(parent) = at.parent() {
        let shown = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        parents.push(shown.to_owned());
        if env.list(shown).await.is_ok() {
            break;
        }
        at = parent;
    }
    env.create_dir(dir).await?;
    for parent in parents.iter().rev() {
        match env.sync_dir(parent).await {
            // A parent that this process may not open, or that the world does not show, was there
            // before.
            Ok(())
            | Err(Error::Io { kind: ErrorKind::NotFound | ErrorKind::PermissionDenied, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Recovers the database in `dir`.
///
/// # Errors
///
/// `InvalidArgument` for options that do not fit the database, `Corruption`, the world's. What was
/// acknowledged is on disk as it was.
pub(crate) async fn shared<E: Env>(
    env: E,
    dir: &Path,
    options: Options,
    listener: Option<Arc<dyn Listener>>,
) -> Result<Arc<Shared<E>>> {
    let recovered = recovery::read_versions(&env, dir, &options).await?;
    // Before anything is created: on a full disk these files may be what fills it.
    recovery::remove_unmentioned(&env, dir, &recovered).await?;
    let set = Arc::new(recovered.set);
    let pressure = Pressure::new(&options, env.random_u64(Site("flush-policy")))?;
    let budget = Arc::new(Budget::new(options.budget_bytes));
    let log = LogSpace::default();
    let now = env.now();
    show_trees::<E>(&set, &pressure, (&options, now));
    let settle = true;
    let to = ReplayTo { set: &set, budget: &budget, log: &log, pressure: &pressure, now, settle };
    let replayed = replay::replay(&env, dir, &recovered.names, &to).await?;
    let counters = Arc::new(Counters::default());
    let next_file = Arc::new(AtomicU64::new(recovered.next_file));
    let facts = (Arc::clone(&counters), Arc::clone(&next_file));
    let manifest = Manifest::new(env.clone(), dir, Arc::clone(&set), facts, recovered.manifest);
    // A spare of the process before us, or the like: what it takes may be all there is.
    recovery::remove_unchained(&env, dir, &recovered.names, &replayed.segments).await;
    let begun = begin_manifest(&manifest, &set, recovered.manifest).await?;
    let number = next_file.fetch_add(1, Ordering::Relaxed);
    let wal = first_segment(&env, dir, &options, (number, replayed.newest)).await?;
    if wal.segment() == number {
        log.add_segment(number, wal.valid_bytes());
    }
    if begun {
        let live = (&*set, &replayed.segments);
        recovery::remove_orphans(&env, dir, &recovered.names, live).await;
    }
    let space =
        TableSpace::new(env.clone(), dir, options.block_cache_bytes, options.open_tables_max);
    let shared = Arc::new(Shared {
        dir: dir.to_owned(),
        listener,
        counters,
        manifest,
        space: Arc::new(space),
        budget,
        pressure,
        log,
        disk: DiskSpace::new(&options),
        spare: Mutex::new(None),
        jobs: Jobs::default(),
        waiting: WaitingRoom::default(),
        commits: GroupQueue::default(),
        wal: Mutex::new(Some(wal)),
        stall_policy: Mutex::new(stall::build(&options.stall_policy)?),
        eased: Signal::new(),
        shares_at: AtomicU64::new(0),
        compaction_policy: Mutex::new(compaction::build(&options.compaction_policy)?),
        next_file,
        next_seq: AtomicU64::new(replayed.last_seq + 1),
        published: AtomicU64::new(replayed.last_seq),
        synced: AtomicU64::new(replayed.last_seq),
        snapshots: Mutex::new(BTreeMap::new()),
        garbage: Mutex::new(Vec::new()),
        dropped: Mutex::new(Vec::new()),
        creating: Mutex::new(BTreeSet::new()),
        read_only: Mutex::new(None),
        closing: AtomicBool::new(false),
        sync_due: AtomicBool::new(false),
        tick: Signal::new(),
        job_ended: Signal::new(),
        set,
        options,
        env,
    });
    shared.jobs.add_flushes(&replayed.to_flush, false);
    tell_policies(&shared);
    space::ask(&shared).await;
    Ok(shared)
}

/// The trees, to the flush policy.
pub(crate) fn show_trees<E: Env>(
    set: &VersionSet,
    pressure: &Pressure,
    (options, now): (&Options, Nanos),
) {
    for tree in set.trees() {
        let cap = options.memtable_cap_bytes(Shared::<E>::tenants_of(&tree));
        pressure.add_tree(&tree, cap, now);
    }
}

/// The trees as they are, to the policies of compactions and stalls.
fn tell_policies<E: Env>(shared: &Shared<E>) {
    for tree in shared.set.trees() {
        shared.schedule_compaction(&tree, 0);
        stalls::observe(shared, &tree, ChangeKind::Opened);
    }
}

/// Begins a new manifest, so that nothing is appended behind a torn tail. Returns whether that was
/// done: on a full disk the next commit does it, and what is there can be read without.
async fn begin_manifest<E: Env>(
    manifest: &Manifest<E>,
    set: &VersionSet,
    live: Option<FileNumber>,
) -> Result<bool> {
    let floor = Edit::WalFloor { segment: set.wal_floor() };
    match manifest.commit(vec![floor], None).await {
        Ok(()) => Ok(true),
        Err(error) if error.is_storage_full() && live.is_some() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The segment that takes the next records. On a full disk that is the newest one as it was read,
/// which takes none: the first write that the disk has space for begins another.
async fn first_segment<E: Env>(
    env: &E,
    dir: &Path,
    options: &Options,
    (number, newest): (FileNumber, Predecessor),
) -> Result<SegmentWriter<E>> {
    let begun = match Spare::create(env, dir, number, options.wal_segment_bytes).await {
        Ok(spare) => SegmentWriter::begin(env, spare, newest, &[]).await,
        Err(error) => Err(error),
    };
    match begun {
        Err(error) if error.is_storage_full() && newest.segment > 0 => {
            drop(env.remove(&segment_path(dir, number)).await);
            Ok(SegmentWriter::ended(newest))
        }
        other => other,
    }
}
