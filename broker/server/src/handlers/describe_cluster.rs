//! DescribeCluster (key 60), versions 0 to 2 (KIP-700, KIP-919, KIP-1073): this one broker.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::describe_cluster_response::DescribeClusterBroker;
use millrace_wire::messages::{DescribeClusterRequest, DescribeClusterResponse};

use crate::request::{Outcome, Request};
use crate::shard::Shard;

/// `endpoint_type` of brokers, and of controllers, which have no listener of their own here.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Every operation on a cluster (`AclOperation` codes 5, 7 to 12) as a bit field.
const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let asked: DescribeClusterRequest<'_> = match request.decode() {
        Ok(asked) => asked,
        Err(malformed) => return malformed.into(),
    };
    if asked.endpoint_type != BROKERS {
        let error = match asked.endpoint_type {
            CONTROLLERS => ErrorCode::MISMATCHED_ENDPOINT_TYPE,
            _ => ErrorCode::UNSUPPORTED_ENDPOINT_TYPE,
        };
        let body = DescribeClusterResponse {
            error_code: error.code(),
            error_message: Some("this listener belongs to a broker"),
            endpoint_type: BROKERS,
            ..Default::default()
        };
        return Outcome::Reply(request.head.reply(&body));
    }
    let endpoint = shard.shared.endpoint(request.head.listener);
    let node_id = shard.shared.node_id;
    let broker = DescribeClusterBroker {
        broker_id: node_id,
        host: &endpoint.host,
        port: i32::from(endpoint.port),
        ..Default::default()
    };
    let body = DescribeClusterResponse {
        cluster_id: &shard.shared.cluster_id,
        controller_id: node_id,
        brokers: vec![broker].into(),
        cluster_authorized_operations: if asked.include_cluster_authorized_operations {
            CLUSTER_OPERATIONS
        } else {
            i32::MIN
        },
        ..Default::default()
    };
    Outcome::Reply(request.head.reply(&body))
}
