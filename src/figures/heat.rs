//! A metric for each pair of values of two settings: the stronger the colour, the higher the
//! number; the best and all that equal it are framed.

use super::axis::LOG_RATIO;
use super::data::{label, name, note, spread, value, values};
use super::lines::to_width;
use super::svg::{Anchor, Canvas, LETTER, WIDTH, short};
use crate::experiment::figure::Figure;
use crate::record::RunRow;
use crate::stats::Direction;

const TOP: f64 = 64.0;
const ROW: f64 = 30.0;
const LABEL_LETTERS: usize = 28;

/// How strong the colour is, from 0 for the least to 1 for the most: by ratios where they are far
/// apart.
fn strength(number: f64, least: f64, most: f64) -> f64 {
    if most <= least {
        0.0
    } else if least > 0.0 && most / least > LOG_RATIO {
        libm::log10(number / least) / libm::log10(most / least)
    } else {
        (number - least) / (most - least)
    }
}

pub(super) fn draw(figure: &Figure, rows: &[RunRow]) -> Option<String> {
    let (xs, downs) = (values(rows, &figure.x), values(rows, &figure.by));
    let is = |row: &RunRow, key: &str, wanted: &str| value(row, key).is_some_and(|v| v == wanted);
    let mut cells = Vec::new();
    for (down, by) in downs.iter().enumerate() {
        for (across, x) in xs.iter().enumerate() {
            let here = |row: &RunRow| is(row, &figure.x, x) && is(row, &figure.by, by);
            cells.extend(spread(rows, figure.metric, here).map(|s| (across, down, s.middle)));
        }
    }
    let least = cells.iter().map(|cell| cell.2).min_by(f64::total_cmp)?;
    let most = cells.iter().map(|cell| cell.2).max_by(f64::total_cmp)?;
    let best = match figure.metric.direction {
        Direction::Lower => least,
        Direction::Higher => most,
    };
    let shown = |by: &String| short(&name(&figure.by, by), LABEL_LETTERS);
    let letters = downs.iter().map(|by| shown(by).chars().count()).max()?;
    let left = 28.0 + to_width(letters) * LETTER;
    let size = (((WIDTH - 16.0 - left) / to_width(xs.len())).min(140.0), ROW);
    let bottom = TOP + to_width(downs.len()) * ROW;
    let mut canvas = Canvas::new(&figure.heading(), bottom + 32.0);
    for (at, x) in xs.iter().enumerate() {
        let middle = left + (to_width(at) + 0.5) * size.0;
        let text = short(&label(&figure.x, x), 16);
        canvas.text(("n", Anchor::Middle), (middle, TOP - 8.0), &text);
    }
    for (at, by) in downs.iter().enumerate() {
        let middle = TOP + (to_width(at) + 0.5) * ROW;
        canvas.text(("t", Anchor::End), (left - 8.0, middle + 4.0), &shown(by));
    }
    for (across, down, number) in cells {
        let at = (left + to_width(across) * size.0, TOP + to_width(down) * ROW);
        let share = strength(number, least, most);
        canvas.cell("heat", at, size, 0.06 + 0.84 * share);
        // Equal bits: medians of the same numbers, not sums that should agree.
        if number.total_cmp(&best).is_eq() {
            canvas.cell("best", (at.0 + 1.0, at.1 + 1.0), (size.0 - 2.0, size.1 - 2.0), 0.0);
        }
        let class = if share > 0.5 { "w" } else { "t" };
        let middle = (at.0 + size.0 / 2.0, at.1 + ROW / 2.0 + 4.0);
        canvas.text((class, Anchor::Middle), middle, &figure.metric.show(number));
    }
    let what = note(rows, "medians over them and all other settings");
    let text = format!("{what}; across {}; framed: best", figure.x);
    canvas.text(("n", Anchor::Start), (16.0, bottom + 22.0), &text);
    Some(canvas.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_from_least_to_most() {
        assert!((strength(15.0, 10.0, 20.0) - 0.5).abs() < 1e-12);
        assert!((strength(100.0, 10.0, 1000.0) - 0.5).abs() < 1e-12);
        assert!(strength(7.0, 7.0, 7.0).abs() < 1e-12);
        assert!((strength(90.0, 0.0, 900.0) - 0.1).abs() < 1e-12);
    }
}
