//! Answers made comparable, and their differences.

use std::collections::BTreeMap;

use millrace_wire::json::Value;

/// What may differ, and what is still compared: (field, how, why).
const MAY_DIFFER: &[(&[&str], How, &str)] = &[
    (&["throttleTimeMs"], How::Ignored, "quotas and load"),
    (&["port", "clusterId", "leaderHost"], How::Ignored, "two brokers, two places"),
    (&["memberId", "leader"], How::IsEmpty, "made from chance"),
    (&["topicId", "directoryId", "replicaDirectoryId"], How::IsZeroId, "made from chance"),
    (
        &[
            "producerId",
            "logAppendTimeMs",
            "lastTimestamp",
            "lastFetchTimestamp",
            "lastCaughtUpTimestamp",
            "logEndOffset",
        ],
        How::IsNegative,
        "given or timed",
    ),
    (&["partitionSize"], How::IsNegative, "files are laid out differently"),
    (&["sessionId"], How::IsNegative, "made from chance"),
    (
        &["errorMessage", "message", "batchIndexErrorMessage"],
        How::Ignored,
        "for people; programs read the code",
    ),
    (&["documentation"], How::Ignored, "for people"),
    (&["finalizedFeaturesEpoch"], How::Ignored, "counts what the metadata log has seen"),
    (&["totalBytes", "usableBytes", "logDir"], How::Ignored, "the disk"),
];

#[derive(Clone, Copy)]
enum How {
    Ignored,
    IsEmpty,
    IsZeroId,
    IsNegative,
}

/// An answer without what two brokers may answer differently. Arrays of objects are sorted: Kafka
/// keeps many in hash tables.
pub(crate) fn normalised(answer: &Value, prefix: &str) -> Value {
    match answer {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let how = MAY_DIFFER.iter().find(|row| row.0.contains(&name.as_str()));
                let value = match how {
                    Some((_, how, _)) if !value.is_array() => blanked(*how, value),
                    _ => normalised(value, prefix),
                };
                (name.clone(), value)
            };
            Value::Object(fields.iter().map(field).collect())
        }
        Value::Array(items) => {
            // Groups of other scenarios come and go with their timeouts.
            let is_own = |item: &&Value| {
                let group = item["groupId"].as_str();
                group.is_none_or(|group| prefix.is_empty() || group.starts_with(prefix))
            };
            let items = items.iter().filter(is_own).map(|item| normalised(item, prefix));
            let mut items: Vec<Value> = items.collect();
            if items.iter().all(|item| item.is_object() || item.is_string()) {
                items.sort_by_key(ToString::to_string);
            }
            Value::Array(items)
        }
        Value::String(text) if !prefix.is_empty() => text.replace(prefix, "$p").into(),
        other => other.clone(),
    }
}

fn blanked(how: How, value: &Value) -> Value {
    let blank = |is: bool, then: &str| if is { value.clone() } else { Value::from(then) };
    match how {
        How::Ignored => "*".into(),
        How::IsEmpty => blank(value.is_null() || value == "" || value.is_number(), "text"),
        How::IsZeroId => blank(value.as_str().is_some_and(|id| id.starts_with("AAAAAAAA")), "id"),
        How::IsNegative => blank(value.as_i64().is_some_and(|number| number < 0), "number"),
    }
}

/// What tells elements of an array apart, in this order.
const IDENTITIES: &[&str] =
    &["name", "topic", "partitionIndex", "partition", "index", "groupId", "apiKey", "resourceName"];

/// Places where two values differ: pointer, first, second. Elements are matched by what tells them
/// apart, where something does.
pub(crate) fn differences(first: &Value, second: &Value, at: &str, out: &mut Vec<[String; 3]>) {
    match (first, second) {
        (Value::Object(one), Value::Object(two)) => {
            for name in one.keys().chain(two.keys().filter(|name| !one.contains_key(*name))) {
                differences(&first[name], &second[name], &format!("{at}/{name}"), out);
            }
        }
        (Value::Array(one), Value::Array(two)) => match (by_identity(one), by_identity(two)) {
            (Some(one), Some(two)) => {
                for id in one.keys().chain(two.keys().filter(|id| !one.contains_key(*id))) {
                    let of = |of: &BTreeMap<String, Value>| of.get(id).cloned().unwrap_or_default();
                    differences(&of(&one), &of(&two), &format!("{at}/{id}"), out);
                }
            }
            _ if one.len() == two.len() => {
                for (index, (first, second)) in one.iter().zip(two).enumerate() {
                    differences(first, second, &format!("{at}/{index}"), out);
                }
            }
            _ => out.push([at.to_owned(), first.to_string(), second.to_string()]),
        },
        _ if first != second => out.push([at.to_owned(), first.to_string(), second.to_string()]),
        _ => {}
    }
}

/// The elements by the field that tells them apart; none where no field does.
fn by_identity(items: &[Value]) -> Option<BTreeMap<String, Value>> {
    let identity = IDENTITIES.iter().find(|name| {
        items.iter().all(|item| item.get(**name).is_some_and(|value| !value.is_null()))
    })?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs = items.iter().map(|item| (text(&item[*identity]), item.clone()));
    let found: BTreeMap<String, Value> = pairs.collect();
    (found.len() == items.len()).then_some(found)
}
