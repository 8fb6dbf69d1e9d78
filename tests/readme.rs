#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests read the README and run the program")]
//! Strategy: every `forebay` line of the README's shell blocks is run as printed, in a fresh folder.
//! Invariants: the exit code is 0, or the one its comment names; nothing is written to the repository.

use std::path::Path;
use std::process::Command;

fn lines() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let mut lines = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        match line {
            "```sh" => in_block = true,
            "```" => in_block = false,
            _ if in_block && line.contains("forebay ") => lines.push(line.to_owned()),
            _ => {}
        }
    }
    lines
}

#[test]
fn the_readmes_commands_do_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = env!("CARGO_BIN_EXE_forebay");
    let lines = lines();
    assert!(lines.len() >= 10, "{lines:?}");
    std::fs::create_dir(folder.path().join("experiments")).unwrap();
    for file in ["experiments/demo.toml", "experiments/full-size.toml"] {
        std::fs::copy(repository.join(file), folder.path().join(file)).unwrap();
    }
    for line in lines {
        let (command, wanted) = match line.split_once("# exit ") {
            Some((command, code)) => (command.trim().to_owned(), code.trim().parse().unwrap()),
            None => (line.clone(), 0),
        };
        let command = command.replacen("forebay ", &format!("{program} "), 1);
        let output = Command::new("sh")
            .args(["-c", &command])
            .current_dir(folder.path())
            .env("FOREBAY_PROGRESS", "none")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(wanted), "{line}: {said}");
        for printed in String::from_utf8_lossy(&output.stdout).lines() {
            // A line to copy is as long as the paths in it.
            let whole = ["{", "Reproduce:", "From seed:", "Trace it:", "Keep it:"];
            let may_be_long = whole.iter().any(|start| printed.starts_with(start));
            assert!(may_be_long || printed.chars().count() <= 100, "{line} prints {printed:?}");
        }
    }
}
