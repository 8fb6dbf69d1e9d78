//! What `fuzz` and `replay` say.

use core::fmt::{self, Write};
use std::path::Path;

use forebay_sim::marks::MARKS;

use super::{Collector, FuzzArgs, FuzzRow};
use crate::cli::Format;
use crate::commands::{Stop, say};
use crate::number::thousands;

/// Rules on a line of the summary, so that it fits a terminal.
const RULES_A_LINE: usize = 6;

/// Marks that a summary names unasked.
const UNMET_NAMED_MAX: usize = 5;

/// Appends to a text; a string takes all.
pub(super) fn add(text: &mut String, part: fmt::Arguments<'_>) {
    text.write_fmt(part).unwrap_or_default();
}

/// How a failure is seen again, from its file or its seed, and kept.
pub(in crate::commands) fn reproduce(file: &Path, from_seed: Option<&str>) -> String {
    let (program, file) = (program(), quoted(file));
    let mut text = format!("Reproduce:  {program} replay {file}\n");
    if let Some(line) = from_seed {
        add(&mut text, format_args!("From seed:  {line}\n"));
    }
    add(&mut text, format_args!("Trace it:   {program} replay {file} --trace trace.json\n"));
    add(&mut text, format_args!("Keep it:    {program} keep {file}\n"));
    text
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// How this program is called: by name where the shell finds it, else by its own path.
pub(super) fn program() -> String {
    let name = "forebay";
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    if found {
        return name.to_owned();
    }
    std::env::current_exe().map_or_else(|_| name.to_owned(), |path| quoted(&path))
}

/// The settings, with where each comes from.
pub(super) fn config(args: &FuzzArgs) {
    let mut text = format!("{:<40} # --seeds\n", format!("seeds = {}", args.seeds));
    add(&mut text, format_args!("{:<40} # --audit\n", format!("audit = {}", args.audit)));
    for (key, value) in &args.settings {
        add(&mut text, format_args!("{:<40} # -s\n", format!("{key} = {value}")));
    }
    text.push_str("everything else                          # drawn by each seed\n");
    say(&text);
}

/// The first line of `--format csv`.
pub(super) const CSV_HEADER: &str = "seed,outcome,rule,ops,virtual_ns,trace_hash\n";

/// One row for `--format csv`.
pub(super) fn csv(row: &FuzzRow) -> String {
    let rule = row.rule.map_or_else(String::new, |rule| rule.to_string());
    format!(
        "{},{},{rule},{},{},{}\n",
        row.seed, row.outcome, row.ops, row.virtual_ns, row.trace_hash
    )
}

/// The summary.
pub(super) fn end(
    format: Format,
    collector: &Collector<'_>,
    (runs, elapsed_s): (&Path, f64),
) -> Result<(), Stop> {
    match format {
        Format::Csv => Ok(()),
        Format::Json => {
            let line =
                serde_json::to_string(&summary(collector, elapsed_s)).map_err(Stop::usage)?;
            say(&format!("{line}\n"));
            Ok(())
        }
        Format::Human => {
            say(&human(collector, (runs, elapsed_s)));
            Ok(())
        }
    }
}

fn summary(collector: &Collector<'_>, elapsed_s: f64) -> serde_json::Value {
    let sums = &collector.sums;
    let [crashes, crash_states, exhausted] = sums.crashes;
    let of = |name: &str| sums.faults.get(name).copied().unwrap_or(0);
    let is_crash = |name: &str| matches!(name, "power_loss" | "kill");
    let faults: serde_json::Map<String, serde_json::Value> = sums
        .faults
        .iter()
        .filter(|(name, _)| !is_crash(name))
        .map(|(name, n)| (name.clone(), (*n).into()))
        .collect();
    let rules: serde_json::Map<String, serde_json::Value> =
        sums.counts.iter().map(|(rule, n)| (rule.name().to_owned(), n.into())).collect();
    serde_json::json!({
        "schema": "forebay.fuzz/1",
        "seeds": collector.rows.len(),
        "passed": sums.passed,
        "failed": sums.failed,
        "mismatches": sums.mismatches,
        "ops": sums.ops,
        "elapsed_wall_s": (elapsed_s * 1000.0).round() / 1000.0,
        "crashes": { "power_loss": of("power_loss"), "kill": of("kill") },
        "crash_states": { "judged": crash_states, "of_crashes": crashes, "exhausted": exhausted },
        "faults": faults,
        "rules": rules,
        "marks": sums.marks,
        "marks_unmet": sums.unmet(),
        "failures": sums.failures,
    })
}

fn human(collector: &Collector<'_>, (runs, elapsed_s): (&Path, f64)) -> String {
    let (sums, args) = (&collector.sums, collector.args);
    let done = super::to_u64(collector.rows.len());
    let wanted = args.seeds.end.saturating_sub(args.seeds.start);
    let of = |name: &str| sums.faults.get(name).copied().unwrap_or(0);
    let crashes = of("power_loss").saturating_add(of("kill"));
    let faults: u64 = sums.faults.values().sum();
    let virtual_s = u64::try_from(sums.virtual_ns.div_euclid(1_000_000_000)).unwrap_or(u64::MAX);
    let mut text = String::new();
    if sums.failed.saturating_add(sums.mismatches) > 0 {
        let code = if sums.mismatches > 0 { 3 } else { 1 };
        add(
            &mut text,
            format_args!(
                "{} failed, {} passed, {} not run (--max-fail {})  exit {code}\n",
                thousands(sums.failed.saturating_add(sums.mismatches)),
                thousands(sums.passed),
                thousands(wanted.saturating_sub(done)),
                args.max_fail
            ),
        );
    } else {
        let word = if done < wanted { "part" } else { "ok" };
        add(
            &mut text,
            format_args!(
                "{word:<5} {} seeds in {elapsed_s:.1} s, {} ops, {} virtual s, {} faults (crash {}, other {})\n",
                thousands(done),
                thousands(sums.ops),
                thousands(virtual_s),
                thousands(faults),
                thousands(crashes),
                thousands(faults.saturating_sub(crashes))
            ),
        );
        if done < wanted {
            let left = thousands(wanted.saturating_sub(done));
            add(&mut text, format_args!("      {left} seeds not run; --resume goes on\n"));
        }
    }
    let rules: Vec<String> =
        sums.counts.iter().map(|(rule, n)| format!("{rule} {}", thousands(n))).collect();
    let lines: Vec<String> = rules.chunks(RULES_A_LINE).map(|line| line.join(", ")).collect();
    add(&mut text, format_args!("      rules: {}\n", lines.join(",\n             ")));
    let unmet = sums.unmet();
    let met = MARKS.len().saturating_sub(unmet.len());
    add(&mut text, format_args!("      marks: {met} of {} met", MARKS.len()));
    // A short sweep meets few of them, and a list of the others says nothing.
    if !unmet.is_empty() && (args.all_marks || unmet.len() <= UNMET_NAMED_MAX) {
        add(&mut text, format_args!("; never: {}", unmet.join(", ")));
    }
    text.push('\n');
    let [ends, states, exhausted] = sums.crashes;
    add(
        &mut text,
        format_args!(
            "      crash states: {} of {} crashes, all states of {}\n",
            thousands(states),
            thousands(ends),
            thousands(exhausted)
        ),
    );
    let audit = if sums.mismatches == 0 { "trace hashes equal" } else { "trace hashes differ" };
    add(
        &mut text,
        format_args!(
            "      audit: {} seeds run twice, {audit}; wrote {}\n",
            thousands(sums.audited),
            runs.display()
        ),
    );
    text
}
