//! Which figures an experiment gets: its `[[figure]]` tables.

use std::collections::BTreeMap;

use crate::metric::{self, Metric};

/// What a figure looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A metric of each arm, with its range over seeds.
    Bars,
    /// A metric over a setting, a line for each value of another.
    Lines,
    /// Two metrics of each arm against each other.
    Scatter,
    /// A metric for each pair of values of two settings.
    Heat,
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it looks like.
    pub kind: Kind,
    /// Its file under `figures/`, without the extension.
    pub name: String,
    /// Its heading; made of what it shows where there is none.
    pub title: String,
    /// The metric shown; in a scatter the one upwards.
    pub metric: &'static Metric,
    /// In a scatter, the metric to the right.
    pub x_metric: Option<&'static Metric>,
    /// In lines and heat maps, the setting to the right.
    pub x: String,
    /// In a heat map the setting downwards; in lines what a line stands for, or nothing.
    pub by: String,
}

const KINDS: &str = "bars, lines, scatter, heat";
const KEYS: [&str; 6] = ["kind", "name", "title", "metric", "x", "by"];

impl Figure {
    /// A figure of what a table holds; `number` counts the figures of its file.
    ///
    /// # Errors
    ///
    /// One line that names the key and what is allowed.
    pub fn of_values(values: &BTreeMap<String, String>, number: usize) -> Result<Self, String> {
        if let Some(key) = values.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!("unknown key {key:?} in [[figure]]; allowed: {}", KEYS.join(", ")));
        }
        let text = |key: &str| values.get(key).cloned().unwrap_or_default();
        let needed = |key: &str, why: &str| match text(key) {
            empty if empty.is_empty() => Err(format!("[[figure]] lacks {key}: {why}")),
            value => Ok(value),
        };
        let kind = match needed("kind", KINDS)?.as_str() {
            "bars" => Kind::Bars,
            "lines" => Kind::Lines,
            "scatter" => Kind::Scatter,
            "heat" => Kind::Heat,
            other => return Err(format!("kind of a figure is {other:?}; allowed: {KINDS}")),
        };
        let metric = metric::find(&needed("metric", "what it shows")?)?;
        let x = match kind {
            Kind::Bars => text("x"),
            Kind::Scatter => needed("x", "the metric to the right")?,
            Kind::Lines | Kind::Heat => needed("x", "the setting to the right")?,
        };
        let x_metric = if kind == Kind::Scatter { Some(metric::find(&x)?) } else { None };
        let by = match kind {
            Kind::Heat => needed("by", "the setting downwards")?,
            Kind::Bars | Kind::Lines | Kind::Scatter => text("by"),
        };
        if kind == Kind::Bars && !x.is_empty()
            || kind != Kind::Lines && kind != Kind::Heat && !by.is_empty()
        {
            return Err("x and by belong to lines and heat, x to scatter too".to_owned());
        }
        let fallback = |title: String| {
            if title.is_empty() { format!("{number}-{}", metric.name) } else { title }
        };
        let name = fallback(text("name"));
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.len() > 64 || !name.chars().all(plain) {
            return Err(format!("name of a figure is {name:?}; allowed: letters, digits, - and _"));
        }
        Ok(Self { kind, name, title: text("title"), metric, x_metric, x, by })
    }

    /// Its heading.
    pub fn heading(&self) -> String {
        if !self.title.is_empty() {
            return self.title.clone();
        }
        let metric = self.metric.label;
        match (self.kind, self.x_metric) {
            (Kind::Bars, _) => metric.to_owned(),
            (Kind::Scatter, Some(x)) => format!("{metric} against {}", x.label),
            (Kind::Lines | Kind::Scatter, _) => format!("{metric} over {}", self.x),
            (Kind::Heat, _) => format!("{metric} by {} and {}", self.by, self.x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(values: &[(&str, &str)]) -> Result<Figure, String> {
        let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Figure::of_values(&values, 3)
    }

    #[test]
    fn figures_are_read_and_slips_told() {
        let bars = figure(&[("kind", "bars"), ("metric", "p999")]).unwrap();
        assert_eq!(
            (bars.kind, &*bars.name, bars.heading()),
            (Kind::Bars, "3-p999", "p99.9".into())
        );
        let lines = [("kind", "lines"), ("metric", "throughput"), ("x", "memtable_stop_count")];
        assert_eq!(figure(&lines).unwrap().heading(), "throughput over memtable_stop_count");
        let scatter = [("kind", "scatter"), ("metric", "p999"), ("x", "write_amp")];
        assert_eq!(figure(&scatter).unwrap().x_metric.unwrap().name, "write_amp");
        let refused = |values: &[(&str, &str)]| figure(values).unwrap_err();
        assert!(refused(&[("kind", "pie")]).contains("allowed: bars, lines, scatter, heat"));
        assert!(refused(&[("kind", "bars")]).contains("lacks metric"));
        assert!(refused(&[("kind", "bars"), ("metric", "p1")]).contains("throughput, p50"));
        assert!(
            refused(&[("kind", "bars"), ("metrics", "p99")]).contains("unknown key \"metrics\"")
        );
        assert!(refused(&[("kind", "heat"), ("metric", "p99"), ("x", "a")]).contains("lacks by"));
        assert!(refused(&[("kind", "bars"), ("metric", "p99"), ("x", "a")]).contains("belong to"));
        let outside = [("kind", "bars"), ("metric", "p99"), ("name", "../x")];
        assert!(refused(&outside).contains("letters, digits"));
    }
}
