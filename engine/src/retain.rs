//! Which versions of a key a flush or a compaction keeps.

use bytes::Bytes;

use crate::types::{Entry, Kind, SeqNo};

/// What to do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is written.
    Keep,
    /// A tombstone that nobody before it can see: written unless nothing older lies below.
    KeepTombstone,
    /// Nobody can see it any more.
    Drop,
}

/// Walks entries in internal order. Of each key it keeps the newest version, and for each open
/// snapshot the newest one that the snapshot sees.
#[derive(Debug)]
pub(crate) struct Retention {
    /// Numbers of open snapshots, ascending.
    snapshots: Vec<SeqNo>,
    /// The key at hand, and how many snapshots do not see its version before this one.
    last: Option<(Bytes, usize)>,
}

impl Retention {
    pub(crate) fn new(snapshots: Vec<SeqNo>) -> Self {
        Self { snapshots, last: None }
    }

    pub(crate) fn judge(&mut self, entry: &Entry) -> Verdict {
        // Snapshots older than the entry: they look for an older version.
        let older = self.snapshots.partition_point(|s| *s < entry.seq);
        let shadowed = match &self.last {
            Some((key, newer)) if *key == entry.key => older >= *newer,
            Some(_) | None => false,
        };
        self.last = Some((entry.key.clone(), older));
        if shadowed {
            Verdict::Drop
        } else if entry.kind == Kind::Delete && older == 0 {
            Verdict::KeepTombstone
        } else {
            Verdict::Keep
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(snapshots: &[SeqNo], versions: &[(SeqNo, Kind)]) -> Vec<Verdict> {
        let mut retention = Retention::new(snapshots.to_vec());
        let key = Bytes::from_static(b"k");
        let entry = |(seq, kind)| Entry { key: key.clone(), seq, kind, value: Bytes::new() };
        versions.iter().map(|v| retention.judge(&entry(*v))).collect()
    }

    use Kind::{Delete, Put};
    use Verdict::{Drop, Keep, KeepTombstone};

    #[test]
    fn without_snapshots_only_the_newest_version_stays() {
        assert_eq!(judge(&[], &[(9, Put), (5, Delete), (1, Put)]), [Keep, Drop, Drop]);
        assert_eq!(judge(&[], &[(9, Delete), (5, Put)]), [KeepTombstone, Drop]);
    }

    #[test]
    fn a_snapshot_keeps_the_version_it_sees() {
        assert_eq!(judge(&[5], &[(9, Put), (5, Put), (1, Put)]), [Keep, Keep, Drop]);
        assert_eq!(judge(&[4], &[(9, Put), (5, Put), (1, Put)]), [Keep, Drop, Keep]);
        assert_eq!(judge(&[9], &[(9, Put), (5, Put)]), [Keep, Drop]);
    }

    #[test]
    fn two_deletes_stay_two_while_a_snapshot_lies_between() {
        assert_eq!(judge(&[7], &[(9, Delete), (5, Delete)]), [Keep, KeepTombstone]);
        assert_eq!(judge(&[], &[(9, Delete), (5, Delete)]), [KeepTombstone, Drop]);
    }
}
