//! Facts about branches: what each holds, what it would free, and how much it still inherits.
//!
//! Strategy: one tenant over the memory world, forked, written, compacted and dropped by hand;
//! what the facts say is held against the manifest as an inspection reads it, and against the
//! files of the directory.
//! Invariants: shared and retained bytes make up a branch's tables; a drop frees the retained
//! bytes, no more and no less; every live table has one cause.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use forebay_engine::WriteOptions;
use forebay_engine::blocking::{BlockingDb, BlockingTenant};
use forebay_engine::branches::{BranchFacts, TableSum, in_order_of_descent};
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::inspect::{self, Look};
use forebay_engine::options::{ForkMemtable, Options};

const DIR: &str = "/db";

struct World {
    env: MemEnv,
    db: BlockingDb<MemEnv>,
}

fn options() -> Options {
    let mut options = Options::default();
    for (key, value) in [
        ("memtable_bytes_max", "65536"),
        ("block_bytes", "256"),
        ("l0_compaction_count", "100"),
        ("l0_slowdown_count", "200"),
        ("l0_stop_count", "300"),
    ] {
        options.set(key, value).unwrap();
    }
    options
}

impl World {
    fn new() -> Self {
        let env = MemEnv::default();
        let db = BlockingDb::open(env.clone(), Path::new(DIR), options()).unwrap();
        db.create_tenants(&["t"]).unwrap();
        Self { env, db }
    }

    fn branch(&self, name: &str) -> BlockingTenant<MemEnv> {
        self.db.branch(name).unwrap()
    }

    /// A table of a branch with keys of its own.
    fn table(&self, name: &str, key: &str) {
        let branch = self.branch(name);
        for at in 0..8 {
            branch
                .put(format!("{key}{at}").as_bytes(), &[7; 100], WriteOptions::default())
                .unwrap();
        }
        branch.flush().unwrap();
    }

    fn fork(&self, of: &str, name: &str, memtable: ForkMemtable) -> u64 {
        let branch = self.branch(of);
        let forked = branch.tenant().fork_with(name, memtable);
        self.env.block_on(forked).unwrap().seq
    }

    fn idle(&self) {
        self.env.block_on(self.db.db().wait_idle()).unwrap();
    }

    fn facts(&self) -> BTreeMap<String, BranchFacts> {
        let facts = self.db.db().branch_facts("t");
        facts.into_iter().map(|f| (f.name.clone(), f)).collect()
    }

    fn file_bytes(&self) -> u64 {
        let names = self.env.block_on(self.env.list(Path::new(DIR))).unwrap();
        let tables =
            names.iter().filter(|name| Path::new(name).extension().is_some_and(|e| e == "sst"));
        let length = |name: &String| {
            let path = Path::new(DIR).join(name);
            self.env.block_on(async {
                use forebay_engine::env::File;
                self.env.open(&path).await.unwrap().len()
            })
        };
        tables.map(length).sum()
    }

    /// Held against what the manifest says.
    fn check(&self) {
        self.idle();
        let seen = inspect::inspect(&self.env, Path::new(DIR), Look::default());
        let seen = self.env.block_on(seen).unwrap().unwrap();
        let of = |tree: u64| seen.tables.iter().filter(move |t| t.tree.0 == tree);
        let holders = |id| seen.tables.iter().filter(|t| t.meta.id == id).count();
        let mut live = BTreeSet::new();
        for facts in self.facts().values() {
            let alone = of(facts.tree.0).filter(|t| holders(t.meta.id) == 1);
            assert_eq!(facts.tables, sum(of(facts.tree.0).map(|t| t.meta.bytes)), "{facts:?}");
            assert_eq!(facts.retained, sum(alone.map(|t| t.meta.bytes)), "{facts:?}");
            assert_eq!(facts.tables.bytes, facts.shared.bytes + facts.retained.bytes);
            assert_eq!(facts.tables.count, facts.shared.count + facts.retained.count);
            live.extend(of(facts.tree.0).map(|t| (t.meta.id, t.meta.bytes)));
        }
        let retained = self.db.db().retained();
        assert_eq!(
            retained.main.bytes + retained.forks_only.bytes,
            live.iter().map(|(_, bytes)| bytes).sum::<u64>()
        );
    }
}

fn sum(bytes: impl Iterator<Item = u64>) -> TableSum {
    bytes.fold(TableSum::default(), |s, b| TableSum { count: s.count + 1, bytes: s.bytes + b })
}

#[test]
fn a_fork_shares_every_table_until_it_compacts_what_it_inherited_away() {
    let world = World::new();
    world.table("t", "a");
    world.table("t", "b");
    let seq = world.fork("t", "f", ForkMemtable::Share);
    world.check();
    let facts = world.facts();
    let (main, fork) = (&facts["t"], &facts["t@f"]);
    assert_eq!(
        (main.tables.count, main.retained, main.inheritance.clone()),
        (2, sum([].into_iter()), None)
    );
    let inherited = fork.inheritance.clone().unwrap();
    assert_eq!((inherited.parent, inherited.fork_seq), (main.branch, seq));
    assert_eq!(inherited.parent_name.as_deref(), Some("t"));
    assert_eq!((inherited.left, inherited.at_fork_bytes), (fork.tables, Some(main.tables.bytes)));
    assert_eq!(fork.own_table_bytes(), 0);

    world.table("t@f", "c");
    world.check();
    let after = world.facts();
    assert_eq!(after["t"], facts["t"], "what a fork writes is not the parent's");
    assert_eq!(after["t@f"].retained.count, 1);
    assert_eq!(after["t@f"].own_table_bytes(), after["t@f"].retained.bytes);
    assert_eq!(after["t@f"].inheritance.clone().unwrap().left, facts["t"].tables);

    world.branch("t@f").compact().unwrap();
    world.check();
    let after = world.facts();
    let left = after["t@f"].inheritance.clone().unwrap();
    assert_eq!((left.left, left.at_fork_bytes), (TableSum::default(), inherited.at_fork_bytes));
    assert_eq!(after["t"].retained, after["t"].tables);
    assert_eq!(after["t@f"].retained, after["t@f"].tables);
}

#[test]
fn unflushed_bytes_are_the_branchs_own_or_shared() {
    for (memtable, shared) in [(ForkMemtable::Share, true), (ForkMemtable::Copy, false)] {
        let world = World::new();
        world.db.db().tenant("t").unwrap();
        world.branch("t").put(b"k", &[7; 1000], WriteOptions::default()).unwrap();
        let before = world.facts()["t"].unflushed_own_bytes;
        assert!(before > 1000);
        // No worker runs between the fork and the look: a flush would take the shared one away.
        world.fork("t", "f", memtable);
        let facts = world.facts();
        if !shared {
            for name in ["t", "t@f"] {
                assert_eq!(facts[name].unflushed_own_bytes, before);
                assert_eq!(facts[name].unflushed_shared_bytes, 0);
            }
        }
        world.branch("t@f").put(b"k", b"v", WriteOptions::default()).unwrap();
        world.idle();
        let facts = world.facts();
        assert_eq!(facts["t"].unflushed_shared_bytes + facts["t@f"].unflushed_shared_bytes, 0);
        assert_eq!(facts["t"].unflushed_own_bytes, if shared { 0 } else { before });
        let left = facts["t@f"].inheritance.clone().unwrap().left;
        // The shared memtable's table counts as inherited in the fork.
        assert_eq!((left.count, facts["t"].tables.count), if shared { (1, 1) } else { (0, 0) });
    }
}

#[test]
fn dropping_a_branch_frees_what_it_alone_holds() {
    let world = World::new();
    world.table("t", "a");
    world.fork("t", "f", ForkMemtable::Auto);
    world.table("t@f", "b");
    world.fork("t@f", "g", ForkMemtable::Auto);
    world.table("t@g", "c");
    world.branch("t").compact().unwrap();
    for name in ["t@f", "t", "t@g"] {
        world.check();
        let (facts, before) = (world.facts(), world.file_bytes());
        let held = world.db.db().retained();
        world.db.drop_branch(name).unwrap();
        world.check();
        assert_eq!(world.file_bytes(), before - facts[name].retained.bytes, "{name}");
        let after = world.db.db().retained();
        let live = |r: forebay_engine::branches::Retained| r.main.bytes + r.forks_only.bytes;
        assert_eq!(live(held) - live(after), facts[name].retained.bytes);
    }
    assert_eq!(world.file_bytes(), 0);
}

#[test]
fn what_keeps_a_table_is_main_then_forks_then_readers() {
    let world = World::new();
    world.table("t", "a");
    world.fork("t", "f", ForkMemtable::Auto);
    let inherited = world.facts()["t"].tables;
    let none = TableSum::default();
    let causes = || {
        let retained = world.db.db().retained();
        (retained.main, retained.forks_only, retained.garbage)
    };
    assert_eq!(causes(), (inherited, none, none));
    let branch = world.branch("t");
    let scan = branch.scan(..).unwrap();
    world.db.drop_tenant("t").unwrap();
    assert_eq!(causes(), (none, none, inherited), "the scan holds it");
    drop(scan);

    let world = World::new();
    world.table("t", "a");
    world.fork("t", "f", ForkMemtable::Auto);
    world.db.drop_branch("t").unwrap();
    let retained = world.db.db().retained();
    assert_eq!((retained.main, retained.forks_only, retained.garbage), (none, inherited, none));
    let facts = world.facts();
    let inheritance = facts["t@f"].inheritance.clone().unwrap();
    assert_eq!((inheritance.parent_name, inheritance.left), (None, inherited));
    assert_eq!(facts["t@f"].retained, inherited);
}

#[test]
fn tables_of_one_file_count_each_by_itself() {
    let world = World::new();
    world.db.create_tenants(&["u"]).unwrap();
    for name in ["t", "u"] {
        world.branch(name).put(b"k", &[7; 500], WriteOptions::default()).unwrap();
    }
    world.db.flush().unwrap();
    let facts = world.facts();
    assert_eq!(facts["t"].retained.count, 1);
    let other = &world.db.db().branch_facts("u")[0];
    assert_eq!(facts["t"].retained.bytes + other.retained.bytes, world.file_bytes());
    world.fork("t", "f", ForkMemtable::Auto);
    assert_eq!(world.facts()["t"].retained, TableSum::default());
    assert_eq!(&world.db.db().branch_facts("u")[0], other);
    assert_eq!(world.db.db().branch_facts("nobody"), []);
}

#[test]
fn branches_come_behind_their_parents_with_their_depth() {
    let world = World::new();
    for (of, name) in [("t", "b"), ("t@b", "a"), ("t@a", "c"), ("t", "d"), ("t@d", "e")] {
        world.fork(of, name, ForkMemtable::Auto);
    }
    let order = |world: &World| {
        let facts = world.db.db().branch_facts("t");
        let order = in_order_of_descent(&facts);
        order.into_iter().map(|(depth, f)| format!("{depth} {}", f.name)).collect::<Vec<_>>()
    };
    assert_eq!(order(&world), ["0 t", "1 t@b", "2 t@a", "3 t@c", "1 t@d", "2 t@e"]);
    world.db.drop_branch("t@a").unwrap();
    assert_eq!(order(&world), ["0 t", "1 t@b", "1 t@d", "2 t@e", "0 t@c"]);
}
