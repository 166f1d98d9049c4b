//! Plays requests against a broker and keeps what it answers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_wire::json::Value;
use millrace_wire::messages::{MetadataRequest, RequestHeader};
use millrace_wire::{ApiKey, Message, Reader, api};
use serde_json::json;

use super::compare::normalised;
use super::schema::{self, Schemas};
use super::script::{Ask, Line, Scenario};
use super::session::{self, Session, What};
use crate::raw::{Connection, Outcome};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What has not come by then does not come.
const SILENCE: Duration = Duration::from_millis(700);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// The versions of each API, by key.
pub(crate) type Versions = BTreeMap<i16, (i16, i16)>;

/// One thing to do: a whole session, a frame as it is, or a scenario at one step of its versions.
#[derive(Clone, Copy)]
pub(crate) enum Step<'a> {
    Session(&'a Session),
    Frame { key: ApiKey, version: i16, frame: &'a [u8] },
    Scenario { scenario: &'a Scenario, number: i16, served: &'a Versions },
}

impl Step<'_> {
    /// Every API and version it asks for.
    pub(crate) fn asks(&self) -> Vec<(i16, i16)> {
        match self {
            Self::Session(session) => {
                let asks = session.events.iter().filter_map(|event| match event.what {
                    What::Ask { key, version, .. } => Some((key as i16, version)),
                    What::Take { .. } => None,
                });
                asks.collect()
            }
            Self::Frame { key, version, .. } => vec![(*key as i16, *version)],
            Self::Scenario { scenario, number, served } => {
                let asks = scenario.lines.iter().filter_map(|line| match line {
                    Line::Ask(ask) => Some((ask.key as i16, version_of(ask, *number, served))),
                    _ => None,
                });
                asks.collect()
            }
        }
    }
}

/// The version a request has at a step: those which do not reach so far stay at their ends.
fn version_of(ask: &Ask, number: i16, served: &Versions) -> i16 {
    ask.version.unwrap_or_else(|| {
        let (first, last) = served[&(ask.key as i16)];
        number.clamp(first, last)
    })
}

fn makes_topics(key: ApiKey, version: i16, frame: &[u8]) -> bool {
    let mut reader = Reader::new(frame);
    let header = api::request_header_version(key, version);
    key == ApiKey::Metadata
        && RequestHeader::decode(&mut reader, header).is_ok()
        && MetadataRequest::decode(&mut reader, version)
            .is_ok_and(|asked| asked.allow_auto_topic_creation)
}

/// A client of one broker.
pub(crate) struct Player<'a> {
    bootstrap: &'a str,
    schemas: &'a Schemas,
    connections: HashMap<char, Connection>,
    owed: HashMap<char, VecDeque<(ApiKey, i16)>>,
    names: Vec<(String, String)>,
    frame_within: Duration,
    /// How long what was changed may remain unseen after the answer; nothing for Millrace.
    publishes_within: Duration,
}

impl<'a> Player<'a> {
    pub(crate) fn new(bootstrap: &'a str, schemas: &'a Schemas) -> Self {
        let (connections, owed) = (HashMap::new(), HashMap::new());
        let (names, frame_within) = (Vec::new(), SILENCE);
        let publishes_within = Duration::ZERO;
        Self { bootstrap, schemas, connections, owed, names, frame_within, publishes_within }
    }

    /// A client of Apache Kafka, which publishes a change a moment after it has answered.
    pub(crate) fn of_kafka(bootstrap: &'a str, schemas: &'a Schemas) -> Self {
        Self { publishes_within: Duration::from_millis(100), ..Self::new(bootstrap, schemas) }
    }

    /// What the broker advertises.
    pub(crate) fn versions(&mut self) -> Versions {
        let answer = self.exchange(ApiKey::ApiVersions, 0, &json!({}), false);
        let row = |row: &Value, name: &str| row[name].as_i64().expect("a number") as i16;
        let rows = answer["apiKeys"].as_array().expect("an answer").iter();
        let rows =
            rows.map(|api| (row(api, "apiKey"), (row(api, "minVersion"), row(api, "maxVersion"))));
        rows.collect()
    }

    /// Has groups made ready: how long that takes is not compared.
    pub(crate) fn warm_up(&mut self) {
        self.make_ready("warm-up");
        self.until(ApiKey::ListGroups, 4, &json!({}), "/errorCode", &json!(0));
    }

    fn make_ready(&mut self, group: &str) {
        let body = json!({"key": group});
        self.until(ApiKey::FindCoordinator, 2, &body, "/errorCode", &json!(0));
        let body = json!({"groupId": group, "topics": []});
        self.until(ApiKey::OffsetFetch, 5, &body, "/errorCode", &json!(0));
    }

    /// The answers of a step, one for each request of it.
    ///
    /// A frame that is said to stay without an answer is not waited for long.
    pub(crate) fn play(&mut self, label: &str, step: &Step<'_>, is_silent: bool) -> Vec<Value> {
        self.frame_within = if is_silent { SILENCE } else { ANSWER_WITHIN };
        let started = Instant::now();
        let answers = self.play_untimed(step);
        if started.elapsed() > ANSWER_WITHIN / 4 {
            let missing = answers.iter().position(|answer| answer == "silent");
            eprintln!("{label}: {:.1?}, first without an answer {missing:?}", started.elapsed());
        }
        answers
    }

    fn play_untimed(&mut self, step: &Step<'_>) -> Vec<Value> {
        match step {
            Step::Session(session) => self.session(session),
            Step::Frame { key, version, frame } => {
                vec![normalised(&self.frame(*key, *version, frame), "")]
            }
            Step::Scenario { scenario, number, served } => {
                static NEXT: AtomicU32 = AtomicU32::new(0);
                let run = NEXT.fetch_add(1, Ordering::Relaxed);
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("past 1970");
                let prefix = format!("d{}n{run:05}", now.as_secs());
                self.names = vec![("p".into(), prefix.clone()), ("v".into(), number.to_string())];
                self.connections.clear();
                self.owed.clear();
                let lines = scenario.lines.iter();
                let answers = lines.filter_map(|line| self.line(line, *number, served));
                answers.map(|answer| normalised(&answer, &prefix)).collect()
            }
        }
    }

    /// The answers to a session. Those that were there before the next request, when it was
    /// captured, are waited for, and topics that make themselves as well.
    fn session(&mut self, session: &Session) -> Vec<Value> {
        self.connections.clear();
        self.owed.clear();
        let (mut names, mut answers) = (Vec::new(), Vec::new());
        for event in &session.events {
            let connection = event.connection;
            match &event.what {
                What::Ask { key, version, frame, is_answered } => {
                    if *is_answered && makes_topics(*key, *version, frame) {
                        self.frame(*key, *version, frame);
                    }
                    self.send(connection, *key, *version, &session::renamed(frame, &names));
                    if !is_answered {
                        self.owed.get_mut(&connection).and_then(VecDeque::pop_back);
                    }
                }
                What::Take { captured } => {
                    let owed = self.owed.get(&connection).and_then(VecDeque::front).copied();
                    let Some((key, version)) = owed else {
                        answers.push("closed before".into());
                        continue;
                    };
                    let answer = self.take(connection, ANSWER_WITHIN);
                    if let Some(frame) = captured {
                        let captured = schema::response(key, version, frame);
                        session::rename(&captured.expect("captured"), &answer, &mut names);
                    }
                    answers.push(normalised(&answer, ""));
                }
            }
        }
        answers
    }

    /// The answer to a frame. Kafka makes topics of themselves after it has answered that there is
    /// none: Metadata is asked again.
    fn frame(&mut self, key: ApiKey, version: i16, frame: &[u8]) -> Value {
        let end = Instant::now() + ANSWER_WITHIN;
        loop {
            self.send('a', key, version, frame);
            let answer = self.take('a', self.frame_within);
            let is_missing = |topic: &Value| matches!(topic["errorCode"].as_i64(), Some(3 | 5));
            let waits = makes_topics(key, version, frame)
                && answer["topics"].as_array().is_some_and(|topics| topics.iter().any(is_missing));
            if !waits || Instant::now() > end {
                return answer;
            }
            // Asked sooner, Kafka makes it once more, perhaps after it has been deleted.
            thread::sleep(ANSWER_WITHIN / 16);
        }
    }

    fn line(&mut self, line: &Line, number: i16, served: &Versions) -> Option<Value> {
        match line {
            Line::Topic { name, partitions, configs } => {
                self.make_topic(name, *partitions, configs);
                None
            }
            Line::Group { id } => {
                self.make_ready(&self.filled(id));
                None
            }
            Line::Take { connection } => Some(self.take(*connection, ANSWER_WITHIN)),
            Line::Ask(ask) => self.ask(ask, version_of(ask, number, served)),
        }
    }

    fn ask(&mut self, ask: &Ask, version: i16) -> Option<Value> {
        let text = self.filled(&ask.body);
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        if ask.is_taken_later {
            let frame = self.schemas.request(ask.key, version, &body);
            self.send(ask.connection, ask.key, version, &frame);
            return None;
        }
        let answer = match &ask.until {
            Some((pointer, value)) => self.until(ask.key, version, &body, pointer, value),
            None => {
                let frame = self.schemas.request(ask.key, version, &body);
                self.send(ask.connection, ask.key, version, &frame);
                let within = if ask.is_silent { SILENCE } else { ANSWER_WITHIN };
                self.take(ask.connection, within)
            }
        };
        for (name, pointer) in &ask.keep {
            let value = answer.pointer(pointer).cloned().unwrap_or_default();
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            self.names.push((name.clone(), text));
        }
        Some(answer)
    }

    /// Asks again until the answer has the value, or it is clear that it never will.
    fn until(
        &mut self,
        key: ApiKey,
        version: i16,
        body: &Value,
        pointer: &str,
        value: &Value,
    ) -> Value {
        let end = Instant::now() + ANSWER_WITHIN;
        loop {
            let answer = self.exchange(key, version, body, false);
            if answer.pointer(pointer) == Some(value) || Instant::now() > end {
                return answer;
            }
            thread::sleep(ASK_AGAIN_AFTER);
        }
    }

    fn make_topic(&mut self, name: &str, partitions: i32, configs: &str) {
        let (name, configs) = (self.filled(name), self.filled(configs));
        let configs: Value = serde_json::from_str(&configs).expect("an object of configs");
        let configs = configs.as_object().into_iter().flatten();
        let configs: Vec<Value> =
            configs.map(|(name, value)| json!({"name": name, "value": value})).collect();
        let topic = json!({"name": name, "numPartitions": partitions, "replicationFactor": 1,
            "assignments": [], "configs": configs});
        let body = json!({"topics": [topic], "timeoutMs": 10000});
        let answer = self.exchange(ApiKey::CreateTopics, 5, &body, false);
        assert_eq!(answer["topics"][0]["errorCode"], 0, "{name}: {answer}");
        for index in 0..partitions {
            let partition = json!({"partitionIndex": index, "timestamp": -2});
            let body = json!({"topics": [{"name": name, "partitions": [partition]}]});
            self.until(
                ApiKey::ListOffsets,
                5,
                &body,
                "/topics/0/partitions/0/errorCode",
                &json!(0),
            );
        }
    }

    fn exchange(&mut self, key: ApiKey, version: i16, body: &Value, silent: bool) -> Value {
        let frame = self.schemas.request(key, version, body);
        self.send('a', key, version, &frame);
        self.take('a', if silent { SILENCE } else { ANSWER_WITHIN })
    }

    fn send(&mut self, connection: char, key: ApiKey, version: i16, frame: &[u8]) {
        let bootstrap = self.bootstrap;
        let open = || Connection::open(bootstrap);
        let length = i32::try_from(frame.len()).expect("small").to_be_bytes();
        let found = self.connections.entry(connection).or_insert_with(open);
        found.write(&[&length[..], frame].concat());
        self.owed.entry(connection).or_default().push_back((key, version));
    }

    fn take(&mut self, connection: char, within: Duration) -> Value {
        let owed = self.owed.get_mut(&connection).and_then(VecDeque::pop_front);
        let (key, version) = owed.expect("something was asked on this connection");
        let found = self.connections.get_mut(&connection).expect("opened to ask");
        found.set_read_timeout(within);
        let outcome = match found.try_outcome() {
            Some(Outcome::Answer(frame)) => match schema::response(key, version, &frame) {
                Ok(mut answer) => {
                    if key == ApiKey::Fetch && version < 4 {
                        schema::spread_messages(&mut answer);
                    }
                    if matches!(key as i16, 19 | 20 | 21 | 33 | 37 | 42 | 44 | 49) {
                        thread::sleep(self.publishes_within);
                    }
                    return answer;
                }
                Err(error) => format!("cannot be decoded: {error}"),
            },
            Some(Outcome::Closed) => "closed".to_owned(),
            None => "silent".to_owned(),
        };
        self.connections.remove(&connection);
        self.owed.remove(&connection);
        Value::from(outcome)
    }

    /// Text with the names in it replaced by what they stand for.
    fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in self.names.iter().rev() {
            text = text.replace(&format!("${name}"), value);
        }
        text
    }
}
