//! UpdateFeatures (key 57), versions 0 to 2 (KIP-584, KIP-1022): each feature has the one level
//! that is built; the only update that succeeds is to it.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::update_features_response::UpdatableFeatureResult;
use millrace_wire::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let asked: UpdateFeaturesRequest<'_> = match request.decode() {
        Ok(asked) => asked,
        Err(malformed) => return malformed.into(),
    };
    let refused = |feature: &str, level: i16| {
        let present = shard.image.features().get(feature).copied().unwrap_or(0);
        (level != present).then(|| {
            format!(
                "Invalid update version {level} for feature {feature}. Its level is {present}, \
                     and no other is built."
            )
        })
    };
    let updates = asked.feature_updates.iter();
    let outcomes: Vec<(&str, Option<String>)> = updates
        .map(|update| (update.feature, refused(update.feature, update.max_version_level)))
        .collect();
    let error = ErrorCode::INVALID_UPDATE_VERSION;
    let first = outcomes.iter().find_map(|(_, refusal)| refusal.as_deref());
    let results = outcomes
        .iter()
        .map(|(feature, _)| UpdatableFeatureResult { feature, ..Default::default() });
    let has_results = request.head.version < 2 && first.is_none();
    let body = UpdateFeaturesResponse {
        error_code: first.map_or(0, |_| error.code()),
        error_message: first,
        results: if has_results { results.collect() } else { Vec::new().into() },
        ..Default::default()
    };
    Outcome::Reply(request.head.reply(&body))
}
