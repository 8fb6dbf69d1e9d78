//! The timeline of the page: what memtables, flushes, compactions and stalls did, tenant by tenant.
//!
//! Made of the events of one run of each arm and cut to columns, so that a page of any number of
//! events and arms stays small: an arm takes the finest of its steps that fits its share. A span is
//! at least a column wide, and spans that meet in a column are one. Flushes and compactions beside
//! each other are stacked before that.
//!
//! Spans are packed as the columns from the end of the one before to the begin, then the length,
//! in letters of base64 that hold five bits each, the lowest first; 32 is added where more follow.
//! Levels are one letter each, 0 to 63 of the highest.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::events::{EventKind, EventRow, RunEvents};
use crate::number::thousands;
use crate::record::ByCause;

/// Bytes that the timelines of a page may take together, where there is room for as many.
const BYTES_MAX: usize = 60_000;

/// What an arm's timeline is given at least; arms that find less have none.
const ARM_BYTES_MIN: usize = 1_600;

/// Columns, points of a memtable, lanes; the finest first.
const STEPS: [(u64, u64, usize); 10] = [
    (4096, 300, 8),
    (4096, 200, 8),
    (2048, 160, 8),
    (1024, 120, 8),
    (1024, 100, 7),
    (512, 100, 6),
    (512, 80, 5),
    (256, 64, 4),
    (256, 48, 3),
    (128, 32, 2),
];

/// Rows of spans beside each other: of flushes and of compactions.
const ROWS_MAX: [usize; 2] = [4, 2];

/// Letters of a name.
const NAME_MAX: usize = 40;

/// Instants that are marked, of one arm.
const MARKS_MAX: usize = 24;

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Values over time, a letter a point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Levels {
    /// What the highest letter stands for.
    pub max: u64,
    /// The points.
    pub points: String,
}

/// Spans of one kind that do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spans {
    /// `flush`, `compaction` or the cause of stalls.
    pub kind: String,
    /// Packed.
    pub spans: String,
}

/// A tenant, or a tree that several share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// Bytes of its memtable: the most in each interval.
    pub memtable: Levels,
    /// What it did, a row of the picture each but for stalls, which share one.
    pub rows: Vec<Spans>,
}

/// Something that takes no time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// The column.
    pub at: u64,
    /// The lane; `None` is all of them.
    pub lane: Option<usize>,
    /// `fault` or `override`.
    pub kind: &'static str,
    /// What happened.
    pub note: String,
}

/// The timeline of one arm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ArmTimeline {
    /// The arm.
    pub arm: String,
    /// The seed of the run.
    pub seed: u64,
    /// When the run ended.
    pub end_ns: u64,
    /// Columns that it is cut to.
    pub columns: u64,
    /// Flushes, compactions and stalls that were under way on average, in thousandths.
    pub all: [Levels; 3],
    /// The busiest.
    pub lanes: Vec<Lane>,
    /// Faults.
    pub marks: Vec<Mark>,
    /// Who is shown, and what is left out.
    pub note: String,
}

/// Timelines of as many arms as find room: those named first, then the others in their order.
pub fn timelines(runs: &[RunEvents], firsts: [&str; 2], room: usize) -> Vec<ArmTimeline> {
    let room = room.min(BYTES_MAX);
    let rank = |run: &&RunEvents| !firsts.contains(&run.head.arm.as_str());
    let mut chosen: Vec<&RunEvents> = runs.iter().filter(|run| run.head.end_ns > 0).collect();
    chosen.sort_by_key(rank);
    chosen.truncate(room.div_euclid(ARM_BYTES_MIN));
    let bytes_max = room.checked_div(chosen.len()).unwrap_or(0);
    chosen.into_iter().filter_map(|run| fitting(run, bytes_max)).collect()
}

/// The finest that fits, if any does.
fn fitting(run: &RunEvents, bytes_max: usize) -> Option<ArmTimeline> {
    let owners = by_owner(run);
    STEPS.iter().find_map(|step| {
        let timeline = timeline((run, &owners), *step);
        let bytes = serde_json::to_string(&timeline).map_or(usize::MAX, |text| text.len());
        (bytes <= bytes_max).then_some(timeline)
    })
}

/// Events by owner; those of nobody are the sums.
type Owners<'a> = BTreeMap<&'a str, Vec<&'a EventRow>>;

fn by_owner(run: &RunEvents) -> Owners<'_> {
    let mut owners = Owners::new();
    for row in &run.rows {
        let owner = if row.kind == EventKind::All { "" } else { row.owner.as_str() };
        owners.entry(owner).or_default().push(row);
    }
    owners
}

fn timeline(
    (run, rows): (&RunEvents, &Owners<'_>),
    (columns, points, lanes_max): (u64, u64, usize),
) -> ArmTimeline {
    let scale = Scale { end_ns: run.head.end_ns, columns };
    let owners = run.head.owners.get(..lanes_max).unwrap_or(&run.head.owners);
    let lane = |owner: &String| {
        let of_owner = rows.get(owner.as_str()).map_or(&[][..], Vec::as_slice);
        lane(owner, of_owner, (scale, points))
    };
    let all = |of: fn(&EventRow) -> u64| {
        let rows = rows.get("").into_iter().flatten().filter(|row| row.kind == EventKind::All);
        let under_way = rows.map(|row| {
            let mean = u128::from(of(row)) * 1000;
            let mean = mean.checked_div(u128::from(row.took_ns)).unwrap_or(0);
            (row.at_ns, u64::try_from(mean).unwrap_or(u64::MAX))
        });
        Scale { columns: points, ..scale }.levels(under_way)
    };
    let marks = run.rows.iter().filter_map(|row| {
        let kind = match row.kind {
            EventKind::Fault | EventKind::Override => row.kind.name(),
            EventKind::All
            | EventKind::Memtable
            | EventKind::Flush
            | EventKind::Compaction
            | EventKind::Stall => return None,
        };
        let lane = owners.iter().position(|owner| *owner == row.owner);
        let at = scale.column(row.at_ns);
        let is_shown = lane.is_some() || row.kind == EventKind::Fault;
        is_shown.then(|| Mark { at, lane, kind, note: short(&row.note) })
    });
    ArmTimeline {
        arm: run.head.arm.clone(),
        seed: run.head.seed,
        end_ns: run.head.end_ns,
        columns,
        all: [all(|row| row.flush_ns), all(|row| row.compaction_ns), all(|row| row.stall_ns)],
        lanes: owners.iter().map(lane).collect(),
        marks: marks.take(MARKS_MAX).collect(),
        note: note(run, owners.len()),
    }
}

fn note(run: &RunEvents, shown: usize) -> String {
    let head = &run.head;
    let shown = u64::try_from(shown).unwrap_or(u64::MAX);
    let mut note = if shown < head.owner_count {
        let count = thousands(head.owner_count);
        format!("The {shown} busiest of {count} tenants and trees; the top lane is everybody.")
    } else {
        "Every tenant and tree; the top lane is their sum.".to_owned()
    };
    if let Some(at_ns) = head.cut_ns {
        let at = crate::number::duration(at_ns);
        note.push_str(&format!(" Too many events: those after {at} are left out."));
    }
    note
}

fn lane(owner: &str, rows: &[&EventRow], (scale, points): (Scale, u64)) -> Lane {
    let of = |kind| rows.iter().copied().filter(move |row| row.kind == kind);
    let memtable = of(EventKind::Memtable).map(|row| (row.at_ns, row.bytes));
    let [flush_rows, compaction_rows] = ROWS_MAX;
    let mut spans = Vec::new();
    for (kind, rows_max) in
        [(EventKind::Flush, flush_rows), (EventKind::Compaction, compaction_rows)]
    {
        let stacked = stacked(of(kind), rows_max);
        spans.extend(stacked.iter().map(|row| scale.spans(kind.name(), row)));
    }
    for (cause, _) in ByCause::default().named() {
        let waited: Vec<_> =
            of(EventKind::Stall).filter(|row| row.cause == cause).map(times).collect();
        if !waited.is_empty() {
            spans.push(scale.spans(cause, &waited));
        }
    }
    let memtable = Scale { columns: points, ..scale }.held_levels(memtable);
    Lane { name: short(owner), memtable, rows: spans }
}

fn short(text: &str) -> String {
    let mut letters = text.chars();
    let mut short: String = letters.by_ref().take(NAME_MAX).collect();
    if letters.next().is_some() {
        short.push_str("...");
    }
    short
}

type Times = (u64, u64);

fn times(row: &EventRow) -> Times {
    (row.at_ns, row.at_ns.saturating_add(row.took_ns))
}

/// Each span in the first row that is free; on the last where none is.
fn stacked<'a>(spans: impl Iterator<Item = &'a EventRow>, rows_max: usize) -> Vec<Vec<Times>> {
    let mut rows: Vec<Vec<Times>> = Vec::new();
    for span in spans.map(times) {
        let is_free = |row: &Vec<Times>| row.last().is_none_or(|(_, end)| *end <= span.0);
        let free = rows.iter().position(is_free).unwrap_or(rows.len());
        match rows.get_mut(free.min(rows_max.saturating_sub(1))) {
            Some(row) => row.push(span),
            None => rows.push(vec![span]),
        }
    }
    rows
}

#[derive(Clone, Copy)]
struct Scale {
    end_ns: u64,
    columns: u64,
}

impl Scale {
    fn column(self, at_ns: u64) -> u64 {
        let column = u128::from(at_ns) * u128::from(self.columns);
        let column = column.checked_div(u128::from(self.end_ns)).unwrap_or(0);
        u64::try_from(column).unwrap_or(u64::MAX).min(self.columns.saturating_sub(1))
    }

    /// Packs spans in the order of their begin.
    fn spans(self, kind: &str, spans: &[Times]) -> Spans {
        let mut merged: Vec<Times> = Vec::new();
        for (begin, end) in spans {
            let begin = self.column(*begin);
            let end = self.column(end.saturating_sub(1)).max(begin) + 1;
            match merged.last_mut() {
                Some(last) if begin <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((begin, end)),
            }
        }
        let (mut text, mut last) = (String::new(), 0);
        for (begin, end) in merged {
            push_packed(&mut text, begin.saturating_sub(last));
            push_packed(&mut text, end.saturating_sub(begin));
            last = end;
        }
        Spans { kind: kind.to_owned(), spans: text }
    }

    fn places(self) -> Vec<Option<u64>> {
        vec![None; usize::try_from(self.columns).unwrap_or(0)]
    }

    fn highest(self, values: impl Iterator<Item = Times>) -> Vec<Option<u64>> {
        let mut highest = self.places();
        for (at_ns, value) in values {
            let place = usize::try_from(self.column(at_ns)).unwrap_or(usize::MAX);
            if let Some(known) = highest.get_mut(place) {
                *known = Some(known.unwrap_or(0).max(value));
            }
        }
        highest
    }

    /// The highest value in each column; without one, that of the column before.
    fn levels(self, values: impl Iterator<Item = Times>) -> Levels {
        let mut last = 0;
        let filled = self.highest(values).into_iter().map(|value| {
            last = value.unwrap_or(last);
            last
        });
        packed(&filled.collect::<Vec<_>>())
    }

    /// Of a gauge that holds until the next value, which is 0 right after a seal.
    fn held_levels(self, values: impl Iterator<Item = Times> + Clone) -> Levels {
        let mut held = self.places();
        for (at_ns, value) in values.clone() {
            let place = usize::try_from(self.column(at_ns)).unwrap_or(usize::MAX);
            if let Some(held) = held.get_mut(place) {
                *held = Some(value);
            }
        }
        let mut last = 0;
        let filled = self.highest(values).into_iter().zip(held).map(|(highest, held)| {
            let level = highest.unwrap_or(last);
            last = held.unwrap_or(last);
            level
        });
        packed(&filled.collect::<Vec<_>>())
    }
}

fn packed(values: &[u64]) -> Levels {
    let max = values.iter().copied().max().unwrap_or(0);
    if max == 0 {
        return Levels::default();
    }
    let level = |value: &u64| {
        let level = (u128::from(*value) * 63 + u128::from(max >> 1)).checked_div(u128::from(max));
        // What is there at all can be seen.
        level.unwrap_or(0).max(u128::from(*value > 0))
    };
    let points = values.iter().map(|value| letter(u64::try_from(level(value)).unwrap_or(63)));
    Levels { max, points: points.collect() }
}

fn letter(n: u64) -> char {
    let place = usize::try_from(n & 63).unwrap_or(0);
    char::from(LETTERS.get(place).copied().unwrap_or(b'A'))
}

fn push_packed(text: &mut String, mut n: u64) {
    while n > 31 {
        text.push(letter((n & 31) + 32));
        n >>= 5;
    }
    text.push(letter(n));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::mock;

    fn number(letter: u8) -> u64 {
        LETTERS.iter().position(|known| *known == letter).unwrap() as u64
    }

    fn unpack(spans: &Spans) -> Vec<Times> {
        let mut numbers = Vec::new();
        let (mut n, mut shift) = (0, 0);
        for letter in spans.spans.bytes().map(number) {
            n += (letter & 31) << shift;
            shift += 5;
            if letter < 32 {
                numbers.push(n);
                (n, shift) = (0, 0);
            }
        }
        let mut at = 0;
        let mut spans = Vec::new();
        for pair in numbers.chunks(2) {
            spans.push((at + pair[0], at + pair[0] + pair[1]));
            at += pair[0] + pair[1];
        }
        spans
    }

    fn row(kind: EventKind, at_ns: u64, took_ns: u64, bytes: u64) -> EventRow {
        EventRow { kind, owner: "t".to_owned(), at_ns, took_ns, bytes, ..EventRow::default() }
    }

    fn run(rows: Vec<EventRow>) -> RunEvents {
        let mut run = RunEvents { rows, ..RunEvents::default() };
        (run.head.end_ns, run.head.owners) = (4096, vec!["t".to_owned()]);
        run
    }

    fn timeline_of(run: &RunEvents, step: (u64, u64, usize)) -> ArmTimeline {
        timeline((run, &by_owner(run)), step)
    }

    #[test]
    fn spans_come_back_stacked_where_they_overlap_and_joined_where_they_meet() {
        let times = [(0, 10), (5, 100), (7, 1), (12, 2000), (14, 3), (3000, 0), (4095, 1)];
        let rows = times.map(|(at, took)| row(EventKind::Flush, at, took, 1));
        let timeline = timeline_of(&run(rows.to_vec()), (4096, 10, 1));
        let rows: Vec<_> = timeline.lanes[0].rows.iter().map(unpack).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0], [(0, 10), (12, 2012), (3000, 3001), (4095, 4096)]);
        assert_eq!(rows[1], [(5, 105)]);
        assert_eq!(rows[2], [(7, 8), (14, 17)]);
        let coarse = Scale { end_ns: 4096, columns: 16 }.spans("flush", &[(0, 10), (12, 300)]);
        assert_eq!(unpack(&coarse), [(0, 2)]);
    }

    #[test]
    fn a_memtable_holds_its_bytes_until_the_next_value_and_shows_its_peaks() {
        let values = [(0, 10), (1500, 63), (1500, 0), (3000, 21)];
        let rows = values.map(|(at, bytes)| row(EventKind::Memtable, at, 0, bytes));
        let timeline = timeline_of(&run(rows.to_vec()), (4096, 8, 1));
        let memtable = &timeline.lanes[0].memtable;
        let levels: Vec<_> = memtable.points.bytes().map(number).collect();
        assert_eq!((memtable.max, levels), (63, vec![10, 10, 63, 0, 0, 21, 21, 21]));
    }

    #[test]
    fn an_arm_takes_the_finest_step_that_fits_and_a_page_as_many_arms_as_find_room() {
        let input = mock::input(1, 10);
        let all = timelines(&input.events, ["", ""], 40_000);
        assert_eq!(all.len(), 18);
        assert!(serde_json::to_string(&all).unwrap().len() <= 40_020);
        let alone = timelines(&input.events[..1], ["", ""], usize::MAX);
        assert!(alone[0].columns > all[0].columns && alone[0].lanes.len() == 8);
        let mut many = input.events.clone();
        for n in 0..80 {
            let mut run = input.events[0].clone();
            run.head.arm = format!("arm {n}");
            many.push(run);
        }
        assert!(timelines(&many, ["", ""], 1000).is_empty());
        let some = timelines(&many, ["arm 79", &input.events[3].head.arm], 40_000);
        assert!((10..=25).contains(&some.len()), "{}", some.len());
        assert_eq!((&*some[0].arm, &*some[1].arm), (&*input.events[3].head.arm, "arm 79"));
    }

    #[test]
    fn numbers_from_outside_are_cut_to_the_picture() {
        let most = u64::MAX;
        let mut rows = vec![EventRow { took_ns: 1, flush_ns: most, ..EventRow::default() }];
        for kind in [EventKind::Memtable, EventKind::Flush, EventKind::Stall, EventKind::Fault] {
            rows.push(row(kind, most, most, most));
            rows.push(row(kind, 0, most, 0));
        }
        for end_ns in [1, 4096, most] {
            let mut run = run(rows.clone());
            (run.head.end_ns, run.head.owner_count) = (end_ns, most);
            let timeline = timeline_of(&run, (64, 8, 4));
            let lane = &timeline.lanes[0];
            assert_eq!(lane.memtable.points.len(), 8);
            let spans = lane.rows.iter().flat_map(unpack);
            assert!(spans.clone().count() >= 1 && spans.clone().all(|(_, end)| end <= 64));
            assert!(timeline.marks.iter().all(|mark| mark.at < 64));
        }
    }

    #[test]
    fn causes_faults_and_what_is_left_out_are_told() {
        let mut wait = row(EventKind::Stall, 64, 64, 0);
        wait.cause = "wal".to_owned();
        let mut fault = row(EventKind::Fault, 2048, 0, 0);
        (fault.owner, fault.note) = ("db".to_owned(), "x".repeat(100));
        let mut run = run(vec![wait, fault]);
        (run.head.owner_count, run.head.cut_ns) = (9000, Some(1_000_000));
        let timeline = timeline_of(&run, (64, 8, 4));
        assert_eq!(timeline.lanes[0].rows[0].kind, "wal");
        assert_eq!(unpack(&timeline.lanes[0].rows[0]), [(1, 2)]);
        let mark = &timeline.marks[0];
        assert_eq!((mark.at, mark.lane, mark.note.len()), (32, None, NAME_MAX + 3));
        assert!(timeline.note.contains("1 busiest of 9,000"), "{}", timeline.note);
        assert!(timeline.note.contains("after 1.00ms"), "{}", timeline.note);
    }
}
