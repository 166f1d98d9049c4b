//! ListConfigResources (key 74), versions 0 and 1 (KIP-1142): topics and this broker; groups and
//! client metrics have no settings here.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::list_config_resources_response::ConfigResource;
use millrace_wire::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use crate::metadata::ResourceType;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let asked: ListConfigResourcesRequest<'_> = match request.decode() {
        Ok(asked) => asked,
        Err(malformed) => return malformed.into(),
    };
    // Version 0 asked for client metrics alone.
    let is_wanted = |kind: ResourceType| {
        let types = &asked.resource_types;
        request.head.version > 0
            && (types.is_empty() || types.iter().any(|code| code == kind as i8))
    };
    let is_known = |code| ResourceType::from_code(code).is_some();
    let node = shard.shared.node_id.to_string();
    let mut resources = Vec::new();
    let mut add = |kind, resource_name| {
        let resource_type = kind as i8;
        resources.push(ConfigResource { resource_name, resource_type, ..Default::default() });
    };
    for kind in [ResourceType::Broker, ResourceType::BrokerLogger] {
        if is_wanted(kind) {
            add(kind, &*node);
        }
    }
    if is_wanted(ResourceType::Topic) {
        shard.image.topics().for_each(|topic| add(ResourceType::Topic, &*topic.name));
    }
    let body = if asked.resource_types.iter().all(is_known) {
        ListConfigResourcesResponse { config_resources: resources.into(), ..Default::default() }
    } else {
        let error_code = ErrorCode::UNSUPPORTED_VERSION.code();
        ListConfigResourcesResponse { error_code, ..Default::default() }
    };
    Outcome::Reply(request.head.reply(&body))
}
