//! Traces: what is written comes back as the same operations, and a damaged file is one clear line.
#![cfg(test)]

use std::sync::Arc;

use forebay_workloads::{
    Arrival, Op, OpKind, Pacing, SpecError, Trace, Workload, WorkloadSpec, list, write_trace,
};

fn open(ops_per_s: u64) -> Arrival {
    Arrival::Open { ops_per_s, pacing: Pacing::Poisson, on_off: None }
}

fn workload(name: &str, arrival: Arrival) -> Workload {
    let (tenant_count, budget_bytes) = (5, 1 << 20);
    let spec = WorkloadSpec { tenant_count, budget_bytes, arrival, ..WorkloadSpec::named(name) };
    Workload::new(spec).unwrap()
}

fn text(workload: &Workload, count: u64) -> String {
    let mut bytes = Vec::new();
    write_trace(workload, count, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn replay(text: &str, arrival: Arrival) -> Result<Workload, SpecError> {
    let trace = Trace::read(text.as_bytes())?;
    let tenant_count = u32::try_from(trace.tenant_count()).unwrap();
    let trace = Some(Arc::new(trace));
    let named = WorkloadSpec::named("trace");
    Workload::new(WorkloadSpec { tenant_count, budget_bytes: 1 << 20, arrival, trace, ..named })
}

#[test]
fn every_scenario_comes_back_with_its_bytes() {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for info in list().iter().filter(|info| info.name != "trace") {
        for arrival in [open(3_000), Arrival::Closed] {
            let first = workload(info.name, arrival);
            let second = replay(&text(&first, 2_000), arrival).unwrap();
            assert_eq!(first.key_total(), second.key_total(), "{}", info.name);
            let ops: Vec<Op> = first.stream().take(2_000).collect();
            assert_eq!(ops, second.stream().collect::<Vec<_>>(), "{}", info.name);
            assert!(first.load_ops().eq(second.load_ops()), "{}", info.name);
            for (op, number) in ops.iter().zip(first.key_total()..) {
                for (workload, value) in [(&first, &mut one), (&second, &mut two)] {
                    workload.fill_value(op.tenant, op.key(), number, value);
                }
                assert_eq!(one, two, "{}", info.name);
            }
            assert_eq!(text(&first, 2_000), text(&second, 9_999), "recorded once more");
        }
    }
}

#[test]
fn another_rate_stretches_the_times() {
    let first = workload("steady-zipf", open(1_000));
    let text = text(&first, 100);
    let slow = replay(&text, open(500)).unwrap();
    for (a, b) in first.stream().zip(slow.stream()) {
        assert_eq!((2 * a.at_ns, a.kind), (b.at_ns, b.kind));
    }
    let closed = replay(&text, Arrival::Closed).unwrap();
    assert!(closed.stream().all(|op| op.at_ns == 0));
}

const SMALL: &str = "forebay-ops 1\narrival open 10\norder -\nvalues fixed\ntenant a 4 100 9 3\n\
                     ops\n5 0 p 3\n7 0 p 3 44\n0 0 r 8 2\nend 3\n";

#[test]
fn a_file_by_hand_is_what_it_says() {
    let workload = replay(SMALL, open(10)).unwrap();
    let ops: Vec<Op> = workload.stream().collect();
    let op = |at_ns, kind| Op { at_ns, tenant: 0, kind };
    let scan = OpKind::Scan { key: 8, limit: 2, reverse: true };
    let put = OpKind::Put { key: 3 };
    assert_eq!(ops, [op(5, put), op(12, put), op(12, scan)]);
    let mut loaded: Vec<u64> = workload.load_ops().map(|op| op.key()).collect();
    loaded.sort_unstable();
    assert_eq!(loaded, [0, 1, 2]);
    let mut value = Vec::new();
    for (number, bytes) in [(9, 100), (10, 44), (11, 100), (99, 100)] {
        workload.fill_value(0, 3, number, &mut value);
        assert_eq!(value.len(), bytes, "operation {number}");
    }
    let profile = workload.tenant(0).unwrap();
    assert_eq!(profile.weight, 3);
    assert!((profile.write_fraction - 2.0 / 3.0).abs() < 1e-12);
}

#[test]
fn a_damaged_file_is_one_line_that_names_the_place() {
    let refused = |text: &str| replay(text, open(10)).unwrap_err().to_string();
    for (from, to, line, word) in [
        ("forebay-ops 1", "forebay-ops 2", 1, "first line"),
        ("open 10", "open 0", 2, "arrival"),
        ("order -", "order x", 3, "order"),
        ("values fixed", "values pareto 1 1 9 8", 4, "pareto"),
        ("a 4 100 9 3", "a 4 100 9 10", 5, "tenant NAME"),
        ("tenant a 4 100 9 3\n", "", 5, "no tenant"),
        ("5 0 p 3\n", "5 0 x 3\n", 7, "no operation"),
        ("5 0 p 3\n", "5 0 g 3 1\n", 7, "no operation"),
        ("5 0 p 3\n", "5 1 p 3\n", 7, "no tenant 1"),
        ("5 0 p 3\n", "5 0 p 9\n", 7, "no key 9"),
        ("7 0 p 3 44", "18446744073709551615 0 p 3", 8, "does not fit"),
        ("7 0 p 3 44", "7 0 p 3 99999999", 8, "99999999 bytes"),
        ("end 3\n", "", 10, "ends before"),
        ("end 3\n", "end 4\n", 10, "end 4"),
        ("end 3\n", "end 3\nmore", 11, "goes on"),
    ] {
        let told = refused(&SMALL.replacen(from, to, 1));
        assert!(told.starts_with(&format!("trace, line {line}: ")), "{told}");
        assert!(told.contains(word) && !told.contains('\n'), "{told}");
    }
    let long = SMALL.replacen("5 0 p 3", &"5".repeat(600), 1);
    assert!(refused(&long).contains("too long"));
    let no_times = SMALL.replacen("open 10", "closed", 1);
    assert!(refused(&no_times).contains("closed loop"));
    let bare = Workload::new(WorkloadSpec::named("trace")).unwrap_err().to_string();
    assert!(bare.contains("workload_file"), "{bare}");
}

#[test]
fn a_trace_belongs_to_its_scenario_and_its_tenants() {
    let trace = Some(Arc::new(Trace::read(SMALL.as_bytes()).unwrap()));
    let told = |spec: WorkloadSpec| Workload::new(spec).unwrap_err().to_string();
    let named = |name: &str| WorkloadSpec { trace: trace.clone(), ..WorkloadSpec::named(name) };
    assert!(told(named("ycsb-a")).contains("replays no file"));
    assert_eq!(told(named("trace")), "trace: tenant_count = 100, but the file has 1 tenants");
}
