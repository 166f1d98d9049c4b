//! Scripts: what is asked, in which order and on which connection, as lines of text.
//!
//! ```text
//! == name of a scenario                       run once for each version of the APIs marked `*`
//! topic $p-a 2 {"flush.ms": "9"}               made and led
//! group $p-g                                  its coordinator works
//! Heartbeat * {"groupId": "$p-g"}             a request and its answer
//! b: JoinGroup 5 {..} -> member=/memberId     on connection b; a part of the answer gets a name
//! b> JoinGroup 5 {..}                         the answer is taken later,
//! b<                                          here
//! Metadata 9 {..} until /topics/0/errorCode=0 asked again until the answer is so
//! Produce 9 {"acks": 0} silent                nothing comes back
//! ```
//! `$p` is a prefix of names, `$v` the number of the version step, `$name` what was kept.

use millrace_wire::ApiKey;
use millrace_wire::json::Value;

/// A scenario: its name and its lines.
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) lines: Vec<Line>,
}

/// One line of a scenario.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    Topic { name: String, partitions: i32, configs: String },
    Group { id: String },
    Ask(Ask),
    Take { connection: char },
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) connection: char,
    pub(crate) is_taken_later: bool,
    pub(crate) key: ApiKey,
    /// None where it steps through all versions.
    pub(crate) version: Option<i16>,
    /// JSON with names in it.
    pub(crate) body: String,
    /// Name, and pointer into the answer.
    pub(crate) keep: Vec<(String, String)>,
    /// Pointer into the answer, and the value it must have in the end.
    pub(crate) until: Option<(String, Value)>,
    pub(crate) is_silent: bool,
}

/// The scenarios of a script.
pub(crate) fn parse(script: &str) -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for line in script.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("== ") {
            scenarios.push(Scenario { name: name.to_owned(), lines: Vec::new() });
        } else if !line.is_empty() && !line.starts_with('#') {
            let scenario = scenarios.last_mut().expect("a script begins with `== name`");
            scenario.lines.push(parse_line(line).unwrap_or_else(|| panic!("not a line: {line}")));
        }
    }
    scenarios
}

fn parse_line(line: &str) -> Option<Line> {
    if let Some(rest) = line.strip_prefix("topic ") {
        let mut parts = rest.splitn(3, ' ');
        return Some(Line::Topic {
            name: parts.next()?.to_owned(),
            partitions: parts.next()?.parse().ok()?,
            configs: parts.next().unwrap_or("{}").to_owned(),
        });
    }
    if let Some(id) = line.strip_prefix("group ") {
        return Some(Line::Group { id: id.to_owned() });
    }
    let mut chars = line.chars();
    let (connection, mark) = (chars.next()?, chars.next()?);
    match mark {
        '<' => Some(Line::Take { connection }),
        ':' | '>' => parse_ask(line[2..].trim(), connection, mark == '>').map(Line::Ask),
        _ => parse_ask(line, 'a', false).map(Line::Ask),
    }
}

fn parse_ask(line: &str, connection: char, is_taken_later: bool) -> Option<Ask> {
    let mut parts = line.splitn(3, ' ');
    let (name, version, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let key = ApiKey::all().find(|key| key.name() == name)?;
    let version = if version == "*" { None } else { Some(version.parse().ok()?) };
    let end = end_of_json(rest)?;
    let (body, rest) = rest.split_at(end);
    let mut ask = Ask {
        connection,
        is_taken_later,
        key,
        version,
        body: body.to_owned(),
        keep: Vec::new(),
        until: None,
        is_silent: false,
    };
    let mut words = rest.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "silent" => ask.is_silent = true,
            "->" => {
                let (name, pointer) = words.next()?.split_once('=')?;
                ask.keep.push((name.to_owned(), pointer.to_owned()));
            }
            "until" => {
                let (pointer, value) = words.next()?.split_once('=')?;
                ask.until = Some((pointer.to_owned(), serde_json::from_str(value).ok()?));
            }
            _ => return None,
        }
    }
    Some(ask)
}

/// Where the object at the start ends: at its last brace, for a name may stand where a value will.
fn end_of_json(text: &str) -> Option<usize> {
    let (mut depth, mut in_text, mut escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' if !in_text => depth += 1,
            b'}' if !in_text => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}
