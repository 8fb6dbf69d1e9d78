//! The write-buffer manager: memtable bytes allowed, and where they are.
//!
//! An admitted write reserves its bytes before it queues; the reservation turns into the charge of the
//! memtable that takes the entry; sealing moves the charge to the immutable side; an installed flush
//! releases it. Every step moves the same number, so the sum of the three is what memory holds.

use core::sync::atomic::{AtomicU64, Ordering};

/// Memtable bytes of one database.
#[derive(Debug, Default)]
pub struct Budget {
    limit_bytes: u64,
    reserved: AtomicU64,
    mutable: AtomicU64,
    immutable: AtomicU64,
}

impl Budget {
    /// A budget of this many bytes, all free.
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, ..Self::default() }
    }

    /// Bytes allowed.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Reserved, mutable and immutable bytes.
    pub fn used_bytes(&self) -> u64 {
        self.reserved_bytes() + self.mutable_bytes() + self.immutable_bytes()
    }

    /// Bytes of admitted writes that are in no memtable yet.
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Bytes in memtables that take writes.
    pub fn mutable_bytes(&self) -> u64 {
        self.mutable.load(Ordering::Relaxed)
    }

    /// Bytes in immutable memtables.
    pub fn immutable_bytes(&self) -> u64 {
        self.immutable.load(Ordering::Relaxed)
    }

    /// Takes bytes for an admitted write; whether it may is the stall policy's business.
    pub fn reserve(&self, bytes: u64) {
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives a reservation back: its write failed, or recovery charged it directly.
    pub fn unreserve(&self, bytes: u64) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Turns reserved bytes into bytes of a memtable.
    pub fn charge(&self, bytes: u64) {
        self.mutable.fetch_add(bytes, Ordering::Relaxed);
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A memtable of this many bytes became immutable.
    pub fn seal(&self, bytes: u64) {
        self.immutable.fetch_add(bytes, Ordering::Relaxed);
        self.mutable.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// An immutable memtable is gone.
    pub fn release_immutable(&self, bytes: u64) {
        self.immutable.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A memtable is gone with its tree, never sealed.
    pub fn release_mutable(&self, bytes: u64) {
        self.mutable.fetch_sub(bytes, Ordering::Relaxed);
    }
}
