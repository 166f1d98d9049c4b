//! `errors.json` and `api-versions.json` to Rust tables.

use std::fmt::Write;

use serde_json::Value;

use crate::rust::STRING;

pub(crate) fn error_codes(json: &Value) -> String {
    let mut consts = String::new();
    let mut rows = String::new();
    for error in json.as_array().expect("a list") {
        let (code, name) = (&error["code"], error["name"].as_str().expect("a name"));
        writeln!(consts, "/// Code {code}.\npub const {name}: ErrorCode = ErrorCode({code});")
            .expect(STRING);
        writeln!(rows, "({code}, \"{name}\", {}),", error["retriable"]).expect(STRING);
    }
    format!("impl ErrorCode {{\n{consts}}}\nconst ROWS: &[(i16, &str, bool)] = &[\n{rows}];\n")
}

pub(crate) fn api_keys(json: &Value) -> String {
    let mut variants = String::new();
    let mut rows = String::new();
    for api in json.as_array().expect("a list") {
        let (key, name) = (&api["key"], api["name"].as_str().expect("a name"));
        writeln!(variants, "/// Key {key}.\n{name} = {key},").expect(STRING);
        writeln!(
            rows,
            "Row {{ key: ApiKey::{name}, name: \"{name}\", request_header: {}, response_header: {} }},",
            header_versions(&api["requestHeader"]),
            header_versions(&api["responseHeader"]),
        )
        .expect(STRING);
    }
    format!(
        "/// The number of an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum ApiKey {{\n{variants}}}\nconst ROWS: &[Row] = &[\n{rows}];\n"
    )
}

/// `{"0": 1, "9": 2}` as `&[(0, 1), (9, 2)]`: from which api version a header version applies.
fn header_versions(json: &Value) -> String {
    let mut pairs: Vec<(i16, &Value)> = json
        .as_object()
        .expect("header versions by api version")
        .iter()
        .map(|(from, header)| (from.parse().expect("a version"), header))
        .collect();
    pairs.sort_by_key(|pair| pair.0);
    let pairs: Vec<String> =
        pairs.iter().map(|(from, header)| format!("({from}, {header})")).collect();
    format!("&[{}]", pairs.join(", "))
}
