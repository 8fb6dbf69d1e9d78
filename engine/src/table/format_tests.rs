//! The bytes of tables: golden files of every format, compression and properties.

use std::fmt::Write as _;
use std::sync::Arc;

use super::format::{FOOTER_BYTES, Footer, TRAILER_BYTES, open_block, put_block};
use super::properties::{TableProperties, TableSizes};
use super::tests::{build, collect, delete, get, numbered, put, small, space, store};
use super::*;
use crate::env::BlockingEnv;
use crate::env::mem::MemEnv;
use crate::iter::{ScanBounds, TableIter};
use crate::types::{Entry, to_u64, to_usize};

/// A golden table: its bytes in hexadecimal, its entries, and how it was written.
struct Golden {
    hex: &'static str,
    entries: Vec<Entry>,
    format: TableFormat,
}

fn first_entries() -> Vec<Entry> {
    vec![put("apple", 3, "red"), delete("apple", 2), put("apricot", 1, "orange")]
}

/// Two data blocks, each of which LZ4 makes shorter, and two prefixes.
fn second_entries() -> Vec<Entry> {
    let value = "tables ".repeat(9);
    ["a/1", "a/2", "b/1", "b/2"].iter().zip(1..).map(|(key, seq)| put(key, seq, &value)).collect()
}

/// Format 1 as its engine wrote it.
fn first() -> Golden {
    let hex = include_str!("../../testdata/table/v1.hex");
    Golden { hex, entries: first_entries(), format: TableFormat::default() }
}

/// Format 2 as this engine writes it. The bytes of LZ4 are those of the locked `lz4_flex`: another
/// version may write others, which every reader reads too.
fn second() -> [Golden; 3] {
    let plain = TableFormat::default();
    let lz4 = TableFormat { compression: Compression::Lz4, ..small() };
    let extractor = Some("8+delimiter-2f".parse().unwrap());
    let prefix = TableFormat { extractor, ..plain };
    let of_branch = |entry: Entry| Entry {
        key: [&[0, 0, 0, 0, 0, 0, 0, 5], &entry.key[..]].concat().into(),
        ..entry
    };
    [
        Golden {
            hex: include_str!("../../testdata/table/v2.hex"),
            entries: first_entries(),
            format: plain,
        },
        Golden {
            hex: include_str!("../../testdata/table/v2-lz4.hex"),
            entries: second_entries(),
            format: lz4,
        },
        Golden {
            hex: include_str!("../../testdata/table/v2-prefix.hex"),
            entries: second_entries().into_iter().map(of_branch).collect(),
            format: prefix,
        },
    ]
}

fn to_hex(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(hex, "{byte:02x}").unwrap();
        }
        hex.push('\n');
    }
    hex
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn the_layout_is_frozen() {
    for golden in second() {
        let (bytes, _) = build(&golden.entries, golden.format);
        assert_eq!(to_hex(&bytes), golden.hex, "{:?}", golden.format);
    }
}

#[test]
fn every_format_is_read() {
    let env = MemEnv::default();
    for (number, golden) in (1..).zip([first()].into_iter().chain(second())) {
        let bytes = from_hex(golden.hex);
        store(&env, number, &bytes);
        let space = space(&env, 1 << 20);
        let id = TableId { file: number, offset: 0 };
        let found = env.block_on(space.describe(id, to_u64(bytes.len()))).unwrap();
        let table = Arc::new(found.meta.clone());
        assert_eq!(table.entries, to_u64(golden.entries.len()));
        assert_eq!(found.compression, golden.format.compression);
        let extractor = golden.format.extractor.map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(found.extractor, extractor);
        for entry in &golden.entries {
            let key = std::str::from_utf8(&entry.key).unwrap();
            assert_eq!(get(&env, &space, &table, key, entry.seq).as_ref(), Some(entry));
            assert_eq!(get(&env, &space, &table, &format!("{key}x"), 100), None);
        }
        for reverse in [false, true] {
            let bounds = ScanBounds { reverse, ..ScanBounds::default() };
            let mut iter = TableIter::new(Arc::clone(&space), Arc::clone(&table), bounds);
            let mut ctx = ReadContext::default();
            let mut found = collect(&env, &space, &mut iter, &mut ctx).unwrap();
            if reverse {
                found.reverse();
            }
            assert_eq!(found, golden.entries);
        }
    }
}

#[test]
fn an_unknown_format_is_refused() {
    let hex = include_str!("../../testdata/table/v2.hex");
    let bytes = from_hex(hex);
    let footer = &bytes[bytes.len() - to_usize(FOOTER_BYTES)..];
    for (version, good) in [(0, false), (1, true), (2, true), (3, false), (256, false)] {
        let mut footer = footer.to_vec();
        footer[112..116].copy_from_slice(&u32::to_le_bytes(version));
        let checksum = crc32c::crc32c(&footer[..116]);
        footer[116..120].copy_from_slice(&checksum.to_le_bytes());
        let found = Footer::decode(&footer);
        assert_eq!(found.is_ok(), good, "{version}");
        if let Err(damage) = found {
            assert_eq!(damage.at, 112);
            assert!(damage.what.contains("reads formats 1 to 2"), "{}", damage.what);
        }
    }
}

#[test]
fn properties_say_how_large_the_parts_are() {
    let entries = numbered(300);
    let mut sizes = Vec::new();
    for compression in [Compression::None, Compression::Lz4] {
        let extractor = Some("fixed-7".parse().unwrap());
        let format = TableFormat { extractor, compression, ..small() };
        let (bytes, finished) = build(&entries, format);
        let footer = Footer::decode(&bytes[bytes.len() - to_usize(FOOTER_BYTES)..]).unwrap();
        let (env, id) = (MemEnv::default(), TableId { file: 1, offset: 0 });
        store(&env, 1, &bytes);
        let space = space(&env, 0);
        let found = env.block_on(space.describe(id, finished.bytes())).unwrap();
        let expected = TableSizes {
            data_bytes: footer.filter.offset,
            data_blocks: found.sizes.data_blocks,
            index_bytes: footer.index.bytes + TRAILER_BYTES,
            filter_bytes: footer.filter.bytes + TRAILER_BYTES,
            key_bytes: 300 * 9,
            value_bytes: entries.iter().map(|e| to_u64(e.value.len())).sum(),
        };
        let meta = finished.meta(id);
        let extractor = "fixed-7".to_owned();
        assert_eq!(found, TableProperties { meta, sizes: expected, compression, extractor });
        let mut ctx = ReadContext::default();
        let table = Arc::new(found.meta);
        let mut iter = TableIter::new(Arc::clone(&space), table, ScanBounds::default());
        assert_eq!(collect(&env, &space, &mut iter, &mut ctx).unwrap(), entries);
        assert_eq!(ctx.stats.data_blocks_read, found.sizes.data_blocks);
        sizes.push(found.sizes);
    }
    assert_eq!(sizes[0].data_blocks, sizes[1].data_blocks);
    assert!(sizes[1].data_bytes < sizes[0].data_bytes, "{sizes:?}");
    // 300 keys and the prefixes key0000, key0001 and key0002 at 10 bits each.
    assert_eq!(sizes[0].filter_bytes, (303_u64 * 10).div_ceil(8) + 2 + TRAILER_BYTES);
}

#[test]
fn a_block_that_does_not_shrink_is_stored_as_it_is() {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(4_096)
    .collect();
    let zeros = vec![0; 1 << 20];
    for (content, shrinks) in [(&noise[..], false), (&[][..], false), (&zeros[..], true)] {
        let mut out = Vec::new();
        let stored = put_block(&mut out, (7, 9), content, Compression::Lz4);
        assert_eq!(to_u64(out.len()), stored + TRAILER_BYTES);
        assert_eq!(stored < to_u64(content.len()), shrinks);
        assert_eq!(out[to_usize(stored)], u8::from(shrinks));
        assert_eq!(open_block(7, 9, &out.into()).unwrap(), content);
    }
}

#[test]
fn a_cold_get_of_a_small_table_costs_two_reads_and_of_a_large_one_four() {
    // The end of the second one holds its index, but not its filter; that of the third neither.
    for (entries, block_bytes, reads) in [(200, 4096, 2), (20_000, 4096, 3), (20_000, 128, 4)] {
        let env = MemEnv::default();
        let format = TableFormat { block_bytes, ..TableFormat::default() };
        let (bytes, finished) = build(&numbered(entries), format);
        store(&env, 1, &bytes);
        let table = Arc::new(finished.meta(TableId { file: 1, offset: 0 }));
        let space = space(&env, 1 << 20);
        let before = env.read_count();
        let mut ctx = ReadContext::default();
        let found = env.block_on(space.get(&table, b"key000100", 1_000, &mut ctx)).unwrap();
        assert!(found.is_some() && ctx.tail.is_none() && ctx.pinned.is_empty());
        assert_eq!(env.read_count() - before, reads, "{entries} entries");
        // What is counted does not depend on how many reads brought it.
        let index_parts =
            (ctx.stats.index_blocks_read, ctx.stats.filter_blocks_read, ctx.stats.footers_read);
        assert_eq!((index_parts, ctx.stats.data_blocks_read), ((1, 1, 1), 1));
    }
}
