//! C10 at quiescence: what the directory holds, byte for byte, once nobody writes and no job runs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checked, Rule, RuleCounts, Violation, broken};

/// A directory and what a database needs of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// The files that are there, with their bytes.
    pub files: BTreeMap<String, u64>,
    /// Files that hold a table of some branch.
    pub tables: BTreeSet<String>,
    /// The manifest that `CURRENT` names.
    pub manifest: Option<String>,
    /// Segments from the oldest that the log needs to the newest.
    pub segments: BTreeSet<String>,
    /// Bytes of all memtables, as the budget counts them.
    pub unflushed_bytes: u64,
    /// Bytes of the log above which the engine flushes whoever pins it.
    pub wal_limit_bytes: u64,
    /// Bytes at which a segment is ended.
    pub segment_bytes: u64,
    /// Bytes by which one group of writes may take a segment beyond that.
    pub batch_bytes: u64,
    /// Open file handles.
    pub handles: u64,
    /// Of them those of files that were removed: their bytes stay taken until they are closed.
    pub removed_handles: u64,
    /// Of all handles those of tables, which the file cache holds until the last user's handle is gone.
    pub open_tables: u64,
    /// Whether the database is open: it may then hold a spare segment, and its log, its manifest
    /// and its lock open.
    pub is_open: bool,
}

/// Handles of an open database beside those of tables: segment, spare, manifest, directory, lock.
const OTHER_HANDLES_MAX: u64 = 5;

/// C10: the files are those that are reached, `CURRENT`, `LOCK`, the live manifest, the segments
/// that the log needs and, while it is open, one spare segment above them: no temporary file, none
/// that leaked, none that is missing. The log has at most the bytes of the memtables, its limit (up
/// to which a cold tree may pin it), and two segments. No file is held open but those of tables that the file cache knows and,
/// while the database is open, the few of its log and manifest; none that was removed.
///
/// # Errors
///
/// C10 for the first of these that does not hold.
pub fn c10_space(counts: &mut RuleCounts, space: &Space) -> Checked {
    counts.count(Rule::C10);
    let mut needed: BTreeSet<&str> = ["CURRENT", "LOCK"].into();
    let lists = space.tables.iter().chain(&space.manifest).chain(&space.segments);
    needed.extend(lists.map(String::as_str));
    let found: BTreeSet<&str> = space.files.keys().map(String::as_str).collect();
    let mut leaked: Vec<&str> = found.difference(&needed).copied().collect();
    let missing: Vec<&str> = needed.difference(&found).copied().collect();
    if space.is_open {
        let newest = space.segments.last().map_or("", String::as_str);
        let is_spare = |name: &&str| {
            let kind = name.rsplit_once('.').map(|(_, kind)| kind);
            kind == Some("wal") && *name > newest
        };
        if let Some(at) = leaked.iter().position(is_spare) {
            leaked.remove(at);
        }
    }
    if !leaked.is_empty() || !missing.is_empty() {
        let promised = format!("{} files that are needed, and no other", needed.len());
        let found = format!("leaked {leaked:?}, missing {missing:?}");
        return broken(Violation::new(Rule::C10, promised, found));
    }
    let wal_bytes: u64 = space.segments.iter().filter_map(|name| space.files.get(name)).sum();
    let most = space
        .unflushed_bytes
        .saturating_add(space.wal_limit_bytes)
        .saturating_add(space.segment_bytes.saturating_add(space.batch_bytes).saturating_mul(2));
    if wal_bytes > most {
        let of = format!("{} bytes in memtables", space.unflushed_bytes);
        let promised = format!("a log of at most {most} bytes, for {of}");
        return broken(Violation::new(Rule::C10, promised, format!("{wal_bytes} bytes")));
    }
    let other = if space.is_open { OTHER_HANDLES_MAX } else { 0 };
    let most = space.open_tables.saturating_add(other);
    if space.handles > most {
        let promised = format!("at most {most} open files");
        return broken(Violation::new(Rule::C10, promised, format!("{} are open", space.handles)));
    }
    if space.removed_handles > 0 {
        let promised = "files that were removed are closed, and their bytes free";
        let found = format!("{} are open", space.removed_handles);
        return broken(Violation::new(Rule::C10, promised, found));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        let names =
            ["CURRENT", "LOCK", "MANIFEST-000007", "000003.sst", "000005.wal", "000008.wal"];
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Space {
            files: names.iter().map(|name| ((*name).to_owned(), 100)).collect(),
            tables: set(&["000003.sst"]),
            manifest: Some("MANIFEST-000007".to_owned()),
            segments: set(&["000005.wal", "000008.wal"]),
            unflushed_bytes: 50,
            wal_limit_bytes: 100,
            segment_bytes: 60,
            batch_bytes: 5,
            handles: 0,
            removed_handles: 0,
            open_tables: 0,
            is_open: false,
        }
    }

    #[track_caller]
    fn finds(what: &str, breaks: impl FnOnce(&mut Space)) {
        let (mut counts, mut space) = (RuleCounts::default(), space());
        c10_space(&mut counts, &space).unwrap();
        breaks(&mut space);
        let found = c10_space(&mut counts, &space);
        if what.is_empty() {
            found.unwrap();
        } else {
            let violation = found.unwrap_err();
            assert_eq!(violation.rule, Rule::C10);
            let told = format!("{}: {}", violation.promised, violation.found);
            assert!(told.contains(what), "{told}");
        }
        assert_eq!(counts.get(Rule::C10), 2);
    }

    fn add(space: &mut Space, name: &str) {
        space.files.insert(name.to_owned(), 1);
    }

    #[test]
    fn a_file_too_many_and_one_too_few_are_found() {
        finds("leaked [\"000004.sst\"]", |s| add(s, "000004.sst"));
        finds("leaked [\"CURRENT.tmp\"]", |s| add(s, "CURRENT.tmp"));
        finds("leaked [\"MANIFEST-000006\"]", |s| add(s, "MANIFEST-000006"));
        for name in ["000003.sst", "MANIFEST-000007", "000005.wal", "CURRENT"] {
            finds(&format!("missing [\"{name}\"]"), |s| assert!(s.files.remove(name).is_some()));
        }
    }

    #[test]
    fn an_open_database_may_have_one_spare_segment_and_a_closed_one_none() {
        finds("leaked [\"000009.wal\"]", |s| add(s, "000009.wal"));
        let open = |names: &'static [&'static str]| {
            move |s: &mut Space| {
                s.is_open = true;
                for name in names {
                    add(s, name);
                }
            }
        };
        finds("", open(&["000009.wal"]));
        finds("leaked [\"000010.wal\"]", open(&["000009.wal", "000010.wal"]));
        finds("leaked [\"000004.wal\"]", open(&["000004.wal"]));
    }

    #[test]
    fn a_log_that_is_too_long_and_handles_that_stay_open_are_found() {
        finds("", |s| s.wal_limit_bytes = 20);
        finds("200 bytes", |s| s.wal_limit_bytes = 19);
        finds("1 are open", |s| s.handles = 1);
        let open = |handles| {
            move |s: &mut Space| (s.is_open, s.handles, s.open_tables) = (true, handles, 3)
        };
        finds("", open(8));
        finds("at most 8 open files", open(9));
        finds("2 are open", |s| (s.is_open, s.handles, s.removed_handles) = (true, 2, 2));
    }
}
