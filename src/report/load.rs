//! Sentences on what arms were offered and what they served.

use crate::number::{Thousandths, count};
use crate::record::{Outcome, RunRow};
use crate::report::summary::median;
use crate::report::table::clean;

/// Rows that passed, by arm in the order of rows.
fn by_arm(rows: &[RunRow]) -> Vec<(&str, Vec<&RunRow>)> {
    let mut arms: Vec<(&str, Vec<&RunRow>)> = Vec::new();
    for row in rows.iter().filter(|row| row.outcome == Outcome::Pass) {
        match arms.iter_mut().find(|(arm, _)| *arm == row.arm) {
            Some((_, runs)) => runs.push(row),
            None => arms.push((&row.arm, vec![row])),
        }
    }
    arms
}

fn rate(runs: &[&RunRow], of: impl Fn(&RunRow) -> Thousandths) -> String {
    let median = median(runs.iter().map(|row| of(row).0).collect());
    format!("{}/s", count(Thousandths(median).to_f64()))
}

/// What two phases found, for each arm that had two.
pub(super) fn maxima(rows: &[RunRow]) -> Vec<String> {
    let mut told = Vec::new();
    for (arm, mut runs) in by_arm(rows) {
        runs.retain(|row| row.max_ops_per_s.is_some());
        if !runs.is_empty() {
            let most = rate(&runs, |row| row.max_ops_per_s.unwrap_or_default());
            let offered = rate(&runs, |row| row.offered_ops_per_s);
            told.push(format!("{} {most}, then offered {offered}", clean(arm)));
        }
    }
    let listed = listed(&told);
    let told = format!("Closed loop first, for the maximum: {listed}.");
    if listed.is_empty() { Vec::new() } else { vec![told] }
}

/// What an arm's runs were offered and served, where some served less.
fn shortfall(runs: &[&RunRow]) -> Option<String> {
    let behind: Vec<&RunRow> = runs.iter().copied().filter(|row| row.is_saturated()).collect();
    let of = match (behind.len(), runs.len()) {
        (0, _) => return None,
        (some, all) if some < all => format!(" (on {some} of {all} seeds)"),
        _ => String::new(),
    };
    let offered = rate(&behind, |row| row.offered_ops_per_s);
    let served = rate(&behind, RunRow::served_per_s);
    Some(format!("offered {offered}, served {served}{of}"))
}

/// The sentence on one arm, where it served less than it was offered.
pub(super) fn of_arm(rows: &[RunRow], arm: &str) -> Option<String> {
    let passed = rows.iter().filter(|row| row.arm == arm && row.outcome == Outcome::Pass);
    let told = shortfall(&passed.collect::<Vec<_>>())?;
    Some(format!("{told}: the queue grows without bound"))
}

/// Which arms served less than they were offered.
pub(super) fn saturated(rows: &[RunRow]) -> Vec<String> {
    let of_arm =
        |(arm, runs): (&str, Vec<&RunRow>)| Some(format!("{} {}", clean(arm), shortfall(&runs)?));
    let told: Vec<String> = by_arm(rows).into_iter().filter_map(of_arm).collect();
    let listed = listed(&told);
    if listed.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "{listed}: the queue grows without bound, and a percentile would say how long the run was."
    )]
}

/// The first of many, and how many are left.
fn listed(told: &[String]) -> String {
    const TOLD_MAX: usize = 12;
    let mut text = told.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join("; ");
    if told.len() > TOLD_MAX {
        text.push_str(&format!("; and {} arms more", told.len() - TOLD_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(arm: &str, seed: u64, ops: u64) -> RunRow {
        RunRow {
            arm: arm.to_owned(),
            seed,
            outcome: Outcome::Pass,
            ops,
            elapsed_ns: 1_000_000_000,
            offered_ops_per_s: Thousandths(117_000_000),
            ..RunRow::default()
        }
    }

    #[test]
    fn what_was_offered_and_served_is_told_for_each_arm_whose_queue_grows() {
        let rows = [row("a", 0, 109_000), row("a", 1, 109_000), row("b", 0, 117_000)];
        let told = saturated(&rows);
        let words = "a offered 117k/s, served 109k/s: the queue grows without bound";
        assert!(told[0].starts_with(words) && told.len() == 1, "{told:?}");
        let rows = [row("a", 0, 109_000), row("a", 1, 117_000)];
        assert!(saturated(&rows)[0].contains("109k/s (on 1 of 2 seeds):"));
        assert!(saturated(&rows[1..]).is_empty() && maxima(&rows).is_empty());
        let many: Vec<RunRow> = (0..15).map(|n| row(&n.to_string(), 0, 9)).collect();
        assert!(saturated(&many)[0].contains("; and 3 arms more: "), "{many:?}");
    }

    #[test]
    fn two_phases_tell_what_the_first_found() {
        let found = Some(Thousandths(123_000_000));
        let rows = [RunRow { max_ops_per_s: found, ..row("a", 0, 117_000) }];
        let told = "Closed loop first, for the maximum: a 123k/s, then offered 117k/s.";
        assert_eq!(maxima(&rows), [told]);
    }
}
