//! Schemas to Rust: one module per message with its structs, their defaults, `Wire` and `Message`.
//!
//! What can be shared stands in the crate (`Reader`, `Writer`, `Array`, `UnknownTags`): a generated
//! function only names the fields, so that thousands of them stay quick to compile.

use std::fmt::Write;

use crate::schema::{Field, Kind, Schema, Struct, Versions};

pub(crate) fn modules(schemas: &[Schema]) -> String {
    let mut out = String::new();
    for schema in schemas {
        let (module, name) = (snake(&schema.name), &schema.name);
        writeln!(out, "pub use {module}::{name};").expect(STRING);
        writeln!(out, "/// [`{name}`] and its structs.\npub mod {module} {{").expect(STRING);
        out.push_str("use crate::codec::*;\n");
        for item in &schema.structs {
            Generator { schema, item, out: &mut out }.item();
        }
        message(schema, &mut out);
        out.push_str("}\n");
    }
    list(schemas, &mut out);
    out
}

pub(crate) const STRING: &str = "writing to a String cannot fail";

/// A macro that calls another one with every message, for tests and tools over all of them.
fn list(schemas: &[Schema], out: &mut String) {
    let (name, module) = match schemas.iter().any(|schema| schema.kind == "request") {
        true => ("for_each_message", "messages"),
        false => ("for_each_stored", "stored"),
    };
    writeln!(out, "/// Expands to `$call!(path, Name)` for every type of `{module}`.")
        .expect(STRING);
    writeln!(out, "#[macro_export]\nmacro_rules! {name} {{ ($call:ident) => {{").expect(STRING);
    for schema in schemas {
        writeln!(out, "$call!($crate::{module}::{0}, {0});", schema.name).expect(STRING);
    }
    out.push_str("}; }\n");
}

fn message(schema: &Schema, out: &mut String) {
    let Versions { first, last } = schema.versions;
    let flexible = match schema.flexible.is_empty() {
        true => "i16::MAX".to_owned(),
        false => schema.flexible.first.to_string(),
    };
    let name = &schema.name;
    writeln!(
        out,
        "impl<'a> Message<'a> for {name}{lifetime} {{
const NAME: &'static str = \"{name}\";
const API_KEY: i16 = {key};
const VERSIONS: std::ops::RangeInclusive<i16> = {first}..={last};
const FLEXIBLE_FROM: i16 = {flexible};
}}",
        lifetime = lifetime(schema, name),
        key = schema.api_key.unwrap_or(-1),
    )
    .expect(STRING);
    if schema.kind == "request" {
        let response = name.replace("Request", "Response");
        // Every response borrows, even the two without a flexible version.
        writeln!(
            out,
            "impl<'a> Request<'a> for {name}{} {{ type Response<'r> = crate::messages::{response}<'r>; }}",
            lifetime(schema, name),
        )
        .expect(STRING);
    }
}

/// `<'a>` where the struct borrows from the frame.
pub(crate) fn lifetime(schema: &Schema, name: &str) -> &'static str {
    if borrows(schema, name) { "<'a>" } else { "" }
}

fn borrows(schema: &Schema, name: &str) -> bool {
    let item = find(schema, name);
    let field_borrows = |field: &Field| match &field.kind {
        Kind::Bool | Kind::Integer(_) | Kind::Float | Kind::Uuid => false,
        Kind::Struct(name) => borrows(schema, name),
        Kind::String | Kind::Bytes | Kind::Records | Kind::Array(_) => true,
    };
    !schema.flexible.is_empty() || item.fields.iter().any(field_borrows)
}

fn find<'s>(schema: &'s Schema, name: &str) -> &'s Struct {
    let found = schema.structs.iter().find(|item| item.name == name);
    found.unwrap_or_else(|| panic!("{}: no struct {name}", schema.name))
}

fn rust_type(schema: &Schema, kind: &Kind) -> String {
    match kind {
        Kind::Bool => "bool".to_owned(),
        Kind::Integer(name) => (*name).to_owned(),
        Kind::Float => "f64".to_owned(),
        Kind::String => "&'a str".to_owned(),
        Kind::Bytes => "&'a [u8]".to_owned(),
        Kind::Records => "Records<'a>".to_owned(),
        Kind::Uuid => "Uuid".to_owned(),
        Kind::Struct(name) => format!("{name}{}", lifetime(schema, name)),
        Kind::Array(element) => format!("Array<'a, {}>", rust_type(schema, element)),
    }
}

/// The default as an expression.
fn default_of(field: &Field) -> String {
    let value = match (&field.kind, field.default.as_deref()) {
        (_, Some("null")) => return "None".to_owned(),
        (Kind::Bool, given) => given.unwrap_or("false").to_owned(),
        (Kind::Integer(_), given) => given.unwrap_or("0").to_owned(),
        (Kind::Float, given) => format!("{}f64", given.unwrap_or("0")),
        (Kind::Uuid, _) => "Uuid::ZERO".to_owned(),
        (Kind::String, _) => "\"\"".to_owned(),
        (Kind::Bytes, _) => "&[]".to_owned(),
        (Kind::Records | Kind::Array(_) | Kind::Struct(_), _) => "Default::default()".to_owned(),
    };
    if field.is_nullable() { format!("Some({value})") } else { value }
}

/// Whether `self.field` differs from its default, as an expression.
pub(crate) fn differs(field: &Field) -> String {
    let name = snake_field(&field.name);
    if field.default_is_null() {
        return format!("self.{name}.is_some()");
    }
    match field.kind {
        Kind::Bool if field.default.as_deref() == Some("true") => format!("!self.{name}"),
        Kind::Bool => format!("self.{name}"),
        Kind::Integer(_) | Kind::Float | Kind::Uuid => {
            format!("self.{name} != {}", default_of(field))
        }
        Kind::Struct(_) => format!("self.{name} != {}", default_of(field)),
        _ if field.is_nullable() => format!("self.{name}.as_ref().is_none_or(|x| !x.is_empty())"),
        _ => format!("!self.{name}.is_empty()"),
    }
}

/// Whether version `v` is one of `versions`, as an expression; `None` when it always is.
pub(crate) fn condition(versions: Versions, all: Versions) -> Option<String> {
    let Versions { first, last } = versions;
    match (first <= all.first, last >= all.last) {
        (true, true) => None,
        (false, true) => Some(format!("v >= {first}")),
        (true, false) => Some(format!("v <= {last}")),
        (false, false) => Some(format!("({first}..={last}).contains(&v)")),
    }
}

struct Generator<'s> {
    schema: &'s Schema,
    item: &'s Struct,
    out: &'s mut String,
}

impl Generator<'_> {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn flexible(&self) -> bool {
        !self.schema.flexible.is_empty()
    }

    fn header(&self) -> String {
        format!("{}{}", self.item.name, lifetime(self.schema, &self.item.name))
    }

    fn item(&mut self) {
        self.definition();
        self.default();
        let header = self.header();
        let minimum = self.minimum();
        self.line(&format!("impl<'a> Wire<'a> for {header} {{"));
        self.line(&format!("const BYTES_MIN: usize = {minimum};"));
        self.read();
        self.write();
        self.line("}");
    }

    fn definition(&mut self) {
        let (schema, item, header) = (self.schema, self.item, self.header());
        let Versions { first, last } = schema.versions;
        self.line(&format!("/// `{}`, versions {first} to {last}.", item.name));
        self.line(&format!("#[derive(Clone, Debug, PartialEq)]\npub struct {header} {{"));
        for field in &item.fields {
            let kind = rust_type(schema, &field.kind);
            let kind = if field.is_nullable() { format!("Option<{kind}>") } else { kind };
            self.line(&format!("/// {}", describe(field, schema.versions)));
            self.line(&format!("pub {}: {kind},", snake_field(&field.name)));
        }
        if self.flexible() {
            self.line("/// Tagged fields this schema does not name.");
            self.line("pub unknown_tags: UnknownTags<'a>,");
        }
        self.line("}");
    }

    fn default(&mut self) {
        let header = self.header();
        let lifetime = lifetime(self.schema, &self.item.name);
        self.line(&format!(
            "impl{lifetime} Default for {header} {{ #[inline] fn default() -> Self {{ Self {{"
        ));
        for field in &self.item.fields {
            self.line(&format!("{}: {},", snake_field(&field.name), default_of(field)));
        }
        if self.flexible() {
            self.line("unknown_tags: UnknownTags::NONE,");
        }
        self.line("} } }");
    }

    /// The smallest encoding in any version.
    fn minimum(&self) -> String {
        let everywhere =
            |field: &&Field| field.versions.covers(self.schema.versions) && !field.is_tagged();
        let mut sum = vec!["0".to_owned()];
        for field in self.item.fields.iter().filter(everywhere) {
            sum.push(match field.is_nullable() {
                // A null is one byte at the least, in every form.
                true => "1".to_owned(),
                false => {
                    format!("<{} as Wire<'a>>::BYTES_MIN", rust_type(self.schema, &field.kind))
                }
            });
        }
        sum.join(" + ")
    }

    fn read(&mut self) {
        let schema = self.schema;
        self.line("#[inline]\nfn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {");
        self.line("let v = r.version(); let _ = v;");
        let tagged: Vec<&Field> = self.item.fields.iter().filter(|f| f.is_tagged()).collect();
        let bind = if tagged.is_empty() { "Ok(Self {" } else { "let mut this = Self {" };
        self.line(bind);
        for field in &self.item.fields {
            let name = snake_field(&field.name);
            let value = match condition(field.versions, schema.versions) {
                _ if field.is_tagged() => default_of(field),
                None => read_field(field, schema),
                Some(condition) => {
                    format!(
                        "if {condition} {{ {} }} else {{ {} }}",
                        read_field(field, schema),
                        default_of(field)
                    )
                }
            };
            self.line(&format!("{name}: {value},"));
        }
        if !self.flexible() {
            self.line("}) }");
        } else if tagged.is_empty() {
            self.line("unknown_tags: r.unknown_tags()?, }) }");
        } else {
            self.line("unknown_tags: UnknownTags::NONE, };");
            self.line("this.unknown_tags = r.tags(&mut |r, tag| { match tag {");
            for field in tagged {
                let guard = condition(field.tagged, schema.flexible);
                let guard = guard.map_or(String::new(), |condition| format!(" if {condition}"));
                let read = match field.kind {
                    Kind::Struct(_) if field.is_nullable() => "r.tagged_nullable()?",
                    _ => "r.read()?",
                };
                self.line(&format!(
                    "{}{guard} => this.{} = {read},",
                    field.tag,
                    snake_field(&field.name)
                ));
            }
            self.line("_ => return Ok(false), } Ok(true) })?; Ok(this) }");
        }
    }

    fn write(&mut self) {
        let schema = self.schema;
        self.line("#[inline]\nfn write(&self, w: &mut Writer) -> Result<(), EncodeError> {");
        self.line("let v = w.version(); let _ = v;");
        for field in self.item.fields.iter().filter(|field| !field.is_tagged()) {
            let write = write_field(field, schema, &self.item.name);
            let absent = self.absent(field);
            match condition(field.versions, schema.versions) {
                None => self.line(&write),
                Some(condition) if absent.is_empty() => {
                    self.line(&format!("if {condition} {{ {write} }}"));
                }
                Some(condition) => {
                    self.line(&format!("if {condition} {{ {write} }} else {absent}"));
                }
            }
        }
        let mut tagged: Vec<&Field> = self.item.fields.iter().filter(|f| f.is_tagged()).collect();
        tagged.sort_by_key(|field| field.tag);
        if !tagged.is_empty() {
            self.line("let mut tags = w.begin_tags(&self.unknown_tags);");
        }
        for field in &tagged {
            let name = snake_field(&field.name);
            let write = match field.kind {
                Kind::Struct(_) if field.is_nullable() => {
                    format!("w.tagged_nullable(&self.{name})")
                }
                _ => format!("self.{name}.write(w)"),
            };
            let differs = differs(field);
            let write = format!("if {differs} {{ tags.field(w, {}, |w| {write})?; }}", field.tag);
            match condition(field.tagged, schema.versions) {
                None => self.line(&write),
                Some(condition) if field.ignorable => {
                    self.line(&format!("if {condition} {{ {write} }}"));
                }
                Some(condition) => {
                    let absent = self.absent(field);
                    self.line(&format!("if {condition} {{ {write} }} else {absent}"));
                }
            }
        }
        self.line(match (self.flexible(), tagged.is_empty()) {
            (false, _) => "Ok(()) }",
            (true, true) => "w.unknown_tags(&self.unknown_tags) }",
            (true, false) => "tags.end(w) }",
        });
    }

    /// The refusal of a value that the version has no place for; empty when it may be dropped.
    fn absent(&self, field: &Field) -> String {
        match field.ignorable {
            true => String::new(),
            false => format!(
                "if {} {{ return Err(w.absent(\"{}.{}\")); }}",
                differs(field),
                self.item.name,
                field.name
            ),
        }
    }
}

fn read_field(field: &Field, schema: &Schema) -> String {
    if field.classic {
        return "r.read_classic()?".to_owned();
    }
    let present = field.versions.within(schema.versions);
    match field.is_nullable() && !field.nullable.covers(present) {
        false => "r.read()?".to_owned(),
        true => {
            let nullable = condition(field.nullable, present).expect("it does not cover all");
            format!("if {nullable} {{ r.read()? }} else {{ Some(r.read()?) }}")
        }
    }
}

fn write_field(field: &Field, schema: &Schema, item: &str) -> String {
    let name = snake_field(&field.name);
    if field.classic {
        return format!("w.write_classic(&self.{name})?;");
    }
    let present = field.versions.within(schema.versions);
    match field.is_nullable() && !field.nullable.covers(present) {
        false => format!("self.{name}.write(w)?;"),
        true => {
            let nullable = condition(field.nullable, present).expect("it does not cover all");
            let required = format!("w.required(&self.{name}, \"{item}.{}\")?;", field.name);
            format!("if {nullable} {{ self.{name}.write(w)?; }} else {{ {required} }}")
        }
    }
}

fn describe(field: &Field, all: Versions) -> String {
    let range = |versions: Versions| match versions {
        Versions { first, last } if last == all.last => format!("{first}+"),
        Versions { first, last } if first == last => first.to_string(),
        Versions { first, last } => format!("{first}-{last}"),
    };
    let mut text = format!("Versions {}", range(field.versions));
    if field.is_nullable() {
        write!(text, ", nullable {}", range(field.nullable)).expect(STRING);
    }
    if field.is_tagged() {
        write!(text, ", tag {}", field.tag).expect(STRING);
    }
    if let Some(default) = &field.default {
        write!(text, ", default {default}").expect(STRING);
    }
    text + "."
}

/// `TopicData` to `topic_data`.
pub(crate) fn snake(name: &str) -> String {
    let letters: Vec<char> = name.replace("KRaft", "Kraft").chars().collect();
    let mut out = String::new();
    for (index, &letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).map(|index| letters[index]);
        let after = letters.get(index + 1);
        let starts_word = before.is_some_and(|before| {
            !before.is_ascii_uppercase() || after.is_some_and(char::is_ascii_lowercase)
        });
        if letter.is_ascii_uppercase() && starts_word {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

pub(crate) fn snake_field(name: &str) -> String {
    match snake(name) {
        name if ["type", "match"].contains(&name.as_str()) => format!("r#{name}"),
        name => name,
    }
}
