//! Times in which calls do not come back: of one file, of one tree's tables, or of every sync.

use std::collections::BTreeMap;

use forebay_engine::types::Nanos;

/// What a call is, as far as it may have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waits<'a> {
    pub(crate) path: &'a str,
    /// The tree of the file's tables, where one is known.
    pub(crate) tree: Option<u64>,
    pub(crate) is_sync: bool,
}

/// When each stall ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stalls {
    pub(crate) files: BTreeMap<String, Nanos>,
    pub(crate) trees: BTreeMap<u64, Nanos>,
    pub(crate) syncs: Nanos,
}

impl Stalls {
    /// When a call may go on.
    pub(crate) fn until(&self, call: Waits<'_>) -> Nanos {
        let file = self.files.get(call.path).copied().unwrap_or(0);
        let tree = call.tree.and_then(|tree| self.trees.get(&tree)).copied().unwrap_or(0);
        file.max(tree).max(if call.is_sync { self.syncs } else { 0 })
    }

    /// When the last of them ends.
    pub(crate) fn end(&self) -> Nanos {
        self.files.values().chain(self.trees.values()).copied().fold(self.syncs, Nanos::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_that_of_the_longest_stall_of_any_kind() {
        let mut stalls = Stalls::default();
        assert_eq!(stalls.end(), 0);
        stalls.syncs = 3;
        assert_eq!(stalls.end(), 3);
        stalls.files.insert("/db/000001.wal".to_owned(), 7);
        stalls.files.insert("/db/000002.wal".to_owned(), 5);
        assert_eq!(stalls.end(), 7);
        stalls.trees.insert(4, 9);
        assert_eq!(stalls.end(), 9);
    }
}
