#![cfg(test)]
//! Strategy: random operations on several tenants, in every layout, with flushes and reopens
//! between, on the in-memory world; an ordered map per tenant says what must be read.
//!
//! Invariants: a get, a scan and a snapshot agree with the map at all times; a reopen loses
//! nothing.

use std::collections::BTreeMap;
use std::path::Path;

use forebay_engine::env::BlockingEnv;
use forebay_engine::env::mem::MemEnv;
use forebay_engine::options::{Layout, Options};
use forebay_engine::{Db, Tenant, WriteBatch, WriteOptions};
use proptest::prelude::*;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Op {
    Put(usize, u8, u16),
    Delete(usize, u8),
    Batch(Vec<(usize, u8, Option<u16>)>),
    Get(usize, u8),
    Scan(usize, u8, u8),
    Snapshot(usize),
    Flush(usize),
    Reopen,
    DropAndCreate(usize),
}

const TENANTS: usize = 4;

fn op() -> impl Strategy<Value = Op> {
    let tenant = 0..TENANTS;
    prop_oneof![
        8 => (tenant.clone(), any::<u8>(), 0..600_u16).prop_map(|(t, k, v)| Op::Put(t, k, v)),
        3 => (tenant.clone(), any::<u8>()).prop_map(|(t, k)| Op::Delete(t, k)),
        2 => prop::collection::vec(
            (tenant.clone(), any::<u8>(), prop::option::of(0..300_u16)), 1..6)
            .prop_map(Op::Batch),
        3 => (tenant.clone(), any::<u8>()).prop_map(|(t, k)| Op::Get(t, k)),
        1 => (tenant.clone(), any::<u8>(), any::<u8>()).prop_map(|(t, a, b)| Op::Scan(t, a, b)),
        1 => tenant.clone().prop_map(Op::Snapshot),
        1 => tenant.clone().prop_map(Op::Flush),
        1 => Just(Op::Reopen),
        1 => tenant.prop_map(Op::DropAndCreate),
    ]
}

fn options(layout: Layout) -> Options {
    let mut options = Options { layout, ..Options::default() };
    for (key, value) in [
        ("budget_bytes", "65536"),
        ("memtable_bytes_max", "8192"),
        ("wal_segment_bytes", "32768"),
        ("block_bytes", "256"),
        ("table_bytes_max", "4096"),
        ("level_base_bytes", "16384"),
        ("block_cache_bytes", "4096"),
        ("open_tables_max", "3"),
        ("compression", "lz4"),
        ("prefix_extractor", "fixed-2"),
    ] {
        options.set(key, value).unwrap();
    }
    options
}

struct World {
    env: MemEnv,
    layout: Layout,
    db: Db<MemEnv>,
    tenants: Vec<Tenant<MemEnv>>,
    model: Vec<Map>,
    op_number: u64,
    snapshots: Vec<(usize, forebay_engine::Snapshot<MemEnv>, Map)>,
}

fn key(k: u8) -> Vec<u8> {
    format!("key{k:03}").into_bytes()
}

impl World {
    fn open(layout: Layout) -> Self {
        let env = MemEnv::default();
        let db = env.block_on(Db::open(env.clone(), Path::new("/db"), options(layout))).unwrap();
        let names: Vec<String> = (0..TENANTS).map(|t| format!("t{t}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let tenants = env.block_on(db.create_tenants(&names)).unwrap();
        let model = vec![Map::new(); TENANTS];
        Self { env, layout, db, tenants, model, op_number: 0, snapshots: Vec::new() }
    }

    fn value(&mut self, len: u16) -> Vec<u8> {
        self.op_number += 1;
        let mut value = self.op_number.to_le_bytes().to_vec();
        value.resize(8 + usize::from(len), 7);
        value
    }

    fn apply(&mut self, op: &Op) {
        let options = WriteOptions::default();
        match op {
            Op::Put(t, k, len) => {
                let value = self.value(*len);
                self.env.block_on(self.tenants[*t].put(&key(*k), &value, options)).unwrap();
                self.model[*t].insert(key(*k), value);
            }
            Op::Delete(t, k) => {
                self.env.block_on(self.tenants[*t].delete(&key(*k), options)).unwrap();
                self.model[*t].remove(&key(*k));
            }
            Op::Batch(ops) => {
                let mut batch = WriteBatch::new();
                for (t, k, len) in ops {
                    if let Some(len) = len {
                        let value = self.value(*len);
                        self.tenants[*t].put_in(&mut batch, &key(*k), &value).unwrap();
                        self.model[*t].insert(key(*k), value);
                    } else {
                        self.tenants[*t].delete_in(&mut batch, &key(*k)).unwrap();
                        self.model[*t].remove(&key(*k));
                    }
                }
                self.env.block_on(self.db.write(batch, options)).unwrap();
            }
            Op::Get(t, k) => {
                let got = self.env.block_on(self.tenants[*t].get(&key(*k))).unwrap();
                assert_eq!(got.as_deref(), self.model[*t].get(&key(*k)).map(Vec::as_slice));
            }
            Op::Scan(t, a, b) => {
                let (a, b) = (key(*a.min(b)), key(*a.max(b)));
                let mut scan = self.tenants[*t].scan(&a[..]..&b[..]).unwrap();
                let mut got = Map::new();
                while let Some((k, v)) = self.env.block_on(scan.next()).unwrap() {
                    got.insert(k.to_vec(), v.to_vec());
                }
                let want: Map =
                    self.model[*t].range(a..b).map(|(k, v)| (k.clone(), v.clone())).collect();
                assert_eq!(got, want);
            }
            Op::Snapshot(t) => {
                let snapshot = self.tenants[*t].snapshot();
                self.snapshots.push((*t, snapshot, self.model[*t].clone()));
                if self.snapshots.len() > 3 {
                    self.snapshots.remove(0);
                }
            }
            Op::Flush(t) => self.env.block_on(self.tenants[*t].flush()).unwrap(),
            Op::Reopen => self.reopen(),
            Op::DropAndCreate(t) => {
                self.snapshots.retain(|(owner, ..)| owner != t);
                let name = format!("t{t}");
                self.env.block_on(self.db.drop_tenant(&name)).unwrap();
                assert!(self.env.block_on(self.tenants[*t].get(b"x")).is_err());
                let made = self.env.block_on(self.db.create_tenants(&[&name])).unwrap();
                self.tenants[*t] = made[0].clone();
                self.model[*t].clear();
            }
        }
    }

    fn reopen(&mut self) {
        self.snapshots.clear();
        self.env.block_on(self.db.close()).unwrap();
        let opened = Db::open(self.env.clone(), Path::new("/db"), options(self.layout));
        self.db = self.env.block_on(opened).unwrap();
        self.tenants = (0..TENANTS).map(|t| self.db.tenant(&format!("t{t}")).unwrap()).collect();
        self.check();
    }

    fn check(&self) {
        for (tenant, want) in self.tenants.iter().zip(&self.model) {
            let got = self.env.block_on(async {
                let mut scan = tenant.scan(..).unwrap();
                let mut got = Map::new();
                while let Some((k, v)) = scan.next().await.unwrap() {
                    got.insert(k.to_vec(), v.to_vec());
                }
                got
            });
            assert_eq!(&got, want, "tenant {}", tenant.name());
        }
        for (t, snapshot, want) in &self.snapshots {
            for k in 0..=255 {
                let got = self.env.block_on(self.tenants[*t].get_at(snapshot, &key(k))).unwrap();
                assert_eq!(got.as_deref(), want.get(&key(k)).map(Vec::as_slice));
            }
        }
    }
}

fn run(layout: Layout, ops: &[Op]) {
    let mut world = World::open(layout);
    for op in ops {
        world.apply(op);
    }
    world.check();
    world.reopen();
    world.env.block_on(world.db.wait_idle()).unwrap();
    world.check();
    world.env.block_on(world.db.close()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_per_tenant_reads_what_the_model_says(ops in prop::collection::vec(op(), 1..400)) {
        run(Layout::PerTenant, &ops);
    }

    #[test]
    fn grouped_trees_read_what_the_model_says(ops in prop::collection::vec(op(), 1..400)) {
        run(Layout::Grouped(2), &ops);
    }

    #[test]
    fn a_shared_tree_reads_what_the_model_says(ops in prop::collection::vec(op(), 1..400)) {
        run(Layout::Shared, &ops);
    }
}
