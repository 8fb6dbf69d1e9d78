//! The text of an experiment file, read with the line of every key.
//!
//! Reading checks each key and each value by itself, so that a slip is told with file, line, key
//! and what is allowed; whether values go together is the grid's business.

use std::collections::BTreeMap;

use forebay_engine::options::KEYS;
use forebay_engine::policy::PolicyKind;
use toml::de::{DeTable, DeValue};

use super::{ExperimentError, Figure, Seeds};
use crate::config::{Config, DEVICE_KEYS};
use crate::metric::{self, Metric};

type Spanned<T> = toml::Spanned<T>;
type Result<T> = core::result::Result<T, ExperimentError>;

/// A key of a file with its values: several make an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key as `-s` names it.
    pub key: String,
    /// Its values as text.
    pub values: Vec<String>,
    /// The line it stands in, counted from 1.
    pub line: usize,
}

/// In an assignment, what arms are called after; no key of a configuration.
pub(super) const NAME: &str = "name";

/// Values of several keys that change together.
pub type Assignment = BTreeMap<String, Vec<String>>;

/// What a file says, each value checked by itself.
#[derive(Clone, Debug, Default)]
pub struct ExperimentFile {
    /// What to call the file in messages.
    pub label: String,
    /// Its heading.
    pub title: String,
    /// What it asks.
    pub question: String,
    /// The arm that others are compared with, and the line.
    pub baseline: Option<(String, usize)>,
    /// What its arms are compared by; empty for the usual.
    pub metrics: Vec<&'static Metric>,
    /// The seeds.
    pub seeds: Option<Seeds>,
    /// Values that all arms share.
    pub settings: Vec<Setting>,
    /// The grid's axes, in the order of the file.
    pub axes: Vec<Setting>,
    /// Axes whose keys change together: one list of assignments each.
    pub coupled: Vec<Vec<Assignment>>,
    /// Arms to leave out: those that agree with one of these in every key it names.
    pub exclude: Vec<Assignment>,
    /// Arms outside the grid, by name.
    pub named: Vec<(String, Vec<Setting>)>,
    /// What a quick run changes.
    pub quick: Vec<Setting>,
    /// The machine that the question is about, where the run is a smaller one.
    pub full: Vec<Setting>,
    /// The figures of its results.
    pub figures: Vec<Figure>,
}

/// Checks that any bytes as an experiment file give a value that holds together or an error in one
/// line; panics where not. For fuzzers and tests.
pub fn check(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    let lines = text.matches('\n').count() + 1;
    match ExperimentFile::parse("f.toml", text) {
        Ok(file) => {
            let named = file.named.iter().flat_map(|(_, settings)| settings);
            let settings = [&file.settings, &file.axes, &file.quick, &file.full];
            for setting in settings.into_iter().flatten().chain(named) {
                let placed = (1..=lines).contains(&setting.line);
                assert!(placed && !setting.values.is_empty(), "{setting:?}");
                for value in &setting.values {
                    let set = Config::default().set(&setting.key, value);
                    assert!(set.is_ok(), "{setting:?}: {set:?}");
                }
            }
        }
        Err(ExperimentError(detail)) => {
            let line = detail.strip_prefix("f.toml:").and_then(|rest| rest.split_once(':'));
            let line = line.and_then(|(line, _)| line.parse().ok());
            let placed = line.is_some_and(|line| (1..=lines).contains(&line));
            assert!(placed && !detail.contains('\n'), "{detail}");
        }
    }
}

struct Reader<'a> {
    label: &'a str,
    text: &'a str,
}

const TOP_KEYS: [&str; 15] = [
    "title", "question", "baseline", "metrics", "seeds", "options", "workload", "device", "stop",
    "measure", "arms", "arm", "quick", "full", "figure",
];
const WORKLOAD_KEYS: [&str; 8] = [
    "name",
    "tenant_count",
    "offered_ops_per_s",
    "client_count",
    "lane_count",
    "sync_writes",
    "file",
    "params",
];
const STOP_KEYS: [&str; 6] = [
    "fill_count",
    "warmup_fill_count",
    "warmup_duration_ns",
    "op_count",
    "duration_ns",
    "two_phase_percent",
];
const HARDWARE_KEYS: [&str; 4] = ["preset", "scale", "core_count", "cpu_cost_multiplier"];

impl ExperimentFile {
    /// Reads a file's text; `label` names it in messages.
    ///
    /// # Errors
    ///
    /// [`ExperimentError`] with file, line, key and what is allowed.
    pub fn parse(label: &str, text: &str) -> Result<Self> {
        let reader = Reader { label, text };
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            reader.error(at, error.message())
        })?;
        let mut file = Self { label: label.to_owned(), ..Self::default() };
        for (key, value) in in_order(table.get_ref()) {
            reader.top(&mut file, key, value)?;
        }
        Ok(file)
    }
}

impl Reader<'_> {
    fn error(&self, offset: usize, detail: impl core::fmt::Display) -> ExperimentError {
        let line = self.line(offset);
        ExperimentError(format!("{}:{line}: {}", self.label, one_line(&detail.to_string())))
    }

    fn line(&self, offset: usize) -> usize {
        self.text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1)
    }

    fn top(
        &self,
        file: &mut ExperimentFile,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<()> {
        let at = key.span().start;
        match key.get_ref().as_ref() {
            "title" => file.title = self.scalar("title", value)?,
            "question" => file.question = self.scalar("question", value)?,
            "baseline" => file.baseline = Some((self.scalar("baseline", value)?, self.line(at))),
            "metrics" => self.metrics(file, value)?,
            "seeds" => {
                let seeds = self.scalar("seeds", value)?.parse::<Seeds>();
                file.seeds = Some(seeds.map_err(|error| self.error(at, error.0))?);
            }
            "options" => self.section(value, "options", option_key, &mut file.settings)?,
            "workload" => self.section(value, "workload", workload_key, &mut file.settings)?,
            "device" => self.section(value, "device", device_key, &mut file.settings)?,
            "stop" => self.section(value, "stop", stop_key, &mut file.settings)?,
            "measure" => self.section(value, "measure", measure_key, &mut file.settings)?,
            "arms" => self.arms(file, value)?,
            "arm" => self.named(file, value)?,
            "quick" => self.section(value, "quick", any_key, &mut file.quick)?,
            "full" => self.section(value, "full", any_key, &mut file.full)?,
            "figure" => self.figures(file, value)?,
            other => {
                let allowed = TOP_KEYS.join(", ");
                return Err(self.error(at, format!("unknown key {other:?}; allowed: {allowed}")));
            }
        }
        Ok(())
    }

    fn metrics(&self, file: &mut ExperimentFile, value: &Spanned<DeValue<'_>>) -> Result<()> {
        let Some(names) = value.get_ref().as_array().filter(|names| !names.is_empty()) else {
            return Err(self.wrong(value, "metrics", "a list of names of metrics"));
        };
        for name in names {
            let found = metric::find(&self.scalar("metrics", name)?);
            let metric = found.map_err(|detail| self.error(name.span().start, detail))?;
            if file.metrics.iter().any(|other| other.name == metric.name) {
                let detail = format!("metrics has {:?} twice", metric.name);
                return Err(self.error(name.span().start, detail));
            }
            file.metrics.push(metric);
        }
        Ok(())
    }

    fn arms(&self, file: &mut ExperimentFile, value: &Spanned<DeValue<'_>>) -> Result<()> {
        for (key, value) in in_order(self.table("arms", value)?) {
            match key.get_ref().as_ref() {
                "exclude" => file.exclude = self.assignments("exclude", value)?,
                "coupled" => {
                    let Some(axes) = value.get_ref().as_array() else {
                        return Err(self.wrong(value, "coupled", "a list of lists of tables"));
                    };
                    for axis in axes {
                        file.coupled.push(self.assignments("coupled", axis)?);
                    }
                }
                name => self.settings(name, value, &mut file.axes)?,
            }
        }
        Ok(())
    }

    fn figures(&self, file: &mut ExperimentFile, value: &Spanned<DeValue<'_>>) -> Result<()> {
        let Some(list) = value.get_ref().as_array() else {
            return Err(self.wrong(value, "figure", "a list of tables"));
        };
        for entry in list {
            let mut values = BTreeMap::new();
            for (key, value) in in_order(self.table("figure", entry)?) {
                values.insert(key.get_ref().to_string(), self.scalar(key.get_ref(), value)?);
            }
            let number = file.figures.len() + 1;
            let figure = Figure::of_values(&values, number);
            let figure = figure.map_err(|detail| self.error(entry.span().start, detail))?;
            if file.figures.iter().any(|other| other.name == figure.name) {
                let detail = format!("two figures are called {:?}", figure.name);
                return Err(self.error(entry.span().start, detail));
            }
            file.figures.push(figure);
        }
        Ok(())
    }

    fn named(&self, file: &mut ExperimentFile, value: &Spanned<DeValue<'_>>) -> Result<()> {
        for (name, value) in in_order(self.table("arm", value)?) {
            let mut settings = Vec::new();
            self.section(value, name.get_ref(), any_key, &mut settings)?;
            if let Some(axis) = settings.iter().find(|setting| setting.values.len() != 1) {
                let detail = format!("{} of one arm takes one value", axis.key);
                return Err(self.error(value.span().start, detail));
            }
            file.named.push((name.get_ref().to_string(), settings));
        }
        Ok(())
    }

    fn section(
        &self,
        value: &Spanned<DeValue<'_>>,
        name: &str,
        map: fn(&str) -> core::result::Result<String, String>,
        out: &mut Vec<Setting>,
    ) -> Result<()> {
        for (path, value) in flat("", self.table(name, value)?) {
            let key = map(&path)
                .map_err(|allowed| format!("unknown key {path:?} in [{name}]; allowed: {allowed}"))
                .map_err(|detail| self.error(value.span().start, detail))?;
            let lists = name == "quick";
            let is_many = value.get_ref().as_str().is_some_and(|text| many(&key, text).is_some());
            if !lists && (is_many || value.get_ref().is_array()) {
                let detail = format!("{key} is a list; only [arms] and [quick] take lists");
                return Err(self.error(value.span().start, detail));
            }
            self.settings(&key, value, out)?;
        }
        Ok(())
    }

    /// One key with its value or values, each checked; a table is taken apart.
    fn settings(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        out: &mut Vec<Setting>,
    ) -> Result<()> {
        if let Some(table) = value.get_ref().as_table() {
            for (path, value) in flat(&format!("{key}."), table) {
                self.settings(&path, value, out)?;
            }
            return Ok(());
        }
        let at = value.span().start;
        let given = self.values(key, value)?;
        let values: Vec<String> = given.iter().flat_map(|value| expanded(key, value)).collect();
        if values.is_empty() {
            return Err(self.error(at, format!("{key} is an empty list")));
        }
        for value in &values {
            Config::default().set(key, value).map_err(|detail| self.error(at, detail))?;
        }
        out.push(Setting { key: key.to_owned(), values, line: self.line(at) });
        Ok(())
    }

    fn assignments(&self, name: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<Assignment>> {
        let Some(list) = value.get_ref().as_array() else {
            return Err(self.wrong(value, name, "a list of tables"));
        };
        let mut assignments = Vec::new();
        for entry in list {
            let mut settings = Vec::new();
            for (path, value) in flat("", self.table(name, entry)?) {
                if name == "coupled" && path == NAME {
                    let values = vec![self.scalar(NAME, value)?];
                    let line = self.line(value.span().start);
                    settings.push(Setting { key: path, values, line });
                    continue;
                }
                self.settings(&path, value, &mut settings)?;
            }
            assignments.push(settings.into_iter().map(|s| (s.key, s.values)).collect());
        }
        Ok(assignments)
    }

    fn table<'v, 'i>(
        &self,
        name: &str,
        value: &'v Spanned<DeValue<'i>>,
    ) -> Result<&'v DeTable<'i>> {
        value.get_ref().as_table().ok_or_else(|| self.wrong(value, name, "a table"))
    }

    fn values(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>> {
        match value.get_ref().as_array() {
            Some(list) => list.iter().map(|value| self.scalar(key, value)).collect(),
            None => Ok(vec![self.scalar(key, value)?]),
        }
    }

    fn scalar(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
                .map(|number| number.to_string())
                .map_err(|error| self.error(value.span().start, format!("{key}: {error}"))),
            DeValue::Float(number) => Ok(number.as_str().to_owned()),
            DeValue::Boolean(switch) => Ok(switch.to_string()),
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                Err(self.wrong(value, key, "a string, a number, true or false"))
            }
        }
    }

    fn wrong(&self, value: &Spanned<DeValue<'_>>, key: &str, allowed: &str) -> ExperimentError {
        let kind = value.get_ref().type_str();
        self.error(value.span().start, format!("{key} is of type {kind}; allowed: {allowed}"))
    }
}

/// The policies that `all`, or `sound` for those without known defects, stands for, in the order of
/// their list; `None` for any other key or value.
fn many(key: &str, value: &str) -> Option<Vec<String>> {
    let kind = match key {
        "flush_policy" => PolicyKind::Flush,
        "stall_policy" => PolicyKind::Stall,
        "compaction_policy" => PolicyKind::Compaction,
        _ => return None,
    };
    let list = kind.list();
    let names = |sound: bool| {
        let kept = list.iter().filter(|info| !sound || info.known_defects.is_empty());
        kept.map(|info| info.name.to_owned()).collect()
    };
    match value {
        "all" => Some(names(false)),
        "sound" => Some(names(true)),
        _ => None,
    }
}

/// The values that one value of a key stands for: several for `all` and `sound` of policies.
pub(super) fn expanded(key: &str, value: &str) -> Vec<String> {
    many(key, value).unwrap_or_else(|| vec![value.to_owned()])
}

/// The values of a table by dotted path, in the order of the file.
fn flat<'v, 'i>(prefix: &str, table: &'v DeTable<'i>) -> Vec<(String, &'v Spanned<DeValue<'i>>)> {
    let mut values = Vec::new();
    for (key, value) in in_order(table) {
        let path = format!("{prefix}{}", key.get_ref());
        match value.get_ref().as_table() {
            Some(table) => values.extend(flat(&format!("{path}."), table)),
            None => values.push((path, value)),
        }
    }
    values
}

/// A table's entries as the file has them, not as the map sorts them.
fn in_order<'v, 'i>(
    table: &'v DeTable<'i>,
) -> Vec<(&'v Spanned<std::borrow::Cow<'i, str>>, &'v Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn option_key(path: &str) -> core::result::Result<String, String> {
    let policy = ["flush.", "stall.", "compaction."].iter().any(|kind| path.starts_with(kind));
    if policy || KEYS.iter().any(|info| info.name == path) {
        return Ok(path.to_owned());
    }
    let mut names: Vec<&str> = KEYS.iter().map(|info| info.name).collect();
    names.extend(["flush.PARAM", "stall.PARAM"]);
    Err(names.join(", "))
}

fn workload_key(path: &str) -> core::result::Result<String, String> {
    if let Some(param) = path.strip_prefix("params.") {
        return Ok(format!("workload.{param}"));
    }
    match path {
        "name" => Ok("workload".to_owned()),
        "file" => Ok("workload_file".to_owned()),
        "params" => Err(WORKLOAD_KEYS.join(", ")),
        path if WORKLOAD_KEYS.contains(&path) => Ok(path.to_owned()),
        _ => Err(WORKLOAD_KEYS.join(", ")),
    }
}

fn device_key(path: &str) -> core::result::Result<String, String> {
    match path {
        "preset" => Ok("device".to_owned()),
        "scale" => Ok("device_scale".to_owned()),
        "core_count" | "cpu_cost_multiplier" => Ok(path.to_owned()),
        path if DEVICE_KEYS.iter().any(|key| key.name == path) => Ok(format!("device.{path}")),
        _ => {
            let mut names = HARDWARE_KEYS.to_vec();
            names.extend(DEVICE_KEYS.iter().map(|key| key.name));
            Err(names.join(", "))
        }
    }
}

fn stop_key(path: &str) -> core::result::Result<String, String> {
    if STOP_KEYS.contains(&path) { Ok(path.to_owned()) } else { Err(STOP_KEYS.join(", ")) }
}

fn measure_key(path: &str) -> core::result::Result<String, String> {
    const KEYS: [&str; 2] = ["sample_interval_ns", "check"];
    if KEYS.contains(&path) { Ok(path.to_owned()) } else { Err(KEYS.join(", ")) }
}

/// [`Config::set`] knows all keys and refuses the others by itself.
#[expect(clippy::unnecessary_wraps, reason = "one of several maps that may refuse")]
fn any_key(path: &str) -> core::result::Result<String, String> {
    Ok(path.to_owned())
}

fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}
