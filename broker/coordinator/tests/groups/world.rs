//! A small language for group scenarios: named clients act at given times, and every effect is
//! written as a few words. Writes finish at once unless the world holds them.
//!
//! | action | meaning |
//! |---|---|
//! | `a join v=5 session=10000 rebalance=60000 protocols=range:x,rr:y` | with the id `a` holds |
//! | `a join type=consumer instance=i id=new` | the same with more; every option has a default |
//! | `a sync a=X b=Y` | SyncGroup; the leader gives assignments by the clients' names |
//! | `a heartbeat`, `a leave`, `a leave instance=i`, `a cancel` | the last: its connection dies |
//! | `a commit t-0=5 meta=m retention=100 gen=3 v=9` | OffsetCommit; `-` is nobody |
//! | `fetch t-0`, `describe`, `list states=stable types=classic` | what the group looks like |
//! | `delete`, `deleteoffsets t-0`, `droptopic t` | what goes |
//! | `hold`, `written`, `failed CODE`, `restart`, `unload`, `time` | the world itself |

use std::collections::{BTreeMap, VecDeque};

use millrace_coordinator::{
    Answer, CommitPartition, CommitRequest, CommitTopic, CommittedTopic, Effect, Groups,
    GroupsConfig, JoinAnswer, JoinRequest, LeavingMember, MemberRequest, Now, PersistId, Record,
    SyncAnswer, SyncRequest, WaiterId,
};
use millrace_wire::codec::{Message, Reader};
use millrace_wire::stored::{GroupMetadataKey, OffsetCommitKey};
use millrace_wire::{ErrorCode, Uuid};

/// The group of all scenarios.
pub(crate) const GROUP: &str = "g";
/// Wall time when the monotonic clock is 0.
const WALL_START_MS: i64 = 1_000_000;

#[derive(Clone, Default)]
struct Client {
    member_id: String,
    instance_id: Option<String>,
    generation: i32,
}

/// Groups with their surroundings.
pub(crate) struct World {
    pub(crate) groups: Groups,
    config: GroupsConfig,
    now_ms: u64,
    clients: BTreeMap<String, Client>,
    /// Who asked: the latest request of a client is the one that `cancel` cancels.
    waiters: BTreeMap<WaiterId, (String, i32)>,
    next_waiter: u64,
    random: u128,
    hold: bool,
    writes: VecDeque<(PersistId, Vec<Record>)>,
    log: Vec<Record>,
    said: Vec<String>,
    /// Generation and assignment of every SyncGroup answered without an error, for random tests.
    pub(crate) assigned: Vec<(i32, String)>,
    /// A write failed: what is in memory may be ahead of the log.
    pub(crate) any_write_failed: bool,
}

/// Runs the rows `(time, action, expected words)`.
pub(crate) fn play(config: GroupsConfig, rows: &[(u64, &str, &str)]) {
    let mut world = World::new(config);
    for (index, (at_ms, action, expected)) in rows.iter().enumerate() {
        let said = world.act(*at_ms, action);
        assert_eq!(said, *expected, "row {index}: at {at_ms}, `{action}`");
    }
}

/// The configuration of scenarios: a short delay, so that times are easy to read.
pub(crate) fn config() -> GroupsConfig {
    GroupsConfig { initial_rebalance_delay_ms: 1_000, ..GroupsConfig::default() }
}

impl World {
    pub(crate) fn new(config: GroupsConfig) -> Self {
        let groups = Groups::new(config.clone(), now(0));
        Self {
            groups,
            config,
            now_ms: 0,
            clients: BTreeMap::new(),
            waiters: BTreeMap::new(),
            next_waiter: 0,
            random: 0,
            hold: false,
            writes: VecDeque::new(),
            log: Vec::new(),
            said: Vec::new(),
            assigned: Vec::new(),
            any_write_failed: false,
        }
    }

    /// Lets time pass to `at_ms`, timer by timer, then does `action`; what was said meanwhile.
    pub(crate) fn act(&mut self, at_ms: u64, action: &str) -> String {
        while self.groups.next_deadline() <= at_ms {
            self.now_ms = self.now_ms.max(self.groups.next_deadline());
            let effects = self.groups.on_time(now(self.now_ms));
            self.take(effects);
            assert!(self.groups.next_deadline() > self.now_ms, "a timer that ran is not due");
        }
        self.now_ms = at_ms;
        let words: Vec<&str> = action.split_whitespace().collect();
        match words.as_slice() {
            ["time"] => {}
            ["hold"] => self.hold = true,
            ["written"] => self.finish_write(Ok(())),
            ["failed", code] => self.finish_write(Err(ErrorCode(code.parse().expect("a code")))),
            ["restart"] => self.restart(),
            ["unload"] => {
                let effects = self.groups.unload(|group| group == GROUP);
                self.take(effects);
            }
            ["droptopic", topic] => {
                let effects = self.groups.topics_deleted(now(self.now_ms), &[topic]);
                self.take(effects);
            }
            ["fetch", partition] => self.fetch(partition),
            ["describe"] => self.describe(),
            ["list", filters @ ..] => self.list(filters),
            ["delete"] => {
                let waiter = self.waiter("");
                let effects = self.groups.delete(now(self.now_ms), waiter, GROUP);
                self.take(effects);
            }
            ["deleteoffsets", partitions @ ..] => {
                let waiter = self.waiter("");
                let topics = topics(partitions, "");
                let at = now(self.now_ms);
                let effects = self.groups.delete_offsets(at, waiter, GROUP, &topics);
                self.take(effects);
            }
            [client, verb, rest @ ..] => self.client_acts(client, verb, rest),
            _ => panic!("no action in `{action}`"),
        }
        std::mem::take(&mut self.said).join("; ")
    }

    fn client_acts(&mut self, name: &str, verb: &str, words: &[&str]) {
        let at = now(self.now_ms);
        let mut client = match name {
            "-" => Client { generation: -1, ..Client::default() },
            name => self.clients.entry(name.to_owned()).or_default().clone(),
        };
        if let Some(generation) = option(words, "gen") {
            client.generation = generation.parse().expect("a generation");
        }
        let member = MemberRequest {
            group_id: GROUP,
            member_id: &client.member_id,
            instance_id: client.instance_id.as_deref(),
            generation: client.generation,
        };
        match verb {
            "join" => self.join(name, words),
            "sync" => {
                let assignments = words.iter().filter_map(|word| {
                    let (other, bytes) = word.split_once('=')?;
                    let id = self.clients.get(other)?.member_id.clone();
                    Some((id, bytes))
                });
                let assignments: Vec<_> = assignments.collect();
                let assignments: Vec<(&str, &[u8])> =
                    assignments.iter().map(|(id, bytes)| (id.as_str(), bytes.as_bytes())).collect();
                let request = SyncRequest {
                    member,
                    protocol_type: option(words, "type"),
                    protocol_name: option(words, "protocol"),
                    assignments: &assignments,
                };
                let waiter = self.waiter(name);
                let effects = self.groups.sync(at, waiter, &request);
                self.take(effects);
            }
            "heartbeat" => {
                let code = self.groups.heartbeat(at, &member);
                self.said.push(code.name().to_owned());
            }
            "leave" => {
                let instance_id = option(words, "instance");
                let leaving = LeavingMember {
                    member_id: if instance_id.is_some() { "" } else { &client.member_id },
                    instance_id: instance_id.or(client.instance_id.as_deref()),
                };
                let (answer, effects) = self.groups.leave(at, GROUP, &[leaving]);
                self.said.push(answer.members[0].error.name().to_owned());
                self.take(effects);
            }
            "cancel" => {
                let of_client = self.waiters.iter().rfind(|(_, (who, _))| who == name);
                let Some(waiter) = of_client.map(|(waiter, _)| *waiter) else { return };
                self.waiters.remove(&waiter);
                self.groups.cancel(at, waiter);
            }
            "commit" => {
                let request = CommitRequest {
                    version: option(words, "v").map_or(8, |v| v.parse().expect("a version")),
                    member,
                    retention_ms: option(words, "retention").map(|ms| ms.parse().expect("ms")),
                    topics: topics(words, option(words, "meta").unwrap_or("")),
                };
                let waiter = self.waiter(name);
                let effects = self.groups.commit(at, waiter, &request);
                self.take(effects);
            }
            verb => panic!("no verb `{verb}`"),
        }
    }

    fn join(&mut self, name: &str, words: &[&str]) {
        let client = self.clients.entry(name.to_owned()).or_default();
        client.instance_id = option(words, "instance").map(str::to_owned);
        if option(words, "id") == Some("new") {
            client.member_id.clear();
        }
        let client = client.clone();
        self.random += 1;
        let protocols: Vec<(&str, &[u8])> = option(words, "protocols")
            .unwrap_or("range:m")
            .split(',')
            .filter_map(|protocol| protocol.split_once(':'))
            .map(|(name, metadata)| (name, subscription(metadata)))
            .collect();
        let number = |key: &str, default: i32| {
            option(words, key).map_or(default, |value| value.parse().expect("a number"))
        };
        let session_timeout_ms = number("session", 10_000);
        let request = JoinRequest {
            version: number("v", 3) as i16,
            group_id: GROUP,
            member_id: &client.member_id,
            instance_id: client.instance_id.as_deref(),
            client_id: name,
            client_host: "/127.0.0.1",
            protocol_type: option(words, "type").unwrap_or("consumer"),
            protocols: &protocols,
            session_timeout_ms,
            rebalance_timeout_ms: number("rebalance", 60_000),
            random: self.random,
        };
        let waiter = self.waiter(name);
        let effects = self.groups.join(now(self.now_ms), waiter, &request);
        self.take(effects);
    }

    fn waiter(&mut self, name: &str) -> WaiterId {
        let waiter = WaiterId(self.next_waiter);
        self.next_waiter += 1;
        let generation = self.clients.get(name).map_or(-1, |client| client.generation);
        self.waiters.insert(waiter, (name.to_owned(), generation));
        waiter
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist { group, records, on_done } => {
                    assert_eq!(&*group, GROUP);
                    let words: Vec<String> = records.iter().map(show_record).collect();
                    self.said.push(format!("writes {}", words.join(" ")));
                    self.writes.push_back((on_done, records));
                    if !self.hold {
                        self.finish_write(Ok(()));
                    }
                }
                Effect::Reply { waiter, answer } => {
                    let (name, generation) = self.waiters.remove(&waiter).expect("answered once");
                    if let Answer::Sync(SyncAnswer { error: ErrorCode::NONE, assignment, .. }) =
                        &answer
                    {
                        let assignment = String::from_utf8_lossy(assignment).into_owned();
                        self.assigned.push((generation, assignment));
                    }
                    self.show_answer(&name, answer);
                }
            }
        }
    }

    fn finish_write(&mut self, result: Result<(), ErrorCode>) {
        let (id, records) = self.writes.pop_front().expect("a write in flight");
        match result {
            Ok(()) => self.log.extend(records),
            Err(_) => self.any_write_failed = true,
        }
        let effects = self.groups.persisted(now(self.now_ms), id, result);
        self.take(effects);
    }

    fn restart(&mut self) {
        self.writes.clear();
        self.waiters.clear();
        let (groups, effects) = self.replay();
        self.groups = groups;
        self.take(effects);
    }

    /// The groups that the log gives, and what they do at once.
    pub(crate) fn replay(&self) -> (Groups, Vec<Effect>) {
        let mut groups = Groups::new(self.config.clone(), now(self.now_ms));
        for record in &self.log {
            groups.load(&record.key, record.value.as_deref()).expect("our own record");
        }
        let effects = groups.loaded(now(self.now_ms));
        (groups, effects)
    }

    /// Requests not answered yet, and writes in flight.
    pub(crate) fn unfinished(&self) -> (usize, usize) {
        (self.waiters.len(), self.writes.len())
    }

    fn show_answer(&mut self, name: &str, answer: Answer) {
        let words = match answer {
            Answer::Join(answer) => self.show_join(name, &answer),
            Answer::Sync(answer) if answer.error == ErrorCode::NONE => {
                format!("{name} synced {}", String::from_utf8_lossy(&answer.assignment))
            }
            Answer::Sync(answer) => format!("{name} sync {}", answer.error.name()),
            Answer::Commit(answer) => format!("{name} commit {}", show_topics(&answer.topics)),
            Answer::Delete(error) => format!("delete {}", error.name()),
            Answer::DeleteOffsets(answer) if answer.error == ErrorCode::NONE => {
                format!("deleteoffsets {}", show_topics(&answer.topics))
            }
            Answer::DeleteOffsets(answer) => format!("deleteoffsets {}", answer.error.name()),
        };
        self.said.push(words);
    }

    fn show_join(&mut self, name: &str, answer: &JoinAnswer) -> String {
        let client = self.clients.get_mut(name).expect("it asked");
        if answer.error == ErrorCode::MEMBER_ID_REQUIRED {
            client.member_id = answer.member_id.to_string();
        }
        if answer.error != ErrorCode::NONE {
            return format!("{name} join {}", answer.error.name());
        }
        client.member_id = answer.member_id.to_string();
        client.generation = answer.generation;
        let protocol = answer.protocol_name.as_deref().unwrap_or("none");
        let leads = if answer.leader == answer.member_id { "leads" } else { "follows" };
        let skip = if answer.skip_assignment { " skip" } else { "" };
        let members: Vec<String> =
            answer.members.iter().map(|member| short(&member.member_id)).collect();
        let list =
            if members.is_empty() { String::new() } else { format!(" [{}]", members.join(" ")) };
        let (id, generation) = (short(&answer.member_id), answer.generation);
        format!("{name} joined {generation} {protocol} as {id} {leads}{skip}{list}")
    }

    fn fetch(&mut self, partition: &str) {
        let (topic, index) = split_partition(partition);
        let found = self.groups.fetch(GROUP).and_then(|offsets| offsets.get(topic, index));
        self.said.push(match found {
            Some(committed) => format!("{}{}", committed.offset, committed.metadata),
            None => "-1".to_owned(),
        });
    }

    fn describe(&mut self) {
        let Some(group) = self.groups.describe(GROUP) else { return self.said.push("Dead".into()) };
        let members: Vec<String> = group
            .members
            .iter()
            .map(|m| format!("{}={}", short(&m.member_id), String::from_utf8_lossy(&m.assignment)))
            .collect();
        let words = [group.state.name(), &group.protocol_type, &group.protocol_name];
        let words = words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>();
        self.said
            .push(words.join(" ") + &members.iter().map(|m| format!(" {m}")).collect::<String>());
    }

    fn list(&mut self, filters: &[&str]) {
        let filter = |key| option(filters, key).map(|words| words.split(',').collect::<Vec<_>>());
        let states = filter("states").unwrap_or_default();
        let listed = self.groups.list(&states, &filter("types").unwrap_or_default());
        let words = listed.iter().map(|g| format!("{}:{}", g.group_id, g.state.name()));
        self.said.push(words.collect::<Vec<_>>().join(" "));
    }
}

/// Both clocks at `ms` after the start.
fn now(ms: u64) -> Now {
    let wall_ms = WALL_START_MS + i64::try_from(ms).expect("scenarios are short");
    Now { monotonic_ms: ms, wall_ms }
}

/// Metadata `t` and `u` stand for subscriptions to these topics; all else is opaque.
fn subscription(metadata: &str) -> &[u8] {
    match metadata {
        "t" => b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff",
        "u" => b"\0\0\0\0\0\x01\0\x01u\xff\xff\xff\xff",
        other => other.as_bytes(),
    }
}

fn option<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.split_once('=').filter(|(k, _)| *k == key).map(|(_, v)| v))
}

/// `t-0=5 u-1=7` (offsets may be left out) as the topics of a request, one a word.
fn topics<'a>(words: &[&'a str], metadata: &'a str) -> Vec<CommitTopic<'a>> {
    let partitions = words.iter().filter(|word| word.contains('-'));
    partitions
        .map(|word| {
            let (partition, offset) = word.split_once('=').unwrap_or((word, "0"));
            let (name, index) = split_partition(partition);
            let partition = CommitPartition {
                index,
                refused: ErrorCode::NONE,
                offset: offset.parse().expect("an offset"),
                leader_epoch: -1,
                metadata,
                timestamp_ms: None,
            };
            CommitTopic { name, topic_id: Uuid::ZERO, partitions: vec![partition] }
        })
        .collect()
}

fn split_partition(word: &str) -> (&str, i32) {
    let (topic, index) = word.rsplit_once('-').expect("topic-partition");
    (topic, index.parse().expect("a partition"))
}

fn show_topics(topics: &[CommittedTopic]) -> String {
    let partitions = topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(move |(index, error)| match *error {
            ErrorCode::NONE => format!("{}-{index}", topic.name),
            error => format!("{}-{index}={}", topic.name, error.name()),
        })
    });
    partitions.collect::<Vec<_>>().join(" ")
}

/// `a-00000000-0000-4000-8000-000000000001` as `a#1`: the first random number made this id.
fn short(member_id: &str) -> String {
    let (prefix, uuid) = member_id.split_at(member_id.len() - 37);
    format!("{prefix}#{}", uuid.rsplit('-').next().unwrap_or("").trim_start_matches('0'))
}

fn show_record(record: &Record) -> String {
    let sign = if record.value.is_some() { "" } else { "-" };
    let mut reader = Reader::new(&record.key);
    match reader.i16().expect("a key starts with its kind") {
        GroupMetadataKey::API_KEY => format!("{sign}group"),
        _ => {
            let key = OffsetCommitKey::decode(&mut reader, 0).expect("an offset key");
            format!("{sign}{}-{}", key.topic, key.partition)
        }
    }
}
