//! Figures of results as SVG, of rows alone, with the same bytes on every machine.
//!
//! No text is measured: places come from counts and numbers, with one decimal, and labels get room
//! by their letters. Colours are classes with two sets of values, so that a figure can be read on a
//! light page and on a dark one.

mod axis;
mod data;
mod dots;
mod heat;
mod lines;
mod scatter;
mod svg;

use crate::experiment::Experiment;
use crate::experiment::figure::{Figure, Kind};
use crate::metric;
use crate::record::RunRow;

/// The figures of an experiment: file name and text of each, but of those that its rows cannot
/// fill.
pub fn figures(experiment: &Experiment, rows: &[RunRow]) -> Vec<(String, String)> {
    let usual;
    let list = if experiment.figures.is_empty() {
        usual = defaults(experiment);
        &usual
    } else {
        &experiment.figures
    };
    let named = |figure: &Figure| Some((format!("{}.svg", figure.name), draw(figure, rows)?));
    list.iter().filter_map(named).collect()
}

/// One figure; `None` where the rows hold nothing of what it shows.
pub fn draw(figure: &Figure, rows: &[RunRow]) -> Option<String> {
    match figure.kind {
        Kind::Bars => dots::draw(figure, rows),
        Kind::Lines => lines::draw(figure, rows),
        Kind::Scatter => scatter::draw(figure, rows),
        Kind::Heat => heat::draw(figure, rows),
    }
}

/// What an experiment gets that asks for nothing: what users feel and what it costs by arm, one
/// against the other, and its axes where it has some.
fn defaults(experiment: &Experiment) -> Vec<Figure> {
    let figure = |kind, name: &str, (x, by): (&str, &str), file: &str| {
        let metric = metric::find(name).ok()?;
        let x_metric = metric::find(x).ok();
        let (name, x, by) = (file.to_owned(), x.to_owned(), by.to_owned());
        Some(Figure { kind, name, title: String::new(), metric, x_metric, x, by })
    };
    let mut list = vec![
        figure(Kind::Bars, "throughput", ("", ""), "throughput"),
        figure(Kind::Bars, "p999", ("", ""), "p999"),
        figure(Kind::Bars, "stall", ("", ""), "stall"),
        figure(Kind::Bars, "write_amp", ("", ""), "write-amp"),
        figure(Kind::Scatter, "p999", ("write_amp", ""), "p999-write-amp"),
    ];
    let axes = axes(experiment);
    let numeric = |values: &[String]| values.iter().all(|value| value.parse::<f64>().is_ok());
    let over = axes.iter().find(|(_, values)| values.len() > 2 && numeric(values));
    if let Some((x, _)) = over {
        let by = axes.iter().find(|(key, values)| key != x && !numeric(values));
        let by = by.map_or("", |(key, _)| key);
        list.push(figure(Kind::Lines, "throughput", (x, by), "throughput-lines"));
        list.push(figure(Kind::Lines, "p999", (x, by), "p999-lines"));
    }
    if let [(by, _), (x, _), ..] = axes.as_slice() {
        list.push(figure(Kind::Heat, "p999", (x, by), "p999-heat"));
    }
    list.into_iter().flatten().collect()
}

/// The settings that differ between arms, with their values.
fn axes(experiment: &Experiment) -> Vec<(String, Vec<String>)> {
    let mut axes: Vec<(String, Vec<String>)> = Vec::new();
    for (key, value) in experiment.arms.iter().flat_map(|arm| &arm.values) {
        match axes.iter_mut().find(|(known, _)| known == key) {
            Some((_, values)) if values.contains(value) => {}
            Some((_, values)) => values.push(value.clone()),
            None => axes.push((key.clone(), vec![value.clone()])),
        }
    }
    axes.retain(|(_, values)| values.len() > 1);
    axes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::mock;

    fn figure(kind: Kind, metric: &str, x: &str, by: &str) -> Figure {
        Figure {
            kind,
            name: "f".to_owned(),
            title: "A <b> & \"c\"".to_owned(),
            metric: metric::find(metric).unwrap(),
            x_metric: metric::find(x).ok(),
            x: x.to_owned(),
            by: by.to_owned(),
        }
    }

    fn all() -> [Figure; 4] {
        [
            figure(Kind::Bars, "p999", "", ""),
            figure(Kind::Lines, "throughput", "memtable_stop_count", "flush_policy"),
            figure(Kind::Scatter, "p999", "write_amp", ""),
            figure(Kind::Heat, "stall", "memtable_stop_count", "flush_policy"),
        ]
    }

    #[test]
    fn every_kind_is_well_formed_and_escapes_what_it_is_called() {
        let mut rows = mock::rows(3);
        for row in &mut rows {
            row.arm = row.arm.replace("shared", "<script>alert(1)</script>");
        }
        for figure in all() {
            let svg = draw(&figure, &rows).unwrap();
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
            assert!(!svg.contains("<script") && !svg.contains("<b>"), "{svg}");
            assert!(svg.contains("A &lt;b&gt; &amp; &quot;c&quot;"));
            assert!(svg.contains("prefers-color-scheme: dark"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let opened = svg.matches("<text").count();
            assert_eq!(opened, svg.matches("</text>").count());
            assert_eq!(draw(&figure, &rows).unwrap(), svg, "the same rows, the same bytes");
        }
    }

    #[test]
    fn a_changed_row_changes_every_figure() {
        let rows = mock::rows(1);
        let mut changed = rows.clone();
        // Two of the three layouts, so that the median over layouts moves, too.
        for arm in [0, 6] {
            changed[arm].write_latency_ns.p999 *= 3;
            changed[arm].ops_per_s.0 *= 3;
            changed[arm].stall_ns.l0 *= 30;
        }
        for figure in all() {
            assert_ne!(draw(&figure, &rows), draw(&figure, &changed), "{:?}", figure.kind);
        }
    }

    #[test]
    fn nothing_to_show_is_no_figure_and_zeros_are_one() {
        for figure in all() {
            assert_eq!(draw(&figure, &[]), None);
        }
        let mut rows = mock::rows(1);
        for row in &mut rows {
            row.write_latency_ns.p999 = 0;
            row.ops_per_s.0 = 0;
            row.stall_ns = crate::record::ByCause::default();
            row.user_bytes = 0;
        }
        for figure in all() {
            let svg = draw(&figure, &rows).unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        assert_eq!(draw(&figure(Kind::Lines, "p99", "no_such_key", ""), &rows), None);
    }

    #[test]
    #[ignore = "writes figures to look at into the system's folder for temporary files"]
    fn write_figures_to_look_at() {
        for (number, mut figure) in all().into_iter().enumerate() {
            figure.title.clear();
            let path = std::env::temp_dir().join(format!("forebay-figure-{number}.svg"));
            let svg = draw(&figure, &mock::rows(3)).unwrap();
            crate::output::write_file(&path, &svg).unwrap();
            println!("{}", path.display());
        }
    }
}
