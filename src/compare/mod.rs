//! Rows against rows: which belong together, and what each metric says of them.
//!
//! A pair is one arm on one seed, so that what the seed draws is taken out of the difference. What
//! a run is asked and the machine it is asked on must be the same on both sides; the engine's
//! options may differ, since that is what is compared.

mod gate;
mod show;

use std::collections::BTreeSet;

pub use gate::Gate;
pub use show::{CSV_HEADER, change_text, csv_line, json_line, notes, table};

use crate::config::OWN_KEYS;
use crate::metric::Metric;
use crate::record::{Outcome, Param, RunRow, World};
use crate::stats::paired::MARGIN;
use crate::stats::{Paired, compare as compare_pairs};

/// Why two sets of rows cannot be compared, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incomparable(pub String);

/// What is compared, and what is a regression.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The metrics, in the order of the table.
    pub metrics: Vec<&'static Metric>,
    /// The gates, each of a metric of the list.
    pub gates: Vec<Gate>,
}

impl Terms {
    fn gate(&self, metric: &Metric) -> Option<&Gate> {
        self.gates.iter().find(|gate| gate.metric.name == metric.name)
    }
}

/// One metric of one arm.
#[derive(Clone, Debug)]
pub struct Line {
    /// The arm; where two arms of other names are paired, both.
    pub arm: String,
    /// The arm that it is compared with.
    pub base_arm: String,
    /// The metric.
    pub metric: &'static Metric,
    /// What pairs of it say.
    pub paired: Paired,
    /// Whether it is a regression beyond the metric's gate; `None` without one.
    pub beyond_gate: Option<bool>,
}

/// What came of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// By arm in the order of the base, then by metric.
    pub lines: Vec<Line>,
    /// What a reader must know beside the numbers.
    pub notes: Vec<String>,
    /// Runs that passed in the base and not in the new rows: `ARM seed N`.
    pub broken: Vec<String>,
}

impl Comparison {
    /// The lines beyond their gates.
    pub fn regressions(&self) -> usize {
        self.lines.iter().filter(|line| line.beyond_gate == Some(true)).count()
    }
}

/// Compares the rows of two builds or two settings.
///
/// # Errors
///
/// [`Incomparable`] where experiments, worlds or generators differ, where an arm was asked
/// something else, or where no arm and seed is on both sides.
pub fn builds(base: &[RunRow], new: &[RunRow], terms: &Terms) -> Result<Comparison, Incomparable> {
    same("experiment", base, new, |row| row.experiment.clone())?;
    same("world", base, new, |row| row.world.name().to_owned())?;
    same("generator", base, new, |row| row.rng.clone())?;
    let mut comparison = Comparison::default();
    let arms = paired_arms(base, new, &mut comparison.notes);
    let all = arms.len();
    let mut options: Vec<(String, Vec<String>)> = Vec::new();
    for (base_arm, new_arm) in arms {
        let mut pairs = Vec::new();
        for from in base.iter().filter(|row| row.arm == base_arm) {
            let to = new.iter().find(|row| row.arm == new_arm && row.seed == from.seed);
            let Some(to) = to else { continue };
            if let Some(what) = asked_differently(from, to) {
                return Err(Incomparable(format!("arm {base_arm}: {what}: not comparable")));
            }
            match (from.outcome, to.outcome) {
                (Outcome::Pass, Outcome::Pass) => pairs.push((from, to)),
                (Outcome::Pass, _) => {
                    comparison.broken.push(format!("{new_arm} seed {}", to.seed));
                }
                _ => {}
            }
        }
        let name = if base_arm == new_arm {
            base_arm.to_owned()
        } else {
            format!("{base_arm} -> {new_arm}")
        };
        if let Some(told) = pairs.first().and_then(|(from, to)| options_differ(from, to)) {
            match options.iter_mut().find(|(other, _)| *other == told) {
                Some((_, arms)) => arms.push(name.clone()),
                None => options.push((told, vec![name.clone()])),
            }
        }
        comparison.lines.extend(lines((&name, base_arm), &pairs, terms));
    }
    comparison.notes.extend(options.into_iter().map(|(told, arms)| match arms.len() {
        many if many > 1 && many == all => format!("every arm: {told}"),
        _ => format!("{}: {told}", arms.join(", ")),
    }));
    if comparison.lines.is_empty() && comparison.broken.is_empty() {
        return Err(Incomparable(
            "no arm and seed passed on both sides: not comparable".to_owned(),
        ));
    }
    Ok(comparison)
}

/// Compares the arms of one run with one of them. Arms that were asked something else are compared
/// with the arm that has the baseline's options and was asked what they were; where there is none,
/// they are left out.
pub fn arms(rows: &[RunRow], baseline: &str, terms: &Terms) -> Vec<Line> {
    let mut by_arm: Vec<(&str, Vec<&RunRow>)> = Vec::new();
    for row in rows.iter().filter(|row| row.outcome == Outcome::Pass) {
        match by_arm.iter_mut().find(|(arm, _)| *arm == row.arm) {
            Some((_, runs)) => runs.push(row),
            None => by_arm.push((&row.arm, vec![row])),
        }
    }
    let own = by_arm.iter().find(|(arm, _)| *arm == baseline);
    let Some(like) = own.and_then(|(_, runs)| runs.first()) else { return Vec::new() };
    let is_base = |(arm, runs): &&(&str, Vec<&RunRow>)| {
        *arm == baseline || runs.first().is_some_and(|run| has_options_of(like, run))
    };
    let bases: Vec<&(&str, Vec<&RunRow>)> = by_arm.iter().filter(is_base).collect();
    let mut found = Vec::new();
    for (arm, runs) in &by_arm {
        let Some(run) = runs.first() else { continue };
        // The baseline itself stands first where it can be compared with.
        let alike = |base: &&&(&str, Vec<&RunRow>)| {
            base.1.first().is_some_and(|from| asked_differently(from, run).is_none())
        };
        let own = bases.iter().find(|base| base.0 == baseline).filter(alike);
        let Some((base_arm, base)) = own.or_else(|| bases.iter().find(alike)) else { continue };
        if base_arm == arm {
            continue;
        }
        let mut pairs: Vec<(&RunRow, &RunRow)> = Vec::new();
        for to in runs {
            let from = base.iter().find(|from| from.seed == to.seed);
            pairs.extend(from.map(|from| (*from, *to)));
        }
        found.extend(lines((arm, base_arm), &pairs, terms));
    }
    found
}

fn lines((arm, base_arm): (&str, &str), pairs: &[(&RunRow, &RunRow)], terms: &Terms) -> Vec<Line> {
    let of_metric = |metric: &&'static Metric| {
        let gate = terms.gate(metric);
        let numbers: Vec<(u64, u64)> =
            pairs.iter().map(|(from, to)| (metric.of(from), metric.of(to))).collect();
        let margin = gate.map_or(MARGIN, |gate| gate.share.min(MARGIN));
        let paired = compare_pairs(&numbers, metric.direction, margin)?;
        let beyond_gate = gate.map(|gate| gate.is_beyond(&paired));
        let (arm, base_arm) = (arm.to_owned(), base_arm.to_owned());
        Some(Line { arm, base_arm, metric, paired, beyond_gate })
    };
    terms.metrics.iter().filter_map(of_metric).collect()
}

fn same(
    what: &str,
    base: &[RunRow],
    new: &[RunRow],
    of: impl Fn(&RunRow) -> String,
) -> Result<(), Incomparable> {
    let values = |rows: &[RunRow]| rows.iter().map(&of).collect::<BTreeSet<String>>();
    let (base, new) = (values(base), values(new));
    if base == new {
        return Ok(());
    }
    let told = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join(", ");
    let (base, new) = (told(base), told(new));
    Err(Incomparable(format!("{what} differs: {base:?} against {new:?}: not comparable")))
}

/// Arms of one name, in the order of the base; where none has its name on the other side and each
/// has one arm, these two.
fn paired_arms<'a>(
    base: &'a [RunRow],
    new: &'a [RunRow],
    notes: &mut Vec<String>,
) -> Vec<(&'a str, &'a str)> {
    fn names(rows: &[RunRow]) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in rows {
            if !names.contains(&row.arm.as_str()) {
                names.push(&row.arm);
            }
        }
        names
    }
    let (in_base, in_new) = (names(base), names(new));
    if let ([from], [to]) = (in_base.as_slice(), in_new.as_slice()) {
        return vec![(from, to)];
    }
    let only = |here: &[&'a str], there: &[&'a str], side: &str| {
        let only: Vec<&str> = here.iter().copied().filter(|arm| !there.contains(arm)).collect();
        (!only.is_empty()).then(|| format!("only in {side}: {}", only.join(", ")))
    };
    notes.extend(only(&in_base, &in_new, "the base"));
    notes.extend(only(&in_new, &in_base, "the new rows"));
    in_base.into_iter().filter(|arm| in_new.contains(arm)).map(|arm| (arm, arm)).collect()
}

/// The first key of workload, device, stop rule or measuring in which two runs differ. A key that
/// one build does not know has no say, but parameters of workloads and devices are there if given.
fn asked_differently(base: &RunRow, new: &RunRow) -> Option<String> {
    differing(base, new).find_map(|(key, from, to)| {
        let known = is_given(key) || from.is_some() && to.is_some();
        let told = || format!("{key} is {} against {}", shown(from), shown(to));
        (is_asked(key) && known).then(told)
    })
}

/// Whether a key is there only if somebody set it.
fn is_given(key: &str) -> bool {
    let of_own = ["two_phase_percent", "workload_file", "sync_writes"].contains(&key);
    key.starts_with("workload.") || key.starts_with("device.") || of_own
}

/// Whether a key is of workload, device, stop rule or measuring.
fn is_asked(key: &str) -> bool {
    is_given(key) || OWN_KEYS.iter().any(|own| own.name == key)
}

/// Whether two runs differ in nothing but what was asked.
fn has_options_of(base: &RunRow, other: &RunRow) -> bool {
    differing(base, other).all(|(key, _, _)| is_asked(key))
}

/// The engine's options in which two runs differ, in one line.
fn options_differ(base: &RunRow, new: &RunRow) -> Option<String> {
    let both = |(key, from, to): (&str, Option<&Param>, Option<&Param>)| {
        Some(format!("{key} {} -> {}", shown(Some(from?)), shown(Some(to?))))
    };
    let told: Vec<String> = differing(base, new).filter_map(both).collect();
    (!told.is_empty()).then(|| told.join(", "))
}

fn differing<'a>(
    base: &'a RunRow,
    new: &'a RunRow,
) -> impl Iterator<Item = (&'a str, Option<&'a Param>, Option<&'a Param>)> {
    let keys: BTreeSet<&str> = base.params.keys().chain(new.params.keys()).map(|k| &**k).collect();
    keys.into_iter()
        .map(|key| (key, base.params.get(key), new.params.get(key)))
        .filter(|(_, from, to)| from != to)
}

fn shown(param: Option<&Param>) -> String {
    param.map_or_else(|| "not set".to_owned(), Param::to_string)
}

/// Whether rows are of the virtual clock, whose numbers another run gives again.
pub fn is_exact(rows: &[RunRow]) -> bool {
    rows.iter().all(|row| row.world == World::Sim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric;
    use crate::number::Thousandths;
    use crate::report::mock;
    use crate::stats::Verdict;

    fn terms(gates: &[&str]) -> Terms {
        let gates: Vec<Gate> = gates.iter().map(|text| text.parse().unwrap()).collect();
        Terms { metrics: metric::usual(), gates }
    }

    fn slower(rows: &[RunRow], arm: usize, by: u64) -> Vec<RunRow> {
        let name = rows[arm].arm.clone();
        let mut rows = rows.to_vec();
        for row in rows.iter_mut().filter(|row| row.arm == name) {
            row.write_latency_ns.p999 += (row.write_latency_ns.p999 * by).div_euclid(100);
        }
        rows
    }

    #[test]
    fn the_same_rows_are_the_same_and_one_slower_arm_is_found() {
        let rows = mock::rows(4);
        let equal = builds(&rows, &rows, &terms(&["p999:+5%"])).unwrap();
        assert_eq!(equal.lines.len(), 18 * 5);
        assert!(equal.lines.iter().all(|line| line.paired.verdict == Verdict::Same));
        assert_eq!((equal.regressions(), equal.notes.len()), (0, 0));
        let slow = slower(&rows, 3, 34);
        let found = builds(&rows, &slow, &terms(&["p999:+5%", "throughput:-1%"])).unwrap();
        let worse: Vec<&Line> =
            found.lines.iter().filter(|line| line.paired.verdict == Verdict::Worse).collect();
        assert_eq!((worse.len(), found.regressions()), (1, 1));
        assert_eq!((worse[0].arm.as_str(), worse[0].metric.name), (&*rows[3].arm, "p999"));
        // Below the gate it is worse still, but no regression.
        assert_eq!(builds(&rows, &slow, &terms(&["p999:+40%"])).unwrap().regressions(), 0);
        assert_eq!(builds(&slow, &rows, &terms(&["p999:+5%"])).unwrap().regressions(), 0);
    }

    #[test]
    fn one_seed_never_fails_a_gate() {
        let rows = mock::rows(1);
        let found = builds(&rows, &slower(&rows, 0, 300), &terms(&["p999:+5%"])).unwrap();
        assert_eq!(found.regressions(), 0);
        assert_eq!(found.lines[1].paired.verdict, Verdict::Inconclusive);
    }

    #[test]
    fn what_was_asked_must_be_the_same_and_options_may_differ() {
        let rows = mock::rows(2);
        let refused = |change: &dyn Fn(&mut RunRow)| {
            let mut other = rows.clone();
            other.iter_mut().for_each(change);
            builds(&rows, &other, &terms(&[])).unwrap_err().0
        };
        let set = |key: &'static str, value: Param| {
            move |row: &mut RunRow| drop(row.params.insert(key.to_owned(), value.clone()))
        };
        let line = refused(&|row| row.experiment = "other".to_owned());
        assert!(line.starts_with("experiment differs: \"flush-policy\" against \"other\""));
        assert!(refused(&|row| row.world = World::Os).contains("world differs"));
        assert!(refused(&set("tenant_count", Param::Integer(7))).contains("tenant_count is 1000"));
        let line = refused(&set("workload.tenant_alpha", Param::Integer(1)));
        assert!(line.contains("workload.tenant_alpha is not set against 1"), "{line}");
        assert!(refused(&|row| row.arm.push('x')).contains("no arm and seed"));
        assert!(refused(&|row| row.seed += 10).contains("no arm and seed"));
        let mut other = rows.clone();
        set("budget_bytes", Param::Integer(1))(&mut other[0]);
        other[0].params.remove("policy_override");
        let found = builds(&rows, &other, &terms(&[])).unwrap();
        assert!(found.notes[0].ends_with("budget_bytes 67108864 -> 1"), "{:?}", found.notes);
    }

    #[test]
    fn one_arm_each_side_is_a_pair_and_lost_arms_are_told() {
        let rows = mock::rows(2);
        let of = |at: usize| -> Vec<RunRow> {
            rows.iter().filter(|row| row.arm == rows[at].arm).cloned().collect()
        };
        let found = builds(&of(0), &of(2), &terms(&[])).unwrap();
        assert_eq!(found.lines[0].arm, format!("{} -> {}", rows[0].arm, rows[2].arm));
        let found = builds(&rows, &[of(0), of(2)].concat(), &terms(&[])).unwrap();
        assert!(found.notes[0].starts_with("only in the base: "), "{:?}", found.notes);
        let mut failed = rows.clone();
        failed[0].outcome = Outcome::Fail;
        let found = builds(&rows, &failed, &terms(&[])).unwrap();
        assert_eq!(found.broken, [format!("{} seed 0", rows[0].arm)]);
        assert_eq!(found.lines[0].paired.pairs, 1);
    }

    #[test]
    fn arms_of_a_run_are_held_against_one_of_them() {
        let mut rows = mock::rows(3);
        let baseline = rows[0].arm.clone();
        for row in &mut rows {
            row.ops_per_s = Thousandths(1_000_000 + row.seed * 500_000);
            if row.arm == baseline {
                row.ops_per_s.0 += row.ops_per_s.0 >> 1;
            }
        }
        let other = rows[53].arm.clone();
        for row in rows.iter_mut().filter(|row| row.arm == other) {
            row.params.insert("tenant_count".to_owned(), Param::Integer(1));
        }
        let lines = arms(&rows, &baseline, &terms(&[]));
        assert_eq!(lines.len(), 16 * 5, "neither the baseline nor the arm of other tenants");
        assert_eq!(lines[0].paired.verdict, Verdict::Worse);
        assert!((lines[0].paired.change.estimate + 1.0 / 3.0).abs() < 1e-6);
        // With the baseline's options there is something to compare the other tenants with.
        let mut twin: Vec<RunRow> =
            rows.iter().filter(|row| row.arm == baseline).cloned().collect();
        for row in &mut twin {
            row.arm = "twin".to_owned();
            row.params.insert("tenant_count".to_owned(), Param::Integer(1));
        }
        rows.extend(twin);
        let lines = arms(&rows, &baseline, &terms(&[]));
        assert_eq!(lines.len(), 17 * 5);
        let base = |arm: &str| &lines.iter().find(|line| line.arm == arm).unwrap().base_arm;
        assert_eq!((base(&other).as_str(), base(&rows[3].arm)), ("twin", &baseline));
    }
}
