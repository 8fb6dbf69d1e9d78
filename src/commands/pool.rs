//! Work on as many threads as asked for, until all is done or somebody wants to stop.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::interrupt;
use crate::cli::Global;
use crate::progress::{Progress, ProgressMode};

/// Threads that are worth having, where nobody says how many.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does each task once, in order as threads come free, and shows how far it is.
pub(super) fn run<T: Sync>(
    global: &Global,
    tasks: &[T],
    threads: usize,
    each: impl Fn(&T, &Progress) + Sync,
) {
    let total = u64::try_from(tasks.len()).unwrap_or(u64::MAX);
    let mode = if global.quiet { ProgressMode::None } else { global.progress };
    let progress = Progress::new(mode, total, "runs");
    let next = AtomicUsize::new(0);
    let work = || {
        while !interrupt::asked() {
            let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            each(task, &progress);
            progress.add(1);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(tasks.len()) {
            scope.spawn(work);
        }
        work();
    });
    progress.finish();
}
