//! loadgen: a load generator for Kafka brokers.
//!
//! `args` declares the command line. `run` takes a load through its phases: `cluster` (versions,
//! topic, leaders), then one `driver` thread per CPU with producer and consumer connections, then
//! `verify`, `cost` and `report`. What goes over the wire is laid out in `batch` and `payload`;
//! when, in `schedule`.

pub mod args;
pub mod batch;
pub mod brokers;
pub mod catchup;
pub mod churn;
pub mod clock;
pub mod cluster;
pub mod cost;
pub mod crash;
pub mod crew;
pub mod driver;
pub mod embedded;
pub mod exposition;
pub mod fetched;
pub mod findmax;
pub mod flushes;
pub mod gather;
pub mod group;
pub mod histogram;
pub mod interrupt;
pub mod judge;
pub mod keys;
pub mod lifecycle;
pub mod listening;
pub mod machine;
pub mod mix;
pub mod payload;
pub mod plan;
pub mod quickstart;
pub mod report;
pub mod respond;
pub mod results;
pub mod room;
pub mod run;
pub mod schedule;
pub mod secure;
pub mod study;
pub mod verify;
