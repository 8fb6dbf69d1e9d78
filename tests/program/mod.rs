//! Runs the built program as people do: in a folder, with arguments, and with lines on its
//! standard input.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A fresh folder with these files.
pub(crate) fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// What it says to arguments and to bytes on its standard input.
pub(crate) fn fed(folder: &Path, args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A child that refuses its arguments may be gone already.
    drop(child.stdin.take().unwrap().write_all(stdin));
    child.wait_with_output().unwrap()
}

/// What it says to arguments.
pub(crate) fn forebay(folder: &Path, args: &[&str]) -> Output {
    fed(folder, args, b"")
}

/// What it printed.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The command is refused in one line on stderr that holds these words, with this exit code, and
/// nothing is written.
pub(crate) fn refused(folder: &Path, args: &[&str], code: i32, what: &[&str]) {
    let before = fs::read_dir(folder).unwrap().count();
    let output = forebay(folder, args);
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {line}");
    assert_eq!(line.lines().count(), 1, "{args:?}: {line}");
    for what in what {
        assert!(line.contains(what), "{line} lacks {what}");
    }
    assert_eq!(text(&output.stdout), "", "{args:?}");
    assert_eq!(fs::read_dir(folder).unwrap().count(), before, "{args:?}");
}
