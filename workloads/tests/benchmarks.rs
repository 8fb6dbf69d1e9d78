//! Benchmarks of the list against the numbers that their sources publish: mixes, popularity,
//! lengths, sizes. Draws come from fixed seeds, so that each count is the same on every machine.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use forebay_workloads::script::YCSB_ITEMS;
use forebay_workloads::{
    Arrival, OP_NAMES, Op, OpKind, Pacing, Workload, WorkloadSpec, zipf::Zipf,
};
use libm::pow;

fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// Whether a count is within five standard deviations of its share of the draws.
fn is_near(count: usize, draws: usize, share: f64) -> bool {
    let (count, draws) = (real(count), real(draws));
    (count - draws * share).abs() <= 5.0 * (draws * share * (1.0 - share)).sqrt()
}

fn alone(name: &str, params: &[(&str, f64)]) -> Workload {
    let params = params.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
    Workload::new(WorkloadSpec { tenant_count: 1, params, ..WorkloadSpec::named(name) }).unwrap()
}

fn ops(workload: &Workload, count: usize) -> Vec<Op> {
    workload.stream().take(count).collect()
}

#[test]
fn each_benchmark_mixes_its_operations_as_published() {
    let published: [(&str, &[(&str, f64)]); 14] = [
        ("ycsb-a", &[("get", 0.5), ("put", 0.5)]),
        ("ycsb-b", &[("get", 0.95), ("put", 0.05)]),
        ("ycsb-c", &[("get", 1.0)]),
        ("ycsb-d", &[("get", 0.95), ("insert", 0.05)]),
        ("ycsb-e", &[("scan", 0.95), ("insert", 0.05)]),
        ("ycsb-f", &[("get", 0.5), ("read-modify-write", 0.5)]),
        ("fillseq", &[("put", 1.0)]),
        ("fillrandom", &[("put", 1.0)]),
        ("overwrite", &[("put", 1.0)]),
        ("readseq", &[("scan", 1.0)]),
        ("readrandom", &[("get", 1.0)]),
        ("readwhilewriting", &[("get", 0.5), ("put", 0.5)]),
        ("seekrandom", &[("scan", 1.0)]),
        ("mixgraph", &[("get", 0.85), ("put", 0.14), ("scan", 0.01)]),
    ];
    for (name, mix) in published {
        let workload = alone(name, &[]);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for op in ops(&workload, 50_000) {
            *counts.entry(op.kind.name()).or_default() += 1;
        }
        assert_eq!(counts.len(), mix.len(), "{name}: {counts:?}");
        for (kind, share) in mix {
            assert!(OP_NAMES.contains(kind));
            assert!(is_near(counts[kind], 50_000, *share), "{name} {kind}: {counts:?}");
        }
        let writes = mix.iter().filter(|(kind, _)| !["get", "scan"].contains(kind));
        let expected: f64 = writes.map(|(_, share)| share).sum();
        assert!((workload.tenants()[0].write_fraction - expected).abs() < 1e-12, "{name}");
    }
}

#[test]
fn the_hottest_ranks_of_ycsb_have_the_share_that_zeta_says() {
    // Zeta of 10^10 items at 0.99, a constant of ScrambledZipfianGenerator.
    const ZETA: f64 = 26.469_028_201_783_02;
    // The same by the sum to 10^5 and the Euler-Maclaurin formula from there.
    let (from, to) = (100_000_u32, 1e10_f64);
    let head: f64 = (1..from).map(|k| pow(f64::from(k), -0.99)).sum();
    let from = f64::from(from);
    let tail = (pow(to, 0.01) - pow(from, 0.01)) / 0.01 + 0.5 * pow(from, -0.99);
    assert!((head + tail - ZETA).abs() < 1e-6, "{}", head + tail);

    let (zipf, draws) = (Zipf::new(YCSB_ITEMS, 0.99), 1_000_000);
    let mut rng = forebay_workloads::rng::Rng::new(1, "ycsb ranks");
    let ranks: Vec<u64> = (0..draws).map(|_| zipf.sample(&mut rng)).collect();
    for rank in 0..3 {
        let count = ranks.iter().filter(|r| **r == rank).count();
        let share = pow(f64::from(u32::try_from(rank + 1).unwrap()), -0.99) / ZETA;
        assert!(is_near(count, draws, share), "rank {rank}: {count}");
    }
    assert!(ranks.iter().any(|rank| *rank > 1_000_000_000), "the tail is there");
}

#[test]
fn the_hottest_key_of_ycsb_has_a_share_that_does_not_depend_on_the_number_of_keys() {
    for data in [1.0, 4.0] {
        let workload = alone("ycsb-c", &[("data_share_ratio", data)]);
        let mut keys: Vec<u64> = ops(&workload, 200_000).iter().map(Op::key).collect();
        keys.sort_unstable();
        let hottest = keys.chunk_by(|a, b| a == b).max_by_key(|k| k.len()).unwrap();
        // One in 26.469, and its part of the ranks that fall on every key alike.
        assert!(is_near(hottest.len(), 200_000, 1.0 / 26.469), "{}", hottest.len());
        // FNV-1a of rank 0, without its top bit: the key of the most asked rank.
        let fnv = 0xcbf2_9ce4_8422_2325_u64;
        let hash = (0..8).fold(fnv, |hash, _| hash.wrapping_mul(0x0100_0000_01b3));
        let key_count = workload.tenants()[0].key_count;
        assert_eq!(hottest[0], (hash & (u64::MAX >> 1)) % key_count);
    }
}

#[test]
fn a_hotspot_takes_its_share_of_the_operations() {
    let params = [("hot_ops_ratio", 0.8), ("hot_keys_ratio", 0.2)];
    let workload = alone("ycsb-b", &params);
    let hot = workload.tenants()[0].key_count.div_euclid(5);
    let count = ops(&workload, 100_000).iter().filter(|op| op.key() < hot).count();
    assert!(is_near(count, 100_000, 0.8), "{count}");
}

/// Inserts give keys that were not there, as long as there is room; reads are of keys that are.
#[test]
fn inserts_are_of_new_keys_and_reads_of_those_that_are_there() {
    for name in ["ycsb-d", "ycsb-e"] {
        let spec =
            WorkloadSpec { tenant_count: 3, budget_bytes: 3_000_000, ..WorkloadSpec::named(name) };
        let workload = Workload::new(spec).unwrap();
        let mut there: BTreeSet<(u32, u64)> =
            workload.load_ops().map(|op| (op.tenant, op.key())).collect();
        let room = usize::try_from(workload.key_total()).unwrap() - there.len();
        assert!(room > 1_000);
        let mut inserted = 0;
        for op in workload.stream().take(room) {
            let at = (op.tenant, op.key());
            if matches!(op.kind, OpKind::Insert { .. }) {
                assert!(there.insert(at), "{name}: {at:?} was there");
                inserted += 1;
            } else {
                assert!(there.contains(&at), "{name}: {at:?} is not there");
            }
        }
        assert!(inserted * 30 > room, "{name}");
        // Without room the oldest are written again.
        let more = workload.stream().take(60 * room).filter(Op::is_write).count();
        assert!(more > room, "{name}");
    }
}

#[test]
fn ycsb_d_reads_what_was_just_inserted_the_most() {
    let workload = alone("ycsb-d", &[]);
    let mut newest = None;
    let (mut reads, mut of_newest) = (0_usize, 0_usize);
    for op in workload.stream().take(200_000) {
        if let OpKind::Insert { key } = op.kind {
            newest = Some(key);
        } else if newest.is_some() {
            reads += 1;
            of_newest += usize::from(Some(op.key()) == newest);
        }
    }
    // One over the zeta of the keys that are there: about 256,000 of them.
    let present = workload.tenants()[0].loaded_count;
    let zeta: f64 = (1..=present).map(|k| pow(f64::from(u32::try_from(k).unwrap()), -0.99)).sum();
    assert!(is_near(of_newest, reads, 1.0 / zeta), "{of_newest} of {reads}, zeta {zeta}");
}

#[test]
fn ycsb_e_scans_each_length_up_to_a_hundred_alike() {
    let workload = alone("ycsb-e", &[]);
    let mut counts = vec![0_usize; 101];
    let mut scans = 0;
    for op in workload.stream().take(200_000) {
        if let OpKind::Scan { limit, reverse, .. } = op.kind {
            counts[usize::try_from(limit).unwrap()] += 1;
            scans += 1;
            assert!(!reverse);
        }
    }
    assert_eq!(counts[0], 0);
    assert!(counts[1..].iter().all(|count| is_near(*count, scans, 0.01)), "{counts:?}");
}

#[test]
fn fills_and_walks_go_in_order_and_random_ones_evenly() {
    let keys = |name: &str, params: &[(&str, f64)]| -> Vec<u64> {
        ops(&alone(name, params), 5_000).iter().map(Op::key).collect()
    };
    assert_eq!(keys("fillseq", &[]), (0..5_000).collect::<Vec<u64>>());
    let walk: Vec<u64> = (0..5_000).map(|n| n * 7).collect();
    assert_eq!(keys("readseq", &[("read_count", 7.0)]), walk);
    for name in ["fillrandom", "overwrite", "readrandom", "readwhilewriting", "seekrandom"] {
        let half = alone(name, &[]).tenants()[0].key_count >> 1;
        let low = keys(name, &[]).iter().filter(|key| **key < half).count();
        assert!(is_near(low, 5_000, 0.5), "{name}: {low}");
    }
    assert_eq!(alone("fillrandom", &[]).load_op_count(), 0);
    let nexts = [("seek_nexts_count", 9.0), ("reverse_ratio", 0.25)];
    let seeks = ops(&alone("seekrandom", &nexts), 5_000);
    let back =
        seeks.iter().filter(|op| matches!(op.kind, OpKind::Scan { limit: 10, reverse: true, .. }));
    assert!(is_near(back.count(), 5_000, 0.25));
}

#[test]
fn mixgraph_values_and_scans_are_pareto() {
    let workload = alone("mixgraph", &[]);
    let mut value = Vec::new();
    let mut sizes: Vec<usize> = Vec::new();
    for number in 0..100_000 {
        workload.fill_value(0, number % 977, number, &mut value);
        sizes.push(value.len());
    }
    let mean = real(sizes.iter().sum::<usize>()) / 1e5;
    // The published mean is 25.45 / (1 - 0.2615) = 34.46; the minimum of 10 adds two.
    assert!((35.5..37.5).contains(&mean), "{mean}");
    assert!(sizes.iter().all(|size| (10..=1_024).contains(size)));
    sizes.sort_unstable();
    // sigma (2^k - 1) / k = 19.34, rounded up.
    assert!((19..=21).contains(&sizes[50_000]), "{}", sizes[50_000]);
    assert_eq!(workload.tenants()[0].value_bytes, 37);

    let lengths: Vec<u32> = workload
        .stream()
        .take(300_000)
        .filter_map(|op| if let OpKind::Scan { limit, .. } = op.kind { Some(limit) } else { None })
        .collect();
    // P(length <= 14) = 1 - (1 + 2.517 * 14 / 14.236)^(-1 / 2.517).
    let short = lengths.iter().filter(|length| **length <= 14).count();
    let share = 1.0 - pow(1.0 + 2.517 * 14.0 / 14.236, -1.0 / 2.517);
    let found = real(short) / real(lengths.len());
    assert!((found - share).abs() < 0.02, "{found} for {share}");
    assert!(lengths.iter().all(|length| (1..=10_000).contains(length)));
}

#[test]
fn the_rate_of_mixgraph_goes_up_and_down_around_its_mean() {
    let params = [("sine_ratio".to_owned(), 0.5), ("sine_b".to_owned(), std::f64::consts::TAU)];
    let arrival = Arrival::Open { ops_per_s: 10_000, pacing: Pacing::Regular, on_off: None };
    let spec = WorkloadSpec {
        tenant_count: 4,
        arrival,
        params: params.into(),
        ..WorkloadSpec::named("mixgraph")
    };
    let workload = Workload::new(spec).unwrap();
    // A wave lasts a second: 10,000 operations, of which 10,000 (1/2 + 1/(2 pi)) in its first half.
    let arrivals: Vec<u64> = workload.stream().take(10_000).map(|op| op.at_ns).collect();
    let first = arrivals.iter().filter(|at| **at < 500_000_000).count();
    assert!(first.abs_diff(6_592) < 5, "{first}");
    assert!(arrivals[9_999].abs_diff(1_000_000_000) < 1_000_000, "{}", arrivals[9_999]);
}
