//! Style as a test: rows, lengths and letters of the engine's source.
//!
//! A module uses its own row and those above it, so that decisions never reach for the world and a
//! lower row never calls up. A module without a row here is refused; unit tests may use any row.
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "the source tree is what is tested")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Names of rows with their modules, top row first.
const ROWS: &[(&str, &[&str])] = &[
    ("words", &["types", "error", "coding", "prefix", "sync", "pointer"]),
    ("decisions", &["policy"]),
    ("world", &["env", "options", "signal", "events", "metrics"]),
    ("parts", &["layout", "batch", "wal", "memtable", "budget", "cache", "table", "iter", "group"]),
    ("state", &["version"]),
    ("facts", &["pressure", "log_space", "disk_space", "jobs", "shared", "waiting"]),
    (
        "verbs",
        &[
            "write",
            "read",
            "retain",
            "flush",
            "compaction",
            "gc",
            "space",
            "recovery",
            "replay",
            "open",
            "tenancy",
            "inspect",
            "verify",
            "repair",
            "branches",
            "structure",
            "detach",
        ],
    ),
    ("loop", &["background"]),
    ("face", &["db", "tenant", "branch", "blocking"]),
    ("checks", &["decoders"]),
];

/// Names that `lib.rs` re-exports and any row may use by the short path.
const ROOT_NAMES: &[&str] = &["Error", "Result"];

const LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|(_, modules)| modules.contains(&module))
}

/// Every Rust file below a folder of the crate, with its path from there, in the order of paths.
fn sources(folder: &str) -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let (mut files, mut folders) = (BTreeMap::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.insert(path.strip_prefix(&root).unwrap().to_owned(), text);
            }
        }
    }
    files
}

/// The code of a file without comments and without what follows `#[cfg(test)]`, as a unit test
/// module is the last item of its file.
fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first segment of every path that begins at the crate, groups in braces taken apart.
fn crate_paths(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let (before, rest) = code.split_at(at);
        let inside = before.chars().next_back();
        if inside.is_some_and(|c| c == '$' || c == '_' || c.is_alphanumeric()) {
            continue;
        }
        let rest = rest.strip_prefix(prefix).unwrap();
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_heads(group)),
            None => names.push(head(rest)),
        }
    }
    names
}

/// The identifier at the start of a text.
fn head(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first segment of every item in a group whose opening brace was just passed.
fn group_heads(group: &str) -> Vec<String> {
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(head(group.get(start..at).unwrap()));
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// What is wrong with the paths of one file of a module.
fn wrong_paths(module: &str, text: &str) -> Vec<String> {
    let Some(row) = row_of(module) else {
        return vec![format!("module {module} has no row in ROWS")];
    };
    let mut wrong = Vec::new();
    for name in crate_paths(&code(text)) {
        if name == module || ROOT_NAMES.contains(&name.as_str()) {
            continue;
        }
        match row_of(&name) {
            None => wrong.push(format!("crate::{name} has no row: name the module it is from")),
            Some(used) if used > row => wrong.push(format!(
                "{module} (row {}) uses {name} (row {}), which is below it",
                ROWS[row].0, ROWS[used].0
            )),
            Some(_) => {}
        }
    }
    wrong
}

#[test]
fn modules_use_their_own_row_and_those_above() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let top = path.components().next().unwrap();
        let module = Path::new(top.as_os_str()).file_stem().unwrap().to_str().unwrap();
        let unit_test = path.file_name().is_some_and(|name| name == "tests.rs");
        if module != "lib" && !unit_test {
            let found = wrong_paths(module, &text);
            wrong.extend(found.into_iter().map(|what| format!("{}: {what}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short_narrow_and_ascii() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests"] {
        for (path, text) in sources(folder) {
            let path = path.display();
            if text.lines().count() > LINES_MAX {
                wrong.push(format!("{folder}/{path}: above {LINES_MAX} lines"));
            }
            for (number, line) in text.lines().enumerate() {
                let place = format!("{folder}/{path}:{}", number + 1);
                if line.chars().count() > COLUMNS_MAX {
                    wrong.push(format!("{place}: above {COLUMNS_MAX} columns"));
                }
                if !line.is_ascii() {
                    wrong.push(format!("{place}: not ASCII"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_begin_with_what_they_are() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let unit_test = path.file_name().is_some_and(|name| name == "tests.rs");
        if !unit_test && !text.starts_with("//! ") {
            wrong.push(path.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "no header: {}", wrong.join(", "));
}

#[test]
fn each_module_has_one_row() {
    let mut modules: Vec<&str> = ROWS.iter().flat_map(|(_, row)| *row).copied().collect();
    let count = modules.len();
    modules.sort_unstable();
    modules.dedup();
    assert_eq!(modules.len(), count);
}

#[test]
fn paths_down_the_rows_are_found_in_every_form() {
    let text = [
        "use crate::types::X;",
        "use crate::{",
        "    policy::{view::A, flush},",
        "    db, Error,",
        "};",
        "fn f() { crate::read::get() } // crate::background",
        "#[cfg(test)]",
        "use crate::gc;",
    ];
    let text = &text.join("\n");
    assert_eq!(crate_paths(&code(text)), ["types", "policy", "db", "Error", "read"]);
    assert_eq!(wrong_paths("types", text).len(), 3);
    assert_eq!(wrong_paths("db", text).len(), 0);
    assert_eq!(wrong_paths("nowhere", text).len(), 1);
}
