//! `forebay branches` and `forebay fork`: who came from whom, what each holds, and one more of them.
//!
//! `branches` reads the manifest alone, takes no lock and changes nothing, so that it also looks at
//! a database that is open elsewhere; what is in the log only, it does not count. `fork` opens the
//! directory. Exit code 2 where what was asked for cannot be, 1 where the directory is damaged or
//! the fork failed.

use std::io::{self, Write};
use std::path::PathBuf;

use forebay_engine::branches::{BranchFacts, OnDisk, in_order_of_descent, read_dir};
use forebay_engine::env::os::OsEnv;
use forebay_engine::env::{BlockingEnv as _, Env as _};
use forebay_engine::layout::{check_name, full_name, split_name};
use forebay_engine::options::ForkMemtable;
use forebay_engine::version::manifest::read_current;
use forebay_engine::{Db, Error};
use serde::Serialize;

use super::shell::{is_usage, options};
use super::{EXIT_FOUND, EXIT_USAGE, Stop};
use crate::cli::Format;
use crate::number::thousands;

const COLUMNS: usize = 100;

/// Arguments of `forebay branches`.
#[derive(Clone, Debug, clap::Args)]
pub struct BranchesArgs {
    /// The directory of the database
    pub dir: PathBuf,
    /// Only the branches of one tenant
    pub tenant: Option<String>,
}

/// Arguments of `forebay fork`.
#[derive(Clone, Debug, clap::Args)]
pub struct ForkArgs {
    /// The directory of the database, which nobody has open
    pub dir: PathBuf,
    /// The branch to fork
    #[arg(value_name = "TENANT[@BRANCH]")]
    pub branch: String,
    /// The name of the fork among the tenant's branches
    pub name: String,
    /// What becomes of entries that are in memory: share, copy or auto
    #[arg(long, value_name = "HOW", value_parser = memtable)]
    pub memtable: Option<ForkMemtable>,
    /// An option of the engine; the last one of a key counts
    #[arg(short = 's', value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

fn memtable(text: &str) -> Result<ForkMemtable, String> {
    match text {
        "share" => Ok(ForkMemtable::Share),
        "copy" => Ok(ForkMemtable::Copy),
        "auto" => Ok(ForkMemtable::Auto),
        _ => Err("allowed: share, copy, auto".to_owned()),
    }
}

/// The full name of `TENANT` or `TENANT@BRANCH`.
pub(super) fn full_name_of(text: &str) -> Result<String, Error> {
    let (tenant, branch) = split_name(text);
    check_name(tenant)?;
    check_name(branch)?;
    Ok(full_name(tenant, branch))
}

pub(super) fn stop(error: &Error) -> Stop {
    let is_wish = matches!(error, Error::UnknownTenant(_) | Error::TenantExists(_));
    let code = if is_wish || is_usage(error) { EXIT_USAGE } else { EXIT_FOUND };
    Stop::with(code, format!("error: {error}"))
}

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    depth: usize,
    branch: u64,
    tree: u64,
    parent: Option<String>,
    parent_branch: Option<u64>,
    fork_seq: Option<u64>,
    tables: u64,
    bytes: u64,
    shared_bytes: u64,
    /// Held by this branch alone: what a drop frees.
    retained_bytes: u64,
    /// Inherited and not compacted away.
    inherited_tables: Option<u64>,
    inherited_bytes: Option<u64>,
    /// Inherited at the fork, where the manifest tells.
    inherited_at_fork_bytes: Option<u64>,
}

impl Line {
    fn new((depth, facts): (usize, &BranchFacts)) -> Self {
        let from = facts.inheritance.as_ref();
        Self {
            name: facts.name.clone(),
            depth,
            branch: facts.branch.0,
            tree: facts.tree.0,
            parent: from.and_then(|from| from.parent_name.clone()),
            parent_branch: from.map(|from| from.parent.0),
            fork_seq: from.map(|from| from.fork_seq),
            tables: facts.tables.count,
            bytes: facts.tables.bytes,
            shared_bytes: facts.shared.bytes,
            retained_bytes: facts.retained.bytes,
            inherited_tables: from.map(|from| from.left.count),
            inherited_bytes: from.map(|from| from.left.bytes),
            inherited_at_fork_bytes: from.and_then(|from| from.at_fork_bytes),
        }
    }
}

/// Runs `forebay branches`.
///
/// # Errors
///
/// With code 2 for a directory without a database, or a tenant that is not there; with 1 for damage.
pub fn branches(args: &BranchesArgs, format: Format) -> Result<(), Stop> {
    if let Some(tenant) = &args.tenant {
        check_name(tenant).map_err(|error| stop(&error))?;
    }
    let read = OsEnv.block_on(read_dir(&OsEnv, &args.dir)).map_err(|error| stop(&error))?;
    let OnDisk { mut branches, retained } = read.ok_or_else(|| no_database(&args.dir))?;
    if let Some(tenant) = &args.tenant {
        branches.retain(|facts| split_name(&facts.name).0 == tenant);
        if branches.is_empty() {
            return Err(stop(&Error::UnknownTenant(tenant.clone())));
        }
    }
    let lines: Vec<Line> = in_order_of_descent(&branches).into_iter().map(Line::new).collect();
    let mut out = io::stdout().lock();
    let told = match format {
        Format::Human => show(&lines, &mut out).and_then(|()| {
            let (main, forks) = (retained.main.bytes, retained.forks_only.bytes);
            let (main, forks) = (thousands(main), thousands(forks));
            writeln!(out, "in all  {main} bytes that a main holds, {forks} that only forks hold")
        }),
        Format::Json => lines.iter().try_for_each(|line| {
            serde_json::to_writer(&mut out, line)?;
            writeln!(out)
        }),
        Format::Csv => show_csv(&lines, &mut out),
    };
    // A reader that went away has seen what it wanted.
    told.unwrap_or_default();
    Ok(())
}

pub(super) fn no_database(dir: &std::path::Path) -> Stop {
    Stop::usage(format!("error: {} holds no database: no CURRENT", dir.display()))
}

fn show(lines: &[Line], out: &mut impl Write) -> io::Result<()> {
    let head = "branch                        fork at  tables          bytes           alone      inherited";
    writeln!(out, "{head}")?;
    for line in lines {
        let indent = " ".repeat(line.depth.min(10).saturating_mul(2));
        let name = format!("{indent}{}", line.name);
        let fork = line.fork_seq.map_or_else(String::new, thousands);
        let inherited = match (line.inherited_bytes, line.inherited_at_fork_bytes) {
            (Some(left), Some(begun)) => format!("{} of {}", thousands(left), thousands(begun)),
            (Some(left), None) => thousands(left),
            (None, _) => String::new(),
        };
        let text = format!(
            "{name:<26} {fork:>10} {:>7} {:>14} {:>15} {inherited:>14}",
            line.tables,
            thousands(line.bytes),
            thousands(line.retained_bytes),
        );
        let text: String = text.trim_end().chars().take(COLUMNS).collect();
        writeln!(out, "{text}")?;
    }
    Ok(())
}

fn show_csv(lines: &[Line], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "name,depth,branch,tree,parent,parent_branch,fork_seq,tables,bytes,shared_bytes,\
         retained_bytes,inherited_tables,inherited_bytes,inherited_at_fork_bytes"
    )?;
    let number = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
    for line in lines {
        let Line { name, depth, branch, tree, tables, bytes, .. } = line;
        let parent = line.parent.as_deref().unwrap_or_default();
        let from = [number(line.parent_branch), number(line.fork_seq)].join(",");
        let held = format!("{tables},{bytes},{},{}", line.shared_bytes, line.retained_bytes);
        let left = [line.inherited_tables, line.inherited_bytes, line.inherited_at_fork_bytes];
        let left = left.map(number).join(",");
        let (name, parent) = (quoted(name), quoted(parent));
        writeln!(out, "{name},{depth},{branch},{tree},{parent},{from},{held},{left}")?;
    }
    Ok(())
}

/// A field of a CSV line.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[derive(Debug, Serialize)]
struct ForkLine {
    name: String,
    fork_seq: u64,
    copied_bytes: u64,
    elapsed_ns: u64,
}

/// Runs `forebay fork`.
///
/// # Errors
///
/// With code 2 for a directory without a database, bad options, a branch that is not there, or a
/// name that is taken; with 1 for damage or a fork that failed.
pub fn fork(args: &ForkArgs, format: Format) -> Result<(), Stop> {
    let parent = full_name_of(&args.branch).map_err(|error| stop(&error))?;
    check_name(&args.name).map_err(|error| stop(&error))?;
    let options = options(&args.settings).map_err(|error| stop(&error))?;
    let how = args.memtable.unwrap_or(options.fork_memtable);
    let line = OsEnv.block_on(async {
        // An open would make one.
        if read_current(&OsEnv, &args.dir).await.map_err(|error| stop(&error))?.is_none() {
            return Err(no_database(&args.dir));
        }
        let db = Db::open(OsEnv, &args.dir, options).await.map_err(|error| stop(&error))?;
        let forked = async {
            let branch = db.branch(&parent).ok_or(Error::UnknownTenant(parent))?;
            let began = OsEnv.now();
            let forked = branch.fork_with(&args.name, how).await?;
            let elapsed_ns = OsEnv.now().saturating_sub(began);
            let (fork_seq, copied_bytes) = (forked.seq, forked.copied_bytes);
            let name = forked.tenant.full_name();
            Ok(ForkLine { name, fork_seq, copied_bytes, elapsed_ns })
        };
        let forked = forked.await;
        let closed = db.close().await;
        forked.and_then(|line| closed.map(|()| line)).map_err(|error| stop(&error))
    })?;
    let mut out = io::stdout().lock();
    let told = match format {
        Format::Json => {
            serde_json::to_writer(&mut out, &line).map_err(Into::into).and_then(|()| writeln!(out))
        }
        Format::Csv => {
            let ForkLine { name, fork_seq, copied_bytes, elapsed_ns } = &line;
            let name = quoted(name);
            writeln!(out, "name,fork_seq,copied_bytes,elapsed_ns")
                .and_then(|()| writeln!(out, "{name},{fork_seq},{copied_bytes},{elapsed_ns}"))
        }
        Format::Human => {
            let (seq, copied) = (thousands(line.fork_seq), thousands(line.copied_bytes));
            let micros = thousands(line.elapsed_ns.div_ceil(1000));
            writeln!(out, "{}  forked at {seq}, copied {copied} bytes, {micros} us", line.name)
        }
    };
    told.unwrap_or_default();
    Ok(())
}
