//! Sizes at which seals, flushes, compactions and rolls of the log come soon.

use forebay_engine::Options;
use forebay_engine::options::Layout;

pub(crate) fn options(layout: Layout) -> Options {
    let mut options = Options { layout, ..Options::default() };
    for (key, value) in [
        ("budget_bytes", "262144"),
        ("memtable_bytes_max", "65536"),
        ("wal_segment_bytes", "32768"),
        ("block_bytes", "256"),
        ("table_bytes_max", "4096"),
        ("level_base_bytes", "16384"),
    ] {
        options.set(key, value).unwrap();
    }
    options
}
