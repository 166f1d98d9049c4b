//! The rules of docs/STYLE.md that can be counted, checked over every text file of the tree.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_WIDTH_MAX: usize = 100;

/// Folders that hold no text of ours: build output, version control, measured results, copied data.
const SKIPPED_FOLDERS: &[&str] = &["target", ".git", "bench-results", "schemas", "vectors"];
/// Extensions which are read as our text. Markdown tables may be wider than code.
const CODE: &[&str] = &["rs", "py", "java", "go", "js", "sh"];
const TEXT: &[&str] = &["rs", "py", "java", "go", "js", "sh", "md", "toml", "xml", "txt", "mod"];

/// File names which say nothing about their content.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helpers", "misc", "types", "manager"];

/// Words that must not be in the tree, cut in two so that this file does not hold them.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("to", "do!(", "unfinished code"),
    ("unimple", "mented!(", "unfinished code"),
    ("db", "g!(", "a leftover of debugging"),
    ("TO", "DO", "write an issue, not a note"),
    ("FIX", "ME", "write an issue, not a note"),
    ("/wo", "rk/", "a path of one machine"),
    ("/ro", "ot/", "a path of one machine"),
    ("pypi", ".org", "a registry is the client's choice, not ours"),
    ("index.crates", ".io", "a registry is the client's choice, not ours"),
    ("proxy.gol", "ang.org", "a registry is the client's choice, not ours"),
    ("repo.maven.ap", "ache.org", "a registry is the client's choice, not ours"),
    ("registry.np", "mjs.org", "a registry is the client's choice, not ours"),
];

/// Exceptions: (rule, end of the path or `path:function`, reason).
const EXCEPTIONS: &[(&str, &str, &str)] =
    &[("lines", "src/config/broker_keys.rs", "a table: one key of Kafka's after another")];

#[test]
fn every_file_follows_the_counted_rules() {
    let root = workspace_root();
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "the walk found only {} files: is the root right?", files.len());
    let mut faults = Vec::new();
    for path in &files {
        let shown =
            path.strip_prefix(&root).expect("collected below the root").display().to_string();
        // A file that is not UTF-8 is not text of ours.
        if let Ok(text) = fs::read_to_string(path) {
            check_file(&shown, &text, &mut faults);
        }
    }
    faults.retain(|fault| !is_excepted(fault));
    let lines: Vec<String> =
        faults.iter().map(|f| format!("{}: {} ({})", f.place, f.what, f.rule)).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), lines.join("\n"));
}

#[derive(Debug, PartialEq)]
struct Fault {
    rule: &'static str,
    place: String,
    what: String,
}

fn is_excepted(fault: &Fault) -> bool {
    EXCEPTIONS.iter().any(|(rule, place, _)| fault.rule == *rule && fault.place.ends_with(place))
}

fn workspace_root() -> PathBuf {
    let server = Path::new(env!("CARGO_MANIFEST_DIR"));
    server.ancestors().nth(2).expect("broker/server lies two folders below the root").to_path_buf()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder of the checkout is readable")
        .map(|entry| entry.expect("a folder entry is readable").path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() {
            // Data folders of a broker or a report that was run in the checkout.
            let made = name.starts_with("millrace-data") || name.starts_with("loadgen-report");
            if !made && !SKIPPED_FOLDERS.contains(&name.as_str()) {
                collect(&path, files);
            }
        } else if is_text(&path, &name) {
            files.push(path);
        }
    }
}

fn is_text(path: &Path, name: &str) -> bool {
    extension(path)
        .map_or_else(|| matches!(name, "run" | "setup" | "apply"), |ext| TEXT.contains(&ext))
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(|ext| ext.to_str())
}

fn check_file(shown: &str, text: &str, faults: &mut Vec<Fault>) {
    let path = Path::new(shown);
    let ext = extension(path).unwrap_or("sh");
    let lines: Vec<&str> = text.lines().collect();
    check_name(shown, path, faults);
    check_words(shown, &lines, faults);
    if !CODE.contains(&ext) {
        return;
    }
    for (index, line) in lines.iter().enumerate() {
        let width = line.chars().count();
        // Rust code is as wide as rustfmt leaves it; comments it does not touch.
        let is_formatted = ext == "rs" && !line.trim_start().starts_with("//");
        if width > LINE_WIDTH_MAX && !is_formatted {
            let place = format!("{shown}:{}", index + 1);
            faults.push(Fault { rule: "width", place, what: format!("{width} columns") });
        }
    }
    if ext == "rs" {
        check_rust(shown, &lines, faults);
    }
}

fn check_name(shown: &str, path: &Path, faults: &mut Vec<Fault>) {
    for part in path.iter().filter_map(|part| part.to_str()) {
        let stem = part.split('.').next().unwrap_or(part);
        if EMPTY_NAMES.contains(&stem) {
            let what = format!("`{stem}` says nothing: put it beside its first user");
            faults.push(Fault { rule: "name", place: shown.to_owned(), what });
        }
    }
}

fn check_words(shown: &str, lines: &[&str], faults: &mut Vec<Fault>) {
    for (index, line) in lines.iter().enumerate() {
        for (head, tail, why) in FORBIDDEN {
            let word = format!("{head}{tail}");
            if line.contains(&word) {
                let place = format!("{shown}:{}", index + 1);
                faults.push(Fault { rule: "word", place, what: format!("`{word}`: {why}") });
            }
        }
    }
}

fn check_rust(shown: &str, lines: &[&str], faults: &mut Vec<Fault>) {
    if !lines.first().is_some_and(|line| line.starts_with("//!")) {
        let what = "no `//!` head comment on line 1".to_owned();
        faults.push(Fault { rule: "head", place: shown.to_owned(), what });
    }
    let tests_at = lines.iter().position(|line| line.trim() == "#[cfg(test)]");
    let code = &lines[..tests_at.unwrap_or(lines.len())];
    if code.len() > FILE_LINES_MAX {
        let what = format!("{} lines before its tests", code.len());
        faults.push(Fault { rule: "lines", place: shown.to_owned(), what });
    }
    for (name, count) in functions(code) {
        if count > FUNCTION_LINES_MAX {
            let place = format!("{shown}:{name}");
            faults.push(Fault { rule: "function", place, what: format!("{count} lines") });
        }
    }
}

/// Names and lengths in lines of the functions, relying on rustfmt's layout: the closing brace
/// stands in the column where the function began.
fn functions(lines: &[&str]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let Some(name) = function_name(body) else { continue };
        let indent = &line[..line.len() - body.len()];
        let (close, signature) = (format!("{indent}}}"), format!("{indent})"));
        let on_one_line = body.ends_with(['}', ';']);
        let end = lines[start..].iter().position(|line| {
            on_one_line || *line == close || (line.starts_with(&signature) && line.ends_with(';'))
        });
        found.push((name, end.map_or(1, |end| end + 1)));
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut rest = line;
    for prefix in ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    Some(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(shown: &str, text: &str) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        check_file(shown, text, &mut faults);
        faults.into_iter().map(|f| (f.rule, f.place)).collect()
    }

    #[test]
    fn each_rule_finds_its_fault() {
        let long_line = format!("//! {}", "x".repeat(100));
        let long_file = format!("//! Head.\n{}", "const A: u8 = 1;\n".repeat(500));
        let body = "        step();\n".repeat(70);
        let long_function = format!("//! Head.\nimpl A {{\n    fn walk() {{\n{body}    }}\n}}\n");
        let word = format!("//! Head.\nfn a() {{ {}{} }}\n", "to", "do!()");
        let rows = [
            ("a/b.rs", "fn a() {}\n", vec![("head", "a/b.rs")]),
            ("a/b.rs", &long_line, vec![("width", "a/b.rs:1")]),
            ("a/b.rs", &long_file, vec![("lines", "a/b.rs")]),
            ("a/b.rs", &long_function, vec![("function", "a/b.rs:walk")]),
            ("a/b.rs", &word, vec![("word", "a/b.rs:2")]),
            ("a/util/b.rs", "//! Head.\n", vec![("name", "a/util/b.rs")]),
            ("a/helpers.rs", "//! Head.\n", vec![("name", "a/helpers.rs")]),
            ("docs/a.md", &long_line, vec![]),
        ];
        for (shown, text, expected) in rows {
            let expected: Vec<_> = expected.into_iter().map(|(r, p)| (r, p.to_owned())).collect();
            assert_eq!(faults_of(shown, text), expected, "{shown}");
        }
    }

    #[test]
    fn tests_and_short_functions_are_not_counted() {
        let rest = "    step();\n".repeat(600);
        let text = format!("//! Head.\nfn a() {{}}\n#[cfg(test)]\nmod tests {{\n{rest}}}\n");
        assert_eq!(faults_of("a/b.rs", &text), vec![]);
        let code = ["trait A {", "    fn a(", "        b: u8,", "    );", "    fn c() {}", "}"];
        assert_eq!(functions(&code), vec![("a".to_owned(), 3), ("c".to_owned(), 1)]);
    }
}
