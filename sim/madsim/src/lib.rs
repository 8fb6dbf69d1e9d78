//! The second runtime of the simulation: the same world, disk and faults under madsim's scheduler.
//!
//! An independent scheduler checks the first one, and madsim traps clock, entropy and threads for
//! the whole process, so that a stray use in the engine shows as a hang or a panic. Nothing depends
//! on this crate: a binary that does would carry madsim's `clock_gettime` and `getrandom`.
//!
//! Without `--cfg madsim` (a `RUSTFLAGS` of the user's own removes it) the crate is empty.
//!
//! What differs from forebay's own runtime: each poll takes 50 to 100 ns of virtual time, timers
//! that are given up still fire, and schedules come from madsim's own generator, so a recorded list
//! of choices does not decide them; the seed does.

#[cfg(madsim)]
mod runtime;

#[cfg(madsim)]
pub use runtime::{MadsimRuntime, MadsimSim};
