//! Two states of a table, cell by cell: `ARM p999_ns 25 -> 31 (+24%)`.

use std::collections::BTreeMap;

use crate::series::split_fields;

/// `old -> new`, with the change where both are numbers.
pub fn change(old: &str, new: &str) -> String {
    let share = old.parse::<f64>().ok().zip(new.parse::<f64>().ok());
    match share.filter(|(old, _)| old.abs() > 0.0) {
        Some((from, to)) => {
            format!("{old} -> {new} ({:+.1}%)", (to - from) / from.abs() * 100.0)
        }
        None => format!("{old} -> {new}"),
    }
}

/// A table of CSV: its columns, and its rows by what the first columns hold.
struct Table {
    columns: Vec<String>,
    rows: BTreeMap<String, Vec<String>>,
    order: Vec<String>,
}

impl Table {
    fn read(text: &str, key_columns: usize) -> Option<Self> {
        let mut lines = text.lines();
        let columns = split_fields(lines.next()?).ok()?;
        let (mut rows, mut order) = (BTreeMap::new(), Vec::new());
        for line in lines {
            let fields = split_fields(line).ok()?;
            let named = columns.iter().zip(&fields).take(key_columns);
            // An arm and a metric tell themselves; a seed is a number.
            let parts: Vec<String> = named
                .map(|(column, value)| match value.parse::<u64>() {
                    Ok(number) => format!("{column} {number}"),
                    Err(_) => value.clone(),
                })
                .collect();
            let key = parts.join(" ");
            if rows.insert(key.clone(), fields).is_none() {
                order.push(key);
            }
        }
        Some(Self { columns, rows, order })
    }
}

/// The cells in which two tables differ; the first columns name a row. Rows and columns that only
/// one has are told as such. `None` where a text is no table.
pub fn differing(old: &str, new: &str, key_columns: usize) -> Option<Vec<String>> {
    let (old, new) = (Table::read(old, key_columns)?, Table::read(new, key_columns)?);
    let mut told = Vec::new();
    let place = |column: &String| old.columns.iter().position(|other| other == column);
    let added: Vec<&str> =
        new.columns.iter().filter(|c| place(c).is_none()).map(String::as_str).collect();
    let gone: Vec<&str> =
        old.columns.iter().filter(|c| !new.columns.contains(c)).map(String::as_str).collect();
    told.extend((!added.is_empty()).then(|| format!("new columns: {}", added.join(", "))));
    told.extend((!gone.is_empty()).then(|| format!("no such columns now: {}", gone.join(", "))));
    for key in &new.order {
        let (Some(before), Some(after)) = (old.rows.get(key), new.rows.get(key)) else {
            told.push(format!("{key}: not there before"));
            continue;
        };
        for (column, value) in new.columns.iter().zip(after) {
            let Some(was) = place(column).and_then(|at| before.get(at)) else { continue };
            if was != value {
                told.push(format!("{key} {column} {}", change(was, value)));
            }
        }
    }
    let gone = old.order.iter().filter(|key| !new.rows.contains_key(*key));
    told.extend(gone.map(|key| format!("{key}: not there any more")));
    Some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_told_by_row_and_column() {
        let old = "arm,p999_ms,stalls\n\"a/b=4\",25.1,3\n\"gone\",1,1\n";
        let new = "arm,p999_ms,stalls\n\"a/b=4\",31.8,3\n\"more\",1,1\n";
        let told = differing(old, new, 1).unwrap();
        assert_eq!(
            told,
            [
                "a/b=4 p999_ms 25.1 -> 31.8 (+26.7%)",
                "more: not there before",
                "gone: not there any more"
            ]
        );
        assert_eq!(differing(old, old, 1).unwrap(), Vec::<String>::new());
        let seeds = "arm,seed,x\na,0,1\na,1,2\n";
        let told = differing(seeds, &seeds.replace("1,2", "1,0"), 2).unwrap();
        assert_eq!(told, ["a seed 1 x 2 -> 0 (-100.0%)"]);
        let wider = "arm,x,y\na,1,2\n";
        let told = differing("arm,z,x\na,0,1\n", wider, 1).unwrap();
        assert_eq!(told, ["new columns: y", "no such columns now: z"]);
        assert!(differing("", wider, 1).is_none());
    }

    #[test]
    fn changes_have_a_share_where_there_is_one() {
        assert_eq!(change("0", "5"), "0 -> 5");
        assert_eq!(change("\"a\"", "\"b\""), "\"a\" -> \"b\"");
        assert_eq!(change("-2", "-1"), "-2 -> -1 (+50.0%)");
    }
}
