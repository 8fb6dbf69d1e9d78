//! Locks and counters of the small concurrent units, under one name.
//!
//! The units that threads meet in (`group`, `budget`, `pointer`) take them from here and from
//! nowhere else, so that the crate `engine/shuttle` can compile the same source with a model
//! checker's locks and try interleavings that no test on real threads would meet.

pub(crate) use core::sync::atomic::{AtomicU64, Ordering};

pub(crate) use parking_lot::{Mutex, RwLock};
