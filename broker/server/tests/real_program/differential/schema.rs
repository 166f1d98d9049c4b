//! Requests from JSON, by the schemas and without our codec, and responses as JSON by our codec.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millrace_wire::batch::{BatchBuilder, BatchOptions, Headers, Record, patch_crc};
use millrace_wire::compression::Compression;
use millrace_wire::json::{ToJson, Value};
use millrace_wire::message_set::SetOptions;
use millrace_wire::messages::ResponseHeader;
use millrace_wire::{ApiKey, Message, Reader, Uuid, api, for_each_message, message_set};
use serde_json::json;

/// Every schema by its name.
pub(crate) struct Schemas(HashMap<String, Value>);

/// One message being written.
struct Encoder<'s> {
    out: Vec<u8>,
    schema: &'s Value,
    version: i64,
}

impl Schemas {
    pub(crate) fn load() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/schemas/messages");
        let entries = std::fs::read_dir(folder).expect("the schemas are in the tree");
        let schemas = entries.map(|entry| {
            let text = std::fs::read(entry.expect("readable").path()).expect("readable");
            let schema: Value = serde_json::from_slice(&text).expect("schemas are JSON");
            (schema["name"].as_str().expect("a name").to_owned(), schema)
        });
        Self(schemas.collect())
    }

    /// The frame, without its length, of a request with this body.
    pub(crate) fn request(&self, key: ApiKey, version: i16, body: &Value) -> Vec<u8> {
        let schema = &self.0[&format!("{key}Request")];
        let mut encoder =
            Encoder { out: header(key, version), schema, version: i64::from(version) };
        encoder.fields(&schema["fields"], body);
        encoder.out
    }
}

/// The header of a request; its correlation id is 7.
pub(crate) fn header(key: ApiKey, version: i16) -> Vec<u8> {
    let mut out = [key as i16, version, 0, 7, 4].map(i16::to_be_bytes).concat();
    out.extend(b"diff");
    if api::request_header_version(key, version) == 2 {
        out.push(0);
    }
    out
}

/// What a captured request asks for; its correlation id becomes 7.
pub(crate) fn asked_for(frame: &mut [u8]) -> (ApiKey, i16) {
    let number = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
    let key = ApiKey::try_from(number(0)).expect("clients know the keys");
    let version = number(2);
    frame[4..8].copy_from_slice(&7_i32.to_be_bytes());
    (key, version)
}

/// A response's frame as JSON.
pub(crate) fn response(key: ApiKey, version: i16, frame: &[u8]) -> Result<Value, String> {
    let name = format!("{key}Response");
    // A version of ApiVersions that is not known is answered as version 0.
    let is_refused = key == ApiKey::ApiVersions && frame.get(4..6) == Some(&[0, 35]);
    let version = if is_refused { 0 } else { version };
    macro_rules! arm {
        ($message:path, $name:ident) => {
            if name == stringify!($name) {
                return decode::<$message>(key, version, frame);
            }
        };
    }
    for_each_message!(arm);
    Err(format!("no {name}"))
}

fn decode<'a, M: Message<'a> + ToJson>(
    key: ApiKey,
    version: i16,
    frame: &'a [u8],
) -> Result<Value, String> {
    let mut reader = Reader::new(frame);
    let header = api::response_header_version(key, version);
    let header = ResponseHeader::decode(&mut reader, header).map_err(|error| error.to_string())?;
    let message = M::decode(&mut reader, version).map_err(|error| error.to_string())?;
    match (reader.remaining(), header.correlation_id) {
        (0, 7) => Ok(message.to_json(version)),
        (left, id) => Err(format!("{left} bytes left, correlation id {id}")),
    }
}

/// The records of message sets by their offsets: how sets are compressed, cut and filled up is not
/// compared.
pub(crate) fn spread_messages(answer: &mut Value) {
    let topics = answer["responses"].as_array_mut().into_iter().flatten();
    for partition in topics.flat_map(|topic| topic["partitions"].as_array_mut()).flatten() {
        let Some(set) = partition["records"].as_str() else { continue };
        let set = STANDARD.decode(set).expect("bytes in JSON are base64");
        let (mut scratch, mut found) = (Vec::new(), json!({}));
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| STANDARD.encode(bytes));
        for message in message_set::messages(&set).map_while(Result::ok) {
            message.verify_crc().expect("checksums are right");
            let records = message.records(&mut scratch, 1 << 20).expect("sets are whole");
            for record in records {
                found[record.offset.to_string()] =
                    json!([message.magic, record.timestamp, text(record.key), text(record.value)]);
            }
        }
        partition["records"] = found;
    }
}

impl<'s> Encoder<'s> {
    fn is_flexible(&self, field: &Value) -> bool {
        let of_field = &field["flexibleVersions"];
        let versions = if of_field.is_null() { &self.schema["flexibleVersions"] } else { of_field };
        contains(versions, self.version)
    }

    fn fields(&mut self, fields: &'s Value, body: &Value) {
        let mut tagged = Vec::new();
        for field in fields.as_array().expect("a list of fields") {
            let name = lower_first(field["name"].as_str().expect("a name"));
            if contains(&field["taggedVersions"], self.version) {
                if let Some(value) = body.get(&name) {
                    tagged.push((field["tag"].as_i64().expect("a tag"), field, value.clone()));
                }
            } else if contains(&field["versions"], self.version) {
                let value = body.get(&name).cloned().unwrap_or_else(|| default(field));
                let kind = field["type"].as_str().expect("a type");
                self.value(field, kind, &value);
            }
        }
        if contains(&self.schema["flexibleVersions"], self.version) {
            self.varint(tagged.len());
            tagged.sort_by_key(|(tag, ..)| *tag);
            for (tag, field, value) in tagged {
                let outer = std::mem::take(&mut self.out);
                self.value(field, field["type"].as_str().expect("a type"), &value);
                let inner = std::mem::replace(&mut self.out, outer);
                self.varint(tag as usize);
                self.varint(inner.len());
                self.out.extend(inner);
            }
        }
    }

    fn value(&mut self, field: &'s Value, kind: &str, value: &Value) {
        let number = || value.as_i64().unwrap_or_else(|| panic!("{} is {value}", field["name"]));
        match kind {
            "bool" => self.out.push(value.as_bool().expect("a boolean").into()),
            "int8" => self.out.push(number() as u8),
            "int16" | "uint16" => self.out.extend((number() as i16).to_be_bytes()),
            "int32" | "uint32" => self.out.extend((number() as i32).to_be_bytes()),
            "int64" => self.out.extend(number().to_be_bytes()),
            "float64" => self.out.extend(value.as_f64().expect("a number").to_be_bytes()),
            "uuid" => {
                let id: Uuid = value.as_str().expect("text").parse().expect("an id");
                self.out.extend(id.to_bytes());
            }
            "string" => self.sized(field, value.as_str().map(|text| text.as_bytes().into()), 2),
            "bytes" | "records" => self.sized(field, bytes(value), 4),
            _ => self.structure(field, kind, value),
        }
    }

    fn structure(&mut self, field: &'s Value, kind: &str, value: &Value) {
        let Some(of) = kind.strip_prefix("[]") else {
            if contains(&field["nullableVersions"], self.version) {
                self.out.push(if value.is_null() { 0xff } else { 1 });
            }
            return match value {
                Value::Null => {}
                value => self.fields(self.fields_of(field, kind), value),
            };
        };
        let elements = value.as_array();
        self.length(field, elements.map(Vec::len), 4);
        for element in elements.into_iter().flatten() {
            match self.fields_of(field, of) {
                Value::Null => self.value(field, of, element),
                fields => self.fields(fields, element),
            }
        }
    }

    /// The fields of a struct of that name, null when it is a plain type. Structs named by several
    /// fields stand apart.
    fn fields_of(&self, field: &'s Value, name: &str) -> &'s Value {
        let apart = self.schema["commonStructs"].as_array().into_iter().flatten();
        let found = apart.into_iter().find(|common| common["name"] == name);
        found.map_or(&field["fields"], |common| &common["fields"])
    }

    fn sized(&mut self, field: &Value, bytes: Option<Vec<u8>>, length_bytes: usize) {
        self.length(field, bytes.as_ref().map(Vec::len), length_bytes);
        self.out.extend(bytes.unwrap_or_default());
    }

    fn length(&mut self, field: &Value, length: Option<usize>, length_bytes: usize) {
        let number = length.map_or(-1, |length| length as i64);
        match length_bytes {
            _ if self.is_flexible(field) => self.varint((number + 1) as usize),
            2 => self.out.extend((number as i16).to_be_bytes()),
            _ => self.out.extend((number as i32).to_be_bytes()),
        }
    }

    fn varint(&mut self, mut rest: usize) {
        while rest >= 0x80 {
            self.out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.out.push(rest as u8);
    }
}

/// The value of a field that the JSON does not have.
fn default(field: &Value) -> Value {
    let kind = field["type"].as_str().expect("a type");
    match field["default"].as_str() {
        Some("null") => Value::Null,
        Some(text) if kind == "string" => text.into(),
        Some(text) => serde_json::from_str(text).expect("a number or a boolean"),
        None => match kind {
            "bool" => false.into(),
            "string" | "bytes" | "records" => "".into(),
            "uuid" => Uuid::ZERO.to_string().into(),
            _ if kind.starts_with("[]") => Value::Array(Vec::new()),
            _ if kind.starts_with(|first: char| first.is_ascii_uppercase()) => {
                Value::Object(serde_json::Map::new())
            }
            _ => 0.into(),
        },
    }
}

/// Bytes: null, a text's own, `{"hex": ..}`, `{"batches": [..]}`, or `{"messages": ..}`; after
/// `sub:` a subscription to no topic with that text as the user's data. (Apache Kafka never answers
/// a JoinGroup of a consumer whose metadata is none.)
fn bytes(value: &Value) -> Option<Vec<u8>> {
    if let Some(data) = value.as_str().and_then(|text| text.strip_prefix("sub:")) {
        return Some([&[0; 6][..], &(data.len() as i32).to_be_bytes(), data.as_bytes()].concat());
    }
    if let Some(text) = value.as_str() {
        return Some(text.as_bytes().into());
    }
    if let Some(hex) = value["hex"].as_str() {
        return Some(unhex(hex));
    }
    if let Some(batches) = value["batches"].as_array() {
        return Some(batches.iter().flat_map(batch).collect());
    }
    value.is_object().then(|| messages(&value["messages"]))
}

/// `{"records": [[time, key, value], ..], "codec", "producer": [id, epoch, sequence], "flags",
/// "patch": [position, hex], "crc": "wrong", "cut": bytes}`.
fn batch(of: &Value) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for [time, key, value] in records(of) {
        let time = time.as_i64().expect("a time");
        builder.append(
            time,
            key.as_str().map(str::as_bytes),
            value.as_str().map(str::as_bytes),
            &[],
        );
    }
    let producer = |place: usize| of["producer"][place].as_i64().unwrap_or(-1);
    let has = |flag: &str| of["flags"].as_str().is_some_and(|flags| flags.contains(flag));
    let options = BatchOptions {
        compression: codec(of),
        producer_id: producer(0),
        producer_epoch: producer(1) as i16,
        base_sequence: producer(2) as i32,
        transactional: has("transactional"),
        control: has("control"),
        ..BatchOptions::default()
    };
    let mut batch = builder.finish(&options).expect("it compresses").to_vec();
    if let Some(at) = of["patch"][0].as_u64() {
        let patch = unhex(of["patch"][1].as_str().expect("hex digits"));
        batch[at as usize..][..patch.len()].copy_from_slice(&patch);
        patch_crc(&mut batch);
    }
    if of["crc"] == "wrong" {
        batch[17] ^= 1;
    }
    batch.truncate(of["cut"].as_u64().map_or(batch.len(), |bytes| bytes as usize));
    batch
}

/// A message set: as a batch, with "magic".
fn messages(of: &Value) -> Vec<u8> {
    let rows: Vec<[Value; 3]> = records(of).collect();
    let records = rows.iter().enumerate().map(|(offset, [time, key, value])| Record {
        offset: offset as i64,
        timestamp: time.as_i64().expect("a time"),
        key: key.as_str().map(str::as_bytes),
        value: value.as_str().map(str::as_bytes),
        headers: Headers::default(),
    });
    let magic = of["magic"].as_i64().expect("0 or 1") as i8;
    let options = SetOptions { magic, compression: codec(of), log_append_time: false };
    let mut out = Vec::new();
    message_set::write(records, options, &mut out).expect("it compresses");
    out
}

fn records(of: &Value) -> impl Iterator<Item = [Value; 3]> {
    let rows = of["records"].as_array().expect("a list of records");
    rows.iter().map(|row| [row[0].clone(), row[1].clone(), row[2].clone()])
}

fn codec(of: &Value) -> Compression {
    let name = of["codec"].as_str().unwrap_or("none");
    let codec = (0..5).find_map(|id| {
        let codec = Compression::from_attributes(id).expect("five codecs");
        (codec.name() == name).then_some(codec)
    });
    codec.expect("a codec of Kafka")
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let pair = |pair| std::str::from_utf8(pair).expect("hex digits");
    let byte = |two| u8::from_str_radix(pair(two), 16).expect("hex digits");
    text.as_bytes().chunks(2).map(byte).collect()
}

/// Whether a range of a schema, such as `3`, `1-4`, `2+` or `none`, has the version.
fn contains(range: &Value, version: i64) -> bool {
    let text = range.as_str().unwrap_or("none");
    let number = |text: &str| text.parse::<i64>().expect("a version");
    match (text, text.strip_suffix('+'), text.split_once('-')) {
        ("none", ..) => false,
        (_, Some(first), _) => version >= number(first),
        (_, _, Some((first, last))) => (number(first)..=number(last)).contains(&version),
        _ => version == number(text),
    }
}

fn lower_first(name: &str) -> String {
    let (head, tail) = name.split_at(1);
    format!("{}{tail}", head.to_ascii_lowercase())
}
