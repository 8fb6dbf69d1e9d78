//! Keeps what the engine tells, for the timeline of one run.
//!
//! Listening draws nothing and waits for nothing, so a recorded run is the same run. What is kept
//! is bounded: beyond a number of items nothing more is taken, and how much was left out is said.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use forebay_engine::events::Event;
use forebay_engine::policy::view::{StallCause, TreeFacts};
use forebay_engine::types::{BranchId, Nanos, TreeId, to_u64};

use crate::events::{EventKind, EventRow, EventsHead, RunEvents};
use crate::record::ByCause;

/// Intervals of the sums over everybody.
const INTERVALS: u64 = 400;

/// Samples of a memtable that are kept at most, beside those when it was sealed. All samples
/// together take a quarter of the room at most.
const SAMPLES_MAX: usize = 300;

/// How often samples may be halved; then there is nothing left to let go of.
const THINNED_MAX: u32 = 40;

/// How much is kept of a run's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recording {
    /// Nothing.
    #[default]
    None,
    /// The busiest tenants and trees, as many as a page shows and some more.
    Busiest,
    /// Everybody, for a viewer of traces, up to so many events.
    Everybody(usize),
}

impl Recording {
    /// Events in memory, and as many sizes of memtables; owners and events in the result.
    fn limits(self) -> (usize, usize, usize) {
        match self {
            Self::None => (0, 0, 0),
            Self::Busiest => (1 << 18, 12, 12_000),
            Self::Everybody(events_max) => (1 << 20, usize::MAX, events_max),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Db,
    Tree(TreeId),
    Branch(BranchId),
}

#[derive(Debug)]
struct Span {
    kind: EventKind,
    owner: Owner,
    begin: Nanos,
    end: Nanos,
    bytes: u64,
    stall: Option<(StallCause, BranchId)>,
    is_open: bool,
}

#[derive(Debug)]
struct Instant {
    kind: EventKind,
    owner: Owner,
    at: Nanos,
    note: String,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    tree: TreeId,
    at: Nanos,
    bytes: u64,
    /// Number of the sample, counted from 1; 0 where the memtable was sealed.
    sample: u64,
}

/// A write's stall where it is one.
type Reason = Option<(StallCause, BranchId)>;

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    recording: Recording,
    base: Nanos,
    spans: Vec<Span>,
    instants: Vec<Instant>,
    points: Vec<Point>,
    memtables: BTreeMap<TreeId, u64>,
    samples: u64,
    /// How often the samples were halved.
    thinned: u32,
    open: BTreeMap<(Owner, EventKind), Vec<(Nanos, Reason)>>,
    /// Events that found no room.
    refused: u64,
    refused_from: Option<Nanos>,
    branches: BTreeMap<BranchId, String>,
    trees: BTreeMap<TreeId, (u64, String)>,
}

impl Recorder {
    pub(super) fn new(recording: Recording) -> Self {
        Self { recording, ..Self::default() }
    }

    /// A tenant: its branch, its tree and its name.
    pub(super) fn know(&mut self, branch: BranchId, tree: Option<TreeId>, name: &str) {
        self.branches.insert(branch, name.to_owned());
        if let Some(tree) = tree {
            self.trees.entry(tree).or_insert_with(|| (0, name.to_owned())).0 += 1;
        }
    }

    /// Measuring begins: what ended before is forgotten.
    pub(super) fn reset(&mut self, now: Nanos) {
        self.base = now;
        self.spans.clear();
        self.instants.clear();
        self.points.clear();
        self.memtables.clear();
        (self.samples, self.thinned) = (0, 0);
        (self.refused, self.refused_from) = (0, None);
    }

    fn has_room(&mut self, now: Nanos) -> bool {
        let (items_max, _, _) = self.recording.limits();
        let has_room = self.spans.len() + self.instants.len() < items_max;
        if !has_room {
            self.refused = self.refused.saturating_add(1);
            self.refused_from.get_or_insert(now);
        }
        has_room
    }

    /// What memtables hold at a sample.
    pub(super) fn trees(&mut self, now: Nanos, trees: &[TreeFacts]) {
        self.samples = self.samples.saturating_add(1);
        if self.samples.is_multiple_of(1 << self.thinned) {
            for facts in trees {
                self.memtable(now, (facts.tree, facts.memtable_bytes), self.samples);
            }
        }
    }

    /// Where there are too many, every second sample is let go of, and not taken from here on.
    fn memtable(&mut self, at: Nanos, (tree, bytes): (TreeId, u64), sample: u64) {
        let (points_max, _, _) = self.recording.limits();
        if self.points.len() >= points_max && self.thinned < THINNED_MAX {
            self.thinned += 1;
            let every = 1 << self.thinned;
            self.points.retain(|point| point.sample.is_multiple_of(every));
        }
        let last = self.memtables.insert(tree, bytes).unwrap_or(0);
        if last != bytes && self.points.len() < points_max {
            self.points.push(Point { tree, at, bytes, sample });
        }
    }

    fn begin(&mut self, owner: Owner, kind: EventKind, (at, why): (Nanos, Reason)) {
        self.open.entry((owner, kind)).or_default().push((at, why));
    }

    fn end(
        &mut self,
        (owner, kind): (Owner, EventKind),
        (end, took): (Nanos, Nanos),
        bytes: u64,
        stall: Reason,
    ) {
        let mut begin = end.saturating_sub(took);
        if let Some(open) = self.open.get_mut(&(owner, kind))
            && !open.is_empty()
        {
            let same = open.iter().position(|known| *known == (begin, stall)).unwrap_or(0);
            begin = open.remove(same).0;
        }
        if self.has_room(end) {
            self.spans.push(Span { kind, owner, begin, end, bytes, stall, is_open: false });
        }
    }

    fn instant(&mut self, (owner, kind): (Owner, EventKind), at: Nanos, note: String) {
        if self.has_room(at) {
            self.instants.push(Instant { kind, owner, at, note });
        }
    }

    /// A job failed: where its tree has one only, that one is over.
    fn failed(&mut self, tree: TreeId, at: Nanos, error: &str) {
        let owner = Owner::Tree(tree);
        self.instant((owner, EventKind::Fault), at, format!("job failed: {error}"));
        let begun = |kind| self.open.get(&(owner, kind)).map_or(0, Vec::len);
        let (flushes, compactions) = (begun(EventKind::Flush), begun(EventKind::Compaction));
        let kind = if flushes > 0 { EventKind::Flush } else { EventKind::Compaction };
        if flushes + compactions == 1 {
            self.end((owner, kind), (at, 0), 0, None);
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a listener takes what it knows")]
    pub(super) fn event(&mut self, now: Nanos, event: &Event) {
        match event {
            Event::Sealed { tree, bytes } => {
                self.memtable(now, (*tree, *bytes), 0);
                self.memtable(now, (*tree, 0), 0);
            }
            Event::FlushBegin { tree, .. } => {
                self.begin(Owner::Tree(*tree), EventKind::Flush, (now, None));
            }
            Event::FlushEnd { tree, table, elapsed_ns } => {
                let bytes = table.map_or(0, |(_, bytes)| bytes);
                self.end((Owner::Tree(*tree), EventKind::Flush), (now, *elapsed_ns), bytes, None);
            }
            Event::CompactionBegin { tree, .. } => {
                self.begin(Owner::Tree(*tree), EventKind::Compaction, (now, None));
            }
            Event::CompactionEnd { tree, output_bytes, elapsed_ns, .. } => {
                let whose = (Owner::Tree(*tree), EventKind::Compaction);
                self.end(whose, (now, *elapsed_ns), *output_bytes, None);
            }
            Event::StallBegin { branch, cause, caused_by } => {
                let why = Some((*cause, *caused_by));
                self.begin(Owner::Branch(*branch), EventKind::Stall, (now, why));
            }
            Event::StallEnd { branch, cause, caused_by, elapsed_ns } => {
                let whose = (Owner::Branch(*branch), EventKind::Stall);
                self.end(whose, (now, *elapsed_ns), 0, Some((*cause, *caused_by)));
            }
            Event::JobFailed { tree, error } => self.failed(*tree, now, error),
            Event::PolicyOverride { tree } => {
                let whose = (Owner::Tree(*tree), EventKind::Override);
                self.instant(whose, now, "policy override".to_owned());
            }
            Event::SegmentLeft { segment, error, .. } => {
                let note = format!("log segment {segment} left: {error}");
                self.instant((Owner::Db, EventKind::Fault), now, note);
            }
            Event::DiskFull { full, free_bytes, .. } => {
                let word = if *full { "full" } else { "no longer full" };
                let note = format!("disk {word}: {free_bytes} bytes free");
                self.instant((Owner::Db, EventKind::Fault), now, note);
            }
            _ => {}
        }
    }

    fn owner(&self, owner: Owner) -> String {
        match owner {
            Owner::Db => "db".to_owned(),
            Owner::Tree(tree) => match self.trees.get(&tree) {
                Some((1, name)) => name.clone(),
                Some((count, _)) => format!("tree {} of {count} tenants", tree.0),
                None => format!("tree {}", tree.0),
            },
            Owner::Branch(branch) => {
                let name = self.branches.get(&branch).cloned();
                name.unwrap_or_else(|| format!("branch {}", branch.0))
            }
        }
    }

    /// What was told up to now, since measuring began.
    pub(super) fn finish(mut self, now: Nanos) -> RunEvents {
        for ((owner, kind), begins) in core::mem::take(&mut self.open) {
            for (begin, stall) in begins {
                if self.has_room(now) {
                    let open =
                        Span { kind, owner, begin, end: now, bytes: 0, stall, is_open: true };
                    self.spans.push(open);
                }
            }
        }
        let (_, owners_max, events_max) = self.recording.limits();
        let names = self.names();
        let (owners, owner_count) = self.busiest(&names, owners_max);
        let places: BTreeMap<&str, usize> = owners.iter().map(String::as_str).zip(0..).collect();
        let is_shown =
            |owner: &Owner| names.get(owner).is_some_and(|name| places.contains_key(name.as_str()));
        let mut rows = self.sums(now);
        let share = (events_max >> 2).checked_div(owners.len()).unwrap_or(0);
        rows.extend(
            self.gauges(share.clamp(1, SAMPLES_MAX))
                .filter(|(o, _)| is_shown(o))
                .map(|(_, row)| row),
        );
        let gauge_count = rows.len();
        rows.extend(self.spans.iter().filter(|s| is_shown(&s.owner)).map(|s| self.span(s)));
        rows.extend(self.instants.iter().filter(|i| is_shown(&i.owner)).map(|i| self.mark(i)));
        let mut written = to_u64(rows.len().saturating_sub(gauge_count));
        rows.sort_by(|a, b| {
            let place = |row: &EventRow| places.get(row.owner.as_str()).copied();
            (a.at_ns, a.kind, place(a)).cmp(&(b.at_ns, b.kind, place(b)))
        });
        let mut cut_ns = self.refused_from.map(|at| at.saturating_sub(self.base));
        if let Some(first) = rows.get(events_max) {
            cut_ns = Some(first.at_ns);
            let is_event =
                |row: &&EventRow| !matches!(row.kind, EventKind::All | EventKind::Memtable);
            let gone = rows.iter().skip(events_max).filter(is_event).count();
            written = written.saturating_sub(to_u64(gone));
            rows.truncate(events_max);
        }
        let event_count =
            to_u64(self.spans.len() + self.instants.len()).saturating_add(self.refused);
        let head = EventsHead {
            end_ns: now.saturating_sub(self.base),
            owners,
            owner_count,
            event_count,
            left_out: event_count.saturating_sub(written),
            cut_ns,
            ..EventsHead::default()
        };
        RunEvents { head, rows }
    }

    fn names(&self) -> BTreeMap<Owner, String> {
        let spans = self.spans.iter().map(|span| span.owner);
        let instants = self.instants.iter().map(|instant| instant.owner);
        let points = self.points.iter().map(|point| Owner::Tree(point.tree));
        let mut names = BTreeMap::new();
        for owner in spans.chain(instants).chain(points) {
            names.entry(owner).or_insert_with(|| self.owner(owner));
        }
        names
    }

    /// Owners in turn by faults, by bytes flushed and by time waited; and how many there are.
    fn busiest(&self, names: &BTreeMap<Owner, String>, max: usize) -> (Vec<String>, u64) {
        let mut scores: BTreeMap<&str, [u64; 3]> =
            names.values().map(|name| (name.as_str(), [0; 3])).collect();
        let none = String::new();
        let of = |owner: &Owner| names.get(owner).unwrap_or(&none).as_str();
        for instant in &self.instants {
            let [faults, ..] = scores.entry(of(&instant.owner)).or_default();
            *faults += 1;
        }
        for span in &self.spans {
            let [_, flushed, waited] = scores.entry(of(&span.owner)).or_default();
            if span.kind == EventKind::Stall {
                *waited = waited.saturating_add(span.end.saturating_sub(span.begin));
            } else {
                *flushed = flushed.saturating_add(span.bytes);
            }
        }
        let ranked = |which: usize| {
            let score = |scores: &[u64; 3]| scores.get(which).copied().unwrap_or(0);
            let mut ranked: Vec<(u64, &str)> =
                scores.iter().map(|(name, s)| (score(s), *name)).collect();
            ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
            let without = ranked.iter().position(|(n, _)| *n == 0);
            let without = ranked.split_off(without.unwrap_or(ranked.len()));
            (ranked, without)
        };
        let lists = [ranked(0).0, ranked(1).0, ranked(2).0];
        let mut owners: Vec<String> = Vec::new();
        let mut known = std::collections::BTreeSet::new();
        for place in 0..lists.iter().map(Vec::len).max().unwrap_or(0) {
            for (_, name) in lists.iter().filter_map(|list| list.get(place)) {
                if owners.len() < max && known.insert(*name) {
                    owners.push((*name).to_owned());
                }
            }
        }
        // Those without any of it come last.
        let others = ranked(1).1.into_iter().filter(|(_, name)| !known.contains(name));
        let others = others.take(max.saturating_sub(owners.len()));
        owners.extend(others.map(|(_, name)| name.to_owned()));
        (owners, to_u64(scores.len()))
    }

    /// How long spans of each kind took, over everybody, in equal intervals.
    fn sums(&self, now: Nanos) -> Vec<EventRow> {
        let end = now.saturating_sub(self.base);
        let width = end.div_ceil(INTERVALS).max(1);
        let mut rows: Vec<EventRow> = (0..end.div_ceil(width))
            .map(|n| {
                let at_ns = n.saturating_mul(width);
                let took_ns = width.min(end.saturating_sub(at_ns));
                EventRow { at_ns, took_ns, ..EventRow::default() }
            })
            .collect();
        for span in &self.spans {
            let begin = span.begin.saturating_sub(self.base);
            let end = span.end.saturating_sub(self.base);
            let first = usize::try_from(begin.div_euclid(width)).unwrap_or(usize::MAX);
            for row in rows.iter_mut().skip(first) {
                if row.at_ns >= end {
                    break;
                }
                let until = end.min(row.at_ns.saturating_add(row.took_ns));
                let took = until.saturating_sub(begin.max(row.at_ns));
                let sum = match span.kind {
                    EventKind::Flush => &mut row.flush_ns,
                    EventKind::Compaction => &mut row.compaction_ns,
                    EventKind::Stall => &mut row.stall_ns,
                    EventKind::All
                    | EventKind::Memtable
                    | EventKind::Fault
                    | EventKind::Override => continue,
                };
                *sum = sum.saturating_add(took);
            }
        }
        rows
    }

    /// Memtables when they were sealed, and some samples between.
    fn gauges(&self, samples_max: usize) -> impl Iterator<Item = (Owner, EventRow)> {
        let mut samples: BTreeMap<TreeId, usize> = BTreeMap::new();
        for point in self.points.iter().filter(|point| point.sample > 0) {
            *samples.entry(point.tree).or_default() += 1;
        }
        let mut seen: BTreeMap<TreeId, usize> = BTreeMap::new();
        self.points.iter().filter_map(move |point| {
            if point.sample > 0 {
                let every = samples.get(&point.tree).map_or(1, |n| n.div_ceil(samples_max).max(1));
                let seen = seen.entry(point.tree).or_default();
                *seen += 1;
                if !seen.is_multiple_of(every) {
                    return None;
                }
            }
            let owner = Owner::Tree(point.tree);
            let row = EventRow {
                kind: EventKind::Memtable,
                owner: self.owner(owner),
                at_ns: point.at.saturating_sub(self.base),
                bytes: point.bytes,
                ..EventRow::default()
            };
            Some((owner, row))
        })
    }

    fn span(&self, span: &Span) -> EventRow {
        let begin = span.begin.max(self.base);
        let name = |(cause, _): (StallCause, BranchId)| {
            let names = ByCause::default().named();
            names.get(cause.index()).map_or(String::new(), |(name, _)| (*name).to_owned())
        };
        let by = |(_, by): (StallCause, BranchId)| self.owner(Owner::Branch(by));
        EventRow {
            kind: span.kind,
            owner: self.owner(span.owner),
            at_ns: begin.saturating_sub(self.base),
            took_ns: span.end.saturating_sub(begin),
            bytes: span.bytes,
            cause: span.stall.map_or(String::new(), name),
            caused_by: span.stall.map_or(String::new(), by),
            is_open: span.is_open,
            ..EventRow::default()
        }
    }

    fn mark(&self, instant: &Instant) -> EventRow {
        EventRow {
            kind: instant.kind,
            owner: self.owner(instant.owner),
            at_ns: instant.at.saturating_sub(self.base),
            note: instant.note.clone(),
            ..EventRow::default()
        }
    }
}
