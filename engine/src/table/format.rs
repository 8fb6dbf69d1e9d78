//! The fixed parts of a table: internal keys, handles, block trailers and the footer.
//!
//! A block's checksum also covers where the block lies in its table and a salt of that table. So a
//! whole, valid block that a device wrote to or read from the wrong place does not pass.

use core::cmp::Ordering;
use std::borrow::Cow;

use bytes::Bytes;

use crate::coding::{Decoder, put_varint};
use crate::options::Compression;
use crate::types::{Entry, Kind, SEQ_MAX, SeqNo, TreeId, to_u64, to_usize};

/// Length of a footer, the last bytes of each table.
pub const FOOTER_BYTES: u64 = 128;

/// Bytes behind each block: a compression byte and a checksum.
pub const TRAILER_BYTES: u64 = 5;

/// Longest block that is written or read, in bytes.
pub const BLOCK_BYTES_MAX: u64 = 128 << 20;

/// Longest name of a prefix extractor, in bytes.
pub const EXTRACTOR_NAME_BYTES_MAX: usize = 31;

/// The last eight bytes of each table.
pub const MAGIC: &[u8; 8] = b"forebSST";

/// The layout that this engine writes.
pub const FORMAT_VERSION: u32 = 2;

/// The oldest layout that this engine reads.
pub const FORMAT_VERSION_MIN: u32 = 1;

/// Bytes of the sequence number and kind behind each stored key.
pub const KEY_SUFFIX_BYTES: usize = 8;

const COMPRESSION_NONE: u8 = 0;
const COMPRESSION_LZ4: u8 = 1;

/// Bytes before an LZ4 block: the length of what was compressed.
const LZ4_LENGTH_BYTES: usize = 4;

/// No LZ4 block expands to more than so many times its length, whatever length it claims.
const LZ4_RATIO_MAX: u64 = 255;

/// Damage inside a block or footer, not yet placed in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where, counted from the first byte that was examined.
    pub at: u64,
    /// What was found.
    pub what: Cow<'static, str>,
}

impl Damage {
    pub(crate) fn new(at: usize, what: impl Into<Cow<'static, str>>) -> Self {
        Self { at: to_u64(at), what: what.into() }
    }
}

/// The suffix of a stored key: as a number it grows from the newest version to the oldest.
pub(crate) fn key_suffix(seq: SeqNo, kind: Kind) -> u64 {
    !(seq << 8 | u64::from(kind as u8))
}

/// The suffix at which versions that a reader at `seq` can see begin.
pub(crate) fn seek_suffix(seq: SeqNo) -> u64 {
    !(seq.min(SEQ_MAX) << 8 | 0xff)
}

/// Writes an entry's stored key over `out`.
pub(crate) fn set_stored_key(out: &mut Vec<u8>, entry: &Entry) {
    out.clear();
    out.extend_from_slice(&entry.key);
    out.extend_from_slice(&key_suffix(entry.seq, entry.kind).to_be_bytes());
}

/// Key and suffix of a stored key.
pub(crate) fn split_stored_key(stored: &[u8]) -> Option<(&[u8], u64)> {
    let (key, suffix) = stored.split_last_chunk::<KEY_SUFFIX_BYTES>()?;
    Some((key, u64::from_be_bytes(*suffix)))
}

/// Sequence number and kind of a suffix; `None` for an unknown kind.
pub(crate) fn split_suffix(suffix: u64) -> Option<(SeqNo, Kind)> {
    let [kind, ..] = (!suffix).to_le_bytes();
    Some((!suffix >> 8, Kind::from_byte(kind)?))
}

/// The order of stored keys, which is not that of their bytes: one key may begin with another.
pub(crate) fn cmp_stored(a: (&[u8], u64), b: (&[u8], u64)) -> Ordering {
    a.0.cmp(b.0).then_with(|| a.1.cmp(&b.1))
}

/// Where a block lies in its table; its trailer comes behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockHandle {
    /// Its first byte, counted from the start of the table.
    pub offset: u64,
    /// Its length without the trailer.
    pub bytes: u64,
}

impl BlockHandle {
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        put_varint(out, self.offset);
        put_varint(out, self.bytes);
    }

    /// Where the block's trailer ends.
    pub(crate) fn end(self) -> Option<u64> {
        self.offset.checked_add(self.bytes)?.checked_add(TRAILER_BYTES)
    }

    /// Whether the block can lie in a table of this length.
    pub(crate) fn fits(self, table_bytes: u64) -> bool {
        self.bytes <= BLOCK_BYTES_MAX
            && self
                .end()
                .and_then(|end| end.checked_add(FOOTER_BYTES))
                .is_some_and(|end| end <= table_bytes)
    }
}

fn block_checksum(salt: u64, offset: u64, content: &[u8], compression: u8) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &offset.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, content);
    crc32c::crc32c_append(crc, &[compression])
}

/// The byte of a compression in trailers and properties.
pub(crate) fn compression_byte(compression: Compression) -> u8 {
    match compression {
        Compression::None => COMPRESSION_NONE,
        Compression::Lz4 => COMPRESSION_LZ4,
    }
}

/// The compression with this byte, or `None` where none has it.
pub(crate) fn compression_of(byte: u8) -> Option<Compression> {
    match byte {
        COMPRESSION_NONE => Some(Compression::None),
        COMPRESSION_LZ4 => Some(Compression::Lz4),
        _ => None,
    }
}

/// Content as LZ4 with its length before it; `None` where that would not be shorter.
fn lz4_of(content: &[u8]) -> Option<Vec<u8>> {
    let len = u32::try_from(content.len()).ok()?;
    let mut out = len.to_le_bytes().to_vec();
    out.extend_from_slice(&lz4_flex::block::compress(content));
    (out.len() < content.len()).then_some(out)
}

/// What an LZ4 block holds. It takes no memory before its length is known to be possible.
fn lz4_content(stored: &[u8]) -> Result<Bytes, Damage> {
    let Some((len, compressed)) = stored.split_first_chunk::<LZ4_LENGTH_BYTES>() else {
        return Err(Damage::new(0, "an LZ4 block is shorter than its length"));
    };
    let len = u64::from(u32::from_le_bytes(*len));
    if len > BLOCK_BYTES_MAX || len > to_u64(compressed.len()).saturating_mul(LZ4_RATIO_MAX) {
        let what = format!("{} bytes of LZ4 cannot hold {len} bytes", compressed.len());
        return Err(Damage::new(0, what));
    }
    let mut content = vec![0; to_usize(len)];
    let found = lz4_flex::block::decompress_into(compressed, &mut content)
        .map_err(|error| Damage::new(LZ4_LENGTH_BYTES, format!("LZ4: {error}")))?;
    if to_u64(found) != len {
        let what = format!("LZ4 gives {found} bytes, the block says {len}");
        return Err(Damage::new(0, what));
    }
    Ok(content.into())
}

/// Appends a block that will lie at `offset` of its table, with its trailer. The length of what was
/// stored before the trailer.
pub(crate) fn put_block(
    out: &mut Vec<u8>,
    (salt, offset): (u64, u64),
    content: &[u8],
    compression: Compression,
) -> u64 {
    let compressed = match compression {
        Compression::None => None,
        Compression::Lz4 => lz4_of(content),
    };
    let (stored, byte) = match &compressed {
        Some(lz4) => (lz4.as_slice(), COMPRESSION_LZ4),
        None => (content, COMPRESSION_NONE),
    };
    out.extend_from_slice(stored);
    out.push(byte);
    out.extend_from_slice(&block_checksum(salt, offset, stored, byte).to_le_bytes());
    to_u64(stored.len())
}

/// Makes the checksum right in the trailer of the block at `handle`, where it lies in the table.
pub(crate) fn refresh_trailer(table: &mut [u8], salt: u64, handle: BlockHandle) {
    let end = handle.end().filter(|_| handle.fits(to_u64(table.len()))).map(to_usize);
    let block = end.and_then(|end| table.get_mut(to_usize(handle.offset)..end));
    let Some((rest, checksum)) = block.and_then(|block| block.split_last_chunk_mut::<4>()) else {
        return;
    };
    if let Some((compression, content)) = rest.split_last() {
        *checksum = block_checksum(salt, handle.offset, content, *compression).to_le_bytes();
    }
}

/// Checks a block with its trailer and returns its content: a part of `block`, or what was
/// compressed in it.
pub(crate) fn open_block(salt: u64, offset: u64, block: &Bytes) -> Result<Bytes, Damage> {
    let Some((rest, checksum)) = block.split_last_chunk::<4>() else {
        return Err(Damage::new(0, "a block is shorter than its trailer"));
    };
    let Some((compression, stored)) = rest.split_last() else {
        return Err(Damage::new(0, "a block is shorter than its trailer"));
    };
    let expected = u32::from_le_bytes(*checksum);
    let found = block_checksum(salt, offset, stored, *compression);
    if expected != found {
        let what = format!("block checksum is {found:08x}, its trailer says {expected:08x}");
        return Err(Damage::new(0, what));
    }
    match compression_of(*compression) {
        Some(Compression::None) => Ok(block.slice(..stored.len())),
        Some(Compression::Lz4) => lz4_content(stored),
        None => Err(Damage::new(stored.len(), format!("unknown compression byte {compression}"))),
    }
}

/// The last bytes of a table: where its parts lie and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    /// The filter block; 0 bytes long where there is none.
    pub filter: BlockHandle,
    /// The index block.
    pub index: BlockHandle,
    /// The properties block.
    pub properties: BlockHandle,
    /// The tree that the table was written by.
    pub tree: TreeId,
    /// Entries in the table.
    pub entries: u64,
    /// Length of the table, this footer included.
    pub table_bytes: u64,
    /// What the checksums of this table's blocks begin with.
    pub salt: u64,
    /// Name of the prefix extractor whose prefixes the filter holds; empty for none.
    pub extractor: String,
}

impl Footer {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        for handle in [self.filter, self.index, self.properties] {
            out.extend_from_slice(&handle.offset.to_le_bytes());
            out.extend_from_slice(&handle.bytes.to_le_bytes());
        }
        for n in [self.tree.0, self.entries, self.table_bytes, self.salt] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        let name = self.extractor.as_bytes();
        let name = name.get(..EXTRACTOR_NAME_BYTES_MAX).unwrap_or(name);
        out.push(u8::try_from(name.len()).unwrap_or(0));
        out.extend_from_slice(name);
        out.resize(out.len() + EXTRACTOR_NAME_BYTES_MAX - name.len(), 0);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        let checksum = crc32c::crc32c(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(MAGIC);
    }

    /// Reads a footer. Whether its handles lie in the table is the caller's to check.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let Some((rest, magic)) = bytes.split_last_chunk::<8>() else {
            return Err(Damage::new(0, "a footer is cut short"));
        };
        if magic != MAGIC {
            return Err(Damage::new(rest.len(), "the magic of a table is missing"));
        }
        let Some((body, checksum)) = rest.split_last_chunk::<4>() else {
            return Err(Damage::new(0, "a footer is cut short"));
        };
        let version = body.last_chunk::<4>().map_or(0, |version| u32::from_le_bytes(*version));
        if !(FORMAT_VERSION_MIN..=FORMAT_VERSION).contains(&version) {
            let what = format!(
                "table format {version}; this version reads formats {FORMAT_VERSION_MIN} to \
                 {FORMAT_VERSION}"
            );
            return Err(Damage::new(body.len().saturating_sub(4), what));
        }
        let (expected, found) = (u32::from_le_bytes(*checksum), crc32c::crc32c(body));
        if expected != found {
            let what = format!("footer checksum is {found:08x}, the footer says {expected:08x}");
            return Err(Damage::new(0, what));
        }
        Self::decode_body(Decoder::new(body)).ok_or(Damage::new(0, "a footer contradicts itself"))
    }

    fn decode_body(mut d: Decoder<'_>) -> Option<Self> {
        let mut handle = || Some(BlockHandle { offset: d.u64()?, bytes: d.u64()? });
        let (filter, index, properties) = (handle()?, handle()?, handle()?);
        let tree = TreeId(d.u64()?);
        let (entries, table_bytes, salt) = (d.u64()?, d.u64()?, d.u64()?);
        let name_len = usize::from(d.u8()?);
        let name = d.take(EXTRACTOR_NAME_BYTES_MAX)?.get(..name_len)?;
        let extractor = core::str::from_utf8(name).ok()?.to_owned();
        Some(Self { filter, index, properties, tree, entries, table_bytes, salt, extractor })
    }
}
