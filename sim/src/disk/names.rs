//! Directories: the names that programs see, the names that a power loss leaves, and what lies
//! between.
//!
//! Every change of names is one operation: a short list of assignments `name = inode or nothing`
//! that hold together. Pending operations form one global list in the order of their calls. A crash
//! applies a prefix of it (a journal) or a subset closed under "same name, earlier operation"; a
//! sync of a directory makes its operations durable.
//!
//! Departures from a real filesystem: a directory itself is durable as soon as it exists, and a
//! reservation of space survives every crash.

use std::collections::{BTreeMap, BTreeSet};

use forebay_engine::types::to_u64;

use super::{CrashReport, Profile, Spread};
use crate::choices::Choices;

pub(crate) type Ino = u64;
pub(crate) type DirId = usize;

/// One `name = inode or nothing`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assign {
    pub(crate) dir: DirId,
    pub(crate) name: Box<str>,
    pub(crate) ino: Option<Ino>,
}

/// A pending operation.
#[derive(Clone, Debug)]
pub(crate) struct NameOp {
    pub(crate) order: u64,
    pub(crate) assigns: Vec<Assign>,
    /// A rename: the new name may persist without the removal of the old one.
    pub(crate) rename: bool,
}

pub(crate) type Names = BTreeMap<Box<str>, Ino>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Dir {
    pub(crate) live: Names,
    pub(crate) durable: Names,
}

/// All directories.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directories {
    pub(crate) ids: BTreeMap<Box<str>, DirId>,
    pub(crate) dirs: Vec<Dir>,
    pub(crate) pending: Vec<NameOp>,
    pub(crate) next_order: u64,
}

impl Directories {
    pub(crate) fn id(&self, path: &str) -> Option<DirId> {
        self.ids.get(path).copied()
    }

    pub(crate) fn add(&mut self, path: &str) {
        if !self.ids.contains_key(path) {
            self.ids.insert(path.into(), self.dirs.len());
            self.dirs.push(Dir::default());
        }
    }

    pub(crate) fn get(&self, dir: DirId, name: &str) -> Option<Ino> {
        self.dirs.get(dir)?.live.get(name).copied()
    }

    /// Changes what programs see; gives back the inodes that lost a name.
    pub(crate) fn apply_live(&mut self, assigns: &[Assign]) -> Vec<Ino> {
        let mut lost = Vec::new();
        for assign in assigns {
            if let Some(dir) = self.dirs.get_mut(assign.dir) {
                lost.extend(put(&mut dir.live, &assign.name, assign.ino));
            }
        }
        lost
    }

    pub(crate) fn push(&mut self, assigns: Vec<Assign>, rename: bool) {
        self.next_order = self.next_order.saturating_add(1);
        self.pending.push(NameOp { order: self.next_order, assigns, rename });
    }

    /// Makes operations durable: those of `dir` up to `order`, in a journal all before them as
    /// well.
    pub(crate) fn commit(&mut self, dir: DirId, order: u64, profile: Profile) -> Vec<NameOp> {
        let of_dir = |op: &NameOp| op.order <= order && op.assigns.iter().any(|a| a.dir == dir);
        let last = self.pending.iter().rfind(|op| of_dir(op)).map(|op| op.order);
        let Some(last) = last else { return Vec::new() };
        let whole_log = profile == Profile::Journal;
        self.take(|op| if whole_log { op.order <= last } else { of_dir(op) })
    }

    /// A failed sync of `dir`: a chosen part of its operations is durable.
    pub(crate) fn commit_part(
        &mut self,
        dir: DirId,
        profile: Profile,
        choices: &Choices,
    ) -> Vec<NameOp> {
        if profile == Profile::Journal {
            let n = to_u64(self.pending.len());
            let kept = choices.choose("sync-dir.part", n.saturating_add(1));
            let last = self.pending.iter().zip(0..kept).last().map_or(0, |(op, _)| op.order);
            return self.take(|op| op.order <= last);
        }
        let mut blocked = BTreeSet::new();
        self.take(|op| {
            let free = op.assigns.iter().all(|a| !blocked.contains(&(a.dir, a.name.clone())));
            let ours = op.assigns.iter().all(|a| a.dir == dir);
            let kept = ours && free && choices.choose("sync-dir.part", 2) == 1;
            if !kept {
                blocked.extend(op.assigns.iter().map(|a| (a.dir, a.name.clone())));
            }
            kept
        })
    }

    fn take(&mut self, mut wanted: impl FnMut(&NameOp) -> bool) -> Vec<NameOp> {
        let (taken, kept) =
            core::mem::take(&mut self.pending).into_iter().partition(|op| wanted(op));
        self.pending = kept;
        taken
    }

    /// Applies one operation to what a power loss leaves; gives back the inodes that lost a name.
    pub(crate) fn apply_durable(&mut self, assigns: &[Assign]) -> Vec<Ino> {
        let mut lost = Vec::new();
        for assign in assigns {
            if let Some(dir) = self.dirs.get_mut(assign.dir) {
                lost.extend(put(&mut dir.durable, &assign.name, assign.ino));
            }
        }
        lost
    }

    /// The names after a power loss, by directory.
    pub(crate) fn after_power_loss(
        &self,
        profile: Profile,
        spread: Spread,
        (choices, exact): (&Choices, bool),
        report: &mut CrashReport,
    ) -> Vec<Names> {
        let mut names: Vec<Names> = self.dirs.iter().map(|dir| dir.durable.clone()).collect();
        let total = to_u64(self.pending.len());
        let kept_log = match spread {
            Spread::All => total,
            Spread::Nothing => 0,
            Spread::Some => total - choices.choose("crash.journal", total.saturating_add(1)),
        };
        let mut blocked: BTreeSet<(DirId, &str)> = BTreeSet::new();
        for (at, op) in self.pending.iter().enumerate() {
            let kept = match (profile, spread) {
                (Profile::Journal, _) => to_u64(at) < kept_log,
                (_, Spread::All) => true,
                (_, Spread::Nothing) => false,
                (_, Spread::Some) => {
                    let free = op.assigns.iter().all(|a| !blocked.contains(&(a.dir, &*a.name)));
                    free && choices.choose("crash.name", 2) == 0
                }
            };
            let both = kept
                && op.rename
                && profile == Profile::Adversary
                && spread == Spread::Some
                && if exact {
                    choices.choose("crash.rename-both", 2) == 1
                } else {
                    choices.choose("crash.rename-both", 4) == 3
                };
            let applied = if !kept {
                0
            } else if both {
                1
            } else {
                op.assigns.len()
            };
            for (no, assign) in op.assigns.iter().enumerate() {
                if no >= applied {
                    blocked.insert((assign.dir, &assign.name));
                } else if let Some(names) = names.get_mut(assign.dir) {
                    put(names, &assign.name, assign.ino);
                }
            }
            report.names_both += u64::from(both);
            *(if kept { &mut report.names_kept } else { &mut report.names_lost }) += 1;
        }
        names
    }
}

fn put(names: &mut Names, name: &str, ino: Option<Ino>) -> Option<Ino> {
    match ino {
        Some(ino) => names.insert(name.into(), ino),
        None => names.remove(name),
    }
}
