//! Every scenario of the list: the same bytes from the same seed, sane operations at every size.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use forebay_workloads::{
    Arrival, Class, KeyChoice, Op, OpKind, Pacing, SpecError, Unit, Workload, WorkloadInfo,
    WorkloadSpec, list,
};
use xxhash_rust::xxh3::Xxh3;

fn workload(name: &str, tenant_count: u32) -> Workload {
    Workload::new(WorkloadSpec { tenant_count, ..WorkloadSpec::named(name) }).unwrap()
}

fn with_params(name: &str, tenant_count: u32, params: &[(&str, f64)]) -> Workload {
    let params = params.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
    Workload::new(WorkloadSpec { tenant_count, params, ..WorkloadSpec::named(name) }).unwrap()
}

fn op_word(op: &Op) -> u8 {
    u8::try_from(op.kind.place()).unwrap()
}

/// Every scenario that needs no file.
fn drawn() -> impl Iterator<Item = &'static WorkloadInfo> {
    list().iter().filter(|info| info.name != "trace")
}

/// Hashes operations with the bytes of their keys and values.
fn hash_of(workload: &Workload, ops: impl Iterator<Item = Op>) -> u64 {
    let (mut hash, mut bytes) = (Xxh3::new(), Vec::new());
    for (number, op) in (0..).zip(ops) {
        hash.update(&op.at_ns.to_le_bytes());
        hash.update(&op.tenant.to_le_bytes());
        hash.update(&[op_word(&op)]);
        workload.fill_key(op.tenant, op.key(), &mut bytes);
        hash.update(&bytes);
        workload.fill_value(op.tenant, op.key(), number, &mut bytes);
        hash.update(&bytes);
    }
    hash.digest()
}

fn golden_spec(name: &str, seed: u64) -> WorkloadSpec {
    let arrival = Arrival::Open { ops_per_s: 50_000, pacing: Pacing::Poisson, on_off: None };
    WorkloadSpec { tenant_count: 60, seed, arrival, ..WorkloadSpec::named(name) }
}

#[test]
fn the_same_seed_gives_the_same_bytes_as_ever() {
    let golden: [(&str, u64, u64); 20] = [
        ("twitter-53", 2_331_800_837_171_072_243, 128_536_016_006_639_594),
        ("steady-zipf", 7_696_306_562_391_383_125, 10_840_928_217_744_604_679),
        ("rotating-burst", 5_783_707_707_039_675_545, 10_840_928_217_744_604_679),
        ("noisy-neighbour", 2_471_191_577_146_898_615, 10_840_928_217_744_604_679),
        ("thundering-hour", 15_945_995_866_211_351_515, 10_840_928_217_744_604_679),
        ("come-and-go", 7_696_306_562_391_383_125, 10_840_928_217_744_604_679),
        ("ycsb-a", 6_247_211_721_993_504_607, 5_709_292_747_038_312_482),
        ("ycsb-b", 5_922_362_635_529_151_204, 5_709_292_747_038_312_482),
        ("ycsb-c", 14_687_494_250_198_037_407, 5_709_292_747_038_312_482),
        ("ycsb-d", 2_441_581_765_649_205_157, 4_191_627_792_727_431_703),
        ("ycsb-e", 10_726_369_115_421_372_194, 4_191_627_792_727_431_703),
        ("ycsb-f", 7_636_217_260_339_986_839, 5_709_292_747_038_312_482),
        ("fillseq", 13_806_223_436_819_978_636, 3_244_421_341_483_603_138),
        ("fillrandom", 10_473_991_741_890_716_068, 3_244_421_341_483_603_138),
        ("overwrite", 10_473_991_741_890_716_068, 10_840_928_217_744_604_679),
        ("readseq", 11_566_736_327_891_461_788, 10_840_928_217_744_604_679),
        ("readrandom", 1_000_983_389_065_981_644, 10_840_928_217_744_604_679),
        ("readwhilewriting", 17_258_523_331_751_491_018, 10_840_928_217_744_604_679),
        ("seekrandom", 3_070_869_684_861_769_665, 10_840_928_217_744_604_679),
        ("mixgraph", 4_993_729_749_933_747_678, 14_723_068_776_218_560_045),
    ];
    assert_eq!(golden.map(|g| g.0).to_vec(), drawn().map(|i| i.name).collect::<Vec<_>>());
    let found = golden.map(|(name, ..)| {
        let workload = Workload::new(golden_spec(name, 1)).unwrap();
        let load = hash_of(&workload, workload.load_ops().take(10_000));
        (name, hash_of(&workload, workload.stream().take(10_000)), load)
    });
    assert_eq!(found, golden);
}

#[test]
fn another_seed_gives_other_operations() {
    for info in drawn() {
        let one = Workload::new(golden_spec(info.name, 1)).unwrap();
        let two = Workload::new(golden_spec(info.name, 2)).unwrap();
        let ops = |w: &Workload| w.stream().take(1_000).collect::<Vec<_>>();
        assert_eq!(ops(&one), ops(&one), "{}", info.name);
        assert_ne!(ops(&one), ops(&two), "{}", info.name);
        let load = |w: &Workload| w.load_ops().take(1_000).collect::<Vec<_>>();
        if !info.name.starts_with("fill") {
            assert_ne!(load(&one), load(&two), "{}", info.name);
        }
    }
}

#[test]
fn every_scenario_asks_only_for_keys_that_there_are() {
    for info in drawn() {
        for tenant_count in [1, 8, 1_000] {
            for keys in [KeyChoice::Zipf, KeyChoice::Uniform, KeyChoice::Latest] {
                let spec = WorkloadSpec { tenant_count, keys, ..WorkloadSpec::named(info.name) };
                let workload = Workload::new(spec).unwrap();
                assert_eq!(workload.tenants().len(), usize::try_from(tenant_count).unwrap());
                for op in workload.stream().take(5_000) {
                    let tenant = workload.tenant(op.tenant).unwrap();
                    assert!(op.key() < tenant.key_count, "{} {tenant_count}", info.name);
                    assert_eq!(op.at_ns, 0);
                }
            }
        }
    }
}

#[test]
fn a_load_puts_every_key_that_is_loaded_once() {
    for info in drawn() {
        let spec = WorkloadSpec {
            tenant_count: 7,
            budget_bytes: 100_000,
            ..WorkloadSpec::named(info.name)
        };
        let workload = Workload::new(spec).unwrap();
        let mut seen = BTreeSet::new();
        let mut first_tenants = BTreeSet::new();
        let mut bytes = Vec::new();
        for (number, op) in workload.load_ops().enumerate() {
            assert!(matches!(op.kind, OpKind::Put { .. }));
            workload.fill_key(op.tenant, op.key(), &mut bytes);
            assert!(seen.insert((op.tenant, bytes.clone())), "{} twice", info.name);
            if number < 100 {
                first_tenants.insert(op.tenant);
            }
        }
        let keys: u64 = workload.tenants().iter().map(|t| t.loaded_count).sum();
        assert_eq!(u64::try_from(seen.len()).unwrap(), keys);
        assert_eq!(workload.load_op_count(), keys);
        let whole = workload.key_total();
        match info.name {
            "fillseq" | "fillrandom" => assert_eq!(keys, 0),
            "ycsb-d" | "ycsb-e" => assert!(keys.abs_diff(whole >> 1) < 7, "{keys} of {whole}"),
            _ => assert_eq!(keys, whole, "{}", info.name),
        }
        assert!(keys == 0 || first_tenants.len() > 3, "{} is not interleaved", info.name);
    }
}

#[test]
fn tiny_keys_are_distinct() {
    let workload = with_params("steady-zipf", 2, &[("key_bytes", 1.0), ("value_bytes", 1.0)]);
    let tenant = workload.tenant(0).unwrap();
    assert_eq!(tenant.key_count, 2 * (64 << 20));
    assert_eq!(tenant.key_bytes, 4);
}

#[test]
fn twitter_tenants_follow_the_figures_and_the_rules() {
    let workload = workload("twitter-53", 106);
    let find = |name: &str| workload.tenants().iter().find(|t| t.name == name).unwrap();
    let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
    // cluster5 has no figures: from there on the number is one behind the name.
    assert!(near(find("t0000-cluster1").write_fraction, 0.005));
    assert!(near(find("t0041-cluster43").alpha, 1.21));
    assert_eq!(find("t0048-cluster50").value_bytes, 4_096);
    assert_eq!(find("t0019-cluster21").value_bytes, 1);
    assert_eq!(find("t0053-cluster1").weight, 11_400);
    // 4 x (128 MiB / 106) / (23 + 4,096), without the fraction.
    assert_eq!(find("t0006-cluster8").key_count, 1_229);
    assert_eq!(find("t0006-cluster8").class, Class::Hot);
    assert_eq!(find("t0000-cluster1").class, Class::Cold);
}

#[test]
fn the_smallest_share_still_has_sixteen_keys() {
    for info in drawn() {
        let spec =
            WorkloadSpec { tenant_count: 53, budget_bytes: 1, ..WorkloadSpec::named(info.name) };
        let workload = Workload::new(spec).unwrap();
        assert!(workload.tenants().iter().all(|t| t.key_count == 16), "{}", info.name);
        assert_eq!(workload.stream().take(100).count(), 100);
    }
}

#[test]
fn tenants_ask_by_weight_and_write_by_their_fraction() {
    let spec = WorkloadSpec { tenant_count: 53, ..WorkloadSpec::named("twitter-53") };
    let workload = Workload::new(spec).unwrap();
    let mut counts = vec![(0_u32, 0_u32); 53];
    for op in workload.stream().take(2_000_000) {
        let (ops, writes) = &mut counts[usize::try_from(op.tenant).unwrap()];
        *ops += 1;
        *writes += u32::from(op.is_write());
    }
    let total: u64 = workload.tenants().iter().map(|t| t.weight).sum();
    for (tenant, (ops, writes)) in workload.tenants().iter().zip(counts) {
        let expected = 2e6 * ratio(tenant.weight, total);
        let ops = f64::from(ops);
        assert!((ops - expected).abs() < 5.0 * expected.sqrt(), "{}: {ops}", tenant.name);
        let expected = ops * tenant.write_fraction;
        let error = (f64::from(writes) - expected).abs();
        assert!(error <= 5.0 * (expected + 1.0).sqrt(), "{}: {writes} of {ops}", tenant.name);
    }
}

#[test]
fn deletes_and_scans_come_by_their_ratios() {
    let params = [("delete_ratio", 0.2), ("scan_ratio", 0.4), ("scan_limit_count", 7.0)];
    for info in drawn().filter(|i| i.name == "steady-zipf" || i.name == "rotating-burst") {
        let workload = with_params(info.name, 8, &params);
        let mut counts = [0_u32; 4];
        for op in workload.stream().take(100_000) {
            counts[usize::from(op_word(&op))] += 1;
            assert!(!matches!(op.kind, OpKind::Scan { limit, .. } if limit != 7));
        }
        for (count, expected) in counts.iter().zip([40_000, 30_000, 10_000, 20_000]) {
            assert!(count.abs_diff(expected) < 1_000, "{}: {counts:?}", info.name);
        }
    }
}

#[test]
fn the_aggressor_asks_c_times_as_often_as_a_neighbour() {
    let workload = with_params("noisy-neighbour", 11, &[("aggressor_share_count", 10.0)]);
    let place = workload.tenants().iter().position(|t| t.name.ends_with("aggressor")).unwrap();
    let aggressor = u32::try_from(place).unwrap();
    let ops = workload.stream().take(100_000).filter(|op| op.tenant == aggressor);
    let (count, writes) =
        ops.fold((0_u32, 0_u32), |(n, w), op| (n + 1, w + u32::from(op.is_write())));
    assert!(count.abs_diff(50_000) < 1_000, "{count}");
    assert_eq!(count, writes);
    assert_eq!(workload.tenant(aggressor).unwrap().class, Class::Hot);
    assert_eq!(workload.tenants().iter().filter(|t| t.name.ends_with("neighbour")).count(), 10);
}

#[test]
fn an_aggressor_flat_out_leaves_the_others_as_they_were() {
    let silent = [("aggressor_share_count", 0.0)];
    let alone = with_params("noisy-neighbour", 100, &silent);
    let noisy = with_params("noisy-neighbour", 100, &[("aggressor_client_count", 4.0)]);
    let who = noisy.flat_out().unwrap();
    assert_eq!(who.client_count, 4);
    let victims: Vec<Op> = noisy.stream().take(5_000).collect();
    assert!(victims.iter().all(|op| op.tenant != who.tenant));
    assert_eq!(victims, alone.stream().take(5_000).collect::<Vec<_>>());
    let own: Vec<Op> = noisy.flat_out_stream().unwrap().take(1_000).collect();
    assert!(own.iter().all(|op| op.tenant == who.tenant && op.is_write() && op.at_ns == 0));
    assert_eq!(noisy.tenants()[who.tenant as usize].class, Class::Hot);
    assert_eq!(alone.tenants()[who.tenant as usize].class, Class::Cold);
    assert!(alone.flat_out().is_none() && alone.flat_out_stream().is_none());
    assert_eq!(with_params("noisy-neighbour", 1, &silent).stream().take(9).count(), 9);
}

#[test]
fn a_storm_takes_the_bytes_and_the_time_asked_for() {
    let params = [
        ("storm_tenants_ratio", 0.5),
        ("storm_bytes", 11_600.0),
        ("storm_ms", 250.0),
        ("storm_ops_ratio", 0.25),
    ];
    let params = params.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
    let arrival = Arrival::Open { ops_per_s: 2_000, pacing: Pacing::Regular, on_off: None };
    let spec = WorkloadSpec {
        tenant_count: 20,
        arrival,
        params,
        ..WorkloadSpec::named("thundering-hour")
    };
    // Ten members with a hundred puts each, and three times as many operations between storms.
    let workload = Workload::new(spec).unwrap();
    let ops: Vec<Op> = workload.stream().take(8_000).collect();
    for period in ops.chunks(4_000) {
        let took = |ops: &[Op]| ops.last().unwrap().at_ns - ops.first().unwrap().at_ns;
        let storm = &period[3_000..];
        assert!(storm.iter().all(Op::is_write));
        assert!(took(storm).abs_diff(250_000_000) < 1_000_000, "{}", took(storm));
        assert!(took(period).abs_diff(2_000_000_000) < 2_000_000, "{}", took(period));
    }
}

#[test]
fn few_tenants_burst_at_a_time_and_all_in_turn() {
    let params = [("burst_share_ratio", 0.01), ("background_ratio", 0.1)];
    let workload = with_params("rotating-burst", 100, &params);
    let mut all = BTreeSet::new();
    let mut stream = workload.stream();
    let mut busiest_shares = 0.0;
    for _ in 0..200 {
        let mut counts = BTreeMap::new();
        for op in stream.by_ref().take(200) {
            *counts.entry(op.tenant).or_insert(0_u32) += 1;
        }
        all.extend(counts.iter().filter(|(_, n)| **n > 10).map(|(t, _)| *t));
        let mut counts: Vec<u32> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        busiest_shares += f64::from(counts.iter().take(8).sum::<u32>()) / 200.0;
    }
    assert!(busiest_shares / 200.0 > 0.75, "{busiest_shares}");
    assert_eq!(all.len(), 100);
}

#[test]
fn storms_come_again_and_keep_the_mean_rate() {
    let spec = WorkloadSpec {
        tenant_count: 20,
        budget_bytes: 1 << 20,
        arrival: Arrival::Open { ops_per_s: 10_000, pacing: Pacing::Regular, on_off: None },
        ..WorkloadSpec::named("thundering-hour")
    };
    let workload = Workload::new(spec).unwrap();
    let storms = |t: &str| workload.tenants().iter().filter(|p| p.name.ends_with(t)).count();
    assert_eq!((storms("storm"), storms("calm")), (2, 18));
    // 4 x (1 MiB / 20) / 116, without the fraction.
    let member_ops = 1_807;
    let period = 2 * member_ops * 4;
    let ops: Vec<Op> = workload.stream().take(usize::try_from(period * 10).unwrap()).collect();
    let members =
        ops.iter().filter(|op| workload.tenant(op.tenant).unwrap().name.ends_with("storm"));
    let share = ratio(u64::try_from(members.count()).unwrap(), period * 10);
    assert!((share - (0.25 + 0.75 * 0.1)).abs() < 0.01, "{share}");
    let seconds = ratio(ops.last().unwrap().at_ns, 1_000_000_000);
    assert!((seconds / (ratio(period * 10, 10_000)) - 1.0).abs() < 0.01, "{seconds}");
    let gaps: BTreeSet<u64> = ops.windows(2).map(|w| w[1].at_ns - w[0].at_ns).collect();
    assert!(gaps.last().unwrap() / gaps.first().unwrap() >= 9, "{gaps:?}");
}

#[test]
fn changing_the_arrivals_leaves_the_operations_alone() {
    for info in drawn() {
        let closed = WorkloadSpec { tenant_count: 60, ..WorkloadSpec::named(info.name) };
        let closed = Workload::new(closed).unwrap();
        let open = Workload::new(golden_spec(info.name, 1)).unwrap();
        for (a, b) in closed.stream().zip(open.stream()).take(1_000) {
            assert_eq!((a.tenant, a.kind), (b.tenant, b.kind));
        }
        let times: Vec<u64> = open.stream().take(1_000).map(|op| op.at_ns).collect();
        assert!(times.is_sorted() && times.last().unwrap() > &1_000_000);
    }
}

#[test]
fn every_parameter_holds_at_its_bounds_and_is_refused_beyond() {
    for info in drawn() {
        for param in info.params {
            assert!((param.min..=param.max).contains(&param.default), "{}", param.name);
            for value in [param.min, param.max] {
                let workload = with_params(info.name, 8, &[(param.name, value)]);
                assert_eq!(workload.stream().take(100).count(), 100);
            }
            for value in [param.min - 1.0, param.max + 1.0, f64::NAN, f64::INFINITY] {
                let mut spec = WorkloadSpec::named(info.name);
                spec.params.insert(param.name.to_owned(), value);
                let error = Workload::new(spec).unwrap_err();
                assert!(matches!(&error, SpecError::OutOfBounds { key, .. } if key == param.name));
            }
            if param.unit != Unit::Ratio {
                let mut spec = WorkloadSpec::named(info.name);
                spec.params.insert(param.name.to_owned(), param.min + 0.5);
                let error = Workload::new(spec).unwrap_err();
                assert!(matches!(error, SpecError::NotWhole { .. }));
            }
        }
    }
}

#[test]
fn an_error_names_the_key_and_what_is_allowed() {
    let error = |spec: WorkloadSpec| Workload::new(spec).unwrap_err().to_string();
    assert_eq!(
        error(WorkloadSpec::named("nope")),
        "no workload \"nope\"; allowed: twitter-53, steady-zipf, rotating-burst, noisy-neighbour, \
         thundering-hour, come-and-go, ycsb-a, ycsb-b, ycsb-c, ycsb-d, ycsb-e, ycsb-f, fillseq, \
         fillrandom, overwrite, readseq, readrandom, readwhilewriting, seekrandom, mixgraph, trace"
    );
    let mut spec = WorkloadSpec::named("twitter-53");
    spec.params.insert("alpha".to_owned(), 1.0);
    assert_eq!(
        error(spec),
        "workload twitter-53 has no parameter \"alpha\"; allowed: delete_ratio, scan_ratio, \
         scan_limit_count"
    );
    let spec = |tenant_count, budget_bytes| WorkloadSpec {
        tenant_count,
        budget_bytes,
        ..WorkloadSpec::named("twitter-53")
    };
    assert_eq!(error(spec(0, 1)), "tenant_count = 0 is out of bounds; allowed: 1 to 1000000");
    assert!(error(spec(1_000_001, 1)).starts_with("tenant_count = 1000001"));
    assert!(error(spec(1, 0)).starts_with("budget_bytes = 0"));
    assert!(error(spec(1, u64::MAX)).starts_with("budget_bytes"));
}

#[test]
fn a_description_is_read_from_toml_and_written_back() {
    let text = "name = \"rotating-burst\"\ntenant_count = 8\nkeys = \"latest\"\n\
                arrival = { open = { ops_per_s = 500, pacing = \"regular\", \
                on_off = { on_ns = 5, off_ns = 6 } } }\n[params]\nactive_count = 2\n";
    let spec = WorkloadSpec::from_toml(text).unwrap();
    assert_eq!(spec.tenant_count, 8);
    assert_eq!(spec.keys, KeyChoice::Latest);
    assert!(matches!(spec.arrival, Arrival::Open { ops_per_s: 500, .. }));
    assert_eq!(spec.params.get("active_count"), Some(&2.0));
    let written = toml::to_string(&spec).unwrap();
    assert_eq!(WorkloadSpec::from_toml(&written).unwrap(), spec);
    let short = WorkloadSpec::from_toml("name = \"twitter-53\"\narrival = \"closed\"").unwrap();
    assert_eq!(short, WorkloadSpec::named("twitter-53"));
}

#[test]
fn a_wrong_description_is_refused_in_one_line() {
    for (text, words) in [
        ("name = \"twitter-53\"\ntenants = 8", ["line 2", "tenant_count"]),
        ("name = \"twitter-53\"\n\ntenant_count = \"8\"", ["line 3", "u32"]),
        ("tenant_count = 8", ["name", "missing"]),
        ("name = \"x\"\narrival = { open = { ops = 5 } }", ["line 2", "ops_per_s"]),
        ("name =", ["line 1", "workload"]),
    ] {
        let error = WorkloadSpec::from_toml(text).unwrap_err().to_string();
        assert!(!error.contains('\n') && words.iter().all(|w| error.contains(w)), "{error}");
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    let part = |n: u64| {
        f64::from(u32::try_from(n >> 32).unwrap()) * 4_294_967_296.0
            + f64::from(u32::try_from(n & 0xffff_ffff).unwrap())
    };
    part(a) / part(b)
}
