//! Replay: the WAL's records go back into memtables, by the rule of `version::lineage`.

mod intake;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use self::intake::Intake;
use crate::budget::Budget;
use crate::env::{Env, File, IoClass};
use crate::error::{Error, Result};
use crate::log_space::LogSpace;
use crate::pressure::Pressure;
use crate::recovery::numbered;
use crate::types::{SeqNo, to_u64, to_usize};
use crate::version::manifest::read_file;
use crate::version::set::VersionSet;
use crate::version::tree::Tree;
use crate::wal::reader::{first_record, read_segment, read_segment_prefix};
use crate::wal::writer::Predecessor;
use crate::wal::{Record, segment_path};

/// What the log said.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// The highest sequence number anywhere.
    pub(crate) last_seq: SeqNo,
    /// What the next segment says of the newest valid one.
    pub(crate) newest: Predecessor,
    /// Segments that hold records.
    pub(crate) segments: BTreeSet<u64>,
    /// Trees with an immutable memtable to be flushed, and its bytes; once for each memtable.
    pub(crate) to_flush: Vec<(Arc<Tree>, u64)>,
}

/// Where replayed entries go.
pub(crate) struct ReplayTo<'a> {
    pub(crate) set: &'a VersionSet,
    pub(crate) budget: &'a Arc<Budget>,
    pub(crate) log: &'a LogSpace,
    pub(crate) pressure: &'a Pressure,
    pub(crate) now: u64,
    /// Whether the log is made durable as it was read: for whoever goes on behind it.
    pub(crate) settle: bool,
}

/// Replays the log into memtables and, where that is asked for, makes what was replayed durable.
///
/// # Errors
///
/// The world's, or `Corruption` of a segment. Memtables then hold a part of the log.
pub(crate) async fn replay<E: Env>(
    env: &E,
    dir: &Path,
    names: &[String],
    to: &ReplayTo<'_>,
) -> Result<Replayed> {
    let floor = to.set.wal_floor();
    let numbers: BTreeSet<u64> = names
        .iter()
        .filter_map(|name| numbered(name))
        .filter(|(number, kind)| *kind == "wal" && *number >= floor)
        .map(|(number, _)| number)
        .collect();
    if floor > 0 && !numbers.contains(&floor) {
        let what = "the manifest needs the log from this segment on, but it does not exist";
        return Err(Error::corruption(&segment_path(dir, floor), 0, what));
    }
    let chain = chain(env, dir, &numbers, floor).await?;
    let flushed = highest_seq(to.set);
    if let (true, Some(newest)) = (chain.is_empty(), numbers.last()) {
        check_reach(&segment_path(dir, *newest), &Replayed::default(), flushed)?;
    }
    let mut out = Replayed::default();
    let mut intake = Intake::new(to);
    for (segment, limit) in &chain {
        // One segment at a time in memory.
        let path = segment_path(dir, *segment);
        let bytes = read_file(env, &path, IoClass::Wal).await?;
        let records = read_segment(&path, *segment, &bytes, *limit)?;
        to.log.add_segment(*segment, records.valid_bytes);
        out.segments.insert(*segment);
        for (at, record) in &records.records {
            apply_record(&mut intake, (*segment, record), &mut out.last_seq)
                .map_err(|what| Error::corruption(&path, *at, what))?;
        }
        out.newest = Predecessor {
            segment: *segment,
            valid_bytes: records.valid_bytes,
            last_seq: out.last_seq,
        };
        if limit.is_none() {
            check_reach(&path, &out, flushed)?;
            if to.settle {
                settle_newest(env, &path, &bytes.slice(..to_usize(records.valid_bytes))).await?;
            }
        }
    }
    out.to_flush = intake.finish();
    out.last_seq = out.last_seq.max(flushed);
    out.newest.last_seq = out.last_seq;
    if !chain.is_empty() && to.settle {
        env.sync_dir(dir).await?;
    }
    Ok(out)
}

/// The log was durable through every flushed number before its flush was installed: one that ends
/// before is damaged, however much its end looks like a torn tail.
fn check_reach(path: &Path, log: &Replayed, flushed: SeqNo) -> Result<()> {
    let ends_early = falls_short(path, log.newest.valid_bytes, (log.last_seq, flushed));
    ends_early.map_or(Ok(()), Err)
}

/// The error for a log whose last number is below one that was flushed.
pub(crate) fn falls_short(
    path: &Path,
    end: u64,
    (reached, flushed): (SeqNo, SeqNo),
) -> Option<Error> {
    let what = format!("the log ends with number {reached}, although {flushed} was flushed");
    (reached < flushed).then(|| Error::corruption(path, end, what))
}

/// Makes the newest segment durable as it was read. Those before it were synced before their
/// successors began. The bytes are written again, since a sync alone may prove nothing: where the
/// process that died had met a failed sync, the page cache still shows pages that it holds to be
/// clean, and that are not on the disk.
async fn settle_newest<E: Env>(env: &E, path: &Path, valid: &Bytes) -> Result<()> {
    const PIECE_BYTES: usize = 1024 * 1024;
    let file = env.open(path).await?;
    let mut at = 0;
    for piece in valid.chunks(PIECE_BYTES) {
        file.write_at(at, piece, IoClass::Wal).await?;
        at += to_u64(piece.len());
    }
    file.sync_all(IoClass::Wal).await
}

/// The segments that make up the log, oldest first, each with the valid length that its successor
/// names: from the newest whose first record is whole back along the predecessors. Any other
/// segment was begun and never took an acknowledged record.
pub(crate) async fn chain<E: Env>(
    env: &E,
    dir: &Path,
    numbers: &BTreeSet<u64>,
    floor: u64,
) -> Result<Vec<(u64, Option<u64>)>> {
    let mut chain = Vec::new();
    let mut next: Option<(u64, Option<u64>)> = None;
    for &segment in numbers.iter().rev() {
        let path = segment_path(dir, segment);
        let limit = match next {
            None => None,
            Some((wanted, limit)) if wanted == segment => limit,
            Some(_) => continue,
        };
        match opening(env, (&path, segment), limit).await? {
            Some(Record::Predecessor { segment: before, valid_bytes, .. }) => {
                chain.push((segment, limit));
                next = Some((before, Some(valid_bytes)));
            }
            Some(Record::Batch { .. } | Record::Relogged { .. }) => {
                return Err(Error::corruption(&path, 0, "the first record names no predecessor"));
            }
            // The newest file may be one that was just begun; then the one before is the newest.
            None if next.is_none() => {}
            None => {
                return Err(Error::corruption(&path, 0, "a later segment names it, but it is bad"));
            }
        }
    }
    if let Some((missing, _)) = next
        && missing > 0
        && missing >= floor
        && !numbers.contains(&missing)
    {
        let what = "a later segment names it as its predecessor, but it does not exist";
        return Err(Error::corruption(&segment_path(dir, missing), 0, what));
    }
    // It was begun when the manifest named it, whatever its first record looks like.
    if numbers.contains(&floor) && !chain.iter().any(|(segment, _)| *segment == floor) {
        let what = "the manifest needs the log from this segment on, but its first record is bad";
        return Err(Error::corruption(&segment_path(dir, floor), 0, what));
    }
    chain.reverse();
    Ok(chain)
}

/// A segment's first record; `None` where the segment was not begun.
///
/// # Errors
///
/// The world's, or `Corruption` where it is bad and was durable.
pub(crate) async fn opening<E: Env>(
    env: &E,
    (path, segment): (&Path, u64),
    limit: Option<u64>,
) -> Result<Option<Record>> {
    if let Some(first) = first_record(segment, &read_head(env, path).await?) {
        return Ok(Some(first));
    }
    // It may carry more than a head holds.
    let bytes = read_file(env, path, IoClass::Wal).await?;
    let (records, damage) = read_segment_prefix(path, segment, &bytes, limit);
    match (records.records.into_iter().next(), damage) {
        (Some((_, first)), _) => Ok(Some(first)),
        (None, Some(damage)) => Err(damage),
        (None, None) => Ok(None),
    }
}

pub(crate) async fn read_head<E: Env>(env: &E, path: &Path) -> Result<Bytes> {
    const HEAD_BYTES: u64 = 256;
    let file = env.open(path).await?;
    let len = to_usize(file.len().min(HEAD_BYTES));
    file.read_at(0, len, IoClass::Wal).await
}

fn apply_record(
    to: &mut Intake<'_, '_>,
    (segment, record): (u64, &Record),
    last_seq: &mut SeqNo,
) -> core::result::Result<(), String> {
    match record {
        Record::Predecessor { last_seq: before, carried, .. } => {
            *last_seq = (*last_seq).max(*before);
            for (seq, entry) in carried {
                to.take((segment, *seq), entry)?;
            }
        }
        Record::Batch { first_seq, entries } => {
            for (seq, entry) in (*first_seq..).zip(entries) {
                *last_seq = (*last_seq).max(seq);
                to.take((segment, seq), entry)?;
            }
        }
        Record::Relogged { entries } => {
            for (seq, entry) in entries {
                *last_seq = (*last_seq).max(*seq);
                to.take((segment, *seq), entry)?;
            }
        }
    }
    Ok(())
}

/// The highest number that any table holds, that was flushed or at which a branch was forked.
pub(crate) fn highest_seq(set: &VersionSet) -> SeqNo {
    let trees = set.trees();
    let tables = |tree: &Arc<Tree>| {
        let view = tree.view();
        view.version.tables().map(|(_, t)| t.max_seq).max().unwrap_or(0)
    };
    let flushed = trees.iter().map(|t| t.flushed_upto().max(tables(t))).max().unwrap_or(0);
    flushed.max(set.fork_seq_max())
}
