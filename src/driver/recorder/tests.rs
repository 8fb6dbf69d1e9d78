//! What the recorder keeps of events that are told to it one by one.

use super::*;

fn recorder(recording: Recording) -> Recorder {
    let mut recorder = Recorder::new(recording);
    for n in 0..40 {
        recorder.know(BranchId(n), Some(TreeId(100 + n)), &format!("t{n}"));
    }
    recorder.know(BranchId(70), Some(TreeId(7)), "a");
    recorder.know(BranchId(71), Some(TreeId(7)), "b");
    recorder
}

fn flush(recorder: &mut Recorder, tree: u64, (begin, end): (Nanos, Nanos), bytes: u64) {
    let (tree, table) = (TreeId(tree), Some((forebay_engine::types::TableId::default(), bytes)));
    recorder.event(begin, &Event::FlushBegin { tree, bytes });
    recorder.event(end, &Event::FlushEnd { tree, table, elapsed_ns: end - begin });
}

#[test]
fn times_count_from_when_measuring_began_and_what_is_under_way_is_kept() {
    let mut recorder = recorder(Recording::Busiest);
    flush(&mut recorder, 100, (10, 20), 5);
    let tree = TreeId(7);
    recorder.event(90, &Event::FlushBegin { tree, bytes: 1 });
    recorder.reset(100);
    recorder.event(110, &Event::FlushEnd { tree, table: None, elapsed_ns: 20 });
    let (branch, cause, caused_by) = (BranchId(71), StallCause::L0, BranchId(3));
    recorder.event(150, &Event::StallBegin { branch, cause, caused_by });
    recorder.event(160, &Event::Sealed { tree, bytes: 9 });
    recorder.event(170, &Event::JobFailed { tree, error: "EIO".to_owned() });
    let run = recorder.finish(200);
    assert_eq!((run.head.end_ns, run.head.event_count, run.head.left_out), (100, 3, 0));
    assert_eq!(run.head.owners, ["tree 7 of 2 tenants", "b"]);
    let rows: Vec<_> = run.rows.iter().filter(|row| row.kind != EventKind::All).collect();
    let times: Vec<_> = rows.iter().map(|r| (r.kind, r.at_ns, r.took_ns, r.bytes)).collect();
    assert_eq!(
        times,
        [
            (EventKind::Flush, 0, 10, 0),
            (EventKind::Stall, 50, 50, 0),
            (EventKind::Memtable, 60, 0, 9),
            (EventKind::Memtable, 60, 0, 0),
            (EventKind::Fault, 70, 0, 0),
        ]
    );
    assert!(rows[1].is_open && rows[1].cause == "l0" && rows[1].caused_by == "t3");
    assert_eq!(rows[4].note, "job failed: EIO");
    let sums = run.rows.iter().filter(|row| row.kind == EventKind::All);
    let sums = sums.fold((0, 0, 0), |s, r| (s.0 + r.flush_ns, s.1 + r.stall_ns, s.2 + r.took_ns));
    assert_eq!(sums, (10, 50, 100));
}

#[test]
fn only_the_busiest_are_told_in_full_and_the_rest_is_counted() {
    let mut recorder = recorder(Recording::Busiest);
    for n in 0..40 {
        flush(&mut recorder, 100 + n, (n * 10, n * 10 + 30), 1000 + n);
    }
    let (branch, cause, caused_by) = (BranchId(2), StallCause::Budget, BranchId(3));
    recorder.event(9, &Event::StallBegin { branch, cause, caused_by });
    recorder.event(12, &Event::StallEnd { branch, cause, caused_by, elapsed_ns: 3 });
    let (branch, elapsed_ns) = (BranchId(70), 1);
    recorder.event(13, &Event::StallEnd { branch, cause, caused_by, elapsed_ns });
    let run = recorder.finish(1000);
    assert_eq!(run.head.owners.len(), 12);
    assert_eq!(run.head.owners[..3], ["t39", "t2", "t38"]);
    assert_eq!(run.head.owners[3..5], ["a", "t37"], "who waited, then who flushed less");
    assert_eq!((run.head.owner_count, run.head.event_count), (41, 42));
    assert_eq!((run.head.left_out, run.head.cut_ns), (29, None));
    let sum: u64 = run.rows.iter().map(|row| row.flush_ns).sum();
    assert_eq!(sum, 1200, "everybody is in the sums");
    assert!(run.rows.is_sorted_by_key(|row| row.at_ns));
}

#[test]
fn what_finds_no_room_is_counted_and_said() {
    let mut recorder = recorder(Recording::Busiest);
    for n in 0..13_000 {
        flush(&mut recorder, 100, (n * 10, n * 10 + 9), 1);
    }
    let run = recorder.finish(130_000);
    assert_eq!(run.rows.len(), 12_000);
    let flushes = run.rows.iter().filter(|row| row.kind == EventKind::Flush).count();
    assert_eq!(run.head.left_out, 13_000 - to_u64(flushes));
    let cut = run.head.cut_ns.unwrap();
    assert!(run.rows.iter().all(|row| row.at_ns <= cut) && cut > 100_000, "{cut}");
}

#[test]
fn who_only_has_a_memtable_comes_last_and_samples_leave_room_for_events() {
    let mut recorder = recorder(Recording::Everybody(400));
    flush(&mut recorder, 107, (10, 20), 5);
    let facts = |bytes| {
        let tree = |n| TreeFacts { tree: TreeId(n), memtable_bytes: bytes, ..TreeFacts::default() };
        [tree(100), tree(101)]
    };
    for n in 0..200 {
        recorder.trees(n, &facts(n + 1));
    }
    recorder.event(199, &Event::Sealed { tree: TreeId(101), bytes: 900 });
    let run = recorder.finish(200);
    assert_eq!((run.head.owners, run.head.owner_count), (vec_of(["t7", "t0", "t1"]), 3));
    let of = |name: &'static str| run.rows.iter().filter(move |row| row.owner == name);
    assert_eq!((of("t0").count(), of("t7").count()), (28, 1));
    let seal: Vec<u64> = of("t1").skip(28).map(|row| row.bytes).collect();
    assert_eq!(seal, [900, 0]);
}

fn vec_of<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).into()
}

#[test]
fn memory_is_bounded() {
    let mut recorder = recorder(Recording::Busiest);
    for n in 0..(1_u64 << 18) + 5 {
        flush(&mut recorder, 100, (n, n + 1), 1);
    }
    assert_eq!(recorder.spans.len(), 1 << 18);
    let tree =
        |n, bytes| TreeFacts { tree: TreeId(n), memtable_bytes: bytes, ..TreeFacts::default() };
    for sample in 1..=100 {
        let facts: Vec<_> = (0..10_000).map(|n| tree(n, sample)).collect();
        recorder.trees(sample, &facts);
    }
    let points = recorder.points.len();
    assert!((1 << 16..=1 << 18).contains(&points), "{points}");
    let kept = recorder.points.iter().filter(|point| point.tree == TreeId(77));
    let kept: Vec<u64> = kept.map(|point| point.at).collect();
    assert!(kept.windows(2).all(|pair| pair[1] - pair[0] == kept[0]), "{kept:?}");
    assert!(kept.last().is_some_and(|last| *last > 90), "{kept:?}");
    let run = recorder.finish(1 << 20);
    assert_eq!(run.head.event_count, (1 << 18) + 5);
    assert!(run.head.cut_ns.is_some());
}
