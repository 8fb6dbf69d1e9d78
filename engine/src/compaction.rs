//! A compaction: tables of one tree are merged into a level by one edit.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::env::{Env, IoClass, Work};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::flush::{TableWriter, check_count, is_gone, remove_begun};
use crate::gc;
use crate::iter::{self, Edge, LevelIter, MergeIter, ScanBounds, SortedIter};
use crate::policy::compaction::manual::{self, KeyRange};
use crate::policy::view::{ChangeKind, CompactionPlan, LEVEL_COUNT};
use crate::retain::{Retention, Verdict};
use crate::shared::Shared;
use crate::table::{ReadContext, Step, TableMeta};
use crate::types::{Entry, FileNumber, TableId};
use crate::version::Version;
use crate::version::edit::Edit;
use crate::version::manifest::Install;
use crate::version::tree::Tree;
use crate::write::stalls;

const LAST_LEVEL: u32 = LEVEL_COUNT - 1;

const READAHEAD_BYTES: u32 = 256 * 1024;

#[derive(Debug, Default)]
struct Tally {
    input: u64,
    output: u64,
    dropped: u64,
    output_bytes: u64,
}

/// Runs what somebody waits for, else what the compaction policy wants of a tree now; nothing where
/// it wants nothing.
///
/// # Errors
///
/// The world's, or `Corruption` of an input. The tree is unchanged; tables that were begun are
/// removed at the next open, since a failed edit that names them may still come back.
pub(crate) async fn run<E: Env>(shared: &Arc<Shared<E>>, tree: &Arc<Tree>) -> Result<()> {
    let wishes = shared.jobs.take_manual_compactions(tree.id);
    if !wishes.is_empty() {
        let mut done: Vec<(&KeyRange, Result<()>)> = Vec::new();
        for wish in &wishes {
            let outcome = match done.iter().find(|(range, _)| **range == wish.range) {
                Some((_, outcome)) => outcome.clone(),
                None => run_range(shared, tree, &wish.range).await,
            };
            wish.end(outcome.clone());
            done.push((&wish.range, outcome));
        }
        // Who waits is told that the database closes; the job did not fail.
        let outcomes = done.into_iter().map(|(_, outcome)| outcome);
        return outcomes.filter(|o| !matches!(o, Err(Error::Closed))).collect();
    }
    let plan = {
        let view = shared.levels_view(tree);
        let mut policy = shared.compaction_policy.lock();
        // The policy keeps nothing of a tree once that is dropped.
        if tree.is_dropped() { None } else { policy.decide(&view) }
    };
    match plan {
        Some(plan) => execute(shared, tree, &plan).await,
        None => Ok(()),
    }
}

/// Takes a range down to the last level, step by step, and rewrites it there.
async fn run_range<E: Env>(
    shared: &Arc<Shared<E>>,
    tree: &Arc<Tree>,
    range: &KeyRange,
) -> Result<()> {
    let mut is_rewritten = false;
    for level in 0..LAST_LEVEL {
        if shared.is_closing() {
            return Err(Error::Closed);
        }
        // Each step sees the outcome of the one before it. What is flushed meanwhile is newer than
        // the wish.
        if let Some(plan) = manual::step(&shared.levels_view(tree), level, range) {
            is_rewritten = plan.level_to == LAST_LEVEL;
            execute(shared, tree, &plan).await?;
        }
    }
    if is_rewritten {
        return Ok(());
    }
    match manual::rewrite_last(&shared.levels_view(tree), range) {
        Some(plan) => execute(shared, tree, &plan).await,
        None => Ok(()),
    }
}

/// The tables that a plan names, newest data first: L0 as it stands, then deeper levels.
fn inputs_of(version: &Version, plan: &CompactionPlan) -> Result<Vec<(u32, Arc<TableMeta>)>> {
    let ids: BTreeSet<(u32, TableId)> = plan.inputs.iter().copied().collect();
    let inputs: Vec<(u32, Arc<TableMeta>)> = version
        .tables()
        .filter(|(level, t)| ids.contains(&(*level, t.id)))
        .map(|(level, t)| (level, Arc::clone(t)))
        .collect();
    let fits = plan.level_to > 0 && plan.level_to <= LAST_LEVEL;
    if inputs.len() == ids.len() && !inputs.is_empty() && fits {
        return Ok(inputs);
    }
    Err(Error::InvalidArgument(format!(
        "a compaction of tree {} names {} tables of which it has {}, and level {}",
        plan.tree,
        ids.len(),
        inputs.len(),
        plan.level_to
    )))
}

/// Runs a plan.
///
/// # Errors
///
/// As for [`run`].
pub(crate) async fn execute<E: Env>(
    shared: &Arc<Shared<E>>,
    tree: &Arc<Tree>,
    plan: &CompactionPlan,
) -> Result<()> {
    let start_ns = shared.env.now();
    let version = Arc::clone(&tree.view().version);
    if tree.is_dropped() {
        return Ok(());
    }
    let inputs = inputs_of(&version, plan)?;
    let ids: Vec<TableId> = inputs.iter().map(|(_, t)| t.id).collect();
    shared.emit(&Event::CompactionBegin {
        tree: tree.id,
        level_to: plan.level_to,
        input_bytes: inputs.iter().map(|(_, t)| t.bytes).sum(),
    });
    let mut tally = Tally::default();
    let added: Vec<(u32, TableMeta)> = if plan.trivial_move {
        inputs.iter().map(|(_, t)| (plan.level_to, TableMeta::clone(t))).collect()
    } else {
        let mut begun = Vec::new();
        let left = version.older_beside(&ids.iter().copied().collect());
        match merge(shared, tree, (plan, &inputs, &left), (&mut tally, &mut begun)).await {
            Ok(added) => added,
            Err(error) => {
                remove_begun(shared, &begun).await;
                return Err(error);
            }
        }
    };
    if let Some(oldest) = inputs.iter().filter_map(|(_, t)| t.tombstones_seen.known()).min() {
        for (_, table) in added.iter().filter(|(_, t)| t.tombstones > 0) {
            table.tombstones_seen.inherit(oldest);
        }
    }
    let edit = Edit::Compact { tree: tree.id, removed: ids, added };
    let garbage = Arc::new(Mutex::new(Vec::new()));
    let install = install(edit.clone(), tree, plan.trivial_move, &garbage);
    shared.manifest.commit(vec![edit], Some(install)).await?;
    shared.garbage.lock().extend(core::mem::take(&mut *garbage.lock()));
    shared.counters.compaction_count.add(1);
    shared.counters.trivial_move_count.add(u64::from(plan.trivial_move));
    shared.counters.compaction_bytes.add(tally.output_bytes);
    shared.pressure.on_compacted(tree);
    shared.estimate_pending(tree);
    let bytes_in = |l0: bool| {
        inputs.iter().filter(|(level, _)| !l0 || *level == 0).map(|(_, t)| t.bytes).sum::<u64>()
    };
    let change = ChangeKind::Compacted {
        l0_input_bytes: bytes_in(true),
        input_bytes: bytes_in(false),
        output_bytes: tally.output_bytes,
        elapsed_ns: shared.env.now().saturating_sub(start_ns),
    };
    stalls::observe(shared, tree, change);
    // Who is woken asks a policy that knows of it.
    tree.released.raise();
    shared.emit(&Event::CompactionEnd {
        tree: tree.id,
        output_bytes: tally.output_bytes,
        input_entries: tally.input,
        output_entries: tally.output,
        dropped_entries: tally.dropped,
        trivial_move: plan.trivial_move,
        elapsed_ns: shared.env.now().saturating_sub(start_ns),
    });
    drop((inputs, version));
    gc::collect_or_later(shared).await;
    Ok(())
}

/// Swaps the tables in one step; tells which ones nobody needs any more.
fn install(
    edit: Edit,
    tree: &Arc<Tree>,
    trivial_move: bool,
    garbage: &Arc<Mutex<Vec<Arc<TableMeta>>>>,
) -> Install {
    let (tree, garbage) = (Arc::clone(tree), Arc::clone(garbage));
    Box::new(move |set| {
        // Drops are installed by the same leader, so this does not change in between.
        if tree.is_dropped() {
            if let Edit::Compact { added, .. } = edit
                && !trivial_move
            {
                *garbage.lock() = added.into_iter().map(|(_, t)| Arc::new(t)).collect();
            }
        } else if let Ok(applied) = set.apply(&edit) {
            *garbage.lock() = applied.removed_tables;
        }
    })
}

/// Counts what a source hands out: the merge drops an entry that two sources hold, and these count
/// as read.
#[derive(Debug)]
struct Counted<I> {
    source: I,
    count: Arc<AtomicU64>,
}

impl<I: SortedIter> SortedIter for Counted<I> {
    fn seek(&mut self, edge: &Edge) {
        self.source.seek(edge);
    }

    fn next_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        let step = self.source.next_step(ctx)?;
        if let Step::Ready(Some(_)) = &step {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(step)
    }
}

/// One source for each sorted run: a table of L0, or a level.
fn sources<E: Env>(
    shared: &Shared<E>,
    inputs: &[(u32, Arc<TableMeta>)],
    count: &Arc<AtomicU64>,
) -> Vec<Box<dyn SortedIter>> {
    let same_run = |a: &(u32, Arc<TableMeta>), b: &(u32, Arc<TableMeta>)| a.0 > 0 && a.0 == b.0;
    let runs = inputs.chunk_by(same_run);
    runs.map(|run| {
        let tables: Vec<Arc<TableMeta>> = run.iter().map(|(_, t)| Arc::clone(t)).collect();
        let source = LevelIter::new(Arc::clone(&shared.space), tables, ScanBounds::default());
        Box::new(Counted { source, count: Arc::clone(count) }) as Box<dyn SortedIter>
    })
    .collect()
}

async fn merge<E: Env>(
    shared: &Arc<Shared<E>>,
    tree: &Tree,
    (plan, inputs, left): (&CompactionPlan, &[(u32, Arc<TableMeta>)], &Version),
    (tally, begun): (&mut Tally, &mut Vec<FileNumber>),
) -> Result<Vec<(u32, TableMeta)>> {
    let read = Arc::new(AtomicU64::new(0));
    let mut iter = MergeIter::new(sources(shared, inputs, &read));
    let mut ctx = ReadContext::bulk(IoClass::Compaction, READAHEAD_BYTES);
    let mut retention = Retention::new(shared.snapshot_seqs());
    let (mut out, mut kept) = (Vec::new(), 0_u64);
    let mut writer: Option<TableWriter<E>> = None;
    let mut last: Option<Entry> = None;
    while let Some(entry) = iter::next(&mut iter, &shared.space, &mut ctx).await? {
        shared.env.charge(Work::MergeEntry);
        let keep = match retention.judge(&entry) {
            Verdict::Keep => true,
            Verdict::KeepTombstone => left.may_hold(&entry.key),
            Verdict::Drop => false,
        };
        if !keep || is_gone(shared, &entry.key)? {
            continue;
        }
        kept += 1;
        // Cut between keys only: versions of one key stay in one table.
        let new_key = last.as_ref().is_none_or(|l| l.key != entry.key);
        let full = |w: &TableWriter<E>| w.estimated_bytes() >= shared.options.table_bytes_max;
        if new_key && let Some(done) = writer.take_if(|w| full(w)) {
            out.push((plan.level_to, done.finish().await?));
        }
        let to = match &mut writer {
            Some(w) => w,
            None => {
                writer.insert(TableWriter::create(shared, tree, IoClass::Compaction, begun).await?)
            }
        };
        to.add(&entry).await?;
        last = Some(entry);
    }
    if let Some(writer) = writer {
        out.push((plan.level_to, writer.finish().await?));
    }
    tally.input = read.load(Ordering::Relaxed);
    tally.dropped = tally.input.saturating_sub(kept);
    tally.output = out.iter().map(|(_, t)| t.entries).sum();
    tally.output_bytes = out.iter().map(|(_, t)| t.bytes).sum();
    check_tally(&shared.dir, inputs, tally)?;
    if !out.is_empty() {
        shared.env.sync_dir(&shared.dir).await?;
    }
    Ok(out)
}

/// What the manifest says of the inputs is what was read, and all of it was written or dropped on
/// purpose; else an input that ended early would take its rest with it when it is removed.
fn check_tally(dir: &Path, inputs: &[(u32, Arc<TableMeta>)], tally: &Tally) -> Result<()> {
    let said = inputs.iter().map(|(_, t)| t.entries).sum();
    check_count(dir, "the input of a compaction", (said, tally.input))?;
    let kept = tally.input.saturating_sub(tally.dropped);
    check_count(dir, "the output of a compaction", (kept, tally.output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_do_not_add_up_are_refused() {
        let input = |entries| (0, Arc::new(TableMeta { entries, ..TableMeta::default() }));
        let inputs = [input(3), input(4)];
        let check = |input, dropped, output| {
            let tally = Tally { input, output, dropped, output_bytes: 0 };
            check_tally(Path::new("/db"), &inputs, &tally)
        };
        assert!(check(7, 2, 5).is_ok());
        // An input that ended early, and an output that lost an entry.
        assert!(matches!(check(6, 2, 4), Err(Error::Corruption { .. })));
        assert!(matches!(check(7, 2, 4), Err(Error::Corruption { .. })));
    }
}
