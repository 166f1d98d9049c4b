//! docs/tutorials.md and docs/rules.md name a test or a reason for each of their rows, and only
//! tests that are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Tutorials, and how many rows each has.
const ROWS: &[(&str, usize)] = &[("000", 37), ("001", 161), ("002", 22), ("003", 33), ("004", 16)];

/// The rules of docs/rules.md.
const RULES: usize = 83;

/// What may stand in place of a test, or before one.
const REASONS: &[&str] =
    &[SEVERAL, "ZooKeeper:", "packaging:", "the client's own", "measured: [", "open:"];
const SEVERAL: &str = "several brokers";

fn root() -> &'static Path {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    server.ancestors().nth(2).expect("broker/server lies two folders below the root")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).expect("it is in the tree")
}

/// Names of all functions marked `#[test]` below a folder.
fn tests_below(folder: PathBuf, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the checkout") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            tests_below(path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let after = text.split("#[test]\n").skip(1);
            let names = after.filter_map(|text| text.split_once("fn ")?.1.split_once('('));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

/// Rows of a page's tables whose first cell begins with a digit: the cells.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("| "));
    lines
        .map(|line| line.trim_end_matches(" |").split(" | ").collect())
        .filter(|cells: &Vec<&str>| cells[0].starts_with(|first: char| first.is_ascii_digit()))
}

#[test]
fn every_row_has_its_tests_or_a_reason() {
    let mut tests = BTreeSet::new();
    for folder in ["broker", "loadgen"] {
        tests_below(root().join(folder), &mut tests);
    }
    let of_tutorial = |(of, count): &(&str, usize)| {
        let of = (*of).to_owned();
        (1..=*count).map(move |row| format!("{of}-{row:02}"))
    };
    check("tutorials.md", ROWS.iter().flat_map(of_tutorial), &tests);
    check("rules.md", (1..=RULES).map(|rule| rule.to_string()), &tests);
}

/// Checks that a page has these rows, each with tests that are there or a reason.
fn check(name: &str, mut wanted: impl Iterator<Item = String>, tests: &BTreeSet<String>) {
    for cells in rows(&page(name)) {
        let [row, _, shown] = cells[..] else { panic!("three cells: {cells:?}") };
        assert_eq!(Some(row), wanted.next().as_deref(), "rows of {name} stand in order");
        let is_reason = REASONS.iter().any(|reason| shown.starts_with(reason));
        assert!(is_reason || shown.starts_with('`'), "{row}: neither test nor reason: {shown}");
        // Names of tests have underscores; other code in a reason has dots, blanks or dashes.
        let is_name = |text: &&str| text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
        let quoted = shown.split('`').skip(1).step_by(2);
        for test in quoted.filter(|text| !is_reason || is_name(text)) {
            assert!(tests.contains(test), "{row}: there is no test {test}");
        }
        for link in shown.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(root().join("docs").join(link).exists(), "{row}: {link} is not there");
        }
    }
    assert_eq!(wanted.next(), None, "a row of {name} is missing");
}

#[test]
fn rows_that_need_several_brokers_are_those_of_the_page_on_the_protocol() {
    let (tutorials, protocol) = (page("tutorials.md"), page("protocol.md"));
    let one = rows(&tutorials).filter(|cells| cells[2].contains(SEVERAL));
    let one: BTreeSet<&str> = one.map(|cells| cells[0]).collect();
    let section = protocol.split("## What needs several brokers").nth(1).expect("it is there");
    let other: BTreeSet<&str> = rows(section).flat_map(|cells| cells[0].split(", ")).collect();
    assert_eq!(one, other);
}
