//! What an engine must do in this world, whichever runtime drives it: one suite for all of them.
//!
//! Each part is a future over a [`SimEnv`], so that forebay's own runtime and madsim's run the
//! same.

use std::collections::BTreeMap;
use std::path::Path;

use forebay_engine::env::Env;
use forebay_engine::error::{Error, Result};
use forebay_engine::options::{Layout, Options};
use forebay_engine::tenant::ScanOptions;
use forebay_engine::{Db, WriteBatch, WriteOptions};

use crate::SimEnv;

/// Tenants of the suite.
pub const TENANT_COUNT: u64 = 3;

/// What every tenant must hold: the value of each key.
pub type Expected = BTreeMap<Vec<u8>, Vec<u8>>;

/// Options so small that a few hundred writes seal, flush and compact.
///
/// # Errors
///
/// None with the options as they are.
pub fn small_options(layout: Layout) -> Result<Options> {
    let mut options = Options { layout, ..Options::default() };
    for (key, value) in [
        ("budget_bytes", "65536"),
        ("memtable_bytes_max", "8192"),
        ("wal_segment_bytes", "32768"),
        ("block_bytes", "512"),
        ("table_bytes_max", "8192"),
        ("block_cache_bytes", "8192"),
    ] {
        options.set(key, value)?;
    }
    Ok(options)
}

/// A tenant's name.
pub fn tenant_name(tenant: u64) -> String {
    format!("tenant-{tenant}")
}

/// What the writes of [`write()`] numbered below `count` leave.
pub fn expected(count: u64) -> Expected {
    let mut expected = Expected::new();
    for n in 0..count {
        let (key, value) = pair(n);
        match n.rem_euclid(7) {
            6 => drop(expected.remove(&key)),
            _ => drop(expected.insert(key, value)),
        }
    }
    expected
}

fn pair(n: u64) -> (Vec<u8>, Vec<u8>) {
    let key = format!("key-{:03}", n.wrapping_mul(37).rem_euclid(101)).into_bytes();
    let mut value = format!("value-{n}-").into_bytes();
    value.resize(60 + usize::try_from(n.rem_euclid(200)).unwrap_or(0), b'.');
    (key, value)
}

/// Opens the database, creates its tenants where they are missing, and writes numbers `from..to`,
/// each in one batch to all tenants and durable when it returns; `done` is told each number then.
///
/// # Errors
///
/// The engine's.
pub async fn write(
    env: SimEnv,
    dir: &Path,
    layout: Layout,
    (from, to): (u64, u64),
    done: impl Fn(u64),
) -> Result<()> {
    let db = Db::open(env, dir, small_options(layout)?).await?;
    let names: Vec<String> = (0..TENANT_COUNT).map(tenant_name).collect();
    if db.tenants().is_empty() {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        db.create_tenants(&names).await?;
    }
    for n in from..to {
        let (key, value) = pair(n);
        let mut batch = WriteBatch::new();
        for name in &names {
            let tenant = db.tenant(name).ok_or_else(|| Error::UnknownTenant(name.clone()))?;
            if n.rem_euclid(7) == 6 {
                tenant.delete_in(&mut batch, &key)?;
            } else {
                tenant.put_in(&mut batch, &key, &value)?;
            }
        }
        db.write(batch, WriteOptions { sync: true, tag: n }).await?;
        done(n);
    }
    db.close().await
}

/// Everything that each tenant holds, by scan; a get of every key and a reverse scan agree.
///
/// # Errors
///
/// The engine's, or `Corruption` where two of them differ.
pub async fn read(env: SimEnv, dir: &Path, layout: Layout) -> Result<Vec<Expected>> {
    let db = Db::open(env, dir, small_options(layout)?).await?;
    let mut all = Vec::new();
    for name in db.tenants() {
        let tenant = db.tenant(&name).ok_or_else(|| Error::UnknownTenant(name.clone()))?;
        let mut held = Expected::new();
        let mut scan = tenant.scan(..)?;
        while let Some((key, value)) = scan.next().await? {
            if tenant.get(&key).await?.as_ref() != Some(&value) {
                return Err(Error::corruption(dir, 0, "a get and a scan differ"));
            }
            held.insert(key.to_vec(), value.to_vec());
        }
        let mut back = tenant.scan_with(.., ScanOptions::default().reversed())?;
        for (key, value) in held.iter().rev() {
            let found = back.next().await?;
            if found.as_ref().map(|(k, v)| (&**k, &**v)) != Some((&**key, &**value)) {
                return Err(Error::corruption(dir, 0, "a scan and a reverse scan differ"));
            }
        }
        all.push(held);
    }
    db.close().await?;
    Ok(all)
}

/// Several writers at once, in a world in which every wait may let another run: all finish.
///
/// # Errors
///
/// The engine's.
pub async fn write_together(env: SimEnv, dir: &Path, layout: Layout) -> Result<u64> {
    let db = Db::open(env, dir, small_options(layout)?).await?;
    let names: Vec<String> = (0..TENANT_COUNT).map(tenant_name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tasks: Vec<_> = db
        .create_tenants(&names)
        .await?
        .into_iter()
        .map(|tenant| {
            env.spawn("suite-writer", move || async move {
                for n in 0..150 {
                    let (key, value) = pair(n);
                    // An error shows as a missing write below.
                    drop(tenant.put(&key, &value, WriteOptions::default()).await);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    let written = db.metrics().user_bytes;
    db.close().await?;
    Ok(written)
}
