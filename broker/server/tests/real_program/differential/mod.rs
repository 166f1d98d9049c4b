//! The same requests to Apache Kafka and to Millrace, and their answers compared field by field.
//!
//! What is asked: whole sessions of real clients, vectors (requests of each API and version,
//! by Kafka's own classes), single requests captured from real clients, and the scenarios of
//! `tests/differential/*.script`. What Kafka answered is kept beside the scripts;
//! `MILLRACE_TEST_ORACLES` names brokers to ask anew, `MILLRACE_TEST_STEPS` a part of the labels of
//! the only steps to compare.

mod compare;
mod play;
mod schema;
mod script;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

use millrace_wire::ApiKey;
use millrace_wire::compression::Compression;
use millrace_wire::json::Value;
use serde_json::json;

use crate::process::Broker;
use play::{Player, Step, Versions};
use schema::Schemas;
use script::Scenario;
use session::Session;

const GOLDEN_BYTES_MAX: usize = 64 << 20;
const CAPTURED: &str = include_str!("../../captured/requests.txt");
const SESSIONS: &[u8] = include_bytes!("../../captured/sessions.zst");
const VECTORS: &[u8] = include_bytes!("../../../../wire/testdata/vectors.jsonl.zst");
const SCRIPTS: &[(&str, &str)] = &[
    ("groups", include_str!("../../differential/groups.script")),
    ("admin", include_str!("../../differential/admin.script")),
    ("records", include_str!("../../differential/records.script")),
];
const KNOWN: &str = include_str!("../../differential/known.txt");

/// What one release of Kafka answers.
struct Oracle {
    name: String,
    versions: Versions,
    /// Answers by the label of the step.
    answers: BTreeMap<String, Vec<Value>>,
}

/// Everything that can be asked.
struct Questions {
    sessions: Vec<Session>,
    frames: Vec<(String, ApiKey, i16, Vec<u8>)>,
    scenarios: Vec<(String, Scenario)>,
}

#[test]
fn answers_are_those_of_apache_kafka() {
    let (schemas, questions) = (Schemas::load(), Questions::load());
    let served = served(&schemas);
    let oracles = match env::var("MILLRACE_TEST_ORACLES") {
        Ok(list) => ask_oracles(&list, &schemas, &questions, &served),
        Err(_) => golden(),
    };
    let only = env::var("MILLRACE_TEST_STEPS").ok();
    let only = only.as_deref();
    let mut found = Vec::new();
    let mut count = 0;
    for (index, oracle) in oracles.iter().enumerate() {
        // As the oracle was started.
        let broker = Broker::start(&["num.partitions=4"]);
        let mut player = Player::new(broker.bootstrap(), &schemas);
        player.warm_up();
        for (label, step) in questions.for_oracle(&served, &oracles, index) {
            if !only.is_none_or(|only| label.contains(only)) {
                continue;
            }
            let Some(expected) = oracle.answers.get(&label) else {
                let is_frame = matches!(step, Step::Frame { .. });
                assert!(is_frame, "`{label}` has no answer of Kafka's: record anew");
                continue;
            };
            let answers =
                player.play(&label, &step, expected.iter().any(|answer| answer == "silent"));
            count += answers.len();
            for (row, (expected, answer)) in expected.iter().zip(&answers).enumerate() {
                let mut places = Vec::new();
                compare::differences(expected, answer, "", &mut places);
                let label = match &step {
                    Step::Session(session) => {
                        let (key, version) = session.answered()[row];
                        format!("{label} #{row} {key} {version}")
                    }
                    _ if answers.len() > 1 => format!("{label} #{row}"),
                    _ => label.clone(),
                };
                found.extend(places.into_iter().map(|place| (label.clone(), place)));
            }
        }
    }
    judge(&found, count, only.is_none());
}

/// Panics unless what was found is what is known.
fn judge(found: &[(String, [String; 3])], count: usize, is_all: bool) {
    let rows = KNOWN.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rows: Vec<[&str; 3]> = rows
        .map(|row| {
            let parts: Vec<&str> = row.split(" | ").collect();
            parts.try_into().unwrap_or_else(|_| panic!("not `label | place | reason`: {row}"))
        })
        .collect();
    let mut used = BTreeSet::new();
    let mut faults = Vec::new();
    for (label, [place, kafka, own]) in found {
        let is = |row: &[&str; 3]| {
            matches(row[0].trim_start_matches('?'), label) && matches(row[1], place)
        };
        match rows.iter().position(is) {
            Some(row) => drop(used.insert(row)),
            None => faults.push(format!("{label} {place}: Kafka {kafka}, Millrace {own}")),
        }
    }
    let is_unused = |(index, row): &(usize, &[&str; 3])| {
        is_all && !used.contains(index) && !row[0].starts_with('?')
    };
    let unused = rows.iter().enumerate().filter(is_unused);
    faults.extend(unused.map(|(_, row)| format!("known, but not found: {}", row.join(" | "))));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("differences.txt");
    fs::write(&path, faults.join("\n")).expect("the target folder is writable");
    println!(
        "{count} answers compared, {} known differences in {} places",
        rows.len(),
        found.len()
    );
    let shown: Vec<String> = faults.iter().take(40).cloned().collect();
    assert!(faults.is_empty(), "{} in {}:\n{}", faults.len(), path.display(), shown.join("\n"));
}

/// A text that was packed with zstd.
fn unpacked(packed: &[u8]) -> String {
    let mut text = Vec::new();
    Compression::Zstd.decompress(packed, GOLDEN_BYTES_MAX, &mut text).expect("packed for tests");
    String::from_utf8(text).expect("packed text")
}

/// Whether a pattern, in which `*` stands for anything, is the whole text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            tail.is_empty() || rest.char_indices().any(|(at, _)| matches(tail, &rest[at..]))
        }),
    }
}

/// What Millrace serves, asked of a broker that then ends.
fn served(schemas: &Schemas) -> Versions {
    Player::new(Broker::start(&[]).bootstrap(), schemas).versions()
}

impl Questions {
    fn load() -> Self {
        let mut frames = Vec::new();
        for line in unpacked(VECTORS).lines() {
            let vector: Value = serde_json::from_str(line).expect("an object a line");
            let name = vector["of"].as_str().expect("a name").strip_suffix("Request");
            let Some(key) = ApiKey::all().find(|key| Some(key.name()) == name) else { continue };
            let version = vector["version"].as_i64().expect("a version") as i16;
            let kind = vector["kind"].as_str().expect("a kind");
            let body = schema::unhex(vector["hex"].as_str().expect("hex digits"));
            let frame = [schema::header(key, version), body].concat();
            frames.push((format!("vector {key} {version} {kind}"), key, version, frame));
        }
        for (index, line) in CAPTURED.lines().enumerate() {
            let mut frame = schema::unhex(line.split(' ').nth(2).expect("key, version, frame"));
            let (key, version) = schema::asked_for(&mut frame);
            frames.push((format!("captured {} {key} {version}", index + 1), key, version, frame));
        }
        let scenarios = SCRIPTS.iter().flat_map(|(file, text)| {
            let scenarios = script::parse(text).into_iter();
            scenarios.map(move |scenario| (format!("{file}: {}", scenario.name), scenario))
        });
        let sessions = session::parse(&unpacked(SESSIONS));
        Self { sessions, frames, scenarios: scenarios.collect() }
    }

    /// The steps that this oracle, and none before it, can take, and Millrace too.
    fn for_oracle<'a>(
        &'a self,
        served: &'a Versions,
        oracles: &[Oracle],
        index: usize,
    ) -> Vec<(String, Step<'a>)> {
        // First, for they list topics and groups, and see none but their own.
        let sessions = self
            .sessions
            .iter()
            .map(|session| (format!("session {}", session.name), Step::Session(session)));
        let frames = self.frames.iter().map(|(label, key, version, frame)| {
            (label.clone(), Step::Frame { key: *key, version: *version, frame })
        });
        let scenarios = self.scenarios.iter().flat_map(|(label, scenario)| {
            let last = scenario.lines.iter().filter_map(|line| match line {
                script::Line::Ask(ask) if ask.version.is_none() => {
                    served.get(&(ask.key as i16)).map(|range| range.1)
                }
                _ => None,
            });
            let last = last.max();
            (0..=last.unwrap_or(0)).map(move |number| {
                let label =
                    if last.is_some() { format!("{label} @{number}") } else { label.clone() };
                (label, Step::Scenario { scenario, number, served })
            })
        });
        let can = |versions: &Versions, step: &Step<'_>| {
            step.asks().iter().all(|(key, version)| {
                versions.get(key).is_some_and(|(first, last)| (*first..=*last).contains(version))
            })
        };
        let is_for = |step: &Step<'_>| {
            can(served, step)
                && oracles.iter().position(|oracle| can(&oracle.versions, step)) == Some(index)
        };
        sessions.chain(frames).chain(scenarios).filter(|(_, step)| is_for(step)).collect()
    }
}

/// Kafka 4 advertises Produce from 0 on, for an old fault of librdkafka's, and serves it from 3 on
/// (KAFKA-18659).
fn really_served(mut versions: Versions) -> Versions {
    let is_4 = versions[&(ApiKey::Fetch as i16)].0 >= 4;
    if let Some(produce) = versions.get_mut(&(ApiKey::Produce as i16)).filter(|_| is_4) {
        produce.0 = 3;
    }
    versions
}

fn golden_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/differential/kafka-{name}.zst"))
}

/// What was kept of Kafka's answers, the newest release first.
fn golden() -> Vec<Oracle> {
    ["4.3.1", "3.9.2"]
        .map(|name| {
            let packed = fs::read(golden_file(name)).expect("it is in the tree");
            let mut kept: Value =
                serde_json::from_str(&unpacked(&packed)).expect("JSON written here");
            let versions = serde_json::from_value(kept["versions"].take()).expect("written here");
            let answers = serde_json::from_value(kept["answers"].take()).expect("written here");
            Oracle { name: name.to_owned(), versions, answers }
        })
        .into()
}

/// Asks running brokers: `RELEASE=HOST:PORT,..`, the newest first, each just started and empty.
fn ask_oracles(
    list: &str,
    schemas: &Schemas,
    questions: &Questions,
    served: &Versions,
) -> Vec<Oracle> {
    let places = list.split(',').map(|row| row.split_once('=').expect("RELEASE=HOST:PORT"));
    let places: Vec<(&str, &str)> = places.collect();
    let unasked = places.iter().map(|(name, place)| Oracle {
        name: (*name).to_owned(),
        versions: really_served(Player::new(place, schemas).versions()),
        answers: BTreeMap::new(),
    });
    let mut oracles: Vec<Oracle> = unasked.collect();
    for (index, (_, place)) in places.iter().enumerate() {
        let mut player = Player::of_kafka(place, schemas);
        player.warm_up();
        let steps = questions.for_oracle(served, &oracles, index);
        let answers =
            steps.iter().map(|(label, step)| (label.clone(), player.play(label, step, true)));
        oracles[index].answers = answers.collect();
        if env::var_os("MILLRACE_BLESS").is_some() {
            let oracle = &oracles[index];
            let text = json!({"versions": oracle.versions, "answers": oracle.answers}).to_string();
            let packed = zstd::encode_all(text.as_bytes(), 19).expect("memory");
            fs::write(golden_file(&oracle.name), packed).expect("the tree is writable");
        }
    }
    oracles
}
