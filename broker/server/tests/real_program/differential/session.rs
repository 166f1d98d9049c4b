//! Sessions: what whole clients sent, on which connection and in which order, kept by
//! `tests/clients/python/capture.py` in front of Apache Kafka.
//!
//! ```text
//! == aiokafka 0.14.0       name of a session
//! 3> HEX                   a request on connection 3
//! 3! HEX                   one that got no answer, or none in time
//! 3< HEX                   the next answer was there; HEX only where it is that of a JoinGroup
//! ```
//! The bytes are sent as they are, but for correlation ids, and for the names that the broker gave
//! to members of groups: those it gives now take the place of those it gave then.

use std::collections::{HashMap, VecDeque};

use millrace_wire::ApiKey;
use millrace_wire::json::Value;

use super::schema::{self, unhex};

/// All that one client did.
pub(crate) struct Session {
    pub(crate) name: String,
    pub(crate) events: Vec<Event>,
}

/// One thing that happened on a connection.
pub(crate) struct Event {
    pub(crate) connection: char,
    pub(crate) what: What,
}

/// What happened.
pub(crate) enum What {
    Ask { key: ApiKey, version: i16, frame: Vec<u8>, is_answered: bool },
    Take { captured: Option<Vec<u8>> },
}

impl Session {
    /// What each answer, in the order in which they are taken, is an answer to.
    pub(crate) fn answered(&self) -> Vec<(ApiKey, i16)> {
        let mut owed: HashMap<char, VecDeque<(ApiKey, i16)>> = HashMap::new();
        let answered = self.events.iter().filter_map(|event| {
            let owed = owed.entry(event.connection).or_default();
            match event.what {
                What::Ask { key, version, is_answered, .. } => {
                    owed.extend(is_answered.then_some((key, version)));
                    None
                }
                What::Take { .. } => owed.pop_front(),
            }
        });
        answered.collect()
    }
}

/// A member's name as captured, and as given now.
pub(crate) type Renamed = (String, String);

/// The sessions of a text.
pub(crate) fn parse(text: &str) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            sessions.push(Session { name: name.to_owned(), events: Vec::new() });
            continue;
        }
        let (head, hex) = line.split_once(' ').unwrap_or((line, ""));
        let (number, mark) = head.split_at(head.len() - 1);
        let number: u32 = number.parse().unwrap_or_else(|_| panic!("not a line: {line}"));
        let mut frame = unhex(hex);
        let what = if mark == "<" {
            frame.get_mut(..4).into_iter().for_each(|id| id.copy_from_slice(&7_i32.to_be_bytes()));
            What::Take { captured: (!frame.is_empty()).then_some(frame) }
        } else {
            let (key, version) = schema::asked_for(&mut frame);
            What::Ask { key, version, frame, is_answered: mark == ">" }
        };
        let connection = char::from_u32(0x100 + number).expect("few connections");
        let session = sessions.last_mut().expect("a session begins with `== name`");
        session.events.push(Event { connection, what });
    }
    sessions
}

/// Notes which names of members in an answer stand for which in the captured one.
pub(crate) fn rename(captured: &Value, answer: &Value, names: &mut Vec<Renamed>) {
    let fresh = |of: &Value, is_known: &dyn Fn(&str) -> bool| {
        let members = of["members"].as_array().into_iter().flatten();
        let all = std::iter::once(of).chain(members).filter_map(|one| one["memberId"].as_str());
        let mut fresh: Vec<String> = Vec::new();
        for id in all.filter(|id| !id.is_empty() && !is_known(id)) {
            if fresh.iter().all(|other| other != id) {
                fresh.push(id.to_owned());
            }
        }
        fresh
    };
    let old = fresh(captured, &|id| names.iter().any(|(old, _)| old == id));
    let new = fresh(answer, &|id| names.iter().any(|(_, new)| new == id));
    names.extend(old.into_iter().zip(new));
}

/// A request in which members are called as the broker calls them now.
pub(crate) fn renamed(frame: &[u8], names: &[Renamed]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for (old, new) in names {
        // A string after two bytes of length, and a compact one after its length plus 1.
        let classic = |id: &str| [&(id.len() as i16).to_be_bytes()[..], id.as_bytes()].concat();
        let compact = |id: &str| {
            assert!(id.len() < 127, "a length of one byte");
            [&[id.len() as u8 + 1], id.as_bytes()].concat()
        };
        for (old, new) in [(classic(old), classic(new)), (compact(old), compact(new))] {
            let mut from = 0;
            while let Some(at) = frame[from..].windows(old.len()).position(|bytes| bytes == old) {
                let at = from + at;
                frame.splice(at..at + old.len(), new.iter().copied());
                from = at + new.len();
            }
        }
    }
    frame
}
