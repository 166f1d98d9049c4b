//! DescribeConfigs (key 32), versions 0 to 4: every key of a topic, of this broker or of a group,
//! with its value, source and synonyms (KIP-133, KIP-226, KIP-569). No keys, be it null or an empty
//! list, ask for all.

use std::sync::Arc;

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::describe_configs_request::DescribeConfigsResource;
use millrace_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use millrace_wire::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use crate::config::{ConfigMap, Described, Source};
use crate::limits;
use crate::metadata::{ResourceType, controller};
use crate::request::{Outcome, Request};
use crate::shard::Shard;

/// Rows of one resource, or why there are none.
type Rows = Result<Vec<Described>, (ErrorCode, String)>;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: DescribeConfigsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let described = describe(shard, &body, limits::DESCRIBED_SETTINGS);
    let results: Vec<DescribeConfigsResult<'_>> = described
        .iter()
        .map(|(resource, rows)| DescribeConfigsResult {
            error_code: rows.as_ref().err().map_or(0, |(error, _)| error.code()),
            error_message: rows.as_ref().err().map(|(_, message)| &**message),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            configs: rows
                .iter()
                .flatten()
                .map(|row| DescribeConfigsResourceResult {
                    // Only version 0 has it; later ones give the source.
                    is_default: request.head.version == 0 && row.source == Source::Default,
                    ..entry(row, body.include_synonyms, body.include_documentation)
                })
                .collect(),
            ..Default::default()
        })
        .collect();
    let body = DescribeConfigsResponse { results: results.into(), ..Default::default() };
    Outcome::Reply(request.head.reply(&body))
}

/// The settings of each resource, until so many are told.
fn describe<'a, I: Io>(
    shard: &Shard<I>,
    body: &DescribeConfigsRequest<'a>,
    most: usize,
) -> Vec<(DescribeConfigsResource<'a>, Rows)> {
    let mut left = most;
    let described = body.resources.iter().map(|resource| {
        let rows = if left > 0 { rows(shard, &resource) } else { Err(too_many()) };
        let rows = rows.map(|rows| chosen(rows, &resource));
        left = left.saturating_sub(rows.as_ref().map_or(0, Vec::len));
        (resource, rows)
    });
    described.collect()
}

fn too_many() -> (ErrorCode, String) {
    (ErrorCode::INVALID_REQUEST, "Too many settings for one answer".to_owned())
}

fn rows<I: Io>(shard: &Shard<I>, resource: &DescribeConfigsResource<'_>) -> Rows {
    let name = resource.resource_name;
    let config = &shard.config;
    let refuse = |error, message: String| Err((error, message));
    match ResourceType::from_code(resource.resource_type) {
        Some(ResourceType::Topic) => match shard.image.topic(name).map(Arc::clone) {
            Some(topic) => Ok(config.describe_topic(&topic.config)),
            None if controller::check_name(name).is_err() => {
                refuse(ErrorCode::INVALID_TOPIC_EXCEPTION, format!("No topic's name: '{name}'"))
            }
            None => refuse(
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                "This server does not host this topic-partition.".to_owned(),
            ),
        },
        Some(ResourceType::Broker) if name.is_empty() => Ok(config.describe_all_brokers()),
        Some(ResourceType::Broker) => match name.parse::<i32>() {
            Ok(id) if id == shard.shared.node_id => Ok(config.describe_broker()),
            Ok(_) => refuse(
                ErrorCode::INVALID_REQUEST,
                format!(
                    "Unexpected broker id, expected {} or empty string, but received {name}",
                    shard.shared.node_id
                ),
            ),
            Err(_) => refuse(
                ErrorCode::INVALID_REQUEST,
                format!("Broker id must be an integer, but it is: {name}"),
            ),
        },
        Some(ResourceType::Group) if name.is_empty() => {
            refuse(ErrorCode::INVALID_REQUEST, "Group name must not be empty".to_owned())
        }
        Some(ResourceType::Group) => {
            let own = shard.image.configs(ResourceType::Group, name);
            Ok(config.describe_group(own.unwrap_or(&ConfigMap::new())))
        }
        _ => refuse(
            ErrorCode::INVALID_REQUEST,
            format!("Unsupported resource type: {}", resource.resource_type),
        ),
    }
}

fn chosen(rows: Vec<Described>, resource: &DescribeConfigsResource<'_>) -> Vec<Described> {
    match &resource.configuration_keys {
        None => rows,
        Some(keys) if keys.is_empty() => rows,
        Some(keys) => {
            rows.into_iter().filter(|row| keys.iter().any(|key| key == row.key.name)).collect()
        }
    }
}

fn entry(
    row: &Described,
    synonyms: bool,
    documentation: bool,
) -> DescribeConfigsResourceResult<'_> {
    DescribeConfigsResourceResult {
        name: row.key.name,
        value: row.value.as_deref(),
        read_only: row.is_read_only,
        config_source: row.source as i8,
        is_sensitive: row.is_sensitive,
        synonyms: row
            .synonyms
            .iter()
            .filter(|_| synonyms)
            .map(|synonym| DescribeConfigsSynonym {
                name: synonym.name,
                value: synonym.value.as_deref(),
                source: synonym.source as i8,
                ..Default::default()
            })
            .collect(),
        config_type: row.key.kind.code(),
        documentation: documentation.then_some(row.key.doc),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::{Bench, TOPIC};

    #[test]
    fn an_answer_describes_no_more_than_its_limit() {
        let bench = Bench::start();
        let topic = DescribeConfigsResource {
            resource_type: ResourceType::Topic as i8,
            resource_name: TOPIC,
            ..Default::default()
        };
        let resources = vec![topic; 10].into();
        let body = DescribeConfigsRequest { resources, ..Default::default() };
        let described = describe(&bench.shard, &body, 100);
        let settings: Vec<_> =
            described.iter().map(|(_, rows)| rows.as_ref().map_or(0, Vec::len)).collect();
        let of_one = settings[0];
        let told = 100_usize.div_ceil(of_one);
        assert!(of_one > 20 && settings[..told].iter().all(|count| *count == of_one));
        assert!(settings[told..].iter().all(|count| *count == 0), "{settings:?}");
    }
}
