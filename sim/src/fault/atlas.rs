//! The atlas of damage: which bytes of which files a fault took, and so which promises are void.
//!
//! Damage is loud and local: a read of damaged bytes gives the right ones or an error that names the
//! file. So an error is excused exactly where it names a file that was hit, and a table excuses the one
//! tree whose data it holds. Nothing excuses wrong bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::Fault;
use crate::check::Rule;

/// What a file is to the database, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// Data of one tree.
    Table,
    /// The log of all trees.
    Wal,
    /// The manifest or its pointer: all trees.
    Manifest,
    /// Anything else.
    Other,
}

impl FileKind {
    /// The kind of the file at this path.
    pub fn of(path: &str) -> Self {
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        match name.rsplit_once('.') {
            Some((_, "sst")) => Self::Table,
            Some((_, "wal")) => Self::Wal,
            _ if name.starts_with("MANIFEST-") || name.starts_with("CURRENT") => Self::Manifest,
            Some(_) | None => Self::Other,
        }
    }

    /// Whether every tenant's data goes through it.
    pub fn is_shared(self) -> bool {
        match self {
            Self::Table => false,
            Self::Wal | Self::Manifest | Self::Other => true,
        }
    }
}

/// One piece of damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The fault that did it.
    pub fault: Fault,
    /// The file, by the name that it had.
    pub path: String,
    /// The bytes that are not what was written, first and behind the last.
    pub bytes: (u64, u64),
}

/// A table in a file, its first byte and the one behind its last; and its tree.
type Owned = ((u64, u64), u64);

/// All damage of a world, and whose it turned out to be.
#[derive(Clone, Debug, Default)]
pub struct Atlas {
    damage: Vec<Damage>,
    files: BTreeSet<String>,
    /// The trees of a file's tables, each with the table's first byte and the one behind its last, as
    /// the engine said when it made them, or as the first error told.
    owners: BTreeMap<String, Vec<Owned>>,
    /// The tree whose tables a tree began with.
    parents: BTreeMap<u64, u64>,
}

impl Atlas {
    /// Adds damage.
    pub fn record(&mut self, damage: Damage) {
        self.files.insert(damage.path.clone());
        self.damage.push(damage);
    }

    /// Everything that was recorded, oldest first.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Whether nothing was damaged.
    pub fn is_empty(&self) -> bool {
        self.damage.is_empty()
    }

    /// Whether damage voids promises of this rule, somewhere.
    pub fn voids(&self, rule: Rule) -> bool {
        self.damage.iter().any(|damage| damage.fault.voids().contains(&rule))
    }

    /// Whether a file was hit, or the names of its directory were. A file that is put in place by a
    /// rename is known by both names.
    pub fn is_hit(&self, path: &str) -> bool {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        self.files.contains(path) || self.files.contains(dir)
    }

    /// Whether the file or one that it is read with was hit: a log that ends too early may be told by the
    /// segment before, a rotten CURRENT by the manifest that it seems to name, and a manifest that lost
    /// its last edits by a segment that it had given back.
    fn is_hit_with_its_kind(&self, path: &str) -> bool {
        let kind = FileKind::of(path);
        let alike = |other: &String| match FileKind::of(other) {
            FileKind::Manifest => matches!(kind, FileKind::Manifest | FileKind::Wal),
            other @ (FileKind::Table | FileKind::Wal | FileKind::Other) => other == kind,
        };
        self.is_hit(path) || (kind.is_shared() && self.files.iter().any(alike))
    }

    /// Whether a file that all tenants share was hit, so that a rotten tail may look like a torn one.
    pub fn is_shared_hit(&self) -> bool {
        self.voids(Rule::C2) && self.files.iter().any(|path| FileKind::of(path).is_shared())
    }

    /// Whether a manifest was hit, or its pointer.
    pub fn is_manifest_hit(&self) -> bool {
        self.files.iter().any(|path| FileKind::of(path) == FileKind::Manifest)
    }

    /// A file has a second name, or another one.
    pub fn renamed(&mut self, from: &str, to: &str) {
        if self.files.contains(from) {
            self.files.insert(to.to_owned());
        }
    }

    /// A file is new. One of its name may have been there: a process that died gave the same number
    /// to the table of another tree.
    pub fn created(&mut self, path: &str) {
        self.owners.remove(path);
    }

    /// These bytes of a file, first and behind the last, are a table of this tree.
    pub fn own(&mut self, path: &str, extent: (u64, u64), tree: u64) {
        self.owners.entry(path.to_owned()).or_default().push((extent, tree));
    }

    /// The tree of the first table in a file, where one is known.
    pub fn tree_of(&self, path: &str) -> Option<u64> {
        self.owners.get(path)?.first().map(|(_, tree)| *tree)
    }

    /// A tree began with all tables of another: damage in one of them may reach either.
    pub fn share(&mut self, child: u64, parent: u64) {
        self.parents.insert(child, parent);
    }

    fn root(&self, mut tree: u64) -> u64 {
        // A child's id is above its parent's.
        while let Some(parent) = self.parents.get(&tree).filter(|parent| **parent < tree) {
            tree = *parent;
        }
        tree
    }

    /// Whether damage of a file lies in a table of this tree, or nobody knows where it lies.
    fn reaches(&mut self, path: &str, tree: u64) -> bool {
        let owners = self.owners.entry(path.to_owned()).or_default();
        if owners.is_empty() {
            owners.push(((0, u64::MAX), tree));
        }
        let owners = self.owners.get(path).map_or(&[][..], Vec::as_slice);
        let root = self.root(tree);
        let mut hits = self.damage.iter().filter(|damage| damage.path == path).peekable();
        let is_own = |(from, to): (u64, u64)| {
            let touched =
                |((start, end), of): &Owned| self.root(*of) == root && *start < to && from < *end;
            owners.iter().any(touched)
        };
        if hits.peek().is_none() {
            return is_own((0, u64::MAX));
        }
        hits.any(|damage| is_own(damage.bytes))
    }

    /// Whether damage of this file excuses the failure of a request to this tree. A table of
    /// which nobody said whose it is belongs to the first tree that fails on it: a second one is further
    /// than damage may reach.
    pub fn excuses(&mut self, path: &str, tree: Option<u64>) -> bool {
        if !self.is_hit_with_its_kind(path) {
            return false;
        }
        match (FileKind::of(path), tree) {
            (FileKind::Table, Some(tree)) => self.reaches(path, tree),
            (FileKind::Table | FileKind::Wal | FileKind::Manifest | FileKind::Other, _) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(path: &str) -> Atlas {
        let mut atlas = Atlas::default();
        let path = path.to_owned();
        atlas.record(Damage { fault: Fault::BitRot, path, bytes: (5, 6) });
        atlas
    }

    #[test]
    fn a_table_excuses_one_tree_and_a_log_all() {
        let mut atlas = hit("/db/000004.sst");
        assert!(!atlas.excuses("/db/000005.sst", Some(1)) && !atlas.is_shared_hit());
        assert!(atlas.excuses("/db/000004.sst", Some(1)));
        assert!(atlas.excuses("/db/000004.sst", Some(1)));
        assert!(!atlas.excuses("/db/000004.sst", Some(2)), "damage reached a second tree");
        let mut atlas = hit("/db/000004.wal");
        assert!(atlas.excuses("/db/000004.wal", Some(1)) && atlas.is_shared_hit());
        assert!(atlas.excuses("/db/000004.wal", Some(2)));
    }

    #[test]
    fn damage_in_a_table_reaches_the_forks_of_its_tree_and_no_other() {
        let mut atlas = hit("/db/000004.sst");
        atlas.own("/db/000004.sst", (0, 9), 7);
        atlas.share(8, 7);
        atlas.share(9, 8);
        let excused = [6, 7, 8, 9, 10].map(|tree| atlas.excuses("/db/000004.sst", Some(tree)));
        assert_eq!(excused, [false, true, true, true, false]);
    }

    #[test]
    fn damage_in_a_file_of_many_tables_excuses_the_tree_whose_table_it_hit() {
        let mut atlas = hit("/db/000004.sst");
        for (n, tree) in (0..).zip([7, 8, 7, 9]) {
            atlas.own("/db/000004.sst", (n * 3, n * 3 + 3), tree);
        }
        let excused = [6, 7, 8, 9].map(|tree| atlas.excuses("/db/000004.sst", Some(tree)));
        assert_eq!(excused, [false, false, true, false]);
    }

    #[test]
    fn a_file_that_is_made_anew_is_nobodys() {
        let mut atlas = hit("/db/000004.sst");
        atlas.own("/db/000004.sst", (0, 9), 7);
        assert!(!atlas.excuses("/db/000004.sst", Some(8)));
        atlas.created("/db/000004.sst");
        assert!(atlas.excuses("/db/000004.sst", Some(8)));
    }

    #[test]
    fn a_manifest_excuses_what_a_segment_lacks_and_not_the_other_way_round() {
        assert!(hit("/db/MANIFEST-000001").excuses("/db/000004.wal", None));
        assert!(!hit("/db/000004.wal").excuses("/db/MANIFEST-000001", None));
    }

    #[test]
    fn an_atlas_voids_what_its_faults_void() {
        let atlas = hit("/db/000004.sst");
        assert!(atlas.voids(Rule::C2) && !atlas.voids(Rule::C3));
        assert!(!Atlas::default().voids(Rule::C2));
    }

    #[test]
    fn a_renamed_file_keeps_its_damage() {
        let mut atlas = hit("/db/CURRENT.tmp");
        atlas.renamed("/db/CURRENT.tmp", "/db/CURRENT");
        atlas.renamed("/db/other", "/db/third");
        assert!(atlas.excuses("/db/CURRENT", None) && !atlas.is_hit("/db/third"));
        assert_eq!(FileKind::of("/db/CURRENT"), FileKind::Manifest);
    }
}
