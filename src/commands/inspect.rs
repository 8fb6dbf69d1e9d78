//! `forebay inspect`: what lies in a database directory, damaged or not, without changing it.
//!
//! It takes no lock, so it also looks at a database that is open elsewhere; what is removed
//! meanwhile is then told as missing. Exit code 1 where anything could not be read: what could be
//! is printed all the same, and each error with its file and offset. A directory without a database
//! is a wrong argument: one line and exit code 2.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use forebay_engine::env::BlockingEnv as _;
use forebay_engine::env::os::OsEnv;
use forebay_engine::inspect::own::{Beginning, OwnManifest, own_manifest};
use forebay_engine::inspect::{self, Inspection, Look, Place};
use forebay_engine::types::{Kind, TreeId, to_u64};
use forebay_engine::version::edit::Edit;
use serde::Serialize;

use super::failure::Failure;
use super::print_report;
use crate::number::thousands;

pub(super) const COLUMNS: usize = 100;
const ROWS_MAX: usize = 40;

/// Arguments of `forebay inspect`.
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArgs {
    /// The directory of the database
    pub dir: PathBuf,
    /// Also lists every version of a key
    #[arg(long, num_args = 2, value_names = ["TENANT", "KEY"])]
    pub key: Option<Vec<OsString>>,
    /// Also lists the records of the log
    #[arg(long)]
    pub wal: bool,
    /// Prints one file of tables instead: properties and blocks
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "wal", "manifest"])]
    pub table: Option<String>,
    /// Prints one branch's own manifest: what it began with, and each edit behind that
    #[arg(long, value_name = "TENANT[@BRANCH]")]
    pub manifest: Option<String>,
}

#[derive(Debug, Serialize)]
struct Table {
    file: String,
    offset: u64,
    bytes: u64,
    level: u32,
    tree: u64,
    branches: Vec<String>,
    entries: u64,
    tombstones: u64,
}

#[derive(Debug, Serialize)]
struct SegmentLine {
    segment: u64,
    bytes: u64,
    records: u64,
}

#[derive(Debug, Serialize)]
struct RecordLine {
    file: String,
    offset: u64,
    kind: &'static str,
    seq: u64,
    entries: u64,
    trees: Vec<u64>,
}

#[derive(Debug, Serialize)]
struct EditLine {
    file: String,
    offset: u64,
    kind: &'static str,
    tree: Option<u64>,
    /// What it changes, for people.
    what: String,
}

#[derive(Debug, Serialize)]
struct LevelLine {
    level: usize,
    tables: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct TreeLine {
    tree: u64,
    branches: Vec<String>,
    levels: Vec<LevelLine>,
}

#[derive(Debug, Serialize)]
struct Version {
    seq: u64,
    kind: &'static str,
    #[serde(rename = "where")]
    place: String,
}

#[derive(Debug, Serialize)]
struct Inherited {
    level: u32,
    file: String,
    offset: u64,
    bytes: u64,
    entries: u64,
    /// The tree that wrote it.
    tree: u64,
    seqs: [u64; 2],
}

/// A branch's own manifest; its edits stand in `edits`.
#[derive(Debug, Serialize)]
struct Own {
    name: String,
    branch: u64,
    tree: u64,
    begins: &'static str,
    parent: Option<String>,
    parent_branch: Option<u64>,
    fork_seq: Option<u64>,
    flushed_upto: u64,
    tables: Vec<Inherited>,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Own>,
    tables: Vec<Table>,
    wal: Vec<SegmentLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<Vec<RecordLine>>,
    edits: Vec<EditLine>,
    trees: Vec<TreeLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Version>>,
    errors: Vec<Failure>,
}

/// Runs the command and returns its exit code.
pub fn run(args: &InspectArgs, json: bool) -> u8 {
    if let Some(file) = &args.table {
        return super::tables::run(&args.dir, file, json);
    }
    let report = match look(args) {
        Ok(report) => report,
        Err(what) => {
            // Without stderr there is nobody to tell.
            writeln!(io::stderr(), "error: {what}").unwrap_or_default();
            return 2;
        }
    };
    print_report(&report, json, show);
    for failure in &report.errors {
        writeln!(io::stderr(), "error: {}", failure.error).unwrap_or_default();
    }
    u8::from(!report.errors.is_empty())
}

fn look(args: &InspectArgs) -> Result<Report, String> {
    let key = match args.key.as_deref() {
        Some([tenant, key]) => {
            let tenant = tenant.to_str().ok_or("--key: a tenant's name is UTF-8")?;
            Some((full_name_of(tenant).map_err(|e| format!("--key: {e}"))?, key.as_bytes()))
        }
        _ => None,
    };
    let wanted = match &args.manifest {
        Some(text) => Some(full_name_of(text).map_err(|e| format!("--manifest: {e}"))?),
        None => None,
    };
    let look = Look { key: key.as_ref().map(|(n, k)| (n.as_str(), *k)), records: args.wal };
    let found = OsEnv.block_on(inspect::inspect(&OsEnv, &args.dir, look));
    let found = found.map_err(|error| error.to_string())?;
    let found =
        found.ok_or_else(|| format!("{} holds no database: no CURRENT", args.dir.display()))?;
    let mut report = Report::new(&found, (key.is_some(), args.wal));
    if let Some(name) = wanted {
        report.keep_only(&name, &found);
    }
    Ok(report)
}

/// The full name of `TENANT` or `TENANT@BRANCH`.
fn full_name_of(text: &str) -> Result<String, String> {
    super::branches::full_name_of(text).map_err(|error| error.to_string())
}

fn tables_of(count: usize) -> String {
    if count == 1 { "1 table".to_owned() } else { format!("{count} tables") }
}

/// What an edit changes, in a few words.
fn what_of(edit: &Edit) -> String {
    match edit {
        Edit::Begin { layout, next_id, .. } => format!("layout {layout}, next id {next_id}"),
        Edit::CreateTrees { trees } => format!("{} trees", trees.len()),
        Edit::CreateTenants { tenants } => match tenants.as_slice() {
            [(name, branch, _)] => format!("{name}, branch {branch}"),
            _ => format!("{} branches", tenants.len()),
        },
        Edit::TenantExtractor { branch, extractor } => match extractor {
            Some(extractor) => format!("branch {branch}: {extractor}"),
            None => format!("branch {branch}: that of the database"),
        },
        Edit::DropTenant { branch } => format!("branch {branch}"),
        Edit::Fork { name, branch, parent, fork_seq, .. } => {
            format!("{name}, branch {branch}, from branch {parent} at {fork_seq}")
        }
        Edit::Ancestry { branch, parent, fork_seq, .. } => {
            format!("branch {branch} from branch {parent} at {fork_seq}")
        }
        Edit::Flush { owners, flushed_upto, table } => {
            let table = table.as_ref().map_or_else(|| "no table".to_owned(), |t| t.id.to_string());
            let shared = match owners.len() {
                0 | 1 => String::new(),
                trees => format!(", of {trees} trees"),
            };
            format!("{table} up to {flushed_upto}{shared}")
        }
        Edit::Compact { removed, added, .. } => {
            format!("{} out, {} in", tables_of(removed.len()), tables_of(added.len()))
        }
        Edit::WalFloor { segment } => format!("from segment {segment:06}"),
        Edit::Pack { file, bytes } => format!("{file:06}.sst, {bytes} bytes"),
        Edit::TreeState { flushed_upto, tables, .. } => {
            format!("{} up to {flushed_upto}", tables_of(tables.len()))
        }
        Edit::SharedState { trees, tables } => {
            format!("{} of {} trees", tables_of(tables.len()), trees.len())
        }
    }
}

impl Own {
    fn new(name: &str, own: &OwnManifest) -> Self {
        let tables = own.tables.iter().map(|(level, table)| Inherited {
            level: *level,
            file: format!("{:06}.sst", table.id.file),
            offset: table.id.offset,
            bytes: table.bytes,
            entries: table.entries,
            tree: table.tree.0,
            seqs: [table.min_seq, table.max_seq],
        });
        Self {
            name: name.to_owned(),
            branch: own.branch.0,
            tree: own.tree.0,
            begins: match own.beginning {
                Beginning::Created => "created",
                Beginning::Forked => "forked",
                Beginning::TakenOver => "taken-over",
            },
            parent: own.parent_name.clone(),
            parent_branch: own.fork.map(|fork| fork.parent.0),
            fork_seq: own.fork.map(|fork| fork.seq),
            flushed_upto: own.flushed_upto,
            tables: tables.collect(),
        }
    }
}

fn place_name(place: Place) -> String {
    match place {
        Place::Log(segment, offset) => format!("{segment:06}.wal+{offset}"),
        Place::Table(id, level) => format!("{:06}.sst+{} level {level}", id.file, id.offset),
    }
}

impl Report {
    fn new(found: &Inspection, (with_history, with_records): (bool, bool)) -> Self {
        let branches = |tree: TreeId| {
            let tree = found.trees.iter().find(|t| t.tree == tree);
            tree.map_or_else(Vec::new, |t| t.branches.clone())
        };
        let tables = found.tables.iter().map(|t| Table {
            file: format!("{:06}.sst", t.meta.id.file),
            offset: t.meta.id.offset,
            bytes: t.meta.bytes,
            level: t.level,
            tree: t.tree.0,
            branches: branches(t.tree),
            entries: t.meta.entries,
            tombstones: t.meta.tombstones,
        });
        let edits = found.edits.iter().map(|e| EditLine {
            file: format!("MANIFEST-{:06}", e.file),
            offset: e.offset,
            kind: e.edit.kind(),
            tree: e.edit.tree().map(|t| t.0),
            what: what_of(&e.edit),
        });
        let levels = |levels: &[(u64, u64)]| {
            let lines = levels.iter().enumerate();
            lines.map(|(level, &(tables, bytes))| LevelLine { level, tables, bytes }).collect()
        };
        let trees = found.trees.iter().map(|t| TreeLine {
            tree: t.tree.0,
            branches: t.branches.clone(),
            levels: levels(&t.levels),
        });
        let history = found.history.iter().map(|v| Version {
            seq: v.seq,
            kind: if v.kind == Kind::Put { "put" } else { "delete" },
            place: place_name(v.place),
        });
        let records = found.records.iter().map(|r| RecordLine {
            file: format!("{:06}.wal", r.segment),
            offset: r.offset,
            kind: r.kind,
            seq: r.seq,
            entries: r.entries,
            trees: r.trees.iter().map(|tree| tree.0).collect(),
        });
        let wal = found.wal.iter();
        Self {
            schema: "forebay.inspect/1",
            manifest: None,
            tables: tables.collect(),
            wal: wal
                .map(|s| SegmentLine { segment: s.segment, bytes: s.bytes, records: s.records })
                .collect(),
            records: with_records.then(|| records.collect()),
            edits: edits.collect(),
            trees: trees.collect(),
            history: with_history.then(|| history.collect()),
            errors: found.errors.iter().map(Failure::from).collect(),
        }
    }

    /// Leaves out what is not of this branch: its own manifest remains, with its tree.
    fn keep_only(&mut self, name: &str, found: &Inspection) {
        let own = own_manifest(&found.edits, name);
        if own.is_none() {
            self.errors.push(forebay_engine::Error::UnknownTenant(name.to_owned()).into());
        }
        let home = own.as_ref().map(|own| own.tree.0);
        let mut kept = own.iter().flat_map(|own| own.edits.iter().copied()).peekable();
        let mut at = 0_usize;
        self.edits.retain(|_| {
            at += 1;
            kept.next_if_eq(&(at - 1)).is_some()
        });
        self.tables.retain(|t| Some(t.tree) == home);
        self.trees.retain(|t| Some(t.tree) == home);
        self.manifest = own.map(|own| Own::new(name, &own));
    }
}

/// Lines of one kind under a heading: all of them, or the last [`ROWS_MAX`].
pub(super) fn section<T>(
    out: &mut impl Write,
    (title, head): (&str, &str),
    rows: &[T],
    line: impl Fn(&T) -> String,
) -> io::Result<()> {
    writeln!(out, "{title}  {}", thousands(to_u64(rows.len())))?;
    if !rows.is_empty() {
        writeln!(out, "  {head}")?;
    }
    let hidden = rows.len().saturating_sub(ROWS_MAX);
    if hidden > 0 {
        writeln!(out, "  ... {hidden} before these; --format json prints all")?;
    }
    for row in rows.iter().skip(hidden) {
        let text: String = line(row).trim_end().chars().take(COLUMNS - 2).collect();
        writeln!(out, "  {text}")?;
    }
    Ok(())
}

fn names(branches: &[String]) -> String {
    match branches {
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        [] => String::new(),
    }
}

fn show_own(own: &Own, out: &mut impl Write) -> io::Result<()> {
    let from = match (&own.parent, own.parent_branch, own.fork_seq) {
        (Some(name), _, Some(seq)) => format!(", forked from {name} at {seq}"),
        (None, Some(id), Some(seq)) => {
            format!(", forked from branch {id}, which is gone, at {seq}")
        }
        _ => String::new(),
    };
    let Own { name, branch, tree, begins, flushed_upto, .. } = own;
    writeln!(out, "manifest  {name}  branch {branch}  tree {tree}{from}")?;
    writeln!(out, "  begins {begins}, with these tables, flushed up to {flushed_upto}")?;
    let head = "file            offset          bytes  level       entries  tree  numbers";
    section(out, ("begins with", head), &own.tables, |t| {
        let [min, max] = t.seqs;
        format!(
            "{:<12} {:>9} {:>14} {:>6} {:>13} {:>5}  {min}..={max}",
            t.file,
            t.offset,
            thousands(t.bytes),
            t.level,
            thousands(t.entries),
            t.tree
        )
    })
}

fn show(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if let Some(own) = &report.manifest {
        show_own(own, out)?;
    }
    let head = "file            offset          bytes  level       entries    tombstones  branches";
    section(out, ("tables", head), &report.tables, |t| {
        format!(
            "{:<12} {:>9} {:>14} {:>6} {:>13} {:>13}  {}",
            t.file,
            t.offset,
            thousands(t.bytes),
            t.level,
            thousands(t.entries),
            thousands(t.tombstones),
            names(&t.branches)
        )
    })?;
    section(out, ("wal", "segment                 bytes       records"), &report.wal, |s| {
        format!("{:06} {:>22} {:>13}", s.segment, thousands(s.bytes), thousands(s.records))
    })?;
    if let Some(records) = &report.records {
        let head = "file             offset  kind                 seq    entries  trees";
        section(out, ("records", head), records, |r| {
            let trees: Vec<String> = r.trees.iter().map(ToString::to_string).collect();
            format!(
                "{:<12} {:>10}  {:<12} {:>11} {:>10}  {}",
                r.file,
                r.offset,
                r.kind,
                r.seq,
                thousands(r.entries),
                trees.join(" ")
            )
        })?;
    }
    section(
        out,
        ("edits", "file                   offset  kind                 tree  what"),
        &report.edits,
        |e| {
            let tree = e.tree.map_or_else(String::new, |t| t.to_string());
            format!("{:<16} {:>12}  {:<16} {tree:>8}  {}", e.file, e.offset, e.kind, e.what)
        },
    )?;
    section(
        out,
        ("trees", "    tree  tables by level                branches"),
        &report.trees,
        |t| {
            let levels: Vec<String> = t.levels.iter().map(|l| l.tables.to_string()).collect();
            format!("{:>8}  {:<30} {}", t.tree, levels.join(" "), names(&t.branches))
        },
    )?;
    if let Some(history) = &report.history {
        section(out, ("history", "         seq  kind    where"), history, |v| {
            format!("{:>12}  {:<7} {}", v.seq, v.kind, v.place)
        })?;
    }
    Ok(())
}
