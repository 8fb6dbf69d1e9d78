//! A value that many readers share and that is replaced as a whole: a tree's view.
//!
//! A reader keeps what it loaded for as long as it likes; a change never waits for it and never
//! shows it half of itself.

use std::sync::Arc;

use crate::sync::RwLock;

/// The newest of a sequence of immutable values.
#[derive(Debug, Default)]
pub struct Pointer<T> {
    current: RwLock<Arc<T>>,
}

impl<T: Clone> Pointer<T> {
    /// The newest value; it stays as it is.
    pub fn load(&self) -> Arc<T> {
        Arc::clone(&self.current.read())
    }

    /// Puts a changed copy in the place of the newest value, in one step. One change at a time.
    pub fn change(&self, f: impl FnOnce(&mut T)) {
        let mut current = self.current.write();
        let mut next = T::clone(&current);
        f(&mut next);
        *current = Arc::new(next);
    }

    /// Looks at the newest value without keeping it; a change waits meanwhile.
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.current.read())
    }
}
