//! What a few numbers can tell and what they cannot: intervals, and verdicts on pairs.
//!
//! Only `+ - * /` and `libm` are used, and chance comes from one fixed seed, so that a table of
//! verdicts has the same bytes on every machine.

pub mod bootstrap;
pub mod location;
pub mod normal;
pub mod paired;

pub use bootstrap::{Interval, interval};
pub use paired::{Change, Direction, Paired, Verdict, compare};
