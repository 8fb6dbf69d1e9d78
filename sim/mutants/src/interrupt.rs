//! Ctrl-C: the first lets the mutants finish that are under way, the second ends them and all else.
//!
//! A terminal sends its Ctrl-C to every process of a group. A swarm that died of it would look like
//! one that a mutant killed, so what is started here has groups of its own.

use core::sync::atomic::{AtomicU32, Ordering};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Exit code of a process that a second Ctrl-C ended.
const EXIT_KILLED: i32 = 130;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Groups that run.
static GROUPS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn groups() -> MutexGuard<'static, Vec<u32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens from here on. A process that cannot listen dies of the first Ctrl-C, as any other does.
#[expect(clippy::exit, reason = "the user asked twice: rows are complete files or absent")]
pub(crate) fn listen() {
    ctrlc::set_handler(|| {
        if COUNT.fetch_add(1, Ordering::Relaxed) == 0 {
            return;
        }
        for group in groups().iter() {
            let mut kill = Command::new("kill");
            // What is gone already needs no signal.
            kill.args(["-TERM", "--", &format!("-{group}")]).status().map(drop).unwrap_or_default();
        }
        std::process::exit(EXIT_KILLED);
    })
    .unwrap_or_default();
}

/// Whether somebody wants to stop.
pub(crate) fn asked() -> bool {
    COUNT.load(Ordering::Relaxed) > 0
}

/// Runs a command to its end, whatever the terminal sends meanwhile.
pub(crate) fn output(command: &mut Command) -> io::Result<Output> {
    let mut running = groups();
    let child = command.process_group(0).spawn()?;
    let group = child.id();
    running.push(group);
    drop(running);
    let output = child.wait_with_output();
    groups().retain(|other| *other != group);
    output
}
