//! Changing client quotas (`ClientQuotaControlManager`, KIP-546). They are stored and shown;
//! nothing is slowed down by them.

use std::collections::BTreeMap;

use millrace_wire::ErrorCode;
use millrace_wire::messages::AlterClientQuotasRequest;
use millrace_wire::messages::alter_client_quotas_request::{EntryData, OpData};

use super::{Controller, Refusal, refuse};
use crate::metadata::checkpoint::quota_record;
use crate::metadata::record::{MetadataRecord, QuotaEntity, quota_entity};

/// What was decided on the quotas of one entity.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct AlteredQuotas {
    pub entity: QuotaEntity,
    pub outcome: Result<(), Refusal>,
}

/// Keys of quotas, and whether their values are whole numbers.
type Keys = &'static [(&'static str, bool)];
const OF_CLIENTS: Keys = &[
    ("consumer_byte_rate", true),
    ("controller_mutation_rate", false),
    ("producer_byte_rate", true),
    ("request_percentage", false),
];
const OF_ADDRESSES: Keys = &[("connection_creation_rate", true)];

impl Controller<'_> {
    /// Decides an AlterClientQuotas request: all changes of an entity, or none.
    pub fn alter_client_quotas(
        &self,
        request: &AlterClientQuotasRequest<'_>,
    ) -> (Vec<MetadataRecord>, Vec<AlteredQuotas>) {
        let mut records = Vec::new();
        let mut by_entity: BTreeMap<QuotaEntity, Vec<EntryData<'_>>> = BTreeMap::new();
        for entry in request.entries.iter() {
            let parts = entry.entity.iter().map(|part| (part.entity_type, part.entity_name));
            let entity = quota_entity(parts);
            by_entity.entry(entity).or_default().push(entry);
        }
        let altered = by_entity.into_iter().map(|(entity, entries)| {
            let outcome = match &entries[..] {
                [entry] => self.alter_quotas_of(&entity, entry),
                _ => refuse(ErrorCode::INVALID_REQUEST, "Each entity must appear at most once."),
            };
            let outcome = outcome.map(|changes| {
                if !request.validate_only {
                    records.extend(changes);
                }
            });
            AlteredQuotas { entity, outcome }
        });
        let altered = altered.collect();
        (records, altered)
    }

    fn alter_quotas_of(
        &self,
        entity: &QuotaEntity,
        entry: &EntryData<'_>,
    ) -> Result<Vec<MetadataRecord>, Refusal> {
        let keys = keys_of(entity).or_else(|why| refuse(ErrorCode::INVALID_REQUEST, why))?;
        let present = self.image.quotas().get(entity);
        let mut changes = Vec::new();
        for op in entry.ops.iter() {
            let has = present.and_then(|present| present.get(op.key)).copied();
            if op.remove {
                if has.is_some() {
                    changes.push(quota_record(entity, op.key, None));
                }
                continue;
            }
            check_value(keys, &op).or_else(|why| refuse(ErrorCode::INVALID_REQUEST, why))?;
            if has != Some(op.value) {
                changes.push(quota_record(entity, op.key, Some(op.value)));
            }
        }
        Ok(changes)
    }
}

/// The keys that an entity may have: users and clients, alone or together, or addresses.
fn keys_of(entity: &QuotaEntity) -> Result<Keys, String> {
    if entity.is_empty() {
        return Err("Invalid empty client quota entity".into());
    }
    for (index, (kind, name)) in entity.iter().enumerate() {
        if !matches!(kind.as_str(), "user" | "client-id" | "ip") {
            return Err(format!("Unhandled client quota entity type: {kind}"));
        }
        if name.as_ref().is_some_and(String::is_empty) {
            return Err(format!("Empty {kind} not supported"));
        }
        if entity[..index].iter().any(|(other, _)| other == kind) {
            return Err(format!("Invalid client quota entity, duplicate entity type: {kind}"));
        }
    }
    match entity.iter().find(|(kind, _)| kind == "ip") {
        None => Ok(OF_CLIENTS),
        Some((_, Some(name))) if name.parse::<std::net::IpAddr>().is_err() => {
            Err(format!("{name} is not a valid IP or resolvable host."))
        }
        Some(_) if entity.len() > 1 => Err("Invalid combination of entity types".into()),
        Some(_) => Ok(OF_ADDRESSES),
    }
}

fn check_value(keys: Keys, op: &OpData<'_>) -> Result<(), String> {
    let Some((key, is_whole)) = keys.iter().find(|(key, _)| *key == op.key) else {
        return Err(format!("Invalid configuration key {}", op.key));
    };
    if op.value.is_nan() || op.value <= 0.0 {
        return Err(format!("Quota {key} must be greater than 0"));
    }
    if *is_whole && op.value.fract() > 1e-6 {
        return Err(format!("Quota {key} must be a whole number"));
    }
    Ok(())
}
