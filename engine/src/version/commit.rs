//! A group of edits on its way into the manifest: what comes before it, and what it changes.

use core::pin::Pin;

use super::edit::Edit;
use super::set::VersionSet;
use crate::error::Result;

/// Runs when an edit is durable, before the next one is installed.
pub type Install = Box<dyn FnOnce(&VersionSet) + Send>;

/// Completes the edits of a commit when they are written, behind all that was installed before.
pub type Complete = Box<dyn FnOnce(&mut Vec<Edit>) + Send>;

/// What must be durable before a commit may be written, such as the log up to some number.
pub type Precondition = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<()>>>> + Send>;

/// A group of edits on its way into the manifest.
pub struct Commit {
    pub(super) edits: Vec<Edit>,
    complete: Option<Complete>,
    precondition: Option<Precondition>,
    pub(super) install: Option<Install>,
}

impl Commit {
    /// Edits that become durable together and are then installed, by `install` or by applying them.
    pub fn new(edits: Vec<Edit>, install: Option<Install>) -> Self {
        Self { edits, complete: None, precondition: None, install }
    }

    /// The same, with edits that are completed when they are written.
    #[must_use]
    pub fn completed_by(self, complete: Complete) -> Self {
        Self { complete: Some(complete), ..self }
    }

    /// The same, not written before this is done; not at all where it fails.
    #[must_use]
    pub fn after(self, precondition: Precondition) -> Self {
        Self { precondition: Some(precondition), ..self }
    }

    pub(super) async fn prepare(&mut self) -> Result<()> {
        if let Some(precondition) = self.precondition.take() {
            precondition().await?;
        }
        if let Some(complete) = self.complete.take() {
            complete(&mut self.edits);
        }
        Ok(())
    }
}
