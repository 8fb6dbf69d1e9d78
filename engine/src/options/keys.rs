//! Options by name: what `-s key=value` and files set.
//!
//! [`KEYS`] is the only list of names, units, bounds and defaults; parsing, printing and the check
//! of bounds go through it.

use super::{KIB, Layout, MIB, Options};
use crate::error::{Error, Result};
use crate::policy::{PolicyInfo, PolicyKind, PolicySpec};

/// The name of no prefix extractor.
const NONE: &str = "none";

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const PIB: u64 = 1 << 50;
const HOUR_NS: u64 = 3_600_000_000_000;

/// One option: its key, what it means and what it may be.
#[derive(Clone, Copy, Debug)]
pub struct OptionInfo {
    /// The key in files and on the command line.
    pub name: &'static str,
    /// `bytes`, `count`, `ns`, `bits`, `bool` or `name`.
    pub unit: &'static str,
    /// The value where none is given, as it is printed.
    pub default: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    slot: Slot,
}

/// Where an option's value lives, and its bounds.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Large(u64, u64, fn(&mut Options) -> &mut u64),
    Small(u32, u32, fn(&mut Options) -> &mut u32),
    Flag(fn(&mut Options) -> &mut bool),
    Policy(PolicyKind),
    Layout,
    PrefixExtractor,
    Compression,
    ForkMemtable,
}

const fn bytes(
    name: &'static str,
    default: &'static str,
    bounds: (u64, u64),
    field: fn(&mut Options) -> &mut u64,
    about: &'static str,
) -> OptionInfo {
    OptionInfo { name, unit: "bytes", default, about, slot: Slot::Large(bounds.0, bounds.1, field) }
}

const fn count(
    name: &'static str,
    default: &'static str,
    bounds: (u32, u32),
    field: fn(&mut Options) -> &mut u32,
    about: &'static str,
) -> OptionInfo {
    OptionInfo { name, unit: "count", default, about, slot: Slot::Small(bounds.0, bounds.1, field) }
}

const fn policy(
    name: &'static str,
    default: &'static str,
    kind: PolicyKind,
    about: &'static str,
) -> OptionInfo {
    OptionInfo { name, unit: "name", default, about, slot: Slot::Policy(kind) }
}

/// Every option of the engine, in the order in which it is printed.
#[rustfmt::skip]
pub const KEYS: &[OptionInfo] = &[
    OptionInfo {
        name: "layout", unit: "name", default: "per-tenant", slot: Slot::Layout,
        about: "how branches map to trees: per-tenant, shared or grouped-G",
    },
    policy("flush_policy", "above-mean-oldest", PolicyKind::Flush,
        "whose memtable is flushed when memory is short"),
    policy("stall_policy", "leveldb", PolicyKind::Stall,
        "whether a write goes on, is delayed or stops"),
    policy("compaction_policy", "leveled", PolicyKind::Compaction, "which tables are merged"),
    bytes("budget_bytes", "134217728", (16 * KIB, PIB), |o| &mut o.budget_bytes,
        "what all memtables may hold together"),
    bytes("memtable_bytes_max", "67108864", (2 * KIB, TIB), |o| &mut o.memtable_bytes_max,
        "what the memtable of one tenant may hold; a quarter of the budget caps each tree"),
    count("memtable_slowdown_count", "0", (0, 1024), |o| &mut o.memtable_slowdown_count,
        "immutable memtables of a tree from which writes are delayed; 0 = one below the stop"),
    count("memtable_stop_count", "4", (1, 1024), |o| &mut o.memtable_stop_count,
        "immutable memtables of a tree from which writes stop"),
    bytes("memtable_history_bytes", "0", (0, TIB), |o| &mut o.memtable_history_bytes,
        "flushed memtables of a tree kept while all its memtables are no more than this; 0: none"),
    count("l0_compaction_count", "4", (1, 10_000), |o| &mut o.l0_compaction_count,
        "L0 tables of a tree from which they are compacted"),
    count("l0_slowdown_count", "20", (1, 10_000), |o| &mut o.l0_slowdown_count,
        "L0 tables of a tree from which writes are delayed"),
    count("l0_stop_count", "36", (1, 10_000), |o| &mut o.l0_stop_count,
        "L0 tables of a tree from which writes stop"),
    bytes("pending_compaction_slowdown_bytes", "68719476736", (0, PIB),
        |o| &mut o.pending_compaction_slowdown_bytes,
        "what compactions of a tree have before them from which writes are delayed; 0 = none"),
    bytes("pending_compaction_stop_bytes", "274877906944", (0, PIB),
        |o| &mut o.pending_compaction_stop_bytes,
        "what compactions of a tree have before them from which writes stop; 0 = none"),
    bytes("wal_segment_bytes", "16777216", (32 * KIB, 4 * GIB), |o| &mut o.wal_segment_bytes,
        "length of a WAL segment"),
    bytes("wal_bytes_max", "0", (0, PIB), |o| &mut o.wal_bytes_max,
        "live WAL from which trees that pin its oldest segment are flushed; 0 = 4 budgets"),
    bytes("wal_bytes_stop", "0", (0, PIB), |o| &mut o.wal_bytes_stop,
        "live WAL from which writes stop; 0 = never"),
    OptionInfo {
        name: "wal_seal_serial", unit: "bool", default: "true",
        slot: Slot::Flag(|o| &mut o.wal_seal_serial),
        about: "trees that pin the log above wal_bytes_max are flushed a few at a time",
    },
    OptionInfo {
        name: "relog", unit: "bool", default: "false", slot: Slot::Flag(|o| &mut o.relog),
        about: "a cold tree's few entries are appended to the log again, so that old segments go",
    },
    OptionInfo {
        name: "fork_memtable", unit: "name", default: "auto", slot: Slot::ForkMemtable,
        about: "what a fork does with the parent's memtable: share, copy, auto",
    },
    OptionInfo {
        name: "packed_flush", unit: "bool", default: "false",
        slot: Slot::Flag(|o| &mut o.packed_flush),
        about: "memtables of many trees are flushed into one file",
    },
    bytes("pack_bytes", "0", (0, TIB), |o| &mut o.pack_bytes,
        "memtable bytes of a packed flush; 0 = a sixteenth of the budget"),
    OptionInfo {
        name: "flush_on_close", unit: "bool", default: "false",
        slot: Slot::Flag(|o| &mut o.flush_on_close),
        about: "a close flushes every memtable, so that the next open has little to replay",
    },
    bytes("batch_bytes_max", "0", (0, TIB), |o| &mut o.batch_bytes_max,
        "what one batch may charge; 0 = an eighth of the budget, at most 16 MiB"),
    bytes("space_reserve_bytes", "0", (0, PIB), |o| &mut o.space_reserve_bytes,
        "free bytes below which writes are refused; 0 = what a flush and a compaction may need"),
    bytes("block_cache_bytes", "67108864", (0, 16 * TIB), |o| &mut o.block_cache_bytes,
        "size of the block cache; 0 = none"),
    count("open_tables_max", "256", (1, 1_000_000), |o| &mut o.open_tables_max,
        "table files held open"),
    OptionInfo {
        name: "policy_override", unit: "bool", default: "true",
        slot: Slot::Flag(|o| &mut o.policy_override),
        about: "the engine picks a flush itself where a stalled writer would wait for ever",
    },
    count("flush_slots", "2", (1, 64), |o| &mut o.flush_slots, "flushes that may run at once"),
    count("compaction_slots", "1", (1, 64), |o| &mut o.compaction_slots,
        "compactions that may run at once"),
    OptionInfo {
        name: "sync_interval_ns", unit: "ns", default: "1000000000",
        slot: Slot::Large(0, HOUR_NS, |o| &mut o.sync_interval_ns),
        about: "longest time until a write that asked for no sync is durable; 0 = no bound",
    },
    OptionInfo {
        name: "block_bytes", unit: "bytes", default: "4096",
        slot: Slot::Small(64, 1 << 20, |o| &mut o.block_bytes),
        about: "length of a table's block before compression",
    },
    count("restart_interval", "16", (1, 1024), |o| &mut o.restart_interval,
        "entries between two restart points of a block"),
    OptionInfo {
        name: "filter_bits_per_key", unit: "bits", default: "10",
        slot: Slot::Small(0, 32, |o| &mut o.filter_bits_per_key),
        about: "size of a table's filter for each key; 0 = no filter",
    },
    OptionInfo {
        name: "prefix_extractor", unit: "name", default: "none", slot: Slot::PrefixExtractor,
        about: "prefixes of keys that filters also hold: none, fixed-N or delimiter-XX",
    },
    OptionInfo {
        name: "compression", unit: "name", default: "none", slot: Slot::Compression,
        about: "how data blocks of tables are compressed: none or lz4",
    },
    bytes("table_bytes_max", "67108864", (KIB, 4 * GIB), |o| &mut o.table_bytes_max,
        "length at which an output table of a compaction is cut"),
    bytes("level_base_bytes", "0", (0, PIB), |o| &mut o.level_base_bytes,
        "target of level 1; 0 = 4 times the tree's memtable cap"),
    count("level_ratio", "10", (2, 100), |o| &mut o.level_ratio,
        "target of a level over that of the level above it"),
];

impl Options {
    /// Sets one option from text, as files and `-s key=value` give it. Keys are those of [`KEYS`],
    /// and `flush.NAME.PARAM`, `stall.NAME.PARAM` or `compaction.NAME.PARAM` for a parameter of the
    /// policy NAME; without `NAME.` it goes to whatever policy is chosen, first or later. Integers
    /// may hold `_`; bytes may end in KiB, MiB or GiB.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` in one line: for an unknown key the allowed ones, for a value the key and
    /// its bounds. Nothing was changed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        if let Some((kind, param)) = policy_param(key) {
            return self.set_param(kind, param, key, value);
        }
        let info = KEYS.iter().find(|info| info.name == key).ok_or_else(|| unknown(key))?;
        match info.slot {
            Slot::Large(min, max, field) => *field(self) = number(info, value, (min, max))?,
            Slot::Small(min, max, field) => {
                let value = number(info, value, (u64::from(min), u64::from(max)))?;
                *field(self) = u32::try_from(value).unwrap_or(max);
            }
            Slot::Flag(field) => {
                *field(self) = value.parse().ok().ok_or_else(|| {
                    Error::InvalidArgument(format!("{key} = {value:?} is neither true nor false"))
                })?;
            }
            Slot::Policy(kind) => {
                kind.info(value)?;
                *self.spec_mut(kind) = PolicySpec::named(value);
                self.copy_params(kind);
            }
            Slot::Layout => self.layout = value.parse::<Layout>()?,
            Slot::PrefixExtractor => {
                self.prefix_extractor = if value == NONE { None } else { Some(value.parse()?) };
            }
            Slot::Compression => self.compression = value.parse()?,
            Slot::ForkMemtable => self.fork_memtable = value.parse()?,
        }
        Ok(())
    }

    /// The value of an option as text that [`set`](Self::set) takes, or `None` for an unknown key.
    pub fn get(&self, key: &str) -> Option<String> {
        if policy_param(key).is_some() {
            return self.policy_params.get(key).map(f64::to_string);
        }
        let info = KEYS.iter().find(|info| info.name == key)?;
        let mut copy = self.clone();
        Some(match info.slot {
            Slot::Large(_, _, field) => field(&mut copy).to_string(),
            Slot::Small(_, _, field) => field(&mut copy).to_string(),
            Slot::Flag(field) => field(&mut copy).to_string(),
            Slot::Policy(kind) => copy.spec_mut(kind).name.clone(),
            Slot::Layout => self.layout.to_string(),
            Slot::PrefixExtractor => {
                self.prefix_extractor.map_or_else(|| NONE.to_owned(), |e| e.to_string())
            }
            Slot::Compression => self.compression.to_string(),
            Slot::ForkMemtable => self.fork_memtable.to_string(),
        })
    }

    /// Refuses numbers out of the bounds of [`KEYS`].
    pub(super) fn check_bounds(&self) -> Result<()> {
        let mut copy = self.clone();
        for info in KEYS {
            let (value, bounds) = match info.slot {
                Slot::Large(min, max, field) => (*field(&mut copy), (min, max)),
                Slot::Small(min, max, field) => {
                    (u64::from(*field(&mut copy)), (u64::from(min), u64::from(max)))
                }
                Slot::Flag(_)
                | Slot::Policy(_)
                | Slot::Layout
                | Slot::PrefixExtractor
                | Slot::Compression
                | Slot::ForkMemtable => continue,
            };
            if !(bounds.0..=bounds.1).contains(&value) {
                return Err(out_of_bounds(info, &value.to_string(), bounds));
            }
        }
        Ok(())
    }

    fn set_param(&mut self, kind: PolicyKind, param: &str, key: &str, value: &str) -> Result<()> {
        let number: f64 = digits(value)
            .parse()
            .ok()
            .ok_or_else(|| Error::InvalidArgument(format!("{key} = {value:?} is not a number")))?;
        if let Some((name, param)) = param.split_once('.') {
            let info = kind.info(name)?;
            info.param(param)?.check(&format!("{}.{name}", kind.name()), number)?;
        } else {
            let named = kind.list().into_iter().any(|info| info.param(param).is_ok());
            if !named {
                self.chosen(kind)?.param(param)?;
            }
        }
        self.policy_params.insert(key.to_owned(), number);
        self.copy_params(kind);
        Ok(())
    }

    /// Copies the parameters set so far into the chosen policy's specification; those that name it
    /// win over those that do not.
    fn copy_params(&mut self, kind: PolicyKind) {
        let params = self.policy_params.clone();
        let spec = self.spec_mut(kind);
        for by_name in [false, true] {
            for (key, value) in &params {
                let Some((of, param)) = policy_param(key) else { continue };
                let param = match param.split_once('.') {
                    Some((name, param)) if by_name && name == spec.name => param,
                    None if !by_name => param,
                    Some(_) | None => continue,
                };
                if of == kind {
                    spec.params.insert(param.to_owned(), *value);
                }
            }
        }
    }

    fn chosen(&mut self, kind: PolicyKind) -> Result<&'static PolicyInfo> {
        kind.info(&self.spec_mut(kind).name)
    }

    fn spec_mut(&mut self, kind: PolicyKind) -> &mut PolicySpec {
        match kind {
            PolicyKind::Flush => &mut self.flush_policy,
            PolicyKind::Stall => &mut self.stall_policy,
            PolicyKind::Compaction => &mut self.compaction_policy,
        }
    }
}

/// The kind and the rest of a key such as `flush.largest.trigger_ratio`.
fn policy_param(key: &str) -> Option<(PolicyKind, &str)> {
    let (first, rest) = key.split_once('.')?;
    let kind = PolicyKind::ALL.into_iter().find(|kind| kind.name() == first)?;
    Some((kind, rest))
}

fn unknown(key: &str) -> Error {
    let names: Vec<&str> = KEYS.iter().map(|info| info.name).collect();
    Error::InvalidArgument(format!(
        "option {key:?} does not exist; allowed: {}, flush.NAME.PARAM, stall.NAME.PARAM",
        names.join(", ")
    ))
}

fn out_of_bounds(info: &OptionInfo, value: &str, bounds: (u64, u64)) -> Error {
    Error::InvalidArgument(format!(
        "{} = {value} is not a whole number of {} from {} to {}",
        info.name, info.unit, bounds.0, bounds.1
    ))
}

fn digits(text: &str) -> String {
    text.chars().filter(|c| *c != '_').collect()
}

/// A whole number within bounds, `bounds` in the unit of the option.
fn number(info: &OptionInfo, text: &str, bounds: (u64, u64)) -> Result<u64> {
    let suffixes = [("KiB", KIB), ("MiB", MIB), ("GiB", GIB)];
    let suffix = suffixes
        .iter()
        .filter(|_| info.unit == "bytes")
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?.trim_end(), *unit)));
    let (number, unit) = suffix.unwrap_or((text, 1));
    let plain = number.starts_with(|c: char| c.is_ascii_digit());
    digits(number)
        .parse::<u64>()
        .ok()
        .filter(|_| plain)
        .and_then(|number| number.checked_mul(unit))
        .filter(|value| (bounds.0..=bounds.1).contains(value))
        .ok_or_else(|| out_of_bounds(info, &format!("{text:?}"), bounds))
}
