//! The third table: what forks beside the load took, and what they left on the disk.

use crate::beside_row::ForkRow;
use crate::number::{bytes, count, digits, duration, thousands};
use crate::record::{Outcome, RunRow};
use crate::report::summary::median;
use crate::report::table::clean;

/// Its columns; numbers are medians over seeds.
pub(super) const HEADER: [&str; 9] = [
    "arm",
    "forks\nasked",
    "done",
    "done\nper s",
    "fork\np50",
    "fork\np99",
    "fork\nmax",
    "copied",
    "space\nampl.",
];

/// A row for each arm that forked, in the order of the runs.
pub(super) fn cells(rows: &[RunRow]) -> Vec<Vec<String>> {
    let mut arms: Vec<(&str, Vec<&ForkRow>)> = Vec::new();
    for row in rows.iter().filter(|row| row.outcome == Outcome::Pass) {
        let Some(forks) = &row.forks else { continue };
        match arms.iter_mut().find(|(arm, _)| *arm == row.arm) {
            Some((_, of_arm)) => of_arm.push(forks),
            None => arms.push((&row.arm, vec![forks])),
        }
    }
    arms.iter().map(|(arm, forks)| of_arm(arm, forks)).collect()
}

fn of_arm(arm: &str, forks: &[&ForkRow]) -> Vec<String> {
    let of = |number: &dyn Fn(&ForkRow) -> u64| median(forks.iter().map(|f| number(f)).collect());
    let thousandth = |number| crate::number::Thousandths(number).to_f64();
    vec![
        clean(arm),
        thousands(of(&|f| f.asked)),
        thousands(of(&|f| f.done)),
        count(thousandth(of(&|f| f.per_s.0))),
        duration(of(&|f| f.latency_ns.p50)),
        duration(of(&|f| f.latency_ns.p99)),
        duration(of(&|f| f.latency_ns.max)),
        bytes(of(&|f| f.copied_bytes)),
        digits(thousandth(of(&|f| f.space_amplification.0))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::Thousandths;

    #[test]
    fn only_arms_that_forked_and_runs_that_passed_have_a_row() {
        let run = |arm: &str, outcome, done| RunRow {
            arm: arm.to_owned(),
            outcome,
            forks: (done > 0).then(|| ForkRow {
                asked: 1_000,
                done,
                per_s: Thousandths(done * 1_000),
                ..ForkRow::default()
            }),
            ..RunRow::default()
        };
        let rows = [
            run("still", Outcome::Pass, 0),
            run("a", Outcome::Pass, 900),
            run("a", Outcome::Pass, 950),
            run("a", Outcome::Fail, 1),
            run("a", Outcome::Pass, 990),
        ];
        let cells = cells(&rows);
        assert_eq!(cells.len(), 1, "{cells:?}");
        assert_eq!(cells[0].len(), HEADER.len());
        assert_eq!(cells[0][..4], ["a", "1,000", "950", "950"]);
    }
}
