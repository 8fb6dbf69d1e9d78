//! Made-up runs for tests: 18 arms that differ as real ones would.

#![expect(clippy::integer_division, reason = "made-up numbers")]

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::events::{EventKind, EventRow, RunEvents};
use crate::histogram::HistRow;
use crate::number::Thousandths;
use crate::record::{
    ByCause, ClassRow, LatencyNs, Outcome, Param, RUN_SCHEMA, RunRow, TableBytes, TenantRow, World,
    WrittenBytes, run_id,
};
use crate::report::{Provenance, ReportInput};
use crate::series::SeriesRow;

const LAYOUTS: [&str; 3] = ["per-tenant", "grouped-16", "shared"];
const FLUSHES: [&str; 3] = ["oldest-write", "largest", "above-mean-oldest"];
const STOPS: [u64; 2] = [2, 4];

/// A small generator, so that mock numbers look alive and never change.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Every arm of the mock grid with its layout, flush policy and limit.
fn arms() -> Vec<(usize, usize, u64)> {
    let mut arms = Vec::new();
    for layout in 0..3 {
        for flush in 0..3 {
            for stop in STOPS {
                arms.push((layout, flush, stop));
            }
        }
    }
    arms
}

fn params(layout: usize, flush: usize, stop: u64) -> BTreeMap<String, Param> {
    [
        ("layout", Param::Text(LAYOUTS[layout].to_owned())),
        ("flush_policy", Param::Text(FLUSHES[flush].to_owned())),
        ("stall_policy", Param::Text("leveldb".to_owned())),
        ("memtable_stop_count", Param::Integer(stop)),
        ("tenant_count", Param::Integer(1000)),
        ("budget_bytes", Param::Integer(64 << 20)),
        ("flush.alpha", Param::Fraction(Thousandths(1250))),
        ("policy_override", Param::Switch(true)),
    ]
    .map(|(name, param)| (name.to_owned(), param))
    .into()
}

fn row((layout, flush, stop): (usize, usize, u64), seed: u64) -> RunRow {
    let (l, f) = (layout as u64, flush as u64);
    let mut draw = Draw(l * 100 + f * 10 + stop + seed * 1000);
    let config_hash = format!("{:016x}", 0x9e31_c07a_0000_0000_u64 + l * 100 + f * 10 + stop);
    let stall = (3 - l) * (4 - f) * (6 - stop) * 400_000_000 + draw.below(200_000_000);
    let p99 = 900_000 + (3 - l) * 150_000 + draw.below(90_000);
    let ops = 5_200_000 - (3 - l) * 60_000 - (3 - f) * 40_000 + draw.below(20_000);
    let user_bytes = ops * 116;
    RunRow {
        schema: RUN_SCHEMA.to_owned(),
        run_id: run_id(&config_hash, seed, World::Sim),
        experiment: "flush-policy".to_owned(),
        arm: format!("{}/{}/stop={stop}", LAYOUTS[layout], FLUSHES[flush]),
        seed,
        trace_hash: format!("{:016x}", draw.below(u64::MAX)),
        replay: format!(
            "forebay run experiments/flush-policy.toml --only-seeds {seed}..{}",
            seed + 1
        ),
        config_hash,
        rng: "chacha8/rand_chacha 0.10".to_owned(),
        params: params(layout, flush, stop),
        ops,
        elapsed_ns: 120_000_000_000,
        // One arm has a queue that grows.
        offered_ops_per_s: Thousandths(if (l, f, stop) == (0, 1, 4) {
            45_000_000
        } else {
            40_000_000
        }),
        ops_per_s: Thousandths::per_second(ops, 120_000_000_000),
        write_latency_ns: LatencyNs { p50: 531_000, p99, p999: p99 * 30, max: p99 * 61 },
        read_latency_ns: LatencyNs { p50: 120_000, p99: 610_000, p999: 2_400_000, max: 9_000_000 },
        stall_ns: ByCause {
            memtables: stall,
            l0: stall / (4 + l),
            budget: stall / 3,
            wal: stall / 40,
            disk_full: 0,
        },
        stall_count: ByCause { memtables: 312, l0: 40, budget: 96, wal: 3, disk_full: 0 },
        flush_count: 9000 / (1 + l * 3) + draw.below(50),
        table_bytes: TableBytes {
            p1: 4096 << l,
            p50: (300_000 << l) + draw.below(9000),
            p99: 4_000_000 << l,
            count: 9000,
            under_mib_count: 7000 >> l,
            tiny_count: 900 >> l,
        },
        user_bytes,
        written_bytes: WrittenBytes {
            wal: user_bytes + user_bytes / 20,
            relog: 0,
            flush: user_bytes,
            compaction: user_bytes * (6 - l) + draw.below(1 << 20),
        },
        wal_retained_bytes_max: (900 << 20) >> f,
        memtable_bytes_max_seen: 63 << 20,
        stranded_bytes: (9 << 20) >> l,
        jain: Thousandths(413 + 180 * l + 90 * f),
        tenants: vec![TenantRow {
            name: "t0".to_owned(),
            class: "hot".to_owned(),
            ops,
            ..TenantRow::default()
        }],
        classes: vec![ClassRow { class: "hot".to_owned(), tenants: 1, ops, ..ClassRow::default() }],
        ..RunRow::default()
    }
}

/// One row with the plainest numbers.
pub(crate) fn small_row() -> RunRow {
    RunRow {
        rule: Some("C2".to_owned()),
        outcome: Outcome::Fail,
        offered_ops_per_s: Thousandths(45_000_000),
        ..row((0, 0, 2), 7)
    }
}

/// 18 arms with this many seeds each.
pub(crate) fn rows(seeds: u64) -> Vec<RunRow> {
    arms().into_iter().flat_map(|arm| (0..seeds).map(move |seed| row(arm, seed))).collect()
}

fn samples(row: &RunRow, count: u64) -> Vec<SeriesRow> {
    let mut draw = Draw(row.ops);
    let stalled = row.stall_ns.total() / 1_000_000_000;
    let mut memtable_bytes = 0;
    (1..=count)
        .map(|n| {
            let stall = draw.below(60) < stalled;
            memtable_bytes = (memtable_bytes + draw.below(4 << 20)) % (64 << 20);
            SeriesRow {
                run_id: row.run_id.clone(),
                at_ms: n * 120_000 / count,
                tenant: String::new(),
                ops: (if stall { 2_000 } else { 17_600 } + draw.below(1_800)) * 300 / count,
                stall_ns: if stall { 350_000_000 } else { 0 },
                memtable_bytes,
                imm: draw.below(5) + if stall { 3 } else { 0 },
                l0_files: 4 + draw.below(20),
                pending_compaction_bytes: draw.below(1 << 30),
                p99_ns: if stall { 60_000_000 } else { 900_000 } + draw.below(300_000),
                table_bytes: 256 << 20,
                fork_table_bytes: 0,
            }
        })
        .collect()
}

fn histogram(row: &RunRow, op: &str) -> HistRow {
    let mut draw = Draw(row.ops + 1);
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    for _ in 0..20_000 {
        let slow = draw.below(1000);
        let ns = match slow {
            0 => row.write_latency_ns.p999 + draw.below(row.write_latency_ns.p999),
            1..10 => row.write_latency_ns.p99 + draw.below(20_000_000),
            _ => 80_000 + draw.below(500_000) + draw.below(300_000),
        };
        histogram.record(if op == "read" { ns / 4 } else { ns }).unwrap();
    }
    HistRow::encode(&row.run_id, "", op, &histogram).unwrap()
}

/// What happened to ten tenants: memtables that fill and are flushed, up to three beside each other.
fn events(row: &RunRow) -> RunEvents {
    const END_NS: u64 = 120_000_000_000;
    let mut draw = Draw(row.ops + 7);
    let mut run = RunEvents::default();
    run.head.end_ns = END_NS;
    for n in 0..10 {
        let owner = format!("t{n:03}");
        run.head.owners.push(owner.clone());
        let mut push = |kind, at_ns: u64, took_ns: u64, bytes| {
            let owner = owner.clone();
            let event = EventRow { kind, owner, at_ns, took_ns, bytes, ..EventRow::default() };
            run.rows.push(event);
        };
        let (mut at_ns, period) = (draw.below(3_000_000_000), 1_200_000_000 + 400_000_000 * n);
        while at_ns < END_NS {
            let bytes = 200_000 + draw.below(50_000);
            for part in 1..=4 {
                push(EventKind::Memtable, at_ns - at_ns % 4 * (4 - part), 0, bytes * part / 4);
            }
            push(EventKind::Memtable, at_ns, 0, 0);
            push(EventKind::Flush, at_ns, period / 2 + draw.below(period * 2), bytes);
            if draw.below(4) == 0 {
                push(EventKind::Compaction, at_ns + period / 2, period * 3, bytes * 5);
            }
            at_ns += period;
        }
        for _ in 0..row.stall_ns.total() / 1_000_000_000 * 2 {
            let took_ns = draw.below(900_000_000);
            push(EventKind::Stall, draw.below(119_000) * 1_000_000, took_ns, 0);
        }
    }
    for event in run.rows.iter_mut().filter(|event| event.kind == EventKind::Stall) {
        let causes = ["memtables", "l0", "budget"];
        causes[usize::try_from(draw.below(3)).unwrap()].clone_into(&mut event.cause);
        "t001".clone_into(&mut event.caused_by);
    }
    run.rows.push(EventRow {
        kind: EventKind::Fault,
        owner: "t002".to_owned(),
        at_ns: 96_000_000_000,
        note: "job failed: EIO".to_owned(),
        ..EventRow::default()
    });
    run.rows.extend((0..400).map(|n| EventRow {
        at_ns: END_NS / 400 * n,
        took_ns: END_NS / 400,
        flush_ns: draw.below(2_000_000_000),
        compaction_ns: draw.below(900_000_000),
        stall_ns: if draw.below(9) == 0 { draw.below(4_000_000_000) } else { 0 },
        ..EventRow::default()
    }));
    run.rows.sort_by_key(|event| (event.at_ns, event.kind));
    (run.head.owner_count, run.head.event_count) = (1000, 90_000);
    run.head.left_out = 90_000 - run.rows.len() as u64;
    run.name(row);
    run
}

/// A report over 18 arms, with `samples_count` samples of each run's first seed.
pub(crate) fn input(seeds: u64, samples_count: u64) -> ReportInput {
    let rows = rows(seeds);
    let firsts: Vec<_> = rows.iter().filter(|row| row.seed == 0).collect();
    let series = firsts.iter().flat_map(|row| samples(row, samples_count)).collect();
    let histograms =
        firsts.iter().flat_map(|row| ["write", "read"].map(|op| histogram(row, op))).collect();
    let events = firsts.iter().map(|row| events(row)).collect();
    ReportInput {
        title: "flush-policy".to_owned(),
        question:
            "Ten thousand databases share one machine: whose memtable is flushed, when must a \
                   writer wait, should tenants share a memtable, and what does each answer cost?"
                .to_owned(),
        scale_lines: vec![
            "10,000 tenants -> 1,000 (1 : 10)".to_owned(),
            "budget 128 GiB -> 64 MiB (1 : 2,048)".to_owned(),
            "memtable 256 MiB -> 1 MiB; device: nvme, 2 GB/s".to_owned(),
        ],
        baseline_arm: "per-tenant/oldest-write/stop=2".to_owned(),
        rows,
        series,
        histograms,
        events,
        provenance: Provenance {
            commit: "4f1c2ab".to_owned(),
            version: "0.1.0".to_owned(),
            toolchain: "rustc 1.95.0".to_owned(),
            seeds: "0..3".to_owned(),
            config_hash: "9e31c07a9e31c07a".to_owned(),
            command: "forebay demo".to_owned(),
        },
    }
}
