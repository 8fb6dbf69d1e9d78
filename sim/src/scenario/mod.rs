//! A scenario: what clients ask for, with which options, and what goes wrong. Data, drawn from a seed.
//!
//! Swarm: each seed turns kinds of operations, faults and sizes on or off, so that rare pairs meet. Three
//! seeds of ten are free of faults and three know only crashes; seven of a hundred meet damage of the
//! medium and no other fault, since an error then has one cause. Everything is written down in the
//! scenario, and can be made smaller; what the scenario leaves open (schedules, latencies, which page
//! survives) is drawn in the world, from the same seed.

mod case;
mod cold;
mod crashes;
mod forks;
mod imports;
mod nth;
mod op;
mod queries;
mod reopen;
mod slow;
mod tenants;

use forebay_engine::types::{to_u64, to_usize};
use serde::{Deserialize, Serialize};

pub use self::case::{CASE_SCHEMA, Case};
pub use self::forks::PROFILE as FORKS_PROFILE;
pub use self::nth::{NthFault, NthPart, NthWhat};
pub use self::op::{Op, Write};
pub use self::queries::{KeyBounds, KeyEnd, Keys};
pub use self::tenants::PROFILE as TENANTS_PROFILE;
use crate::fault::FaultPlan;
use crate::streams::Stream;

/// Operations of a scenario, about.
pub const OPS: u64 = 300;

/// Of a hundred seeds with faults, those whose faults are damage: of all seeds, seven.
const MEDIA_PERCENT: u64 = 18;

/// Of a hundred seeds, those that hold tasks back.
const HOLDS_PERCENT: u64 = 25;

/// How often damage may happen, per million calls.
const MEDIA_RATES: [u32; 3] = [5000, 30_000, 150_000];

/// Of a hundred seeds with damage, those that lose sectors.
const LOST_SECTORS_PERCENT: u64 = 35;

/// Crash points of the creation of a database, about.
const CREATION_POINTS: u64 = 40;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrashKind {
    /// The machine loses power.
    PowerLoss,
    /// The process is killed.
    Kill,
}

/// A crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// Which.
    pub kind: CrashKind,
    /// At which crash point, counted from where the phase or the recovery begins.
    pub point: u64,
}

/// How a phase ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// A crash, at its point or when all clients are done.
    Crash(Crash),
    /// A clean close, and an open.
    Close,
    /// The next phase goes on with the same open database.
    GoOn,
}

/// Some clients at work, then an end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// What each client does, one after another; the clients run at once.
    pub clients: Vec<Vec<Op>>,
    /// Faults while they work.
    #[serde(default)]
    pub faults: FaultPlan,
    /// Bytes left on the disk while they work; none for enough.
    #[serde(default)]
    pub free_bytes: Option<u64>,
    /// How long faults and a full disk last at most, in virtual time.
    #[serde(default)]
    pub faults_ns: u64,
    /// How it ends.
    pub end: End,
    /// Crashes while the database recovers, one after another.
    #[serde(default)]
    pub recovery_crashes: Vec<Crash>,
    /// Faults while the database recovers; it is then opened again without.
    #[serde(default)]
    pub recovery_faults: FaultPlan,
    /// Crash states to judge, at least one.
    #[serde(default)]
    pub crash_states: u32,
    /// Whether the database is opened a second time, to see that nothing changes.
    #[serde(default)]
    pub open_twice: bool,
    /// One fault at one call, or one crash at one point of a call.
    #[serde(default)]
    pub nth_fault: Option<NthFault>,
    /// Options that are others from the end of this phase on, where the database is opened again.
    #[serde(default)]
    pub reopen_options: Vec<(String, String)>,
}

/// A scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Options of the engine that differ from their defaults, as `-s` takes them.
    pub options: Vec<(String, String)>,
    /// What a power loss may do: a name of [`Profile`](crate::disk::Profile).
    pub profile: String,
    /// Whether syncing a file keeps its name too, on the journal profile.
    #[serde(default)]
    pub sync_persists_name: bool,
    /// Device preset.
    pub device: String,
    /// Names of tenants that exist at the start.
    pub tenants: usize,
    /// Crashes while the database is created, one after another.
    #[serde(default)]
    pub creation_crashes: Vec<Crash>,
    /// One fault while the database is created.
    #[serde(default)]
    pub creation_nth_fault: Option<NthFault>,
    /// Whether tasks that could go on are held back now and then.
    #[serde(default)]
    pub holds: bool,
    /// The phases.
    pub phases: Vec<Phase>,
    /// Judges every state that a crash may leave, where few things are pending, and many where not.
    #[serde(default)]
    pub exhaustive: bool,
}

impl Scenario {
    /// How many operations clients are given.
    pub fn ops(&self) -> u64 {
        self.phases.iter().flat_map(|phase| &phase.clients).map(|ops| to_u64(ops.len())).sum()
    }

    /// The scenario of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut scenario = Self::draw_without_forks(seed);
        Draw { stream: Stream::new(seed, "scenario.forks") }.add_forks(&mut scenario);
        Draw { stream: Stream::new(seed, "scenario.imports") }.add_imports(&mut scenario);
        scenario
    }

    /// The scenario of a seed in which forks are what matters: long chains of them, many of one
    /// branch, with parents dropped, tiny memtables, and full disks.
    pub fn draw_forks(seed: u64) -> Self {
        let mut scenario = Self::draw_without_forks(seed);
        Draw { stream: Stream::new(seed, "scenario.fork-swarm") }.fork_swarm(&mut scenario);
        scenario
    }

    /// The scenario of a seed with thousands of tenants, few of them hot.
    pub fn draw_tenants(seed: u64) -> Self {
        let mut scenario = Self::draw_without_forks(seed);
        Draw { stream: Stream::new(seed, "scenario.tenant-swarm") }.many_tenants(&mut scenario);
        scenario
    }

    fn draw_without_forks(seed: u64) -> Self {
        let stream = |name| Draw { stream: Stream::new(seed, name) };
        let mut scenario = stream("scenario").scenario(stream("scenario.creation"));
        let mut errors = stream("scenario.errors");
        let mut media = stream("scenario.media");
        scenario.options.extend(stream("scenario.compaction").compaction_options());
        scenario.options.extend(stream("scenario.stall").stall_options());
        let mut tables = stream("scenario.tables");
        scenario.options.extend(tables.table_options());
        let extra = stream("scenario.history").history_and_log_options(&scenario);
        scenario.options.extend(extra);
        stream("scenario.relog").relog(&mut scenario);
        scenario.options.extend(stream("scenario.packed").packed_options());
        stream("scenario.crashes").crashes(&mut scenario);
        let mut queries = stream("scenario.queries");
        queries.add_queries(&mut scenario);
        if stream("scenario.keys").percent(60) {
            queries::shape_keys(&mut scenario);
        }
        stream("scenario.reopen").reopen(&mut scenario);
        scenario.holds = stream("scenario.holds").percent(HOLDS_PERCENT);
        if !scenario.phases.iter().any(|phase| phase.faults_ns > 0) {
            return scenario;
        }
        if media.percent(MEDIA_PERCENT) {
            scenario.phases.iter_mut().for_each(|phase| media.damage(phase));
        } else {
            for phase in &mut scenario.phases {
                errors.more_errors(&mut phase.faults);
                if phase.recovery_faults != FaultPlan::default() {
                    errors.more_errors(&mut phase.recovery_faults);
                }
            }
        }
        stream("scenario.slow").slow_and_late(&mut scenario);
        scenario
    }

    /// Sets one option, or `profile`, `device`, `tenant_count`, `exhaustive`.
    ///
    /// # Errors
    ///
    /// One line that names key and value. Nothing was changed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "profile" => {
                let names = crate::disk::Profile::ALL.map(crate::disk::Profile::name);
                if !names.contains(&value) {
                    return Err(format!(
                        "profile {value:?} does not exist; allowed: {}, {FORKS_PROFILE}, \
                         {TENANTS_PROFILE}",
                        names.join(", ")
                    ));
                }
                value.clone_into(&mut self.profile);
            }
            "device" => {
                if crate::disk::device::DeviceSpec::preset(value).is_none() {
                    return Err(format!(
                        "device {value:?} does not exist; allowed: {}",
                        crate::disk::device::DeviceSpec::NAMES.join(", ")
                    ));
                }
                value.clone_into(&mut self.device);
            }
            "exhaustive" => {
                let wanted = value.parse();
                self.exhaustive = wanted
                    .map_err(|_bad| format!("exhaustive = {value:?} is neither true nor false"))?;
            }
            "tenant_count" => match value.parse() {
                Ok(count @ 1..=10_000) => self.tenants = count,
                Ok(_) | Err(_) => {
                    return Err(format!(
                        "tenant_count = {value:?} is not a number from 1 to 10000"
                    ));
                }
            },
            _ => {
                let mut options = forebay_engine::Options::default();
                options.set(key, value).map_err(|error| error.to_string())?;
                self.options.retain(|(known, _)| known != key);
                self.options.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(())
    }

    /// The options of the engine.
    ///
    /// # Errors
    ///
    /// One line that names the option at fault.
    pub fn engine_options(&self) -> Result<forebay_engine::Options, String> {
        let mut options = forebay_engine::Options::default();
        for (key, value) in &self.options {
            options.set(key, value).map_err(|error| error.to_string())?;
        }
        options.validate().map_err(|error| error.to_string())?;
        let mut next = options.clone();
        for phase in &self.phases {
            for (key, value) in &phase.reopen_options {
                next.set(key, value).map_err(|error| error.to_string())?;
            }
            next.validate().map_err(|error| error.to_string())?;
            if next.layout != options.layout {
                return Err("layout stays what it was when the database was created".to_owned());
            }
        }
        Ok(options)
    }
}

/// Which operations a seed uses, with what weight, and on what.
struct Mix {
    tenants: usize,
    keys: u64,
    skewed: bool,
    value_bytes_max: u64,
    sync_percent: u64,
    batch_percent: u64,
    delete_percent: u64,
    weights: Vec<(Kind, u64)>,
}

#[derive(Clone, Copy)]
enum Kind {
    Write,
    Get,
    Scan,
    Snapshot,
    Reread,
    Flush,
    Sync,
    Lifecycle,
    Sleep,
}

struct Draw {
    stream: Stream,
}

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.stream.below(n)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, of: &[T], otherwise: T) -> T {
        of.get(to_usize(self.below(to_u64(of.len())))).copied().unwrap_or(otherwise)
    }

    fn scenario(&mut self, mut creation: Self) -> Scenario {
        let tenants = to_usize(2 + self.below(7));
        let (options, batch_bytes_max) = self.options(tenants);
        let class = self.below(10);
        let profile = self.pick(&["journal", "adversary", "strict"], "journal").to_owned();
        let device = self.pick(&["none", "none", "nvme", "hdd"], "none").to_owned();
        let mix = self.mix(tenants, batch_bytes_max);
        let phase_count = 1 + self.below(4);
        let each = OPS.checked_div(phase_count).unwrap_or(OPS);
        let phases = (0..phase_count).map(|_| self.phase(&mix, each, class)).collect();
        let sync_persists_name = self.percent(30);
        let creation_crashes = if class >= 3 && creation.percent(20) {
            (0..=creation.below(2)).map(|_| creation.crash(CREATION_POINTS)).collect()
        } else {
            Vec::new()
        };
        let holds = false;
        Scenario {
            options,
            profile,
            sync_persists_name,
            device,
            tenants,
            creation_crashes,
            holds,
            creation_nth_fault: None,
            phases,
            exhaustive: false,
        }
    }

    fn options(&mut self, tenants: usize) -> (Vec<(String, String)>, u64) {
        let budget = self.pick(&[16, 24, 32, 64, 128, 256], 64) * 1024;
        let memtable = self.pick(&[2, 4, 8, 16, 64], 8) * 1024;
        let segment = self.pick(&[32, 48, 64, 128], 32) * 1024;
        let stop = 1 + self.below(4);
        let l0 = 1 + self.below(4);
        let l0_slow = l0 + self.below(4);
        let block = self.pick(&[128, 256, 512, 1024, 4096], 512);
        let groups = 1 + self.below(to_u64(tenants));
        let layout = self.pick(&["per-tenant", "shared", "grouped"], "shared");
        let layout =
            if layout == "grouped" { format!("grouped-{groups}") } else { layout.to_owned() };
        let flush = self.policy(&forebay_engine::policy::PolicyKind::Flush.list());
        let stall = self.policy(&forebay_engine::policy::PolicyKind::Stall.list());
        let wal_max = segment * (2 + self.below(6));
        let set = [
            ("layout", layout),
            ("flush_policy", flush),
            ("stall_policy", stall),
            ("budget_bytes", budget.to_string()),
            ("memtable_bytes_max", memtable.to_string()),
            ("memtable_stop_count", stop.to_string()),
            ("l0_compaction_count", l0.to_string()),
            ("l0_slowdown_count", l0_slow.to_string()),
            ("l0_stop_count", (l0_slow + self.below(4)).to_string()),
            ("wal_segment_bytes", segment.to_string()),
            ("wal_bytes_max", wal_max.to_string()),
            ("block_bytes", block.min(budget >> 2).to_string()),
            ("block_cache_bytes", self.pick(&[0, 4096, 1 << 20], 0).to_string()),
            ("open_tables_max", self.pick(&[1, 3, 256], 256).to_string()),
            ("flush_slots", (1 + self.below(3)).to_string()),
            ("compaction_slots", (1 + self.below(2)).to_string()),
            ("sync_interval_ns", self.pick(&[0, 1_000_000, 1_000_000_000], 0).to_string()),
            ("restart_interval", self.pick(&[1, 4, 16], 16).to_string()),
            ("filter_bits_per_key", self.pick(&[0, 2, 10], 10).to_string()),
            ("table_bytes_max", self.pick(&[1024, 4096, 65_536], 4096).to_string()),
            ("level_base_bytes", self.pick(&[4096, 16_384, 0], 0).to_string()),
            ("level_ratio", self.pick(&[2, 4, 10], 10).to_string()),
        ];
        let set = set.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        (set, budget >> 3)
    }

    /// Half of all seeds flush many trees into one file, of sizes that the smallest budget allows.
    fn packed_options(&mut self) -> Vec<(String, String)> {
        let packed = self.percent(50);
        let bytes: u64 = self.pick(&[0, 2048, 4096, 4096], 0);
        let on_close = self.percent(30);
        let options = [
            ("packed_flush", packed.to_string()),
            ("pack_bytes", bytes.to_string()),
            ("flush_on_close", on_close.to_string()),
        ];
        options.map(|(key, value)| (key.to_owned(), value)).to_vec()
    }

    fn compaction_options(&mut self) -> Vec<(String, String)> {
        let policy = self.policy(&forebay_engine::policy::PolicyKind::Compaction.list());
        let percent: u64 = self.pick(&[0, 20, 50], 50);
        let age_s: u64 = self.pick(&[0, 0, 1], 0);
        vec![
            ("compaction_policy".to_owned(), policy),
            ("compaction.tombstone_percent".to_owned(), percent.to_string()),
            ("compaction.tombstone_age_s".to_owned(), age_s.to_string()),
        ]
    }

    /// Flushed memtables that are kept, and how the log is held down.
    fn history_and_log_options(&mut self, scenario: &Scenario) -> Vec<(String, String)> {
        let history: u64 = self.pick(&[2048, 8192, 32_768, 1 << 30], 0);
        let history = if self.percent(20) { history } else { 0 };
        let serial = !self.percent(25);
        let of = |key: &str| {
            let found = scenario.options.iter().find(|(known, _)| known == key);
            found.and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0)
        };
        let stop = of("wal_bytes_max") + of("wal_segment_bytes") * self.below(3);
        let stop = if self.percent(30) { stop } else { 0 };
        vec![
            ("memtable_history_bytes".to_owned(), history.to_string()),
            ("wal_seal_serial".to_owned(), serial.to_string()),
            ("wal_bytes_stop".to_owned(), stop.to_string()),
        ]
    }

    /// Limits of compaction debt, and parameters of stall policies: small, since a phase lasts
    /// seconds.
    fn stall_options(&mut self) -> Vec<(String, String)> {
        let slowdown: u64 = self.pick(&[0, 8192, 32_768, 131_072], 0);
        let stop = slowdown.saturating_mul(self.pick(&[0, 1, 2, 8], 0));
        let set = [
            ("pending_compaction_slowdown_bytes", slowdown),
            ("pending_compaction_stop_bytes", stop),
            (
                "stall.rocksdb.delayed_write_bytes_per_s",
                self.pick(&[32_768, 1 << 20, 16 << 20], 1 << 20),
            ),
            ("stall.rocksdb.per_tenant", self.below(2)),
            ("stall.tikv.backoff_ns", self.pick(&[100_000, 10_000_000], 100_000)),
            ("stall.tikv.delay_max_ns", self.pick(&[1_000_000, 100_000_000], 1_000_000)),
            ("stall.kudu.delay_max_ns", self.pick(&[10_000_000, 100_000_000], 10_000_000)),
            ("stall.cockroach.interval_ns", self.pick(&[1_000_000, 1_000_000_000], 1_000_000)),
            ("stall.cockroach.tick_ns", self.pick(&[1_000_000, 20_000_000], 1_000_000)),
        ];
        set.into_iter().map(|(key, value)| (key.to_owned(), value.to_string())).collect()
    }

    /// A policy without known defects: those run in tests of their own.
    fn policy(&mut self, of: &[&'static forebay_engine::policy::PolicyInfo]) -> String {
        let sound: Vec<&str> =
            of.iter().filter(|info| info.known_defects.is_empty()).map(|info| info.name).collect();
        self.pick(&sound, "").to_owned()
    }

    fn mix(&mut self, tenants: usize, batch_bytes_max: u64) -> Mix {
        let mut weights = vec![(Kind::Write, 40 + self.below(40))];
        let others = [
            (Kind::Get, 20, 90),
            (Kind::Scan, 5, 60),
            (Kind::Snapshot, 4, 50),
            (Kind::Reread, 6, 80),
            (Kind::Flush, 4, 50),
            (Kind::Sync, 4, 50),
            (Kind::Lifecycle, 4, 40),
            (Kind::Sleep, 6, 60),
        ];
        for (kind, weight, chance) in others {
            if self.percent(chance) {
                weights.push((kind, 1 + self.below(2 * weight)));
            }
        }
        let value_bytes_max = self.pick(&[32, 100, 400, 1500, 4000], 400);
        Mix {
            tenants,
            keys: self.pick(&[2, 6, 16, 40], 16),
            skewed: self.percent(50),
            value_bytes_max: value_bytes_max.min(batch_bytes_max.saturating_sub(256)),
            sync_percent: self.pick(&[0, 10, 50, 100], 10),
            batch_percent: self.pick(&[0, 10, 40], 10),
            delete_percent: self.pick(&[0, 10, 40], 10),
            weights,
        }
    }

    fn phase(&mut self, mix: &Mix, ops: u64, class: u64) -> Phase {
        let clients = 1 + self.below(5);
        let each = ops.checked_div(clients).unwrap_or(ops);
        let clients = (0..clients).map(|_| (0..each).map(|_| self.op(mix)).collect()).collect();
        let (crashes, faults) = (class >= 3, class >= 6);
        let mut phase = Phase {
            clients,
            faults: FaultPlan::default(),
            free_bytes: None,
            faults_ns: 0,
            end: if self.percent(60) { End::Close } else { End::GoOn },
            recovery_crashes: Vec::new(),
            recovery_faults: FaultPlan::default(),
            crash_states: 1 + u32::from(self.percent(30)),
            open_twice: self.percent(25),
            nth_fault: None,
            reopen_options: Vec::new(),
        };
        if crashes && self.percent(75) {
            // About twelve points an operation; some crashes come when all is done.
            phase.end = End::Crash(self.crash(ops.saturating_mul(14)));
        }
        if crashes && self.percent(25) {
            phase.recovery_crashes = (0..=self.below(2)).map(|_| self.crash(60)).collect();
        }
        if faults {
            phase.faults = self.faults();
            phase.faults_ns = self.pick(&[1_000_000, 100_000_000, 5_000_000_000], 1_000_000);
            if self.percent(25) {
                phase.free_bytes = Some(self.below(200_000));
            }
            if self.percent(15) {
                phase.recovery_faults = self.faults();
            }
        }
        phase
    }

    fn crash(&mut self, points: u64) -> Crash {
        let kind = if self.percent(65) { CrashKind::PowerLoss } else { CrashKind::Kill };
        Crash { kind, point: 1 + self.below(points) }
    }

    fn faults(&mut self) -> FaultPlan {
        let mut rate = |chance| {
            let on = self.percent(chance);
            let rate = self.pick(&[1000, 5000, 20_000, 100_000], 1000);
            if on { rate } else { 0 }
        };
        FaultPlan {
            eio_read: rate(40),
            eio_write: rate(40),
            eio_sync: rate(40),
            eio_meta: rate(40),
            short_write: rate(30),
            // Of calls on names that fail, a third and up to most: they are rare enough.
            error_after_effect: match rate(50) {
                0 => 0,
                rate => 300_000 + rate * 5,
            },
            latency: rate(30),
            latency_max_ns: 500_000_000,
            ..FaultPlan::default()
        }
    }

    fn rate(&mut self, percent: u64, rates: &[u32]) -> u32 {
        let on = self.percent(percent);
        let rate = self.pick(rates, 0);
        if on { rate } else { 0 }
    }

    /// The rest of the error table, in a phase that draws errors.
    fn more_errors(&mut self, plan: &mut FaultPlan) {
        const RATES: [u32; 4] = [1000, 5000, 20_000, 100_000];
        // Of failures, not of calls.
        const SHARES: [u32; 3] = [100_000, 300_000, 1_000_000];
        plan.short_read = self.rate(30, &RATES);
        plan.write_after_effect = self.rate(25, &RATES);
        plan.eio_resize = self.rate(25, &RATES);
        plan.enospc_write = self.rate(20, &RATES);
        plan.enospc_sync = self.rate(20, &RATES);
        plan.enospc_meta = self.rate(20, &RATES);
        plan.emfile = self.rate(15, &RATES);
        plan.sync_reverted = self.rate(40, &SHARES);
        plan.cache_eviction = self.rate(40, &SHARES);
        plan.remount_ro = self.rate(10, &SHARES);
    }

    /// Damage in place of all other faults.
    fn damage(&mut self, phase: &mut Phase) {
        phase.free_bytes = None;
        phase.faults = self.media();
        phase.recovery_faults = FaultPlan::default();
        if self.percent(40) {
            phase.recovery_faults = self.media();
            phase.recovery_faults.latent_sector = self.rate(35, &MEDIA_RATES);
        }
    }

    fn media(&mut self) -> FaultPlan {
        FaultPlan {
            bit_rot: self.rate(50, &MEDIA_RATES),
            misdirected: self.rate(35, &MEDIA_RATES),
            misdirected_file: self.rate(35, &MEDIA_RATES),
            latent_sector: self.rate(LOST_SECTORS_PERCENT, &MEDIA_RATES),
            ..FaultPlan::default()
        }
    }

    fn tenant(&mut self, mix: &Mix) -> usize {
        if mix.skewed && self.percent(70) {
            return 0;
        }
        to_usize(self.below(to_u64(mix.tenants)))
    }

    fn key(&mut self, mix: &Mix) -> u32 {
        u32::try_from(self.below(mix.keys)).unwrap_or(0)
    }

    fn write(&mut self, mix: &Mix, parts: u64) -> Write {
        let bytes = self.below(mix.value_bytes_max.checked_div(parts).unwrap_or(1) + 1);
        let bytes = u32::try_from(bytes).unwrap_or(0);
        let delete = self.percent(mix.delete_percent);
        let (tenant, key) = (self.tenant(mix), self.key(mix));
        Write { tenant, key, bytes: (!delete).then_some(bytes) }
    }

    fn op(&mut self, mix: &Mix) -> Op {
        let total: u64 = mix.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.below(total);
        let mut kind = Kind::Write;
        for (next, weight) in &mix.weights {
            if at < *weight {
                kind = *next;
                break;
            }
            at -= weight;
        }
        let (tenant, key) = (self.tenant(mix), self.key(mix));
        match kind {
            Kind::Write => {
                let parts = if self.percent(mix.batch_percent) { 2 + self.below(6) } else { 1 };
                let writes = (0..parts).map(|_| self.write(mix, parts)).collect();
                Op::Write { writes, sync: self.percent(mix.sync_percent) }
            }
            Kind::Get => Op::Get { tenant, key },
            Kind::Scan => {
                let other = self.key(mix);
                Op::Scan { tenant, from: key.min(other), to: key.max(other) }
            }
            Kind::Snapshot => Op::Snapshot { tenant },
            Kind::Reread => Op::Reread { key },
            Kind::Flush => Op::Flush { tenant },
            Kind::Sync => Op::Sync,
            Kind::Lifecycle if self.percent(40) => Op::Drop { tenant },
            Kind::Lifecycle => Op::Create { tenant, extractor: None },
            Kind::Sleep => Op::Sleep { ns: 1 << self.below(31) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_draws_options_that_the_engine_takes() {
        for seed in 0..300 {
            let scenario = Scenario::draw(seed);
            assert_eq!(scenario.engine_options().err(), None, "seed {seed}");
            assert!((2..=8).contains(&scenario.tenants) && scenario.ops() > 200, "seed {seed}");
        }
    }

    #[test]
    fn shares_of_the_swarm_are_as_promised() {
        let plans = |seed| {
            let phases = Scenario::draw(seed).phases;
            phases.into_iter().flat_map(|phase| [phase.faults, phase.recovery_faults]).collect()
        };
        let all: Vec<Vec<FaultPlan>> = (0..2000).map(plans).collect();
        let of = |wanted: &dyn Fn(&FaultPlan) -> bool| {
            all.iter().filter(|plans| plans.iter().any(wanted)).count()
        };
        let media = of(&FaultPlan::damages_media);
        assert!((100..180).contains(&media), "{media} of 2000 seeds meet damage");
        let quiet = 2000 - of(&|plan| *plan != FaultPlan::default());
        assert!(quiet > 1150, "{quiet} of 2000 seeds meet no fault but crashes");
        let rates: [fn(&FaultPlan) -> u32; 3] =
            [|p| p.short_read, |p| p.sync_reverted, |p| p.enospc_sync];
        for fault in rates {
            assert!(of(&|plan| fault(plan) > 0) > 100);
        }
    }

    #[test]
    fn a_scenario_survives_json_and_follows_from_its_seed() {
        let scenario = Scenario::draw(9);
        let text = serde_json::to_string(&scenario).unwrap();
        assert_eq!(serde_json::from_str::<Scenario>(&text).unwrap(), scenario);
        assert_eq!(Scenario::draw(9), scenario);
        assert_ne!(Scenario::draw(10), scenario);
    }

    #[test]
    fn settings_are_checked_by_name_and_value() {
        let mut scenario = Scenario::draw(1);
        scenario.set("memtable_stop_count", "3").unwrap();
        scenario.set("profile", "strict").unwrap();
        for (key, value) in [("memtble", "3"), ("profile", "x"), ("tenant_count", "0")] {
            assert!(scenario.set(key, value).is_err(), "{key}");
        }
        assert_eq!(scenario.engine_options().unwrap().memtable_stop_count, 3);
    }
}
