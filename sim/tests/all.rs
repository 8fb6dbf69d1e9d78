//! All tests of the simulator in one program: each program would compile the engine once more.
#![cfg(test)]

mod crash_states;
mod detached;
mod device;
mod edges;
mod engine;
mod error_table;
mod errors;
mod fault_classes;
mod faults;
mod forks;
mod real_crash;
mod regressions;
mod relog;
mod rules;
mod runtime;
mod seeds;
mod stalls;
mod sweep;
