//! `forebay list`: what settings may name, with where it comes from and its parameters.

use forebay_engine::policy::{PolicyInfo, PolicyKind};
use forebay_sim::bugs::Bug;
use forebay_sim::disk::device::DeviceSpec;
use forebay_workloads::WorkloadInfo;
use serde::Serialize;

use super::{Stop, say};
use crate::cli::{Format, Global, ListKind};
use crate::text::append;

#[derive(Debug, Serialize)]
struct Item {
    name: String,
    id: String,
    source: String,
    params: Vec<Param>,
}

#[derive(Debug, Serialize)]
struct Param {
    name: String,
    min: f64,
    max: f64,
    default: f64,
    about: String,
}

/// Prints the list.
///
/// # Errors
///
/// None that a list can cause.
pub fn list(global: &Global, kind: ListKind) -> Result<(), Stop> {
    let items = items(kind);
    match global.format {
        Format::Json => {
            let line = serde_json::to_string(&items).map_err(Stop::usage)?;
            say(&format!("{line}\n"));
        }
        Format::Csv => {
            let mut text = "name,id,source,params\n".to_owned();
            for item in &items {
                let params: Vec<&str> = item.params.iter().map(|p| p.name.as_str()).collect();
                let source = item.source.replace('"', "\"\"");
                append(
                    &mut text,
                    format_args!("{},{},\"{source}\",{}\n", item.name, item.id, params.join(" ")),
                );
            }
            say(&text);
        }
        Format::Human => say(&human(&items)),
    }
    Ok(())
}

fn human(items: &[Item]) -> String {
    let mut text = String::new();
    for item in items {
        let id = if item.id == "-" { String::new() } else { format!(" ({})", item.id) };
        text.push_str(&cut(&format!("{}{id}: {}", item.name, item.source)));
        for param in &item.params {
            let bounds = format!("{} to {}, default {}", param.min, param.max, param.default);
            text.push_str(&cut(&format!("    {} = {bounds}: {}", param.name, param.about)));
        }
    }
    text
}

/// A line of at most 100 columns.
fn cut(line: &str) -> String {
    let mut text: String = line.chars().take(100).collect();
    if line.chars().count() > 100 {
        text = line.chars().take(97).chain("...".chars()).collect();
    }
    text.push('\n');
    text
}

fn items(kind: ListKind) -> Vec<Item> {
    match kind {
        ListKind::Flush => PolicyKind::Flush.list().into_iter().map(policy).collect(),
        ListKind::Stall => PolicyKind::Stall.list().into_iter().map(policy).collect(),
        ListKind::Compaction => PolicyKind::Compaction.list().into_iter().map(policy).collect(),
        ListKind::Workload => forebay_workloads::list().iter().map(workload).collect(),
        ListKind::Layout => layouts(),
        ListKind::Device => DeviceSpec::NAMES.iter().map(|name| device(name)).collect(),
        ListKind::Bug => Bug::ALL.iter().map(|bug| plain(bug.name(), bug.about())).collect(),
    }
}

fn plain(name: &str, source: &str) -> Item {
    Item {
        name: name.to_owned(),
        id: "-".to_owned(),
        source: source.to_owned(),
        params: Vec::new(),
    }
}

fn policy(info: &'static PolicyInfo) -> Item {
    let params = info.params.iter().map(|p| Param {
        name: p.name.to_owned(),
        min: p.min,
        max: p.max,
        default: p.default,
        about: p.about.to_owned(),
    });
    Item { id: info.id.to_owned(), params: params.collect(), ..plain(info.name, info.source) }
}

fn workload(info: &WorkloadInfo) -> Item {
    let params = info.params.iter().map(|p| Param {
        name: p.name.to_owned(),
        min: p.min,
        max: p.max,
        default: p.default,
        about: p.about.to_owned(),
    });
    let source = format!("{}; {}", info.about, info.source);
    Item { params: params.collect(), ..plain(info.name, &source) }
}

fn layouts() -> Vec<Item> {
    let groups = Param {
        name: "G".to_owned(),
        min: 1.0,
        max: f64::from(forebay_engine::options::Layout::GROUPS_MAX),
        default: 16.0,
        about: "trees".to_owned(),
    };
    vec![
        plain("per-tenant", "a tree for each tenant"),
        Item { params: vec![groups], ..plain("grouped-G", "G trees, tenants hashed to them") },
        plain("shared", "one tree, keys carry the tenant's id as a prefix"),
    ]
}

fn device(name: &str) -> Item {
    let spec = DeviceSpec::preset(name).unwrap_or(DeviceSpec::NONE);
    if spec.write_bytes_per_s == 0 {
        return plain(name, "takes no time");
    }
    let mb = |bytes: u64| bytes.div_euclid(1_000_000);
    let us = |ns: u64| ns.div_euclid(1_000);
    plain(
        name,
        &format!(
            "{} MB/s read, {} MB/s write, {} us read, {} us sync, {} IOPS",
            mb(spec.read_bytes_per_s),
            mb(spec.write_bytes_per_s),
            us(spec.read_ns),
            us(spec.sync_ns),
            spec.iops
        ),
    )
}
