//! Every decision of a world: drawn from the site's own stream, recorded on demand, and fed back
//! from a recorded list.
//!
//! Invariant: the value 0 is the simplest outcome at every site (no fault, the oldest task, nothing
//! lost). A replay whose list runs out takes 0, so that cutting a list or zeroing a value can only
//! make a case simpler; that is what makes shrinking work without the generator.
//!
//! # Source
//!
//! D. `MacIver`, A. Donaldson, "Test-case reduction via test-case generation: insights from the
//! Hypothesis reducer", ECOOP 2020. Departure: one queue a site, not one for all, so that a change
//! at one site leaves the others alone.

use core::cell::RefCell;
use core::fmt;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use forebay_engine::types::{to_u64, to_usize};
use serde::{Deserialize, Serialize};

use crate::lists::Lists;
use crate::streams::Stream;
use crate::trace::{Code, Trace, mix};

/// One decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Index of the site's name in [`Recording::sites`].
    pub site: u32,
    /// How many outcomes there were.
    pub n: u64,
    /// The outcome, below `n`.
    pub value: u64,
}

/// Decisions in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// Names of sites.
    pub sites: Vec<String>,
    /// The decisions.
    pub choices: Vec<Choice>,
}

/// Where decisions come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// From the streams, not recorded.
    #[default]
    Plain,
    /// From the streams, recorded.
    Record,
    /// From a recorded list, recorded again as made.
    Replay(Recording),
    /// As `Replay`, from lists by site.
    Follow {
        /// The outcomes.
        lists: Lists,
        /// Where the lists are left.
        then: Option<Then>,
    },
}

impl Mode {
    /// Follows lists to their ends, and takes 0 from there.
    pub fn follow(lists: Lists) -> Self {
        Self::Follow { lists, then: None }
    }
}

/// Where a replay leaves its lists: what follows is drawn, so that one past has many futures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Then {
    /// After so many decisions.
    pub after: u64,
    /// Draws the rest.
    pub seed: u64,
}

#[derive(Debug)]
struct SiteState {
    name: &'static str,
    stream: Stream,
    queue: Option<VecDeque<u64>>,
}

/// A recently used site. The address only finds the entry; the name decides the outcome.
#[derive(Clone, Copy, Debug, Default)]
struct Cached {
    address: usize,
    len: usize,
    id: usize,
}

struct Inner {
    seed: u64,
    ids: BTreeMap<&'static str, usize>,
    sites: Vec<SiteState>,
    cache: [Cached; 64],
    recorded: Option<Vec<Choice>>,
    replay: Option<BTreeMap<String, VecDeque<u64>>>,
    made: u64,
    then: Option<Then>,
}

/// The decisions of one world.
pub struct Choices {
    inner: RefCell<Inner>,
    trace: Rc<Trace>,
}

impl fmt::Debug for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choices").field("seed", &self.inner.borrow().seed).finish_non_exhaustive()
    }
}

impl Choices {
    /// Decisions of `seed`, each added to `trace`.
    pub fn new(seed: u64, mode: Mode, trace: Rc<Trace>) -> Self {
        let (recorded, replay, then) = match mode {
            Mode::Plain => (None, None, None),
            Mode::Record => (Some(Vec::new()), None, None),
            Mode::Replay(recording) => (Some(Vec::new()), Some(queues(&recording)), None),
            Mode::Follow { lists, then } => (Some(Vec::new()), Some(lists.into_queues()), then),
        };
        let inner = Inner {
            seed,
            ids: BTreeMap::new(),
            sites: Vec::new(),
            cache: [Cached::default(); 64],
            recorded,
            replay,
            made: 0,
            then,
        };
        Self { inner: RefCell::new(inner), trace }
    }

    /// A number in `0..n`; 0 is the simplest outcome. One outcome or none draws nothing.
    pub fn choose(&self, site: &'static str, n: u64) -> u64 {
        self.decide(site, n, |drawn| drawn)
    }

    /// As [`choose`](Self::choose), where only something about what is drawn decides.
    fn decide(&self, site: &'static str, n: u64, outcome: impl FnOnce(u64) -> u64) -> u64 {
        if n <= 1 {
            return 0;
        }
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let id = inner.id(site);
        let Some(state) = inner.sites.get_mut(id) else { return 0 };
        let left = inner.then.is_some_and(|then| inner.made >= then.after);
        inner.made = inner.made.wrapping_add(1);
        let value = match &mut state.queue {
            Some(queue) if !left => queue.pop_front().unwrap_or(0).min(n.wrapping_sub(1)),
            Some(_) | None => outcome(state.stream.below(n)),
        };
        if let Some(recorded) = &mut inner.recorded {
            let site = u32::try_from(id).unwrap_or(u32::MAX);
            recorded.push(Choice { site, n, value });
        }
        self.trace.event(Code::Choice, mix(mix(to_u64(id), n), value));
        value
    }

    /// Whether something with this many chances in a million happens: the value is 1, else 0, so
    /// that a recorded yes stays one whatever the chance.
    pub fn chance(&self, site: &'static str, per_million: u32) -> bool {
        let happens = |drawn: u64| drawn.saturating_add(u64::from(per_million)) >= 1_000_000;
        per_million > 0 && self.decide(site, 1_000_000, |drawn| u64::from(happens(drawn))) > 0
    }

    /// A number in `low..=high`, `low` being the simplest.
    pub fn range(&self, site: &'static str, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).saturating_add(1);
        low.saturating_add(self.choose(site, span))
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.inner.borrow().seed
    }

    /// How many decisions there were so far.
    pub fn made(&self) -> u64 {
        self.inner.borrow().made
    }

    /// What was recorded so far, by site; empty in plain mode.
    pub fn lists(&self) -> Lists {
        let inner = self.inner.borrow();
        let mut lists = vec![Vec::new(); inner.sites.len()];
        for choice in inner.recorded.iter().flatten() {
            if let Some(list) = lists.get_mut(to_usize(u64::from(choice.site))) {
                list.push(choice.value);
            }
        }
        Lists::new(inner.sites.iter().map(|site| site.name.to_owned()).zip(lists))
    }

    /// What was recorded so far; empty in plain mode.
    pub fn recording(&self) -> Recording {
        let inner = self.inner.borrow();
        Recording {
            sites: inner.sites.iter().map(|s| s.name.to_owned()).collect(),
            choices: inner.recorded.clone().unwrap_or_default(),
        }
    }
}

impl Inner {
    fn id(&mut self, site: &'static str) -> usize {
        let key = (site.as_ptr().addr(), site.len());
        let at = (key.0 ^ (key.0 >> 6) ^ key.1) & 63;
        if let Some(hit) = self.cache.get(at)
            && (hit.address, hit.len) == key
        {
            return hit.id;
        }
        let id = self.intern(site);
        if let Some(slot) = self.cache.get_mut(at) {
            *slot = Cached { address: key.0, len: key.1, id };
        }
        id
    }

    fn intern(&mut self, name: &'static str) -> usize {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.sites.len();
        let queue = self.replay.as_mut().map(|r| r.remove(name).unwrap_or_default());
        let seed = self.then.map_or(self.seed, |then| then.seed);
        self.sites.push(SiteState { name, stream: Stream::new(seed, name), queue });
        self.ids.insert(name, id);
        id
    }
}

fn queues(recording: &Recording) -> BTreeMap<String, VecDeque<u64>> {
    let mut queues: BTreeMap<String, VecDeque<u64>> = BTreeMap::new();
    for choice in &recording.choices {
        if let Some(name) = recording.sites.get(to_usize(u64::from(choice.site))) {
            queues.entry(name.clone()).or_default().push_back(choice.value);
        }
    }
    queues
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(seed: u64, mode: Mode) -> Choices {
        Choices::new(seed, mode, Rc::new(Trace::default()))
    }

    #[test]
    fn one_more_draw_at_one_site_does_not_shift_another() {
        let (a, b) = (choices(3, Mode::Plain), choices(3, Mode::Plain));
        let _extra = b.choose("other", 10);
        let draw = |c: &Choices| (0..8).map(|_| c.choose("sched", 1000)).collect::<Vec<_>>();
        assert_eq!(draw(&a), draw(&b));
    }

    #[test]
    fn a_recording_replays_and_then_takes_the_simplest_outcome() {
        let first = choices(3, Mode::Record);
        let drawn: Vec<_> = (0..4).map(|_| first.choose("x", 100) + first.choose("y", 7)).collect();
        let again = choices(99, Mode::Replay(first.recording()));
        let replayed: Vec<_> =
            (0..4).map(|_| again.choose("x", 100) + again.choose("y", 7)).collect();
        assert_eq!(drawn, replayed);
        assert_eq!(again.recording(), first.recording());
        assert_eq!(again.choose("x", 100), 0);
        assert_eq!(again.choose("never seen", 100), 0);
    }

    #[test]
    fn lists_replay_and_may_be_left_for_other_futures() {
        let draw = |c: &Choices| -> Vec<u64> {
            let one = |at: u64| c.choose("x", 100) + u64::from(c.chance("y", 500_000)) * at;
            (0..20).map(|at| one(1000 * (at + 1))).collect()
        };
        let first = choices(3, Mode::Record);
        let drawn = draw(&first);
        let (lists, made) = (first.lists(), first.made());
        assert_eq!(made, 40);
        assert_eq!(draw(&choices(8, Mode::follow(lists.clone()))), drawn);
        let future = |seed| {
            let then = Some(Then { after: made >> 1, seed });
            draw(&choices(3, Mode::Follow { lists: lists.clone(), then }))
        };
        let (one, other) = (future(1), future(2));
        assert_eq!((&one[..10], &other[..10]), (&drawn[..10], &drawn[..10]));
        assert!(one != drawn && one != other);
    }

    #[test]
    fn a_single_outcome_draws_nothing() {
        let c = choices(3, Mode::Record);
        assert_eq!((c.choose("x", 0), c.choose("x", 1)), (0, 0));
        assert!(!c.chance("y", 0));
        assert!(c.recording().choices.is_empty());
    }

    #[test]
    fn a_recording_survives_json() {
        let c = choices(3, Mode::Record);
        let _drawn = c.choose("x", 100);
        let text = serde_json::to_string(&c.recording()).unwrap();
        assert_eq!(serde_json::from_str::<Recording>(&text).unwrap(), c.recording());
    }
}
