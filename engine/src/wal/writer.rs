//! Appending to the newest segment, syncing it, beginning the next.
//!
//! One task at a time writes: the leader of the commit queue. After a failed append or sync a
//! segment takes no more records, since nothing is known of what it holds behind its synced length;
//! its successor begins with what it acknowledged there.

use std::path::Path;

use super::frame::{Stamp, low32, put_record};
use super::{WalEntry, encode_carried, encode_predecessor, segment_path};
use crate::env::{Env, File, IoClass, Site};
use crate::error::Result;
use crate::types::{SeqNo, to_u64};

/// A longer buffer is given back: one large batch must not hold memory for ever.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// The newest segment.
#[derive(Debug)]
pub struct SegmentWriter<E: Env> {
    /// `None` for a segment that was read back and is not written to.
    file: Option<E::File>,
    segment: u64,
    /// Where the last whole record ends.
    valid_bytes: u64,
    synced_bytes: u64,
    /// The last number of the log up to its opening record.
    begun_seq: SeqNo,
    last_seq: SeqNo,
    synced_seq: SeqNo,
    state: State,
    /// 0 until the first record is written.
    salt: u32,
    /// Frames on their way to the file; kept for the next append.
    out: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A successor may name it: it takes no more records.
    Ended,
    /// An append or a sync failed, or was left in the middle: nothing behind the synced length
    /// counts.
    Failed,
}

/// What a new segment's first record says of the one before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Predecessor {
    /// Its number; 0 for none.
    pub segment: u64,
    /// Its valid length in bytes.
    pub valid_bytes: u64,
    /// The last sequence number up to here, carried entries included.
    pub last_seq: SeqNo,
}

/// A segment's file before its first record: its space is there and its name durable. Recovery
/// ignores it.
#[derive(Debug)]
pub struct Spare<E: Env> {
    file: E::File,
    segment: u64,
}

impl<E: Env> Spare<E> {
    /// Creates the file.
    ///
    /// # Errors
    ///
    /// The world's. The file may exist, without a record.
    pub async fn create(env: &E, dir: &Path, segment: u64, bytes: u64) -> Result<Self> {
        let file = env.create(&segment_path(dir, segment)).await?;
        file.allocate(bytes).await?;
        env.sync_dir(dir).await?;
        Ok(Self { file, segment })
    }

    /// Its number.
    pub fn segment(&self) -> u64 {
        self.segment
    }
}

impl<E: Env> SegmentWriter<E> {
    /// Begins a segment that follows `before` and carries these entries, in the order of their
    /// numbers; that one is durable up to the length it names.
    ///
    /// # Errors
    ///
    /// The world's. The first record may be whole all the same: the one before must take no more.
    pub async fn begin(
        env: &E,
        spare: Spare<E>,
        before: Predecessor,
        carried: &[(SeqNo, WalEntry)],
    ) -> Result<Self> {
        let mut writer = Self {
            file: Some(spare.file),
            segment: spare.segment,
            valid_bytes: 0,
            synced_bytes: 0,
            begun_seq: before.last_seq,
            last_seq: before.last_seq,
            synced_seq: 0,
            state: State::Open,
            salt: low32(env.random_u64(Site("wal-salt"))),
            out: Vec::new(),
        };
        let mut record = Vec::new();
        encode_predecessor(&mut record, before, writer.salt, to_u64(carried.len()));
        for (seq, entry) in carried {
            encode_carried(&mut record, *seq, entry);
        }
        writer.append(&[&record], before.last_seq).await?;
        writer.sync().await?;
        Ok(writer)
    }

    /// A segment that was read back: a successor follows before anything is written.
    pub fn ended(newest: Predecessor) -> Self {
        Self {
            file: None,
            segment: newest.segment,
            valid_bytes: newest.valid_bytes,
            synced_bytes: newest.valid_bytes,
            begun_seq: newest.last_seq,
            last_seq: newest.last_seq,
            synced_seq: newest.last_seq,
            state: State::Ended,
            salt: 0,
            out: Vec::new(),
        }
    }

    /// Appends records whose last sequence number is `last_seq`. Returns the bytes written.
    ///
    /// # Errors
    ///
    /// The world's. The segment then takes no more records: see [`has_failed`](Self::has_failed).
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
        // Set before the wait: a leader dropped in the middle leaves a failed segment behind.
        self.state = State::Failed;
        if let Some(file) = &self.file {
            file.append(&out, IoClass::Wal).await?;
        }
        self.state = State::Open;
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
            let (bytes, seq, state) = (self.valid_bytes, self.last_seq, self.state);
            self.state = State::Failed;
            if let Some(file) = &self.file {
                file.sync_data(IoClass::Wal).await?;
            }
            self.state = state;
            self.synced_bytes = bytes;
            self.synced_seq = seq;
        }
        Ok(())
    }

    /// Its number.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Entries up to this number lay in closed segments, or in none, when this one began; those
    /// above it lie in this one.
    pub fn begun_seq(&self) -> SeqNo {
        self.begun_seq
    }

    /// Where the last whole record ends.
    pub fn valid_bytes(&self) -> u64 {
        self.valid_bytes
    }

    /// The last sequence number that is durable.
    pub fn synced_seq(&self) -> SeqNo {
        self.synced_seq
    }

    /// Whether an append or a sync failed: nothing behind the synced length counts any more.
    pub fn has_failed(&self) -> bool {
        self.state == State::Failed
    }

    /// Whether it takes no more records, so that a successor must begin.
    pub fn has_ended(&self) -> bool {
        self.state != State::Open
    }

    /// It takes no more records: a successor that names it is about to begin.
    pub fn end(&mut self) {
        if self.state == State::Open {
            self.state = State::Ended;
        }
    }

    /// Takes back what was appended behind `mark`: it was not acknowledged and never will be.
    pub fn void_behind(&mut self, mark: Mark) {
        self.valid_bytes = self.valid_bytes.min(mark.valid_bytes);
        self.synced_bytes = self.synced_bytes.min(self.valid_bytes);
        self.last_seq = self.last_seq.min(mark.last_seq);
        self.synced_seq = self.synced_seq.min(self.last_seq);
        self.state = State::Failed;
    }

    /// Where it ends now.
    pub fn mark(&self) -> Mark {
        Mark { valid_bytes: self.valid_bytes, last_seq: self.last_seq }
    }

    /// What a successor says of this segment, when entries up to `last_seq` are in it or carried.
    pub fn as_predecessor(&self, last_seq: SeqNo) -> Predecessor {
        Predecessor {
            segment: self.segment,
            valid_bytes: self.synced_bytes,
            last_seq: last_seq.max(self.synced_seq),
        }
    }
}

/// A place in a segment behind a whole record.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    valid_bytes: u64,
    last_seq: SeqNo,
}
