//! DescribeAcls, CreateAcls, DeleteAcls (keys 29 to 31), versions 0 to 3: there is no authorizer,
//! and Apache Kafka without one gives the same answers.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::create_acls_response::AclCreationResult;
use millrace_wire::messages::delete_acls_response::DeleteAclsFilterResult;
use millrace_wire::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
    DescribeAclsRequest, DescribeAclsResponse,
};

use crate::request::{Outcome, Request};

const ERROR: ErrorCode = ErrorCode::SECURITY_DISABLED;
const MESSAGE: Option<&str> = Some("No Authorizer is configured.");

pub(super) fn describe<I: Io>(request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<DescribeAclsRequest<'_>>() {
        return malformed.into();
    }
    Outcome::Reply(request.head.reply(&DescribeAclsResponse {
        error_code: ERROR.code(),
        error_message: MESSAGE,
        ..Default::default()
    }))
}

pub(super) fn create<I: Io>(request: &Request) -> Outcome<I> {
    let body: CreateAclsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let result = |_| AclCreationResult {
        error_code: ERROR.code(),
        error_message: MESSAGE,
        ..Default::default()
    };
    let results = body.creations.iter().map(result).collect();
    Outcome::Reply(request.head.reply(&CreateAclsResponse { results, ..Default::default() }))
}

pub(super) fn delete<I: Io>(request: &Request) -> Outcome<I> {
    let body: DeleteAclsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let result = |_| DeleteAclsFilterResult {
        error_code: ERROR.code(),
        error_message: MESSAGE,
        ..Default::default()
    };
    let filter_results = body.filters.iter().map(result).collect();
    Outcome::Reply(request.head.reply(&DeleteAclsResponse { filter_results, ..Default::default() }))
}
