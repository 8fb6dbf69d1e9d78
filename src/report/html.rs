//! One page that holds everything a comparison needs: no network, no second file, under 250 kB.
//!
//! Names come from experiments and tenants and are text whatever they hold: the template escapes
//! them, and the data of the charts is JSON in which `<` is written `\u003c`, so that no name can
//! end its script element. A content policy in the page forbids every request.
//!
//! # Source
//!
//! Charts are drawn by uPlot 1.6.32 (MIT, Leon Sorokin), in `assets/uplot` as its npm package ships
//! it; a test holds the checksums.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use crate::number::{bytes, count, seconds, to_f64};
use crate::output::{OutputError, Result};
use crate::record::{Outcome, Param, RunRow};
use crate::report::chart::Charts;
use crate::report::headline::{self, Cell, Headline};
use crate::report::summary::{ArmSummary, summaries};
use crate::report::timeline::timelines;
use crate::report::{Provenance, ReportInput, detail, heat, table};

/// Runs that did not pass and are listed one by one.
const FAILURES_MAX: usize = 50;

/// Bytes that a page may have before its section of all columns shows less.
const PAGE_BYTES_MAX: usize = 248_000;

/// How many arms a page has where it cannot hold all, in turn until it fits.
const ARMS_MAX: [usize; 5] = [64, 48, 32, 20, 12];

const TEMPLATE: &str = include_str!("../../assets/report/report.html");
const SCRIPT: &str = include_str!("../../assets/report/report.js");
const TIMELINE_SCRIPT: &str = include_str!("../../assets/report/timeline.js");
const STYLE: &str = include_str!("../../assets/report/report.css");
const UPLOT_SCRIPT: &str = include_str!("../../assets/uplot/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("../../assets/uplot/uPlot.min.css");

#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    question: &'a str,
    scale_lines: &'a [String],
    provenance: &'a Provenance,
    baseline: &'a str,
    worlds: String,
    seed_count: usize,
    run_count: usize,
    failed_count: usize,
    verdict: String,
    notes: Vec<String>,
    interval_notes: Vec<String>,
    has_growing: bool,
    columns: Vec<&'static str>,
    arms: Vec<Arm>,
    causes: [&'static str; 5],
    heat: Option<heat::Heat>,
    failures: Vec<Failure<'a>>,
    params: Vec<(String, String)>,
    tenths: Vec<(String, Vec<String>)>,
    classes: Vec<detail::Class<'a>>,
    /// HTML: the section of all columns.
    all_columns: String,
    data: String,
    style: &'static str,
    script: &'static str,
    timeline_script: &'static str,
    uplot_style: &'static str,
    uplot_script: &'static str,
}

#[derive(Serialize)]
struct Arm {
    name: String,
    is_baseline: bool,
    note: String,
    /// The arm it is held against, where that is not the baseline.
    other_base: String,
    cells: Vec<Cell>,
    stall_s: String,
    /// (cause, share of the longest bar in percent, text)
    stalls: Vec<(&'static str, String, String)>,
    table_text: String,
    table_left: String,
    table_width: String,
    table_median: String,
}

#[derive(Serialize)]
struct Failure<'a> {
    arm: &'a str,
    seed: u64,
    outcome: &'static str,
    rule: &'a str,
    replay: &'a str,
}

/// The page of a report.
///
/// # Errors
///
/// A histogram cannot be decoded, or the template and this file disagree.
pub fn render(input: &ReportInput) -> Result<String> {
    let all = summaries(&input.rows);
    let mut page = of_arms(input, &all, (&input.rows, &all), None)?;
    for arms_max in ARMS_MAX {
        if page.len() <= PAGE_BYTES_MAX {
            break;
        }
        let kept = best(&all, arms_max, &input.baseline_arm);
        let rows = input.rows.iter().filter(|row| kept.contains(&row.arm.as_str())).cloned();
        let fewer = ReportInput { rows: rows.collect(), ..input.clone() };
        let note = format!(
            "Of {} arms this page has the best and the baseline, {} in all; the table on the \
             terminal and tables/arms.csv have every one.",
            all.len(),
            kept.len()
        );
        let shown = all.iter().filter(|arm| kept.contains(&arm.arm.as_str())).cloned();
        page = of_arms(&fewer, &shown.collect::<Vec<_>>(), (&input.rows, &all), Some(note))?;
    }
    Ok(page)
}

/// The arms that rank first, and the baseline.
fn best<'a>(arms: &'a [ArmSummary], arms_max: usize, baseline: &str) -> Vec<&'a str> {
    let mut ranked: Vec<&ArmSummary> = arms.iter().collect();
    ranked.sort_by(|a, b| a.rank(b));
    let is_baseline = |arm: &ArmSummary| arm.arm == baseline;
    let kept = ranked.iter().enumerate().filter(|(at, arm)| *at < arms_max || is_baseline(arm));
    kept.map(|(_, arm)| arm.arm.as_str()).collect()
}

/// The page of an input, whose arms these are. They are compared among all rows, of which what is
/// said of all runs is said.
fn of_arms(
    input: &ReportInput,
    summaries: &[ArmSummary],
    (all_rows, all_arms): (&[RunRow], &[ArmSummary]),
    note: Option<String>,
) -> Result<String> {
    let baseline = summaries
        .iter()
        .find(|arm| arm.arm == input.baseline_arm)
        .or_else(|| summaries.first())
        .map_or("", |arm| arm.arm.as_str());
    let first = first_drawn(summaries, baseline);
    let headline = Headline::new((all_rows, all_arms), summaries.len(), baseline);
    let mut charts = Charts::new(input, baseline, first)?;
    let in_script = |charts: &Charts| match serde_json::to_string(charts) {
        Ok(json) => Ok(in_script(&json)),
        Err(error) => Err(refused(&error)),
    };
    let mut seeds: Vec<u64> = input.rows.iter().map(|row| row.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let failed = || all_rows.iter().filter(|row| row.outcome != Outcome::Pass);
    let mut page = Page {
        title: &input.title,
        question: &input.question,
        scale_lines: &input.scale_lines,
        provenance: &input.provenance,
        baseline,
        worlds: worlds(&input.rows),
        seed_count: seeds.len(),
        run_count: all_rows.len(),
        failed_count: failed().count(),
        verdict: table::verdicts(all_arms).join(" "),
        notes: page_notes(&input.rows).into_iter().chain(note).collect(),
        interval_notes: headline.notes(),
        has_growing: summaries.iter().any(|arm| arm.saturated),
        columns: headline::columns(),
        arms: arms(&headline, summaries, baseline),
        causes: crate::record::ByCause::default().named().map(|(cause, _)| cause),
        heat: heat::heat(&input.rows, summaries),
        failures: failed().take(FAILURES_MAX).map(failure).collect(),
        params: params(&input.rows),
        tenths: tenths(input),
        classes: detail::classes(&input.rows, summaries),
        all_columns: String::new(),
        data: in_script(&charts)?,
        style: STYLE,
        script: SCRIPT,
        timeline_script: TIMELINE_SCRIPT,
        uplot_style: UPLOT_STYLE,
        uplot_script: UPLOT_SCRIPT,
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| refused(&error))?);
    let whole = |page: &Page<'_>| {
        let text = environment.render_named_str("report.html", TEMPLATE, Serde(page));
        text.map_err(|error| refused(&error))
    };
    let room = |page: &Page<'_>| Ok(PAGE_BYTES_MAX.saturating_sub(whole(page)?.len()));
    let columns = |bytes_max: usize| {
        let section = detail::fitting(&environment, &input.rows, bytes_max);
        section.map_err(|error| refused(&error))
    };
    // Timelines take what the smallest section of all columns leaves, and that section the rest.
    let least = columns(0)?.len();
    charts.timelines =
        timelines(&input.events, [first, baseline], room(&page)?.saturating_sub(least));
    page.data = in_script(&charts)?;
    page.all_columns = columns(room(&page)?)?;
    Ok(printable(whole(&page)?))
}

/// What the terminal says of the rows, but for its ranges over seeds, which the page does not show.
fn page_notes(rows: &[RunRow]) -> Vec<String> {
    let mut notes = table::notes(rows);
    notes.retain(|note| !note.contains("seeds: numbers are"));
    notes
}

/// JSON that neither ends its script element nor holds a letter that some reader takes for a line's
/// end or for nothing.
fn in_script(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        let is_plain = !matches!(letter, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        if is_plain && !letter.is_control() {
            text.push(letter);
        } else {
            text.push_str(&format!("\\u{:04x}", u32::from(letter)));
        }
    }
    text
}

/// Control characters have no meaning in HTML, and browsers disagree on what to do with them.
fn printable(page: String) -> String {
    let is_bad = |letter: char| letter.is_control() && letter != '\n';
    if page.contains(is_bad) { page.replace(is_bad, "\u{fffd}") } else { page }
}

/// The arm that the charts begin with: the best, or the worst where the best is the baseline.
fn first_drawn<'a>(summaries: &'a [ArmSummary], baseline: &str) -> &'a str {
    let best = summaries.iter().min_by(|a, b| a.rank(b));
    let worst = summaries.iter().filter(|arm| arm.passed > 0).max_by(|a, b| a.rank(b));
    best.filter(|arm| arm.arm != baseline).or(worst).map_or("", |arm| arm.arm.as_str())
}

fn refused(error: &dyn core::fmt::Display) -> OutputError {
    OutputError::Template(error.to_string())
}

fn worlds(rows: &[RunRow]) -> String {
    let mut names: Vec<_> = rows.iter().map(|row| row.world.name()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" and ")
}

fn failure(row: &RunRow) -> Failure<'_> {
    Failure {
        arm: &row.arm,
        seed: row.seed,
        outcome: row.outcome.name(),
        rule: row.rule.as_deref().unwrap_or(""),
        replay: &row.replay,
    }
}

fn arms(headline: &Headline<'_>, summaries: &[ArmSummary], baseline: &str) -> Vec<Arm> {
    let stall_max = summaries.iter().map(|arm| arm.stall_ns.total()).max().unwrap_or(0).max(1);
    let sizes = || summaries.iter().filter(|arm| arm.table_bytes.p99 > 0);
    let low = sizes().map(|arm| log_size(arm.table_bytes.p1)).fold(f64::MAX, f64::min);
    let high = sizes().map(|arm| log_size(arm.table_bytes.p99)).fold(0.0, f64::max);
    let place = |size: u64| (log_size(size) - low) / (high - low).max(0.1) * 100.0;
    let arm = |arm: &ArmSummary| {
        let table = arm.table_bytes;
        let left = if table.p99 == 0 { 0.0 } else { place(table.p1) };
        let right = if table.p99 == 0 { 0.0 } else { place(table.p99) };
        let median = if table.p99 == 0 { 0.0 } else { place(table.p50) };
        Arm {
            name: arm.arm.clone(),
            is_baseline: arm.arm == baseline,
            note: headline.note(arm),
            other_base: headline.other_base(arm).to_owned(),
            cells: headline.cells(arm),
            stall_s: seconds(arm.stall_ns.total()),
            stalls: arm
                .stall_ns
                .named()
                .into_iter()
                .map(|(cause, ns)| {
                    let share = to_f64(ns) / to_f64(stall_max) * 100.0;
                    (cause, format!("{share:.2}"), format!("{} s", seconds(ns)))
                })
                .collect(),
            table_text: format!(
                "{} / {} / {}",
                bytes(table.p1),
                bytes(table.p50),
                bytes(table.p99)
            ),
            table_left: format!("{left:.2}"),
            table_width: format!("{:.2}", (right - left).max(0.5)),
            table_median: format!("{median:.2}"),
        }
    };
    summaries.iter().map(arm).collect()
}

fn log_size(size: u64) -> f64 {
    libm::log2(to_f64(size.max(1)))
}

/// Settings with their values over all arms, one line a setting.
fn params(rows: &[RunRow]) -> Vec<(String, String)> {
    const VALUES_MAX: usize = 12;
    let mut values: std::collections::BTreeMap<&str, Vec<String>> =
        std::collections::BTreeMap::new();
    for (name, param) in rows.iter().flat_map(|row| &row.params) {
        let text = match param {
            Param::Switch(on) => on.to_string(),
            Param::Integer(n) if name.contains("bytes") => format!("{n} ({})", bytes(*n)),
            Param::Integer(n) => n.to_string(),
            Param::Fraction(n) => n.to_string(),
            Param::Text(text) => text.clone(),
        };
        let known = values.entry(name).or_default();
        if !known.contains(&text) && known.len() <= VALUES_MAX {
            known.push(text);
        }
    }
    values
        .into_iter()
        .map(|(name, mut values)| {
            if values.len() > VALUES_MAX {
                values.truncate(VALUES_MAX);
                values.push("...".to_owned());
            }
            (name.to_owned(), values.join(", "))
        })
        .collect()
}

/// Operations a second in each tenth of the run, for readers without the script.
fn tenths(input: &ReportInput) -> Vec<(String, Vec<String>)> {
    let mut tenths: Vec<(String, Vec<String>)> = Vec::new();
    for row in &input.rows {
        if tenths.iter().any(|(arm, _)| *arm == row.arm) {
            continue;
        }
        let samples = || {
            let whole = input.series.iter().filter(|sample| sample.tenant.is_empty());
            whole.filter(|sample| sample.run_id == row.run_id)
        };
        let Some(end) = samples().map(|sample| sample.at_ms).max() else { continue };
        let mut ops = [0_u64; 10];
        for sample in samples() {
            let tenth = sample.at_ms.saturating_sub(1).saturating_mul(10).checked_div(end);
            let tenth = usize::try_from(tenth.unwrap_or(0)).unwrap_or(0);
            if let Some(ops) = ops.get_mut(tenth) {
                *ops = ops.saturating_add(sample.ops);
            }
        }
        let per_s = |ops: &u64| count(to_f64(*ops) * 10_000.0 / to_f64(end.max(1)));
        tenths.push((row.arm.clone(), ops.iter().map(per_s).collect()));
    }
    tenths
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::output::write_file;
    use crate::report::mock;

    const VENDORED: [(&str, &str); 3] = [
        (UPLOT_SCRIPT, "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"),
        (UPLOT_STYLE, "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"),
        (
            include_str!("../../assets/uplot/LICENSE"),
            "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
        ),
    ];

    #[test]
    fn eighteen_arms_with_three_hundred_points_fit() {
        let page = render(&mock::input(3, 300)).unwrap();
        println!("{} bytes", page.len());
        assert!(page.len() < 250_000, "{} bytes", page.len());
        let again = render(&mock::input(3, 300)).unwrap();
        assert!(page == again, "the same rows give the same page");
    }

    #[test]
    fn more_samples_and_more_arms_do_not_burst_the_page() {
        let mut input = mock::input(1, 2000);
        let (rows, series) = (input.rows.clone(), input.series.clone());
        for tag in ["-1", "-2"] {
            input.rows.extend(rows.iter().cloned().map(|mut row| {
                row.arm.push_str(tag);
                row.run_id.push_str(tag);
                row
            }));
            input.series.extend(series.iter().cloned().map(|mut sample| {
                sample.run_id.push_str(tag);
                sample
            }));
        }
        let page = render(&input).unwrap();
        assert!(page.len() < 250_000, "{} bytes", page.len());
    }

    #[test]
    fn of_more_arms_than_fit_the_best_and_the_baseline_are_there_and_the_page_says_so() {
        let mut input = mock::input(3, 20);
        let rows = input.rows.clone();
        for n in 0..8_u64 {
            input.rows.extend(rows.iter().cloned().map(|mut row| {
                row.arm = format!("copy-{n}-with-a-long-name/{}", row.arm);
                row.stall_ns.budget += (n + 1) * 1_000_000_000_000;
                row
            }));
        }
        input.baseline_arm = input.rows.last().unwrap().arm.clone();
        let page = render(&input).unwrap();
        assert!(page.len() < 250_000, "{} bytes", page.len());
        assert!(page.contains("Of 162 arms this page has the best and the baseline"));
        assert!(page.contains(&format!("{0} of {0} runs passed", input.rows.len())));
        let heads = |name: &str| page.contains(&format!("<tr data-arm=\"{name}\""));
        assert!(heads(&input.baseline_arm.replace('/', "&#x2f;")), "the baseline");
        assert!(heads(&rows[0].arm.replace('/', "&#x2f;")), "an arm without more stalls");
        assert!(!heads(&format!("copy-7-with-a-long-name/{}", rows[0].arm).replace('/', "&#x2f;")));
    }

    #[test]
    fn names_are_text_whatever_they_hold() {
        const EVIL: &str = "</script><b><img src=x onerror=alert(1)>&\"'{{ 7 * 7 }}\u{2028}\u{2029}\0\r\u{1b}\u{85}";
        let mut input = mock::input(1, 10);
        input.title = EVIL.to_owned();
        input.question = EVIL.to_owned();
        input.scale_lines = vec![EVIL.to_owned()];
        input.baseline_arm = EVIL.to_owned();
        input.provenance.command = EVIL.to_owned();
        for row in &mut input.rows {
            row.arm.push_str(EVIL);
            row.experiment = EVIL.to_owned();
            row.outcome = Outcome::Fail;
            row.rule = Some(EVIL.to_owned());
            row.replay = EVIL.to_owned();
            row.tenants[0].name = EVIL.to_owned();
            row.tenants[0].class = EVIL.to_owned();
            row.classes[0].class = EVIL.to_owned();
            row.params.insert(EVIL.to_owned(), Param::Text(EVIL.to_owned()));
        }
        input.rows[0].outcome = Outcome::Pass;
        input.rows[0].arm = EVIL.to_owned();
        for run in &mut input.events {
            run.head.arm = EVIL.to_owned();
            run.head.owners[0] = EVIL.to_owned();
            for event in &mut run.rows {
                (event.owner, event.note) = (EVIL.to_owned(), EVIL.to_owned());
            }
        }
        let page = render(&input).unwrap();
        assert!(!page.contains("</script><b>") && !page.contains("<b>") && !page.contains("<img"));
        assert!(!page.contains(|letter: char| letter.is_control() && letter != '\n'));
        let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        assert!(!data.contains(['<', '>', '&', '\u{2028}', '\u{2029}', '\u{7f}']));
        let value: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(value["baseline"], EVIL, "the name itself comes through");
        let lane = value["timelines"][0]["lanes"][0]["name"].as_str().unwrap();
        assert!(lane.len() > 20 && EVIL.starts_with(lane.trim_end_matches('.')), "{lane}");
        assert!(page.contains("\\u003c/script\\u003e"), "the charts' data holds it as text");
        assert!(page.contains("&lt;b&gt;"), "the page shows it as text");
        let scripts = page.matches("<script").count();
        assert_eq!((scripts, page.matches("</script>").count()), (3, 3));
    }

    #[test]
    fn lines_of_the_scale_keep_their_spaces_and_an_unknown_commit_is_left_out() {
        let mut input = mock::input(1, 10);
        input.scale_lines = vec!["scale    full".to_owned(), "  memory    3".to_owned()];
        assert!(render(&input).unwrap().contains(">commit 4f1c2ab<"));
        input.provenance.commit.clear();
        let page = render(&input).unwrap();
        assert!(page.contains("<pre class=\"scale\">scale    full\n  memory    3\n</pre>"));
        assert!(!page.contains("commit "));
    }

    #[test]
    fn a_page_asks_the_network_for_nothing() {
        let page = render(&mock::input(1, 10)).unwrap();
        let ours = page.replace(UPLOT_SCRIPT, "");
        assert!(page.contains("default-src 'none'"));
        for word in ["http://", "https://", "src=\"", "@import", "url(", "fetch(", "XMLHttp"] {
            assert!(!ours.contains(word), "{word}");
        }
    }

    #[test]
    fn a_report_without_series_histograms_or_rows_is_still_a_page() {
        let mut input = mock::input(1, 10);
        input.series.clear();
        input.histograms.clear();
        assert!(render(&input).unwrap().contains("No samples over time"));
        assert!(render(&ReportInput::default()).unwrap().contains("</html>"));
    }

    #[test]
    fn vendored_files_are_the_ones_that_were_reviewed() {
        for (text, expected) in VENDORED {
            let bytes = Sha256::digest(text);
            let sum: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(sum.concat(), expected);
            assert!(!text.contains("</script"));
        }
    }

    #[test]
    #[ignore = "writes a page to look at into the system's folder for temporary files"]
    fn write_a_page_to_look_at() {
        let mut input = mock::input(3, 300);
        input.rows[4].outcome = Outcome::Fail;
        input.rows[4].rule = Some("C2 acked-write-lost".to_owned());
        let path = std::env::temp_dir().join("forebay-report.html");
        write_file(&path, &render(&input).unwrap()).unwrap();
        println!("{}", path.display());
    }
}
