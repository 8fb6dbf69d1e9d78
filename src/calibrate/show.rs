//! Figures as the `[device]` table of an experiment file, as JSON and as CSV.

use serde_json::{Map, Value, json};

use super::probe::Reads;
use super::{Calibration, Figure, Spread};
use crate::number::thousands;
use crate::text::append;

/// The schema of the JSON object.
const SCHEMA: &str = "forebay.calibrate/1";

/// The figures of reads: those that the table has, then the others.
pub(super) fn read_figures(reads: &Reads, cached: bool) -> Vec<Figure> {
    let device = [
        ("read_bytes_per_s", reads.bytes_per_s, "read of 1 MiB, less read_ns, pages not cached"),
        ("read_ns", reads.page_ns, "read of 4 KiB, pages not cached"),
    ];
    let page_cache = [
        ("read_bytes_per_s", reads.cached_bytes_per_s, "read of 1 MiB, less read_ns, pages cached"),
        ("read_ns", reads.cached_page_ns, "read of 4 KiB, pages cached"),
    ];
    let (table, beside) = if cached { (page_cache, device) } else { (device, page_cache) };
    let figure = |(key, spread, how)| Figure::new(key, spread, how);
    let others = beside.map(|(key, spread, how): (&'static str, Spread, &str)| {
        let name = if key == "read_ns" { "other read_ns" } else { "other read_bytes_per_s" };
        Figure::new(name, spread, how).beside()
    });
    table.map(figure).into_iter().chain(others).collect()
}

fn spread(spread: &Spread) -> String {
    match spread.count {
        0 => String::new(),
        n => format!(": {} to {}, {n} samples", grouped(spread.low), grouped(spread.high)),
    }
}

fn grouped(number: u64) -> String {
    thousands(number).replace(',', "_")
}

impl Calibration {
    /// The table, with what each value was measured by behind it; `head` goes before it as comments.
    pub fn toml(&self, head: &[String]) -> String {
        let mut text = String::new();
        for line in head {
            append(&mut text, format_args!("# {line}\n"));
        }
        text.push_str("# Each value is a median; above it what was measured, and its quartiles.\n");
        text.push_str("\n[device]\n# what is not measured\npreset = \"none\"\n");
        let line = |figure: &Figure, mark: &str| {
            let how = format!("# {}{}\n", figure.how, spread(&figure.spread));
            format!("{how}{mark}{} = {}\n", figure.key, grouped(figure.spread.middle))
        };
        let (table, beside): (Vec<&Figure>, Vec<&Figure>) =
            self.figures.iter().partition(|figure| figure.in_table);
        text.extend(table.iter().map(|figure| line(figure, "")));
        text.push_str("\n# Beside the table\n");
        text.extend(beside.iter().map(|figure| line(figure, "# ")));
        text
    }

    /// One object: the table, and every figure with its spread.
    pub fn json(&self, head: &[(&str, Value)]) -> Value {
        let mut object: Map<String, Value> = Map::new();
        object.insert("schema".to_owned(), SCHEMA.into());
        object.extend(head.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let mut device: Map<String, Value> = Map::new();
        device.insert("preset".to_owned(), "none".into());
        let table = self.figures.iter().filter(|figure| figure.in_table);
        device.extend(table.map(|f| (f.key.to_owned(), f.spread.middle.into())));
        object.insert("device".to_owned(), device.into());
        let figures = self.figures.iter().map(|f| {
            json!({
                "key": f.key, "in_table": f.in_table, "value": f.spread.middle,
                "low": f.spread.low, "high": f.spread.high, "samples": f.spread.count,
                "how": f.how,
            })
        });
        object.insert("figures".to_owned(), figures.collect());
        object.into()
    }

    /// A line for each figure.
    pub fn csv(&self) -> String {
        let mut text = "key,in_table,value,low,high,samples,how\n".to_owned();
        for Figure { key, in_table, spread, how } in &self.figures {
            let Spread { low, middle, high, count } = spread;
            let fields = format!("{key},{in_table},{middle},{low},{high},{count}");
            append(&mut text, format_args!("{fields},\"{how}\"\n"));
        }
        text
    }
}
