//! DescribeClientQuotas (key 48), versions 0 and 1: quotas are not built, so none is set.

use std::collections::BTreeSet;

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use crate::request::{Outcome, Request};

/// Whom quotas may be for.
const ENTITIES: &[&str] = &["user", "client-id", "ip"];

pub(super) fn describe<I: Io>(request: &Request) -> Outcome<I> {
    let asked: DescribeClientQuotasRequest<'_> = match request.decode() {
        Ok(asked) => asked,
        Err(malformed) => return malformed.into(),
    };
    let mut error = ErrorCode::NONE;
    let mut seen = BTreeSet::new();
    for component in asked.components.iter() {
        // An exact match has a name, other matches have none.
        let is_right = match (component.match_type, component.r#match) {
            (0, name) => name.is_some(),
            (1 | 2, name) => name.is_none(),
            _ => false,
        };
        if !ENTITIES.contains(&component.entity_type) && !component.entity_type.is_empty() {
            error = ErrorCode::UNSUPPORTED_VERSION;
        } else if !is_right || !seen.insert(component.entity_type) {
            error = ErrorCode::INVALID_REQUEST;
        }
    }
    let entries = (error == ErrorCode::NONE).then(|| Vec::new().into());
    let error_code = error.code();
    let body = DescribeClientQuotasResponse { entries, error_code, ..Default::default() };
    Outcome::Reply(request.head.reply(&body))
}
