//! Ctrl-C: the first finishes what runs now, the second ends at once.

use core::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Exit code of a process that a second Ctrl-C ended.
const EXIT_KILLED: i32 = 130;

/// Listens from now on. A process that cannot listen dies of the first Ctrl-C, as any other does.
#[expect(clippy::exit, reason = "the user asked twice: results are complete files or absent")]
pub(super) fn listen() {
    ctrlc::set_handler(|| {
        if COUNT.fetch_add(1, Ordering::Relaxed) > 0 {
            std::process::exit(EXIT_KILLED);
        }
    })
    .unwrap_or_default();
}

/// Whether somebody wants to stop.
pub(super) fn asked() -> bool {
    COUNT.load(Ordering::Relaxed) > 0
}
