//! `millrace cluster`: its id, its brokers, and what they can do.

use crate::print::Table;
use crate::{Cluster, Printer, Result};
use clap::Args;
use millrace_client::{Options, To};
use millrace_wire::ApiKey;
use serde_json::json;

const EXAMPLES: &str = "Examples:
  millrace cluster
      the id of the cluster and its brokers
  millrace cluster --api-versions
      which requests each broker answers, and in which versions";

/// Show the cluster's id, brokers and API versions (Kafka: kafka-broker-api-versions).
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct ShowCluster {
    /// The versions of each API that each broker offers.
    #[arg(long)]
    api_versions: bool,
    #[command(flatten)]
    cluster: Cluster,
}

impl ShowCluster {
    pub(crate) fn run(&self, printer: &mut Printer<'_>) -> Result {
        let mut client = self.cluster.connect(Options::default())?;
        let nodes = client.nodes().clone();
        if self.api_versions {
            let mut table = Table::new(&["NODE", "KEY", "API", "LOWEST", "HIGHEST"]);
            for node in nodes.keys() {
                for (key, versions) in client.versions(To::Node(*node))?.0 {
                    let name = ApiKey::try_from(key).map_or("UNKNOWN", ApiKey::name);
                    let (lowest, highest) = (*versions.start(), *versions.end());
                    table.row([
                        json!(node),
                        json!(key),
                        json!(name),
                        json!(lowest),
                        json!(highest),
                    ]);
                }
            }
            return Ok(printer.table(&table, self.cluster.json)?);
        }
        let mut table = Table::new(&["NODE", "ADDRESS"]);
        for (node, address) in nodes {
            table.row([json!(node), json!(address)]);
        }
        let (id, controller) = (client.cluster_id().unwrap_or("-"), client.controller());
        if self.cluster.json {
            let brokers = table.to_json();
            let all = json!({ "cluster_id": id, "controller": controller, "brokers": brokers });
            return Ok(printer.json(&all)?);
        }
        printer.line(format_args!("ClusterId: {id}  Controller: {controller}"))?;
        Ok(printer.table(&table, false)?)
    }
}
