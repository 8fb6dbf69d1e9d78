//! Plants real bugs in a copy of the engine, one after another, and measures how soon the swarm
//! finds each.
//!
//! The bank is `sim/mutants/mutants.toml` with one patch for each bug that the engine can have. A
//! copy of the tree takes one patch at a time, is built, and runs the `swarm` binary for a slice of
//! processor time. What is known stays in `target/mutants/rows`, so a run that was stopped goes on
//! where it was; a row counts for the patch and the tree that it was measured with. First of all the
//! tree runs as it is: a simulator that finds bugs there has no score. Ctrl-C lets what is under way
//! finish and ends with 6.

mod bank;
mod interrupt;
mod rows;
mod scratch;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use crate::bank::{Bank, Mutant};
use crate::rows::{Row, Rows, Status, SwarmLine};
use crate::scratch::Scratch;

const HELP: &str = "\
Usage: forebay-mutants [--only M01,M07] [--cpu-s 180] [-j 1] [--any-tree] [--again]

  --only M01,M07   these mutants
  --cpu-s N        processor seconds that the swarm has for each
  -j N             mutants at once, each in a copy and a build folder of its own
  --any-tree       rows measured with another tree count too
  --again          no row counts
";

/// Processor seconds that the tree as it is must run without a broken rule.
const CANARY_CPU_S: u32 = 20;

/// Exit code of a run that is to be resumed.
const EXIT_INCOMPLETE: u8 = 6;

/// What the command line says.
#[derive(Clone, Debug)]
struct Arguments {
    only: Vec<String>,
    cpu_s: u32,
    jobs: usize,
    any_tree: bool,
    again: bool,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed =
            Self { only: Vec::new(), cpu_s: 180, jobs: 1, any_tree: false, again: false };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value\n{HELP}"));
            match word.as_str() {
                "--only" => parsed.only = value()?.split(',').map(str::to_owned).collect(),
                "--cpu-s" => parsed.cpu_s = number(&value()?)?,
                "-j" => parsed.jobs = usize::try_from(number(&value()?)?).unwrap_or(1).max(1),
                "--any-tree" => parsed.any_tree = true,
                "--again" => parsed.again = true,
                "-h" | "--help" => return Err(HELP.to_owned()),
                other => return Err(format!("{other:?} is no argument\n{HELP}")),
            }
        }
        Ok(parsed)
    }

    fn wants(&self, id: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == id)
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_not_one| format!("{text:?} is not a number"))
}

pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap_or_default();
}

/// What is measured where.
struct Work {
    root: PathBuf,
    bank: Bank,
    arguments: Arguments,
    rows: Mutex<Rows>,
    tree_hash: String,
}

impl Work {
    fn rows(&self) -> std::sync::MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The row that still counts for a mutant, as far as it goes.
    fn known(&self, id: &str, patch_hash: &str) -> Option<Row> {
        let rows = self.rows();
        let row = rows.of(id)?;
        let same_tree = self.arguments.any_tree || row.tree_hash == self.tree_hash;
        (!self.arguments.again && same_tree && row.patch_hash == patch_hash).then(|| row.clone())
    }

    /// Refuses a kill whose seed fails without the mutant as well.
    fn check_kill(&self, line: &SwarmLine) -> Result<(), String> {
        let Some(seed) = line.seed else { return Ok(()) };
        let plain = scratch::replay(&self.plain(), seed)?;
        plain.rule.map_or(Ok(()), |rule| {
            Err(format!("seed {seed} breaks {rule} without the mutant as well: {}", plain.detail))
        })
    }

    /// The swarm of the tree as it is.
    fn plain(&self) -> PathBuf {
        self.root.join(format!("target/mutants/plain-{}", self.tree_hash))
    }

    /// Measures one mutant, where nothing known says it all.
    fn measure(&self, scratch: &Scratch, mutant: &Mutant) -> Result<(), String> {
        let id = &mutant.id;
        let patch = self.bank.patch(id)?;
        let patch_hash = rows::hash(patch.as_bytes());
        let known = self.known(id, &patch_hash);
        if known.as_ref().is_some_and(|row| row.is_enough(self.arguments.cpu_s)) {
            return Ok(());
        }
        scratch.plant(Some(id))?;
        let before = known.unwrap_or_else(|| Row::new(&patch_hash, &self.tree_hash));
        let line = scratch.swarm(&before, self.arguments.cpu_s)?;
        self.check_kill(&line)?;
        let row = before.with(&line);
        say(&format!("{id} {} {}", mutant.difficulty, row.told()));
        self.rows().keep(id, row)
    }

    /// Runs the tree as it is, which must break no rule.
    fn canary(&self, scratch: &Scratch) -> Result<(), String> {
        let known = self.known("canary", "");
        if known.is_some_and(|row| row.is_enough(CANARY_CPU_S)) && self.plain().exists() {
            return Ok(());
        }
        scratch.plant(None)?;
        scratch.keep_swarm(&self.plain())?;
        let before = Row::new("", &self.tree_hash);
        let row = before.with(&scratch.swarm(&before, CANARY_CPU_S)?);
        say(&format!("canary {}", row.told()));
        if row.status == Status::Killed {
            return Err(format!("the tree without a mutant breaks a rule: {}", row.told()));
        }
        self.rows().keep("canary", row)
    }

    /// Measures what nobody has yet taken, until nothing is left or something fails.
    fn worker(&self, number: usize, queue: &Mutex<Vec<Mutant>>) -> Result<(), String> {
        let scratch = Scratch::new(&self.root, number)?;
        while !interrupt::asked() {
            let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
            let Some(mutant) = next else { return Ok(()) };
            if let Err(error) = self.measure(&scratch, &mutant) {
                queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
                return Err(format!("{}: {error}", mutant.id));
            }
        }
        Ok(())
    }
}

/// Measures what is left; says how many mutants an interrupt left out.
fn run(root: &Path) -> Result<usize, String> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let bank = Bank::read(root)?;
    if let Some(strange) = arguments.only.iter().find(|id| !bank.has(id)) {
        return Err(format!("{strange:?} is not in sim/mutants/mutants.toml"));
    }
    interrupt::listen();
    let jobs = arguments.jobs;
    let wanted = |mutant: &&Mutant| mutant.feature.is_none() && arguments.wants(&mutant.id);
    // Taken from the end.
    let queue: Vec<Mutant> = bank.mutants.iter().filter(wanted).rev().cloned().collect();
    let rows = Mutex::new(Rows::read(root)?);
    let tree_hash = scratch::tree_hash(root)?;
    let work = Work { root: root.to_owned(), bank, arguments, rows, tree_hash };
    work.canary(&Scratch::new(root, 0)?)?;
    let queue = Mutex::new(queue);
    let outcomes: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs)
            .map(|number| {
                scope.spawn({
                    let (work, queue) = (&work, &queue);
                    move || work.worker(number, queue)
                })
            })
            .collect();
        let ended = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.map(|end| end.unwrap_or_else(|_panic| Err("a worker panicked".to_owned()))).collect()
    });
    rows::report(root, &work.bank, &work.rows())?;
    outcomes.into_iter().collect::<Result<(), String>>()?;
    Ok(queue.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).len())
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let done = root.canonicalize().map_err(|error| error.to_string()).and_then(|root| run(&root));
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(left) => {
            let line = format!("interrupted: {left} mutants left; the same command goes on");
            writeln!(io::stderr(), "mutants: {line}").unwrap_or_default();
            ExitCode::from(EXIT_INCOMPLETE)
        }
        Err(error) => {
            writeln!(io::stderr(), "mutants: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_have_defaults_and_strange_ones_are_refused() {
        let plain = parse("").unwrap();
        assert_eq!((plain.cpu_s, plain.jobs), (180, 1));
        assert!(plain.wants("M01"));
        let some = parse("--only M01,M02 --cpu-s 600 -j 2").unwrap();
        assert!(some.wants("M02") && !some.wants("M03"));
        assert_eq!((some.cpu_s, some.jobs), (600, 2));
        for line in ["--cpu-s", "--cpu-s x", "M01"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
