//! A metric over a setting, a line for each value of another one.

use super::axis::Axis;
use super::data::{Spread, label, name, note, spread, value, values};
use super::svg::{Anchor, Canvas, LETTER, WIDTH, class, short};
use crate::experiment::figure::Figure;
use crate::number::to_f64;
use crate::record::RunRow;

const TOP: f64 = 44.0;
const BOTTOM: f64 = 340.0;
const LEFT: f64 = 84.0;
const NAME_LETTERS: usize = 28;

/// A count as a factor of places.
pub(super) fn to_width(count: usize) -> f64 {
    to_f64(forebay_engine::types::to_u64(count))
}

/// One line: its name, and what lies over each value of the setting.
struct Curve {
    name: String,
    points: Vec<Option<Spread>>,
}

pub(super) fn draw(figure: &Figure, rows: &[RunRow]) -> Option<String> {
    let xs = values(rows, &figure.x);
    let curves = curves(figure, rows, &xs);
    let ends: Vec<f64> = curves
        .iter()
        .flat_map(|c| c.points.iter().flatten())
        .flat_map(|s| [s.low, s.high])
        .collect();
    if ends.is_empty() {
        return None;
    }
    let letters = curves.iter().map(|c| c.name.chars().count().min(NAME_LETTERS)).max()?;
    let right = WIDTH - 32.0 - to_width(letters) * LETTER;
    let axis = Axis::new(&ends, (BOTTOM, TOP));
    let legend = TOP + to_width(curves.len()) * 18.0;
    let mut canvas = Canvas::new(&figure.heading(), BOTTOM.max(legend) + 64.0);
    for tick in axis.ticks() {
        let y = axis.at(tick);
        canvas.line("g", (LEFT, y), (right, y));
        canvas.text(("n", Anchor::End), (LEFT - 8.0, y + 4.0), &figure.metric.show(tick));
    }
    // Values stand at equal distances: thresholds are mostly doubled from one to the next.
    let step = (right - LEFT) / to_width(xs.len());
    let place = |at: usize| LEFT + (to_width(at) + 0.5) * step;
    for (at, x) in xs.iter().enumerate() {
        let text = short(&label(&figure.x, x), 18);
        canvas.text(("n", Anchor::Middle), (place(at), BOTTOM + 18.0), &text);
    }
    canvas.line("a", (LEFT, BOTTOM), (right, BOTTOM));
    canvas.text(("n", Anchor::Middle), (f64::midpoint(LEFT, right), BOTTOM + 36.0), &figure.x);
    for (number, curve) in curves.iter().enumerate() {
        let (stroke, fill) = (class('s', number), class('f', number));
        let drawn: Vec<(f64, &Spread)> = curve
            .points
            .iter()
            .enumerate()
            .filter_map(|(at, point)| Some((place(at), point.as_ref()?)))
            .collect();
        let path: Vec<(f64, f64)> = drawn.iter().map(|(x, s)| (*x, axis.at(s.middle))).collect();
        canvas.path(&stroke, &path);
        for (x, spread) in drawn {
            canvas.line(&stroke, (x, axis.at(spread.low)), (x, axis.at(spread.high)));
            let shown = figure.metric.show(spread.middle);
            canvas.dot(&fill, (x, axis.at(spread.middle)), &format!("{}: {shown}", curve.name));
        }
        let y = TOP + to_width(number) * 18.0;
        canvas.line(&format!("r {stroke}"), (right + 8.0, y + 4.0), (right + 20.0, y + 4.0));
        let shown = short(&curve.name, NAME_LETTERS);
        canvas.text(("t", Anchor::Start), (right + 26.0, y + 8.0), &shown);
    }
    let log = if axis.is_log() { "; logarithmic" } else { "" };
    let what =
        note(rows, "dot = median over them and all other settings, line = lowest to highest");
    let below = BOTTOM.max(legend) + 54.0;
    canvas.text(("n", Anchor::Start), (16.0, below), &format!("{what}{log}"));
    Some(canvas.finish())
}

fn curves(figure: &Figure, rows: &[RunRow], xs: &[String]) -> Vec<Curve> {
    let is = |row: &RunRow, key: &str, wanted: &str| value(row, key).is_some_and(|v| v == wanted);
    let curve = |name: String, by: Option<&str>| Curve {
        points: xs
            .iter()
            .map(|x| {
                spread(rows, figure.metric, |row| {
                    is(row, &figure.x, x) && by.is_none_or(|by| is(row, &figure.by, by))
                })
            })
            .collect(),
        name,
    };
    if figure.by.is_empty() {
        return vec![curve(figure.metric.label.to_owned(), None)];
    }
    let named = |by: &String| curve(name(&figure.by, by), Some(by));
    values(rows, &figure.by).iter().map(named).collect()
}
