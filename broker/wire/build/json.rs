//! Schemas to `ToJson` (feature `json`): the fields of a version under their schema names.

use std::fmt::Write;

use crate::rust::{STRING, condition, differs, lifetime, snake, snake_field};
use crate::schema::{Field, Schema};

pub(crate) fn impls(schemas: &[Schema]) -> String {
    let mut out = String::new();
    for schema in schemas {
        for item in &schema.structs {
            let lifetime = if lifetime(schema, &item.name).is_empty() { "" } else { "<'_>" };
            writeln!(
                out,
                "impl ToJson for {}::{}{lifetime} {{ fn to_json(&self, v: i16) -> Value {{
let _ = v; let{} object = Object::default();",
                snake(&schema.name),
                item.name,
                if item.fields.is_empty() { "" } else { " mut" },
            )
            .expect(STRING);
            for field in &item.fields {
                writeln!(out, "{}", put(field, schema)).expect(STRING);
            }
            out.push_str("object.into() } }\n");
        }
    }
    out
}

fn put(field: &Field, schema: &Schema) -> String {
    let (head, tail) = field.name.split_at(1);
    let name = format!("{}{tail}", head.to_ascii_lowercase());
    let put = format!("object.put(\"{name}\", self.{}.to_json(v));", snake_field(&field.name));
    let mut conditions = Vec::new();
    conditions.extend(condition(field.versions, schema.versions));
    if field.is_tagged() {
        conditions.push(differs(field));
    }
    match conditions.is_empty() {
        true => put,
        false => format!("if {} {{ {put} }}", conditions.join(" && ")),
    }
}
