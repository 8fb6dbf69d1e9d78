//! Each check finds a structure in which one thing is broken, and nothing in a whole one.

use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::env::BlockingEnv as _;
use crate::env::mem::MemEnv;
use crate::options::Options;
use crate::types::Kind;
use crate::version::edit::Edit;

type World = Arc<Shared<MemEnv>>;

fn table(file: u64, seqs: (u64, u64), keys: [&'static str; 2]) -> TableMeta {
    let [smallest, largest] = keys.map(|key| Bytes::from_static(key.as_bytes()));
    let (id, bytes, entries) = (TableId { file, offset: 0 }, 100, 1);
    let (min_seq, max_seq) = seqs;
    let tree = TreeId(1);
    let meta = TableMeta { id, bytes, tree, entries, smallest, largest, ..TableMeta::default() };
    TableMeta { min_seq, max_seq, ..meta }
}

/// A database without background tasks: tenant `t` with two tables in L0, its fork with one
/// more and a memtable that it shares with its parent, and a tenant `u` that takes writes.
fn world() -> World {
    let (env, dir) = (MemEnv::default(), Path::new("/db"));
    let shared = env.block_on(async {
        env.create_dir(dir).await.unwrap();
        crate::open::shared(env.clone(), dir, Options::default(), None).await.unwrap()
    });
    let name = |name: &str, id| (name.to_owned(), BranchId(id), TreeId(id));
    let tenants = vec![name("t", 1), name("u", 2)];
    apply(&shared, &Edit::CreateTenants { tenants });
    let flush = |owners: &[u64], table: TableMeta| {
        let owners = owners.iter().map(|id| TreeId(*id)).collect();
        let edit = Edit::Flush { owners, flushed_upto: table.max_seq, table: Some(table) };
        apply(&shared, &edit);
    };
    shared.next_file.store(100, Ordering::Relaxed);
    flush(&[1], table(11, (1, 4), ["a", "m"]));
    flush(&[1], table(12, (5, 6), ["b", "k"]));
    let (branch, parent) = (BranchId(3), BranchId(1));
    let name = "t@f".to_owned();
    apply(&shared, &Edit::Fork { name, branch, parent, fork_seq: 9, tables: Vec::new() });
    flush(&[3], TableMeta { tree: TreeId(3), ..table(13, (10, 12), ["c", "d"]) });
    let segment = shared.log.oldest();
    let memtable = Memtable::new(0, segment).of_tree(TreeId(2));
    let bytes = memtable.insert(Bytes::from_static(b"kv"), 1, 20, Kind::Put);
    shared.budget.reserve(bytes).charge(bytes);
    shared.log.pin(segment);
    for id in 1..4 {
        shared.pressure.add_tree(&tree(&shared, id), 1 << 20, 0);
    }
    let other = tree(&shared, 2);
    shared.pressure.on_write(&other, bytes, 0, segment);
    other.change(|view| view.memtable = Some(Arc::new(memtable)));
    let sealed = Memtable::new(0, segment).of_tree(TreeId(1));
    let bytes = sealed.insert(Bytes::from_static(b"kv"), 1, 30, Kind::Put);
    assert!(sealed.add_owner(TreeId(3)));
    shared.budget.reserve(bytes).charge(bytes);
    shared.budget.seal(bytes);
    shared.log.pin(segment);
    shared.pressure.on_write(&tree(&shared, 1), bytes, 0, segment);
    shared.pressure.on_seal(&tree(&shared, 1), 0);
    let sealed = Arc::new(sealed);
    for id in [1, 3] {
        let sealed = Arc::clone(&sealed);
        tree(&shared, id).change(|view| view.immutables.push(sealed));
    }
    shared
}

fn apply(shared: &World, edit: &Edit) {
    shared.set.apply(edit).unwrap();
}

fn tree(shared: &World, id: u64) -> Arc<Tree> {
    shared.set.tree(TreeId(id)).unwrap()
}

fn levels(shared: &World, id: u64, f: impl FnOnce(&mut Vec<Vec<Arc<TableMeta>>>)) {
    tree(shared, id).change(|view| {
        let mut levels: Vec<_> = view.version.levels.iter().map(|l| l.to_vec()).collect();
        f(&mut levels);
        view.version = Arc::new(Version { levels: levels.into_iter().map(Arc::new).collect() });
    });
}

/// What is found of a world in which something was broken.
fn found(breaks: impl FnOnce(&World)) -> String {
    let shared = world();
    let whole = check(&shared);
    assert_eq!(whole.findings, Vec::<String>::new());
    assert_eq!((whole.trees, whole.tables, whole.memtables), (3, 5, 2));
    breaks(&shared);
    check(&shared).findings.join("\n")
}

#[track_caller]
fn finds(what: &str, breaks: impl FnOnce(&World)) {
    let found = found(breaks);
    assert!(found.contains(what), "{what:?} is not in:\n{found}");
}

#[test]
fn tables_in_a_wrong_order_are_found() {
    finds("is before 000012", |w| levels(w, 1, |l| l[0].swap(0, 1)));
    let deep = |w: &World, second: [&'static str; 2]| {
        let flushed = [table(14, (1, 2), ["a", "f"]), table(15, (1, 2), second)];
        levels(w, 1, |l| l.extend([vec![], flushed.map(Arc::new).to_vec()]));
    };
    assert_eq!(found(|w| deep(w, ["g", "h"])), "");
    finds("at level 2 it is not behind", |w| deep(w, ["f", "h"]));
}

#[test]
fn tables_that_two_trees_hold_by_two_pointers_or_of_two_families_are_found() {
    let copy = |t: &mut Arc<TableMeta>| *t = Arc::new(TableMeta::clone(t));
    finds("is counted twice", |w| levels(w, 3, |l| copy(&mut l[0][2])));
    finds("tree 2 has the tables of family 1", |w| {
        let version = Arc::clone(&tree(w, 1).view().version);
        tree(w, 2).change(|view| view.version = version);
    });
    finds("table 000012+0 is of tree 2 and of family 1", |w| {
        let version = Version::clone(&tree(w, 1).view().version);
        tree(w, 2).change(|view| view.version = Arc::new(version));
    });
    finds("has table 000011+0 twice", |w| {
        levels(w, 1, |l| {
            let again = Arc::clone(&l[0][1]);
            l.extend([vec![], vec![again]]);
        });
    });
    finds("may be removed", |w| {
        let held = Arc::clone(&tree(w, 1).view().version.level(0)[0]);
        w.garbage.lock().push(held);
    });
    finds("has a number not given", |w| w.next_file.store(13, Ordering::Relaxed));
}

#[test]
fn a_table_from_behind_the_fork_or_above_what_was_flushed_is_found() {
    finds("forked at 9, has table 000012+0 of tree 1 up to 11", |w| {
        let late = Arc::new(table(12, (10, 11), ["b", "k"]));
        levels(w, 3, |l| l[0][1] = late);
    });
    finds("is flushed up to 12, its table 000013+0 to 50", |w| {
        let late = TableMeta { tree: TreeId(3), ..table(13, (10, 50), ["b", "k"]) };
        levels(w, 3, |l| l[0][0] = Arc::new(late));
    });
}

#[test]
fn memtables_that_would_be_lost_or_read_in_a_wrong_order_are_found() {
    finds("tree 3 is flushed up to 30, a memtable is from 30", |w| {
        tree(w, 3).raise_flushed_upto(30);
    });
    finds("tree 1: a memtable from 30 is before one to 30", |w| {
        tree(w, 1).change(|view| view.immutables.push(Arc::clone(&view.immutables[0])));
    });
    finds("tree 3 owns a memtable of 1 it does not read", |w| {
        tree(w, 3).change(|view| view.immutables.clear());
    });
    finds("tree 1 reads a memtable of []", |w| {
        drop(tree(w, 1).oldest_immutable().unwrap().take_owners());
    });
    finds("the memtable of tree 2 is not its own", |w| {
        tree(w, 2).with_memtable(|m| assert!(m.add_owner(TreeId(1))));
    });
}

#[test]
fn accounts_that_differ_from_what_trees_hold_are_found() {
    finds("mutable bytes, trees hold", |w| w.budget.reserve(1).charge(1));
    finds("immutable bytes, trees hold", |w| w.budget.release_immutable(1));
    finds("policies see", |w| {
        w.pressure.on_write(&tree(w, 3), 1, 0, 1);
    });
    finds("unknown to the policies", |w| w.pressure.remove_tree(&tree(w, 3)));
    finds("segments are pinned", |w| w.log.pin(w.log.oldest()));
    finds("2 memtables begin in segment", |w| w.log.unpin(w.log.oldest()));
}

#[test]
fn a_segment_that_went_too_early_is_found() {
    finds("the floor is", |w| drop(w.log.take_below(u64::MAX)));
    finds("the floor is 99", |w| apply(w, &Edit::WalFloor { segment: 99 }));
}

#[test]
fn names_branches_and_families_that_disagree_are_found() {
    finds("counts 2 branches and has 1", |w| {
        tree(w, 3).branch_count.fetch_add(1, Ordering::Relaxed);
    });
    finds("is of no branch", |w| tree(w, 3).mark_dropped());
    finds("is of no branch", |w| apply(w, &Edit::CreateTrees { trees: vec![TreeId(9)] }));
    finds("of the set and beside it", |w| w.set.begin_fork(&tree(w, 1)));
}

#[test]
fn while_a_flush_runs_accounts_may_be_ahead_but_not_behind() {
    let shared = world();
    let bytes = tree(&shared, 1).oldest_immutable().unwrap().bytes();
    shared.jobs.add_flushes(&[(tree(&shared, 1), bytes)], false);
    let next = shared.jobs.next_flush(u64::MAX, 0);
    assert!(matches!(next, crate::jobs::Next::Run(_)));
    shared.log.pin(shared.log.oldest());
    let looked = check(&shared);
    assert_eq!((looked.findings, looked.is_settled), (Vec::new(), false));
    shared.budget.release_immutable(1);
    assert_eq!(check(&shared).findings.len(), 1);
}
