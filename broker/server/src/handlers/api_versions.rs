//! ApiVersions (key 18), versions 0 to 4; any other version is answered too, with error 35 in the
//! form of version 0 (KIP-511).

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::api::ApiKey;
use millrace_wire::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use millrace_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::versions;
use crate::request::{Outcome, Request, RequestHead};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    if !versions(ApiKey::ApiVersions).contains(&request.head.version) {
        let head = RequestHead { version: 0, ..request.head };
        let body = ApiVersionsResponse {
            error_code: ErrorCode::UNSUPPORTED_VERSION.code(),
            api_keys: vec![entry(ApiKey::ApiVersions)].into(),
            ..Default::default()
        };
        return Outcome::Reply(head.reply(&body));
    }
    let asked: ApiVersionsRequest<'_> = match request.decode() {
        Ok(asked) => asked,
        Err(malformed) => return malformed.into(),
    };
    let named = request.head.version >= 3;
    if named
        && !(is_software_name(asked.client_software_name)
            && is_software_name(asked.client_software_version))
    {
        let body = ApiVersionsResponse {
            error_code: ErrorCode::INVALID_REQUEST.code(),
            ..Default::default()
        };
        return Outcome::Reply(request.head.reply(&body));
    }
    let api_keys: Vec<ApiVersion<'_>> =
        ApiKey::all().filter(|key| !versions(*key).is_empty()).map(entry).collect();
    // Versions before 3 have no place for features; the writer leaves them out.
    let features = shard.image.features();
    let supported = features.iter().map(|(name, level)| SupportedFeatureKey {
        name,
        min_version: *level,
        max_version: *level,
        ..Default::default()
    });
    let finalized = features.iter().map(|(name, level)| FinalizedFeatureKey {
        name,
        min_version_level: *level,
        max_version_level: *level,
        ..Default::default()
    });
    Outcome::Reply(request.head.reply(&ApiVersionsResponse {
        api_keys: api_keys.into(),
        supported_features: supported.collect(),
        finalized_features: finalized.collect(),
        finalized_features_epoch: shard.image.last_offset(),
        ..Default::default()
    }))
}

fn entry<'a>(key: ApiKey) -> ApiVersion<'a> {
    let versions = versions(key);
    ApiVersion {
        api_key: key as i16,
        min_version: *versions.start(),
        max_version: *versions.end(),
        ..Default::default()
    }
}

/// The names KIP-511 allows: letters, digits, dots and dashes, not at the ends.
fn is_software_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.chars().all(inner) && edge(name.chars().next()) && edge(name.chars().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_kip_511() {
        for (name, valid) in [
            ("apache-kafka-java", true),
            ("4.3.1", true),
            ("a", true),
            ("", false),
            ("-a", false),
            ("a b", false),
            ("a.", false),
        ] {
            assert_eq!(is_software_name(name), valid, "{name:?}");
        }
    }
}
