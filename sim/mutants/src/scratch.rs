//! A copy of the source tree that takes patches, and the swarm built there.
//!
//! Files that are as they should be are not touched, so that a build does no more than a patch
//! makes necessary.

#![expect(clippy::disallowed_methods, reason = "the copy is a folder of the machine at hand")]

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::interrupt;
use crate::rows::{Row, SwarmLine, hash};

/// What says whether a mutant's changed place was passed; below every mutant.
const REACHED_PATCH: &str = "sim/mutants/reached.patch";

/// The swarm in a build folder.
const SWARM: &str = "mutant/swarm";

/// Folders whose content a row depends on.
const MEASURED: [&str; 5] =
    ["engine/src", "sim/src", "workloads/src", "sim/mutants/src/bin", REACHED_PATCH];

/// A copy with a build folder of its own.
#[derive(Debug)]
pub(crate) struct Scratch {
    root: PathBuf,
    tree: PathBuf,
    build: PathBuf,
}

impl Scratch {
    /// The copy of this number, wherever it was left.
    pub(crate) fn new(root: &Path, number: usize) -> Result<Self, String> {
        let base = root.join("target/mutants");
        let suffix = if number == 0 { String::new() } else { number.to_string() };
        let tree = base.join(format!("tree{suffix}"));
        let build = base.join(format!("build{suffix}"));
        for folder in [&tree, &build] {
            fs::create_dir_all(folder).map_err(at(folder))?;
        }
        Ok(Self { root: root.to_owned(), tree, build })
    }

    /// Makes the copy the tree as it is, with one mutant or none, and builds the swarm.
    pub(crate) fn plant(&self, mutant: Option<&str>) -> Result<(), String> {
        self.restore()?;
        self.apply(REACHED_PATCH)?;
        if let Some(id) = mutant {
            self.apply(&format!("sim/mutants/{id}.patch"))?;
        }
        self.compile()
    }

    /// Runs the swarm where an earlier run of it ended, up to `cpu_s` processor seconds in all.
    pub(crate) fn swarm(&self, before: &Row, cpu_s: u32) -> Result<SwarmLine, String> {
        let left = (f64::from(cpu_s) - before.cpu_s).max(1.0);
        let arguments = ["--cpu-s", &left.to_string(), "--from", &before.seeds.to_string()];
        run_swarm(&self.build.join(SWARM), &arguments)
    }

    /// Keeps the swarm that was built last under another name.
    pub(crate) fn keep_swarm(&self, name: &Path) -> Result<(), String> {
        fs::copy(self.build.join(SWARM), name).map(|_bytes| ()).map_err(at(name))
    }

    /// Writes every file that differs from the tree's, and removes what is not there.
    fn restore(&self) -> Result<(), String> {
        let wanted = files(&self.root)?;
        for name in &wanted {
            let (from, to) = (self.root.join(name), self.tree.join(name));
            let text = match fs::read(&from) {
                Ok(text) => text,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(at(&from)(error)),
            };
            if fs::read(&to).is_ok_and(|there| there == text) {
                continue;
            }
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).map_err(at(folder))?;
            }
            fs::write(&to, text).map_err(at(&to))?;
        }
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(self.tree.join(&folder)).map_err(at(&self.tree))? {
                let entry = entry.map_err(at(&self.tree))?;
                let name = folder.join(entry.file_name());
                if entry.path().is_dir() {
                    folders.push(name);
                } else if !wanted.contains(&name) {
                    fs::remove_file(entry.path()).map_err(at(&entry.path()))?;
                }
            }
        }
        Ok(())
    }

    fn apply(&self, patch: &str) -> Result<(), String> {
        let mut git = Command::new("git");
        git.current_dir(&self.tree)
            // Inside a work tree git skips in silence what it does not track.
            .env("GIT_CEILING_DIRECTORIES", self.tree.parent().unwrap_or(&self.tree))
            .args(["apply", "--whitespace=nowarn"])
            .arg(self.root.join(patch));
        run(&mut git).map_err(|said| format!("{patch} does not apply: {said}"))
    }

    fn compile(&self) -> Result<(), String> {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(&self.tree)
            // A mutant may leave a variable unused.
            .env("RUSTFLAGS", "--cap-lints allow")
            .args(["build", "--quiet", "--profile", "mutant", "--locked"])
            .args(["-p", "forebay-mutants", "--bin", "swarm", "--target-dir"])
            .arg(&self.build);
        run(&mut cargo).map_err(|said| format!("it does not compile: {said}"))
    }
}

/// Runs one seed in the swarm of another tree.
pub(crate) fn replay(swarm: &Path, seed: u64) -> Result<SwarmLine, String> {
    run_swarm(swarm, &["--from", &seed.to_string(), "--to", &(seed + 1).to_string()])
}

/// Runs a swarm to its end.
fn run_swarm(swarm: &Path, arguments: &[&str]) -> Result<SwarmLine, String> {
    let mut command = Command::new(swarm);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let ran = interrupt::output(&mut command).map_err(at(swarm))?;
    let text = String::from_utf8_lossy(&ran.stdout);
    let last = text.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    let mut line: SwarmLine = last.unwrap_or_default();
    if !line.done {
        // The process is gone: a second panic on the way out of one, or no memory.
        line.rule = Some("panic".to_owned());
        line.detail = format!("the process ended: {}", ran.status);
    }
    Ok(line)
}

/// Runs a command; where it fails, what it said, in one line.
fn run(command: &mut Command) -> Result<(), String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = interrupt::output(command).map_err(|error| error.to_string())?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Err(lines.iter().take(8).copied().collect::<Vec<_>>().join(" | "))
}

/// The files of the tree, those that nobody has committed yet included.
fn files(root: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "-co", "--exclude-standard"]);
    let ran = git.output().map_err(|error| format!("git: {error}"))?;
    if !ran.status.success() {
        return Err(format!("git ls-files failed: {}", String::from_utf8_lossy(&ran.stderr)));
    }
    let text = String::from_utf8_lossy(&ran.stdout);
    Ok(text.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect())
}

/// What a row depends on beside its patch.
pub(crate) fn tree_hash(root: &Path) -> Result<String, String> {
    let mut all = Vec::new();
    for name in files(root)? {
        if MEASURED.iter().any(|folder| name.starts_with(folder)) {
            let path = root.join(&name);
            all.extend_from_slice(name.to_string_lossy().as_bytes());
            all.extend(fs::read(&path).map_err(at(&path))?);
        }
    }
    Ok(hash(&all))
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.to_owned();
    move |error| format!("{}: {error}", path.display())
}
