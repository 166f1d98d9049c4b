//! Messages as frames on a connection: size, header, body.

use crate::{ClientError, Result};
use millrace_wire::messages::{RequestHeader, ResponseHeader};
use millrace_wire::{ApiKey, Message, Reader, Writer, api};
use std::fmt::Display;

/// Writes a request with its header, its size before it, into `out`.
pub fn encode<'a, M: Message<'a>>(
    out: &mut Writer,
    request: &M,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<()> {
    let header = RequestHeader {
        request_api_key: M::API_KEY,
        request_api_version: version,
        correlation_id,
        client_id: Some(client_id),
        ..Default::default()
    };
    out.clear();
    out.i32(0);
    header
        .encode(out, api::request_header_version(key::<M>(), version))
        .and_then(|()| request.encode(out, version))
        .map_err(|error| {
            malformed::<M>(&format!("it cannot be said in version {version}: {error}"))
        })?;
    let bytes = i32::try_from(out.bytes().len() - 4).map_err(|error| malformed::<M>(&error))?;
    out.patch_i32(0, bytes);
    Ok(())
}

/// Reads an answer without its size: correlation id and message.
pub fn decode<'r, M: Message<'r>>(frame: &'r [u8], version: i16) -> Result<(i32, M)> {
    let mut reader = Reader::new(frame);
    let header = api::response_header_version(key::<M>(), version);
    let header =
        ResponseHeader::decode(&mut reader, header).map_err(|error| malformed::<M>(&error))?;
    let message = M::decode(&mut reader, version).map_err(|error| malformed::<M>(&error))?;
    Ok((header.correlation_id, message))
}

/// The API of a request or a response.
pub(crate) fn key<'a, M: Message<'a>>() -> ApiKey {
    ApiKey::try_from(M::API_KEY).expect("every request and response has a key")
}

fn malformed<'a, M: Message<'a>>(problem: &dyn Display) -> ClientError {
    ClientError::Malformed { what: M::NAME, problem: problem.to_string() }
}
