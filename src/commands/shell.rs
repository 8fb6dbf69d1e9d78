//! `forebay shell`: lines on stdin against a real database, one JSON object on stdout for each.
//!
//! Fields of a line are separated by one space; the value of `put` is the rest of its line. So a
//! tenant and a key hold no space, a value may, and any of them may be empty where the engine
//! allows it. Keys and values are bytes; [`Text`] says how those that are not UTF-8 are shown. An
//! empty line is skipped. A failure is an answer like another: the lines behind it are run.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use core::ops::Bound;
use forebay_engine::env::BlockingEnv as _;
use forebay_engine::env::os::OsEnv;
use forebay_engine::options::ForkMemtable;
use forebay_engine::read::Scan;
use forebay_engine::tenant::ScanOptions;
use forebay_engine::{Db, Error, Options, Snapshot, Tenant, WriteOptions};
use serde::Serialize;

use super::failure::{Failure, Text};

const HELP: &str = "lines: put T K V, del T K, get T K, scan T [FROM TO] [reverse], \
                    prefix T P [reverse], snapshot T, flush [T], compact [T], fork T NAME, drop T; T is \
                    TENANT or TENANT@BRANCH, and drop TENANT takes all branches";

/// Arguments of `forebay shell`.
#[derive(Clone, Debug, clap::Args)]
pub struct ShellArgs {
    /// The directory of the database; made where there is none
    pub dir: PathBuf,
    /// An option of the engine; the last one of a key counts
    #[arg(short = 's', value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Pair {
    key: Text,
    value: Text,
}

#[derive(Debug, Serialize)]
struct ScanCost {
    /// Tables of the tree.
    tables: u64,
    /// Of them, those that keys or sequence numbers ruled out.
    pruned_bounds: u64,
    /// Of them, those that a filter ruled out.
    pruned_filter: u64,
    /// Data blocks needed before the first entry could be told, from disk or cache.
    blocks_at_start: u64,
    /// Data blocks needed in all.
    blocks: u64,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Done { ok: bool },
    Seq { seq: u64 },
    Forked { branch: String, seq: u64, copied_bytes: u64 },
    Value { found: bool, value: Option<Text> },
    Entries { entries: Vec<Pair>, stats: ScanCost },
}

const DONE: Answer = Answer::Done { ok: true };

type Answered = Result<Answer, Failure>;

/// Runs the command and returns its exit code: 1 where a line met an error, 2 for options or a
/// directory that cannot be used.
pub fn run(args: &ShellArgs) -> u8 {
    let mut out = io::stdout().lock();
    let mut memtable = ForkMemtable::default();
    let opened = options(&args.settings).and_then(|options| {
        memtable = options.fork_memtable;
        OsEnv.block_on(Db::open(OsEnv, &args.dir, options))
    });
    let db = match opened {
        Ok(db) => db,
        Err(error) if is_usage(&error) => {
            // Without stderr there is nobody to tell.
            writeln!(io::stderr(), "error: {error}").unwrap_or_default();
            return 2;
        }
        Err(error) => {
            tell(&mut out, &Err(error.into())).unwrap_or_default();
            return 1;
        }
    };
    let mut shell = Shell { db, snapshots: Vec::new(), memtable };
    // Where stdout is closed nobody reads answers any more: the lines that were read are done.
    let served = shell.serve(&mut io::stdin().lock(), &mut out);
    shell.snapshots.clear();
    let closed = OsEnv.block_on(shell.db.close()).map_err(Failure::from);
    if let Err(failure) = closed {
        tell(&mut out, &Err(failure)).unwrap_or_default();
        return 1;
    }
    u8::from(!served.unwrap_or(false))
}

pub(super) fn options(settings: &[String]) -> Result<Options, Error> {
    let mut options = Options::default();
    for setting in settings {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Error::InvalidArgument(format!("-s {setting:?} is not key=value")));
        };
        options.set(key.trim(), value.trim())?;
    }
    options.validate()?;
    Ok(options)
}

/// Whether an open failed by what was asked for, and not by what the directory holds.
pub(super) fn is_usage(error: &Error) -> bool {
    let of_directory = |op: &str| matches!(op, "create_dir" | "lock");
    matches!(error, Error::InvalidArgument(_))
        || matches!(error, Error::Io { op, .. } if of_directory(op))
}

fn tell(out: &mut impl Write, answer: &Answered) -> io::Result<()> {
    match answer {
        Ok(answer) => serde_json::to_writer(&mut *out, answer)?,
        Err(failure) => serde_json::to_writer(&mut *out, failure)?,
    }
    out.write_all(b"\n")?;
    out.flush()
}

struct Shell {
    db: Db<OsEnv>,
    snapshots: Vec<Snapshot<OsEnv>>,
    memtable: ForkMemtable,
}

impl Shell {
    /// Answers every line; says whether none failed.
    fn serve(&mut self, lines: &mut impl BufRead, out: &mut impl Write) -> io::Result<bool> {
        let mut clean = true;
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            if !text.is_empty() {
                let answer = OsEnv.block_on(self.answer(text));
                clean &= answer.is_ok();
                tell(out, &answer)?;
            }
            line.clear();
        }
        Ok(clean)
    }

    async fn answer(&mut self, line: &[u8]) -> Answered {
        let (verb, rest) = first_field(line);
        if verb == b"put" {
            return self.put(rest).await;
        }
        let fields: Vec<&[u8]> =
            rest.map_or_else(Vec::new, |rest| rest.split(|byte| *byte == b' ').collect());
        match (verb, &fields[..]) {
            (b"del", [tenant, key]) => {
                let seq = self.tenant(tenant)?.delete(key, WriteOptions::default()).await?;
                Ok(Answer::Seq { seq })
            }
            (b"get", [tenant, key]) => {
                let value = self.tenant(tenant)?.get(key).await?;
                Ok(Answer::Value { found: value.is_some(), value: value.map(Text) })
            }
            (b"scan", [tenant, range @ ..]) => self.scan(tenant, range).await,
            (b"prefix", [tenant, prefix]) => {
                answer_scan(self.tenant(tenant)?.prefix(prefix)?).await
            }
            (b"prefix", [tenant, prefix, b"reverse"]) => {
                let options = ScanOptions::default().reversed();
                answer_scan(self.tenant(tenant)?.prefix_with(prefix, options)?).await
            }
            (b"snapshot", [tenant]) => {
                let snapshot = self.tenant(tenant)?.snapshot();
                let seq = snapshot.seq();
                self.snapshots.push(snapshot);
                Ok(Answer::Seq { seq })
            }
            (b"flush" | b"compact", [] | [_]) => {
                for tenant in self.one_of_each_tree(fields.first().copied())? {
                    match verb {
                        b"flush" => tenant.flush().await?,
                        _ => tenant.compact().await?,
                    }
                }
                Ok(DONE)
            }
            (b"drop", [tenant]) => self.drop(tenant).await,
            (b"fork", [tenant, name]) => self.fork(tenant, name).await,
            (
                b"del" | b"get" | b"scan" | b"prefix" | b"snapshot" | b"flush" | b"compact"
                | b"drop" | b"fork",
                _,
            ) => Err(misused(verb)),
            _ => {
                let verb: String = String::from_utf8_lossy(verb).chars().take(40).collect();
                Err(Failure::invalid(format!("{verb:?} is no command; {HELP}")))
            }
        }
    }

    async fn put(&self, rest: Option<&[u8]>) -> Answered {
        let (tenant, rest) = rest.map_or((&[][..], None), first_field);
        let (key, value) = rest.map_or((&[][..], None), first_field);
        let Some(value) = value else {
            return Err(Failure::invalid(format!("put takes a tenant, a key and a value; {HELP}")));
        };
        let name = name_of(tenant)?;
        let tenant = match self.db.branch(&name) {
            Some(tenant) => tenant,
            // A branch begins with a fork.
            None if name.contains('@') => return Err(Error::UnknownTenant(name).into()),
            None => self.db.create_tenants(&[&name]).await?.pop().ok_or(Error::Dropped)?,
        };
        let seq = tenant.put(key, value, WriteOptions::default()).await?;
        Ok(Answer::Seq { seq })
    }

    async fn scan(&self, tenant: &[u8], range: &[&[u8]]) -> Answered {
        let (range, options) = match range {
            [b"reverse"] => (&[][..], ScanOptions::default().reversed()),
            [range @ .., b"reverse"] if range.len() == 2 => {
                (range, ScanOptions::default().reversed())
            }
            range => (range, ScanOptions::default()),
        };
        let range = match range {
            [] => (Bound::Unbounded, Bound::Unbounded),
            [from, to] => (Bound::Included(*from), Bound::Excluded(*to)),
            _ => return Err(misused(b"scan")),
        };
        answer_scan(self.tenant(tenant)?.scan_with(range, options)?).await
    }

    /// One branch where it is named, else the tenant with all its branches.
    async fn drop(&self, tenant: &[u8]) -> Answered {
        let name = name_of(tenant)?;
        if tenant.contains(&b'@') {
            self.db.drop_branch(&name).await?;
        } else {
            self.db.drop_tenant(&name).await?;
        }
        Ok(DONE)
    }

    async fn fork(&self, tenant: &[u8], name: &[u8]) -> Answered {
        let Ok(name) = core::str::from_utf8(name) else {
            return Err(Failure::invalid("a branch's name is UTF-8"));
        };
        let forked = self.tenant(tenant)?.fork_with(name, self.memtable).await?;
        let (branch, seq) = (forked.tenant.full_name(), forked.seq);
        Ok(Answer::Forked { branch, seq, copied_bytes: forked.copied_bytes })
    }

    fn tenant(&self, field: &[u8]) -> Result<Tenant<OsEnv>, Failure> {
        let name = name_of(field)?;
        Ok(self.db.branch(&name).ok_or(Error::UnknownTenant(name))?)
    }

    /// The tenant that is named, or for each tree one tenant that lives in it.
    fn one_of_each_tree(&self, field: Option<&[u8]>) -> Result<Vec<Tenant<OsEnv>>, Failure> {
        if let Some(field) = field {
            return Ok(vec![self.tenant(field)?]);
        }
        let mut seen = BTreeSet::new();
        let tenants = self.db.tenants().into_iter().filter_map(|name| self.db.tenant(&name));
        Ok(tenants.filter(|tenant| seen.insert(tenant.tree_id())).collect())
    }
}

/// The bytes up to the first space, and those behind it.
fn first_field(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut fields = text.splitn(2, |byte| *byte == b' ');
    (fields.next().unwrap_or_default(), fields.next())
}

/// The full name of `TENANT` or `TENANT@BRANCH`.
fn name_of(field: &[u8]) -> Result<String, Failure> {
    let Ok(text) = core::str::from_utf8(field) else {
        return Err(Failure::invalid("a tenant's name is UTF-8"));
    };
    Ok(super::branches::full_name_of(text)?)
}

fn misused(verb: &[u8]) -> Failure {
    Failure::invalid(format!(
        "{} takes other fields, separated by one space; {HELP}",
        String::from_utf8_lossy(verb)
    ))
}

async fn answer_scan(mut scan: Scan<OsEnv>) -> Answered {
    scan.start().await?;
    let blocks_at_start = scan.stats().data_blocks();
    let mut entries = Vec::new();
    while let Some((key, value)) = scan.next().await? {
        entries.push(Pair { key: Text(key), value: Text(value) });
    }
    let stats = scan.stats();
    let stats = ScanCost {
        tables: stats.tables_considered,
        pruned_bounds: stats.tables_ruled_out_by_bounds + stats.tables_ruled_out_by_seq,
        pruned_filter: stats.tables_ruled_out_by_filter + stats.tables_ruled_out_by_prefix,
        blocks_at_start,
        blocks: stats.data_blocks(),
    };
    Ok(Answer::Entries { entries, stats })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_told_apart_from_text_that_looks_like_them() {
        let show =
            |bytes: &'static [u8]| serde_json::to_string(&Text(Bytes::from_static(bytes))).unwrap();
        assert_eq!(show(b"a\"b"), r#""a\"b""#);
        assert_eq!(show(b"\xff\x00"), r#"{"base64":"/wA="}"#);
        assert_eq!(show(br#"{"base64":"/wA="}"#), r#""{\"base64\":\"/wA=\"}""#);
    }
}
