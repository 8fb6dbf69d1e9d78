//! The properties block: a table's own account of itself, so that it can be read without a
//! manifest.

use super::TableMeta;
use super::format::{Damage, EXTRACTOR_NAME_BYTES_MAX, compression_byte, compression_of};
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::options::Compression;
use crate::types::TableId;

const PROPERTIES_VERSION: u64 = 2;

/// The sizes of a table's parts. Those of blocks are as stored, with their trailers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSizes {
    /// Bytes of its data blocks.
    pub data_bytes: u64,
    /// Its data blocks; 0 in format 1, which did not store it.
    pub data_blocks: u64,
    /// Bytes of its index; 0 in format 1.
    pub index_bytes: u64,
    /// Bytes of its filter; 0 in format 1 and where it has none.
    pub filter_bytes: u64,
    /// Bytes of all its keys, one for each entry, before prefix compression; 0 in format 1.
    pub key_bytes: u64,
    /// Bytes of all its values, before compression; 0 in format 1.
    pub value_bytes: u64,
}

/// What a table says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableProperties {
    /// The table as a manifest would name it, at the id that it was read from.
    pub meta: TableMeta,
    /// How large its parts are.
    pub sizes: TableSizes,
    /// How it was written; a block that did not shrink is stored as it is all the same.
    pub compression: Compression,
    /// Name of the prefix extractor whose prefixes the filter holds; empty for none.
    pub extractor: String,
}

impl TableProperties {
    /// The id in `meta` is not stored: a table may be copied to another file or offset. Its length
    /// is not known yet, and the footer has it.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, PROPERTIES_VERSION);
        let s = &self.sizes;
        let sizes = [s.data_bytes, s.data_blocks, s.index_bytes, s.filter_bytes, s.key_bytes];
        for n in sizes.into_iter().chain([s.value_bytes]) {
            put_varint(out, n);
        }
        out.push(compression_byte(self.compression));
        put_bytes(out, self.extractor.as_bytes());
        TableMeta { id: TableId::default(), bytes: 0, ..self.meta.clone() }.encode(out);
    }

    pub(crate) fn decode(content: &[u8], id: TableId, bytes: u64) -> Result<Self, Damage> {
        let mut d = Decoder::new(content);
        let parts = match d.varint() {
            Some(1) => Self::decode_first(&mut d),
            Some(PROPERTIES_VERSION) => Self::decode_second(&mut d),
            Some(_) | None => {
                return Err(Damage::new(0, "unknown version of table properties"));
            }
        };
        let Some(found) = parts.filter(|_| d.is_empty()) else {
            return Err(Damage::new(0, "table properties contradict themselves"));
        };
        let meta = TableMeta { id, bytes, ..found.meta };
        Ok(Self { meta, ..found })
    }

    fn decode_first(d: &mut Decoder<'_>) -> Option<Self> {
        let sizes = TableSizes { data_bytes: d.varint()?, ..TableSizes::default() };
        Some(Self { sizes, meta: TableMeta::decode(d)?, ..Self::default() })
    }

    fn decode_second(d: &mut Decoder<'_>) -> Option<Self> {
        let sizes = TableSizes {
            data_bytes: d.varint()?,
            data_blocks: d.varint()?,
            index_bytes: d.varint()?,
            filter_bytes: d.varint()?,
            key_bytes: d.varint()?,
            value_bytes: d.varint()?,
        };
        let compression = compression_of(d.u8()?)?;
        let name = d.bytes().filter(|name| name.len() <= EXTRACTOR_NAME_BYTES_MAX)?;
        let extractor = core::str::from_utf8(name).ok()?.to_owned();
        Some(Self { sizes, compression, extractor, meta: TableMeta::decode(d)? })
    }
}
