//! The calls that are timed, one probe after the other.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use forebay_engine::Error;
use forebay_engine::env::{BlockingEnv, Env, File, IoClass, Nanos, Site};
use forebay_engine::types::{to_u64, to_usize};
use forebay_sim::disk::device::CHUNK_BYTES;

use super::{CalibrateError, Forget, Result, SAMPLES_MIN, Spread};
use crate::number::{count, to_f64};

/// Bytes of a small append: a page, about what a group of writes has.
const SMALL_BYTES: u64 = 4 << 10;
/// Bytes of a large append or read, about what a flush or a compaction writes at a time.
const LARGE_BYTES: u64 = 1 << 20;
/// Bytes after which an appended file is begun again: a log's segment.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Bytes of the file that large appends fill and of that which is read.
const DATA_BYTES: u64 = 32 << 20;
/// Unsynced bytes up to which it is watched whether appends become slow.
const UNSYNCED_BYTES: u64 = 64 << 20;
/// Syncs, or small appends, whose mean is a sample.
const BATCH: u64 = 16;
/// Most samples of one probe, which bounds the bytes it writes.
const SAMPLES_MAX: usize = 2_000;
/// Large appends whose mean is a sample: more than what a limiter lets pass before it limits.
const LARGE_BATCH: u64 = 8;
/// Most samples of large appends.
const LARGE_MAX: usize = 64;
/// Large appends before each sync of the thread beside which small syncs are timed.
const BESIDE: u64 = 4;
/// Threads that sync at once, each a file of its own.
const THREADS: [u64; 4] = [1, 2, 4, 8];
/// Most syncs of one thread beside others.
const THREAD_SYNCS_MAX: u64 = 20_000;

const NS_PER_S: u64 = 1_000_000_000;

pub(super) const APPEND_HOW: &str = "append of 4 KiB to the page cache, mean of 16";
pub(super) const SYNC_HOW: &str = "4 KiB appended, their fdatasync, mean of 16, less their bytes";
pub(super) const WRITE_HOW: &str = "1 MiB appended and synced, mean of 8, less sync_ns";
pub(super) const WRITEBACK_HOW: &str =
    "unsynced bytes before appends are slow; at most 64 MiB seen";

/// Asks after each sample whether to go on: the name of a probe where one begins, else nothing.
type Told<'a> = &'a (dyn Fn(&str) -> bool + Sync);

/// A disk that is probed in one folder.
pub(super) struct Probe<'a, E> {
    env: &'a E,
    dir: &'a Path,
    told: Told<'a>,
    small: Vec<u8>,
    large: Vec<u8>,
}

/// What reads took, from the device and from the page cache.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reads {
    pub(super) page_ns: Spread,
    pub(super) bytes_per_s: Spread,
    pub(super) cached_page_ns: Spread,
    pub(super) cached_bytes_per_s: Spread,
}

/// Syncs in a second, by how many threads sync at once.
#[derive(Clone, Debug, Default)]
pub(super) struct AtOnce {
    rates: Vec<(u64, u64)>,
}

/// Bytes in a second of a piece that took so long beside what every call takes.
fn bytes_per_s(bytes: u64, beside_ns: u64) -> impl Fn(u64) -> u64 {
    move |ns| {
        let moving = ns.saturating_sub(beside_ns).max(1);
        bytes.saturating_mul(NS_PER_S).checked_div(moving).unwrap_or(0).max(1)
    }
}

/// What the model's device must be like for small and large syncs to take what they took.
///
/// A request of the model occupies the device for its bytes, or for its latency over the depth
/// where that is longer, and the rest of its latency passes beside the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model {
    pub(super) depth: Spread,
    pub(super) write_bytes_per_s: Spread,
    pub(super) sync_ns: Spread,
}

impl Model {
    pub(super) fn of(small: Spread, at_once: &AtOnce, large: Spread) -> Self {
        let depth = at_once.depth(small.middle);
        let beside = |ns: u64| ns.saturating_sub(ns.div_euclid(depth.max(1)));
        let in_turn = small.middle.saturating_sub(beside(small.middle));
        let write_bytes_per_s = large.map(|took| {
            let rate = bytes_per_s(LARGE_BYTES, beside(small.middle))(took);
            let chunk_ns = CHUNK_BYTES.saturating_mul(NS_PER_S).div_euclid(rate);
            if chunk_ns >= in_turn {
                return rate;
            }
            // The first chunk moves while the latency passes.
            bytes_per_s(LARGE_BYTES - CHUNK_BYTES, small.middle)(took)
        });
        let moved_ns =
            SMALL_BYTES.saturating_mul(NS_PER_S).div_euclid(write_bytes_per_s.middle.max(1));
        let latency = |took: u64| match depth.checked_sub(1) {
            Some(others @ 1..) if took.div_euclid(depth) < moved_ns => {
                took.saturating_sub(moved_ns).saturating_mul(depth).div_euclid(others)
            }
            Some(_) | None => took,
        };
        let depth = Spread::exactly(depth);
        Self { depth, write_bytes_per_s, sync_ns: small.map(latency) }
    }

    /// Whether requests are served as they arrive: then a small sync waits for half of what another
    /// writes at a time, else for a chunk of it at most.
    pub(super) fn fifo(&self, beside: Spread) -> Spread {
        let much = BESIDE * LARGE_BYTES;
        let of_much =
            much.saturating_mul(NS_PER_S).div_euclid(self.write_bytes_per_s.middle.max(1));
        let waits = beside.middle.saturating_sub(self.sync_ns.middle);
        Spread::exactly(u64::from(waits > of_much >> 2))
    }
}

/// How a small sync beside much was measured, and what came of it.
pub(super) fn fifo_how(beside: &Spread) -> String {
    format!("an fdatasync of 4 KiB beside ones of 4 MiB takes {} ns", beside.middle)
}

impl AtOnce {
    #[cfg(test)]
    pub(super) fn of(rates: [u64; 4]) -> Self {
        Self { rates: THREADS.into_iter().zip(rates).collect() }
    }

    /// The syncs that overlap at best, of which one alone takes so long.
    fn depth(&self, small_ns: u64) -> u64 {
        let of = |rate: u64| {
            let half = NS_PER_S >> 1;
            let overlap = rate.saturating_mul(small_ns).saturating_add(half).div_euclid(NS_PER_S);
            overlap.max(1)
        };
        self.rates.iter().map(|(_, rate)| of(*rate)).max().unwrap_or(1)
    }

    pub(super) fn how(&self) -> String {
        let told: Vec<String> = self
            .rates
            .iter()
            .map(|(threads, rate)| format!("{threads}: {}", count(to_f64(*rate))))
            .collect();
        format!("syncs/s by threads ({}) times what one takes", told.join(", "))
    }
}

impl<'a, E: BlockingEnv> Probe<'a, E> {
    /// The bytes are drawn, lest a filesystem that compresses has little to write.
    pub(super) fn new(env: &'a E, dir: &'a Path, told: Told<'a>) -> Self {
        let mut large = Vec::with_capacity(to_usize(LARGE_BYTES));
        while to_u64(large.len()) < LARGE_BYTES {
            large.extend(env.random_u64(Site("calibrate")).to_le_bytes());
        }
        let small = large.iter().copied().take(to_usize(SMALL_BYTES)).collect();
        Self { env, dir, told, small, large }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Samples until the time is over, at least a few and at most so many.
    async fn samples(
        &self,
        (begin, share_ns): (Nanos, Nanos),
        max: usize,
        mut one: impl AsyncFnMut() -> Result<u64>,
    ) -> Result<Vec<u64>> {
        let until = begin.saturating_add(share_ns);
        let mut samples = Vec::new();
        while samples.len() < SAMPLES_MIN || (self.env.now() < until && samples.len() < max) {
            if !(self.told)("") {
                return Err(CalibrateError::Stopped);
            }
            samples.push(one().await?);
        }
        Ok(samples)
    }

    /// Small appends that nobody waits for.
    pub(super) async fn appends(&self, time: (Nanos, Nanos)) -> Result<Spread> {
        let path = self.at("appends");
        let mut file = self.segment(&path).await?;
        let samples = self.samples(time, SAMPLES_MAX, async || {
            if file.len() >= SEGMENT_BYTES {
                file = self.segment(&path).await?;
            }
            let begin = self.env.now();
            for _ in 0..BATCH {
                file.append(&self.small, IoClass::Wal).await?;
            }
            Ok(self.env.now().saturating_sub(begin).div_euclid(BATCH))
        });
        let samples = samples.await?;
        self.env.remove(&path).await?;
        Ok(Spread::of(&samples))
    }

    /// Syncs of one file, each after a small append, as of a log.
    pub(super) async fn syncs(&self, time: (Nanos, Nanos)) -> Result<Spread> {
        let path = self.at("syncs");
        let mut file = self.segment(&path).await?;
        let samples = self.samples(time, SAMPLES_MAX, async || {
            if file.len() >= SEGMENT_BYTES {
                file = self.segment(&path).await?;
            }
            let mut took = 0;
            for _ in 0..BATCH {
                file.append(&self.small, IoClass::Wal).await?;
                let begin = self.env.now();
                file.sync_data(IoClass::Wal).await?;
                took += self.env.now().saturating_sub(begin);
            }
            Ok(took.div_euclid(BATCH))
        });
        let samples = samples.await?;
        self.env.remove(&path).await?;
        Ok(Spread::of(&samples))
    }

    /// A file as a log begins one: reserved, and its length synced.
    async fn segment(&self, path: &Path) -> Result<E::File> {
        let file = self.env.create(path).await?;
        file.allocate(SEGMENT_BYTES).await?;
        file.sync_all(IoClass::Wal).await?;
        Ok(file)
    }

    /// Syncs of several files at once, for each number of threads a part of the time.
    pub(super) async fn syncs_at_once(&self, (_, share_ns): (Nanos, Nanos)) -> Result<AtOnce> {
        let mut rates = Vec::new();
        for threads in THREADS {
            if !(self.told)("") {
                return Err(CalibrateError::Stopped);
            }
            let each_ns = share_ns.div_euclid(to_u64(THREADS.len()));
            rates.push((threads, self.rate_of(threads, each_ns).await?));
        }
        Ok(AtOnce { rates })
    }

    async fn rate_of(&self, threads: u64, for_ns: Nanos) -> Result<u64> {
        let done = Arc::new(AtomicU64::new(0));
        let failed: Arc<Mutex<Option<Error>>> = Arc::default();
        let mut paths = Vec::new();
        for thread in 0..threads {
            paths.push(self.at(&format!("at-once-{thread}")));
            // Reserved before the time begins.
            self.segment(paths.last().unwrap_or(&PathBuf::new())).await?;
        }
        let begin = self.env.now();
        let until = begin.saturating_add(for_ns);
        let mut tasks = Vec::new();
        for path in &paths {
            let (env, path, small) = (self.env.clone(), path.clone(), self.small.clone());
            let (done, failed) = (Arc::clone(&done), Arc::clone(&failed));
            tasks.push(self.env.spawn("calibrate", move || async move {
                if let Err(error) = sync_until(&env, (&path, &small), (until, &done)).await {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }));
        }
        for task in tasks {
            task.await;
        }
        let elapsed_ns = self.env.now().saturating_sub(begin).max(1);
        for path in &paths {
            self.env.remove(path).await?;
        }
        let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(error) = failed {
            return Err(error.into());
        }
        let count = done.load(Ordering::Relaxed);
        Ok(count.saturating_mul(NS_PER_S).div_euclid(elapsed_ns))
    }

    /// Large appends, each with its sync.
    pub(super) async fn writes(&self, time: (Nanos, Nanos)) -> Result<Spread> {
        let path = self.at("writes");
        let mut file = self.env.create(&path).await?;
        let samples = self.samples(time, LARGE_MAX, async || {
            if file.len() >= DATA_BYTES {
                file = self.env.create(&path).await?;
            }
            let begin = self.env.now();
            for _ in 0..LARGE_BATCH {
                file.append(&self.large, IoClass::Flush).await?;
                file.sync_data(IoClass::Flush).await?;
            }
            Ok(self.env.now().saturating_sub(begin).div_euclid(LARGE_BATCH))
        });
        let samples = samples.await?;
        self.env.remove(&path).await?;
        Ok(Spread::of(&samples))
    }

    /// How many unsynced bytes there may be before an append is as slow as the disk, on which one
    /// with its sync takes `large_ns`.
    pub(super) async fn unsynced(&self, large_ns: Nanos) -> Result<Spread> {
        let path = self.at("unsynced");
        let file = self.env.create(&path).await?;
        let mut slow = 0;
        // One slow append may be the scheduler's doing.
        while file.len() < UNSYNCED_BYTES && slow < 2 {
            if !(self.told)("") {
                return Err(CalibrateError::Stopped);
            }
            let begin = self.env.now();
            file.append(&self.large, IoClass::Flush).await?;
            let took = self.env.now().saturating_sub(begin);
            slow = if took > large_ns >> 1 { slow + 1 } else { 0 };
        }
        let fast = file.len().saturating_sub(slow * LARGE_BYTES).max(LARGE_BYTES);
        self.env.remove(&path).await?;
        Ok(Spread::exactly(fast))
    }

    /// What small syncs take, for most of the time, while another thread syncs much.
    pub(super) async fn syncs_beside(&self, time: (Nanos, Nanos)) -> Result<Spread> {
        let (path, other) = (self.at("beside"), self.at("beside-much"));
        let mut file = self.segment(&path).await?;
        let over = Arc::new(AtomicBool::new(false));
        let failed: Arc<Mutex<Option<Error>>> = Arc::default();
        let task = {
            let (env, other, large) = (self.env.clone(), other.clone(), self.large.clone());
            let (over, failed) = (Arc::clone(&over), Arc::clone(&failed));
            self.env.spawn("calibrate", move || async move {
                if let Err(error) = much(&env, (&other, &large), &over).await {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            })
        };
        let samples = self.samples(time, SAMPLES_MAX, async || {
            if file.len() >= SEGMENT_BYTES {
                file = self.segment(&path).await?;
            }
            file.append(&self.small, IoClass::Wal).await?;
            let begin = self.env.now();
            file.sync_data(IoClass::Wal).await?;
            Ok(self.env.now().saturating_sub(begin))
        });
        let samples = samples.await;
        over.store(true, Ordering::Release);
        task.await;
        if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error.into());
        }
        let samples = samples?;
        self.env.remove(&path).await?;
        self.env.remove(&other).await?;
        Ok(Spread::by_time(&samples))
    }

    /// Reads of a page and of a MiB, from the device and from the page cache.
    pub(super) async fn reads(
        &self,
        (begin, share_ns): (Nanos, Nanos),
        forget: Forget,
    ) -> Result<Reads> {
        let path = self.at("reads");
        let file = self.env.create(&path).await?;
        while file.len() < DATA_BYTES {
            file.append(&self.large, IoClass::Flush).await?;
        }
        file.sync_all(IoClass::Flush).await?;
        let until = begin.saturating_add(share_ns);
        let mut taken: [Vec<u64>; 4] = Default::default();
        let [pages, large, cached_pages, cached_large] = &mut taken;
        while pages.is_empty() || self.env.now() < until {
            if !(self.told)("") {
                return Err(CalibrateError::Stopped);
            }
            forget(&path)?;
            self.read_all(&file, SMALL_BYTES, pages).await?;
            forget(&path)?;
            self.read_all(&file, LARGE_BYTES, large).await?;
            self.read_all(&file, SMALL_BYTES, cached_pages).await?;
            self.read_all(&file, LARGE_BYTES, cached_large).await?;
        }
        self.env.remove(&path).await?;
        let [page_ns, large, cached_page_ns, cached_large] = taken.map(|taken| Spread::of(&taken));
        Ok(Reads {
            page_ns,
            bytes_per_s: large.map(bytes_per_s(LARGE_BYTES, page_ns.middle)),
            cached_page_ns,
            cached_bytes_per_s: cached_large.map(bytes_per_s(LARGE_BYTES, cached_page_ns.middle)),
        })
    }

    /// Reads so many bytes at the begin of each MiB, in an order in which no read is ahead of the
    /// next.
    async fn read_all(&self, file: &E::File, bytes: u64, taken: &mut Vec<u64>) -> Result<()> {
        const STRIDE: u64 = 13;
        let count = DATA_BYTES.div_euclid(LARGE_BYTES);
        for number in 0..count {
            let offset = (number * STRIDE).rem_euclid(count) * LARGE_BYTES;
            let begin = self.env.now();
            file.read_at(offset, to_usize(bytes), IoClass::Read).await?;
            taken.push(self.env.now().saturating_sub(begin));
        }
        Ok(())
    }
}

/// Writes and syncs much at a time, again and again.
async fn much<E: Env>(
    env: &E,
    (path, large): (&Path, &[u8]),
    over: &AtomicBool,
) -> core::result::Result<(), Error> {
    let mut file = env.create(path).await?;
    while !over.load(Ordering::Acquire) {
        if file.len() >= DATA_BYTES {
            file = env.create(path).await?;
        }
        for _ in 0..BESIDE {
            file.append(large, IoClass::Flush).await?;
        }
        file.sync_data(IoClass::Flush).await?;
    }
    Ok(())
}

/// Syncs a file of its own until a time, each after a small append.
async fn sync_until<E: Env>(
    env: &E,
    (path, small): (&Path, &[u8]),
    (until, done): (Nanos, &AtomicU64),
) -> core::result::Result<(), Error> {
    let file = env.open(path).await?;
    for _ in 0..THREAD_SYNCS_MAX {
        if env.now() >= until {
            break;
        }
        if file.len() >= SEGMENT_BYTES {
            file.set_len(0).await?;
        }
        file.append(small, IoClass::Wal).await?;
        file.sync_data(IoClass::Wal).await?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
