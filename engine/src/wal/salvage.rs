//! Reading past damage in a segment, and writing what was found as a log of its own.
//!
//! Recovery stops at the first bad frame. Repair goes on behind it, up to the length that was known
//! durable: the successor's word, or the highest durable offset that a frame names. Records there
//! were acknowledged. What lies further back may be a failed append, which is void.
//!
//! Without the first record nothing of a segment is read: the checksums of its other frames begin
//! with a number that only that record holds.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};

use super::frame::{Frame, Part, Stamp, low32, next_block, put_record, read_frame, skip_padding};
use super::writer::Predecessor;
use super::{Record, decode_record, encode_predecessor, salt_of, segment_path};
use crate::env::{Env, File, IoClass};
use crate::error::Result;
use crate::types::{SeqNo, to_u64, to_usize};

/// A segment of a rewritten log ends behind the record that takes it to this size.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// What could be read of a segment.
#[derive(Debug, Default)]
pub struct Salvage {
    /// Whole records in log order, with their offsets in bytes.
    pub records: Vec<(u64, Record)>,
    /// Ranges of bytes that were durable and hold no whole record.
    pub holes: Vec<(u64, u64)>,
}

struct Walk {
    number: (u32, u32),
    durable: u64,
    partial: Option<(usize, BytesMut)>,
}

impl Walk {
    /// Takes a frame; the record that it ends, if it does, with where that began.
    fn take(&mut self, bytes: &Bytes, at: usize, frame: Frame<'_>) -> Option<(usize, Bytes)> {
        self.durable = self.durable.max(u64::from(frame.durable_bytes));
        match (frame.part, self.partial.take()) {
            (Part::Full, _) => Some((at, bytes.slice_ref(frame.payload))),
            (Part::First, _) => {
                self.partial = Some((at, BytesMut::from(frame.payload)));
                None
            }
            (Part::Middle, Some((start, mut head))) => {
                head.extend_from_slice(frame.payload);
                self.partial = Some((start, head));
                None
            }
            (Part::Last, Some((start, mut head))) => {
                head.extend_from_slice(frame.payload);
                Some((start, head.freeze()))
            }
            // The beginning of this record was lost.
            (Part::Middle | Part::Last, None) => None,
        }
    }
}

/// Every whole record of a segment that was durable. `limit_bytes` is the valid length that its
/// successor names, if there is one.
pub fn salvage_segment(segment: u64, bytes: &Bytes, limit_bytes: Option<u64>) -> Salvage {
    let end = limit_bytes.map_or(bytes.len(), |limit| to_usize(limit).min(bytes.len()));
    let within = bytes.slice(..end);
    let mut walk = Walk { number: (low32(segment), 0), durable: 0, partial: None };
    let (mut found, mut at): (Vec<(u64, u64, Record)>, _) = (Vec::new(), 0);
    while at < within.len() {
        at = skip_padding(at);
        let Some(frame) = read_frame(&within, at, walk.number) else {
            if at == 0 {
                break;
            }
            walk.partial = None;
            at = next_frame(&within, at, walk.number);
            continue;
        };
        if at == 0 {
            walk.number.1 = salt_of(frame.payload).unwrap_or(0);
        }
        let whole = walk.take(&within, at, frame);
        at = frame.end;
        let Some((start, payload)) = whole else { continue };
        let Some(record) = decode_record(&payload) else { continue };
        found.push((to_u64(start), to_u64(at), record));
    }
    // Of the newest segment only what a frame promises is known to have been there.
    let promised = limit_bytes.unwrap_or(walk.durable);
    let (mut out, mut behind) = (Salvage::default(), 0);
    for (start, end, record) in found {
        if to_u64(skip_padding(to_usize(behind))) < start {
            if end > promised {
                break;
            }
            out.holes.push((behind, start));
        }
        behind = end;
        out.records.push((start, record));
    }
    if behind < promised {
        out.holes.push((behind, promised));
    }
    out
}

/// Where the next whole frame behind a bad one begins. In the bad one's block that may be any byte.
fn next_frame(bytes: &Bytes, from: usize, number: (u32, u32)) -> usize {
    let mut at = from + 1;
    while at < bytes.len() && read_frame(bytes, at, number).is_none() {
        at = if at < next_block(from) { at + 1 } else { next_block(at) };
    }
    at
}

/// Writes records as a log that begins with itself, in as many segments as it takes.
///
/// The files get their names when all of them are durable, the newest first: until the oldest has
/// its own, an open fails loudly instead of finding a part of the log.
pub struct LogWriter<E: Env> {
    env: E,
    dir: PathBuf,
    salt: u32,
    open: Option<(u64, E::File, u64)>,
    done: Vec<u64>,
    last_seq: SeqNo,
}

fn temporary(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:06}.tmp"))
}

impl<E: Env> core::fmt::Debug for LogWriter<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LogWriter").field("done", &self.done).finish_non_exhaustive()
    }
}

impl<E: Env> LogWriter<E> {
    /// A log without a segment. `last_seq` is the highest number that was ever given; the log says
    /// so to whoever opens it.
    pub fn new(env: E, dir: &Path, (salt, last_seq): (u32, SeqNo)) -> Self {
        Self { env, dir: dir.to_owned(), salt, open: None, done: Vec::new(), last_seq }
    }

    /// Whether the next record needs a new segment, whose number the caller gives by
    /// [`begin`](Self::begin).
    pub fn is_full(&self) -> bool {
        self.open.as_ref().is_none_or(|(_, _, bytes)| *bytes >= SEGMENT_BYTES)
    }

    /// Begins a segment.
    ///
    /// # Errors
    ///
    /// The world's. Temporary files may be left.
    pub async fn begin(&mut self, segment: u64) -> Result<()> {
        let before = match self.open.take() {
            Some((segment, file, valid_bytes)) => {
                file.sync_all(IoClass::Wal).await?;
                self.done.push(segment);
                Predecessor { segment, valid_bytes, last_seq: self.last_seq }
            }
            None => Predecessor { last_seq: self.last_seq, ..Predecessor::default() },
        };
        let file = self.env.create(&temporary(&self.dir, segment)).await?;
        let mut record = Vec::new();
        encode_predecessor(&mut record, before, self.salt, 0);
        let mut out = Vec::new();
        let stamp = Stamp { segment: low32(segment), durable_bytes: 0, salt: 0 };
        put_record(&mut out, 0, stamp, &record);
        file.append(&out, IoClass::Wal).await?;
        self.open = Some((segment, file, to_u64(out.len())));
        Ok(())
    }

    /// Appends an encoded record to the segment that was begun last.
    ///
    /// # Errors
    ///
    /// The world's. Temporary files may be left.
    pub async fn append(&mut self, record: &[u8]) -> Result<()> {
        let Some((segment, file, bytes)) = &mut self.open else { return Ok(()) };
        let stamp = Stamp { segment: low32(*segment), durable_bytes: 0, salt: self.salt };
        let mut out = Vec::new();
        put_record(&mut out, *bytes, stamp, record);
        file.append(&out, IoClass::Wal).await?;
        *bytes += to_u64(out.len());
        Ok(())
    }

    /// Makes the log durable and names its files; the number of its first segment.
    ///
    /// # Errors
    ///
    /// The world's. Segments may have their names; the log they make up is whole or names a
    /// predecessor that does not exist.
    pub async fn finish(mut self) -> Result<u64> {
        if let Some((segment, file, _)) = self.open.take() {
            file.sync_all(IoClass::Wal).await?;
            self.done.push(segment);
        }
        for segment in self.done.iter().rev() {
            let from = temporary(&self.dir, *segment);
            self.env.rename(&from, &segment_path(&self.dir, *segment)).await?;
            self.env.sync_dir(&self.dir).await?;
        }
        Ok(self.done.first().copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{encode_batch_header, encode_entry};
    use super::*;
    use crate::env::BlockingEnv as _;
    use crate::env::mem::MemEnv;
    use crate::types::{BranchId, Kind, TreeId};
    use crate::version::manifest::read_file;
    use crate::wal::reader::read_segment;

    fn batch(seq: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        encode_batch_header(&mut out, seq, 1);
        let data = vec![b'x'; 1 + len];
        encode_entry(&mut out, (TreeId(1), BranchId(1)), Kind::Put, 1, &data);
        out
    }

    fn written(sizes: &[usize]) -> Bytes {
        let env = MemEnv::default();
        let dir = Path::new("/log");
        env.block_on(async {
            env.create_dir(dir).await.unwrap();
            let mut log = LogWriter::new(env.clone(), dir, (77, 500));
            assert!(log.is_full());
            log.begin(7).await.unwrap();
            for (seq, size) in (1..).zip(sizes) {
                log.append(&batch(seq, *size)).await.unwrap();
            }
            assert_eq!(log.finish().await.unwrap(), 7);
            read_file(&env, &segment_path(dir, 7), IoClass::Wal).await.unwrap()
        })
    }

    fn seqs(salvage: &Salvage) -> Vec<u64> {
        let batches = salvage.records.iter().filter_map(|(_, record)| match record {
            Record::Batch { first_seq, .. } => Some(*first_seq),
            Record::Predecessor { .. } | Record::Relogged { .. } => None,
        });
        batches.collect()
    }

    #[test]
    fn what_was_written_is_read_by_recovery_and_by_repair() {
        let bytes = written(&[10, 40_000, 0, 70_000, 5]);
        let records = read_segment(Path::new("x"), 7, &bytes, None).unwrap();
        assert_eq!(records.valid_bytes, to_u64(bytes.len()));
        let salvage = salvage_segment(7, &bytes, Some(to_u64(bytes.len())));
        assert_eq!(salvage.records, records.records);
        assert!(salvage.holes.is_empty());
    }

    #[test]
    fn one_bad_byte_costs_one_record_where_the_length_is_known() {
        let sizes = [10, 20, 40_000, 30, 70_000, 5];
        let whole = written(&sizes);
        let limit = to_u64(whole.len());
        for at in (40..whole.len()).step_by(97) {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0x10;
            let salvage = salvage_segment(7, &bytes.into(), Some(limit));
            let lost = sizes.len() - seqs(&salvage).len();
            // Padding at the end of a block holds nothing.
            assert!(lost <= 1 && lost == salvage.holes.len(), "byte {at}: {:?}", salvage.holes);
        }
    }

    #[test]
    fn behind_damage_in_a_newest_segment_only_what_was_durable_counts() {
        let mut bytes = written(&[10, 20, 30]).to_vec();
        let second = to_usize(salvage_segment(7, &bytes.clone().into(), None).records[2].0);
        bytes[second + 20] ^= 1;
        let salvage = salvage_segment(7, &bytes.clone().into(), None);
        assert_eq!((seqs(&salvage), salvage.holes.len()), (vec![1], 0), "a torn tail");
        let limit = to_u64(bytes.len());
        let salvage = salvage_segment(7, &bytes.into(), Some(limit));
        assert_eq!((seqs(&salvage), salvage.holes.len()), (vec![1, 3], 1));
    }

    #[test]
    fn without_its_first_record_a_segment_is_one_hole() {
        let mut bytes = written(&[10, 20]).to_vec();
        bytes[17] ^= 1;
        let limit = to_u64(bytes.len());
        let salvage = salvage_segment(7, &bytes.into(), Some(limit));
        assert!(salvage.records.is_empty());
        assert_eq!(salvage.holes, [(0, limit)]);
    }
}
