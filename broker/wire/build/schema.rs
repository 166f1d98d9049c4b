//! The schemas of `schemas/` as Rust values, version ranges resolved.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Versions from `first` to `last`, both inclusive; empty when `first > last`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Versions {
    pub(crate) first: i16,
    pub(crate) last: i16,
}

impl Versions {
    pub(crate) const NONE: Versions = Versions { first: 1, last: 0 };

    fn parse(text: &str) -> Versions {
        let number = |text: &str| text.parse().expect("a version is a small integer");
        match text.split_once('-') {
            _ if text == "none" => Versions::NONE,
            Some((first, last)) => Versions { first: number(first), last: number(last) },
            None => match text.strip_suffix('+') {
                Some(first) => Versions { first: number(first), last: i16::MAX },
                None => Versions { first: number(text), last: number(text) },
            },
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.first > self.last
    }

    pub(crate) fn within(self, other: Versions) -> Versions {
        Versions { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    /// Whether `self` holds every version of `other`.
    pub(crate) fn covers(self, other: Versions) -> bool {
        other.is_empty() || self.first <= other.first && self.last >= other.last
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Bool,
    Integer(&'static str),
    Float,
    String,
    Bytes,
    Records,
    Uuid,
    Struct(String),
    Array(Box<Kind>),
}

impl Kind {
    fn parse(text: &str) -> Kind {
        if let Some(element) = text.strip_prefix("[]") {
            return Kind::Array(Box::new(Kind::parse(element)));
        }
        match text {
            "bool" => Kind::Bool,
            "int8" => Kind::Integer("i8"),
            "int16" => Kind::Integer("i16"),
            "uint16" => Kind::Integer("u16"),
            "int32" => Kind::Integer("i32"),
            "uint32" => Kind::Integer("u32"),
            "int64" => Kind::Integer("i64"),
            "float64" => Kind::Float,
            "string" => Kind::String,
            "bytes" => Kind::Bytes,
            "records" => Kind::Records,
            "uuid" => Kind::Uuid,
            name => Kind::Struct(name.to_owned()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Field {
    /// As in the schema: `TopicData`.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) versions: Versions,
    pub(crate) nullable: Versions,
    pub(crate) tagged: Versions,
    pub(crate) tag: u32,
    pub(crate) default: Option<String>,
    pub(crate) ignorable: bool,
    /// A string that stays in the classic form in flexible versions (`RequestHeader.ClientId`).
    pub(crate) classic: bool,
}

impl Field {
    pub(crate) fn is_nullable(&self) -> bool {
        !self.nullable.is_empty()
    }

    pub(crate) fn is_tagged(&self) -> bool {
        !self.tagged.is_empty()
    }

    pub(crate) fn default_is_null(&self) -> bool {
        self.default.as_deref() == Some("null")
    }
}

#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) api_key: Option<i16>,
    pub(crate) versions: Versions,
    pub(crate) flexible: Versions,
    /// The message itself first, then its structs.
    pub(crate) structs: Vec<Struct>,
}

/// All schemas of a folder, by name.
pub(crate) fn read_folder(folder: &Path) -> Vec<Schema> {
    let entries = fs::read_dir(folder).expect("the schemas are part of the source tree");
    let mut paths: Vec<_> =
        entries.map(|entry| entry.expect("a folder that can be read").path()).collect();
    paths.sort();
    paths.iter().map(|path| parse(&read_json(path))).collect()
}

pub(crate) fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("the schemas are part of the source tree");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parse(json: &Value) -> Schema {
    let versions = Versions::parse(text(json, "validVersions"));
    let mut schema = Schema {
        name: text(json, "name").to_owned(),
        kind: text(json, "type").to_owned(),
        api_key: json["apiKey"].as_i64().map(|key| key.try_into().expect("an api key is an int16")),
        versions,
        flexible: Versions::parse(text(json, "flexibleVersions")).within(versions),
        structs: Vec::new(),
    };
    parse_struct(text(json, "name"), &json["fields"], &mut schema);
    for common in json["commonStructs"].as_array().into_iter().flatten() {
        parse_struct(text(common, "name"), &common["fields"], &mut schema);
    }
    schema
}

fn parse_struct(name: &str, fields: &Value, schema: &mut Schema) {
    let fields = fields.as_array().expect("a struct has a list of fields");
    let place = schema.structs.len();
    schema.structs.push(Struct { name: name.to_owned(), fields: Vec::new() });
    for field in fields {
        let kind = Kind::parse(text(field, "type"));
        if field["fields"].is_array() {
            let inner = text(field, "type").trim_start_matches("[]");
            parse_struct(inner, &field["fields"], schema);
        }
        let range = |key: &str| {
            field[key].as_str().map_or(Versions::NONE, Versions::parse).within(schema.versions)
        };
        let field = Field {
            name: text(field, "name").to_owned(),
            kind,
            versions: range("versions"),
            nullable: range("nullableVersions"),
            tagged: range("taggedVersions"),
            tag: field["tag"].as_u64().unwrap_or(0) as u32,
            default: field["default"].as_str().map(str::to_owned),
            ignorable: field["ignorable"].as_bool().unwrap_or(false),
            classic: field["flexibleVersions"].as_str() == Some("none"),
        };
        schema.structs[place].fields.push(field);
    }
}

fn text<'a>(json: &'a Value, key: &str) -> &'a str {
    json[key].as_str().unwrap_or_else(|| panic!("no {key} in {json}"))
}
