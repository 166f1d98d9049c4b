//! Messages as JSON: field names begin in lower case, ids are base64url, bytes are base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
pub use serde_json::Value;

use crate::array::Array;
use crate::codec::Wire;
use crate::messages::*;
use crate::stored::*;
use crate::uuid::Uuid;
use crate::values::Records;

/// A value as JSON; a message shows the fields of `version`, without tagged ones at their default.
pub trait ToJson {
    /// The JSON of it.
    fn to_json(&self, version: i16) -> Value;
}

#[derive(Default)]
struct Object(serde_json::Map<String, Value>);

impl Object {
    fn put(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Value {
        Value::Object(object.0)
    }
}

macro_rules! plain {
    ($($name:ty)*) => { $(
        impl ToJson for $name {
            fn to_json(&self, _: i16) -> Value {
                Value::from(*self)
            }
        }
    )* };
}

plain!(bool i8 i16 u16 i32 u32 i64 f64 &str);

impl ToJson for Uuid {
    fn to_json(&self, _: i16) -> Value {
        Value::from(self.to_string())
    }
}

impl ToJson for &[u8] {
    fn to_json(&self, _: i16) -> Value {
        Value::from(STANDARD.encode(self))
    }
}

impl ToJson for Records<'_> {
    fn to_json(&self, version: i16) -> Value {
        self.bytes().to_json(version)
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn to_json(&self, version: i16) -> Value {
        self.as_ref().map_or(Value::Null, |value| value.to_json(version))
    }
}

impl<'a, T: ToJson + Wire<'a>> ToJson for Array<'a, T> {
    fn to_json(&self, version: i16) -> Value {
        self.iter().map(|element| element.to_json(version)).collect()
    }
}

include!(concat!(env!("OUT_DIR"), "/messages_json.rs"));
include!(concat!(env!("OUT_DIR"), "/records_json.rs"));
