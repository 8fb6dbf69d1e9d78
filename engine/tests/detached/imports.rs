//! Copies that are taken into another database.

use std::collections::BTreeMap;
use std::path::Path;

use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::os::OsEnv;
use forebay_engine::env::{BlockingEnv, Env, File, IoClass};
use forebay_engine::{Error, WriteOptions};

use crate::{
    Draws, bytes_of, check_clean, content, grow, is_file_of, open, options, remove_dir, state,
};

const A: &str = "/a";
const B: &str = "/b";
const COPY: &str = "/copy";

#[test]
fn what_is_copied_and_imported_reads_as_it_did_and_lives_on() {
    for seed in 0..12 {
        let (env, options) = (MemEnv::default(), options(&[]));
        let [a, b] = [A, B].map(|dir| open(&env, Path::new(dir), &options));
        a.create_tenants(&["a", "b", "c"]).unwrap();
        b.create_tenants(&["own1", "own2"]).unwrap();
        let mut draws = Draws(seed * 2 + 1);
        grow(&a, &mut draws, 120, true);
        // The numbers of either may be ahead.
        grow(&b, &mut draws, if seed % 2 == 0 { 10 } else { 400 }, true);
        let (from, mut expected) = (state(&a), state(&b));
        a.fork_to(Path::new(COPY)).unwrap();
        let before = bytes_of(&env, Path::new(COPY));
        let imported = b.import(Path::new(COPY)).unwrap();
        assert_eq!(bytes_of(&env, Path::new(COPY)), before, "it stays as it is");
        assert_eq!(imported.branches, a.db().tenants());
        expected.extend(from.clone());
        assert_eq!(state(&b), expected, "seed {seed}");
        assert!(matches!(b.import(Path::new(COPY)), Err(Error::TenantExists(_))));
        // All of it works on, whatever becomes of the copy.
        for (name, _) in before {
            env.block_on(env.remove(&Path::new(COPY).join(name))).unwrap();
        }
        for (name, map) in &mut expected {
            let branch = b.branch(name).unwrap();
            branch.put(b"zz", name.as_bytes(), WriteOptions::default()).unwrap();
            map.insert(b"zz".to_vec(), name.as_bytes().to_vec());
        }
        assert_eq!(state(&b), expected);
        b.close().unwrap();
        drop(b);
        check_clean(&env, Path::new(B));
        let b = open(&env, Path::new(B), &options);
        assert_eq!(state(&b), expected);
        grow(&b, &mut draws, 200, true);
        let expected = state(&b);
        for name in expected.keys() {
            b.branch(name).unwrap().compact().unwrap();
        }
        assert_eq!(state(&b), expected);
        assert!(b.verify(|_| ()).unwrap().is_clean());
        b.close().unwrap();
        assert_eq!(state(&a), from);
    }
}

#[test]
fn one_tenant_is_imported_under_another_name_next_to_its_source() {
    let (env, options) = (MemEnv::default(), options(&[]));
    let a = open(&env, Path::new(A), &options);
    a.create_tenants(&["t", "u"]).unwrap();
    grow(&a, &mut Draws(5), 80, false);
    let before = state(&a);
    a.tenant("t").unwrap().fork_to(Path::new(COPY)).unwrap();
    assert!(matches!(a.import(Path::new(COPY)), Err(Error::TenantExists(_))));
    assert!(matches!(a.import_as(Path::new(COPY), "u"), Err(Error::TenantExists(_))));
    assert!(matches!(a.import_as(Path::new(COPY), "x/y"), Err(Error::InvalidArgument(_))));
    let imported = a.import_as(Path::new(COPY), "again").unwrap();
    assert_eq!(imported.branches, ["again"]);
    let again = a.tenant("again").unwrap();
    assert_eq!(content(&again), before["t"]);
    again.put(b"key00", b"of again", WriteOptions::default()).unwrap();
    again.fork("f").unwrap();
    again.compact().unwrap();
    assert_eq!(content(&a.tenant("t").unwrap()), before["t"]);
    a.drop_tenant("t").unwrap();
    assert_eq!(a.branch("again@f").unwrap().get(b"key00").unwrap().unwrap(), "of again");
    // Of two tenants, which?
    a.fork_to(Path::new("/both")).unwrap();
    assert!(matches!(a.import_as(Path::new("/both"), "x"), Err(Error::InvalidArgument(_))));
    a.close().unwrap();
    drop((a, again));
    check_clean(&env, Path::new(A));
}

#[test]
fn a_directory_that_is_no_copy_is_refused_and_nothing_changes() {
    let (env, options) = (MemEnv::default(), options(&[]));
    let a = open(&env, Path::new(A), &options);
    a.create_tenants(&["t"]).unwrap();
    let held = open(&env, Path::new(B), &options);
    held.create_tenants(&["u"]).unwrap();
    env.block_on(env.create_dir(Path::new("/empty"))).unwrap();
    // Tables alone: a worker gets the next log file ready whenever it comes to it.
    let tables = |env: &MemEnv| {
        bytes_of(env, Path::new(A)).iter().filter(|(name, _)| is_file_of(name, "sst")).count()
    };
    let before = (state(&a), tables(&env));
    assert!(a.import(Path::new("/none")).unwrap_err().is_not_found());
    assert!(matches!(a.import(Path::new("/empty")), Err(Error::InvalidArgument(_))));
    assert!(matches!(a.import(Path::new(B)), Err(Error::Locked(_))));
    assert!(matches!(a.import(Path::new(A)), Err(Error::Locked(_))));
    let shared = crate::options(&[("layout", "shared")]);
    let other = open(&env, Path::new("/shared"), &shared);
    other.create_tenants(&["s"]).unwrap();
    held.fork_to(Path::new(COPY)).unwrap();
    assert!(matches!(other.import(Path::new(COPY)), Err(Error::InvalidArgument(_))));
    other.fork_to(Path::new("/shared-copy")).unwrap();
    assert!(matches!(a.import(Path::new("/shared-copy")), Err(Error::InvalidArgument(_))));
    assert_eq!((state(&a), tables(&env)), before);
}

/// Every byte of a copy's small files is flipped in turn, and those of its tables here and there:
/// an import fails with a type and changes nothing, or what it took in reads as it did or fails.
#[test]
fn a_damaged_copy_is_an_error_and_nothing_else() {
    let (env, options) = (MemEnv::default(), options(&[]));
    let a = open(&env, Path::new(A), &options);
    a.create_tenants(&["t"]).unwrap();
    grow(&a, &mut Draws(9), 60, false);
    a.tenant("t").unwrap().fork("f").unwrap();
    grow(&a, &mut Draws(9), 10, false);
    a.fork_to(Path::new(COPY)).unwrap();
    let files = bytes_of(&env, Path::new(COPY));
    let (mut refused, mut taken) = (0, 0);
    for (name, bytes) in &files {
        let step = if is_file_of(name, "sst") { 211 } else { 7 };
        for at in (0..bytes.len()).step_by(step) {
            let world = MemEnv::default();
            let b = open(&world, Path::new(B), &options);
            b.create_tenants(&["own"]).unwrap();
            let before = state(&b);
            world.block_on(async {
                world.create_dir(Path::new(COPY)).await.unwrap();
                for (other, bytes) in &files {
                    let mut bytes = bytes.clone();
                    if other == name {
                        bytes[at] ^= 0x41;
                    }
                    let file = world.create(&Path::new(COPY).join(other)).await.unwrap();
                    file.append(&bytes, IoClass::Read).await.unwrap();
                }
            });
            if b.import(Path::new(COPY)).is_ok() {
                taken += 1;
            } else {
                refused += 1;
                assert_eq!(state(&b), before, "{name} byte {at}");
            }
            b.tenant("own").unwrap().put(b"k", b"v", WriteOptions::synced()).unwrap();
            b.close().unwrap();
            drop(b);
            let b = open(&world, Path::new(B), &options);
            assert_eq!(b.tenant("own").unwrap().get(b"k").unwrap().unwrap(), "v");
            b.close().unwrap();
        }
    }
    assert!(refused > 20 && taken > 5, "{refused} {taken}");
}

#[test]
fn files_are_linked_and_either_directory_may_go() {
    let root = tempfile::tempdir().unwrap();
    let (env, options) = (OsEnv, options(&[]));
    let [a_dir, b_dir, copy] = ["a", "b", "copy"].map(|name| root.path().join(name));
    let [a, b] = [&a_dir, &b_dir].map(|dir| open(&env, dir, &options));
    a.create_tenants(&["t"]).unwrap();
    for at in 0..200 {
        let key = format!("key{at:03}");
        a.tenant("t").unwrap().put(key.as_bytes(), &[1; 50], WriteOptions::default()).unwrap();
    }
    a.flush().unwrap();
    a.tenant("t").unwrap().put(b"key000", b"in the log", WriteOptions::default()).unwrap();
    let expected = BTreeMap::from([("t".to_owned(), content(&a.tenant("t").unwrap()))]);
    a.tenant("t").unwrap().fork_to(&copy).unwrap();
    let imported = b.import(&copy).unwrap();
    assert!(imported.linked_files > 0 && imported.copied_bytes == 0, "{imported:?}");
    assert_eq!(imported.logged_entries, 1);
    a.close().unwrap();
    drop(a);
    remove_dir(&a_dir);
    remove_dir(&copy);
    assert_eq!(state(&b), expected);
    b.close().unwrap();
    drop(b);
    check_clean(&env, &b_dir);
    let b = open(&env, &b_dir, &options);
    assert_eq!(state(&b), expected);
    b.close().unwrap();
}
