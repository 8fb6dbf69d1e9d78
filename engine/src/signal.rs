//! Wake-ups between tasks: who waits looks first, then listens, then looks again.

use event_listener::{Event, EventListener};

/// Something happened that a waiter may care about.
///
/// A waiter takes a listener *before* it looks at the state it waits for, so that no wake-up
/// between the look and the wait is lost.
#[derive(Debug, Default)]
pub struct Signal {
    event: Event,
}

impl Signal {
    /// A signal nobody waits for.
    pub const fn new() -> Self {
        Self { event: Event::new() }
    }

    /// A listener for raises from now on.
    pub fn listen(&self) -> EventListener {
        self.event.listen()
    }

    /// Wakes everyone who listens.
    pub fn raise(&self) {
        self.event.notify(usize::MAX);
    }
}
