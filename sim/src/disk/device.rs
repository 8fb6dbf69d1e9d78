//! The device under a disk: bandwidth, latency, depth and fairness, computed on virtual time.
//!
//! One server works through chunks of 128 KiB (less on a divided device). Requests wait in one
//! queue per class, first in, first out; between classes the server picks the one that is furthest
//! behind its weight (start-time fair queueing), so that bandwidth is shared by weight among busy
//! classes and none is ever idle for fairness' sake. The first chunk of a request occupies the
//! server for at least `1 / iops` and for
//! `latency / depth`, which caps IOPS and models the queue depth; the rest of the latency passes
//! beside the server.
//!
//! Nothing ticks: [`Device::poll`] serves every chunk that began before now and says either that a
//! request is done or the earliest instant at which it can be. That bound is exact once nothing can
//! overtake the request any more, so a waiter wakes at its completion time and seldom before.
//!
//! Who pays when: an append of class flush or compaction queues its bytes and waits for them, as
//! with direct I/O; an append to the log or the manifest goes to the page cache and its bytes are
//! paid by the next sync of the file, or by the append that exceeds `writeback_bytes`.
//!
//! # Source
//!
//! P. Goyal, H. Vin, H. Cheng, "Start-time fair queueing", SIGCOMM 1996. The presets are round
//! numbers of data sheets, not measurements.

use std::collections::{BTreeMap, VecDeque};

use forebay_engine::env::IoClass;
use forebay_engine::types::Nanos;
use serde::{Deserialize, Serialize};

/// Bytes of a chunk of a device at full size.
pub const CHUNK_BYTES: u64 = 128 * 1024;

/// Bytes of the smallest chunk: a page.
const CHUNK_BYTES_MIN: u64 = 4096;

/// Queues: log and manifest, flush, compaction, read.
pub const QUEUE_COUNT: usize = 4;

const NS_PER_S: u64 = 1_000_000_000;
const FS_PER_S: u64 = 1_000_000_000_000_000;
const FS_PER_NS: u64 = 1_000_000;
/// The shares of a class with the weight that presets give to the log and to reads.
const SHARES: u32 = 1000;
const SHARES_WEIGHT: u32 = 8;
/// A common multiple of all small weights.
const WEIGHT_SCALE: u128 = 720_720;

/// What a device can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Bytes read per second; 0 takes no time.
    pub read_bytes_per_s: u64,
    /// Bytes written per second; 0 takes no time.
    pub write_bytes_per_s: u64,
    /// Latency of a read.
    pub read_ns: u64,
    /// Latency of a write that waits for the device.
    pub write_ns: u64,
    /// Latency of a sync.
    pub sync_ns: u64,
    /// Requests per second; 0 is without limit.
    pub iops: u64,
    /// Requests whose latencies overlap; at least 1.
    pub depth: u64,
    /// Unsynced bytes of a log or manifest above which an append pays for them.
    pub writeback_bytes: u64,
    /// Bytes that the server works through before another class may have its turn; at least 1.
    #[serde(default = "chunk_bytes")]
    pub chunk_bytes: u64,
    /// Weights of log, flush, compaction and read.
    pub weights: [u32; QUEUE_COUNT],
    /// One queue for all classes.
    pub fifo_only: bool,
    /// Reads take their latency and no bandwidth.
    pub read_pays_latency_only: bool,
}

fn chunk_bytes() -> u64 {
    CHUNK_BYTES
}

impl DeviceSpec {
    /// Names of the presets.
    pub const NAMES: [&'static str; 5] = ["none", "nvme", "sata-ssd", "hdd", "cloud"];

    /// A device on which nothing takes time.
    pub const NONE: Self = Self {
        read_bytes_per_s: 0,
        write_bytes_per_s: 0,
        read_ns: 0,
        write_ns: 0,
        sync_ns: 0,
        iops: 0,
        depth: 1,
        writeback_bytes: u64::MAX,
        chunk_bytes: CHUNK_BYTES,
        weights: [8, 4, 2, 8],
        fifo_only: false,
        read_pays_latency_only: false,
    };

    /// A data-centre `NVMe` drive with power-loss protection.
    pub const NVME: Self = Self {
        read_bytes_per_s: 3_000_000_000,
        write_bytes_per_s: 2_000_000_000,
        read_ns: 80_000,
        write_ns: 20_000,
        sync_ns: 60_000,
        iops: 500_000,
        depth: 64,
        writeback_bytes: 8 * 1024 * 1024,
        ..Self::NONE
    };

    /// A SATA SSD without power-loss protection.
    pub const SATA_SSD: Self = Self {
        read_bytes_per_s: 550_000_000,
        write_bytes_per_s: 500_000_000,
        read_ns: 100_000,
        write_ns: 60_000,
        sync_ns: 1_000_000,
        iops: 90_000,
        depth: 32,
        writeback_bytes: 4 * 1024 * 1024,
        ..Self::NONE
    };

    /// A 7,200 rpm disk: every request seeks.
    pub const HDD: Self = Self {
        read_bytes_per_s: 180_000_000,
        write_bytes_per_s: 180_000_000,
        read_ns: 8_000_000,
        write_ns: 8_000_000,
        sync_ns: 12_000_000,
        iops: 150,
        depth: 1,
        writeback_bytes: 4 * 1024 * 1024,
        ..Self::NONE
    };

    /// A network volume with provisioned throughput and IOPS.
    pub const CLOUD: Self = Self {
        read_bytes_per_s: 250_000_000,
        write_bytes_per_s: 250_000_000,
        read_ns: 600_000,
        write_ns: 800_000,
        sync_ns: 1_000_000,
        iops: 6_000,
        depth: 64,
        writeback_bytes: 4 * 1024 * 1024,
        ..Self::NONE
    };

    /// The preset of this name.
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::NONE),
            "nvme" => Some(Self::NVME),
            "sata-ssd" => Some(Self::SATA_SSD),
            "hdd" => Some(Self::HDD),
            "cloud" => Some(Self::CLOUD),
            _ => None,
        }
    }

    /// The device of a machine divided by `k`: a k-th of the bandwidths, the same latencies and
    /// IOPS. Chunks shrink with the bandwidth, lest the log wait a k times longer behind one of
    /// them, but not below a page.
    #[must_use]
    pub fn scaled(mut self, k: u64) -> Self {
        let divided = |rate: u64| match rate {
            0 => 0,
            rate => rate.checked_div(k).unwrap_or(rate).max(1),
        };
        self.read_bytes_per_s = divided(self.read_bytes_per_s);
        self.write_bytes_per_s = divided(self.write_bytes_per_s);
        let least = self.chunk_bytes.min(CHUNK_BYTES_MIN);
        self.chunk_bytes = divided(self.chunk_bytes).max(least);
        self
    }

    /// The same device with one queue for all classes.
    #[must_use]
    pub fn fifo(mut self) -> Self {
        self.fifo_only = true;
        self
    }
}

/// What is asked of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes from the medium.
    Read,
    /// Bytes to the medium.
    Write,
    /// Bytes to the medium and a barrier.
    Sync,
}

/// A request that waits.
#[derive(Debug)]
pub struct Ticket {
    queue: usize,
    id: u64,
    /// What the queue will have served, in nanoseconds of work, when this request is served.
    served_at: u64,
    beside_ns: u64,
}

/// Answer to "is it done".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is done.
    Done,
    /// It is not done before this instant; ask again then.
    NotBefore(Nanos),
}

#[derive(Debug)]
struct Request {
    id: u64,
    arrived: Nanos,
    first_ns: u64,
    bytes_left: u64,
    fs_per_byte: u64,
    chunk_bytes: u64,
    last: bool,
}

#[derive(Debug, Default)]
struct Queue {
    requests: VecDeque<Request>,
    submitted_ns: u64,
    served_ns: u64,
    /// Virtual start tag of the next chunk.
    tag: u128,
}

/// A device and what waits for it.
#[derive(Debug)]
pub struct Device {
    spec: DeviceSpec,
    /// Those of the device, or what jobs wish of it.
    weights: [u32; QUEUE_COUNT],
    queues: [Queue; QUEUE_COUNT],
    tag: u128,
    busy_until: Nanos,
    finished: BTreeMap<u64, Nanos>,
    next_id: u64,
    bytes: [u64; QUEUE_COUNT],
    busy_ns: u64,
}

impl Device {
    /// An idle device.
    pub fn new(spec: DeviceSpec) -> Self {
        Self {
            spec,
            weights: spec.weights,
            queues: Default::default(),
            tag: 0,
            busy_until: 0,
            finished: BTreeMap::new(),
            next_id: 0,
            bytes: [0; QUEUE_COUNT],
            busy_ns: 0,
        }
    }

    /// What the device can do.
    pub fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    /// Bytes moved for log and manifest, flush, compaction and read.
    pub fn bytes(&self) -> [u64; QUEUE_COUNT] {
        self.bytes
    }

    /// How long the server was busy.
    pub fn busy_ns(&self) -> u64 {
        self.busy_ns
    }

    /// From now on flushes and compactions have these shares, where the log and reads have
    /// 1000 for each weight of 8.
    pub fn set_shares(&mut self, flush: u32, compaction: u32) {
        let [log, _, _, read] = self.spec.weights;
        let of = |weight: u32| weight.saturating_mul(SHARES).div_ceil(SHARES_WEIGHT);
        self.weights = [of(log), flush, compaction, of(read)];
    }

    /// Forgets all requests and what jobs wished: the machine lost power.
    pub fn reset(&mut self) {
        let (next_id, bytes, busy_ns) = (self.next_id, self.bytes, self.busy_ns);
        *self = Self { next_id, bytes, busy_ns, ..Self::new(self.spec) };
    }

    /// Queues a request; `None` where it takes no time.
    pub fn submit(&mut self, now: Nanos, class: IoClass, kind: Kind, bytes: u64) -> Option<Ticket> {
        self.serve(now);
        let own = queue_of(class);
        if let Some(total) = self.bytes.get_mut(own) {
            *total = total.saturating_add(bytes);
        }
        let (rate, latency) = match kind {
            Kind::Read => (self.spec.read_bytes_per_s, self.spec.read_ns),
            Kind::Write => (self.spec.write_bytes_per_s, self.spec.write_ns),
            Kind::Sync => (self.spec.write_bytes_per_s, self.spec.sync_ns),
        };
        self.next_id = self.next_id.wrapping_add(1);
        let id = self.next_id;
        if kind == Kind::Read && self.spec.read_pays_latency_only {
            self.finished.insert(id, now);
            return Some(Ticket { queue: own, id, served_at: 0, beside_ns: latency });
        }
        let fs_per_byte = FS_PER_S.checked_div(rate).unwrap_or(0);
        let depth_ns = latency.checked_div(self.spec.depth).unwrap_or(latency);
        let iops_ns = NS_PER_S.checked_div(self.spec.iops).unwrap_or(0);
        let first_ns = iops_ns.max(depth_ns);
        let last = false;
        let chunk_bytes = self.spec.chunk_bytes.max(1);
        let bytes_left = bytes;
        let request =
            Request { id, arrived: now, first_ns, bytes_left, fs_per_byte, chunk_bytes, last };
        let total_ns = request.total_ns();
        if total_ns == 0 && latency == 0 {
            return None;
        }
        let queue = if self.spec.fifo_only { 0 } else { own };
        let state = self.queues.get_mut(queue)?;
        if state.requests.is_empty() {
            state.tag = state.tag.max(self.tag);
        }
        state.submitted_ns = state.submitted_ns.saturating_add(total_ns);
        state.requests.push_back(request);
        let beside_ns = latency.saturating_sub(depth_ns);
        Some(Ticket { queue, id, served_at: state.submitted_ns, beside_ns })
    }

    /// Whether a request is done by now, or when to ask again.
    pub fn poll(&mut self, now: Nanos, ticket: &Ticket) -> Progress {
        self.serve(now);
        if let Some(served) = self.finished.get(&ticket.id) {
            let done = served.saturating_add(ticket.beside_ns);
            if done <= now {
                self.finished.remove(&ticket.id);
                return Progress::Done;
            }
            return Progress::NotBefore(done);
        }
        let served = self.queues.get(ticket.queue).map_or(0, |queue| queue.served_ns);
        let ahead_ns = ticket.served_at.saturating_sub(served);
        Progress::NotBefore(self.busy_until.max(now).saturating_add(ahead_ns.max(1)))
    }

    /// Gives up waiting; the work is done all the same.
    pub fn forget(&mut self, ticket: &Ticket) {
        self.finished.remove(&ticket.id);
    }

    /// Starts every chunk that begins before `now`.
    fn serve(&mut self, now: Nanos) {
        while let Some(start) = self.next_start().filter(|start| *start < now) {
            let Some(at) = self.pick(start) else { return };
            let weight = self.weights.get(at).copied().unwrap_or(1).max(1);
            let Some(queue) = self.queues.get_mut(at) else { return };
            let Some(request) = queue.requests.front_mut() else { return };
            let chunk_ns = request.take_chunk();
            let (id, last) = (request.id, request.last);
            self.busy_until = start.saturating_add(chunk_ns);
            self.busy_ns = self.busy_ns.saturating_add(chunk_ns);
            self.tag = self.tag.max(queue.tag);
            let share = WEIGHT_SCALE.checked_div(u128::from(weight)).unwrap_or(1);
            queue.tag = queue.tag.saturating_add(u128::from(chunk_ns).saturating_mul(share));
            queue.served_ns = queue.served_ns.saturating_add(chunk_ns);
            if last {
                queue.requests.pop_front();
                self.finished.insert(id, self.busy_until);
            }
        }
    }

    fn next_start(&self) -> Option<Nanos> {
        let heads = self.queues.iter().filter_map(|queue| queue.requests.front());
        Some(heads.map(|head| head.arrived).min()?.max(self.busy_until))
    }

    fn pick(&self, start: Nanos) -> Option<usize> {
        let ready = |queue: &Queue| queue.requests.front().is_some_and(|r| r.arrived <= start);
        let queues = self.queues.iter().enumerate().filter(|(_, queue)| ready(queue));
        queues.min_by_key(|(at, queue)| (queue.tag, *at)).map(|(at, _)| at)
    }
}

impl Request {
    fn chunk_ns(&self, bytes: u64, first: bool) -> u64 {
        let moved = bytes.saturating_mul(self.fs_per_byte).div_ceil(FS_PER_NS);
        if first { moved.max(self.first_ns) } else { moved }
    }

    fn total_ns(&self) -> u64 {
        let first = self.bytes_left.min(self.chunk_bytes);
        let rest = self.bytes_left - first;
        let chunk = self.chunk_bytes.max(1);
        let (whole, tail) = (rest.div_euclid(chunk), rest.rem_euclid(chunk));
        self.chunk_ns(first, true)
            .saturating_add(whole.saturating_mul(self.chunk_ns(chunk, false)))
            .saturating_add(self.chunk_ns(tail, false))
    }

    fn take_chunk(&mut self) -> u64 {
        let bytes = self.bytes_left.min(self.chunk_bytes);
        let ns = self.chunk_ns(bytes, true);
        self.bytes_left -= bytes;
        self.first_ns = 0;
        self.last = self.bytes_left == 0;
        ns
    }
}

fn queue_of(class: IoClass) -> usize {
    match class {
        IoClass::Wal | IoClass::Manifest => 0,
        IoClass::Flush => 1,
        IoClass::Compaction => 2,
        IoClass::Read => 3,
    }
}
