//! The engine's small concurrent units, compiled from the engine's own source with the locks and
//! counters of a model checker for threads, shuttle: it runs one interleaving after the other, so
//! that tests see orders that real threads hardly ever take.
//!
//! The units name their locks `crate::sync`, which is [`sync`] here and `parking_lot` in the
//! engine; nothing else differs. What is not checked: `event-listener` and the skip list, which
//! keep their own synchronisation, and weak memory, since shuttle is sequentially consistent.

// The units' own tests run in the engine, with the locks of real threads.
#![cfg(not(test))]

pub mod sync;

#[path = "../../src/budget.rs"]
pub mod budget;
#[path = "../../src/group.rs"]
pub mod group;
#[path = "../../src/pointer.rs"]
pub mod pointer;
#[path = "../../src/signal.rs"]
pub mod signal;
