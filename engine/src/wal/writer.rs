//! Appending to the newest segment, syncing it, rolling to the next.
//!
//! One task at a time writes: the leader of the commit queue.

use std::path::Path;

use super::frame::{Stamp, low32, put_record};
use super::{encode_predecessor, segment_path};
use crate::env::{Env, File, IoClass, Site};
use crate::error::Result;
use crate::types::{SeqNo, to_u64};

/// A longer buffer is given back: one large batch must not hold memory for ever.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// The newest segment.
#[derive(Debug)]
pub struct SegmentWriter<E: Env> {
    file: E::File,
    segment: u64,
    /// Where the last whole record ends.
    valid_bytes: u64,
    synced_bytes: u64,
    last_seq: SeqNo,
    synced_seq: SeqNo,
    /// An append failed: bytes of unknown worth lie behind `valid_bytes`.
    torn: bool,
    /// 0 until the first record is written.
    salt: u32,
    /// Frames on their way to the file; kept for the next append.
    out: Vec<u8>,
}

/// What a new segment's first record says of the one before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Predecessor {
    /// Its number; 0 for none.
    pub segment: u64,
    /// Its valid length in bytes.
    pub valid_bytes: u64,
    /// The last sequence number up to its end.
    pub last_seq: SeqNo,
}

impl<E: Env> SegmentWriter<E> {
    /// Creates a segment that follows `before`, which is durable up to its valid length, and makes
    /// its name and first record durable.
    ///
    /// # Errors
    ///
    /// The world's. The file may exist, without a valid first record: recovery ignores it.
    pub async fn create(
        env: &E,
        dir: &Path,
        segment: u64,
        (before, preallocate_bytes): (Predecessor, u64),
    ) -> Result<Self> {
        let file = env.create(&segment_path(dir, segment)).await?;
        file.allocate(preallocate_bytes).await?;
        let mut writer = Self {
            file,
            segment,
            valid_bytes: 0,
            synced_bytes: 0,
            last_seq: before.last_seq,
            synced_seq: before.last_seq,
            torn: false,
            salt: 0,
            out: Vec::new(),
        };
        let salt = low32(env.random_u64(Site("wal-salt")));
        let mut record = Vec::new();
        encode_predecessor(&mut record, before, salt);
        writer.append(&[&record], before.last_seq).await?;
        writer.salt = salt;
        writer.sync().await?;
        env.sync_dir(dir).await?;
        Ok(writer)
    }

    /// Appends records whose last sequence number is `last_seq`. Returns the bytes written.
    ///
    /// # Errors
    ///
    /// The world's. The segment then takes no more records: see [`is_torn`](Self::is_torn).
    pub async fn append<R: AsRef<[u8]>>(&mut self, records: &[R], last_seq: SeqNo) -> Result<u64> {
        let stamp = Stamp {
            segment: low32(self.segment),
            durable_bytes: low32(self.synced_bytes),
            salt: self.salt,
        };
        let mut out = core::mem::take(&mut self.out);
        out.clear();
        for record in records {
            let start = self.valid_bytes + to_u64(out.len());
            put_record(&mut out, start, stamp, record.as_ref());
        }
        // Set before the wait: a leader dropped in the middle leaves a torn segment behind.
        self.torn = true;
        self.file.append(&out, IoClass::Wal).await?;
        self.torn = false;
        let bytes = to_u64(out.len());
        self.valid_bytes += bytes;
        self.last_seq = self.last_seq.max(last_seq);
        if out.capacity() <= KEPT_BYTES_MAX {
            self.out = out;
        }
        Ok(bytes)
    }

    /// Makes every record so far survive a crash.
    ///
    /// # Errors
    ///
    /// The world's; what the segment holds beyond its earlier syncs is then unknown for ever.
    pub async fn sync(&mut self) -> Result<()> {
        if self.synced_bytes < self.valid_bytes {
            let (bytes, seq) = (self.valid_bytes, self.last_seq);
            self.file.sync_data(IoClass::Wal).await?;
            self.synced_bytes = bytes;
            self.synced_seq = seq;
        }
        Ok(())
    }

    /// Its number.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Where the last whole record ends.
    pub fn valid_bytes(&self) -> u64 {
        self.valid_bytes
    }

    /// The last sequence number that is durable.
    pub fn synced_seq(&self) -> SeqNo {
        self.synced_seq
    }

    /// Whether an append failed, so that the next record needs a new segment.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Takes back what was appended behind `mark`: it was not acknowledged and never will be.
    pub fn void_behind(&mut self, mark: Predecessor) {
        self.valid_bytes = self.valid_bytes.min(mark.valid_bytes);
        self.synced_bytes = self.synced_bytes.min(self.valid_bytes);
        self.last_seq = self.last_seq.min(mark.last_seq);
        self.synced_seq = self.synced_seq.min(self.last_seq);
        self.torn = true;
    }

    /// What a successor says of this segment.
    pub fn as_predecessor(&self) -> Predecessor {
        Predecessor {
            segment: self.segment,
            valid_bytes: self.valid_bytes,
            last_seq: self.last_seq,
        }
    }
}
