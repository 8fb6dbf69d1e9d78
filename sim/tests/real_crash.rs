#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "real processes on real files, outside every world")]
//! Real crashes: the engine on the machine's own files in a process of its own, killed with SIGKILL at
//! random points, and judged by the rules that judge simulated crashes.
//!
//! Strategy: this test runs itself as a child. The child writes with three threads, forks, drops,
//! creates and flushes, and tells each intention, each sequence number and each acknowledgement on its
//! standard output as it happens. The parent reads so many lines and kills it; what the child had
//! printed goes into the model, the directory is opened and read, and the model explains it or a rule
//! is broken. One directory goes through all kills. In every other round a copy is judged, so that the
//! next child recovers what the kill left, and may be killed while it does.
//!
//! `FOREBAY_KILLS` says how many kills, 50 without it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::BlockingEnv as _;
use forebay_engine::env::os::OsEnv;
use forebay_engine::events::{Event, Listener};
use forebay_engine::inspect::{self, Look};
use forebay_engine::types::Nanos;
use forebay_engine::version::manifest::manifest_path;
use forebay_engine::{Db, Error, Options, Tenant, WriteBatch, WriteOptions};
use forebay_sim::check::files::{c9_verified, c10_files};
use forebay_sim::check::forks::c5_lineage;
use forebay_sim::check::liveness::c11_open;
use forebay_sim::check::model::{Known, Model, Wanted};
use forebay_sim::check::recovery::{State, TenantState, c3_invention, c4_tenants, judge};
use forebay_sim::check::value::{
    Origin, encode, fork_number, key_bytes, key_number, name_number, op_number, tenant_name,
    tenant_of,
};
use forebay_sim::check::{Checked, Rule, RuleCounts};

const TENANTS: usize = 4;
const FORKS: usize = 3;
const KEYS: u64 = 24;
const THREADS: usize = 3;

/// Lines after which a child is killed, at most; most of them come after the open.
const LINES_MAX: u64 = 900;

fn options() -> Options {
    let mut options = Options::default();
    for (key, value) in [
        ("budget_bytes", "65536"),
        ("memtable_bytes_max", "8192"),
        ("wal_segment_bytes", "32768"),
        ("wal_bytes_max", "131072"),
        ("block_bytes", "512"),
        ("table_bytes_max", "8192"),
        ("block_cache_bytes", "8192"),
        ("l0_compaction_count", "2"),
    ] {
        options.set(key, value).unwrap();
    }
    options
}

/// Chance of the test's own: splitmix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

// ---- The child.

/// How the child lies, for the test that the test can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// Acknowledges a write before it is in the log.
    EarlyAck,
}

/// Tells what happens, one line at a time, each with one call.
#[derive(Clone, Debug)]
struct Teller {
    out: Arc<Mutex<std::io::Stdout>>,
    lie: Lie,
}

impl Teller {
    fn say(&self, line: &str) {
        let mut out = self.out.lock().unwrap();
        out.write_all(format!("@{line}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

impl Listener for Teller {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a listener takes what it knows")]
    fn event(&self, _now: Nanos, event: &Event) {
        match event {
            Event::WriteSequenced { tag, first_seq, entry_count } => {
                self.say(&format!("seq {tag} {first_seq} {entry_count}"));
                if self.lie == Lie::EarlyAck {
                    self.say(&format!("ack {tag}"));
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            Event::FlushEnd { .. } => self.say("flushed"),
            _ => {}
        }
    }
}

/// What the threads of a child share: which names are there, and in which life; the last tag.
struct Names {
    lives: BTreeMap<usize, u32>,
    there: BTreeMap<usize, u32>,
    tag: u64,
}

struct Worker {
    db: Db<OsEnv>,
    teller: Teller,
    names: Arc<Mutex<Names>>,
    chance: Chance,
}

impl Worker {
    fn branch(&self, number: usize) -> Tenant<OsEnv> {
        self.db.branch(&tenant_name(number)).unwrap()
    }

    fn pick(&mut self, names: &Names) -> Option<usize> {
        let at = self.chance.below(names.there.len().max(1) as u64);
        names.there.keys().nth(usize::try_from(at).unwrap()).copied()
    }

    fn write(&mut self) {
        let count = if self.chance.below(4) == 0 { 2 + self.chance.below(4) } else { 1 };
        let sync = self.chance.below(3) == 0;
        let mut batch = WriteBatch::new();
        let mut line = String::new();
        let shared = Arc::clone(&self.names);
        let mut names = shared.lock().unwrap();
        let tag = names.tag + 1;
        for index in 0..usize::try_from(count).unwrap() {
            let Some(number) = self.pick(&names) else { return };
            let key = u32::try_from(self.chance.below(KEYS)).unwrap();
            let put = self.chance.below(5) > 0;
            let incarnation = names.there[&number];
            let branch = self.branch(number);
            if put {
                let tenant = u32::try_from(number).unwrap();
                let op = op_number(tag, index);
                let origin = Origin { tenant, incarnation, key, op };
                let bytes = usize::try_from(self.chance.below(700)).unwrap();
                branch.put_in(&mut batch, &key_bytes(key), &encode(origin, bytes)).unwrap();
            } else {
                branch.delete_in(&mut batch, &key_bytes(key)).unwrap();
            }
            line.push_str(&format!(" {number}/{key}/{}", u8::from(put)));
        }
        names.tag = tag;
        self.teller.say(&format!("begin {} {tag}{line}", u8::from(sync)));
        drop(names);
        match OsEnv.block_on(self.db.write(batch, WriteOptions { sync, tag })) {
            Ok(_) if self.teller.lie == Lie::EarlyAck => {}
            Ok(_) => self.teller.say(&format!("ack {tag}")),
            Err(Error::Dropped) => self.teller.say(&format!("failed {tag}")),
            Err(error) => panic!("write: {error}"),
        }
    }

    /// Creates, forks and drops: one thread does it, while others write.
    fn lifecycle(&mut self) {
        let shared = Arc::clone(&self.names);
        let mut names = shared.lock().unwrap();
        let tenant = usize::try_from(self.chance.below(TENANTS as u64)).unwrap();
        let has_any = names.there.keys().any(|number| tenant_of(*number) == tenant);
        if !has_any {
            return self.create(&mut names, tenant);
        }
        let fork = 1 + usize::try_from(self.chance.below(FORKS as u64)).unwrap();
        let number = fork_number(tenant, fork);
        let parent = names.there.keys().copied().find(|n| tenant_of(*n) == tenant).unwrap();
        if !names.there.contains_key(&number) && self.chance.below(4) > 0 {
            self.teller.say(&format!("fork {number} {parent}"));
            let made = self.branch(parent);
            let made = OsEnv.block_on(made.fork(&format!("b{fork}"))).unwrap();
            let seq = made.fork_point().unwrap().seq;
            self.teller.say(&format!("forked {} {seq}", made.branch_id().0));
            began(&mut names, number);
        } else if self.chance.below(4) == 0 {
            let gone: Vec<usize> =
                names.there.keys().copied().filter(|n| tenant_of(*n) == tenant).collect();
            self.teller.say(&format!("drop {}", numbers(&gone)));
            OsEnv.block_on(self.db.drop_tenant(&tenant_name(tenant))).unwrap();
            self.teller.say("dropped");
            names.there.retain(|n, _| !gone.contains(n));
        } else if names.there.contains_key(&number) {
            self.teller.say(&format!("drop {number}"));
            OsEnv.block_on(self.db.drop_branch(&tenant_name(number))).unwrap();
            self.teller.say("dropped");
            names.there.remove(&number);
        }
    }

    fn create(&self, names: &mut Names, tenant: usize) {
        self.teller.say(&format!("create {tenant}"));
        let made = OsEnv.block_on(self.db.create_tenants(&[&tenant_name(tenant)])).unwrap();
        self.teller.say(&format!("created {}", made[0].branch_id().0));
        began(names, tenant);
    }

    fn work(mut self, is_first: bool) {
        loop {
            match self.chance.below(40) {
                0..=3 if is_first => self.lifecycle(),
                4 => {
                    let Some(number) = self.names.lock().unwrap().there.keys().next().copied()
                    else {
                        continue;
                    };
                    if let Some(branch) = self.db.branch(&tenant_name(number)) {
                        // It may be dropped meanwhile.
                        drop(OsEnv.block_on(branch.flush()));
                    }
                }
                _ => self.write(),
            }
        }
    }
}

fn began(names: &mut Names, number: usize) {
    let lives = names.lives.entry(number).or_default();
    names.there.insert(number, *lives);
    *lives += 1;
}

fn numbers(all: &[usize]) -> String {
    let words: Vec<String> = all.iter().map(ToString::to_string).collect();
    words.join(" ")
}

/// Not a test of its own: what the others run as a child. It never ends by itself.
#[test]
#[ignore = "the child of the other tests"]
fn child() {
    let Ok(told) = std::env::var("FOREBAY_CRASH_CHILD") else { return };
    let mut words = told.split_whitespace();
    let mut next = || words.next().unwrap().to_owned();
    let (dir, seed, tag) = (next(), next(), next());
    let lie = if next() == "early-ack" { Lie::EarlyAck } else { Lie::None };
    let mut names =
        Names { lives: BTreeMap::new(), there: BTreeMap::new(), tag: tag.parse().unwrap() };
    // number:lives, and :life where it is there.
    for name in words {
        let parts: Vec<u32> = name.split(':').map(|part| part.parse().unwrap()).collect();
        names.lives.insert(parts[0] as usize, parts[1]);
        if let Some(life) = parts.get(2) {
            names.there.insert(parts[0] as usize, *life);
        }
    }
    let teller = Teller { out: Arc::new(Mutex::new(std::io::stdout())), lie };
    let listener: Arc<dyn Listener> = Arc::new(teller.clone());
    let open = Db::open_with_listener(OsEnv, Path::new(&dir), options(), Some(listener));
    let db = OsEnv.block_on(open).unwrap();
    teller.say("opened");
    let names = Arc::new(Mutex::new(names));
    let seed: u64 = seed.parse().unwrap();
    let workers = (0..THREADS).map(|n| Worker {
        db: db.clone(),
        teller: teller.clone(),
        names: Arc::clone(&names),
        chance: Chance(seed.wrapping_mul(31).wrapping_add(n as u64)),
    });
    let threads: Vec<_> = workers
        .enumerate()
        .map(|(n, worker)| std::thread::spawn(move || worker.work(n == 0)))
        .collect();
    for thread in threads {
        if thread.join().is_err() {
            // The others would go on, and the parent would not know.
            std::process::abort();
        }
    }
}

// ---- The parent.

/// What a series of kills has seen.
#[derive(Debug, Default)]
struct Series {
    model: Model,
    tag: u64,
    counts: RuleCounts,
    kills: u64,
    acks: u64,
    forks: u64,
    drops: u64,
    flushes: u64,
    /// Kills before the open was done.
    in_recovery: u64,
}

/// What a line that began something waits for.
#[derive(Default)]
struct Begun {
    life: usize,
    gone: Vec<usize>,
}

impl Series {
    /// A child's line goes into the model.
    fn heard(&mut self, line: &str, begun: &mut Begun) {
        let mut words = line.split(' ');
        let what = words.next().unwrap();
        let rest: Vec<&str> = words.collect();
        let number = |at: usize| rest[at].parse::<u64>().unwrap();
        let name = |at: usize| rest[at].parse::<usize>().unwrap();
        match what {
            "begin" => {
                let mut ops = Vec::new();
                for op in &rest[2..] {
                    let parts: Vec<usize> = op.split('/').map(|p| p.parse().unwrap()).collect();
                    let inc = self.model.last_life(parts[0]).unwrap();
                    let key = u32::try_from(parts[1]).unwrap();
                    ops.push(Wanted { inc, key, put: parts[2] == 1 });
                }
                self.tag = self.model.begin_write(ops, number(0) == 1);
                assert_eq!(self.tag, number(1), "{line}");
            }
            "seq" => self.model.sequenced(number(0), number(1), number(2)),
            "ack" => {
                self.acks += 1;
                self.model.acked(number(0), 0);
            }
            "failed" => drop(self.model.failed(number(0))),
            "create" => begun.life = self.model.begin_create(name(0)),
            "created" => self.model.end_create(begun.life, Some(number(0))),
            "fork" => {
                let parent = self.model.last_life(name(1)).unwrap();
                begun.life = self.model.begin_fork(name(0), parent);
            }
            "forked" => {
                self.forks += 1;
                self.model.forked(begun.life, number(0), number(1));
            }
            "drop" => {
                begun.gone = (0..rest.len()).map(name).collect();
                self.set_drops(&begun.gone, Known::UnderWay);
            }
            "dropped" => {
                self.drops += 1;
                self.set_drops(&begun.gone, Known::Acked);
            }
            "flushed" => self.flushes += 1,
            "opened" => {}
            other => panic!("the child said {other:?}"),
        }
    }

    fn set_drops(&mut self, gone: &[usize], known: Known) {
        for number in gone {
            let life = self.model.last_life(*number).unwrap();
            self.model.set_drop(life, known);
        }
    }

    fn child(&self, dir: &Path, seed: u64, lie: Lie) -> Child {
        let lie = if lie == Lie::EarlyAck { "early-ack" } else { "honest" };
        let mut told = format!("{} {seed} {} {lie}", dir.display(), self.tag);
        let names: BTreeSet<usize> = self.model.incs.iter().map(|inc| inc.tenant).collect();
        for number in names {
            let lives = self.model.incs.iter().filter(|inc| inc.tenant == number).count();
            told.push_str(&format!(" {number}:{lives}"));
            let there = |inc: &&forebay_sim::check::model::Incarnation| {
                inc.tenant == number && inc.create == Known::Acked && inc.drop == Known::Not
            };
            if let Some(inc) = self.model.incs.iter().find(there) {
                told.push_str(&format!(":{}", inc.number));
            }
        }
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "real_crash::child",
                "--ignored",
                "--nocapture",
                "--test-threads",
                "1",
            ])
            .env("FOREBAY_CRASH_CHILD", told)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs a child, kills it behind so many lines, and hears all that it said.
    fn run_and_kill(&mut self, dir: &Path, chance: &mut Chance, lie: Lie) {
        let mut child = self.child(dir, chance.below(u64::MAX), lie);
        // Some are killed by the clock: while they recover, most of them.
        let lines = if chance.below(5) == 0 { 0 } else { 1 + chance.below(LINES_MAX) };
        if lines == 0 {
            std::thread::sleep(Duration::from_micros(chance.below(25_000)));
        }
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (mut heard, mut bytes) = (0, Vec::new());
        let (mut begun, mut opened, mut killed) = (Begun::default(), false, false);
        loop {
            if heard >= lines && !killed {
                child.kill().unwrap();
                killed = true;
            }
            bytes.clear();
            if out.read_until(b'\n', &mut bytes).unwrap() == 0 {
                break;
            }
            let Some(text) = bytes.strip_suffix(b"\n") else { break };
            // What the test harness prints begins otherwise, or stands before the first line.
            let text = std::str::from_utf8(text).unwrap();
            let Some((_, said)) = text.split_once('@') else { continue };
            opened |= said == "opened";
            heard += 1;
            self.heard(said, &mut begun);
        }
        let output = child.wait_with_output().unwrap();
        let is_ours = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9);
        assert!(is_ours && killed, "{}", String::from_utf8_lossy(&output.stderr));
        self.kills += 1;
        self.in_recovery += u64::from(!opened);
    }

    /// Opens what a kill left, reads all of it and judges it.
    fn judge(&mut self, dir: &Path) -> Checked {
        let opened = BlockingDb::open(OsEnv, dir, options());
        let error = opened.as_ref().err().map(ToString::to_string);
        c11_open(&mut self.counts, "after a kill", error.as_deref())?;
        let db = opened.unwrap();
        let state = self.read(&db)?;
        let why = (self.model.acked, "it survives the death of the process");
        let explained = judge(&self.model, &mut self.counts, &state, why)?;
        self.model.recovered(&explained);
        for (name, inc) in &explained.live {
            self.model.learn_branch(*inc, state.tenants[name].branch);
        }
        let report = db.verify(|_| {}).unwrap();
        let findings: Vec<(String, bool)> =
            report.findings.iter().map(|finding| (finding.error.to_string(), false)).collect();
        c9_verified(&mut self.counts, "verify", &findings)?;
        // The ticker may run beside one look, not beside all of them.
        let mut findings: Vec<(String, bool)> = Vec::new();
        for _ in 0..5 {
            OsEnv.block_on(db.db().wait_idle()).unwrap();
            let looked = db.db().check_structure();
            findings = looked.findings.into_iter().map(|finding| (finding, false)).collect();
            if findings.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        c9_verified(&mut self.counts, "a look at what is in memory", &findings)?;
        db.close().unwrap();
        drop(db);
        self.files(dir)
    }

    fn read(&mut self, db: &BlockingDb<OsEnv>) -> Checked<State> {
        let names = db.db().tenants();
        let mut branches = BTreeMap::new();
        for name in &names {
            let number = name_number(name).unwrap();
            branches.insert(number, db.branch(name).unwrap().tenant().branch_id().0);
        }
        let live = c4_tenants(&self.model, &mut self.counts, &branches)?;
        let mut state = State::default();
        for (number, inc) in live {
            let branch = db.branch(&tenant_name(number)).unwrap();
            let fork = branch.tenant().fork_point().map(|point| (point.parent.0, point.seq));
            c5_lineage(&self.model, &mut self.counts, inc, fork)?;
            if let Some((_, seq)) = fork
                && self.model.incs[inc].create != Known::Acked
            {
                self.model.inherit(inc, seq);
            }
            let snapshot = branch.snapshot();
            state.last = Some(snapshot.seq());
            let mut values = BTreeMap::new();
            let mut scan = branch.scan(..).unwrap();
            while let Some((key, bytes)) = scan.next().transpose().unwrap() {
                let key = key_number(&key).unwrap();
                let op = c3_invention(&self.model, &mut self.counts, (inc, key), &bytes)?;
                values.insert(key, op);
                assert_eq!(branch.get(&key_bytes(key)).unwrap(), Some(bytes), "get and scan");
            }
            let unread = BTreeSet::new();
            let branch = branches[&number];
            state.tenants.insert(number, TenantState { branch, values, unread, fork });
        }
        Ok(state)
    }

    /// C10: the closed directory holds what is reached and nothing else.
    fn files(&mut self, dir: &Path) -> Checked {
        let look = inspect::inspect(&OsEnv, dir, Look::default());
        let inspected = OsEnv.block_on(look).unwrap().unwrap();
        let mut reached: BTreeSet<String> = ["CURRENT", "LOCK"].map(str::to_owned).into();
        let manifest = inspected.edits.last().map(|edit| manifest_path(Path::new(""), edit.file));
        reached.extend(manifest.and_then(|path| path.to_str().map(str::to_owned)));
        reached.extend(inspected.tables.iter().map(|t| format!("{:06}.sst", t.meta.id.file)));
        reached.extend(inspected.wal.iter().map(|s| format!("{:06}.wal", s.segment)));
        let found = fs::read_dir(dir).unwrap();
        let found = found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        c10_files(&mut self.counts, &found, &reached)
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn copy(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to));
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// So many kills of one directory; the first broken rule ends them.
fn series(name: &str, kills: u64, lie: Lie) -> (Series, Checked) {
    let folder = folder(name);
    let (dir, image) = (folder.join("db"), folder.join("image"));
    fs::create_dir_all(&dir).unwrap();
    let mut series = Series::default();
    let mut chance = Chance(kills);
    for kill in 0..kills {
        series.run_and_kill(&dir, &mut chance, lie);
        // Of a copy: the next child recovers the original by itself.
        let judged = if kill.is_multiple_of(2) {
            series.judge(&dir)
        } else {
            copy(&dir, &image);
            series.judge(&image)
        };
        if judged.is_err() {
            println!("kill {kill} of {}", folder.display());
            return (series, judged);
        }
    }
    drop(fs::remove_dir_all(folder));
    (series, Ok(()))
}

#[test]
fn what_was_acknowledged_survives_kill_9_on_real_files() {
    let kills = std::env::var("FOREBAY_KILLS").map_or(50, |text| text.parse().unwrap());
    let (series, judged) = series("real-crash", kills, Lie::None);
    println!(
        "{} kills, {} before the open was done; {} acks, {} forks, {} drops, {} flushes; {:?}",
        series.kills,
        series.in_recovery,
        series.acks,
        series.forks,
        series.drops,
        series.flushes,
        series.counts
    );
    assert_eq!(judged, Ok(()));
    assert_eq!(series.kills, kills);
    assert!(series.acks > kills * 40 && series.forks * 4 > kills && series.drops * 10 > kills);
    assert!(series.flushes * 2 > kills && series.in_recovery > 0);
    for rule in [Rule::C1, Rule::C2, Rule::C3, Rule::C4, Rule::C5, Rule::C9, Rule::C10, Rule::C11] {
        assert!(series.counts.get(rule) >= kills, "{rule}");
    }
}

#[test]
fn a_process_that_acknowledges_too_early_is_found() {
    let (_, judged) = series("real-crash-lie", 100, Lie::EarlyAck);
    let found = judged.expect_err("an early acknowledgement is found").rule;
    assert!(matches!(found, Rule::C2 | Rule::C1 | Rule::C5), "{found}");
}
