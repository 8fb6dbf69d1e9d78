//! One suite that every world must pass: the statements of [`Env`] and [`File`], checked one by
//! one.
//!
//! What survives a crash is not checked here: only a world that can crash can say.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Env, File, IoClass, Site};
use crate::error::{Error, Result};

/// The statements that a world broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Violations(pub Vec<String>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken: {}", self.0.join("; "))
    }
}

#[derive(Default)]
struct Checks {
    broken: Vec<String>,
}

impl Checks {
    fn holds(&mut self, statement: &str, holds: bool) {
        if !holds {
            self.broken.push(statement.to_owned());
        }
    }

    fn ends(&mut self, group: &str, result: Result<()>) {
        if let Err(error) = result {
            self.broken.push(format!("{group} goes through without an error, but: {error}"));
        }
    }
}

fn failed_as<T>(result: &Result<T>, expected: io::ErrorKind) -> bool {
    matches!(result, Err(Error::Io { kind, .. }) if *kind == expected)
}

/// Checks a world in a directory of its own, which it makes and fills.
///
/// # Errors
///
/// Every statement that does not hold. The directory holds what the suite wrote.
pub async fn run<E: Env>(env: &E, dir: &Path) -> core::result::Result<(), Violations> {
    let mut checks = Checks::default();
    let made = env.create_dir(dir).await;
    checks.ends("creating the directory", made);
    let result = directories(env, dir, &mut checks).await;
    checks.ends("directories", result);
    let result = reads_and_writes(env, dir, &mut checks).await;
    checks.ends("reads and writes", result);
    let result = lengths(env, dir, &mut checks).await;
    checks.ends("lengths", result);
    let result = names(env, dir, &mut checks).await;
    checks.ends("names", result);
    let result = handles(env, dir, &mut checks).await;
    checks.ends("handles", result);
    let result = locks(env, dir, &mut checks).await;
    checks.ends("locks", result);
    time(env, &mut checks).await;
    tasks(env, &mut checks).await;
    if checks.broken.is_empty() { Ok(()) } else { Err(Violations(checks.broken)) }
}

async fn directories<E: Env>(env: &E, dir: &Path, checks: &mut Checks) -> Result<()> {
    let deep = dir.join("a").join("b");
    env.create_dir(&deep).await?;
    env.create_dir(&deep).await?;
    checks.holds("a new directory is empty", env.list(&deep).await?.is_empty());
    checks.holds("create_dir makes missing parents", env.list(dir).await? == ["a"]);
    let missing = dir.join("missing");
    let listed = env.list(&missing).await;
    checks.holds(
        "listing a missing directory is NotFound",
        failed_as(&listed, io::ErrorKind::NotFound),
    );
    let created = env.create(&missing.join("file")).await;
    checks.holds(
        "creating a file in a missing directory is NotFound",
        failed_as(&created, io::ErrorKind::NotFound),
    );
    env.sync_dir(&deep).await?;
    checks.holds("an empty world has free bytes", env.free_bytes(dir).await? > 0);
    let free = env.free_bytes(&missing).await;
    checks.holds(
        "free_bytes of a missing directory is NotFound",
        failed_as(&free, io::ErrorKind::NotFound),
    );
    Ok(())
}

async fn reads_and_writes<E: Env>(env: &E, dir: &Path, checks: &mut Checks) -> Result<()> {
    let class = IoClass::Flush;
    let path = dir.join("rw");
    let opened = env.open(&path).await;
    checks.holds("opening a missing file is NotFound", failed_as(&opened, io::ErrorKind::NotFound));
    let file = env.create(&path).await?;
    checks.holds("a new file is empty", file.is_empty());
    file.append(b"hello ", class).await?;
    file.append(b"", class).await?;
    file.append(b"world", class).await?;
    checks.holds("len counts appended bytes", file.len() == 11);
    let all = file.read_at(0, 11, class).await?;
    checks.holds("reads see appended bytes at once", all.as_ref() == b"hello world");
    checks.holds("a read in the middle", file.read_at(4, 3, class).await?.as_ref() == b"o w");
    checks.holds("an empty read at the end", file.read_at(11, 0, class).await?.is_empty());
    for (offset, len) in [(10, 2), (11, 1), (1 << 40, 1)] {
        let read = file.read_at(offset, len, class).await;
        checks.holds(
            "a read past the end is UnexpectedEof",
            failed_as(&read, io::ErrorKind::UnexpectedEof),
        );
        let names_it =
            matches!(&read, Err(e) if e.location() == (Some(path.as_path()), Some(offset)));
        checks.holds("an error of a read names file and offset", names_it);
    }
    file.write_at(6, b"W", class).await?;
    checks.holds("write_at inside keeps the length", file.len() == 11);
    file.write_at(13, b"!", class).await?;
    checks.holds("write_at behind the end extends the file", file.len() == 14);
    let tail = file.read_at(6, 8, class).await?;
    checks.holds("a gap reads as zeros", tail.as_ref() == b"World\0\0!");
    file.sync_data(class).await?;
    file.sync_all(class).await?;
    drop(file);
    let file = env.open(&path).await?;
    checks.holds("a reopened file has its length", file.len() == 14);
    file.append(b"?", class).await?;
    let tail = file.read_at(13, 2, class).await?;
    checks.holds("append to a reopened file goes behind its end", tail.as_ref() == b"!?");
    let big: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    file.append(&big, class).await?;
    let read = file.read_at(15, big.len(), class).await?;
    checks.holds("a large append reads back", read.as_ref() == big.as_slice());
    Ok(())
}

async fn lengths<E: Env>(env: &E, dir: &Path, checks: &mut Checks) -> Result<()> {
    let class = IoClass::Wal;
    let file = env.create(&dir.join("len")).await?;
    file.append(b"abcdef", class).await?;
    file.allocate(1 << 16).await?;
    checks.holds("allocate keeps the length", file.len() == 6);
    let read = file.read_at(0, 7, class).await;
    checks.holds(
        "allocated space cannot be read before it is written",
        failed_as(&read, io::ErrorKind::UnexpectedEof),
    );
    file.append(b"g", class).await?;
    let read = file.read_at(0, 7, class).await?;
    checks.holds("append after allocate goes behind the data", read.as_ref() == b"abcdefg");
    file.set_len(3).await?;
    checks.holds("set_len cuts", file.len() == 3);
    file.set_len(5).await?;
    let read = file.read_at(0, 5, class).await?;
    checks.holds("set_len extends with zeros, not with what was cut", read.as_ref() == b"abc\0\0");
    file.append(b"h", class).await?;
    let read = file.read_at(4, 2, class).await?;
    checks.holds("append after set_len goes behind the new end", read.as_ref() == b"\0h");
    Ok(())
}

async fn names<E: Env>(env: &E, dir: &Path, checks: &mut Checks) -> Result<()> {
    let class = IoClass::Manifest;
    let dir = dir.join("names");
    env.create_dir(&dir).await?;
    for name in ["b", "a.log", "c", "B", "a"] {
        env.create(&dir.join(name)).await?.append(name.as_bytes(), class).await?;
    }
    checks.holds("list is sorted", env.list(&dir).await? == ["B", "a", "a.log", "b", "c"]);
    env.rename(&dir.join("a"), &dir.join("b")).await?;
    let b = env.open(&dir.join("b")).await?;
    checks.holds("rename replaces its target", b.read_at(0, 1, class).await?.as_ref() == b"a");
    checks.holds("rename leaves no old name", env.list(&dir).await? == ["B", "a.log", "b", "c"]);
    let renamed = env.rename(&dir.join("a"), &dir.join("x")).await;
    checks
        .holds("renaming a missing file is NotFound", failed_as(&renamed, io::ErrorKind::NotFound));
    env.link(&dir.join("b"), &dir.join("l")).await?;
    b.append(b"2", class).await?;
    let l = env.open(&dir.join("l")).await?;
    checks.holds("a link is the same file", l.read_at(0, 2, class).await?.as_ref() == b"a2");
    let linked = env.link(&dir.join("b"), &dir.join("c")).await;
    checks.holds(
        "linking to a taken name is AlreadyExists",
        failed_as(&linked, io::ErrorKind::AlreadyExists),
    );
    let linked = env.link(&dir.join("x"), &dir.join("y")).await;
    checks.holds("linking a missing file is NotFound", failed_as(&linked, io::ErrorKind::NotFound));
    env.remove(&dir.join("b")).await?;
    let l = env.open(&dir.join("l")).await?;
    checks.holds("a link outlives the first name", l.len() == 2);
    let removed = env.remove(&dir.join("b")).await;
    checks
        .holds("removing a missing file is NotFound", failed_as(&removed, io::ErrorKind::NotFound));
    checks.holds("list after removes", env.list(&dir).await? == ["B", "a.log", "c", "l"]);
    env.sync_dir(&dir).await
}

async fn handles<E: Env>(env: &E, dir: &Path, checks: &mut Checks) -> Result<()> {
    let class = IoClass::Compaction;
    let path = dir.join("handle");
    let old = env.create(&path).await?;
    old.append(b"old", class).await?;
    env.remove(&path).await?;
    checks.holds(
        "an open file can be read after its name was removed",
        old.read_at(0, 3, class).await?.as_ref() == b"old",
    );
    old.append(b"er", class).await?;
    checks.holds("and appended to", old.read_at(0, 5, class).await?.as_ref() == b"older");
    let new = env.create(&path).await?;
    checks.holds("a file of a removed name begins empty", new.is_empty());
    new.append(b"new", class).await?;
    checks.holds("and is another file", old.read_at(0, 5, class).await?.as_ref() == b"older");
    let again = env.create(&path).await?;
    checks.holds("create empties a file that is there", again.is_empty());
    let other = env.open(&path).await?;
    again.append(b"seen", class).await?;
    checks.holds(
        "a handle reads what another one wrote",
        other.read_at(0, 4, class).await?.as_ref() == b"seen",
    );
    Ok(())
}

async fn locks<E: Env>(env: &E, dir: &Path, checks: &mut Checks) -> Result<()> {
    let path = dir.join("LOCK");
    let lock = env.lock(&path).await?;
    checks.holds("a lock makes its file", env.list(dir).await?.iter().any(|name| name == "LOCK"));
    let second = env.lock(&path).await;
    checks.holds("a second lock is refused", matches!(second, Err(Error::Locked(_))));
    drop(second);
    let third = env.lock(&path).await;
    checks
        .holds("a refused lock does not release the first", matches!(third, Err(Error::Locked(_))));
    drop(lock);
    drop(env.lock(&path).await?);
    checks.holds("the file of a lock stays", env.open(&path).await.is_ok());
    Ok(())
}

async fn time<E: Env>(env: &E, checks: &mut Checks) {
    let start = env.now();
    checks.holds("the clock does not begin at 0, which means never", start > 0);
    env.sleep_until(start.saturating_add(2_000_000)).await;
    let end = env.now();
    checks
        .holds("a sleep does not end before its deadline", end >= start.saturating_add(2_000_000));
    env.sleep_until(start).await;
    env.sleep_until(0).await;
    checks.holds("a sleep until the past ends", env.now() >= end);
    let mut last = env.now();
    for _ in 0..100 {
        env.yield_point(Site("conformance")).await;
        let now = env.now();
        checks.holds("the clock never goes back", now >= last);
        last = now;
    }
    let draws: Vec<u64> = (0..8).map(|_| env.random_u64(Site("conformance"))).collect();
    let first = draws.first().copied().unwrap_or(0);
    checks.holds("draws differ", draws.iter().any(|draw| *draw != first));
}

async fn tasks<E: Env>(env: &E, checks: &mut Checks) {
    let count = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for i in 0..8_u64 {
        let count = Arc::clone(&count);
        let world = env.clone();
        tasks.push(env.spawn("conformance", move || async move {
            world.sleep_until(world.now().saturating_add(i.saturating_mul(100_000))).await;
            world.yield_point(Site("conformance")).await;
            count.fetch_add(1, Ordering::AcqRel);
        }));
    }
    for task in tasks {
        task.await;
    }
    checks.holds("a task is ready when it has ended", count.load(Ordering::Acquire) == 8);
    let world = env.clone();
    let seen = Arc::clone(&count);
    drop(env.spawn("conformance", move || async move {
        world.sleep_until(world.now().saturating_add(1_000_000)).await;
        seen.fetch_add(1, Ordering::AcqRel);
    }));
    let deadline = env.now().saturating_add(10_000_000_000);
    while count.load(Ordering::Acquire) < 9 && env.now() < deadline {
        env.sleep_until(env.now().saturating_add(1_000_000)).await;
    }
    checks.holds("a task goes on without its handle", count.load(Ordering::Acquire) == 9);
}
