//! `forebay fuzz`: a random scenario for each seed, against the reference model.
//!
//! Seeds run on as many threads as asked for and are told in seed order, so that the output is the same
//! for any number of threads. A failure's file is there before anything is said about it.

mod tell;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use forebay_sim::bugs::Bug;
use forebay_sim::check::liveness::c12_same_trace;
use forebay_sim::check::{Rule, RuleCounts};
use forebay_sim::marks::MARKS;
use forebay_sim::report::{Reduced, Report};
use forebay_sim::run::{Outcome, check_settings, run_scenario, scenario_of};
use forebay_sim::scenario::{Case, Scenario};
use forebay_sim::shrink::{Budget, shrink_within};
use serde::{Deserialize, Serialize};

use super::{EXIT_FOUND, EXIT_INCOMPLETE, EXIT_NONDETERMINISM, Stop, complain, interrupt, say};
use crate::cli::{Format, Global};
use crate::experiment::Seeds;
use crate::output::{OutputFile, create_folder, for_each_line, write_file};
use crate::progress::{Progress, ProgressMode};

pub(super) use tell::reproduce;
use tell::{add, program};

/// The schema of a row of `runs.jsonl`.
pub const ROW_SCHEMA: &str = "forebay.fuzz-run/1";

/// Seconds of the machine after which a shrink gives the best so far, and a report what it knows,
/// whatever their budgets.
const SHRINK_S_MAX: u64 = 22;
const REPORT_S_MAX: u64 = 6;

/// Flags of `fuzz`.
#[derive(Clone, Debug, Args)]
pub struct FuzzArgs {
    /// Seeds to run
    #[arg(long, value_name = "A..B", env = "FOREBAY_SEEDS", default_value = "0..500")]
    pub seeds: Seeds,
    /// A setting instead of what each seed draws
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE", value_parser = crate::cli::setting)]
    pub settings: Vec<(String, String)>,
    /// Plants a bug in the simulated world, which must be found
    #[arg(long, value_name = "NAME", value_parser = planted)]
    pub bug: Option<Bug>,
    /// Stop after this many failures
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_fail: u64,
    /// Percentage of seeds that run twice, to compare trace hashes; the first always does
    #[arg(long, value_name = "PCT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub audit: u64,
    /// Stop after this time: 90s, 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub time: Option<u64>,
    /// Judge every state that a crash may leave where at most 12 things are pending, else 16 of them
    #[arg(long)]
    pub exhaustive: bool,
    /// Keep the rows of seeds that passed before
    #[arg(long)]
    pub resume: bool,
    /// Fail where a mark was never met: for sweeps of 100000 seeds and more
    #[arg(long)]
    pub all_marks: bool,
    /// Where results go; default target/forebay/fuzz
    #[arg(long, value_name = "DIR", env = "FOREBAY_OUT")]
    pub out: Option<PathBuf>,
    /// Seeds at once; default one per processor
    #[arg(short, long, value_name = "N", env = "FOREBAY_JOBS", value_parser = crate::cli::jobs)]
    pub jobs: Option<usize>,
}

/// A planted bug by its name.
pub(crate) fn planted(text: &str) -> Result<Bug, String> {
    Bug::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Bug::ALL.into_iter().map(Bug::name).collect();
        format!("allowed: {}", names.join(", "))
    })
}

fn time(text: &str) -> Result<u64, String> {
    let refused = || "allowed: a whole number with s, m or h behind it".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(refused)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(refused()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(refused)
}

/// One row of `runs.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FuzzRow {
    /// [`ROW_SCHEMA`].
    pub schema: String,
    /// The seed.
    pub seed: u64,
    /// `pass`, `fail` or `nondeterministic`.
    pub outcome: String,
    /// The broken rule.
    pub rule: Option<Rule>,
    /// Hash over everything that happened.
    pub trace_hash: String,
    /// Operations answered.
    pub ops: u64,
    /// Virtual time that passed.
    pub virtual_ns: u64,
    /// Crashes, states that they left and that were judged, and crashes of which all were.
    #[serde(default)]
    pub crashes: [u64; 3],
    /// Faults and crashes by name.
    pub faults: BTreeMap<String, u64>,
    /// How often each rule was asked, without those that were not.
    #[serde(default)]
    pub rules: BTreeMap<Rule, u64>,
    /// Rare things that happened, by name.
    #[serde(default)]
    pub marks: BTreeMap<String, u64>,
    /// Whether it ran twice.
    #[serde(default)]
    pub audited: bool,
    /// The command that runs this seed again.
    pub replay: String,
}

/// A seed that ran.
struct Ran {
    row: FuzzRow,
    failure: Option<Failed>,
}

/// A failure, on disk already.
struct Failed {
    report: Option<Box<Report>>,
    file: PathBuf,
}

struct Fuzz<'a> {
    args: &'a FuzzArgs,
    folder: PathBuf,
    known: BTreeSet<u64>,
}

impl Fuzz<'_> {
    fn audits(&self, seed: u64) -> bool {
        let index = seed.saturating_sub(self.args.seeds.start);
        let share = |n: u64| n.saturating_mul(self.args.audit).div_euclid(100);
        index == 0 || share(index.saturating_add(1)) > share(index)
    }

    fn run(&self, seed: u64) -> Ran {
        let scenario = scenario_of(seed, &self.args.settings);
        let mut outcome = run_scenario(seed, &scenario, self.args.bug);
        let audited = self.audits(seed);
        let mut same = Ok(());
        if audited {
            let again = run_scenario(seed, &scenario, self.args.bug);
            same = c12_same_trace(&mut outcome.counts, outcome.trace_hash, again.trace_hash);
        }
        let word = match (&same, &outcome.violation) {
            (Err(_), _) => "nondeterministic",
            (Ok(()), Some(_)) => "fail",
            (Ok(()), None) => "pass",
        };
        let mut row = self.row(seed, word, &outcome);
        row.audited = audited;
        let failure = match same {
            Err(violation) => {
                outcome.violation = Some(violation.at(outcome.virtual_ns));
                Some(self.store(seed, scenario, &outcome, false))
            }
            Ok(()) if outcome.violation.is_some() => {
                Some(self.store(seed, scenario, &outcome, true))
            }
            Ok(()) => None,
        };
        Ran { row, failure }
    }

    fn row(&self, seed: u64, word: &str, outcome: &Outcome) -> FuzzRow {
        FuzzRow {
            schema: ROW_SCHEMA.to_owned(),
            seed,
            outcome: word.to_owned(),
            rule: outcome.violation.as_ref().map(|violation| violation.rule),
            trace_hash: format!("{:016x}", outcome.trace_hash),
            ops: outcome.ops,
            virtual_ns: outcome.virtual_ns,
            crashes: [outcome.crashes, outcome.crash_states, outcome.crashes_exhausted],
            faults: outcome.faults.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            rules: outcome.counts.iter().filter(|(_, n)| *n > 0).collect(),
            marks: outcome.marks.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            audited: false,
            replay: from_seed("forebay", seed, &self.args.settings, self.args.bug),
        }
    }

    /// Writes the failure's file: first as it is, then smaller.
    fn store(&self, seed: u64, scenario: Scenario, outcome: &Outcome, smaller: bool) -> Failed {
        let file = self.folder.join("failures").join(format!("{seed}.json"));
        let mut case = Case::new(seed, scenario, self.args.bug);
        case.rule = outcome.violation.as_ref().map(|violation| violation.rule);
        write_case(&file, &case);
        let mut reduced = None;
        let late = at_most(SHRINK_S_MAX);
        if smaller && let Some(shrunk) = shrink_within(&case, outcome, Budget::default(), &late) {
            reduced = Some(Reduced { ops_before: case.scenario.ops(), runs: shrunk.runs });
            case = shrunk.case(seed, self.args.bug);
            write_case(&file, &case);
        }
        let report = told(&case, (outcome, reduced));
        let file = std::path::absolute(&file).unwrap_or(file);
        Failed { report, file }
    }
}

/// The report of a failure; of one that is not the same run twice, what the first run says.
pub(super) fn told(
    case: &Case,
    (outcome, reduced): (&Outcome, Option<Reduced>),
) -> Option<Box<Report>> {
    let found = outcome.violation.clone()?;
    let repeats = found.rule != Rule::C12;
    let full = if repeats { Report::build(case, reduced, &at_most(REPORT_S_MAX)) } else { None };
    Some(Box::new(full.unwrap_or_else(|| Report::of(case, found))))
}

/// Says when so many seconds of the machine are over, or the user asked for the end.
#[expect(clippy::disallowed_types, reason = "a person's waiting time, outside every world")]
fn at_most(seconds: u64) -> impl Fn() -> bool {
    let begun = std::time::Instant::now();
    move || interrupt::asked() || begun.elapsed().as_secs() >= seconds
}

fn write_case(file: &Path, case: &Case) {
    let text = serde_json::to_string_pretty(case).unwrap_or_default();
    if let Err(error) = write_file(file, &format!("{text}\n")) {
        complain(&error.to_string());
    }
}

/// The command that runs a seed again.
pub(super) fn from_seed(
    program: &str,
    seed: u64,
    settings: &[(String, String)],
    bug: Option<Bug>,
) -> String {
    let mut line = format!("{program} replay --seed {seed}");
    for (key, value) in settings {
        add(&mut line, format_args!(" -s {key}={value}"));
    }
    if let Some(bug) = bug {
        add(&mut line, format_args!(" --bug {bug}"));
    }
    line
}

/// What all seeds said together, in seed order.
struct Collector<'a> {
    args: &'a FuzzArgs,
    format: Format,
    next: u64,
    waiting: BTreeMap<u64, Ran>,
    rows: Vec<FuzzRow>,
    sums: Sums,
}

/// Sums over seeds.
#[derive(Default)]
struct Sums {
    passed: u64,
    failed: u64,
    mismatches: u64,
    audited: u64,
    ops: u64,
    virtual_ns: u128,
    /// Crashes, states judged, crashes of which all states were.
    crashes: [u64; 3],
    faults: BTreeMap<String, u64>,
    counts: RuleCounts,
    marks: BTreeMap<String, u64>,
    failures: Vec<serde_json::Value>,
}

impl Collector<'_> {
    fn full(&self) -> bool {
        self.sums.failed.saturating_add(self.sums.mismatches) >= self.args.max_fail
    }

    fn take(&mut self, seed: u64, ran: Ran) {
        self.waiting.insert(seed, ran);
        while !self.full()
            && let Some(ran) = self.waiting.remove(&self.next)
        {
            self.next = self.next.saturating_add(1);
            self.tell(ran);
        }
    }

    fn tell(&mut self, ran: Ran) {
        let sums = &mut self.sums;
        sums.add_row(&ran.row);
        if self.format == Format::Json
            && let Ok(line) = serde_json::to_string(&ran.row)
        {
            say(&format!("{line}\n"));
        }
        if self.format == Format::Csv {
            say(&tell::csv(&ran.row));
        }
        if let Some(failed) = &ran.failure {
            sums.failures.push(serde_json::json!({
                "seed": ran.row.seed,
                "rule": failed.report.as_ref().map(|report| report.violation.rule),
                "file": failed.file.display().to_string(),
                "replay": format!("forebay replay {}", tell::quoted(&failed.file)),
                "report": failed.report,
            }));
            if self.format == Format::Human {
                if let Some(report) = &failed.report {
                    say(&report.to_string());
                }
                let from = from_seed(&program(), ran.row.seed, &self.args.settings, self.args.bug);
                say(&reproduce(&failed.file, Some(&from)));
            }
        }
        self.rows.push(ran.row);
    }
}

impl Sums {
    /// Marks that no seed met.
    fn unmet(&self) -> Vec<&'static str> {
        let names = MARKS.into_iter().map(|(name, _)| name);
        names.filter(|name| !self.marks.contains_key(*name)).collect()
    }

    fn add_row(&mut self, row: &FuzzRow) {
        match row.outcome.as_str() {
            "pass" => self.passed += 1,
            "nondeterministic" => self.mismatches += 1,
            _ => self.failed += 1,
        }
        self.ops += row.ops;
        self.virtual_ns += u128::from(row.virtual_ns);
        for (sum, n) in self.crashes.iter_mut().zip(row.crashes) {
            *sum += n;
        }
        for (name, n) in &row.faults {
            *self.faults.entry(name.clone()).or_default() += n;
        }
        for (rule, n) in &row.rules {
            self.counts.add(*rule, *n);
        }
        for (name, n) in &row.marks {
            *self.marks.entry(name.clone()).or_default() += n;
        }
        self.audited += u64::from(row.audited);
    }
}

/// Runs seeds.
///
/// # Errors
///
/// What to say and the exit code: 2 where nothing was run or written, 1 where a rule was broken, 3 where
/// a seed gave two trace hashes, 6 where time or the user ended it before the last seed.
pub fn fuzz(global: &Global, args: &FuzzArgs) -> Result<(), Stop> {
    let mut args = args.clone();
    if args.exhaustive {
        args.settings.push(("exhaustive".to_owned(), "true".to_owned()));
    }
    let args = &args;
    check_settings(args.seeds.start, &args.settings).map_err(Stop::usage)?;
    if global.print_config {
        tell::config(args);
        return Ok(());
    }
    let folder = args.out.clone().unwrap_or_else(|| PathBuf::from("target/forebay/fuzz"));
    create_folder(&folder).map_err(Stop::usage)?;
    let runs = folder.join("runs.jsonl");
    let mut collector = Collector {
        args,
        format: global.format,
        next: args.seeds.start,
        waiting: BTreeMap::new(),
        rows: Vec::new(),
        sums: Sums::default(),
    };
    if args.resume && runs.is_file() {
        resume(&runs, &mut collector)?;
    }
    let known = collector.rows.iter().map(|row| row.seed).collect();
    let fuzz = Fuzz { args, folder, known };
    interrupt::listen();
    if global.format == Format::Csv {
        say(tell::CSV_HEADER);
    }
    let elapsed = sweep(global, &fuzz, &mut collector);
    store_rows(&runs, &mut collector.rows)?;
    tell::end(global.format, &collector, (&runs, elapsed))?;
    let done = to_u64(collector.rows.len());
    let wanted = args.seeds.end.saturating_sub(args.seeds.start);
    let code = if collector.sums.mismatches > 0 {
        EXIT_NONDETERMINISM
    } else if collector.sums.failed > 0 {
        EXIT_FOUND
    } else if done < wanted {
        EXIT_INCOMPLETE
    } else if args.all_marks && !collector.sums.unmet().is_empty() {
        EXIT_FOUND
    } else {
        return Ok(());
    };
    Err(Stop { code, line: None })
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn resume(runs: &Path, collector: &mut Collector<'_>) -> Result<(), Stop> {
    let (args, mut rows) = (collector.args, Vec::new());
    let seeds = args.seeds;
    for_each_line(runs, |_, line| {
        let row: FuzzRow = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if row.replay != from_seed("forebay", row.seed, &args.settings, args.bug) {
            return Err("this row is of other settings: leave out --resume, or take another --out"
                .to_owned());
        }
        if seeds.contains(row.seed) && row.outcome == "pass" {
            rows.push(row);
        }
        Ok(())
    })
    .map_err(Stop::usage)?;
    for row in &rows {
        collector.sums.add_row(row);
    }
    collector.rows = rows;
    Ok(())
}

fn store_rows(runs: &Path, rows: &mut [FuzzRow]) -> Result<(), Stop> {
    rows.sort_by_key(|row| row.seed);
    let failed = |error: crate::output::OutputError| Stop::with(EXIT_FOUND, error);
    let mut file = OutputFile::create(runs).map_err(failed)?;
    for row in rows.iter() {
        let line = serde_json::to_string(row).map_err(Stop::usage)?;
        file.text(&format!("{line}\n")).map_err(failed)?;
    }
    file.finish().map_err(failed)
}

/// Runs all seeds that are left; says how long it took, in seconds of the machine.
#[expect(clippy::disallowed_types, reason = "a person's waiting time, outside every world")]
fn sweep(global: &Global, fuzz: &Fuzz<'_>, collector: &mut Collector<'_>) -> f64 {
    let begun = std::time::Instant::now();
    let seeds = fuzz.args.seeds;
    let mode = if global.quiet { ProgressMode::None } else { global.progress };
    let progress = Progress::new(mode, seeds.end.saturating_sub(seeds.start), "seeds");
    progress.note("fail 0");
    progress.add(to_u64(fuzz.known.len()));
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let collector = Mutex::new(collector);
    let late = || fuzz.args.time.is_some_and(|limit| begun.elapsed().as_secs() >= limit);
    let work = || {
        while !interrupt::asked() && !stop.load(Ordering::Relaxed) && !late() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            if fuzz.known.contains(&seed) {
                let mut collector = collector.lock().unwrap_or_else(PoisonError::into_inner);
                collector.skip(seed);
                continue;
            }
            let ran = fuzz.run(seed);
            if global.verbose > 0 {
                progress.line(&format!("{} seed {seed}", ran.row.outcome));
            }
            let mut collector = collector.lock().unwrap_or_else(PoisonError::into_inner);
            collector.take(seed, ran);
            if collector.full() {
                stop.store(true, Ordering::Relaxed);
            }
            let failed = collector.sums.failed.saturating_add(collector.sums.mismatches);
            progress.note(&format!("fail {failed}"));
            progress.add(1);
        }
    };
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = fuzz.args.jobs.unwrap_or_else(processors);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    progress.finish();
    begun.elapsed().as_secs_f64()
}

impl Collector<'_> {
    /// A seed whose row is there already.
    fn skip(&mut self, seed: u64) {
        if seed == self.next {
            self.next = self.next.saturating_add(1);
        }
        let known: BTreeSet<u64> = self.rows.iter().map(|row| row.seed).collect();
        while known.contains(&self.next) {
            self.next = self.next.saturating_add(1);
        }
        while !self.full()
            && let Some(ran) = self.waiting.remove(&self.next)
        {
            self.next = self.next.saturating_add(1);
            self.tell(ran);
        }
    }
}
