#![cfg(test)]
#![expect(
    unsafe_code,
    clippy::disallowed_methods,
    reason = "an allocator that counts is unsafe by its trait; a test writes a corpus where asked"
)]
//! Strategy: every decoder gets arbitrary bytes, and valid bytes that were changed here and there,
//! as they are and with their checksums made right again.
//!
//! Invariants: a value that holds together or a typed error, never a panic, in memory that the
//! input's length bounds. `FOREBAY_CORPUS=dir` writes the valid bytes there, for the fuzzer.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::LazyLock;
use std::{env, fs, io};

use forebay_engine::Error;
use forebay_engine::decoders::{BATCH, FORMATS, Format, MANIFEST, TABLE, WAL};
use forebay_engine::env::os::OsEnv;
use forebay_engine::env::{BlockingEnv as _, Env as _, File as _, IoClass};
use proptest::prelude::*;

struct Counting;

thread_local! {
    static LIVE_BYTES: Cell<usize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<usize> = const { Cell::new(0) };
}

fn grow(bytes: usize) {
    // A thread that ends has let go of its counters and goes on allocating.
    let live = LIVE_BYTES.try_with(|live| {
        live.set(live.get().wrapping_add(bytes));
        live.get()
    });
    if let Ok(live) = live.map(usize::cast_signed) {
        let peak =
            |peak: &Cell<usize>| peak.set(peak.get().max(usize::try_from(live).unwrap_or(0)));
        PEAK_BYTES.try_with(peak).unwrap_or_default();
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        grow(layout.size().wrapping_neg());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that this thread held during a call, beyond what it held before.
fn peak_of(call: impl FnOnce()) -> usize {
    let before = LIVE_BYTES.get();
    PEAK_BYTES.set(before);
    call();
    PEAK_BYTES.get().saturating_sub(before)
}

const MEMORY_BYTES: usize = 64 * 1024;

fn run(format: &Format, bytes: &[u8]) {
    format.run(bytes);
    let mut mended = bytes.to_vec();
    (format.mend)(&mut mended);
    for input in [bytes, &mended] {
        let peak = peak_of(|| (format.decode)(input));
        let peak_max = MEMORY_BYTES + format.memory_factor * input.len();
        assert!(peak <= peak_max, "{}: {peak} bytes for {}", format.name, input.len());
    }
}

static SAMPLES: LazyLock<Vec<(Format, Vec<Vec<u8>>)>> =
    LazyLock::new(|| FORMATS.iter().map(|format| (*format, (format.samples)())).collect());

#[derive(Clone, Debug)]
enum Change {
    Flip(usize, u8),
    Set(usize, u8),
    Truncate(usize),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Copy(usize, usize, usize),
    Varint(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || any::<usize>();
    let edge = prop_oneof![Just(0_u8), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, bits)| Change::Flip(at, bits)),
        4 => (at(), edge).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => at().prop_map(Change::Truncate),
        2 => (at(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => (at(), 1_usize..40).prop_map(|(at, len)| Change::Remove(at, len)),
        2 => (at(), at(), 1_usize..200).prop_map(|(from, to, len)| Change::Copy(from, to, len)),
        1 => at().prop_map(Change::Varint),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let len = bytes.len().max(1);
    let clip = |at: usize| at.rem_euclid(len).min(bytes.len());
    match change {
        Change::Flip(at, bits) => {
            let at = clip(*at);
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bits);
        }
        Change::Set(at, value) => {
            let at = clip(*at);
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = *value);
        }
        Change::Truncate(at) => bytes.truncate(clip(*at)),
        Change::Insert(at, more) => {
            let at = clip(*at);
            bytes.splice(at..at, more.iter().copied());
        }
        Change::Remove(at, count) => {
            let at = clip(*at);
            bytes.drain(at..bytes.len().min(at + count));
        }
        Change::Copy(from, to, count) => {
            let (from, to) = (clip(*from), clip(*to));
            let piece = bytes[from..bytes.len().min(from + count)].to_vec();
            bytes.splice(to..to, piece);
        }
        Change::Varint(at) => {
            let at = clip(*at);
            // The largest number: a length that no file has.
            let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
            bytes.splice(at..bytes.len().min(at + 1), huge);
        }
    }
}

#[test]
fn valid_bytes_are_read_and_mending_leaves_them_alone() {
    for (format, samples) in SAMPLES.iter() {
        assert!(!samples.is_empty(), "{}", format.name);
        for (n, sample) in samples.iter().enumerate() {
            run(format, sample);
            let mut mended = sample.clone();
            (format.mend)(&mut mended);
            let pointer = format.name == MANIFEST.name && sample.starts_with(b"MANIFEST");
            assert!(pointer || mended == *sample, "{} {n}", format.name);
            if let Some(dir) = env::var_os("FOREBAY_CORPUS") {
                let dir = std::path::Path::new(&dir).join(format.name);
                fs::create_dir_all(&dir).unwrap();
                fs::write(dir.join(format!("sample-{n}")), sample).unwrap();
            }
        }
    }
}

#[test]
fn mending_makes_changed_bytes_pass_their_checksums() {
    for (format, at_end) in [(WAL, None), (TABLE, Some(12))] {
        let sample = (format.samples)().into_iter().max_by_key(Vec::len).unwrap();
        let mut mended = sample.clone();
        mended[at_end.map_or(0, |at| sample.len() - at)] ^= 1;
        (format.mend)(&mut mended);
        assert_eq!(mended, sample, "{}", format.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_give_a_value_or_a_typed_error(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        for format in &FORMATS {
            run(format, &bytes);
        }
    }

    #[test]
    fn changed_bytes_give_a_value_or_a_typed_error(
        format in 0..FORMATS.len(),
        sample in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let (format, samples) = &SAMPLES[format];
        let mut bytes = sample.get(samples).clone();
        for change in &changes {
            apply(&mut bytes, change);
        }
        run(format, &bytes);
    }
}

fn check_memory(format: &Format, input: &[u8]) {
    let peak = peak_of(|| (format.decode)(input));
    let peak_max = MEMORY_BYTES + format.memory_factor * input.len();
    assert!(peak <= peak_max, "{}: {peak} bytes for {}", format.name, input.len());
}

#[test]
fn many_small_parts_take_no_more_memory_than_their_length_allows() {
    for body_bytes in [5_000, 21_000, 41_000] {
        // All bodies of up to six bytes 0 and 1, again and again.
        for pattern in 0_u8..64 {
            for period in 1..7 {
                let body = (0..body_bytes).map(|i| pattern >> (i % period) & 1);
                for kind in 1_u8..12 {
                    let head = [kind, 1, 0xff, 0x7f];
                    let record: Vec<u8> = head.into_iter().chain(body.clone()).collect();
                    check_memory(&BATCH, &record);
                    let header = [&[0; 4][..], &[0xff; 4], &[0; 8]].concat();
                    let mut manifest = [&header, &[kind][..], &head[2..], &record[4..]].concat();
                    (MANIFEST.mend)(&mut manifest);
                    check_memory(&MANIFEST, &manifest);
                }
            }
        }
    }
    let frame = [0, 0, 0, 0, 3, 0, 1, 7, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0];
    for count in [1_000, 1_025, 4_000] {
        let mut segment = frame.repeat(count);
        (WAL.mend)(&mut segment);
        check_memory(&WAL, &segment);
    }
}

#[test]
fn a_length_of_no_file_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("short");
    fs::write(&path, [0; 100]).unwrap();
    let peak = peak_of(|| {
        let read = OsEnv.block_on(async {
            OsEnv.open(&path).await.unwrap().read_at(0, 1 << 28, IoClass::Read).await
        });
        assert!(matches!(read, Err(Error::Io { kind: io::ErrorKind::UnexpectedEof, .. })));
    });
    assert!(peak <= MEMORY_BYTES, "{peak}");
}
