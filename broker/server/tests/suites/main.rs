//! docs/compatibility.md says what `results.txt` says: how other people's test suites ended on
//! Millrace and on Apache Kafka. Why a test did not pass is told by the suite or by `reasons.txt`.
//! With MILLRACE_BLESS=1 the page is written anew, as `run` does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// In the place of an outcome, until the suite has run against that broker too.
const NOT_RUN: &str = "-";
/// Above it stands what people wrote.
const MARK: &str = "<!-- From here on made by broker/server/tests/suites/run. -->\n";
const HEAD: &str = "
## Other people's tests

`broker/server/tests/suites/run` runs these suites against Millrace and against Apache Kafka 4.3.1, a
node each with the same settings. What became of each test is in `results.txt` beside it. Not
applicable is what a suite skips by itself, and what one node of Apache Kafka fails as well.

| suite | version | tests | passed | failed | not applicable | passed by Apache Kafka |
|---|---|---|---|---|---|---|
";

#[test]
fn the_page_says_what_the_results_say() {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = server.join("../../docs/compatibility.md");
    let read = |path: &Path| fs::read_to_string(path).expect("a file of the checkout is readable");
    let (results, reasons) = ["results.txt", "reasons.txt"]
        .map(|name| read(&server.join("tests/suites").join(name)))
        .into();
    let page = read(&path);
    let (by_hand, made) = page.split_once(MARK).expect("the page has the mark");
    let expected = section(&results, &reasons);
    if std::env::var_os("MILLRACE_BLESS").is_some() {
        return fs::write(&path, format!("{by_hand}{MARK}{expected}"))
            .expect("the checkout is writable");
    }
    assert_eq!(made, expected, "stale: MILLRACE_BLESS=1 cargo test -p millrace --test suites");
    let half = results.lines().find(|line| line.split(' ').any(|word| word == NOT_RUN));
    assert_eq!(half, None, "run against one broker only");
}

/// How the tests of one suite ended, and in which version of it.
#[derive(Default)]
struct Suite<'a> {
    version: &'a str,
    passed: usize,
    failed: usize,
    not_applicable: usize,
    passed_by_kafka: usize,
}

/// The tests that did not pass, by their reason.
type ByReason<'a> = BTreeMap<&'a str, Vec<String>>;

fn section(results: &str, reasons: &str) -> String {
    let reasons: Vec<Reason<'_>> = reasons
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(Reason::of)
        .collect();
    let mut suites: Vec<(&str, Suite<'_>)> = Vec::new();
    let (mut failed, mut not_applicable) = (ByReason::new(), ByReason::new());
    for line in results.lines() {
        let mut words = line.splitn(6, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (name, version, test, ours, kafkas, note) =
            (word(), word(), word(), word(), word(), word());
        if [ours, kafkas].contains(&NOT_RUN) {
            continue;
        }
        if suites.last().is_none_or(|(last, _)| *last != name) {
            suites.push((name, Suite { version, ..Suite::default() }));
        }
        let suite = &mut suites.last_mut().expect("one was pushed").1;
        suite.passed_by_kafka += usize::from(kafkas == "passed");
        if ours == "passed" {
            suite.passed += 1;
            continue;
        }
        let given = reasons.iter().find(|reason| reason.is_for(name, test));
        let reason = match given {
            Some(reason) => reason.text,
            None if ours == "skipped" && !note.is_empty() => note,
            None => panic!("no reason in reasons.txt for: {line}"),
        };
        let (count, by_reason) = match (ours, kafkas) {
            ("failed", "passed") => (&mut suite.failed, &mut failed),
            _ => (&mut suite.not_applicable, &mut not_applicable),
        };
        *count += 1;
        by_reason.entry(reason).or_default().push(format!("{name} {test}"));
    }
    for reason in &reasons {
        assert!(reason.is_used.get(), "no test needs the reason: {} {}", reason.suite, reason.test);
    }
    let mut text = HEAD.to_owned();
    for (name, suite) in &suites {
        let Suite { version, passed, failed, not_applicable, passed_by_kafka } = suite;
        let all = passed + failed + not_applicable;
        writeln!(
            text,
            "| {name} | {version} | {all} | {passed} | {failed} | {not_applicable} | {passed_by_kafka} |"
        )
        .expect("a string takes everything");
    }
    list(&mut text, "Failed", &failed);
    list(&mut text, "Not applicable", &not_applicable);
    text
}

fn list(text: &mut String, title: &str, by_reason: &ByReason<'_>) {
    write!(text, "\n### {title}\n\n| reason | tests |\n|---|---|\n").expect("as above");
    for (reason, tests) in by_reason {
        let reason = reason.replace('|', "\\|");
        writeln!(text, "| {reason} | {} |", tests.join("<br>")).expect("as above");
    }
}

/// A line of reasons.txt: `suite test | reason`, where the test may end in `*`.
struct Reason<'a> {
    suite: &'a str,
    test: &'a str,
    text: &'a str,
    is_used: std::cell::Cell<bool>,
}

impl<'a> Reason<'a> {
    fn of(line: &'a str) -> Self {
        let (key, text) = line.split_once(" | ").expect("a reason is: suite test | reason");
        let (suite, test) = key.split_once(' ').expect("a reason is: suite test | reason");
        Self { suite, test, text, is_used: false.into() }
    }

    fn is_for(&self, suite: &str, test: &str) -> bool {
        let same = match self.test.strip_suffix('*') {
            Some(start) => test.starts_with(start),
            None => test == self.test,
        };
        let is_for = same && suite == self.suite;
        self.is_used.set(self.is_used.get() || is_for);
        is_for
    }
}

#[test]
fn tests_are_counted_by_what_became_of_them() {
    let results = "\
a 1 one passed passed
a 1 two failed passed
b 2 three failed failed
b 2 four skipped skipped Not here
b 2 five passed failed
";
    let text = section(results, "# Head\na t* | Not built\nb three | Three nodes\n");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    let expected = [
        "| suite | version | tests | passed | failed | not applicable | passed by Apache Kafka |",
        "| a | 1 | 2 | 1 | 1 | 0 | 2 |",
        "| b | 2 | 3 | 1 | 0 | 2 | 0 |",
        "| reason | tests |",
        "| Not built | a two |",
        "| reason | tests |",
        "| Not here | b four |",
        "| Three nodes | b three |",
    ];
    assert_eq!(rows, expected);
}
