//! Version edits: atomic changes of what the database consists of, as the manifest keeps them.

use std::sync::Arc;

use crate::coding::{Decoder, put_bytes, put_varint};
use crate::options::Layout;
use crate::prefix::PrefixExtractor;
use crate::table::TableMeta;
use crate::types::{BranchId, FileNumber, SEQ_MAX, SeqNo, TableId, TreeId, to_u64};

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The first edit of a manifest: what the database is.
    Begin {
        /// How branches map to trees; fixed for the life of the database.
        layout: Layout,
        /// Ids of trees and branches below this one were given.
        next_id: u64,
        /// Segments below this one are not needed.
        wal_floor: u64,
    },
    /// Trees exist. Made with the database (shared layouts) or with a tenant.
    CreateTrees {
        /// Their ids, ascending.
        trees: Vec<TreeId>,
    },
    /// Tenants exist, each with its branch `main`.
    CreateTenants {
        /// Name, branch and the tree it lives in.
        tenants: Vec<(String, BranchId, TreeId)>,
    },
    /// A tenant of layout per-tenant writes its tables with another prefix extractor from now on.
    TenantExtractor {
        /// Its branch.
        branch: BranchId,
        /// Its own; `None` for that of the database.
        extractor: Option<PrefixExtractor>,
    },
    /// A tenant is gone with its branch, and with its tree where no other branch lives there.
    DropTenant {
        /// Its branch.
        branch: BranchId,
    },
    /// A branch forked from another: it begins with the parent's tables and `flushed_upto` at this
    /// edit's place in the manifest. Where the parent is gone at that place, nothing comes to be.
    Fork {
        /// The branch with its tenant, as `TENANT@BRANCH`.
        name: String,
        /// Its id; in layout per-tenant its tree has the same.
        branch: BranchId,
        /// The branch it was forked from.
        parent: BranchId,
        /// It sees the parent's entries up to this number.
        fork_seq: SeqNo,
        /// In layouts in which branches share trees: the copies of the parent's entries, with their
        /// level.
        tables: Vec<(u32, TableMeta)>,
    },
    /// Where a branch came from, when a manifest is begun; before the edit that creates it.
    Ancestry {
        /// The branch.
        branch: BranchId,
        /// The branch it was forked from.
        parent: BranchId,
        /// It saw the parent's entries up to this number.
        fork_seq: SeqNo,
        /// The first tree of those it shares tables with.
        family: TreeId,
        /// Trees whose entries in the log may still be its own, nearest first, each with the
        /// highest number that is.
        ancestors: Vec<(TreeId, SeqNo)>,
    },
    /// A memtable became a table of every tree that owns it.
    Flush {
        /// The trees.
        owners: Vec<TreeId>,
        /// Entries up to this number are in tables, or gone.
        flushed_upto: SeqNo,
        /// The table; `None` when nothing was left to write.
        table: Option<TableMeta>,
    },
    /// Tables of one tree were replaced.
    Compact {
        /// The tree.
        tree: TreeId,
        /// Tables that left it.
        removed: Vec<TableId>,
        /// Tables that joined it, with their level.
        added: Vec<(u32, TableMeta)>,
    },
    /// WAL segments below this one are not needed.
    WalFloor {
        /// The oldest segment that is.
        segment: u64,
    },
    /// A file holds several tables.
    Pack {
        /// The file.
        file: FileNumber,
        /// Its length.
        bytes: u64,
    },
    /// One tree's whole state, when a manifest is begun.
    TreeState {
        /// The tree.
        tree: TreeId,
        /// As in `Flush`.
        flushed_upto: SeqNo,
        /// Its tables with their level, L0 newest first.
        tables: Vec<(u32, TableMeta)>,
    },
    /// The state of trees that have the same tables, when a manifest is begun.
    SharedState {
        /// The trees, each with its `flushed_upto`.
        trees: Vec<(TreeId, SeqNo)>,
        /// As in `TreeState`.
        tables: Vec<(u32, TableMeta)>,
    },
}

const BEGIN: u8 = 1;
const CREATE_TREES: u8 = 2;
const CREATE_TENANTS: u8 = 3;
const DROP_TENANT: u8 = 4;
const FLUSH: u8 = 5;
const COMPACT: u8 = 6;
const WAL_FLOOR: u8 = 7;
const TREE_STATE: u8 = 8;
const TENANT_EXTRACTOR: u8 = 9;
const PACK: u8 = 10;
const FORK: u8 = 11;
const ANCESTRY: u8 = 12;
const SHARED_STATE: u8 = 13;

impl Edit {
    /// The name of its kind, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Begin { .. } => "begin",
            Self::CreateTrees { .. } => "create-trees",
            Self::CreateTenants { .. } => "create-tenants",
            Self::TenantExtractor { .. } => "tenant-extractor",
            Self::DropTenant { .. } => "drop-tenant",
            Self::Flush { .. } => "flush",
            Self::Compact { .. } => "compact",
            Self::WalFloor { .. } => "wal-floor",
            Self::Pack { .. } => "pack",
            Self::TreeState { .. } => "tree-state",
            Self::Fork { .. } => "fork",
            Self::Ancestry { .. } => "ancestry",
            Self::SharedState { .. } => "shared-state",
        }
    }

    /// The tree it changes, where it changes one.
    pub fn tree(&self) -> Option<TreeId> {
        match self {
            Self::Flush { owners, .. } => owners.first().copied(),
            Self::Compact { tree, .. } | Self::TreeState { tree, .. } => Some(*tree),
            Self::SharedState { trees, .. } => trees.first().map(|(tree, _)| *tree),
            Self::Begin { .. }
            | Self::CreateTrees { .. }
            | Self::CreateTenants { .. }
            | Self::TenantExtractor { .. }
            | Self::DropTenant { .. }
            | Self::Fork { .. }
            | Self::Ancestry { .. }
            | Self::WalFloor { .. }
            | Self::Pack { .. } => None,
        }
    }

    /// Appends the encoded edit.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Begin { layout, next_id, wal_floor } => {
                out.push(BEGIN);
                put_bytes(out, layout.to_string().as_bytes());
                put_varint(out, *next_id);
                put_varint(out, *wal_floor);
            }
            Self::CreateTrees { trees } => {
                out.push(CREATE_TREES);
                encode_trees(out, trees);
            }
            Self::CreateTenants { tenants } => {
                out.push(CREATE_TENANTS);
                encode_tenants(out, tenants);
            }
            Self::TenantExtractor { branch, extractor } => {
                out.push(TENANT_EXTRACTOR);
                put_varint(out, branch.0);
                let name = extractor.map(|e| e.to_string()).unwrap_or_default();
                put_bytes(out, name.as_bytes());
            }
            Self::DropTenant { branch } => {
                out.push(DROP_TENANT);
                put_varint(out, branch.0);
            }
            Self::Flush { owners, flushed_upto, table } => {
                out.push(FLUSH);
                encode_trees(out, owners);
                put_varint(out, *flushed_upto);
                out.push(u8::from(table.is_some()));
                if let Some(table) = table {
                    table.encode(out);
                }
            }
            Self::Compact { tree, removed, added } => {
                out.push(COMPACT);
                put_varint(out, tree.0);
                put_varint(out, to_u64(removed.len()));
                for id in removed {
                    put_varint(out, id.file);
                    put_varint(out, id.offset);
                }
                encode_tables(out, added);
            }
            Self::WalFloor { segment } => {
                out.push(WAL_FLOOR);
                put_varint(out, *segment);
            }
            Self::Pack { file, bytes } => {
                out.push(PACK);
                put_varint(out, *file);
                put_varint(out, *bytes);
            }
            Self::TreeState { tree, flushed_upto, tables } => {
                out.push(TREE_STATE);
                put_varint(out, tree.0);
                put_varint(out, *flushed_upto);
                encode_tables(out, tables);
            }
            Self::Fork { .. } | Self::Ancestry { .. } => self.encode_origin(out),
            Self::SharedState { trees, tables } => {
                out.push(SHARED_STATE);
                encode_numbered(out, trees);
                encode_tables(out, tables);
            }
        }
    }

    /// Appends an edit that says where a branch came from.
    fn encode_origin(&self, out: &mut Vec<u8>) {
        match self {
            Self::Fork { name, branch, parent, fork_seq, tables } => {
                out.push(FORK);
                put_bytes(out, name.as_bytes());
                put_varint(out, branch.0);
                put_varint(out, parent.0);
                put_varint(out, *fork_seq);
                encode_tables(out, tables);
            }
            Self::Ancestry { branch, parent, fork_seq, family, ancestors } => {
                out.push(ANCESTRY);
                put_varint(out, branch.0);
                put_varint(out, parent.0);
                put_varint(out, *fork_seq);
                put_varint(out, family.0);
                encode_numbered(out, ancestors);
            }
            Self::Begin { .. }
            | Self::CreateTrees { .. }
            | Self::CreateTenants { .. }
            | Self::TenantExtractor { .. }
            | Self::DropTenant { .. }
            | Self::Flush { .. }
            | Self::Compact { .. }
            | Self::WalFloor { .. }
            | Self::Pack { .. }
            | Self::TreeState { .. }
            | Self::SharedState { .. } => {}
        }
    }

    /// Reads one edit; `None` where the bytes are none.
    pub fn decode(d: &mut Decoder<'_>) -> Option<Self> {
        Some(match d.u8()? {
            BEGIN => {
                let layout = core::str::from_utf8(d.bytes()?).ok()?.parse().ok()?;
                Self::Begin { layout, next_id: d.varint()?, wal_floor: d.varint()? }
            }
            CREATE_TREES => Self::CreateTrees { trees: decode_trees(d)? },
            CREATE_TENANTS => {
                let count = d.varint()?;
                let mut tenants = Vec::new();
                for _ in 0..count {
                    let name = core::str::from_utf8(d.bytes()?).ok()?.to_owned();
                    tenants.push((name, BranchId(d.varint()?), TreeId(d.varint()?)));
                }
                Self::CreateTenants { tenants }
            }
            TENANT_EXTRACTOR => {
                let branch = BranchId(d.varint()?);
                let name = core::str::from_utf8(d.bytes()?).ok()?;
                let extractor = if name.is_empty() { None } else { Some(name.parse().ok()?) };
                Self::TenantExtractor { branch, extractor }
            }
            DROP_TENANT => Self::DropTenant { branch: BranchId(d.varint()?) },
            FLUSH => {
                let owners = decode_trees(d)?;
                let flushed_upto = d.varint().filter(|seq| *seq <= SEQ_MAX)?;
                let table = if d.u8()? == 0 { None } else { Some(TableMeta::decode(d)?) };
                Self::Flush { owners, flushed_upto, table }
            }
            COMPACT => {
                let tree = TreeId(d.varint()?);
                let count = d.varint()?;
                let mut removed = Vec::new();
                for _ in 0..count {
                    removed.push(TableId { file: d.varint()?, offset: d.varint()? });
                }
                Self::Compact { tree, removed, added: decode_tables(d)? }
            }
            WAL_FLOOR => Self::WalFloor { segment: d.varint()? },
            PACK => Self::Pack { file: d.varint()?, bytes: d.varint()? },
            TREE_STATE => {
                let tree = TreeId(d.varint()?);
                let flushed_upto = d.varint().filter(|seq| *seq <= SEQ_MAX)?;
                Self::TreeState { tree, flushed_upto, tables: decode_tables(d)? }
            }
            FORK => Self::Fork {
                name: core::str::from_utf8(d.bytes()?).ok()?.to_owned(),
                branch: BranchId(d.varint()?),
                parent: BranchId(d.varint()?),
                fork_seq: d.varint().filter(|seq| *seq <= SEQ_MAX)?,
                tables: decode_tables(d)?,
            },
            ANCESTRY => Self::Ancestry {
                branch: BranchId(d.varint()?),
                parent: BranchId(d.varint()?),
                fork_seq: d.varint().filter(|seq| *seq <= SEQ_MAX)?,
                family: TreeId(d.varint()?),
                ancestors: decode_numbered(d)?,
            },
            SHARED_STATE => {
                Self::SharedState { trees: decode_numbered(d)?, tables: decode_tables(d)? }
            }
            _ => return None,
        })
    }
}

fn encode_tenants(out: &mut Vec<u8>, tenants: &[(String, BranchId, TreeId)]) {
    put_varint(out, to_u64(tenants.len()));
    for (name, branch, tree) in tenants {
        put_bytes(out, name.as_bytes());
        put_varint(out, branch.0);
        put_varint(out, tree.0);
    }
}

fn encode_trees(out: &mut Vec<u8>, trees: &[TreeId]) {
    put_varint(out, to_u64(trees.len()));
    for tree in trees {
        put_varint(out, tree.0);
    }
}

fn decode_trees(d: &mut Decoder<'_>) -> Option<Vec<TreeId>> {
    let count = d.varint()?;
    let mut trees = Vec::new();
    for _ in 0..count {
        trees.push(TreeId(d.varint()?));
    }
    Some(trees)
}

fn encode_numbered(out: &mut Vec<u8>, trees: &[(TreeId, SeqNo)]) {
    put_varint(out, to_u64(trees.len()));
    for (tree, seq) in trees {
        put_varint(out, tree.0);
        put_varint(out, *seq);
    }
}

fn decode_numbered(d: &mut Decoder<'_>) -> Option<Vec<(TreeId, SeqNo)>> {
    let count = d.varint()?;
    let mut trees = Vec::new();
    for _ in 0..count {
        trees.push((TreeId(d.varint()?), d.varint().filter(|seq| *seq <= SEQ_MAX)?));
    }
    Some(trees)
}

fn encode_tables(out: &mut Vec<u8>, tables: &[(u32, TableMeta)]) {
    put_varint(out, to_u64(tables.len()));
    for (level, table) in tables {
        put_varint(out, u64::from(*level));
        table.encode(out);
    }
}

fn decode_tables(d: &mut Decoder<'_>) -> Option<Vec<(u32, TableMeta)>> {
    let count = d.varint()?;
    let mut tables = Vec::new();
    for _ in 0..count {
        let level = u32::try_from(d.varint()?).ok()?;
        if usize::try_from(level).ok()? >= super::LEVEL_COUNT {
            return None;
        }
        tables.push((level, TableMeta::decode(d)?));
    }
    Some(tables)
}

/// Tables as versions hold them.
pub fn shared(tables: Vec<(u32, TableMeta)>) -> Vec<(u32, Arc<TableMeta>)> {
    tables.into_iter().map(|(level, t)| (level, Arc::new(t))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Option<Edit> {
        let mut d = Decoder::new(bytes);
        Edit::decode(&mut d).filter(|_| d.is_empty())
    }

    #[test]
    fn a_pack_edit_is_these_bytes() {
        let edit = Edit::Pack { file: 7, bytes: 300 };
        let mut bytes = Vec::new();
        edit.encode(&mut bytes);
        assert_eq!(bytes, [10, 7, 0xac, 0x02]);
        assert_eq!(decoded(&bytes), Some(edit));
        assert_eq!(decoded(&bytes[..3]), None);
    }

    #[test]
    fn edits_of_forks_are_these_bytes() {
        let (branch, parent, fork_seq) = (BranchId(7), BranchId(3), 300);
        let fork = Edit::Fork { name: "a@b".to_owned(), branch, parent, fork_seq, tables: vec![] };
        let ancestors = vec![(TreeId(3), 300), (TreeId(2), 5)];
        let family = TreeId(2);
        let ancestry = Edit::Ancestry { branch, parent, fork_seq, family, ancestors };
        let trees = vec![(TreeId(2), 5), (TreeId(7), 6)];
        let shared = Edit::SharedState { trees, tables: vec![] };
        let expected: [(Edit, &[u8]); 3] = [
            (fork, &[11, 3, b'a', b'@', b'b', 7, 3, 0xac, 0x02, 0]),
            (ancestry, &[12, 7, 3, 0xac, 0x02, 2, 2, 3, 0xac, 0x02, 2, 5]),
            (shared, &[13, 2, 2, 5, 7, 6, 0]),
        ];
        for (edit, expected) in expected {
            let mut bytes = Vec::new();
            edit.encode(&mut bytes);
            assert_eq!(bytes, expected);
            assert_eq!(decoded(&bytes), Some(edit));
            assert!((0..bytes.len()).all(|end| decoded(&bytes[..end]).is_none()));
        }
    }

    #[test]
    fn an_extractor_edit_comes_back_whole_and_no_made_up_name_does() {
        let extractors =
            [None, Some(PrefixExtractor::FixedLength(65_536)), Some(PrefixExtractor::Delimiter(0))];
        for extractor in extractors {
            let edit = Edit::TenantExtractor { branch: BranchId(300), extractor };
            let mut bytes = Vec::new();
            edit.encode(&mut bytes);
            assert_eq!(decoded(&bytes), Some(edit));
            assert!((0..bytes.len()).all(|end| decoded(&bytes[..end]).is_none()));
        }
        for name in ["fixed-0", "fixed-65537", "delimiter-2F", "8+fixed-1", "none"] {
            let mut bytes = vec![TENANT_EXTRACTOR, 7];
            put_bytes(&mut bytes, name.as_bytes());
            assert_eq!(decoded(&bytes), None, "{name}");
        }
    }
}
