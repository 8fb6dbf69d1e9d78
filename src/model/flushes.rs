//! Flushes that wait and run: slots that share the bandwidth of a device.
//!
//! A running flush writes its bytes at an even share of the bandwidth among those that write, then
//! waits for the fixed time of its syncs. First sealed is first flushed, one flush at a time in a
//! tree. The log and compactions take no bandwidth here.

use std::collections::{BTreeSet, VecDeque};

use forebay_engine::types::{Nanos, to_u64};

use super::memory::Sealed;

const NS_PER_S: u128 = 1_000_000_000;

/// Memtables that become one file.
#[derive(Clone, Debug)]
struct Job {
    members: Vec<Sealed>,
    charge_bytes: u64,
    /// Bytes to write and bytes left, times a second in nanoseconds.
    whole: u128,
    left: u128,
    /// When it ends, once its bytes are written.
    ends_at: Option<Nanos>,
}

/// Flushes that wait and run.
#[derive(Clone, Debug)]
pub(super) struct Flushes {
    slots: usize,
    bytes_per_s: u128,
    fixed_ns: Nanos,
    waiting: VecDeque<Job>,
    running: Vec<Job>,
    flushing: BTreeSet<usize>,
    now: Nanos,
}

impl Flushes {
    /// None yet. A bandwidth of 0 takes no time.
    pub(super) fn new(slots: usize, bytes_per_s: u64, fixed_ns: Nanos) -> Self {
        Self {
            slots: slots.max(1),
            bytes_per_s: u128::from(bytes_per_s),
            fixed_ns,
            waiting: VecDeque::new(),
            running: Vec::new(),
            flushing: BTreeSet::new(),
            now: 0,
        }
    }

    /// Memtables that become one file.
    pub(super) fn add(&mut self, members: Vec<Sealed>, now: Nanos) {
        if members.is_empty() {
            return;
        }
        let sum = |of: fn(&Sealed) -> u64| members.iter().map(of).fold(0, u64::saturating_add);
        let whole = u128::from(sum(|m| m.user_bytes)).saturating_mul(NS_PER_S);
        let charge_bytes = sum(|m| m.charge_bytes);
        self.waiting.push_back(Job { charge_bytes, whole, left: whole, ends_at: None, members });
        self.advance(now);
        self.start();
    }

    /// Flushes that wait or run.
    pub(super) fn count(&self) -> usize {
        self.waiting.len().saturating_add(self.running.len())
    }

    /// Memtable bytes that running flushes have written.
    pub(super) fn spooled_bytes(&self) -> u64 {
        let written = |job: &Job| {
            let done = job.whole.saturating_sub(job.left);
            let part = done.saturating_mul(u128::from(job.charge_bytes)).checked_div(job.whole);
            part.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(job.charge_bytes)
        };
        self.running.iter().map(written).fold(0, u64::saturating_add)
    }

    /// Moves time on; flushes whose bytes are written wait for their syncs from then on. Nothing
    /// may end before `now`: see [`next_at`](Self::next_at).
    pub(super) fn advance(&mut self, now: Nanos) {
        let elapsed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        if self.running.is_empty() {
            return;
        }
        let writing = self.writing();
        let written = self.bytes_per_s.saturating_mul(u128::from(elapsed)).checked_div(writing);
        for job in self.running.iter_mut().filter(|job| job.ends_at.is_none()) {
            job.left = job.left.saturating_sub(written.unwrap_or(0));
            if job.left == 0 || self.bytes_per_s == 0 {
                job.left = 0;
                job.ends_at = Some(self.now.saturating_add(self.fixed_ns));
            }
        }
    }

    /// When a flush has written its bytes or ends, whichever is first.
    pub(super) fn next_at(&self) -> Option<Nanos> {
        let writing = self.writing();
        let at = |job: &Job| {
            job.ends_at.unwrap_or_else(|| {
                let work = job.left.saturating_mul(writing);
                let ns = work.saturating_add(self.bytes_per_s).saturating_sub(1);
                let ns = ns.checked_div(self.bytes_per_s).unwrap_or(0);
                self.now.saturating_add(u64::try_from(ns).unwrap_or(u64::MAX))
            })
        };
        self.running.iter().map(at).min()
    }

    /// A flush that has ended by now.
    pub(super) fn take_ended(&mut self) -> Option<Vec<Sealed>> {
        let ended = |job: &Job| job.ends_at.is_some_and(|at| at <= self.now);
        let at = self.running.iter().position(ended)?;
        let job = self.running.remove(at);
        for member in &job.members {
            self.flushing.remove(&member.slot);
        }
        self.start();
        Some(job.members)
    }

    fn writing(&self) -> u128 {
        let writing = self.running.iter().filter(|job| job.ends_at.is_none()).count();
        u128::from(to_u64(writing))
    }

    fn start(&mut self) {
        while self.running.len() < self.slots {
            let free = |job: &Job| job.members.iter().all(|m| !self.flushing.contains(&m.slot));
            let Some(at) = self.waiting.iter().position(free) else { return };
            let Some(job) = self.waiting.remove(at) else { return };
            self.flushing.extend(job.members.iter().map(|member| member.slot));
            self.running.push(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(slot: usize, bytes: u64) -> Vec<Sealed> {
        vec![Sealed { slot, charge_bytes: bytes * 2, user_bytes: bytes, ..Sealed::default() }]
    }

    /// Runs to the end of all flushes; when each ended, by slot.
    fn ends(flushes: &mut Flushes) -> Vec<(usize, Nanos)> {
        let mut ends = Vec::new();
        while let Some(at) = flushes.next_at() {
            flushes.advance(at);
            while let Some(members) = flushes.take_ended() {
                ends.push((members[0].slot, at));
            }
        }
        ends
    }

    #[test]
    fn two_that_write_share_the_bandwidth_and_the_third_waits_for_a_slot() {
        let mut flushes = Flushes::new(2, 1_000, 0);
        for (slot, bytes) in [(0, 100), (1, 300), (2, 100)] {
            flushes.add(sealed(slot, bytes), 0);
        }
        // 0 ends after 200 bytes together; then 1 and 2 share: 2 after 200 more; then 1 alone.
        let expected = [(0, 200_000_000), (2, 400_000_000), (1, 500_000_000)];
        assert_eq!(ends(&mut flushes), expected);
        assert_eq!(flushes.count(), 0);
    }

    #[test]
    fn memtables_of_a_tree_are_flushed_one_after_the_other_and_syncs_take_their_time() {
        let mut flushes = Flushes::new(2, 1_000, 7);
        flushes.add(sealed(5, 10), 0);
        flushes.add(sealed(5, 10), 0);
        flushes.advance(5_000_000);
        assert_eq!(flushes.spooled_bytes(), 10);
        assert_eq!(ends(&mut flushes), [(5, 10_000_007), (5, 20_000_014)]);
    }

    #[test]
    fn a_device_that_takes_no_time_ends_a_flush_at_once() {
        let mut flushes = Flushes::new(1, 0, 0);
        flushes.add(sealed(1, 10), 3);
        assert_eq!(ends(&mut flushes), [(1, 3)]);
    }
}
