//! Two metrics of each arm against each other. Names stand in a column beside the points, each with
//! a line to its own, so that none covers another.

use super::axis::Axis;
use super::data::{arms, note, spread};
use super::lines::to_width;
use super::svg::{Anchor, Canvas, LETTER, WIDTH, class, short};
use crate::experiment::figure::Figure;
use crate::record::RunRow;

const TOP: f64 = 44.0;
const LEFT: f64 = 84.0;
const NAME_LETTERS: usize = 36;
const NAME_ROW: f64 = 15.0;

pub(super) fn draw(figure: &Figure, rows: &[RunRow]) -> Option<String> {
    let x_metric = figure.x_metric?;
    let mut points = Vec::new();
    for arm in arms(rows) {
        let x = spread(rows, x_metric, |row| row.arm == arm)?;
        let y = spread(rows, figure.metric, |row| row.arm == arm)?;
        points.push((arm, x.middle, y.middle));
    }
    let letters = points.iter().map(|(arm, ..)| arm.chars().count().min(NAME_LETTERS)).max()?;
    let names_at = WIDTH - 16.0 - to_width(letters) * LETTER;
    let right = names_at - 40.0;
    let bottom = (TOP + to_width(points.len()) * NAME_ROW).max(340.0);
    let ups: Vec<f64> = points.iter().map(|point| point.2).collect();
    let acrosses: Vec<f64> = points.iter().map(|point| point.1).collect();
    let (across, up) = (Axis::new(&acrosses, (LEFT, right)), Axis::new(&ups, (bottom, TOP)));
    let mut canvas = Canvas::new(&figure.heading(), bottom + 64.0);
    for tick in up.ticks() {
        let y = up.at(tick);
        canvas.line("g", (LEFT, y), (right, y));
        canvas.text(("n", Anchor::End), (LEFT - 8.0, y + 4.0), &figure.metric.show(tick));
    }
    for tick in across.ticks() {
        let x = across.at(tick);
        canvas.line("g", (x, TOP), (x, bottom));
        canvas.text(("n", Anchor::Middle), (x, bottom + 18.0), &x_metric.show(tick));
    }
    let below = (f64::midpoint(LEFT, right), bottom + 36.0);
    canvas.text(("n", Anchor::Middle), below, x_metric.label);
    // From the top down, each name no higher than its point wants and below the one before.
    points.sort_by(|a, b| b.2.total_cmp(&a.2).then_with(|| a.0.cmp(b.0)));
    let mut left_over = to_width(points.len());
    let mut next = TOP;
    for (number, (arm, x, y)) in points.iter().enumerate() {
        let at = (across.at(*x), up.at(*y));
        let lowest = bottom - left_over * NAME_ROW + NAME_ROW;
        let name_y = at.1.max(next).min(lowest.max(next));
        (next, left_over) = (name_y + NAME_ROW, left_over - 1.0);
        canvas.line("g", (at.0 + 5.0, at.1), (names_at - 6.0, name_y));
        let shown = format!("{arm}: {}, {}", x_metric.show(*x), figure.metric.show(*y));
        canvas.dot(&class('f', number), at, &shown);
        let name = short(arm, NAME_LETTERS);
        canvas.text(("t", Anchor::Start), (names_at, name_y + 4.0), &name);
    }
    let what = note(rows, "medians");
    let log = match (across.is_log(), up.is_log()) {
        (false, false) => "",
        (true, true) => "; both logarithmic",
        (true, false) => "; to the right logarithmic",
        (false, true) => "; upwards logarithmic",
    };
    canvas.text(("n", Anchor::Start), (16.0, bottom + 54.0), &format!("{what}{log}"));
    Some(canvas.finish())
}
