//! The reference of all keys, as text for the terminal (`millrace config`) and as Markdown
//! (`docs/config.md`), both made from the tables.

use std::fmt::Write;

use super::key::{Dynamic, Key, Kind, Treatment};
use super::obsolete::{self, Obsolete};
use super::settings::expected;
use super::{BROKER_KEYS, TOPIC_KEYS};

fn default_text(key: &Key) -> &'static str {
    match key.default {
        None => "unset",
        Some("") => "empty",
        Some("9223372036854775807") => "9223372036854775807 (never)",
        Some(default) => default,
    }
}

fn treatment_text(key: &Key) -> String {
    match key.treatment {
        Treatment::Honoured => String::new(),
        Treatment::Noted(reason) => format!("Accepted without effect: {reason}."),
        Treatment::Refused(reason) => format!("Only the default is accepted: {reason}."),
    }
}

fn obsolete_text(what: Obsolete) -> String {
    match what {
        Obsolete::Ignored(reason) => format!("accepted without effect: {reason}"),
        Obsolete::Renamed(names, 1) => format!("taken as {}", names.join(" and ")),
        Obsolete::Renamed(names, factor) => {
            format!("taken as {}, times {factor}", names.join(" and "))
        }
        Obsolete::Address => "used where listeners or advertised.listeners is unset".into(),
    }
}

/// Keys in the order a reader wants them: ours, those that have an effect, the rest.
fn sections() -> [(&'static str, Vec<&'static Key>); 4] {
    let is_own = |key: &&Key| key.name.starts_with("millrace.");
    let acts = |key: &&Key| key.treatment == Treatment::Honoured;
    let keys = || BROKER_KEYS.iter();
    [
        ("Millrace's own keys", keys().filter(is_own).collect()),
        ("Kafka's broker keys", keys().filter(|key| acts(key) && !is_own(key)).collect()),
        ("Topic keys", TOPIC_KEYS.iter().collect()),
        ("Kafka's broker keys without effect here", keys().filter(|key| !acts(key)).collect()),
    ]
}

/// The table for a terminal, of the keys whose names contain a word.
pub fn as_text(word: &str) -> String {
    let mut text = String::new();
    for (title, mut keys) in sections() {
        keys.retain(|key| key.name.contains(word));
        if keys.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{title}\n");
        for key in keys {
            let (takes, default) = (expected(key), default_text(key));
            let _ = writeln!(text, "{}  [{takes}; default {default}]\n    {}", key.name, key.doc);
            let treatment = treatment_text(key);
            if !treatment.is_empty() {
                let _ = writeln!(text, "    {treatment}");
            }
        }
        text.push('\n');
    }
    let old: Vec<_> = obsolete::all().filter(|(name, _)| name.contains(word)).collect();
    if !old.is_empty() {
        text.push_str("Keys that Kafka no longer has\n\n");
    }
    for (name, what) in old {
        let _ = writeln!(text, "{name}\n    {}", obsolete_text(what));
    }
    text
}

/// The page `docs/config.md`.
pub fn as_markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         Made from the tables in `broker/server/src/config/` by `millrace config --markdown`; a \
         test fails when it is stale.\n\n\
         Names, types, ranges and defaults are those of Kafka 4.3. Values come from the defaults, \
         the properties file, the environment, `--override KEY=VALUE`, and, for keys marked \
         dynamic, the settings kept in the metadata; the last one wins. An unknown key or a bad \
         value stops the start.\n\n\
         Variables of the environment are named as in container images of Kafka: `KAFKA_` (or \
         `KAFKA_CFG_`) and the key in capitals, `_` for a dot, `__` for an underscore, `___` for a \
         hyphen; `KAFKA_LOG_DIRS` is `log.dirs`. With any of them, `CLUSTER_ID` is \
         `millrace.cluster.id`. A slip in a key's name stops the start; variables for the Java \
         virtual machine (`KAFKA_HEAP_OPTS`, `KAFKA_OPTS`, `KAFKA_LOG4J_*`, `KAFKA_JMX_*`) and \
         others that are no keys are ignored, and a note says so.\n",
    );
    for (title, keys) in sections() {
        let _ = writeln!(page, "\n## {title}\n");
        page.push_str(
            "| key | takes | default | dynamic | meaning |\n| --- | --- | --- | --- | --- |\n",
        );
        for key in keys {
            let dynamic = if key.dynamic == Dynamic::Yes { "yes" } else { "" };
            let inherits = match key.inherits.iter().map(|(name, _)| *name).collect::<Vec<_>>() {
                names if names.is_empty() => String::new(),
                names => format!(" Inherits from `{}`.", names.join("`, `")),
            };
            let kind = if key.kind == Kind::Password { " (hidden)" } else { "" };
            let (doc, treatment) = (key.doc, treatment_text(key));
            let space = if treatment.is_empty() { "" } else { " " };
            let _ = writeln!(
                page,
                "| `{}` | {}{kind} | {} | {dynamic} | {doc}{inherits}{space}{treatment} |",
                key.name,
                expected(key),
                default_text(key).replace('|', "\\|"),
            );
        }
    }
    page.push_str(
        "\n## Keys that Kafka no longer has\n\n| key | what becomes of it |\n| --- | --- |\n",
    );
    for (name, what) in obsolete::all() {
        let _ = writeln!(page, "| `{name}` | {} |", obsolete_text(what));
    }
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == super::as_markdown(),
            "docs/config.md is stale: cargo run -- config --markdown > docs/config.md"
        );
    }
}
