//! Kafka's own tool reads the metadata log and the checkpoint that are written here.
//!
//! Needs the jars that `tests/clients/setup java` gathers; without them it says so and passes,
//! except where CI is set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use millrace_server::config::Config;
use millrace_server::metadata::controller::{Controller, Registration, Spread};
use millrace_server::metadata::{Endpoint, Image, MetadataRecord, leader_change_batch};
use millrace_wire::Uuid;
use millrace_wire::batch::{patch_base_offset, patch_leader_epoch};
use millrace_wire::messages::CreateTopicsRequest;
use millrace_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};

const TOOL: &str = "org.apache.kafka.tools.DumpLogSegments";

fn jars() -> Option<PathBuf> {
    let gathered = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../clients/java-current/lib");
    gathered.is_dir().then_some(gathered)
}

/// A log as the broker writes it, and the picture it leads to.
struct Log {
    bytes: Vec<u8>,
    image: Image,
}

impl Log {
    fn append(&mut self, mut batch: Vec<u8>, epoch: i32) {
        patch_base_offset(&mut batch, self.image.end_offset());
        patch_leader_epoch(&mut batch, epoch);
        self.bytes.extend(batch);
    }

    fn write(&mut self, records: &[MetadataRecord]) {
        let batch = MetadataRecord::batch(records, 1_795_263_771_609);
        self.append(batch, self.image.leader_epoch());
        self.image.apply(records).expect("decided against this image");
    }

    fn start(&mut self, config: &Config) {
        let epoch = self.image.leader_epoch() + 1;
        self.append(leader_change_batch(config.node_id, 1_795_263_771_609), epoch);
        self.image.lead(epoch);
        let own = Registration {
            incarnation: Uuid::from_halves(1, u64::try_from(epoch).expect("epochs are positive")),
            endpoints: vec![Endpoint {
                listener: "PLAINTEXT".into(),
                host: "127.0.0.1".into(),
                port: 9092,
                security_protocol: 0,
            }],
            directories: vec![Uuid::from_halves(5, 5)],
            found: Default::default(),
        };
        let records = with(&self.image, config, |controller| controller.begin(&own));
        self.write(&records);
    }
}

fn with<T>(image: &Image, config: &Config, decide: impl FnOnce(&mut Controller<'_>) -> T) -> T {
    let mut next = 1000;
    let mut random = || {
        next += 1;
        next
    };
    let spread = Spread::new([(Uuid::from_halves(5, 5), false)]);
    decide(&mut Controller { image, config, spread, random: &mut random })
}

fn example() -> Log {
    let config = Config::default();
    let mut log = Log { bytes: Vec::new(), image: Image::default() };
    log.start(&config);
    let setting =
        CreatableTopicConfig { name: "retention.ms", value: Some("1000"), ..Default::default() };
    let topic = CreatableTopic {
        name: "t1",
        num_partitions: 2,
        replication_factor: 1,
        configs: vec![setting].into(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic].into(), ..Default::default() };
    let (records, _) = with(&log.image, &config, |controller| controller.create_topics(&request));
    log.write(&records);
    let (_, record) = with(&log.image, &config, |controller| controller.allocate_producer_ids());
    log.write(&[record]);
    log.start(&config);
    log
}

fn dump(jars: &Path, file: &Path) -> String {
    let output = Command::new("java")
        .arg("-Xmx256m")
        .arg("-cp")
        .arg(jars.join("*"))
        .args([TOOL, "--cluster-metadata-decoder", "--files"])
        .arg(file)
        .output()
        .expect("java is installed where the jars are");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn kafkas_dump_tool_reads_log_and_checkpoint() {
    let Some(jars) = jars() else {
        assert!(std::env::var_os("CI").is_none(), "tests/clients/setup java has not run");
        eprintln!("skipped: run broker/server/tests/clients/setup java");
        return;
    };
    let log = example();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("metadata-log");
    fs::create_dir_all(&folder).expect("the target folder is writable");
    let segment = folder.join("00000000000000000000.log");
    let checkpoint = folder.join(log.image.checkpoint_name());
    fs::write(&segment, &log.bytes).expect("the target folder is writable");
    fs::write(&checkpoint, log.image.checkpoint(7)).expect("the target folder is writable");

    let text = dump(&jars, &segment);
    assert!(!text.contains("isvalid: false"), "{text}");
    for part in [
        "LeaderChange: {\"version\":0,\"leaderId\":1,\"voters\":[{\"voterId\":1}]",
        "\"name\":\"metadata.version\",\"featureLevel\":30",
        "\"type\":\"REGISTER_BROKER_RECORD\",\"version\":3,\"data\":{\"brokerId\":1,",
        "\"brokerEpoch\":2,\"endPoints\":[{\"name\":\"PLAINTEXT\",\"host\":\"127.0.0.1\"",
        "\"type\":\"BROKER_REGISTRATION_CHANGE_RECORD\"",
        "\"type\":\"TOPIC_RECORD\",\"version\":0,\"data\":{\"name\":\"t1\"",
        "\"resourceName\":\"t1\",\"name\":\"retention.ms\",\"value\":\"1000\"",
        "\"replicas\":[1],\"isr\":[1],\"removingReplicas\":[],\"addingReplicas\":[],\"leader\":1,\
         \"leaderEpoch\":0,\"partitionEpoch\":0",
        "\"type\":\"PRODUCER_IDS_RECORD\"",
        "\"nextProducerId\":1000",
        "\"type\":\"PARTITION_CHANGE_RECORD\"",
        "partitionLeaderEpoch: 2",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }

    let text = dump(&jars, &checkpoint);
    for part in ["SnapshotHeader", "\"leaderEpoch\":1,\"partitionEpoch\":1", "SnapshotFooter"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}
