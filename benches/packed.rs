//! Puts to ten thousand tenants by one thread on the real disk, each memtable a file of its own and
//! many in one file, against the same puts to one tenant.
//!
//! 100-byte values, 16-byte keys, no sync per write, a budget of 128 MiB. Targets at five million
//! puts, packed: half the rate of one tenant, no put above 1 s, memory at most 100 MiB above the
//! budget. Memory is what was asked of this binary's allocator from before the open, at its most.
//! Arguments: `puts=N`, and names of arms, all where none is named.
#![expect(
    unsafe_code,
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "an allocator that counts is unsafe by its trait; a bench measures wall time and stops \
              at any failure"
)]

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use forebay_engine::blocking::{BlockingDb, BlockingTenant};
use forebay_engine::env::os::OsEnv;
use forebay_engine::{Options, WriteOptions};
use forebay_workloads::rng::Rng;
use forebay_workloads::zipf::Zipf;

const BUDGET_BYTES: u64 = 128 << 20;
const VALUE: [u8; 100] = [0x5a; 100];
const MIB: f64 = 1_048_576.0;

struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static MOST_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Memory) -> *mut u8 {
        let live = LIVE_BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST_BYTES.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Memory) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Arm {
    name: &'static str,
    tenants: u64,
    /// Exponent of the tenants' shares; 0 for equal ones.
    alpha: f64,
    packed: bool,
}

const ARMS: [Arm; 5] = [
    Arm { name: "one", tenants: 1, alpha: 0.0, packed: false },
    Arm { name: "zipf-packed", tenants: 10_000, alpha: 0.99, packed: true },
    Arm { name: "uniform-packed", tenants: 10_000, alpha: 0.0, packed: true },
    Arm { name: "zipf", tenants: 10_000, alpha: 0.99, packed: false },
    Arm { name: "uniform", tenants: 10_000, alpha: 0.0, packed: false },
];

/// Puts to tenants by rank; the longest one.
fn put_all(tenants: &[BlockingTenant<OsEnv>], (zipf, puts): (Zipf, u64)) -> Duration {
    let mut rng = Rng::new(7, "packed");
    let mut longest = Duration::ZERO;
    let mut before = Instant::now();
    for n in 0..puts {
        let tenant = usize::try_from(zipf.sample(&mut rng)).unwrap();
        let key = (u128::from(rng.next_u64()) << 64 | u128::from(n)).to_be_bytes();
        tenants.get(tenant).unwrap().put(&key, &VALUE, WriteOptions::default()).unwrap();
        let now = Instant::now();
        longest = longest.max(now - before);
        before = now;
    }
    longest
}

fn options(arm: &Arm) -> Options {
    Options {
        budget_bytes: BUDGET_BYTES,
        packed_flush: arm.packed,
        flush_on_close: arm.packed,
        ..Options::default()
    }
}

/// Puts of an arm per second.
fn run(arm: &Arm, puts: u64) -> f64 {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let base = LIVE_BYTES.load(Ordering::Relaxed);
    let db = BlockingDb::open(OsEnv, directory.path(), options(arm)).unwrap();
    let names: Vec<String> = (0..arm.tenants).map(|n| format!("tenant-{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tenants = db.create_tenants(&names).unwrap();
    MOST_BYTES.store(LIVE_BYTES.load(Ordering::Relaxed), Ordering::Relaxed);
    let start = Instant::now();
    let longest = put_all(&tenants, (Zipf::new(arm.tenants, arm.alpha), puts));
    let elapsed = start.elapsed();
    let most = MOST_BYTES.load(Ordering::Relaxed).saturating_sub(base);
    let metrics = db.db().metrics();
    drop(tenants);
    let start = Instant::now();
    db.close().unwrap();
    let close = start.elapsed();
    drop(db);
    let start = Instant::now();
    let db = BlockingDb::open(OsEnv, directory.path(), options(arm)).unwrap();
    let open = start.elapsed();
    db.close().unwrap();
    let rate = puts as f64 / elapsed.as_secs_f64();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{:<15} {rate:>9.0} puts/s, longest {:>6.3} s, memory {:>4.0} MiB, close {:>5.2} s, open \
         {:>5.2} s; {} memtables in {} flushes, {} compactions, stalled {:.2} s",
        arm.name,
        longest.as_secs_f64(),
        most as f64 / MIB,
        close.as_secs_f64(),
        open.as_secs_f64(),
        metrics.flush_count,
        metrics.flush_job_count,
        metrics.compaction_count,
        metrics.stall_ns.iter().sum::<u64>() as f64 / 1e9,
    )
    .unwrap();
    rate
}

fn main() {
    let args: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--bench")).collect();
    let is_test = args.iter().any(|arg| arg == "--test");
    let said = args.iter().find_map(|arg| arg.strip_prefix("puts=")?.parse().ok());
    let puts = if is_test { 2_000 } else { said.unwrap_or(1_000_000) };
    let is_named = |arm: &Arm| args.iter().any(|arg| arg == arm.name);
    let some_are = ARMS.iter().any(is_named);
    let mut one = None;
    let mut out = std::io::stdout();
    for arm in ARMS.iter().filter(|arm| !some_are || is_named(arm)) {
        let rate = run(arm, puts);
        let of_one = rate / *one.get_or_insert(rate);
        writeln!(out, "{:<15} {of_one:.2} of {}", "", ARMS[0].name).unwrap();
    }
}
