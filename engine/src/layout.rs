//! How branches map to trees: the tree a branch lives in and the prefix of its keys there.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::options::Layout;
use crate::prefix::{PrefixExtractor, TreeExtractor};
use crate::types::{BranchId, TreeId, to_u64};

/// Bytes of the key prefix in layouts in which branches share trees: the branch's id, big-endian.
pub const PREFIX_BYTES: usize = 8;

/// Where in a tree a branch's keys are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Before every key of the branch; `None` where it has the tree to itself.
    pub prefix: Option<[u8; PREFIX_BYTES]>,
}

impl Place {
    /// The place of a branch in a layout.
    pub fn new(layout: Layout, branch: BranchId) -> Self {
        let prefix = match layout {
            Layout::PerTenant => None,
            Layout::Grouped(_) | Layout::Shared => Some(branch.0.to_be_bytes()),
        };
        Self { prefix }
    }

    /// A user's key as the tree stores it.
    pub fn key(&self, user_key: &[u8]) -> Bytes {
        match self.prefix {
            None => Bytes::copy_from_slice(user_key),
            Some(prefix) => {
                let mut key = BytesMut::with_capacity(PREFIX_BYTES + user_key.len());
                key.put_slice(&prefix);
                key.put_slice(user_key);
                key.freeze()
            }
        }
    }

    /// Bytes of the prefix.
    pub fn prefix_bytes(&self) -> usize {
        self.prefix.map_or(0, |p| p.len())
    }

    /// The first key behind all keys of the branch; `None` for the end of the tree.
    pub fn end(&self) -> Option<Bytes> {
        let next = u64::from_be_bytes(self.prefix?).checked_add(1)?;
        Some(Bytes::copy_from_slice(&next.to_be_bytes()))
    }

    /// A stored key as its user knows it.
    pub fn user_key(&self, stored: &Bytes) -> Bytes {
        stored.slice(self.prefix_bytes().min(stored.len())..)
    }
}

/// The branch whose key this is, in a tree that branches share; `None` where the key is too short
/// to be one.
pub fn branch_of(stored_key: &[u8]) -> Option<BranchId> {
    let prefix = stored_key.first_chunk::<PREFIX_BYTES>()?;
    Some(BranchId(u64::from_be_bytes(*prefix)))
}

/// What a prefix extractor of users' keys is for keys as trees of this layout store them.
pub fn extractor_of(layout: Layout, extractor: PrefixExtractor) -> TreeExtractor {
    let layout_bytes = match layout {
        Layout::PerTenant => 0,
        Layout::Grouped(_) | Layout::Shared => u8::try_from(PREFIX_BYTES).unwrap_or(u8::MAX),
    };
    TreeExtractor { layout_bytes, extractor }
}

/// How many trees a database of this layout begins with; 0 where each tenant brings its own.
pub fn initial_trees(layout: Layout) -> u64 {
    match layout {
        Layout::PerTenant => 0,
        Layout::Grouped(groups) => u64::from(groups),
        Layout::Shared => 1,
    }
}

/// The tree of a new tenant: its own, or the one its name hashes to. Trees of shared layouts have
/// the ids from 1 on.
pub fn tree_of(layout: Layout, name: &str, branch: BranchId) -> TreeId {
    match layout {
        Layout::PerTenant => TreeId(branch.0),
        Layout::Shared => TreeId(1),
        Layout::Grouped(groups) => {
            let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
            TreeId(1 + hash.checked_rem(u64::from(groups)).unwrap_or(0))
        }
    }
}

/// The one branch that may live in a tree; `None` in layouts in which branches share trees.
pub fn sole_branch_of(layout: Layout, tree: TreeId) -> Option<BranchId> {
    match layout {
        Layout::PerTenant => Some(BranchId(tree.0)),
        Layout::Grouped(_) | Layout::Shared => None,
    }
}

/// Between a tenant's name and that of its branch, where the branch is not `main`. No name holds
/// it.
pub const BRANCH_MARK: char = '@';

/// The branch that a tenant begins with.
pub const MAIN: &str = "main";

/// A branch's name with its tenant's: `TENANT@BRANCH`, and `TENANT` alone for its `main`.
pub fn full_name(tenant: &str, branch: &str) -> String {
    if branch == MAIN { tenant.to_owned() } else { format!("{tenant}{BRANCH_MARK}{branch}") }
}

/// Tenant and branch of a full name; the branch is `main` where it names none.
pub fn split_name(full_name: &str) -> (&str, &str) {
    full_name.split_once(BRANCH_MARK).unwrap_or((full_name, MAIN))
}

/// Refuses names that no tenant and no branch may have.
///
/// # Errors
///
/// [`InvalidArgument`](crate::Error::InvalidArgument) that says what is wrong with the name.
pub fn check_name(name: &str) -> crate::Result<()> {
    let fault = if name.is_empty() {
        "is empty"
    } else if name.len() > crate::types::NAME_BYTES_MAX {
        "is longer than 255 bytes"
    } else if name.contains(['/', '\\', '@']) {
        "holds a slash, a backslash or an @"
    } else if name.chars().any(char::is_control) {
        "holds a control character"
    } else if name == "." || name == ".." {
        "is a directory's name"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(40).collect();
    let bytes = to_u64(name.len());
    Err(crate::Error::InvalidArgument(format!(
        "name {shown:?} ({bytes} bytes) {fault}; allowed are 1 to 255 bytes without \
         / \\ @ and control characters"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixed_keys_come_back_and_stay_in_their_branch() {
        let place = Place::new(Layout::Shared, BranchId(7));
        let key = place.key(b"k");
        assert_eq!(branch_of(&key), Some(BranchId(7)));
        assert_eq!(place.user_key(&key), "k");
        assert!(key < place.end().unwrap());
        assert!(place.end().unwrap() <= Place::new(Layout::Shared, BranchId(8)).key(b""));
        assert_eq!(Place::new(Layout::Shared, BranchId(u64::MAX)).end(), None);
    }

    #[test]
    fn a_full_name_says_tenant_and_branch() {
        assert_eq!((full_name("t", "main"), full_name("t", "b")), ("t".into(), "t@b".into()));
        assert_eq!([split_name("t"), split_name("t@b")], [("t", "main"), ("t", "b")]);
    }

    #[test]
    fn names_that_could_harm_are_refused() {
        for name in ["", "a/b", "..", "a\nb", "a@b", &"x".repeat(256)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name("caf\u{e9} 1").is_ok());
        assert!(check_name(&"x".repeat(255)).is_ok());
    }
}
