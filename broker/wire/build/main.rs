//! Makes the message types, error codes and api keys from `schemas/` when the crate is built.

use std::path::{Path, PathBuf};
use std::{env, fs};

mod json;
mod rust;
mod schema;
mod tables;

#[expect(clippy::print_stdout, reason = "a build script speaks to cargo so")]
fn main() {
    println!("cargo::rerun-if-changed=schemas");
    println!("cargo::rerun-if-changed=build");
    let schemas = Path::new("schemas");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names the output folder"));
    let save = |name: &str, text: String| {
        fs::write(out.join(name), text).expect("the output folder is writable");
    };
    for folder in ["messages", "records"] {
        let all = schema::read_folder(&schemas.join(folder));
        save(&format!("{folder}.rs"), rust::modules(&all));
        if env::var_os("CARGO_FEATURE_JSON").is_some() {
            save(&format!("{folder}_json.rs"), json::impls(&all));
        }
    }
    save("error_codes.rs", tables::error_codes(&schema::read_json(&schemas.join("errors.json"))));
    save("api_keys.rs", tables::api_keys(&schema::read_json(&schemas.join("api-versions.json"))));
}
