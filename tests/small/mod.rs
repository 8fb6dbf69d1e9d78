//! An experiment that a test runs in a second: 20 tenants on a machine cut to their size.

/// Its file, with what stands before the machine and the arms behind it.
pub(crate) fn small(head: &str, arms: &str) -> String {
    format!(
        "{head}
[options]
budget_bytes = 524_288
memtable_bytes_max = 65_536
wal_segment_bytes = 65_536
table_bytes_max = 32_768
block_cache_bytes = 131_072
[device]
scale = 20_000
[workload]
name = \"twitter-53\"
tenant_count = 20
offered_ops_per_s = 200
[stop]
fill_count = 2
[arms]
layout = [\"per-tenant\", \"shared\"]
{arms}"
    )
}
