//! Strategy: the probes run in memory, where every call succeeds at once, and their output goes
//! through the parser of experiment files.

use forebay_engine::env::IoClass;
use forebay_engine::env::mem::MemEnv;
use forebay_sim::disk::device::{Device, DeviceSpec, Kind, Progress};

use super::*;
use crate::experiment::{Experiment, ExperimentFile, Overrides};

fn terms(cached_reads: bool) -> Terms {
    Terms { duration_ns: 0, cached_reads, core_count: 3, forget: |_| Ok(()) }
}

fn in_memory(cached_reads: bool) -> Calibration {
    let env = MemEnv::default();
    env.block_on(forebay_engine::env::Env::create_dir(&env, Path::new("/d"))).unwrap();
    let made = calibrate(&env, Path::new("/d"), &terms(cached_reads), &|_| true).unwrap();
    let left = env.block_on(forebay_engine::env::Env::list(&env, Path::new("/d"))).unwrap();
    assert_eq!(left, Vec::<String>::new());
    made
}

#[test]
fn a_spread_is_the_median_with_its_quartiles() {
    assert_eq!(Spread::of(&[]), Spread::default());
    let spread = Spread::of(&[40, 10, 30, 20, 1_000]);
    assert_eq!(spread, Spread { low: 20, middle: 30, high: 40, count: 5 });
    // Twenty short calls take no time beside two long ones.
    let mut calls = vec![1; 20];
    calls.extend([90, 100]);
    let by_time = Spread::by_time(&calls);
    assert_eq!((by_time.low, by_time.middle, by_time.high, by_time.count), (90, 90, 100, 22));
    assert_eq!(Spread::by_time(&[]), Spread::default());
    let turned = spread.map(|ns| 1_000 - ns);
    assert_eq!(turned, Spread { low: 960, middle: 970, high: 980, count: 5 });
}

#[test]
fn the_table_is_a_device_of_an_experiment_file_with_every_value_that_was_measured() {
    for cached in [false, true] {
        let made = in_memory(cached);
        let table = made.toml(&["a test".to_owned()]);
        assert!(table.lines().all(|line| line.len() <= 100 && line.is_ascii()), "{table}");
        let text = format!("{table}\n[stop]\nfill_count = 2\nwarmup_fill_count = 0\n");
        let file = ExperimentFile::parse("t.toml", &text).unwrap();
        let experiment = Experiment::resolve("t", &file, &Overrides::default()).unwrap();
        let config = &experiment.arms[0].config;
        let spec = config.device_full();
        let of = |key: &str| {
            let found = made.figures.iter().find(|f| f.in_table && f.key == key);
            found.unwrap_or_else(|| panic!("{key}")).spread.middle
        };
        assert_eq!((spec.sync_ns, spec.write_ns), (of("sync_ns"), of("write_ns")));
        assert_eq!(spec.write_bytes_per_s, of("write_bytes_per_s"));
        assert_eq!((spec.read_ns, spec.depth), (of("read_ns"), of("depth")));
        assert_eq!((spec.iops, spec.writeback_bytes), (0, of("writeback_bytes")));
        assert_eq!((config.core_count, config.cpu_cost_multiplier), (3, of("cpu_cost_multiplier")));
        assert_eq!(u64::from(spec.fifo_only), of("fifo"));
        assert!(spec.depth >= 1 && spec.write_bytes_per_s > 0 && of("writeback_bytes") > 0);
        let how = &made.figures.iter().find(|f| f.key == "read_ns").unwrap().how;
        assert_eq!(how.ends_with("pages cached"), cached, "{how}");
        let object = made.json(&[("seconds", 1.into())]);
        assert_eq!(object["device"]["sync_ns"], of("sync_ns"));
        assert_eq!(object["schema"], "forebay.calibrate/1");
        assert_eq!(made.csv().lines().count(), 1 + made.figures.len());
    }
}

#[test]
fn it_stops_at_each_probe_and_between_samples() {
    let env = MemEnv::default();
    for name in PROBES.map(|(name, _)| name) {
        let told = |begun: &str| begun != name;
        let stopped = calibrate(&env, Path::new("/"), &terms(false), &told);
        assert!(matches!(stopped, Err(CalibrateError::Stopped)), "{name}");
    }
    let told = |begun: &str| !begun.is_empty();
    let stopped = calibrate(&env, Path::new("/"), &terms(false), &told);
    assert!(matches!(stopped, Err(CalibrateError::Stopped)));
}

#[test]
fn what_the_disk_refuses_is_handed_on() {
    let env = MemEnv::default();
    let refused = calibrate(&env, Path::new("/nowhere"), &terms(false), &|_| true);
    assert!(matches!(refused, Err(CalibrateError::Refused(_))), "{refused:?}");
    let terms = Terms { forget: |_| Err(io::Error::other("no")), ..terms(false) };
    let refused = calibrate(&env, Path::new("/"), &terms, &|_| true);
    assert!(matches!(refused, Err(CalibrateError::Forget(_))), "{refused:?}");
}

/// What the model's device takes for one request, nothing else being there.
fn model_ns(spec: DeviceSpec, bytes: u64) -> u64 {
    let mut device = Device::new(spec);
    let ticket = device.submit(0, IoClass::Wal, Kind::Sync, bytes).unwrap();
    let mut now = 0;
    while let Progress::NotBefore(at) = device.poll(now, &ticket) {
        now = at;
    }
    now
}

#[test]
fn the_model_takes_for_a_sync_what_the_disk_took() {
    let exactly = |ns| Spread { low: ns, middle: ns, high: ns, count: 1 };
    // Syncs in a second by threads; what a small sync and a large one took.
    for (rates, small_ns, large_ns) in [
        ([4_000, 4_000, 4_000, 4_000], 250_000, 62_500_000),
        ([5_000, 9_000, 17_000, 20_000], 200_000, 800_000),
        ([5_000, 5_000, 5_000, 5_000], 200_000, 300_000),
        ([3_000, 4_000, 4_000, 4_000], 330_000, 62_500_000),
        ([100, 200, 400, 800], 9_000_000, 15_000_000),
    ] {
        let at_once = probe::AtOnce::of(rates);
        let made = Model::of(exactly(small_ns), &at_once, exactly(large_ns));
        let spec = DeviceSpec {
            write_bytes_per_s: made.write_bytes_per_s.middle,
            sync_ns: made.sync_ns.middle,
            depth: made.depth.middle,
            ..DeviceSpec::NONE
        };
        let near = |is: u64, was: u64| is.abs_diff(was) <= was >> 4;
        let is = (model_ns(spec, 4 << 10), model_ns(spec, 1 << 20));
        assert!(near(is.0, small_ns) && near(is.1, large_ns), "{is:?} {small_ns} {large_ns}");
    }
}

#[test]
fn a_sync_that_waits_for_what_others_write_is_one_of_a_queue() {
    let exactly = |ns| Spread { low: ns, middle: ns, high: ns, count: 1 };
    // 16 MiB/s: 4 MiB take 250 ms, of which a sync in a queue waits for half.
    let at_once = probe::AtOnce::of([5_000; 4]);
    let made = Model::of(exactly(200_000), &at_once, exactly(62_500_000));
    assert_eq!(made.fifo(exactly(125_000_000)).middle, 1);
    assert_eq!(made.fifo(exactly(8_000_000)).middle, 0);
}
