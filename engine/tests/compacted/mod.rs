//! A small database on the in-memory world, for tests that look at its tables.

use core::future::Future;
use std::path::Path;
use std::sync::Arc;

use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::events::{Event, Listener};
use forebay_engine::inspect::{Inspection, Look, TableReport, inspect};
use forebay_engine::options::{Layout, Options};
use forebay_engine::types::Nanos;
use forebay_engine::{Db, Tenant, WriteOptions};
use parking_lot::Mutex;

use crate::small;

/// Every compaction policy.
pub(crate) const POLICIES: [&str; 3] = ["leveled", "tiered", "lazy-leveled"];

pub(crate) const TENANTS: usize = 3;

pub(crate) fn options(layout: Layout, policy: &str) -> Options {
    let mut options = small::options(layout);
    options.set("compaction_policy", policy).unwrap();
    options
}

#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<Event>>);

impl Recorder {
    pub(crate) fn lock(&self) -> parking_lot::MutexGuard<'_, Vec<Event>> {
        self.0.lock()
    }
}

impl Listener for Recorder {
    fn event(&self, _now: Nanos, event: &Event) {
        self.0.lock().push(event.clone());
    }
}

/// A database with some tenants. Values are one byte that tells the write, and some padding.
pub(crate) struct World {
    pub(crate) env: MemEnv,
    pub(crate) db: Db<MemEnv>,
    pub(crate) tenants: Vec<Tenant<MemEnv>>,
    pub(crate) events: Arc<Recorder>,
}

pub(crate) fn key(k: u8) -> Vec<u8> {
    format!("key{k:03}").into_bytes()
}

impl World {
    pub(crate) fn open(options: Options) -> Self {
        let env = MemEnv::default();
        let events = Arc::new(Recorder::default());
        let listener = Some(Arc::clone(&events) as Arc<dyn Listener>);
        let opened = Db::open_with_listener(env.clone(), Path::new("/db"), options, listener);
        let db = env.block_on(opened).unwrap();
        let names: Vec<String> = (0..TENANTS).map(|t| format!("t{t}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let tenants = env.block_on(db.create_tenants(&names)).unwrap();
        Self { env, db, tenants, events }
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.env.block_on(future)
    }

    pub(crate) fn put(&self, tenant: usize, k: u8, value: u8) {
        let (key, value) = (key(k), [value; 40]);
        let put = self.tenants[tenant].put(&key, &value, WriteOptions::default());
        self.block_on(put).unwrap();
    }

    pub(crate) fn delete(&self, tenant: usize, k: u8) {
        self.block_on(self.tenants[tenant].delete(&key(k), WriteOptions::default())).unwrap();
    }

    pub(crate) fn get(&self, tenant: usize, k: u8) -> Option<u8> {
        self.block_on(self.tenants[tenant].get(&key(k))).unwrap().map(|value| value[0])
    }

    pub(crate) fn flush(&self, tenant: usize) {
        self.block_on(self.tenants[tenant].flush()).unwrap();
    }

    pub(crate) fn compact(&self, tenant: usize) {
        self.block_on(self.tenants[tenant].compact()).unwrap();
    }

    pub(crate) fn idle(&self) {
        self.block_on(self.db.wait_idle()).unwrap();
    }

    pub(crate) fn close(&self) {
        self.block_on(self.db.close()).unwrap();
    }

    /// What the directory holds.
    pub(crate) fn inspect(&self, key: Option<(&str, &[u8])>) -> Inspection {
        let found = self
            .block_on(inspect(&self.env, Path::new("/db"), Look { key, ..Look::default() }))
            .unwrap();
        found.unwrap()
    }

    /// Tables that the manifest names. A manifest or a table that changes meanwhile is asked again.
    pub(crate) fn tables(&self) -> Vec<TableReport> {
        self.inspect(None).tables
    }

    /// Looks again and again for ten seconds.
    pub(crate) fn waits_for(&self, is_so: impl Fn() -> bool) -> bool {
        let end = self.env.now() + 10_000_000_000;
        while !is_so() {
            if self.env.now() > end {
                return false;
            }
            self.env.block_on(self.env.sleep_until(self.env.now() + 20_000_000));
        }
        true
    }

    pub(crate) fn tombstones(&self) -> u64 {
        self.tables().iter().map(|t| t.meta.tombstones).sum()
    }
}
