//! The APIs: their numbers, names and header versions.

use std::fmt;

use thiserror::Error;

include!(concat!(env!("OUT_DIR"), "/api_keys.rs"));

struct Row {
    key: ApiKey,
    name: &'static str,
    /// (version of the API, version of the header from there on), rising.
    request_header: &'static [(i16, i16)],
    response_header: &'static [(i16, i16)],
}

/// A number that no API has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no API has the key {0}")]
pub struct UnknownApiKey(pub i16);

impl ApiKey {
    /// Every API, by rising key.
    pub fn all() -> impl Iterator<Item = ApiKey> {
        ROWS.iter().map(|row| row.key)
    }

    /// The name in Kafka, without "Request".
    pub fn name(self) -> &'static str {
        self.row().name
    }

    fn row(self) -> &'static Row {
        let index = ROWS.binary_search_by_key(&self, |row| row.key);
        &ROWS[index.expect("the table has a row for each key")]
    }
}

impl TryFrom<i16> for ApiKey {
    type Error = UnknownApiKey;

    fn try_from(key: i16) -> Result<Self, UnknownApiKey> {
        let index = ROWS.binary_search_by_key(&key, |row| row.key as i16);
        index.map(|index| ROWS[index].key).map_err(|_| UnknownApiKey(key))
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The version of `RequestHeader` before a request of this version.
pub fn request_header_version(key: ApiKey, version: i16) -> i16 {
    header_version(key.row().request_header, version)
}

/// The version of `ResponseHeader` before a response of this version; 0 for every ApiVersions.
pub fn response_header_version(key: ApiKey, version: i16) -> i16 {
    header_version(key.row().response_header, version)
}

fn header_version(steps: &[(i16, i16)], version: i16) -> i16 {
    let last = steps.iter().rev().find(|(from, _)| *from <= version);
    last.or(steps.first()).map_or(0, |step| step.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_versions() {
        let check = |key, version, request, response| {
            assert_eq!(request_header_version(key, version), request, "{key} {version}");
            assert_eq!(response_header_version(key, version), response, "{key} {version}");
        };
        check(ApiKey::Produce, 0, 1, 0);
        check(ApiKey::Produce, 8, 1, 0);
        check(ApiKey::Produce, 9, 2, 1);
        check(ApiKey::ControlledShutdown, 0, 0, 0);
        check(ApiKey::ApiVersions, 4, 2, 0);
        check(ApiKey::ApiVersions, i16::MAX, 2, 0);
        check(ApiKey::SaslHandshake, 1, 1, 0);
        check(ApiKey::AlterUserScramCredentials, 0, 2, 1);
    }

    #[test]
    fn keys_from_numbers() {
        for key in ApiKey::all() {
            assert_eq!(ApiKey::try_from(key as i16), Ok(key));
        }
        assert_eq!(ApiKey::try_from(-1), Err(UnknownApiKey(-1)));
        assert_eq!(ApiKey::Fetch.to_string(), "Fetch");
    }
}
