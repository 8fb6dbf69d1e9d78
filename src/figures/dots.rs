//! A metric by arm: a dot at the median, a line from the lowest to the highest seed.

use super::axis::Axis;
use super::data::{arms, note, spread};
use super::svg::{Anchor, Canvas, LETTER, WIDTH, short};
use crate::experiment::figure::Figure;
use crate::record::RunRow;

const ROW: f64 = 22.0;
const LABEL_LETTERS: usize = 44;
const TOP: f64 = 44.0;
/// Room for the number behind the highest dot.
const RIGHT: f64 = 84.0;

pub(super) fn draw(figure: &Figure, rows: &[RunRow]) -> Option<String> {
    let arms = arms(rows);
    let mut found = Vec::new();
    for arm in &arms {
        found.push((*arm, spread(rows, figure.metric, |row| row.arm == *arm)?));
    }
    let letters = arms.iter().map(|arm| arm.chars().count().min(LABEL_LETTERS)).max()?;
    let left = 24.0 + super::lines::to_width(letters) * LETTER;
    let bottom = TOP + found.iter().fold(0.0, |sum, _| sum + ROW);
    let ends: Vec<f64> = found.iter().flat_map(|(_, s)| [s.low, s.high]).collect();
    let axis = Axis::new(&ends, (left + 8.0, WIDTH - RIGHT));
    let mut canvas = Canvas::new(&figure.heading(), bottom + 48.0);
    for tick in axis.ticks() {
        let x = axis.at(tick);
        canvas.line("g", (x, TOP), (x, bottom));
        canvas.text(("n", Anchor::Middle), (x, bottom + 16.0), &figure.metric.show(tick));
    }
    let mut y = TOP + ROW / 2.0;
    for (arm, spread) in found {
        canvas.text(("t", Anchor::End), (left, y + 4.0), &short(arm, LABEL_LETTERS));
        let ends = (axis.at(spread.low), axis.at(spread.high));
        canvas.line("r s0", (ends.0, y), (ends.1, y));
        let shown = figure.metric.show(spread.middle);
        canvas.dot("f0", (axis.at(spread.middle), y), &format!("{arm}: {shown}"));
        canvas.text(("n", Anchor::Start), (ends.1 + 8.0, y + 4.0), &shown);
        y += ROW;
    }
    let log = if axis.is_log() { "; logarithmic" } else { "" };
    let what = note(rows, "dot = median, line = lowest to highest seed");
    canvas.text(("n", Anchor::Start), (16.0, bottom + 38.0), &format!("{what}{log}"));
    Some(canvas.finish())
}
