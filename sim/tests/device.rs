//! Strategy: known loads on known devices, their virtual durations computed by hand.
//! Invariants: bandwidth is never exceeded nor wasted; classes share it by weight.
#![cfg(test)]

use std::path::Path;

use forebay_engine::env::{Env, File, IoClass};
use forebay_sim::disk::device::{Device, DeviceSpec, Kind, Progress};
use forebay_sim::runtime::START_NS;
use forebay_sim::{Sim, SimConfig};

const MB: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const TENTH: u64 = 100_000_000;

fn plain(write_bytes_per_s: u64) -> DeviceSpec {
    DeviceSpec { write_bytes_per_s, read_bytes_per_s: write_bytes_per_s, ..DeviceSpec::NONE }
}

fn wait(device: &mut Device, from: u64, ticket: &forebay_sim::disk::device::Ticket) -> u64 {
    let mut now = from;
    loop {
        match device.poll(now, ticket) {
            Progress::Done => return now,
            Progress::NotBefore(at) => {
                assert!(at > now);
                now = at;
            }
        }
    }
}

#[test]
fn ten_megabytes_at_ten_megabytes_a_second_take_a_second() {
    let sim = Sim::new(&SimConfig::experiment(1, plain(10 * MB)));
    let env = sim.env();
    let end = sim.run(async move {
        env.create_dir(Path::new("/d")).await.unwrap();
        let file = env.create(Path::new("/d/1.sst")).await.unwrap();
        for _ in 0..10 {
            file.append(&vec![1; 1_000_000], IoClass::Flush).await.unwrap();
        }
        file.sync_data(IoClass::Flush).await.unwrap();
        env.now() - START_NS
    });
    assert_eq!(end.done(), Some(SECOND));
    assert_eq!(sim.device().bytes(), [0, 10 * MB, 0, 0]);
}

#[test]
fn the_log_pays_for_its_bytes_when_it_is_synced_or_over_its_limit() {
    let device = DeviceSpec { writeback_bytes: 2 * MB, ..plain(10 * MB) };
    let sim = Sim::new(&SimConfig::experiment(1, device));
    let env = sim.env();
    let end = sim.run(async move {
        env.create_dir(Path::new("/d")).await.unwrap();
        let file = env.create(Path::new("/d/1.wal")).await.unwrap();
        let data = vec![1; 1_000_000];
        let mut times = Vec::new();
        for _ in 0..3 {
            file.append(&data, IoClass::Wal).await.unwrap();
            times.push(env.now() - START_NS);
        }
        file.append(&data, IoClass::Wal).await.unwrap();
        file.sync_data(IoClass::Wal).await.unwrap();
        times.push(env.now() - START_NS);
        times
    });
    assert_eq!(end.done().unwrap(), [0, 0, 3 * TENTH, 4 * TENTH]);
}

#[test]
fn classes_share_bandwidth_by_weight_and_a_lone_class_takes_it_all() {
    let mut device = Device::new(DeviceSpec { weights: [1, 3, 1, 1], ..plain(10 * MB) });
    let size = 100 * 131_072;
    let flush = device.submit(0, IoClass::Flush, Kind::Write, size).unwrap();
    let merge = device.submit(0, IoClass::Compaction, Kind::Write, size).unwrap();
    let whole = size * 100;
    let flushed = wait(&mut device, 0, &flush);
    // Three of four chunks are the flush's until it ends; then the merge has the device alone.
    let expected = (whole * 4).div_ceil(3);
    assert!(flushed.abs_diff(expected) < 2 * 13_107_200, "{flushed} {expected}");
    assert_eq!(wait(&mut device, flushed, &merge), 2 * whole);
    assert_eq!(device.busy_ns(), 2 * whole);
}

#[test]
fn one_queue_serves_in_order_of_arrival() {
    let mut device = Device::new(plain(10 * MB).fifo());
    let merge = device.submit(0, IoClass::Compaction, Kind::Write, 10 * MB).unwrap();
    let log = device.submit(1, IoClass::Wal, Kind::Sync, MB).unwrap();
    assert_eq!(wait(&mut device, 1, &log), 11 * TENTH);
    assert_eq!(device.poll(2 * SECOND, &merge), Progress::Done);
}

#[test]
fn a_scaled_device_divides_bandwidth_and_keeps_latency() {
    let (full, scaled) = (DeviceSpec::NVME, DeviceSpec::NVME.scaled(1000));
    assert_eq!(scaled.write_bytes_per_s * 1000, full.write_bytes_per_s);
    assert_eq!((scaled.sync_ns, scaled.iops), (full.sync_ns, full.iops));
    let sync = |spec, bytes| {
        let mut device = Device::new(spec);
        let ticket = device.submit(0, IoClass::Wal, Kind::Sync, bytes).unwrap();
        wait(&mut device, 0, &ticket)
    };
    assert_eq!((sync(full, 0), sync(scaled, 0)), (61_063, 61_063));
    assert!(sync(scaled, 2 * MB) - sync(full, 2 * MB) > 990_000_000);
}

#[test]
fn iops_and_depth_cap_small_requests_and_latencies_overlap() {
    let mut device =
        Device::new(DeviceSpec { read_ns: 1_000_000, iops: 1000, depth: 10, ..plain(0) });
    let tickets: Vec<_> =
        (0..10).map(|_| device.submit(0, IoClass::Read, Kind::Read, 4096).unwrap()).collect();
    let done: Vec<u64> = tickets.iter().map(|ticket| wait(&mut device, 0, ticket)).collect();
    // One a millisecond, each 0.9 ms beside the server.
    assert_eq!(done[0], 1_900_000);
    assert_eq!(done[9], 10_900_000);
}

#[test]
fn reads_that_pay_latency_only_leave_the_bandwidth_alone() {
    let spec = DeviceSpec { read_ns: 80_000, read_pays_latency_only: true, ..plain(MB) };
    let mut device = Device::new(spec);
    let _write = device.submit(0, IoClass::Flush, Kind::Write, 10 * MB).unwrap();
    let read = device.submit(0, IoClass::Read, Kind::Read, 10 * MB).unwrap();
    assert_eq!(wait(&mut device, 0, &read), 80_000);
}
