//! Gives a run up whose writers wait for nothing.
//!
//! A database whose writers all wait still has timers, so that its simulation never runs out of
//! events, and a real one never ends. Rule L1 gives everything that waits a deadline; a writer that
//! waited so long while nothing was queued or running that could end it will wait for ever.

use forebay_engine::Error;
use forebay_engine::env::Env;
use forebay_engine::types::{BranchId, Nanos};
use forebay_engine::waiting::Watch;
use forebay_sim::check::liveness::{DEADLINE_NS, story, stranded};

/// Why a run has no result.
#[derive(Clone, Debug)]
pub enum Stop {
    /// An operation met an error.
    Failed(Error),
    /// Rule L1 was broken: who waits and what memory holds, a line each.
    Wedged(Vec<String>),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Looks from time to time at who waits.
#[derive(Debug)]
pub(super) struct Patience<E: Env> {
    watch: Watch<E>,
    /// The writer for whom there was nothing when it was last looked, and since when that was so.
    stuck: Option<(BranchId, Nanos, Nanos)>,
}

impl<E: Env> Patience<E> {
    pub(super) fn new(watch: Watch<E>) -> Self {
        Self { watch, stuck: None }
    }

    /// An error once one writer was found waiting for nothing at each look for the deadline of L1.
    pub(super) fn look(&mut self) -> Result<(), Stop> {
        let Some(waiting) = self.watch.waiting() else {
            self.stuck = None;
            return Ok(());
        };
        let Some(writer) = stranded(&waiting) else {
            self.stuck = None;
            return Ok(());
        };
        let same = |(branch, since, _): &(BranchId, Nanos, Nanos)| {
            *branch == writer.branch && *since == writer.since_ns
        };
        let first = self.stuck.filter(same).map_or(waiting.now_ns, |(_, _, first)| first);
        self.stuck = Some((writer.branch, writer.since_ns, first));
        if waiting.now_ns.saturating_sub(first) < DEADLINE_NS {
            return Ok(());
        }
        Err(Stop::Wedged(story(&waiting, &self.watch.memory())))
    }
}
