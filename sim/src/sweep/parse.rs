//! Scripts in words: one line a step, blocks that begin with `script NAME`.
//!
//! ```text
//! script overwrite              # a name
//! layouts per-tenant shared     # all three where none is named
//! set memtable_bytes_max=4096
//! tenants 2
//! creation                      # calls of the creation fail too
//! put 0 1 100 sync              # branch, key, bytes
//! batch 0:1:40 1:1:- sync       # `-` deletes
//! fork 0 1 share                # of branch 0, the tenant's fork 1: then `0.1`
//! end close                     # crash power, crash kill, close or go-on; the next phase follows
//! ```

use forebay_engine::types::to_u64;

use super::Script;
use crate::check::value::fork_number;
use crate::fault::FaultPlan;
use crate::scenario::{Crash, CrashKind, End, KeyEnd, Keys, Op, Phase, Scenario, Write};
use crate::streams::Stream;

/// Layouts of a script that names none.
const LAYOUTS: [&str; 3] = ["per-tenant", "shared", "grouped-2"];

/// Options of every script, unless it says otherwise: small, so that few operations do much.
const OPTIONS: [(&str, &str); 9] = [
    ("budget_bytes", "65536"),
    ("memtable_bytes_max", "4096"),
    ("wal_segment_bytes", "32768"),
    ("l0_compaction_count", "2"),
    ("block_bytes", "512"),
    ("table_bytes_max", "4096"),
    ("block_cache_bytes", "4096"),
    ("flush_slots", "1"),
    ("compaction_slots", "1"),
];

/// How long a full disk stays full.
const FULL_NS: u64 = 2_000_000_000;

type Parsed<T> = Result<T, String>;

/// One block of the text.
struct Block {
    name: String,
    layouts: Vec<String>,
    options: Vec<(String, String)>,
    tenants: usize,
    phases: Vec<Phase>,
    open: bool,
    creation: bool,
}

/// Every script of a text, once for each of its layouts.
///
/// # Errors
///
/// One line that names the line of the text.
pub(super) fn scripts(text: &str) -> Parsed<Vec<Script>> {
    let mut out = Vec::new();
    let mut block: Option<Block> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        let rest: Vec<&str> = words.collect();
        let at = |error: String| format!("line {number}: {error}");
        if first == "script" {
            out.extend(block.take().into_iter().flat_map(Block::scripts));
            let name = (*word(&rest, 0).map_err(at)?).to_owned();
            block = Some(Block::new(name));
        } else {
            let block = block.as_mut().ok_or_else(|| at("a script comes first".to_owned()))?;
            block.line(first, &rest).map_err(at)?;
        }
    }
    out.extend(block.into_iter().flat_map(Block::scripts));
    Ok(out)
}

fn word<'a>(words: &[&'a str], at: usize) -> Parsed<&'a str> {
    words.get(at).copied().ok_or_else(|| format!("a word is missing behind {words:?}"))
}

fn number<T: core::str::FromStr>(text: &str) -> Parsed<T> {
    text.parse().map_err(|_bad| format!("{text:?} is no number"))
}

/// `0` is a tenant, `0.2` its second fork.
fn branch(text: &str) -> Parsed<usize> {
    match text.split_once('.') {
        Some((tenant, fork)) => Ok(fork_number(number(tenant)?, number(fork)?)),
        None => number(text),
    }
}

fn bytes(text: &str) -> Parsed<Option<u32>> {
    if text == "-" { Ok(None) } else { number(text).map(Some) }
}

fn setting(text: &str) -> Parsed<(String, String)> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is no KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `a..b`, both ends included; `all`; or `prefix KEY LEN`.
fn keys(words: &[&str]) -> Parsed<Keys> {
    match words {
        ["all", ..] => Ok(Keys::Between(KeyEnd::Unbounded, KeyEnd::Unbounded)),
        ["prefix", key, len, ..] => Ok(Keys::Prefix(number(key)?, number(len)?)),
        [range, ..] => {
            let (from, to) = range.split_once("..").ok_or_else(|| format!("{range:?}: no A..B"))?;
            Ok(Keys::Between(KeyEnd::Included(number(from)?), KeyEnd::Included(number(to)?)))
        }
        [] => Err("which keys?".to_owned()),
    }
}

impl Block {
    fn new(name: String) -> Self {
        let options = OPTIONS.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let phases = vec![Phase { clients: vec![Vec::new()], ..Phase::quiet() }];
        let layouts = LAYOUTS.map(str::to_owned).into();
        Self {
            name,
            layouts,
            options: options.into(),
            tenants: 2,
            phases,
            open: true,
            creation: false,
        }
    }

    fn scripts(self) -> Vec<Script> {
        let of = |layout: &String| {
            let name = format!("{}/{layout}", self.name);
            let mut options = self.options.clone();
            options.push(("layout".to_owned(), layout.clone()));
            Script {
                seed: Stream::new(0, &name).draw() >> 32,
                creation: self.creation,
                name,
                scenario: Scenario {
                    holds: false,
                    options,
                    profile: "journal".to_owned(),
                    sync_persists_name: false,
                    device: "none".to_owned(),
                    tenants: self.tenants,
                    creation_crashes: Vec::new(),
                    creation_nth_fault: None,
                    phases: self.phases.clone(),
                    exhaustive: false,
                },
            }
        };
        self.layouts.iter().map(of).collect()
    }

    /// The phase that lines add to; the end of one begins another with the next line.
    fn phase(&mut self) -> Parsed<&mut Phase> {
        if !self.open {
            self.phases.push(Phase { clients: vec![Vec::new()], ..Phase::quiet() });
            self.open = true;
        }
        self.phases.last_mut().ok_or_else(|| "no phase".to_owned())
    }

    fn line(&mut self, first: &str, rest: &[&str]) -> Parsed<()> {
        match first {
            "layouts" => self.layouts = rest.iter().map(|name| (*name).to_owned()).collect(),
            "tenants" => self.tenants = number(word(rest, 0)?)?,
            "set" => {
                for (key, value) in
                    rest.iter().map(|text| setting(text)).collect::<Parsed<Vec<_>>>()?
                {
                    self.options.retain(|(known, _)| *known != key);
                    self.options.push((key, value));
                }
            }
            "reopen" => {
                let set = rest.iter().map(|text| setting(text)).collect::<Parsed<Vec<_>>>()?;
                self.phase()?.reopen_options.extend(set);
            }
            "free" => {
                let free = number(word(rest, 0)?)?;
                let phase = self.phase()?;
                (phase.free_bytes, phase.faults_ns) = (Some(free), FULL_NS);
            }
            "slow" => {
                let latency_max_ns = number(word(rest, 0)?)?;
                let phase = self.phase()?;
                phase.faults =
                    FaultPlan { latency: 200_000, latency_max_ns, ..FaultPlan::default() };
                phase.faults_ns = FULL_NS;
            }
            "creation" => self.creation = true,
            "twice" => self.phase()?.open_twice = true,
            "client" => self.phase()?.clients.push(Vec::new()),
            "end" => {
                self.phase()?.end = end(rest)?;
                self.open = false;
            }
            _ => {
                let ops = ops(first, rest)?;
                let client = self.phase()?.clients.last_mut();
                client.ok_or_else(|| "no client".to_owned())?.extend(ops);
            }
        }
        Ok(())
    }
}

fn end(words: &[&str]) -> Parsed<End> {
    let crash = |kind| End::Crash(Crash { kind, point: u64::MAX });
    match words {
        ["close"] => Ok(End::Close),
        ["go-on"] => Ok(End::GoOn),
        ["crash", "power"] => Ok(crash(CrashKind::PowerLoss)),
        ["crash", "kill"] => Ok(crash(CrashKind::Kill)),
        _ => Err(format!("{words:?} is no end")),
    }
}

/// Operations of a line: one, or one for each key of a `fill`.
fn ops(first: &str, rest: &[&str]) -> Parsed<Vec<Op>> {
    let sync = rest.last() == Some(&"sync");
    let single =
        |tenant, key, bytes| Op::Write { writes: vec![Write { tenant, key, bytes }], sync };
    let op = match first {
        "put" => single(branch(word(rest, 0)?)?, number(word(rest, 1)?)?, bytes(word(rest, 2)?)?),
        "del" => single(branch(word(rest, 0)?)?, number(word(rest, 1)?)?, None),
        "fill" => {
            let tenant = branch(word(rest, 0)?)?;
            let (from, to) = word(rest, 1)?.split_once("..").ok_or("fill BRANCH A..B BYTES")?;
            let (from, to): (u32, u32) = (number(from)?, number(to)?);
            let bytes = bytes(word(rest, 2)?)?;
            return Ok((from..=to).map(|key| single(tenant, key, bytes)).collect());
        }
        "batch" => {
            let writes = rest.iter().filter(|text| **text != "sync").map(|text| write(text));
            Op::Write { writes: writes.collect::<Parsed<Vec<_>>>()?, sync }
        }
        "sync" => Op::Sync,
        "sleep" => Op::Sleep { ns: number::<u64>(word(rest, 0)?)?.saturating_mul(1_000_000) },
        "reread" => Op::Reread { key: number(word(rest, 0)?)? },
        _ => of_branch(first, branch(word(rest, 0)?)?, rest.get(1..).unwrap_or_default())?,
    };
    Ok(vec![op])
}

fn write(text: &str) -> Parsed<Write> {
    let mut parts = text.split(':');
    let mut next = || parts.next().ok_or_else(|| format!("{text:?} is no BRANCH:KEY:BYTES"));
    let (tenant, key) = (branch(next()?)?, number(next()?)?);
    Ok(Write { tenant, key, bytes: bytes(next()?)? })
}

fn of_branch(first: &str, tenant: usize, rest: &[&str]) -> Parsed<Op> {
    let text = |at: usize| rest.get(at).map(|text| (*text).to_owned());
    Ok(match first {
        "get" => Op::Get { tenant, key: number(word(rest, 0)?)? },
        "scan" | "back" => {
            let seek = match rest.iter().position(|word| *word == "seek") {
                Some(at) => Some((number(word(rest, at + 1)?)?, number(word(rest, at + 2)?)?)),
                None => None,
            };
            Op::Query { tenant, keys: keys(rest)?, reverse: first == "back", seek }
        }
        "compare" => Op::Compare { tenant, keys: keys(rest)?, old: rest.last() == Some(&"old") },
        "compact" => Op::Compact { tenant, keys: keys(rest)? },
        "extractor" => Op::Extractor { tenant, extractor: text(0) },
        "snapshot" => Op::Snapshot { tenant },
        "flush" => Op::Flush { tenant },
        "drop" => Op::Drop { tenant },
        "drop-branch" => Op::DropBranch { tenant },
        "create" => Op::Create { tenant, extractor: text(0) },
        "fork" => Op::Fork { tenant, fork: number(word(rest, 0)?)?, memtable: text(1) },
        _ => return Err(format!("{first:?} is no step of a script")),
    })
}

/// How many operations a script has.
pub(super) fn op_count(scenario: &Scenario) -> u64 {
    to_u64(scenario.phases.iter().flat_map(|phase| &phase.clients).map(Vec::len).sum())
}
