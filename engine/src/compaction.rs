//! A compaction: tables of one tree are merged into a level by one edit.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::env::{Env, IoClass, Work};
use crate::error::Result;
use crate::events::Event;
use crate::flush::{TableWriter, is_gone, remove_begun};
use crate::gc;
use crate::iter::{self, MergeIter, ScanBounds, SortedIter, TableIter};
use crate::policy::view::CompactionPlan;
use crate::retain::{Retention, Verdict};
use crate::shared::Shared;
use crate::table::{ReadContext, TableMeta};
use crate::types::{Entry, FileNumber, TableId};
use crate::version::edit::Edit;
use crate::version::manifest::Install;
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
        for wish in &wishes {
            wish.end(outcome.clone());
        }
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
    let start_ns = shared.env.now();
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
    let added: Vec<(u32, TableMeta)> = if plan.trivial_move {
        inputs.iter().map(|t| (plan.level_to, TableMeta::clone(t))).collect()
    } else {
        let mut begun = Vec::new();
        match merge(shared, tree, (plan, &inputs, &version), (&mut tally, &mut begun)).await {
            Ok(added) => added,
            Err(error) => {
                remove_begun(shared, &begun).await;
                return Err(error);
            }
        }
    };
    let edit = Edit::Compact { tree: tree.id, removed: ids, added };
    let garbage = Arc::new(Mutex::new(Vec::new()));
    let install = install(edit.clone(), tree, plan.trivial_move, &garbage);
    shared.manifest.commit(vec![edit], Some(install)).await?;
    shared.garbage.lock().extend(core::mem::take(&mut *garbage.lock()));
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
        elapsed_ns: shared.env.now().saturating_sub(start_ns),
    });
    drop((inputs, version));
    gc::collect(shared).await;
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

async fn merge<E: Env>(
    shared: &Arc<Shared<E>>,
    tree: &Tree,
    (plan, inputs, version): (&CompactionPlan, &[Arc<TableMeta>], &Version),
    (tally, begun): (&mut Tally, &mut Vec<FileNumber>),
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
    if !out.is_empty() {
        shared.env.sync_dir(&shared.dir).await?;
    }
    debug_assert_eq!(tally.input, tally.output + tally.dropped, "entries went missing");
    tally.output_bytes = out.iter().map(|(_, t)| t.bytes).sum();
    Ok(out)
}
