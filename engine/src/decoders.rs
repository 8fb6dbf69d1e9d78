//! Every decoder of bytes from outside behind one signature, for fuzzers and tests.
//!
//! Any bytes must give a value or a typed error, in memory that their length bounds. A checksum
//! turns nearly all changed bytes away before they are decoded, so each format can also mend the
//! checksums of its bytes: what comes out reaches the code behind them.

use core::mem::size_of;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::blocking::BlockingDb;
use crate::coding::Decoder;
use crate::env::mem::MemEnv;
use crate::env::{BlockingEnv as _, Env as _, File as _, IoClass};
use crate::error::{Error, Result};
use crate::iter::{ScanBounds, TableIter, next};
use crate::options::Options;
use crate::table::block::{Block, BlockCursor};
use crate::table::block_builder::BlockBuilder;
use crate::table::context::Wanted;
use crate::table::format::{
    BlockHandle, Damage, FOOTER_BYTES, FORMAT_VERSION, Footer, MAGIC, refresh_trailer,
};
use crate::table::{
    Need, ReadContext, TableBuilder, TableFormat, TableMeta, TableSpace, table_path,
};
use crate::types::{Entry, Kind, SEQ_MAX, TableId, TreeId, to_u64, to_usize};
use crate::version::edit::Edit;
use crate::version::manifest::{
    PlacedEdit, current_path, manifest_path, read_current, read_file, read_manifest_prefix,
};
use crate::wal::reader::{SegmentRecords, first_record, read_segment_prefix};
use crate::wal::{
    BLOCK_BYTES, Record, WalEntry, decode_record, encode_batch_header, encode_carried,
    encode_entry, encode_relogged_header, salt_of, segment_path,
};
use crate::write::WriteOptions;

const DIR: &str = "/db";

/// One format that is read from outside.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Its name.
    pub name: &'static str,
    /// Decodes all that can be decoded and lets go of it.
    pub decode: fn(&[u8]),
    /// Decodes, and checks what must hold of the result; panics where it does not.
    pub check: fn(&[u8]),
    /// Makes the checksums right, and the lengths and magics before them possible.
    pub mend: fn(&mut [u8]),
    /// Valid bytes.
    pub samples: fn() -> Vec<Vec<u8>>,
    /// `decode` may take so many times the input's length in memory, besides a constant.
    pub memory_factor: usize,
}

/// A block of a table without its trailer.
pub const BLOCK: Format = Format {
    name: "block",
    decode: |bytes| drop(walk_block(bytes, &mut |_| ())),
    check: check_block,
    mend: |_| (),
    samples: block_samples,
    memory_factor: 16,
};

/// The file of a table.
pub const TABLE: Format = Format {
    name: "table",
    decode: |bytes| drop(read_table(bytes, &mut |_| ())),
    check: check_table,
    mend: mend_table,
    samples: table_samples,
    // A compressed block holds up to 255 times its length.
    memory_factor: 272,
};

/// A segment of the log.
pub const WAL: Format = Format {
    name: "wal",
    decode: |bytes| {
        let bytes = Bytes::copy_from_slice(bytes);
        drop(first_record(segment_of(&bytes), &bytes));
        drop(read_wal(&bytes, None));
    },
    check: check_wal,
    mend: mend_wal,
    samples: || files("wal"),
    memory_factor: 16,
};

/// A record of the log without its frames: a batch of writes.
pub const BATCH: Format = Format {
    name: "batch",
    decode: |bytes| drop(decode_record(&Bytes::copy_from_slice(bytes))),
    check: check_batch,
    mend: |_| (),
    samples: batch_samples,
    memory_factor: 16,
};

/// A manifest; also read as the file that names one.
pub const MANIFEST: Format = Format {
    name: "manifest",
    decode: |bytes| {
        drop(read_manifest_prefix(&manifest_path(Path::new(DIR), 1), bytes));
        drop(read_pointer(bytes));
    },
    check: check_manifest,
    mend: mend_manifest,
    samples: manifest_samples,
    // The shortest edit has two bytes, and a list that grows is there twice: once and half.
    memory_factor: 2 * size_of::<PlacedEdit>(),
};

/// All formats.
pub const FORMATS: [Format; 5] = [BLOCK, TABLE, WAL, BATCH, MANIFEST];

impl Format {
    /// Checks these bytes as they are and mended.
    pub fn run(&self, bytes: &[u8]) {
        (self.check)(bytes);
        let mut mended = bytes.to_vec();
        (self.mend)(&mut mended);
        (self.check)(&mended);
    }
}

fn is_typed<T>(result: &Result<T>) -> bool {
    matches!(result, Ok(_) | Err(Error::Corruption { .. }))
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(target) = bytes.get_mut(at..at.saturating_add(value.len())) {
        target.copy_from_slice(value);
    }
}

fn walk_block(
    content: &[u8],
    each: &mut dyn FnMut(&BlockCursor),
) -> core::result::Result<usize, Damage> {
    let block = Arc::new(Block::decode(0, Bytes::copy_from_slice(content))?);
    let mut cursor = BlockCursor::new(block, Vec::new());
    let mut count = 0;
    while cursor.advance()? {
        count += 1;
        drop((cursor.handle(), cursor.entry()));
        each(&cursor);
    }
    Ok(count)
}

fn cursor_of(content: &[u8]) -> core::result::Result<BlockCursor, Damage> {
    let block = Block::decode(0, Bytes::copy_from_slice(content))?;
    Ok(BlockCursor::new(Arc::new(block), Vec::new()))
}

fn stored((key, suffix): (&[u8], u64)) -> Vec<u8> {
    [key, &suffix.to_be_bytes()].concat()
}

fn check_block(content: &[u8]) {
    // One restart point: keys of a hostile block may be far longer than the block together.
    let mut builder = BlockBuilder::new(u32::MAX);
    let (mut ascends, mut last) = (true, None::<(Vec<u8>, u64)>);
    let walked = walk_block(content, &mut |cursor| {
        let key = (cursor.key().0.to_vec(), cursor.key().1);
        ascends &= last.as_ref().is_none_or(|last| *last < key);
        builder.add(&stored(cursor.key()), cursor.value());
        last = Some(key);
    });
    let target = last.unwrap_or_default();
    if let Ok(mut cursor) = cursor_of(content)
        && let Ok(true) = cursor.seek(&target.0, target.1)
    {
        assert!(cursor.key() >= (&target.0, target.1), "a seek ends before its target");
    }
    let Ok(count @ 1..) = walked else { return };
    let again = builder.finish(<[u8]>::to_vec);
    let (Ok(mut a), Ok(mut b)) = (cursor_of(content), cursor_of(&again)) else { return };
    for _ in 0..count {
        assert_eq!((a.advance(), b.advance()), (Ok(true), Ok(true)), "an entry is lost");
        assert_eq!((a.key(), a.value()), (b.key(), b.value()), "an entry changes");
    }
    assert_eq!(b.advance(), Ok(false), "an entry is made up");
    assert!(!ascends || b.seek(&target.0, target.1) == Ok(true), "a seek misses a key");
}

fn block_samples() -> Vec<Vec<u8>> {
    let sample = |restart_interval: u32, count: u8| {
        let mut builder = BlockBuilder::new(restart_interval);
        for i in 0..count {
            let key = [b"a-key-", &[b'a' + i.rem_euclid(20), i][..]].concat();
            let mut value = Vec::new();
            BlockHandle { offset: u64::from(i) * 77, bytes: 300 }.encode(&mut value);
            builder.add(&stored((&key, !(u64::from(i) << 8 | 1))), &value);
        }
        builder.finish(<[u8]>::to_vec)
    };
    vec![sample(1, 5), sample(3, 20), sample(16, 1)]
}

fn store(path: &Path, bytes: &[u8]) -> MemEnv {
    let env = MemEnv::default();
    let put = env.block_on(async {
        env.create_dir(Path::new(DIR)).await?;
        env.create(path).await?.append(bytes, IoClass::Flush).await
    });
    assert!(put.is_ok(), "{put:?}");
    env
}

fn space_of(bytes: &[u8]) -> (MemEnv, Arc<TableSpace<MemEnv>>) {
    let env = store(&table_path(Path::new(DIR), 1), bytes);
    let space = Arc::new(TableSpace::new(env.clone(), Path::new(DIR), 4096, 1));
    (env, space)
}

fn footer_at(bytes: &[u8]) -> Option<usize> {
    bytes.len().checked_sub(to_usize(FOOTER_BYTES))
}

fn footer_of(bytes: &[u8]) -> Option<Footer> {
    Footer::decode(bytes.get(footer_at(bytes)?..)?).ok()
}

/// A table of which nothing but its footer is known.
fn anything(bytes: &[u8]) -> TableMeta {
    let footer = footer_of(bytes).unwrap_or_default();
    TableMeta {
        id: TableId { file: 1, offset: 0 },
        bytes: to_u64(bytes.len()),
        tree: footer.tree,
        entries: footer.entries,
        largest: Bytes::from_static(&[0xff; 32]),
        max_seq: SEQ_MAX,
        ..TableMeta::default()
    }
}

/// Hands all entries of a table on, whatever its properties say.
fn read_table(bytes: &[u8], each: &mut dyn FnMut(&Entry)) -> Result<u64> {
    let (env, space) = space_of(bytes);
    let table = anything(bytes);
    env.block_on(async {
        let described = space.describe(table.id, table.bytes).await;
        let mut ctx = ReadContext::bulk(IoClass::Read, 4096);
        let table = Arc::new(table);
        let found = space.get(&table, b"key-01", SEQ_MAX, &mut ctx).await;
        let mut iter = TableIter::new(Arc::clone(&space), table, ScanBounds::default());
        let mut count = 0_u64;
        while let Some(entry) = next(&mut iter, &space, &mut ctx).await? {
            count += 1;
            each(&entry);
        }
        found.and(described).map(|_| count)
    })
}

fn check_table(bytes: &[u8]) {
    let format = TableFormat { block_bytes: 512, ..TableFormat::default() };
    let mut builder = TableBuilder::new(TreeId(7), format);
    let (mut entries, mut held, mut ascends) = (Vec::<Entry>::new(), 0, true);
    let read = read_table(bytes, &mut |entry| {
        ascends &= entries.last().is_none_or(|last| last.cmp_internal(entry).is_lt());
        held += entry.key.len() + entry.value.len();
        // Keys that share a prefix may be far longer together than the table.
        if ascends && held <= 8 * bytes.len() {
            entries.push(entry.clone());
        }
        if held <= 8 * bytes.len() {
            // What a compaction makes of a table is sorted, or it fails.
            assert!(builder.add(entry).is_ok() == ascends || !ascends, "a sorted entry is refused");
        }
    });
    assert!(is_typed(&read), "{read:?}");
    if !ascends || held > 8 * bytes.len() || entries.is_empty() {
        return;
    }
    let Ok(finished) = builder.finish() else { return };
    let table = Arc::new(finished.meta(TableId { file: 1, offset: 0 }));
    let mut again = Vec::new();
    let read = read_table(&finished.rest, &mut |entry| again.push(entry.clone()));
    assert!(read.is_ok() && again == entries, "{read:?}: a table reads back as another");
    let (env, space) = space_of(&finished.rest);
    let mut ctx = ReadContext::default();
    for entry in entries.iter().take(16) {
        let found = env.block_on(space.get(&table, &entry.key, entry.seq, &mut ctx));
        assert!(matches!(&found, Ok(Some(got)) if got == entry), "{entry:?}: {found:?}");
    }
}

fn table_samples() -> Vec<Vec<u8>> {
    let sample = |block_bytes: u32, filter_bits_per_key: u32, count: u64| {
        let format = TableFormat { block_bytes, filter_bits_per_key, ..TableFormat::default() };
        let mut builder = TableBuilder::new(TreeId(7), format);
        for i in 0..count {
            let key = format!("key-{:02}", i >> 1).into_bytes().into();
            let kind = if i.rem_euclid(5) == 0 { Kind::Delete } else { Kind::Put };
            let text = if kind == Kind::Put { "some value or other" } else { "" };
            let value = Bytes::from_static(text.as_bytes());
            let added = builder.add(&Entry { key, seq: 1000 - i, kind, value });
            assert!(added.is_ok(), "{added:?}");
        }
        builder.finish().map(|finished| finished.rest).unwrap_or_default()
    };
    vec![sample(128, 10, 40), sample(4096, 0, 30), sample(1, 5, 3)]
}

fn mend_table(bytes: &mut [u8]) {
    let Some(at) = footer_at(bytes) else { return };
    let body_bytes = to_usize(FOOTER_BYTES) - MAGIC.len() - 4;
    let body = bytes.get(at..at + body_bytes).unwrap_or_default();
    let version = body.last_chunk::<4>().map_or(0, |version| u32::from_le_bytes(*version));
    if !(1..=FORMAT_VERSION).contains(&version) {
        set(bytes, at + body_bytes - 4, &FORMAT_VERSION.to_le_bytes());
    }
    // Three handles, the tree and the count of entries stand before the table's length.
    set(bytes, at + 64, &to_u64(at + to_usize(FOOTER_BYTES)).to_le_bytes());
    let checksum = crc32c::crc32c(bytes.get(at..at + body_bytes).unwrap_or_default());
    set(bytes, at + body_bytes, &checksum.to_le_bytes());
    set(bytes, at + body_bytes + 4, MAGIC);
    let Some(footer) = footer_of(bytes) else { return };
    for handle in [footer.filter, footer.properties, footer.index] {
        // A table without a filter has no block there to mend.
        if handle != BlockHandle::default() {
            refresh_trailer(bytes, footer.salt, handle);
        }
    }
    for handle in data_handles(bytes) {
        refresh_trailer(bytes, footer.salt, handle);
    }
}

/// The data blocks that the index of a table names.
fn data_handles(bytes: &[u8]) -> Vec<BlockHandle> {
    let (env, space) = space_of(bytes);
    let table = Arc::new(anything(bytes));
    let mut ctx = ReadContext::bulk(IoClass::Read, 0);
    let need = Need { table: Arc::clone(&table), what: Wanted::Index };
    let loaded = env.block_on(space.load(need, &mut ctx));
    let mut handles = Vec::new();
    if loaded.is_ok()
        && let Some((index, _)) = space.index(&table, &ctx)
    {
        let mut cursor = BlockCursor::new(Arc::clone(&index.block), Vec::new());
        while cursor.advance() == Ok(true) {
            handles.extend(cursor.handle());
        }
    }
    handles
}

// A frame: crc32c u32, payload length u16, kind u8, segment u32, durable offset u32, payload.
const FRAME_HEADER_BYTES: usize = 15;
const FRAME_KINDS: u8 = 4;

/// The number that the first frame says its segment has.
fn segment_of(bytes: &[u8]) -> u64 {
    let number = bytes.get(7..11).and_then(|number| Decoder::new(number).u32());
    u64::from(number.unwrap_or(0))
}

fn read_wal(bytes: &Bytes, limit: Option<u64>) -> (SegmentRecords, Option<Error>) {
    let segment = segment_of(bytes);
    read_segment_prefix(&segment_path(Path::new(DIR), segment), segment, bytes, limit)
}

fn check_wal(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let len = to_u64(bytes.len());
    let (records, damage) = read_wal(&bytes, None);
    assert!(damage.is_none_or(|damage| is_typed::<()>(&Err(damage))), "no typed error");
    assert!(records.valid_bytes <= len, "valid bytes behind the end");
    assert!(records.records.is_sorted_by_key(|(at, _)| *at), "records out of order");
    for (_, record) in &records.records {
        check_record(record);
    }
    let valid = bytes.slice(..to_usize(records.valid_bytes));
    let (again, damage) = read_wal(&valid, Some(records.valid_bytes));
    assert!(damage.is_none(), "the valid part of a segment is not valid: {damage:?}");
    assert_eq!(again.records, records.records, "the valid part of a segment has other records");
    let (limited, _) = read_wal(&bytes, Some(len));
    assert!(limited.records.len() == records.records.len(), "a length changes the records");
}

fn put_entries(out: &mut Vec<u8>, first_seq: u64, entries: &[WalEntry]) {
    encode_batch_header(out, first_seq, to_u64(entries.len()));
    for entry in entries {
        let to = (entry.tree, entry.branch);
        encode_entry(out, to, entry.kind, entry.key_bytes, &entry.data);
    }
}

fn put_relogged(out: &mut Vec<u8>, entries: &[(u64, WalEntry)]) {
    encode_relogged_header(out, to_u64(entries.len()));
    for (seq, entry) in entries {
        encode_carried(out, *seq, entry);
    }
}

fn check_record(record: &Record) {
    let mut out = Vec::new();
    match record {
        // What it says of its segment is checked where the segment is read.
        Record::Predecessor { .. } => return,
        Record::Batch { first_seq, entries } => put_entries(&mut out, *first_seq, entries),
        Record::Relogged { entries } => put_relogged(&mut out, entries),
    }
    let again = decode_record(&out.into());
    assert_eq!(again.as_ref(), Some(record), "a record reads back as another");
}

/// A record in the one frame of a segment, for what fits in one.
fn in_a_frame(record: &[u8]) -> Vec<u8> {
    let len = u16::try_from(record.len()).unwrap_or(u16::MAX);
    let mut out = vec![0; FRAME_HEADER_BYTES];
    set(&mut out, 4, &len.to_le_bytes());
    set(&mut out, 6, &[1, 7]);
    out.extend_from_slice(record);
    mend_wal(&mut out);
    out
}

fn check_batch(bytes: &[u8]) {
    let record = decode_record(&Bytes::copy_from_slice(bytes));
    if let Some(record) = &record {
        check_record(record);
    }
    if bytes.len() < BLOCK_BYTES - FRAME_HEADER_BYTES {
        let (found, damage) = read_wal(&in_a_frame(bytes).into(), None);
        assert_eq!(damage.is_some(), record.is_none(), "framed, it decodes otherwise");
        assert!(found.records.into_iter().map(|(_, found)| found).eq(record), "another record");
    }
}

fn batch_samples() -> Vec<Vec<u8>> {
    let entry = |n: u8| WalEntry {
        tree: TreeId(u64::from(n)),
        branch: crate::types::BranchId(300),
        kind: if n == 2 { Kind::Delete } else { Kind::Put },
        key_bytes: 3,
        data: Bytes::from(vec![n; 3 + usize::from(n)]),
    };
    let sample = |entries: &[WalEntry]| {
        let mut out = Vec::new();
        put_entries(&mut out, 1 << 40, entries);
        out
    };
    let mut relogged = Vec::new();
    put_relogged(&mut relogged, &[(1 << 40, entry(1)), (7, entry(2))]);
    let many = [entry(0), entry(1), entry(2), entry(200)];
    vec![sample(&[]), sample(&[entry(1)]), sample(&many), relogged]
}

fn mend_wal(bytes: &mut [u8]) {
    let segment = bytes.get(7..11).unwrap_or_default().to_vec();
    let (mut at, mut salt) = (0_usize, 0);
    loop {
        let left = BLOCK_BYTES - at.rem_euclid(BLOCK_BYTES);
        if left <= FRAME_HEADER_BYTES {
            at += left;
        }
        let room = (bytes.len().saturating_sub(at)).min(BLOCK_BYTES - at.rem_euclid(BLOCK_BYTES));
        let Some(payload_max) = room.checked_sub(FRAME_HEADER_BYTES) else { return };
        let mut d = Decoder::new(bytes.get(at + 4..).unwrap_or_default());
        let (Some(len), Some(kind)) = (d.u16(), d.u8()) else { return };
        let len = usize::from(len).min(payload_max);
        set(bytes, at + 4, &u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
        if !(1..=FRAME_KINDS).contains(&kind) {
            set(bytes, at + 6, &[1 + kind.rem_euclid(FRAME_KINDS)]);
        }
        set(bytes, at + 7, &segment);
        let durable = Decoder::new(bytes.get(at + 11..).unwrap_or_default()).u32();
        if durable.is_none_or(|durable| u64::from(durable) > to_u64(at)) {
            set(bytes, at + 11, &[0; 4]);
        }
        let end = at + FRAME_HEADER_BYTES + len;
        let checksum = crc32c::crc32c_append(salt, bytes.get(at + 4..end).unwrap_or_default());
        set(bytes, at, &checksum.to_le_bytes());
        if at == 0 {
            salt = salt_of(bytes.get(FRAME_HEADER_BYTES..end).unwrap_or_default()).unwrap_or(0);
        }
        at = end;
    }
}

/// What the bytes name as the live manifest.
fn read_pointer(bytes: &[u8]) -> Result<Option<u64>> {
    let dir = Path::new(DIR);
    let env = store(&current_path(dir), bytes);
    env.block_on(read_current(&env, dir))
}

fn check_manifest(bytes: &[u8]) {
    let pointer = read_pointer(bytes);
    assert!(is_typed(&pointer), "{pointer:?}");
    if let Ok(Some(number)) = pointer {
        let path = manifest_path(Path::new(DIR), number);
        let name = path.file_name().map(|name| format!("{}\n", name.display()));
        assert_eq!(name.as_deref().map(str::as_bytes), Some(bytes), "one manifest, two names");
    }
    let path = manifest_path(Path::new(DIR), 1);
    let (edits, end, damage) = read_manifest_prefix(&path, bytes);
    assert!(damage.is_none_or(|damage| is_typed::<()>(&Err(damage))), "no typed error");
    assert!(end <= to_u64(bytes.len()), "the last record ends behind the end");
    for (_, edit) in &edits {
        let mut out = Vec::new();
        edit.encode(&mut out);
        let mut d = Decoder::new(&out);
        assert_eq!(Edit::decode(&mut d).as_ref(), Some(edit), "an edit reads back as another");
        assert!(d.is_empty(), "an edit reads back shorter");
    }
    let whole = bytes.get(..to_usize(end)).unwrap_or_default();
    let (again, same, damage) = read_manifest_prefix(&path, whole);
    assert!(same == end && (again.is_empty() || damage.is_none()), "whole records are damaged");
    assert!(edits.starts_with(&again), "whole records give other edits");
}

fn manifest_samples() -> Vec<Vec<u8>> {
    let mut samples = files("manifest");
    samples.push(b"MANIFEST-000123\n".to_vec());
    samples
}

// A record: crc32c u32, length u32, offset u64, durable u64, payload.
const RECORD_HEADER_BYTES: usize = 24;

fn mend_manifest(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(room) =
        bytes.len().checked_sub(at).and_then(|left| left.checked_sub(RECORD_HEADER_BYTES))
    {
        let len = Decoder::new(bytes.get(at + 4..).unwrap_or_default()).u32().unwrap_or(0);
        let len = to_usize(u64::from(len)).min(room);
        set(bytes, at + 4, &u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        set(bytes, at + 8, &to_u64(at).to_le_bytes());
        let durable = Decoder::new(bytes.get(at + 16..).unwrap_or_default()).u64().unwrap_or(0);
        set(bytes, at + 16, &durable.min(to_u64(at)).to_le_bytes());
        let end = at + RECORD_HEADER_BYTES + len;
        let checksum = crc32c::crc32c(bytes.get(at + 4..end).unwrap_or_default());
        set(bytes, at, &checksum.to_le_bytes());
        at = end;
    }
}

/// Files of one kind that a small database left behind.
fn files(kind: &str) -> Vec<Vec<u8>> {
    let made = database(kind);
    assert!(made.is_ok(), "{made:?}");
    made.unwrap_or_default()
}

fn database(kind: &str) -> Result<Vec<Vec<u8>>> {
    let (env, dir) = (MemEnv::default(), Path::new(DIR));
    let db = BlockingDb::open(env.clone(), dir, Options::default())?;
    let tenants = db.create_tenants(&["a", "b", "a-name-of-some-length"])?;
    for (n, tenant) in (0_u8..).zip(&tenants) {
        for i in 0..6 {
            tenant.put(&[b'k', i], &[i; 20], WriteOptions { sync: i == 3, tag: 0 })?;
        }
        tenant.delete(b"k", WriteOptions { sync: true, tag: 0 })?;
        if n == 1 {
            tenant.flush()?;
            tenant.put(b"again", b"", WriteOptions { sync: true, tag: 0 })?;
            tenant.flush()?;
            tenant.compact()?;
        }
    }
    db.drop_tenant("a")?;
    db.close()?;
    env.block_on(async {
        let mut found = Vec::new();
        for name in env.list(dir).await? {
            let lower = name.to_lowercase();
            if lower.ends_with(kind) || lower.starts_with(kind) {
                found.push(read_file(&env, &dir.join(name), IoClass::Read).await?.to_vec());
            }
        }
        Ok(found)
    })
}
