//! The pages of results are made, and they are up to date.

use loadgen::results;
use std::fs;
use std::path::Path;

#[test]
fn the_index_and_the_headline_are_those_of_the_studies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (folder, page) = (root.join("bench-results"), root.join("README.md"));
    let read = |path: &Path| fs::read_to_string(path).expect("a file of the tree");
    let index = results::index(&folder).expect("sound reports");
    assert!(index.contains("broker CPU, s/GB"), "{index}");
    assert!(index == read(&folder.join("README.md")), "run `loadgen results` and commit");
    for (path, svg) in results::pictures(&folder).expect("sound reports") {
        assert!(read(&path) == svg, "{}: run `loadgen results` and commit", path.display());
    }
    let text = read(&page);
    let made = results::with_headline(&folder, &text).expect("sound reports");
    assert!(made == text, "run `loadgen results` and commit");
    // Every figure of the headline says which folder it is from.
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |"));
    let folders: Vec<&str> = rows.filter_map(|row| row.rsplit('`').nth(1)).collect();
    assert!(!folders.is_empty());
    assert!(folders.iter().all(|name| folder.join(name).join("report.json").exists()));
}

#[test]
fn what_is_missing_is_named() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let error = results::with_headline(&root.join("bench-results"), "no marks").expect_err("none");
    assert!(error.contains("loadgen results"), "{error}");
    let error = results::index(&root.join("docs")).expect_err("no notes");
    assert!(error.contains("notes.md"), "{error}");
}
