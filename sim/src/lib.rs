//! A world that can be replayed: virtual time, a modelled disk, seeded faults.
//!
//! Everything that could go either way is a named choice drawn from one seed, so the same seed
//! gives the same run, byte for byte, on every machine, and a list of choices replays without the
//! seed.
//!
//! Start at [`Sim`]: it owns the runtime, the disk and the faults, and hands out the
//! [`SimEnv`] that the engine runs in.

pub mod bugs;
pub mod check;
pub mod choices;
pub mod client;
pub mod clock;
pub mod cpu;
pub mod diary;
pub mod disk;
pub mod env;
pub mod fault;
pub mod ledger;
pub mod lists;
pub mod marks;
pub mod nth;
pub mod report;
pub mod run;
pub mod runtime;
pub mod scenario;
pub mod shrink;
pub mod sim;
pub mod streams;
pub mod suite;
pub mod sweep;
pub mod timeline;
pub mod trace;
pub mod view;
mod world;

pub use disk::SimDisk;
pub use env::SimEnv;
pub use runtime::RunEnd;
pub use sim::{Sim, SimConfig, SimWorld};
