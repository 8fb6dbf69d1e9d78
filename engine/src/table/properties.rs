//! The properties block: a table's own account of itself, so that it can be read without a
//! manifest.

use bytes::Bytes;

use super::TableMeta;
use super::format::Damage;
use crate::coding::{Decoder, put_varint};
use crate::types::TableId;

const PROPERTIES_VERSION: u64 = 1;

/// What a table says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableProperties {
    /// The table as a manifest would name it, at the id that it was read from.
    pub meta: TableMeta,
    /// Bytes of its data blocks with their trailers.
    pub data_bytes: u64,
}

impl TableProperties {
    /// The id in `meta` is not stored: a table may be copied to another file or offset. Its length
    /// is not known yet, and the footer has it.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, PROPERTIES_VERSION);
        put_varint(out, self.data_bytes);
        TableMeta { id: TableId::default(), bytes: 0, ..self.meta.clone() }.encode(out);
    }

    pub(crate) fn decode(content: &[u8], id: TableId, bytes: u64) -> Result<Self, Damage> {
        let mut d = Decoder::new(content);
        if d.varint() != Some(PROPERTIES_VERSION) {
            return Err(Damage::new(0, "unknown version of table properties"));
        }
        let parts = d.varint().zip(TableMeta::decode(&mut d));
        let Some((data_bytes, meta)) = parts.filter(|_| d.is_empty()) else {
            return Err(Damage::new(0, "table properties contradict themselves"));
        };
        let meta = TableMeta {
            id,
            bytes,
            smallest: Bytes::copy_from_slice(&meta.smallest),
            largest: Bytes::copy_from_slice(&meta.largest),
            ..meta
        };
        Ok(Self { meta, data_bytes })
    }
}
