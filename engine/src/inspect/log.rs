//! The log as it lies on disk: which segments make it up, damaged or not.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;

use crate::env::{Env, File, IoClass};
use crate::error::{Error, Result};
use crate::replay;
use crate::types::{to_u64, to_usize};
use crate::version::manifest::read_file;
use crate::wal::reader::{first_record, read_segment, read_segment_prefix};
use crate::wal::{Record, segment_path};

/// A predecessor record in its frame is no longer.
const FIRST_RECORD_BYTES_MAX: u64 = 64;

/// The log's segments, as far as they can be told.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// Oldest first, each with the valid length that its successor names, where one does.
    pub(crate) segments: Vec<(u64, Option<u64>)>,
    /// What is missing or cannot be read.
    pub(crate) errors: Vec<Error>,
}

/// Finds the log as recovery does; where recovery would refuse it, everything that may belong to
/// it.
///
/// A segment whose first record is bad breaks the chain: which segment came before it, and how much
/// of that one was valid, is then unknown, and all older segments with a whole first record count.
pub(crate) async fn find_chain<E: Env>(
    env: &E,
    dir: &Path,
    numbers: &BTreeSet<u64>,
    floor: u64,
) -> Chain {
    let mut out = Chain::default();
    if floor > 0 && !numbers.contains(&floor) {
        let what = "the manifest needs the log from this segment on, but it does not exist";
        out.errors.push(Error::corruption(&segment_path(dir, floor), 0, what));
    }
    let above: BTreeSet<u64> = numbers.range(floor..).copied().collect();
    match replay::chain(env, dir, &above, floor).await {
        Ok(segments) => {
            let newest = segments.last().map_or(0, |(segment, _)| *segment);
            let mut ends_whole = true;
            for &segment in above.range(newest + 1..) {
                ends_whole &= is_begun(env, &segment_path(dir, segment), segment).await;
            }
            if ends_whole {
                out.segments = segments;
            } else {
                walk_broken(env, dir, (&above, floor), &mut out).await;
            }
        }
        Err(error) => {
            let told = out.errors.len();
            walk_broken(env, dir, (&above, floor), &mut out).await;
            if out.errors.len() == told {
                out.errors.push(error);
            }
        }
    }
    out
}

async fn walk_broken<E: Env>(
    env: &E,
    dir: &Path,
    (numbers, floor): (&BTreeSet<u64>, u64),
    out: &mut Chain,
) {
    let mut next: Option<(u64, u64)> = None;
    let mut is_newest = true;
    for &segment in numbers.iter().rev() {
        if let Some((missing, _)) = next
            && missing > segment
        {
            out.errors.push(is_missing(dir, missing));
            next = None;
        }
        let limit = match next {
            Some((wanted, limit)) if wanted == segment => Some(limit),
            // Begun, and never part of the log.
            Some(_) => continue,
            None => None,
        };
        let path = segment_path(dir, segment);
        match read_first(env, &path, segment).await {
            Ok(Some(Record::Predecessor { segment: before, valid_bytes, .. })) => {
                out.segments.push((segment, limit));
                next = Some((before, valid_bytes));
                is_newest = false;
            }
            Ok(_) if is_newest && is_begun(env, &path, segment).await => {}
            Ok(_) => {
                let what = "its first record is bad, and with it all of the segment is lost";
                out.errors.push(Error::corruption(&path, 0, what));
                (next, is_newest) = (None, false);
            }
            Err(error) => {
                out.errors.push(error);
                (next, is_newest) = (None, false);
            }
        }
    }
    if let Some((missing, _)) = next
        && missing > 0
        && missing >= floor
        && !numbers.contains(&missing)
    {
        out.errors.push(is_missing(dir, missing));
    }
    out.segments.reverse();
}

fn is_missing(dir: &Path, segment: u64) -> Error {
    let what = "a later segment names it as its predecessor, but it does not exist";
    Error::corruption(&segment_path(dir, segment), 0, what)
}

/// Whether a newest segment was only begun. Its first record is durable before another is written,
/// so a longer file with a bad first record was damaged.
async fn is_begun<E: Env>(env: &E, path: &Path, segment: u64) -> bool {
    match read_file(env, path, IoClass::Wal).await {
        Ok(bytes) if to_u64(bytes.len()) > FIRST_RECORD_BYTES_MAX => {
            first_record(segment, &bytes).is_some() || bytes.iter().all(|byte| *byte == 0)
        }
        Ok(bytes) => read_segment(path, segment, &bytes, None).is_ok(),
        Err(_) => false,
    }
}

/// A segment's first record, where it is whole.
async fn read_first<E: Env>(env: &E, path: &Path, segment: u64) -> Result<Option<Record>> {
    if let Some(first) = first_record(segment, &read_head(env, path).await?) {
        return Ok(Some(first));
    }
    // It may carry more than a head holds.
    let bytes = read_file(env, path, IoClass::Wal).await?;
    let (found, _) = read_segment_prefix(path, segment, &bytes, None);
    Ok(found.records.into_iter().next().map(|(_, first)| first))
}

pub(crate) async fn read_head<E: Env>(env: &E, path: &Path) -> Result<Bytes> {
    const HEAD_BYTES: u64 = 256;
    let file = env.open(path).await?;
    let len = to_usize(file.len().min(HEAD_BYTES));
    file.read_at(0, len, IoClass::Wal).await
}
