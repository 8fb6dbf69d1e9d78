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
use forebay_engine::inspect::{self, Inspection, Look, Place};
use forebay_engine::layout::check_name;
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
    /// Lists only the edits, tables and trees of one tenant
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
struct Report {
    schema: &'static str,
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
            Some((tenant_of(tenant).map_err(|e| format!("--key: {e}"))?, key.as_bytes()))
        }
        _ => None,
    };
    let wanted = match &args.manifest {
        Some(text) => Some(tenant_of(text).map_err(|e| format!("--manifest: {e}"))?),
        None => None,
    };
    let look = Look { key, records: args.wal };
    let found = OsEnv.block_on(inspect::inspect(&OsEnv, &args.dir, look));
    let found = found.map_err(|error| error.to_string())?;
    let found =
        found.ok_or_else(|| format!("{} holds no database: no CURRENT", args.dir.display()))?;
    let mut report = Report::new(&found, (key.is_some(), args.wal));
    if let Some(tenant) = wanted {
        report.keep_only(tenant, &found);
    }
    Ok(report)
}

fn tenant_of(text: &str) -> Result<&str, String> {
    let (name, branch) = text.split_once('@').unwrap_or((text, "main"));
    check_name(name).map_err(|error| error.to_string())?;
    if branch == "main" {
        Ok(name)
    } else {
        Err(format!("branch {branch:?} does not exist; the one branch is main"))
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

    /// Leaves out what is not of this tenant: its chain of edits remains, with its tree.
    fn keep_only(&mut self, tenant: &str, found: &Inspection) {
        let is_home = |t: &TreeLine| t.branches.iter().any(|name| name == tenant);
        let home = self.trees.iter().find(|t| is_home(t)).map(|t| t.tree);
        if home.is_none() {
            self.errors.push(forebay_engine::Error::UnknownTenant(tenant.to_owned()).into());
        }
        let concerns = |edit: &Edit| match edit {
            Edit::CreateTenants { tenants } => tenants.iter().any(|(name, ..)| name == tenant),
            Edit::TenantExtractor { branch, .. } => Some(branch.0) == home,
            Edit::Begin { .. } | Edit::WalFloor { .. } | Edit::DropTenant { .. } => false,
            Edit::CreateTrees { trees } => trees.iter().any(|t| Some(t.0) == home),
            Edit::Flush { owners, .. } => owners.iter().any(|t| Some(t.0) == home),
            Edit::Fork { branch, .. } | Edit::Ancestry { branch, .. } => Some(branch.0) == home,
            Edit::SharedState { trees, .. } => trees.iter().any(|(t, _)| Some(t.0) == home),
            Edit::Compact { tree, .. } | Edit::TreeState { tree, .. } => Some(tree.0) == home,
            Edit::Pack { file, .. } => {
                found.tables.iter().any(|t| Some(t.tree.0) == home && t.meta.id.file == *file)
            }
        };
        let mut kept = found.edits.iter().map(|e| concerns(&e.edit));
        self.edits.retain(|_| kept.next().unwrap_or(false));
        self.tables.retain(|t| Some(t.tree) == home);
        self.trees.retain(|t| Some(t.tree) == home);
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

fn show(report: &Report, out: &mut impl Write) -> io::Result<()> {
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
        ("edits", "file                   offset  kind            tree"),
        &report.edits,
        |e| {
            let tree = e.tree.map_or_else(String::new, |t| t.to_string());
            format!("{:<16} {:>12}  {:<15} {tree}", e.file, e.offset, e.kind)
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
