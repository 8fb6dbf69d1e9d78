#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "the test reads documents and runs their commands")]
//! Strategy: every command of the README and of each page in `docs/` is run as printed, those of a
//! page in one fresh folder that holds the repository's experiments. What is shown of their output is
//! compared with what they print; `FOREBAY_TRANSCRIPTS=write` writes it into the pages instead.
//!
//! Invariants: a `console` block shows what its commands print, line by line, where `...` stands for
//! any lines and `? 1` below a command for its exit code; each line of a `sh` block ends with 0, or
//! with the code that `# exit` names; no line for people is wider than 100 columns; no other block
//! holds a command. A block is passed over only below a comment `<!-- not run: why -->`, and commands
//! of cargo in `sh` blocks, which have a repository to themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A command, its exit code, and the lines of its page that it is said to print.
#[derive(Debug, Default)]
struct Said {
    command: String,
    code: i32,
    shown: Option<(usize, Vec<String>)>,
}

/// The language of a block, whether it is passed over, and its lines.
type Block<'a> = (&'a str, bool, Vec<(usize, &'a str)>);

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join("docs")).unwrap();
    let mut pages: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|end| end == "md"));
    pages.push(repository().join("README.md"));
    pages.sort();
    pages
}

/// The lines of a command, which goes on below a backslash.
fn command<'a>(first: &str, rest: &mut impl Iterator<Item = (usize, &'a str)>) -> String {
    let mut command = first.to_owned();
    while command.ends_with('\\') {
        command.push('\n');
        command.push_str(rest.next().map_or("", |(_, line)| line));
    }
    command
}

fn console(block: &[(usize, &str)]) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    let mut lines = block.iter().copied();
    while let Some((number, line)) = lines.next() {
        if let Some(first) = line.strip_prefix("$ ") {
            let command = command(first, &mut lines);
            said.push(Said { command, ..Said::default() });
            continue;
        }
        let last = said.last_mut().expect("a console block begins with `$ `");
        match line.strip_prefix("? ") {
            Some(code) if last.shown.is_none() => last.code = code.parse().unwrap(),
            _ => last.shown.get_or_insert((number, Vec::new())).1.push(line.to_owned()),
        }
    }
    said
}

fn shell(block: &[(usize, &str)]) -> Vec<Said> {
    let mut said = Vec::new();
    let mut lines = block.iter().copied();
    while let Some((_, line)) = lines.next() {
        let line = command(line, &mut lines);
        if line.is_empty() || line.starts_with("cargo ") {
            continue;
        }
        let (command, code) = line.split_once("# exit ").unwrap_or((&line, "0"));
        let code = code.trim().parse().unwrap();
        said.push(Said { command: command.to_owned(), code, shown: None });
    }
    said
}

/// The commands of a page, in its order.
fn commands(page: &Path, text: &str) -> Vec<Said> {
    let mut said = Vec::new();
    let mut block: Option<Block<'_>> = None;
    let mut before = "";
    for (number, line) in text.lines().enumerate() {
        let at = format!("{}:{}", page.display(), number + 1);
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(language)) => {
                block = Some((language, before.starts_with("<!-- not run: "), Vec::new()));
            }
            (None, None) => {
                let hidden = ["    forebay ", "    $ ", "    printf "];
                assert!(!hidden.iter().any(|start| line.starts_with(start)), "{at}: not tested");
                before = line;
            }
            (Some((language, is_skipped, lines)), Some(_)) => {
                match *language {
                    _ if *is_skipped => {}
                    "console" => said.extend(console(lines)),
                    "sh" => said.extend(shell(lines)),
                    "text" | "toml" | "yaml" | "rust" | "json" => {
                        let is_command = |line: &str| line.starts_with("$ ");
                        assert!(
                            !lines.iter().any(|(_, line)| is_command(line)),
                            "{at}: not tested"
                        );
                    }
                    other => panic!("{at}: a block of {other:?} is not known to be no command"),
                }
                (block, before) = (None, "");
            }
            (Some((_, _, lines)), None) => lines.push((number, line)),
        }
    }
    assert!(block.is_none(), "{}: a block without an end", page.display());
    said
}

/// Whether lines are what is shown, `...` being any lines.
fn is_shown(shown: &[String], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line == "..." => {
            (0..=printed.len()).any(|skipped| is_shown(rest, &printed[skipped..]))
        }
        Some((line, rest)) => printed.split_first().is_some_and(|(first, printed)| {
            line.trim_end() == first.trim_end() && is_shown(rest, printed)
        }),
    }
}

/// Whether a line may be wider than a terminal: one to copy is as long as the paths in it, and one
/// for programs as long as it is.
fn may_be_wide(line: &str) -> bool {
    let starts = ["{", "[", "\"", "Reproduce:", "From seed:", "Trace it:", "Keep it:"];
    starts.iter().any(|start| line.starts_with(start)) || line.contains(',') && !line.contains(", ")
}

/// Runs a page; what of it is not so, and the page as it should be.
fn run(page: &Path) -> (Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("experiments")).unwrap();
    for entry in fs::read_dir(repository().join("experiments")).unwrap() {
        let from = entry.unwrap().path();
        let to = folder.path().join("experiments").join(from.file_name().unwrap());
        fs::copy(from, to).unwrap();
    }
    let program = Path::new(env!("CARGO_BIN_EXE_forebay")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let text = fs::read_to_string(page).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut wrong = Vec::new();
    for said in commands(page, &text) {
        let output = Command::new("sh")
            .args(["-c", &said.command])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env("FOREBAY_PROGRESS", "none")
            .output()
            .unwrap();
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let name = page.file_name().unwrap().display();
        if output.status.code() != Some(said.code) {
            wrong.push(format!("{name}: {}: {}\n{err}{out}", said.command, output.status));
        }
        let wide = |line: &&str| line.chars().count() > 100 && !may_be_wide(line);
        wrong.extend(out.lines().filter(wide).map(|line| format!("{name}: too wide: {line}")));
        let Some((at, shown)) = said.shown else { continue };
        let printed: Vec<&str> = out.lines().collect();
        if !is_shown(&shown, &printed) {
            wrong.push(format!("{name}:{}: {} prints\n{out}{err}", at + 1, said.command));
            if !shown.iter().any(|line| line == "...") {
                // Everything below moves: pages are written one command at a time.
                lines.splice(at..at + shown.len(), printed.iter().map(|line| (*line).to_owned()));
                break;
            }
        }
    }
    (wrong, lines)
}

#[test]
fn every_command_of_the_readme_and_of_docs_does_what_is_printed() {
    let pages = pages();
    assert!(pages.len() > 10, "{pages:?}");
    let is_writing = std::env::var("FOREBAY_TRANSCRIPTS").is_ok_and(|wish| wish == "write");
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong = std::sync::Mutex::new(Vec::new());
    let work = || {
        let take = || next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        while let Some(page) = pages.get(take()) {
            let (mut told, mut lines) = run(page);
            while is_writing && !told.is_empty() {
                let text = lines.join("\n") + "\n";
                if text == fs::read_to_string(page).unwrap() {
                    break;
                }
                fs::write(page, text).unwrap();
                (told, lines) = run(page);
            }
            wrong.lock().unwrap().extend(told);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The blocks of a page in a language, one after another.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let begin = format!("\n```{language}\n");
    let bodies = text.split(&begin).skip(1);
    bodies.map(|rest| rest.split_once("\n```").unwrap().0.to_owned()).collect()
}

#[test]
fn the_policy_that_pages_show_is_the_one_that_is_compiled() {
    let source = |name: &str| {
        fs::read_to_string(repository().join("engine").join(name)).unwrap().replace('\r', "")
    };
    let (file, list) = (source("src/policy/flush/lru.rs"), source("src/policy/flush/mod.rs"));
    let (_, code) = file.split_once("\n\nuse ").unwrap();
    let shown = blocks("docs/policy.md", "rust");
    assert_eq!(shown[0], format!("use {}", code.trim_end()));
    assert!(shown[1].lines().all(|line| list.lines().any(|there| there == line)), "{shown:?}");
    let cases = source("testdata/policy/flush/lru.txt");
    assert!(cases.starts_with(&blocks("docs/policy.md", "text")[0]));
    assert!(file.contains(&blocks("README.md", "rust")[0]), "the README shows another policy");
    // Thirty lines are what it takes, but for those that name others and those without a letter.
    let counts = |line: &&str| line.contains(char::is_alphabetic) && !line.starts_with("use ");
    assert!(shown[0].lines().filter(counts).count() <= 30);
}

#[test]
fn dots_are_any_lines_and_nothing_else_is() {
    let shown = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(is_shown(&shown("a\n...\nd"), &["a", "b", "c", "d"]));
    assert!(is_shown(&shown("a\n...\nd"), &["a", "d"]) && is_shown(&shown("a \n..."), &["a"]));
    assert!(!is_shown(&shown("a\n...\nd"), &["a", "b"]) && !is_shown(&shown("a"), &["a", "b"]));
    assert!(!is_shown(&[], &["a"]));
    let text =
        "```console\n$ false\n? 1\n$ forebay list \\\n  bug\nx\n```\n```sh\nforebay # exit 2\n```";
    let said = commands(Path::new("page"), text);
    let commands: Vec<_> = said.iter().map(|said| (said.command.trim(), said.code)).collect();
    assert_eq!(commands, [("false", 1), ("forebay list \\\n  bug", 0), ("forebay", 2)]);
    assert_eq!(said[1].shown, Some((5, vec!["x".to_owned()])));
}
