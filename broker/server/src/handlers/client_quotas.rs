//! DescribeClientQuotas (key 48) and AlterClientQuotas (49), versions 0 and 1 (KIP-546): quotas are
//! kept and shown, as tools set them; nothing is slowed down by them.

use std::collections::BTreeMap;

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse, alter_client_quotas_response, describe_client_quotas_response,
};

use super::{DECODED, change};
use crate::metadata::QuotaEntity;
use crate::metadata::controller::{AlteredQuotas, Controller};
use crate::request::{Outcome, Reply, Request};
use crate::shard::Shard;

/// What the part of an entity with a type must be.
enum Wanted<'a> {
    Named(&'a str),
    Default,
    Any,
}

pub(super) fn describe<I: Io>(shard: &Shard<I>, request: &Request) -> Outcome<I> {
    let asked: DescribeClientQuotasRequest<'_> = match request.decode() {
        Ok(asked) => asked,
        Err(malformed) => return malformed.into(),
    };
    let wanted = match wanted(&asked) {
        Ok(wanted) => wanted,
        Err(error) => {
            let error_code = error.code();
            let body =
                DescribeClientQuotasResponse { error_code, entries: None, ..Default::default() };
            return Outcome::Reply(request.head.reply(&body));
        }
    };
    let quotas = shard.image.quotas().iter();
    let found = quotas.filter(|(entity, _)| is_wanted(entity, &wanted, asked.strict));
    let entries = found.map(|(entity, values)| describe_client_quotas_response::EntryData {
        entity: entity
            .iter()
            .map(|(entity_type, name)| describe_client_quotas_response::EntityData {
                entity_type,
                entity_name: name.as_deref(),
                ..Default::default()
            })
            .collect(),
        values: values
            .iter()
            .map(|(key, value)| describe_client_quotas_response::ValueData {
                key,
                value: *value,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    let entries = Some(entries.collect());
    let body = DescribeClientQuotasResponse { entries, ..Default::default() };
    Outcome::Reply(request.head.reply(&body))
}

/// The filter by type of entity.
fn wanted<'a>(
    asked: &DescribeClientQuotasRequest<'a>,
) -> Result<BTreeMap<&'a str, Wanted<'a>>, ErrorCode> {
    let mut wanted = BTreeMap::new();
    for part in asked.components.iter() {
        if part.entity_type.is_empty() || wanted.contains_key(part.entity_type) {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        if !matches!(part.entity_type, "user" | "client-id" | "ip") {
            return Err(ErrorCode::UNSUPPORTED_VERSION);
        }
        let what = match (part.match_type, part.r#match) {
            (0, Some(name)) => Wanted::Named(name),
            (1, None) => Wanted::Default,
            (2, None) => Wanted::Any,
            _ => return Err(ErrorCode::INVALID_REQUEST),
        };
        wanted.insert(part.entity_type, what);
    }
    if wanted.len() > 1 && wanted.contains_key("ip") {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    Ok(wanted)
}

/// All parts asked for are there, and with `strict` no other.
fn is_wanted(entity: &QuotaEntity, wanted: &BTreeMap<&str, Wanted<'_>>, strict: bool) -> bool {
    let matched = entity.iter().filter(|(kind, name)| match wanted.get(kind.as_str()) {
        None => false,
        Some(Wanted::Named(wanted)) => name.as_deref() == Some(wanted),
        Some(Wanted::Default) => name.is_none(),
        Some(Wanted::Any) => true,
    });
    matched.count() == wanted.len() && (!strict || entity.len() == wanted.len())
}

pub(super) fn alter<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<AlterClientQuotasRequest<'_>>() {
        return malformed.into();
    }
    let decide = |controller: &mut Controller<'_>, request: &Request| {
        controller.alter_client_quotas(&request.decode().expect(DECODED))
    };
    change(shard, request, decide, altered)
}

fn altered<I: Io>(_: &Shard<I>, request: &Request, altered: &[AlteredQuotas]) -> Reply<I> {
    let entries = altered.iter().map(|altered| {
        let refusal = altered.outcome.as_ref().err();
        alter_client_quotas_response::EntryData {
            error_code: refusal.map_or(0, |refusal| refusal.error.code()),
            error_message: refusal.map(|refusal| &*refusal.message),
            entity: altered
                .entity
                .iter()
                .map(|(entity_type, name)| alter_client_quotas_response::EntityData {
                    entity_type,
                    entity_name: name.as_deref(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    });
    let entries = entries.collect();
    request.head.reply(&AlterClientQuotasResponse { entries, ..Default::default() })
}
