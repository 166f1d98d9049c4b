//! Clients of other projects against the real program: they judge the protocol.

use crate::process::Broker;
use crate::programs::{Names, Program, Run};

pub(crate) const KAFKA_PYTHON: Program =
    Program::Python { environment: "python", file: "kafka_python.py" };
const KAFKA_PYTHON_1_4: Program =
    Program::Python { environment: "python-1.4", file: "kafka_python_old.py" };
const KAFKA_PYTHON_2_0: Program =
    Program::Python { environment: "python-2.0", file: "kafka_python_old.py" };
const TUTORIALS: [Program; 3] = [
    Program::Python { environment: "python-1.3", file: "tutorials.py" },
    Program::Python { environment: "python-1.4", file: "tutorials.py" },
    Program::Python { environment: "python-2.0", file: "tutorials.py" },
];
const COMPACTED: Program = Program::Python { environment: "python", file: "compacted.py" };
const AIOKAFKA: Program = Program::Python { environment: "python", file: "aio_kafka.py" };
const LIBRDKAFKA: Program = Program::Python { environment: "python", file: "librdkafka.py" };
const JAVA: Program = Program::Java { line: "current", class: "Clients" };
const JAVA_DELIVERY: Program = Program::Java { line: "current", class: "Delivery" };
const JAVA_2_5: Program = Program::Java { line: "old", class: "Clients" };
const TOOLS_2_5: Program = Program::Java { line: "old", class: "OldTools" };
const TOOLS_1_1: Program = Program::Java { line: "oldest", class: "OldTools" };
const JAVA_ADMIN: Program = Program::Java { line: "current", class: "NewerAdmin" };
const JAVA_TOOLS: Program = Program::Java { line: "current", class: "Tools" };
const JAVA_ADMIN_TOOLS: Program = Program::Java { line: "current", class: "AdminTools" };
const STREAMS: Program = Program::Java { line: "current", class: "Streams" };
const CONNECT: Program = Program::Java { line: "current", class: "ConnectFiles" };
const SARAMA_1_19: Program = Program::Compiled { name: "sarama_old" };
const SARAMA: Program = Program::Compiled { name: "sarama_new" };
const FRANZ_GO: Program = Program::Compiled { name: "franz_go" };
const KAFKA_GO: Program = Program::Compiled { name: "kafka_go" };
const KAFKA_JS: Program = Program::Node { file: "kafka_js.js" };
const RUST: Program = Program::Compiled { name: "rust" };

fn check(program: Program, phases: &[&str]) {
    if program.is_ready() {
        let broker = Broker::start(&[]);
        Run::new(&broker).phases(program, phases);
    }
}

/// Runs several programs one after another on the same names.
fn check_all(steps: &[(Program, &[&str])]) {
    if steps.iter().all(|(program, _)| program.is_ready()) {
        let broker = Broker::start(&[]);
        let run = Run::new(&broker);
        for (program, phases) in steps {
            run.phases(*program, phases);
        }
    }
}

/// What `write` stored is read back by `read` after a clean stop, and again after SIGKILL.
fn check_survival(program: Program, overrides: &[&str], write: &[&str], read: &[&str]) {
    if !program.is_ready() {
        return;
    }
    let mut broker = Broker::start(overrides);
    if !broker.is_own() {
        eprintln!("skipped: the broker is not ours to stop");
        return;
    }
    let names = Names::fresh();
    Run::at(&broker, names.clone()).phases(program, write);
    broker.restart_after_kill();
    Run::at(&broker, names.clone()).phases(program, read);
    broker.restart_cleanly();
    Run::at(&broker, names).phases(program, read);
}

#[test]
fn kafka_python_topics_and_records() {
    check(KAFKA_PYTHON, &["create", "write", "read", "latest", "too_large", "delete"]);
}

#[test]
fn kafka_python_group() {
    check(KAFKA_PYTHON, &["create", "write", "group"]);
}

#[test]
fn librdkafka_topics_and_records() {
    check(LIBRDKAFKA, &["create", "write", "read", "latest", "too_large", "delete"]);
}

#[test]
fn librdkafka_admin() {
    check(LIBRDKAFKA, &["create", "configs", "partitions", "delete"]);
}

#[test]
fn librdkafka_group() {
    check(LIBRDKAFKA, &["create", "write", "group"]);
}

#[test]
fn java_topics_and_records() {
    check(JAVA, &["create", "write", "read", "latest", "too_large", "delete"]);
}

#[test]
fn java_group_and_configs() {
    check(JAVA, &["create", "write", "group", "configs"]);
}

#[test]
fn java_tools_topics_and_console() {
    check(JAVA_TOOLS, &["topics", "console", "delete"]);
}

#[test]
fn java_newer_admin() {
    check_all(&[
        (JAVA, &["create", "write", "group"]),
        (JAVA_ADMIN, &["topics", "node", "probes", "quotas", "groups", "offsets"]),
    ]);
}

#[test]
fn java_tools_for_groups_configs_and_offsets() {
    check_all(&[
        (JAVA, &["create", "write", "group"]),
        (JAVA_ADMIN_TOOLS, &["configs", "groups", "node", "offsets"]),
    ]);
}

#[test]
fn java_tools_and_admin_move_partitions_between_folders() {
    if JAVA.is_ready() && JAVA_ADMIN_TOOLS.is_ready() {
        let broker = Broker::start(&["log.dirs={folder}/data,{folder}/more"]);
        let run = Run::new(&broker);
        run.phases(JAVA, &["create", "write"]);
        run.phases(JAVA_ADMIN_TOOLS, &["folders", "cordon", "delivery"]);
        run.phases(JAVA, &["read"]);
    }
}

#[test]
fn java_tools_for_load() {
    check(JAVA_ADMIN_TOOLS, &["perf", "verifiable"]);
}

/// Kafka's DumpLogSegments reads the files of an own broker after a clean stop.
#[test]
fn java_tool_reads_our_segment_files() {
    if !(JAVA.is_ready() && JAVA_ADMIN_TOOLS.is_ready()) {
        return;
    }
    let mut broker = Broker::start(&[]);
    if !broker.is_own() {
        eprintln!("skipped: the broker's files are not ours to read");
        return;
    }
    let names = Names::fresh();
    Run::at(&broker, names.clone()).phases(JAVA, &["create", "write"]);
    broker.restart_cleanly();
    Run::at(&broker, names).phases(JAVA_ADMIN_TOOLS, &["dump_log"]);
}

#[test]
fn kafka_streams_counts_and_windows() {
    check(STREAMS, &["count", "count_again", "windows"]);
}

#[test]
fn connect_standalone_copies_a_file() {
    check(CONNECT, &["standalone"]);
}

#[test]
fn connect_distributed_copies_a_file() {
    check(CONNECT, &["distributed"]);
}

#[test]
fn java_2_5() {
    check(JAVA_2_5, &["create", "write", "read", "latest", "too_large", "group", "configs"]);
}

#[test]
fn kafka_python_1_4_topics_and_records() {
    check(KAFKA_PYTHON_1_4, &["create", "write", "read", "partitioner", "admin", "delete"]);
}

#[test]
fn kafka_python_1_4_groups() {
    check(KAFKA_PYTHON_1_4, &["four_records", "groups"]);
}

#[test]
fn kafka_python_2_0_topics_and_records() {
    check(KAFKA_PYTHON_2_0, &["create", "write", "read", "partitioner", "admin", "delete"]);
}

#[test]
fn kafka_python_2_0_groups() {
    check(KAFKA_PYTHON_2_0, &["four_records", "groups"]);
}

#[test]
fn tutorials_with_kafka_python_1_3() {
    check_all(&[
        (TUTORIALS[0], &["sends", "keys", "by_hand", "tour", "members", "auto_commit"]),
        (TUTORIALS[2], &["by_hand_seen"]),
    ]);
}

#[test]
fn tutorials_with_kafka_python_1_4() {
    let later = ["members_of_later", "commit_in_tens", "auto_commit"];
    check(TUTORIALS[1], &[&["sends", "keys", "tour", "members"], &later[..]].concat());
}

#[test]
fn tutorials_with_kafka_python_2_0() {
    let later = ["members_of_later", "commit_in_tens", "auto_commit"];
    check(TUTORIALS[2], &[&["sends", "keys", "tour", "members"], &later[..]].concat());
}

#[test]
fn java_delivery() {
    check(JAVA_DELIVERY, &["sends", "listener", "other_topics"]);
}

#[test]
fn java_assignors_and_static_members() {
    check(JAVA_DELIVERY, &["assignors", "static_member"]);
}

#[test]
fn tools_of_kafka_2_5() {
    check(TOOLS_2_5, &["topics", "console", "groups"]);
}

#[test]
fn tools_of_kafka_1_1() {
    check(TOOLS_1_1, &["console", "groups", "old_producer"]);
}

#[test]
fn aiokafka() {
    check(AIOKAFKA, &["create", "write", "read", "group", "delete"]);
}

#[test]
fn rust_crates() {
    check(RUST, &["rdkafka_write", "rdkafka_read", "rdkafka_group", "rskafka_read"]);
    check(RUST, &["rskafka_write", "rskafka_read", "rskafka_delete"]);
}

#[test]
fn sarama_records() {
    check(SARAMA, &["create", "write", "read", "version_0_10", "delete"]);
}

#[test]
fn sarama_group_and_admin() {
    check(SARAMA, &["create", "write", "group", "admin"]);
}

#[test]
fn franz_go() {
    check(FRANZ_GO, &["create", "write", "read", "group", "probes", "admin", "delete"]);
}

#[test]
fn kafka_go() {
    check(KAFKA_GO, &["create", "write", "read", "group", "admin", "delete"]);
}

#[test]
fn kafka_js() {
    check(KAFKA_JS, &["create", "write", "read", "group", "admin", "delete"]);
}

#[test]
fn sarama_1_19_records() {
    check(SARAMA_1_19, &["create", "write", "read", "offsets", "default_version", "async"]);
}

#[test]
fn sarama_1_19_groups() {
    check(SARAMA_1_19, &["create", "write", "group", "cluster"]);
}

/// Records in message sets are up-converted, and converted down for those who ask so.
#[test]
fn old_and_new_formats_meet() {
    check_all(&[(JAVA, &["create", "write"]), (SARAMA_1_19, &["read"])]);
    check_all(&[(SARAMA_1_19, &["create", "write"]), (KAFKA_PYTHON, &["read_plain"])]);
}

#[test]
fn each_client_reads_what_another_wrote() {
    let programs = [KAFKA_PYTHON, LIBRDKAFKA, JAVA, AIOKAFKA, SARAMA];
    if !programs.iter().all(|program| program.is_ready()) {
        return;
    }
    let broker = Broker::start(&[]);
    for writer in programs {
        let run = Run::new(&broker);
        run.phases(writer, &["create", "write"]);
        for reader in programs {
            run.phases(reader, &["read"]);
        }
    }
}

#[test]
fn newer_clients_read_what_others_wrote() {
    check_all(&[(JAVA, &["create", "write"]), (FRANZ_GO, &["read"]), (KAFKA_GO, &["read"])]);
    check_all(&[(FRANZ_GO, &["create", "write"]), (KAFKA_PYTHON, &["read"])]);
    check_all(&[(KAFKA_GO, &["create", "write"]), (LIBRDKAFKA, &["read"])]);
    check_all(&[(KAFKA_JS, &["create", "write"]), (FRANZ_GO, &["read"])]);
}

#[test]
fn records_survive_a_kill_and_a_clean_restart() {
    check_survival(KAFKA_PYTHON, &[], &["create", "write", "latest"], &["read", "latest"]);
}

#[test]
fn console_records_survive_a_kill_and_a_clean_restart() {
    check_survival(JAVA_TOOLS, &[], &["topics", "console"], &["console_again"]);
}

#[test]
fn a_compacted_topic_keeps_the_last_record_of_each_key() {
    check_survival(COMPACTED, &["log.cleaner.backoff.ms=100"], &["write", "read"], &["read"]);
}
