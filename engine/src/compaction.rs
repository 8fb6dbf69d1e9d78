//! A compaction: tables of one tree are merged into a level by one edit.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::env::{Env, IoClass, Work};
use crate::error::Result;
use crate::events::Event;
use crate::flush::{TableWriter, is_gone};
use crate::gc;
use crate::iter::{self, MergeIter, ScanBounds, SortedIter, TableIter};
use crate::policy::view::CompactionPlan;
use crate::retain::{Retention, Verdict};
use crate::shared::Shared;
use crate::table::{ReadContext, TableMeta};
use crate::types::{Entry, TableId};
use crate::version::edit::Edit;
use crate::version::manifest::Install;
use crate::version::set::Applied;
use crate::version::tree::Tree;
use crate::version::{LEVEL_COUNT, Version};

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
    let wishes = shared.jobs.take_full_compactions(tree.id);
    if !wishes.is_empty() {
        let outcome = match full_plan(tree) {
            Some(plan) => execute(shared, tree, &plan).await,
            None => Ok(()),
        };
        wishes.iter().for_each(|wish| wish.end(outcome.clone()));
        return outcome;
    }
    let plan = {
        let view = shared.levels_view(tree);
        shared.compaction_policy.lock().decide(&view)
    };
    match plan {
        Some(plan) => execute(shared, tree, &plan).await,
        None => Ok(()),
    }
}

/// Every table of a tree into the last level, rewritten even where a move would do: what is asked
/// for is that tombstones and hidden versions go. `None` for a tree without tables.
fn full_plan(tree: &Tree) -> Option<CompactionPlan> {
    let version = Arc::clone(&tree.view().version);
    let inputs: Vec<(u32, TableId)> = version.tables().map(|(level, t)| (level, t.id)).collect();
    let level_to = u32::try_from(LEVEL_COUNT - 1).unwrap_or(u32::MAX);
    let plan = CompactionPlan { tree: tree.id, inputs, level_to, trivial_move: false };
    (!plan.inputs.is_empty()).then_some(plan)
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
    let began = shared.env.now();
    let version = Arc::clone(&tree.view().version);
    let ids: Vec<TableId> = plan.inputs.iter().map(|(_, id)| *id).collect();
    // Newest data first: L0 as it stands, then deeper levels.
    let inputs: Vec<Arc<TableMeta>> =
        version.tables().filter(|(_, t)| ids.contains(&t.id)).map(|(_, t)| Arc::clone(t)).collect();
    shared.emit(&Event::CompactionBegin {
        tree: tree.id,
        level_to: plan.level_to,
        input_bytes: inputs.iter().map(|t| t.bytes).sum(),
    });
    let mut tally = Tally::default();
    let added = if plan.trivial_move {
        inputs.iter().map(|t| (plan.level_to, TableMeta::clone(t))).collect()
    } else {
        merge(shared, tree, (plan, &inputs, &version), &mut tally).await?
    };
    let outputs: Vec<(u32, TableMeta)> = added;
    let edit = Edit::Compact { tree: tree.id, removed: ids, added: outputs.clone() };
    let garbage = Arc::new(Mutex::new(Applied::default()));
    shared.manifest.commit(vec![edit.clone()], Some(install(edit, &garbage))).await?;
    let applied = core::mem::take(&mut *garbage.lock());
    shared.garbage.lock().extend(applied.removed_tables);
    if tree.is_dropped() && !plan.trivial_move {
        shared.garbage.lock().extend(outputs.into_iter().map(|(_, t)| Arc::new(t)));
    }
    shared.counters.compaction_count.add(1);
    shared.counters.compaction_bytes.add(tally.output_bytes);
    shared.pressure.on_compacted(tree);
    tree.released.raise();
    shared.emit(&Event::CompactionEnd {
        tree: tree.id,
        output_bytes: tally.output_bytes,
        input_entries: tally.input,
        output_entries: tally.output,
        dropped_entries: tally.dropped,
        elapsed_ns: shared.env.now().saturating_sub(began),
    });
    drop((inputs, version));
    gc::collect(shared).await;
    Ok(())
}

fn install(edit: Edit, garbage: &Arc<Mutex<Applied>>) -> Install {
    let garbage = Arc::clone(garbage);
    Box::new(move |set| {
        // A compaction of a tree that was dropped meanwhile changes nothing; its outputs are
        // orphans.
        if let Ok(applied) = set.apply(&edit) {
            *garbage.lock() = applied;
        }
    })
}

async fn merge<E: Env>(
    shared: &Arc<Shared<E>>,
    tree: &Tree,
    (plan, inputs, version): (&CompactionPlan, &[Arc<TableMeta>], &Version),
    tally: &mut Tally,
) -> Result<Vec<(u32, TableMeta)>> {
    let sources = inputs.iter().map(|table| {
        let space = Arc::clone(&shared.space);
        let iter = TableIter::new(space, Arc::clone(table), ScanBounds::default());
        Box::new(iter) as Box<dyn SortedIter>
    });
    let mut iter = MergeIter::new(sources.collect());
    let mut ctx = ReadContext::bulk(IoClass::Compaction, READAHEAD_BYTES);
    let mut retention = Retention::new(shared.snapshot_seqs());
    let input_ids: Vec<TableId> = inputs.iter().map(|t| t.id).collect();
    let mut out = Vec::new();
    let mut writer: Option<TableWriter<E>> = None;
    let mut last: Option<Entry> = None;
    while let Some(entry) = iter::next(&mut iter, &shared.space, &mut ctx).await? {
        shared.env.charge(Work::MergeEntry);
        tally.input += 1;
        let keep = match retention.judge(&entry) {
            Verdict::Keep => true,
            Verdict::KeepTombstone => version.may_hold_below(plan.level_to, &entry.key, &input_ids),
            Verdict::Drop => false,
        };
        if !keep || is_gone(shared, &entry.key)? {
            tally.dropped += 1;
            continue;
        }
        tally.output += 1;
        // Cut between keys only: versions of one key stay in one table.
        let new_key = last.as_ref().is_none_or(|l| l.key != entry.key);
        let full = |w: &TableWriter<E>| w.estimated_bytes() >= shared.options.table_bytes_max;
        if new_key && let Some(done) = writer.take_if(|w| full(w)) {
            out.push((plan.level_to, done.finish().await?));
        }
        let to = match &mut writer {
            Some(w) => w,
            None => writer.insert(TableWriter::create(shared, tree.id, IoClass::Compaction).await?),
        };
        to.add(&entry).await?;
        last = Some(entry);
    }
    if let Some(writer) = writer {
        out.push((plan.level_to, writer.finish().await?));
    }
    if !out.is_empty() {
        shared.env.sync_dir(&shared.dir).await?;
    }
    debug_assert_eq!(tally.input, tally.output + tally.dropped, "entries went missing");
    tally.output_bytes = out.iter().map(|(_, t)| t.bytes).sum();
    Ok(out)
}
