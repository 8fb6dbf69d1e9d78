//! Every knob of the engine: unit, bounds, default, and which values go together.
//!
//! A value of 0 means "derived" or "off" only where the knob says so; the methods of [`Options`]
//! give the derived values. Bounds are those of [`KEYS`], tiny on purpose at the lower end: small
//! sizes bring seals, flushes and compactions into short tests.

mod keys;

use core::fmt;
use core::str::FromStr;
use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::policy::view::StallLimits;
use crate::policy::{PolicyKind, PolicySpec};
use crate::prefix::PrefixExtractor;
use crate::types::Nanos;

pub use keys::{KEYS, OptionInfo};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// How branches map to trees. All layouts share the WAL and the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// A tree for each branch.
    #[default]
    PerTenant,
    /// This many trees, 1 to 65,536; tenants are hashed to them.
    Grouped(u32),
    /// One tree for all.
    Shared,
}

impl Layout {
    /// Most trees of a grouped layout.
    pub const GROUPS_MAX: u32 = 65_536;

    fn check(self) -> Result<()> {
        match self {
            Self::Grouped(groups) if groups == 0 || groups > Self::GROUPS_MAX => {
                Err(Self::refused(&self.to_string()))
            }
            Self::Grouped(_) | Self::PerTenant | Self::Shared => Ok(()),
        }
    }

    fn refused(text: &str) -> Error {
        Error::InvalidArgument(format!(
            "layout {text:?} does not exist; allowed: per-tenant, shared, \
             grouped-G with G from 1 to {}",
            Self::GROUPS_MAX
        ))
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerTenant => f.write_str("per-tenant"),
            Self::Grouped(groups) => write!(f, "grouped-{groups}"),
            Self::Shared => f.write_str("shared"),
        }
    }
}

impl FromStr for Layout {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let layout = match text {
            "per-tenant" => Self::PerTenant,
            "shared" => Self::Shared,
            _ => text
                .strip_prefix("grouped-")
                .and_then(|groups| groups.parse().ok())
                .map(Self::Grouped)
                .ok_or_else(|| Self::refused(text))?,
        };
        layout.check()?;
        Ok(layout)
    }
}

/// How blocks of a table are compressed. A database reads tables of every kind, whatever it writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4 in its block format; a block that does not shrink is stored as it is.
    Lz4,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
        })
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            _ => Err(Error::InvalidArgument(format!(
                "compression {text:?} does not exist; allowed: none, lz4"
            ))),
        }
    }
}

/// What a fork does about entries that are in no table yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForkMemtable {
    /// The parent's memtable is sealed, and parent and child read the same one until it is flushed
    /// into one table of both. Nothing is copied; the table may be small.
    Share,
    /// The parent's memtable stays, and its entries are copied into one of the child's. Shared
    /// where the budget has no room for the copy.
    Copy,
    /// Copied up to 64 KiB, shared above.
    #[default]
    Auto,
}

impl fmt::Display for ForkMemtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Share => "share",
            Self::Copy => "copy",
            Self::Auto => "auto",
        })
    }
}

impl FromStr for ForkMemtable {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "share" => Ok(Self::Share),
            "copy" => Ok(Self::Copy),
            "auto" => Ok(Self::Auto),
            _ => Err(Error::InvalidArgument(format!(
                "fork_memtable {text:?} does not exist; allowed: share, copy, auto"
            ))),
        }
    }
}

/// How a database behaves. Fixed while it is open.
///
/// **Seal rule.** The engine seals a tree's memtable by itself at
/// [`memtable_cap_bytes`](Self::memtable_cap_bytes): `memtable_bytes_max` for each tenant that the
/// layout maps to the tree, but at most a quarter of the budget, lest one tree hold it all.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch that users know by its name")]
pub struct Options {
    /// How branches map to trees; `per-tenant`.
    pub layout: Layout,
    /// Whose memtable is flushed when memory is short; `above-mean-oldest`.
    pub flush_policy: PolicySpec,
    /// Whether a write goes on; `leveldb`.
    pub stall_policy: PolicySpec,
    /// Which tables are merged; `leveled`.
    pub compaction_policy: PolicySpec,
    /// Parameters of policies, chosen or not, by key: `flush.largest.trigger_ratio`, or
    /// `flush.trigger_ratio` for whatever policy is chosen. [`set`](Self::set) copies what fits the
    /// chosen policies into their specifications.
    pub policy_params: BTreeMap<String, f64>,
    /// Bytes that all memtables may hold together, 16 KiB to 1 PiB; 128 MiB. At least 4 blocks.
    pub budget_bytes: u64,
    /// Bytes of memtable that one tenant may fill, 2 KiB to 1 TiB; 64 MiB. See the seal rule.
    pub memtable_bytes_max: u64,
    /// Immutable memtables of a tree from which writes to it are delayed, 0 to 1024; 0 = one below
    /// `memtable_stop_count`. At most `memtable_stop_count`.
    pub memtable_slowdown_count: u32,
    /// Immutable memtables of a tree from which writes to it stop, 1 to 1024; 4.
    pub memtable_stop_count: u32,
    /// A tree's flushed memtables are kept while all its memtables together are at most this many
    /// bytes, 0 to 1 TiB; 0: none are kept. They count in what the budget holds, and not in its
    /// mutable part. No read needs them: they are what `RocksDB` keeps for transactions.
    pub memtable_history_bytes: u64,
    /// L0 tables of a tree from which they are compacted, 1 to 10,000; 4. At most
    /// `l0_slowdown_count`.
    pub l0_compaction_count: u32,
    /// L0 tables of a tree from which writes to it are delayed, 1 to 10,000; 20. At most
    /// `l0_stop_count`.
    pub l0_slowdown_count: u32,
    /// L0 tables of a tree from which writes to it stop, 1 to 10,000; 36.
    pub l0_stop_count: u32,
    /// Bytes that compactions of a tree have before them from which writes are delayed, up to 1
    /// PiB; 0 = none. 64 GiB.
    pub pending_compaction_slowdown_bytes: u64,
    /// Bytes that compactions of a tree have before them from which writes to it stop, up to 1 PiB;
    /// 0 = none. 256 GiB. At least `pending_compaction_slowdown_bytes`.
    pub pending_compaction_stop_bytes: u64,
    /// Bytes of a WAL segment, 32 KiB to 4 GiB; 16 MiB.
    pub wal_segment_bytes: u64,
    /// Bytes of live WAL segments from which trees that pin the oldest are flushed or re-logged; 0
    /// = 4 budgets, at least 4 segments. Up to 1 PiB; at least 2 segments.
    pub wal_bytes_max: u64,
    /// Bytes of live WAL segments from which all writes stop, up to 1 PiB; 0 = none. At least
    /// `wal_bytes_max`. One segment above that, live segments stay below `wal_bytes_max` and two.
    pub wal_bytes_stop: u64,
    /// Whether trees that pin the log above `wal_bytes_max` are flushed a few at a time; where not,
    /// all that pin its oldest segment are flushed at once; true.
    pub wal_seal_serial: bool,
    /// Whether a cold tree's few entries in an old segment are appended to the log again, so that
    /// the segment can go without a flush of them; false.
    pub relog: bool,
    /// What a fork does about entries that are in no table yet, where branches have trees of their
    /// own; `auto`.
    pub fork_memtable: ForkMemtable,
    /// Whether memtables of many trees are flushed into one file; false.
    pub packed_flush: bool,
    /// Memtable bytes of a packed flush, up to 1 TiB; 0 = a sixteenth of the budget. At most a
    /// quarter of the budget.
    pub pack_bytes: u64,
    /// Whether `Db::close` flushes every memtable, all into one file, so that the next open has
    /// little to replay; false.
    pub flush_on_close: bool,
    /// Bytes that one batch may charge to the budget, up to 1 TiB; 0 = an eighth of the budget, at
    /// most 16 MiB. At most a quarter of the budget.
    pub batch_bytes_max: u64,
    /// Bytes that must be free on the disk for writes, up to 1 PiB; 0 = a segment, a manifest, a
    /// memtable and a compaction's output. The spare segment's file counts as free.
    pub space_reserve_bytes: u64,
    /// Bytes of the block cache, up to 16 TiB; 64 MiB. 0 = no cache.
    pub block_cache_bytes: u64,
    /// Table files held open, 1 to 1,000,000; 256.
    pub open_tables_max: u32,
    /// Whether the engine picks a flush itself where a stalled writer would wait for ever; true.
    pub policy_override: bool,
    /// Flushes that may run at once, 1 to 64; 2.
    pub flush_slots: u32,
    /// Compactions that may run at once, 1 to 64; 1.
    pub compaction_slots: u32,
    /// Longest time until a write that asked for no sync is durable, up to an hour; 1 s. 0 = no
    /// bound.
    pub sync_interval_ns: Nanos,
    /// Bytes of a table's block before compression, 64 to 1 MiB; 4 KiB.
    pub block_bytes: u32,
    /// Entries between two restart points of a block, 1 to 1024; 16.
    pub restart_interval: u32,
    /// Filter bits for each key, 0 to 32; 10. 0 = no filter.
    pub filter_bits_per_key: u32,
    /// Which prefixes of keys filters also hold; `None`: none. A tenant of layout per-tenant may
    /// have its own. Where tenants share tables it works on the key behind the layout's prefix.
    pub prefix_extractor: Option<PrefixExtractor>,
    /// How data blocks of tables are compressed from now on; none.
    pub compression: Compression,
    /// Bytes at which an output table of a compaction is cut, 1 KiB to 4 GiB; 64 MiB.
    pub table_bytes_max: u64,
    /// Target bytes of level 1, up to 1 PiB; 0 = 4 times the tree's memtable cap.
    pub level_base_bytes: u64,
    /// Target bytes of a level over those of the level above it, 2 to 100; 10.
    pub level_ratio: u32,
}

/// What one tenant has of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantOptions {
    /// Which prefixes of its keys filters also hold; `None`: what the database's options say. Only
    /// in layout per-tenant, as tenants of other layouts share tables.
    pub prefix_extractor: Option<PrefixExtractor>,
}

impl TenantOptions {
    /// Refuses values out of bounds, and those that a layout cannot give.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` that says why. Nothing was changed.
    pub fn check(&self, layout: Layout) -> Result<()> {
        let Some(extractor) = self.prefix_extractor else { return Ok(()) };
        extractor.check()?;
        match layout {
            Layout::PerTenant => Ok(()),
            Layout::Grouped(_) | Layout::Shared => Err(Error::InvalidArgument(format!(
                "prefix extractor {extractor} for one tenant: tenants of layout {layout} share \
                 tables; set the option prefix_extractor of the database"
            ))),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            layout: Layout::PerTenant,
            flush_policy: PolicySpec::named("above-mean-oldest"),
            stall_policy: PolicySpec::named("leveldb"),
            compaction_policy: PolicySpec::named("leveled"),
            policy_params: BTreeMap::new(),
            budget_bytes: 128 * MIB,
            memtable_bytes_max: 64 * MIB,
            memtable_slowdown_count: 0,
            memtable_stop_count: 4,
            memtable_history_bytes: 0,
            l0_compaction_count: 4,
            l0_slowdown_count: 20,
            l0_stop_count: 36,
            pending_compaction_slowdown_bytes: 64 << 30,
            pending_compaction_stop_bytes: 256 << 30,
            wal_segment_bytes: 16 * MIB,
            wal_bytes_max: 0,
            wal_bytes_stop: 0,
            wal_seal_serial: true,
            relog: false,
            fork_memtable: ForkMemtable::Auto,
            packed_flush: false,
            pack_bytes: 0,
            flush_on_close: false,
            batch_bytes_max: 0,
            space_reserve_bytes: 0,
            block_cache_bytes: 64 * MIB,
            open_tables_max: 256,
            policy_override: true,
            flush_slots: 2,
            compaction_slots: 1,
            sync_interval_ns: 1_000_000_000,
            block_bytes: 4096,
            restart_interval: 16,
            filter_bits_per_key: 10,
            prefix_extractor: None,
            compression: Compression::None,
            table_bytes_max: 64 * MIB,
            level_base_bytes: 0,
            level_ratio: 10,
        }
    }
}

impl Options {
    /// Bytes at which the memtable of a tree is sealed that this many tenants map to.
    pub fn memtable_cap_bytes(&self, tenant_count: u64) -> u64 {
        self.memtable_bytes_max.saturating_mul(tenant_count.max(1)).min(self.budget_bytes >> 2)
    }

    /// `wal_bytes_max`, derived where it is 0.
    pub fn wal_limit_bytes(&self) -> u64 {
        let derived =
            self.budget_bytes.saturating_mul(4).max(self.wal_segment_bytes.saturating_mul(4));
        if self.wal_bytes_max == 0 { derived } else { self.wal_bytes_max }
    }

    /// `batch_bytes_max`, derived where it is 0.
    pub fn batch_limit_bytes(&self) -> u64 {
        let derived = (self.budget_bytes >> 3).min(16 * MIB);
        if self.batch_bytes_max == 0 { derived } else { self.batch_bytes_max }
    }

    /// Memtable bytes of a packed flush, `pack_bytes` derived where it is 0; 0 where flushes are
    /// not packed.
    pub fn pack_target_bytes(&self) -> u64 {
        let derived = self.budget_bytes >> 4;
        match (self.packed_flush, self.pack_bytes) {
            (false, _) => 0,
            (true, 0) => derived,
            (true, bytes) => bytes,
        }
    }

    /// `level_base_bytes`, derived where it is 0, of a tree that this many tenants map to.
    pub fn level_base_of(&self, tenant_count: u64) -> u64 {
        let derived = self.memtable_cap_bytes(tenant_count).saturating_mul(4);
        if self.level_base_bytes == 0 { derived } else { self.level_base_bytes }
    }

    /// The thresholds that stall policies see.
    pub fn stall_limits(&self) -> StallLimits {
        let derived = self.memtable_stop_count.saturating_sub(1).max(1);
        let slowdown = self.memtable_slowdown_count;
        StallLimits {
            memtable_slowdown_count: if slowdown == 0 { derived } else { slowdown },
            memtable_stop_count: self.memtable_stop_count,
            l0_slowdown_count: self.l0_slowdown_count,
            l0_stop_count: self.l0_stop_count,
            pending_compaction_slowdown_bytes: self.pending_compaction_slowdown_bytes,
            pending_compaction_stop_bytes: self.pending_compaction_stop_bytes,
            wal_bytes_stop: self.wal_bytes_stop,
        }
    }

    /// Refuses values out of bounds and values that do not go together.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the first key at fault and what it may be. Nothing was changed.
    pub fn validate(&self) -> Result<()> {
        self.check_bounds()?;
        self.layout.check()?;
        self.prefix_extractor.map_or(Ok(()), PrefixExtractor::check)?;
        PolicyKind::Flush.check(&self.flush_policy)?;
        PolicyKind::Stall.check(&self.stall_policy)?;
        PolicyKind::Compaction.check(&self.compaction_policy)?;
        let blocks = u64::from(self.block_bytes).saturating_mul(4);
        let segments = self.wal_segment_bytes.saturating_mul(2);
        at_most(
            ("memtable_slowdown_count", u64::from(self.memtable_slowdown_count)),
            ("memtable_stop_count", u64::from(self.memtable_stop_count)),
        )?;
        at_most(
            ("l0_compaction_count", u64::from(self.l0_compaction_count)),
            ("l0_slowdown_count", u64::from(self.l0_slowdown_count)),
        )?;
        at_most(
            ("l0_slowdown_count", u64::from(self.l0_slowdown_count)),
            ("l0_stop_count", u64::from(self.l0_stop_count)),
        )?;
        if self.pending_compaction_stop_bytes > 0 {
            at_most(
                ("pending_compaction_slowdown_bytes", self.pending_compaction_slowdown_bytes),
                ("pending_compaction_stop_bytes", self.pending_compaction_stop_bytes),
            )?;
        }
        at_most(
            ("pack_bytes", self.pack_bytes),
            ("a quarter of budget_bytes", self.budget_bytes >> 2),
        )?;
        at_most(("4 x block_bytes", blocks), ("budget_bytes", self.budget_bytes))?;
        at_most(
            ("batch_bytes_max", self.batch_bytes_max),
            ("a quarter of budget_bytes", self.budget_bytes >> 2),
        )?;
        at_most(("2 x wal_segment_bytes", segments), ("wal_bytes_max", self.wal_limit_bytes()))?;
        if self.wal_bytes_stop > 0 {
            at_most(
                ("wal_bytes_max", self.wal_limit_bytes()),
                ("wal_bytes_stop", self.wal_bytes_stop),
            )?;
        }
        Ok(())
    }
}

fn at_most(low: (&str, u64), high: (&str, u64)) -> Result<()> {
    if low.1 <= high.1 {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!("{} = {} is above {} = {}", low.0, low.1, high.0, high.1)))
}

#[cfg(test)]
mod tests;
