//! Every world of this crate passes the one suite.
#![cfg(test)]

use std::path::Path;

use forebay_engine::env::BlockingEnv;
use forebay_engine::env::conformance;
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::os::OsEnv;

#[test]
fn the_real_world_conforms() {
    let dir = tempfile::tempdir().unwrap();
    OsEnv.block_on(conformance::run(&OsEnv, &dir.path().join("world"))).unwrap();
}

#[test]
fn the_world_in_memory_conforms() {
    let env = MemEnv::default();
    env.block_on(conformance::run(&env, Path::new("/world"))).unwrap();
}
