#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "files of the source tree, outside every world")]
//! Failures of the past, kept by `forebay keep`, pass for good; those with a planted bug are still found.

use std::fs;
use std::path::Path;

use forebay_sim::scenario::Case;

#[test]
fn kept_failures_stay_fixed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    for file in files {
        let case = Case::parse(&fs::read_to_string(&file).unwrap()).unwrap();
        let outcome = case.run();
        let wanted = case.rule.filter(|_| case.bug.is_some());
        let found = outcome.violation.as_ref().map(|violation| violation.rule);
        assert_eq!(found, wanted, "{}: {:?}", file.display(), outcome.violation);
    }
}
