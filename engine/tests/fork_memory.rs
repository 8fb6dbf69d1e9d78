#![cfg(test)]
#![expect(unsafe_code, reason = "an allocator that counts is unsafe by its trait")]
//! What a branch holds in memory, in the layout in which it shares its parent's tables.
//!
//! Strategy: an allocator that counts; forks of a parent with 1, 100 and 1,000 tables, with deletes
//! in them and without, right after the fork and once each has a table of its own; and a chain of
//! forks 50 deep.
//! Invariant: a branch holds at most 4 KiB beside what its parent holds, whatever that has.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use forebay_engine::WriteOptions;
use forebay_engine::blocking::{BlockingDb, BlockingTenant};
use forebay_engine::env::BlockingEnv as _;
use forebay_engine::env::os::OsEnv;
use forebay_engine::inspect::{Look, inspect};
use forebay_engine::options::Options;

const BRANCH_BYTES_MAX: i64 = 4 << 10;
const FORKS: usize = 64;
const DEPTH: usize = 50;

struct Counting;

static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

fn grow(bytes: usize, by: i64) {
    LIVE_BYTES.fetch_add(by * i64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size(), 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        grow(layout.size(), -1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Branch = BlockingTenant<OsEnv>;

/// A tenant with about so many tables below level 0, each with deletes where `deletes` is true.
fn parent(dir: &Path, tables: usize, deletes: bool) -> (BlockingDb<OsEnv>, Branch) {
    let mut options = Options::default();
    for (key, value) in [
        ("table_bytes_max", "2048"),
        ("block_bytes", "1024"),
        ("block_cache_bytes", "16384"),
        ("open_tables_max", "4"),
    ] {
        options.set(key, value).unwrap();
    }
    let db = BlockingDb::open(OsEnv, dir, options).unwrap();
    let tenant = db.create_tenants(&["t"]).unwrap().remove(0);
    let key = |n: usize| format!("key{n:08}").into_bytes();
    for n in 0..tables * 15 {
        tenant.put(&key(n), &[7; 140], WriteOptions::default()).unwrap();
    }
    let snapshot = tenant.snapshot();
    for n in (0..tables * 15).filter(|n| deletes && n % 10 == 0) {
        tenant.delete(&key(n), WriteOptions::default()).unwrap();
    }
    tenant.compact().unwrap();
    drop(snapshot);
    idle(&db);
    let seen = OsEnv.block_on(inspect(&OsEnv, dir, Look::default())).unwrap().unwrap();
    assert!((tables..=tables * 2).contains(&seen.tables.len()), "{}", seen.tables.len());
    assert!(seen.tables.iter().all(|t| t.level > 0));
    let deleting = seen.tables.iter().filter(|t| t.meta.tombstones > 0).count();
    assert_eq!(deleting * 2 >= seen.tables.len(), deletes, "{deleting}");
    (db, tenant)
}

fn idle(db: &BlockingDb<OsEnv>) {
    OsEnv.block_on(db.db().wait_idle()).unwrap();
}

/// Bytes held after `f` and not before it, for each of so many.
fn each<T>(db: &BlockingDb<OsEnv>, count: usize, f: impl FnOnce() -> T) -> (i64, T) {
    idle(db);
    let before = LIVE_BYTES.load(Ordering::Relaxed);
    let made = f();
    idle(db);
    let held = LIVE_BYTES.load(Ordering::Relaxed) - before;
    (held.div_euclid(i64::try_from(count).unwrap()), made)
}

/// What each fork holds, and what it holds with a table of its own.
fn forks(tables: usize, deletes: bool) -> [i64; 2] {
    let dir = tempfile::tempdir().unwrap();
    let (db, tenant) = parent(dir.path(), tables, deletes);
    let fork = |n: usize| tenant.fork(&format!("f{n}")).unwrap();
    let (held, forks) = each(&db, FORKS, || (0..FORKS).map(fork).collect::<Vec<_>>());
    let (more, ()) = each(&db, FORKS, || {
        for fork in &forks {
            fork.put(b"key", &[7; 100], WriteOptions::default()).unwrap();
            fork.delete(b"kez", WriteOptions::default()).unwrap();
            fork.flush().unwrap();
        }
    });
    db.close().unwrap();
    [held, held + more]
}

/// What a fork holds at the end of a chain.
fn chain() -> i64 {
    let dir = tempfile::tempdir().unwrap();
    let (db, tenant) = parent(dir.path(), 10, false);
    let next = |from: &Branch, n: usize| {
        let fork = from.fork(&format!("f{n}")).unwrap();
        fork.put(b"key", &[7; 100], WriteOptions::default()).unwrap();
        fork.flush().unwrap();
        fork
    };
    let first = (0..DEPTH).fold(tenant, |from, n| next(&from, n));
    let (held, last) = each(&db, 8, || (DEPTH..DEPTH + 8).fold(first, |from, n| next(&from, n)));
    drop(last);
    db.close().unwrap();
    held
}

#[test]
fn a_branch_holds_little_whatever_its_parent_has() {
    let mut held = vec![("chain".to_owned(), chain())];
    for (tables, deletes) in [(1, false), (100, true), (1_000, false), (1_000, true)] {
        let [fresh, flushed] = forks(tables, deletes);
        held.push((format!("{tables} tables, deletes {deletes}"), fresh));
        held.push((format!("{tables} tables, deletes {deletes}, one of its own"), flushed));
    }
    assert!(held.iter().all(|(_, bytes)| *bytes <= BRANCH_BYTES_MAX), "{held:#?}");
}
