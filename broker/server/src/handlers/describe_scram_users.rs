//! DescribeUserScramCredentials (key 50), version 0 (KIP-554): no user has credentials, SASL is not
//! built; a user asked for by name is not found.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use millrace_wire::messages::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};

use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(_: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: DescribeUserScramCredentialsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let results: Vec<DescribeUserScramCredentialsResult<'_>> = body
        .users
        .iter()
        .flat_map(|users| users.iter())
        .map(|user| DescribeUserScramCredentialsResult {
            user: user.name,
            error_code: ErrorCode::RESOURCE_NOT_FOUND.code(),
            error_message: Some("there are no SCRAM credentials: SASL is not built"),
            ..Default::default()
        })
        .collect();
    let answer =
        DescribeUserScramCredentialsResponse { results: results.into(), ..Default::default() };
    Outcome::Reply(request.head.reply(&answer))
}
