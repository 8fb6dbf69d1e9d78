//! What the headline leaves out: classes of tenants by arm, and every column of every run.
//!
//! Columns are read from the row as it is written to `runs.jsonl`, so one that is added to rows
//! shows up in the page without a change here. A page stays below a size whatever the number of
//! runs: [`fitting`] shows fewer tenants first and fewer runs then, and says so.

use core::fmt;
use std::collections::BTreeMap;

use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::number::{duration, seconds, thousands};
use crate::record::{ClassRow, Outcome, RunRow, TenantRow};
use crate::report::summary::{ArmSummary, median};
use crate::report::table::GROWS;

const TEMPLATE: &str = include_str!("../../assets/report/columns.html");

/// What is shown, best first: tenants of a run, and of which runs.
const CHOICES: [(usize, Which); 12] = [
    (20, Which::All),
    (10, Which::All),
    (5, Which::All),
    (2, Which::All),
    (20, Which::Firsts(0)),
    (10, Which::Firsts(0)),
    (2, Which::Firsts(0)),
    (0, Which::Firsts(0)),
    (5, Which::Firsts(1)),
    (5, Which::Firsts(2)),
    (5, Which::Firsts(3)),
    (5, Which::Firsts(6)),
];

/// Runs that are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Every run.
    All,
    /// The first run of each arm, of the arms halved so many times.
    Firsts(u32),
}

/// A class of tenants in an arm, over the seeds that passed: stalls are means, the rest medians.
#[derive(Serialize)]
pub(super) struct Class<'a> {
    arm: &'a str,
    name: &'a str,
    tenants: String,
    ops: String,
    stall_s: String,
    stall_caused_s: String,
    p99: String,
}

/// Every class of every arm, in the order of arms and of their rows.
pub(super) fn classes<'a>(rows: &'a [RunRow], arms: &'a [ArmSummary]) -> Vec<Class<'a>> {
    let mut found: BTreeMap<&str, Vec<&ClassRow>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.outcome == Outcome::Pass) {
        found.entry(&row.arm).or_default().extend(&row.classes);
    }
    let mut classes = Vec::new();
    for arm in arms {
        let of_arm = found.get(arm.arm.as_str()).map_or(&[][..], Vec::as_slice);
        let mut names: Vec<&str> = Vec::new();
        for class in of_arm {
            if !names.contains(&class.class.as_str()) {
                names.push(&class.class);
            }
        }
        for name in names {
            let of = |number: fn(&ClassRow) -> u64| -> Vec<u64> {
                of_arm.iter().filter(|row| row.class == name).map(|row| number(row)).collect()
            };
            classes.push(Class {
                arm: &arm.arm,
                name,
                tenants: thousands(median(of(|class| class.tenants))),
                ops: thousands(median(of(|class| class.ops))),
                stall_s: seconds(mean(&of(|class| class.stall_ns))),
                stall_caused_s: seconds(mean(&of(|class| class.stall_caused_ns))),
                p99: if arm.saturated {
                    GROWS.to_owned()
                } else {
                    duration(median(of(|class| class.p99_ns)))
                },
            });
        }
    }
    classes
}

fn mean(values: &[u64]) -> u64 {
    let sum = values.iter().fold(0_u64, |sum, value| sum.saturating_add(*value));
    sum.checked_div(u64::try_from(values.len()).unwrap_or(0)).unwrap_or(0)
}

/// The section of all columns, of at most so many bytes if any choice fits, else the smallest.
///
/// # Errors
///
/// The template and this file disagree.
pub(super) fn fitting(
    environment: &Environment<'_>,
    rows: &[RunRow],
    bytes_max: usize,
) -> Result<String, Box<dyn core::error::Error>> {
    let mut known: Vec<&str> = Vec::new();
    let mut runs = Vec::new();
    for row in rows {
        let first = !known.contains(&row.arm.as_str());
        if first {
            known.push(&row.arm);
        }
        runs.push(Run { first, ..Run::new(row)? });
    }
    let mut text = String::new();
    for (tenants_max, which) in CHOICES {
        let (whole, runs_max) = match which {
            Which::All => (true, runs.len()),
            Which::Firsts(halved) => (false, (known.len() >> halved).max(1)),
        };
        let shown = runs.iter().filter(|run| whole || run.first);
        let shown: Vec<&Run<'_>> = shown.take(runs_max).collect();
        let section = Section::new(&shown, (runs.len(), known.len()), tenants_max);
        text = environment.render_named_str("columns.html", TEMPLATE, Serde(&section))?;
        if text.len() <= bytes_max {
            break;
        }
    }
    Ok(text)
}

/// Path of a column and its value as text.
type Columns = Vec<(String, String)>;

/// A run with its columns and its tenants, the most stalled first.
struct Run<'a> {
    row: &'a RunRow,
    first: bool,
    columns: Columns,
    tenants: Vec<Columns>,
}

impl<'a> Run<'a> {
    fn new(row: &'a RunRow) -> serde_json::Result<Self> {
        let mut tenants: Vec<&TenantRow> = row.tenants.iter().collect();
        tenants.sort_by(|a, b| {
            (b.stall_ns, b.stall_caused_ns, b.ops)
                .cmp(&(a.stall_ns, a.stall_caused_ns, a.ops))
                .then_with(|| a.name.cmp(&b.name))
        });
        let most = CHOICES.iter().map(|(tenants, _)| *tenants).max().unwrap_or(0);
        let shown = tenants.into_iter().take(most);
        let tenants: serde_json::Result<Vec<_>> = shown.map(flat).collect();
        Ok(Self { row, first: true, columns: flat(row)?, tenants: tenants? })
    }
}

#[derive(Serialize)]
struct Section<'a> {
    runs: Vec<Shown<'a>>,
    run_count: usize,
    arm_count: usize,
    lines: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    arm: &'a str,
    seed: u64,
    run_id: &'a str,
    outcome: &'static str,
    tenant_count: String,
    /// Names of the columns of tenants.
    head: Vec<&'a str>,
    tenants: Vec<Vec<String>>,
}

/// A column over all shown runs: one value where all agree, as settings mostly do.
#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    values: Vec<&'a str>,
}

impl<'a> Section<'a> {
    fn new(
        runs: &[&'a Run<'a>],
        (run_count, arm_count): (usize, usize),
        tenants_max: usize,
    ) -> Self {
        let shown = |run: &&'a Run<'a>| {
            let tenants = run.tenants.get(..tenants_max).unwrap_or(&run.tenants);
            let head = tenants.first().into_iter().flatten();
            Shown {
                arm: &run.row.arm,
                seed: run.row.seed,
                run_id: &run.row.run_id,
                outcome: run.row.outcome.name(),
                tenant_count: thousands(u64::try_from(run.row.tenants.len()).unwrap_or(u64::MAX)),
                head: head.map(|(name, _)| name.as_str()).collect(),
                tenants: tenants.iter().map(|tenant| tenant.iter().map(cell).collect()).collect(),
            }
        };
        Self { runs: runs.iter().map(shown).collect(), run_count, arm_count, lines: lines(runs) }
    }
}

/// Times as people read them; the rest as it is.
fn cell((name, value): &(String, String)) -> String {
    let time = value.parse().ok().filter(|_| name.ends_with("_ns"));
    time.map_or_else(|| value.clone(), duration)
}

/// The columns of all runs together, in the order of the rows; `-` where a run has none.
fn lines<'a>(runs: &[&'a Run<'a>]) -> Vec<Line<'a>> {
    let mut heads: BTreeMap<&str, usize> = BTreeMap::new();
    let mut order: Vec<(usize, &str)> = Vec::new();
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (n, run) in runs.iter().enumerate() {
        for (path, value) in &run.columns {
            let head = path.split(['.', '[']).next().unwrap_or(path);
            let next = heads.len();
            let place = *heads.entry(head).or_insert(next);
            let line = values.entry(path).or_insert_with(|| {
                order.push((place, path));
                Vec::new()
            });
            line.resize(n, "-");
            line.push(value);
        }
    }
    // Settings and classes that only later runs have go to their like.
    order.sort_by_key(|(place, _)| *place);
    let line = |(_, path): (usize, &'a str)| {
        let mut values = values.remove(path).unwrap_or_default();
        values.resize(runs.len(), "-");
        if values.iter().all(|value| Some(value) == values.first()) {
            values.truncate(1);
        }
        Line { path, values }
    };
    order.into_iter().map(line).collect()
}

/// What is written as JSON, as columns in the order of the fields; of tenants only the name.
fn flat(value: &impl Serialize) -> serde_json::Result<Columns> {
    let text = serde_json::to_string(value)?;
    let mut columns = Columns::new();
    let flat = Flat { path: String::new(), columns: &mut columns };
    flat.deserialize(&mut serde_json::Deserializer::from_str(&text))?;
    Ok(columns)
}

struct Flat<'a> {
    path: String,
    columns: &'a mut Columns,
}

impl Flat<'_> {
    fn push(self, value: impl Into<String>) {
        self.columns.push((self.path, value.into()));
    }
}

impl<'de> DeserializeSeed<'de> for Flat<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flat<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let top = self.path.is_empty();
            let path = if top { name } else { format!("{}.{name}", self.path) };
            if top && path == "tenants" {
                map.next_value::<IgnoredAny>()?;
                self.columns.push((path, "in the run's own table".to_owned()));
            } else {
                map.next_value_seed(Flat { path, columns: &mut *self.columns })?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let mut n = 0_u64;
        loop {
            let path = format!("{}[{n}]", self.path);
            if values.next_element_seed(Flat { path, columns: &mut *self.columns })?.is_none() {
                break;
            }
            n = n.saturating_add(1);
        }
        if n == 0 {
            self.push("[]");
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.push("null");
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.push(value.to_string());
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.push(value.to_string());
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.push(value.to_string());
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.push(value.to_string());
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.push(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use minijinja::AutoEscape;
    use serde_json::Value;

    use super::*;
    use crate::report::{html, mock};

    fn names(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    into.push(name.clone());
                    names(value, into);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| names(value, into)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn section(rows: &[RunRow], bytes_max: usize) -> String {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        fitting(&environment, rows, bytes_max).unwrap()
    }

    #[test]
    fn every_name_in_a_row_is_in_the_page() {
        let input = mock::input(1, 10);
        let page = html::render(&input).unwrap().replace("&#x2f;", "/").replace("&#x27;", "'");
        let start = page.find("id=\"columns\"").expect("the table of columns");
        let (before, columns) = page.split_at(start);
        let row = serde_json::to_value(&input.rows[0]).unwrap();
        let mut found = Vec::new();
        names(&row, &mut found);
        assert!(found.len() > 60, "{found:?}");
        for name in found {
            let in_columns = columns.contains(&format!("<tr><th>{name}<td"))
                || columns.contains(&format!("<tr><th>{name}."))
                || columns.contains(&format!(".{name}<td"))
                || columns.contains(&format!("<tr><th>{name}[0]"));
            assert!(in_columns || before.contains(&format!("<th>{name}<")), "{name}");
        }
        for (path, value) in flat(&input.rows[0]).unwrap() {
            assert!(columns.contains(&format!("<tr><th>{path}<td")), "{path}");
            assert!(page.contains(&format!(">{value}")), "{path} {value}");
        }
    }

    #[test]
    fn columns_keep_the_order_of_rows_and_their_exact_values() {
        let mut rows = mock::rows(1);
        rows[1].params.insert("late".to_owned(), crate::record::Param::Integer(77));
        let runs: Vec<_> = rows.iter().map(|row| Run::new(row).unwrap()).collect();
        let lines = lines(&runs.iter().collect::<Vec<_>>());
        let place = |path: &str| lines.iter().position(|line| line.path == path).unwrap();
        assert_eq!(place("schema"), 0);
        assert!(place("params.late") < place("ops") && place("ops") < place("stall_ns.l0"));
        let late = &lines[place("params.late")].values;
        assert_eq!((late[0], late[1], late[2], late.len()), ("-", "77", "-", rows.len()));
        assert_eq!(lines[place("schema")].values, ["forebay.run/1"]);
        assert_eq!(lines[place("params.flush.alpha")].values, ["1.25"]);
        assert_eq!(lines[place("rule")].values, ["null"]);
    }

    #[test]
    fn fewer_tenants_and_then_fewer_runs_where_the_page_is_full() {
        let mut rows = mock::rows(2);
        for row in &mut rows {
            row.tenants = (0..1000)
                .map(|n| TenantRow {
                    name: format!("t{n:04}"),
                    stall_ns: n,
                    ..row.tenants[0].clone()
                })
                .collect();
        }
        let whole = section(&rows, 1 << 20);
        assert!(whole.contains("20 of 1,000") && whole.contains("36 of 36"), "{whole:.500}");
        assert!(whole.contains("<td>t0999") && !whole.contains("<td>t0979"));
        let less = section(&rows, whole.len() - 1);
        assert!(less.contains("10 of 1,000") && less.contains("36 of 36"));
        let least = section(&rows, 0);
        assert!(least.contains("runs.jsonl of 1 of 36 runs") && least.contains("5 of 1,000"));
    }

    #[test]
    fn classes_are_taken_over_the_seeds_that_passed() {
        let mut rows = mock::rows(3);
        for (row, stall) in rows.iter_mut().zip([1, 3, 1000]) {
            row.classes[0].stall_ns = stall * 1_000_000_000;
        }
        rows[2].outcome = Outcome::Fail;
        let arms = crate::report::summary::summaries(&rows);
        let classes = classes(&rows, &arms);
        assert_eq!(classes.len(), 18);
        assert_eq!(
            (classes[0].name, classes[0].stall_s.as_str()),
            ("hot", seconds(2_000_000_000).as_str())
        );
    }
}
