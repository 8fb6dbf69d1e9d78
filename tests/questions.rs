#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "the test reads a document and runs its commands")]
//! Strategy: every command of `docs/questions.md` is run as printed, in one fresh folder.
//! Invariants: each prints exactly what stands below it.

use std::path::Path;
use std::process::Command;

/// Each command with what it is said to print.
fn commands() -> Vec<(String, String)> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/questions.md");
    let text = std::fs::read_to_string(document).unwrap();
    let blocks: Vec<&str> = text.split("\n```").collect();
    let mut commands = Vec::new();
    for [command, _, printed] in blocks.array_windows() {
        if let (Some(command), Some(printed)) =
            (command.strip_prefix("sh\n"), printed.strip_prefix('\n'))
        {
            commands.push((command.to_owned(), format!("{printed}\n")));
        }
    }
    assert_eq!(commands.len(), text.matches("```sh").count(), "a command says not what it prints");
    commands
}

#[test]
fn every_command_prints_the_answer_that_stands_below_it() {
    let folder = tempfile::tempdir().unwrap();
    let commands = commands();
    assert!(commands.len() >= 7, "{commands:?}");
    let program = Path::new(env!("CARGO_BIN_EXE_forebay")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    for (command, printed) in commands {
        let output = Command::new("sh")
            .args(["-c", &command])
            .current_dir(folder.path())
            .env("PATH", format!("{}:{path}", program.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), printed, "{command}\n{said}");
    }
}
