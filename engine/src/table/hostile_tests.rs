//! Tables from an attacker: any bytes give a value or a typed error, in bounded memory.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::block::{Block, BlockCursor, ReverseCursor};
use super::filter::Filter;
use super::format::{
    BLOCK_BYTES_MAX, BlockHandle, FOOTER_BYTES, Footer, TRAILER_BYTES, open_block, put_block,
};
use super::properties::TableProperties;
use super::tests::{any_entries, any_format, build, collect, space, store};
use super::*;
use crate::coding::Decoder;
use crate::env::BlockingEnv;
use crate::env::mem::MemEnv;
use crate::iter::{Edge, ScanBounds, SortedIter, TableIter};
use crate::types::{SEQ_MAX, to_u64, to_usize};

/// Walks a block from outside; how many entries it handed out.
fn walk(content: Bytes, key: &[u8]) -> usize {
    let len = content.len();
    let Ok(block) = Block::decode(0, content) else { return 0 };
    let block = Arc::new(block);
    let mut cursor = BlockCursor::new(Arc::clone(&block), Vec::new());
    let mut steps = 0;
    while cursor.advance() == Ok(true) {
        steps += 1;
        assert!(steps <= len && cursor.key().0.len() <= len, "an entry out of nothing");
        drop((cursor.entry(), cursor.handle()));
        cursor.first_key();
    }
    drop(cursor.seek(key, 0));
    let mut cursor = ReverseCursor::new(block, Vec::new());
    let mut steps = 0;
    while cursor.back() == Ok(true) {
        steps += 1;
        let key_len = cursor.current().unwrap().key().0.len();
        assert!(steps <= len && key_len <= len, "an entry out of nothing");
    }
    drop(cursor.seek_before(key, 0));
    drop(cursor.previous_entry());
    steps
}

/// The stored bytes with a right trailer behind them.
fn sealed(stored: &[u8], compression: u8) -> Bytes {
    let mut out = Vec::new();
    put_block(&mut out, (0, 0), stored, Compression::None);
    let at = stored.len();
    out[at] = compression;
    let mut crc = crc32c::crc32c(&[0; 16]);
    crc = crc32c::crc32c_append(crc, &out[..=at]);
    out.truncate(at + 1);
    out.extend_from_slice(&crc.to_le_bytes());
    out.into()
}

/// A good table whose block at `handle` holds other bytes, with a right checksum.
fn forge(table: &mut [u8], salt: u64, handle: BlockHandle, change: impl FnOnce(&mut [u8])) {
    let start = to_usize(handle.offset);
    let end = start + to_usize(handle.bytes);
    change(&mut table[start..end]);
    let mut crc = crc32c::crc32c(&salt.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &handle.offset.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &table[start..=end]);
    table[end + 1..=end + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Everything a reader can ask of a table that is not to be trusted. Errors are corruption.
fn read_all(bytes: &[u8], meta: &TableMeta) -> Result<(), TestCaseError> {
    let env = MemEnv::default();
    store(&env, 1, bytes);
    let space = space(&env, 1 << 20);
    let corruption = |result: crate::Result<()>| match result {
        Ok(()) => Ok(()),
        Err(error) => {
            prop_assert_eq!(error.kind(), "corruption");
            Ok(())
        }
    };
    let table = Arc::new(meta.clone());
    corruption(env.block_on(space.describe(meta.id, meta.bytes)).map(drop))?;
    for key in [&meta.smallest, &meta.largest] {
        let mut ctx = ReadContext::default();
        corruption(env.block_on(space.get(&table, key, SEQ_MAX, &mut ctx)).map(drop))?;
    }
    for readahead_bytes in [0, 700] {
        let bounds = ScanBounds::default();
        let mut iter = TableIter::new(Arc::clone(&space), Arc::clone(&table), bounds);
        let mut ctx = ReadContext { readahead_bytes, ..ReadContext::default() };
        corruption(collect(&env, &space, &mut iter, &mut ctx).map(drop))?;
        iter.seek(&Edge::before(&meta.largest));
        corruption(collect(&env, &space, &mut iter, &mut ctx).map(drop))?;
    }
    // What LZ4 expands is in here too: nothing in the cache is longer than that allows.
    let most = to_u64(bytes.len()).saturating_mul(256).saturating_add(1 << 16);
    prop_assert!(space.block_cache().bytes() <= most);
    Ok(())
}

#[test]
fn a_length_that_lz4_cannot_hold_takes_no_memory() {
    for len in [u32::MAX, 255 * 4 + 1, u32::try_from(BLOCK_BYTES_MAX).unwrap() + 1] {
        let stored = [&len.to_le_bytes()[..], &[0x1f, b'a', 1, 0]].concat();
        let damage = open_block(0, 0, &sealed(&stored, 1)).unwrap_err();
        assert!(damage.what.contains("cannot hold"), "{}", damage.what);
    }
    for stored in [&[][..], &[1, 0, 0], &[4, 0, 0, 0], &[9, 0, 0, 0, 0x10, b'a']] {
        assert!(open_block(0, 0, &sealed(stored, 1)).is_err(), "{stored:?}");
    }
    assert_eq!(open_block(0, 0, &sealed(&[1, 0, 0, 0, 0x10, b'a'], 1)).unwrap(), "a");
    let damage = open_block(0, 0, &sealed(b"abc", 2)).unwrap_err();
    assert_eq!((damage.at, &*damage.what), (3, "unknown compression byte 2"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Strategy: any bytes, short ones with many zeros.
    /// Invariants: every decoder gives a value or damage inside the bytes, and a value is no larger
    /// than what it was made of.
    #[test]
    fn any_bytes_do_no_harm(
        bytes in proptest::collection::vec(prop_oneof![Just(0_u8), 0..20_u8, any::<u8>()], 0..300),
        key in proptest::collection::vec(any::<u8>(), 0..10),
        compression in 0..3_u8,
    ) {
        let content = Bytes::from(bytes);
        walk(content.clone(), &key);
        if let Ok(filter) = Filter::decode(&content) {
            prop_assert!(filter.bytes() <= to_u64(content.len()));
            filter.may_contain(u64::from(compression));
        }
        if let Err(damage) = Footer::decode(&content) {
            prop_assert!(damage.at <= to_u64(content.len()));
        }
        if let Ok(found) = TableProperties::decode(&content, TableId::default(), 9) {
            prop_assert!(found.meta.smallest.len() + found.meta.largest.len() <= content.len());
        }
        drop(TableMeta::decode(&mut Decoder::new(&content)));
        match open_block(0, 0, &sealed(&content, compression)) {
            Ok(opened) => {
                prop_assert!(opened.len() <= content.len() * 255);
                walk(opened, &key);
            }
            Err(damage) => prop_assert!(damage.at <= to_u64(content.len())),
        }
        drop(open_block(0, 0, &content));
    }

    /// Strategy: blocks of random bytes with a right checksum, as an attacker would write them.
    /// Invariants: no panic, and an end.
    #[test]
    fn made_up_blocks_do_no_harm(
        mut content in proptest::collection::vec(0..12_u8, 0..200),
        restarts in proptest::collection::vec(0..220_u32, 0..5),
        key in proptest::collection::vec(0..12_u8, 0..10),
    ) {
        for restart in &restarts {
            content.extend_from_slice(&restart.to_le_bytes());
        }
        content.extend_from_slice(&u32::try_from(restarts.len()).unwrap().to_le_bytes());
        walk(content.into(), &key);
    }

    /// Strategy: a random footer that ends as one should.
    /// Invariants: no panic, no handle outside the table, no large allocation.
    #[test]
    fn a_made_up_footer_is_refused_or_its_blocks_are(
        numbers in proptest::collection::vec(prop_oneof![any::<u64>(), 0..400_u64], 10),
    ) {
        let env = MemEnv::default();
        let handle =
            |at: usize| BlockHandle { offset: numbers[at], bytes: numbers[at + 1] };
        let footer = Footer {
            filter: handle(0),
            index: handle(2),
            properties: handle(4),
            tree: TreeId(numbers[6]),
            entries: numbers[7],
            table_bytes: 400,
            salt: numbers[9],
            extractor: String::new(),
        };
        let mut bytes = vec![0; 400 - to_usize(FOOTER_BYTES)];
        footer.encode(&mut bytes);
        prop_assert_eq!(Footer::decode(&bytes[bytes.len() - 128..]), Ok(footer.clone()));
        store(&env, 1, &bytes);
        let id = TableId { file: 1, offset: 0 };
        let space = space(&env, 1 << 20);
        prop_assert!(env.block_on(space.describe(id, 400)).is_err());
        let table = Arc::new(TableMeta {
            id,
            bytes: 400,
            tree: footer.tree,
            entries: footer.entries,
            ..TableMeta::default()
        });
        let mut ctx = ReadContext::default();
        let found = env.block_on(space.get(&table, b"", 9, &mut ctx));
        prop_assert!(found.is_err());
    }

    /// Strategy: a footer with a right checksum and any fields.
    /// Invariants: what is decoded encodes to the same bytes in this format, or is refused.
    #[test]
    fn any_footer_is_refused_or_means_what_it_says(
        mut bytes in proptest::collection::vec(any::<u8>(), 116),
        name in prop_oneof![Just(&b"fixed-8"[..]), Just(&b""[..]), Just(&b"\xff"[..])],
        version in 0..4_u32,
    ) {
        bytes[80] = u8::try_from(name.len()).unwrap();
        bytes[81..112].fill(0);
        bytes[81..81 + name.len()].copy_from_slice(name);
        bytes[112..].copy_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.extend_from_slice(format::MAGIC);
        let found = Footer::decode(&bytes);
        let good = (1..3).contains(&version) && name != b"\xff";
        prop_assert_eq!(found.is_ok(), good);
        if let Some(footer) = found.ok().filter(|_| version == 2) {
            let mut again = Vec::new();
            footer.encode(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }

    /// Strategy: a file of any bytes that ends as a table does, with a right or a wrong footer.
    /// Invariants: as for `read_all`.
    #[test]
    fn any_file_is_a_table_or_corruption(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
        handles in proptest::collection::vec(0..600_u64, 6),
        is_footer in any::<bool>(),
    ) {
        let table_bytes = to_u64(bytes.len()) + FOOTER_BYTES;
        if is_footer {
            let handle = |at: usize| BlockHandle { offset: handles[at], bytes: handles[at + 1] };
            let (filter, index, properties) = (handle(0), handle(2), handle(4));
            let known = Footer { tree: TreeId(7), entries: 3, table_bytes, ..Footer::default() };
            Footer { filter, index, properties, ..known }.encode(&mut bytes);
        }
        let meta = TableMeta {
            id: TableId { file: 1, offset: 0 },
            bytes: to_u64(bytes.len()),
            tree: TreeId(7),
            entries: 3,
            largest: Bytes::from_static(b"zz"),
            max_seq: 9,
            ..TableMeta::default()
        };
        read_all(&bytes, &meta)?;
    }

    /// Strategy: a good table in which one block was changed by somebody who can compute checksums:
    /// bytes of the filter, the index, the properties or a data block, compressed or not.
    /// Invariants: as for `read_all`.
    #[test]
    fn a_forged_table_gives_values_or_corruption(
        entries in any_entries(),
        format in any_format(),
        part in 0..4_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (mut bytes, finished) = build(&entries, format);
        let meta = finished.meta(TableId { file: 1, offset: 0 });
        let footer = Footer::decode(&bytes[bytes.len() - to_usize(FOOTER_BYTES)..]).unwrap();
        let env = MemEnv::default();
        store(&env, 1, &bytes);
        let space = space(&env, 0);
        let table = Arc::new(meta.clone());
        let mut ctx = ReadContext::default();
        let need = Need { table: Arc::clone(&table), what: context::Wanted::Index };
        env.block_on(space.load(need, &mut ctx)).unwrap();
        let index = space.index(&table, &ctx).unwrap();
        let mut cursor = BlockCursor::new(Arc::clone(&index.0.block), Vec::new());
        prop_assert_eq!(cursor.advance(), Ok(true));
        let handles = [footer.filter, footer.index, footer.properties, cursor.handle().unwrap()];
        let handle = handles[part];
        if handle.bytes > 0 {
            forge(&mut bytes, footer.salt, handle, |content| {
                for (at, byte) in &changes {
                    content[at.index(content.len())] = *byte;
                }
            });
        }
        read_all(&bytes, &meta)?;
    }
}

#[test]
fn a_forged_block_passes_its_checksum() {
    let (mut bytes, finished) = build(&tests::numbered(3), TableFormat::default());
    let footer = Footer::decode(&bytes[bytes.len() - to_usize(FOOTER_BYTES)..]).unwrap();
    assert_eq!(to_u64(bytes.len()), finished.bytes());
    let block = |bytes: &[u8]| {
        let start = to_usize(footer.index.offset);
        let end = start + to_usize(footer.index.bytes + TRAILER_BYTES);
        open_block(footer.salt, footer.index.offset, &Bytes::copy_from_slice(&bytes[start..end]))
    };
    let before = block(&bytes).unwrap();
    forge(&mut bytes, footer.salt, footer.index, |content| content[0] ^= 1);
    assert_ne!(block(&bytes).unwrap(), before);
}
