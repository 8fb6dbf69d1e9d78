//! Builds one block: keys share a prefix with the key before them, except at restart points.

use super::format::TRAILER_BYTES;
use crate::coding::put_varint;
use crate::types::to_u64;

/// A block being built from stored keys in ascending order.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    restart_interval: u32,
    out: Vec<u8>,
    restarts: Vec<u32>,
    since_restart: u32,
    last_key: Vec<u8>,
}

impl BlockBuilder {
    pub(crate) fn new(restart_interval: u32) -> Self {
        Self {
            restart_interval: restart_interval.max(1),
            out: Vec::new(),
            restarts: Vec::new(),
            since_restart: 0,
            last_key: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The key added last.
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// The block's length with its trailer if it ended here.
    pub(crate) fn bytes(&self) -> u64 {
        to_u64(self.out.len()) + 4 * to_u64(self.restarts.len() + 1) + TRAILER_BYTES
    }

    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        let shared = if self.since_restart == 0 || self.since_restart == self.restart_interval {
            // A block stays below 4 GiB: see BLOCK_BYTES_MAX, which the table's builder enforces.
            self.restarts.push(u32::try_from(self.out.len()).unwrap_or(u32::MAX));
            self.since_restart = 0;
            0
        } else {
            key.iter().zip(&self.last_key).take_while(|(a, b)| a == b).count()
        };
        let unshared = key.get(shared..).unwrap_or_default();
        put_varint(&mut self.out, to_u64(shared));
        put_varint(&mut self.out, to_u64(unshared.len()));
        put_varint(&mut self.out, to_u64(value.len()));
        self.out.extend_from_slice(unshared);
        self.out.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(unshared);
        self.since_restart += 1;
    }

    /// Ends the block and hands it to `take` without its trailer; the builder is empty afterwards.
    pub(crate) fn finish<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> T {
        if self.restarts.is_empty() {
            self.restarts.push(0);
        }
        for restart in &self.restarts {
            self.out.extend_from_slice(&restart.to_le_bytes());
        }
        let count = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        self.out.extend_from_slice(&count.to_le_bytes());
        let result = take(&self.out);
        self.out.clear();
        self.restarts.clear();
        self.since_restart = 0;
        self.last_key.clear();
        result
    }
}
