//! `forebay fork-to` and `forebay import`: a database, or one branch of it, in a directory of its
//! own, and back into another database.
//!
//! Both open the directories. Exit code 2 where what was asked for cannot be, with nothing changed;
//! 1 where a directory is damaged or the copy failed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use forebay_engine::env::BlockingEnv as _;
use forebay_engine::env::os::OsEnv;
use forebay_engine::options::Options;
use forebay_engine::version::manifest::read_current;
use forebay_engine::{Db, Error, Result};
use serde::Serialize;

use super::Stop;
use super::branches::{full_name_of, no_database, stop};
use super::shell::options;
use crate::cli::Format;
use crate::number::thousands;

/// Arguments of `forebay fork-to`.
#[derive(Clone, Debug, clap::Args)]
pub struct ForkToArgs {
    /// The directory of the database, which nobody has open
    pub dir: PathBuf,
    /// The directory of the copy: missing or empty
    pub to: PathBuf,
    /// One branch, as `main` of its tenant; all tenants with all branches where it is left out
    #[arg(value_name = "TENANT[@BRANCH]")]
    pub branch: Option<String>,
    /// An option of the engine; the last one of a key counts
    #[arg(short = 's', value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

/// Arguments of `forebay import`.
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// The directory of the database that takes the tenants in
    pub dir: PathBuf,
    /// The directory that they come from; it stays as it is
    pub from: PathBuf,
    /// Another name for the tenant, where there is one
    #[arg(long = "as", value_name = "TENANT")]
    pub name: Option<String>,
    /// An option of the engine; the last one of a key counts
    #[arg(short = 's', value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    seq: u64,
    branches: Vec<String>,
    linked_files: u64,
    linked_bytes: u64,
    copied_bytes: u64,
    logged_entries: u64,
}

/// Refuses a directory without a database: an open would make one.
fn check_database(dir: &Path) -> core::result::Result<(), Stop> {
    let current = OsEnv.block_on(read_current(&OsEnv, dir)).map_err(|error| stop(&error))?;
    current.map_or_else(|| Err(no_database(dir)), |_| Ok(()))
}

/// Opens a database that is there, does something with it and closes it.
fn with_db(
    (dir, options): (&Path, Options),
    run: impl AsyncFnOnce(&Db<OsEnv>) -> Result<Line>,
) -> core::result::Result<Line, Stop> {
    check_database(dir)?;
    OsEnv.block_on(async {
        let db = Db::open(OsEnv, dir, options).await.map_err(|error| stop(&error))?;
        let line = run(&db).await;
        let closed = db.close().await;
        line.and_then(|line| closed.map(|()| line)).map_err(|error| stop(&error))
    })
}

/// Runs `forebay fork-to`.
///
/// # Errors
///
/// With code 2 for a directory without a database, a target that is not empty, bad options or a
/// branch that is not there; with 1 for damage or a copy that failed.
pub fn fork_to(args: &ForkToArgs, format: Format) -> core::result::Result<(), Stop> {
    let branch = args.branch.as_deref().map(full_name_of);
    let branch = branch.transpose().map_err(|error| stop(&error))?;
    let options = options(&args.settings).map_err(|error| stop(&error))?;
    let line = with_db((&args.dir, options), async |db| {
        let (detached, branches) = match branch {
            None => (db.fork_to(&args.to).await?, db.tenants()),
            Some(name) => {
                let branch = db.branch(&name).ok_or(Error::UnknownTenant(name))?;
                (branch.fork_to(&args.to).await?, vec![branch.name().to_owned()])
            }
        };
        Ok(Line {
            seq: detached.seq,
            branches,
            linked_files: detached.linked_files,
            linked_bytes: detached.linked_bytes,
            copied_bytes: detached.copied_bytes,
            logged_entries: detached.logged_entries,
        })
    })?;
    tell(&line, format);
    Ok(())
}

/// Runs `forebay import`.
///
/// # Errors
///
/// With code 2 for a directory without a database, bad options or a name that is taken; with 1 for
/// damage or an import that failed.
pub fn import(args: &ImportArgs, format: Format) -> core::result::Result<(), Stop> {
    let options = options(&args.settings).map_err(|error| stop(&error))?;
    check_database(&args.from)?;
    let line = with_db((&args.dir, options), async |db| {
        let imported = match &args.name {
            None => db.import(&args.from).await?,
            Some(name) => db.import_as(&args.from, name).await?,
        };
        Ok(Line {
            seq: imported.seq,
            branches: imported.branches,
            linked_files: imported.linked_files,
            linked_bytes: imported.linked_bytes,
            copied_bytes: imported.copied_bytes,
            logged_entries: imported.logged_entries,
        })
    })?;
    tell(&line, format);
    Ok(())
}

fn tell(line: &Line, format: Format) {
    let mut out = io::stdout().lock();
    let Line { seq, branches, linked_files, linked_bytes, copied_bytes, logged_entries } = line;
    let told = match format {
        Format::Json => {
            serde_json::to_writer(&mut out, line).map_err(Into::into).and_then(|()| writeln!(out))
        }
        Format::Csv => {
            let head = "seq,branches,linked_files,linked_bytes,copied_bytes,logged_entries";
            let count = branches.len();
            let files = format!("{linked_files},{linked_bytes},{copied_bytes},{logged_entries}");
            writeln!(out, "{head}").and_then(|()| writeln!(out, "{seq},{count},{files}"))
        }
        Format::Human => writeln!(
            out,
            "{} branches at {}: {} files of {} bytes linked, {} bytes copied, {} entries of the log",
            branches.len(),
            thousands(*seq),
            thousands(*linked_files),
            thousands(*linked_bytes),
            thousands(*copied_bytes),
            thousands(*logged_entries),
        ),
    };
    // A reader that went away has seen what it wanted.
    told.unwrap_or_default();
}
