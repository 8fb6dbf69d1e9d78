//! Fills and reads of `db_bench`, by each of many tenants over keys of its own.
//!
//! `fillseq` and `fillrandom` begin with an empty store and put keys in order or evenly at random;
//! `overwrite` does the latter over a store that is full. `readseq` walks through all keys,
//! `readrandom` gets keys evenly at random, `readwhilewriting` does so beside a writer, and
//! `seekrandom` seeks a random key and reads on. Keys have 16 bytes, values 100.
//!
//! Departures: keys go round once all were put or read, so that a run may be as long as it likes;
//! `readseq` reads a part of the walk at a time, which is one operation; the writer of
//! `readwhilewriting` is a share of the operations (half: one reader and one writer, as by default);
//! which tenant asks is drawn by Zipf.
//!
//! # Source
//!
//! `tools/db_bench_tool.cc` of facebook/rocksdb: `key_size` 16, `value_size` 100, `seek_nexts` 0,
//! `reverse_iterator`; and its page in the wiki, "Benchmarking tools".

use super::params::{DATA_SHARE_RATIO, KEY_BYTES, Params, VALUE_BYTES, scripted};
use super::steady_zipf::TENANT_ALPHA;
use super::{ParamInfo, Setup, Unit, WorkloadInfo};
use crate::error::SpecError;
use crate::script::{KeyRule, Length, Script, Verb};
use crate::spec::WorkloadSpec;

const SOURCE: &str = "db_bench: facebook/rocksdb tools/db_bench_tool.cc";

const PUT_RATIO: ParamInfo = ParamInfo {
    name: "write_ratio",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1.0,
    default: 0.5,
    about: "share of the writer's puts: 0.5 is a writer for one reader",
};

const READ_COUNT: ParamInfo = ParamInfo {
    name: "read_count",
    unit: Unit::Count,
    min: 1.0,
    max: 1_000_000.0,
    default: 100.0,
    about: "entries of the walk that one operation reads",
};

const SEEK_NEXTS_COUNT: ParamInfo = ParamInfo {
    name: "seek_nexts_count",
    unit: Unit::Count,
    min: 0.0,
    max: 1_000_000.0,
    default: 0.0,
    about: "entries read behind the one that was sought",
};

const REVERSE_RATIO: ParamInfo = ParamInfo {
    name: "reverse_ratio",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1.0,
    default: 0.0,
    about: "share of seeks that read on to smaller keys",
};

const fn info(name: &'static str, about: &'static str) -> WorkloadInfo {
    let params = &[TENANT_ALPHA, KEY_BYTES, VALUE_BYTES, DATA_SHARE_RATIO];
    WorkloadInfo { name, source: SOURCE, about, params }
}

pub(super) const FILLSEQ: WorkloadInfo =
    info("fillseq", "puts in key order into an empty store, round after round");
pub(super) const FILLRANDOM: WorkloadInfo =
    info("fillrandom", "puts of evenly random keys into an empty store");
pub(super) const OVERWRITE: WorkloadInfo =
    info("overwrite", "puts of evenly random keys into a full store");
pub(super) const READRANDOM: WorkloadInfo = info("readrandom", "gets of evenly random keys");

pub(super) const READSEQ: WorkloadInfo = WorkloadInfo {
    params: &[TENANT_ALPHA, KEY_BYTES, VALUE_BYTES, DATA_SHARE_RATIO, READ_COUNT],
    ..info("readseq", "a walk through all keys, a part at a time")
};

pub(super) const READWHILEWRITING: WorkloadInfo = WorkloadInfo {
    params: &[TENANT_ALPHA, KEY_BYTES, VALUE_BYTES, DATA_SHARE_RATIO, PUT_RATIO],
    ..info("readwhilewriting", "gets of evenly random keys beside puts of such keys")
};

pub(super) const SEEKRANDOM: WorkloadInfo = WorkloadInfo {
    params: &[
        TENANT_ALPHA,
        KEY_BYTES,
        VALUE_BYTES,
        DATA_SHARE_RATIO,
        SEEK_NEXTS_COUNT,
        REVERSE_RATIO,
    ],
    ..info("seekrandom", "seeks of evenly random keys, each with the entries behind it")
};

pub(super) fn build(spec: &WorkloadSpec, params: &Params) -> Result<Setup, SpecError> {
    let put_ratio = params.get(&PUT_RATIO);
    let (verbs, keys, length) = match spec.name.as_str() {
        "fillseq" => (vec![(1.0, Verb::Put)], KeyRule::InOrder, Length::Fixed(1)),
        "fillrandom" | "overwrite" => (vec![(1.0, Verb::Put)], KeyRule::Uniform, Length::Fixed(1)),
        "readseq" => {
            let length = Length::Fixed(params.count(&READ_COUNT));
            (vec![(1.0, Verb::Scan)], KeyRule::InOrder, length)
        }
        "readwhilewriting" => {
            let verbs = vec![(put_ratio, Verb::Put), (1.0 - put_ratio, Verb::Get)];
            (verbs, KeyRule::Uniform, Length::Fixed(1))
        }
        "seekrandom" => {
            let length = Length::Fixed(params.count(&SEEK_NEXTS_COUNT).saturating_add(1));
            (vec![(1.0, Verb::Scan)], KeyRule::Uniform, length)
        }
        _ => (vec![(1.0, Verb::Get)], KeyRule::Uniform, Length::Fixed(1)),
    };
    let is_empty = spec.name.starts_with("fill");
    let script = Script {
        verbs,
        keys,
        length,
        reverse_ratio: params.get(&REVERSE_RATIO),
        loaded_ratio: if is_empty { 0.0 } else { 1.0 },
    };
    let shape = params.shape_with((&KEY_BYTES, &VALUE_BYTES), script.write_fraction());
    scripted(spec, params.get(&TENANT_ALPHA), shape, script)
}
