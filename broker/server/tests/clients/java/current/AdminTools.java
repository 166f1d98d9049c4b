//! Kafka's tools for configurations, groups, offsets, folders, versions, load and segment files.

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;

public final class AdminTools {
    static final String TOOLS = "org.apache.kafka.tools.";

    public static void main(String[] args) throws Exception {
        Map<String, Expected.Phase> phases = new HashMap<>();
        phases.put("configs", AdminTools::configs);
        phases.put("groups", AdminTools::groups);
        phases.put("offsets", AdminTools::offsets);
        phases.put("node", AdminTools::node);
        phases.put("folders", AdminTools::folders);
        phases.put("cordon", AdminTools::cordon);
        phases.put("delivery", AdminTools::delivery);
        phases.put("perf", AdminTools::perf);
        phases.put("verifiable", AdminTools::verifiable);
        phases.put("dump_log", AdminTools::dumpLog);
        Tools.main(args, phases);
    }

    /** Runs `tool --bootstrap-server BOOTSTRAP args`, split at blanks. */
    static String tool(int status, String bootstrap, String tool, String args) throws Exception {
        String[] all = ("--bootstrap-server " + bootstrap + " " + args).split(" ");
        return Tools.run(status, "", tool, all);
    }

    static void configs(String bootstrap, String prefix, long baseMs) throws Exception {
        String tool = "kafka.admin.ConfigCommand";
        String topic = "--entity-type topics --entity-name " + prefix + "-codecs ";
        Tools.contains(tool(0, bootstrap, tool, topic + "--alter --add-config "
                + "retention.ms=86400000,cleanup.policy=[compact,delete]"),
                "Completed updating config for topic", "alter");
        String text = tool(0, bootstrap, tool, topic + "--describe");
        Tools.contains(text, "retention.ms=86400000", "describe");
        Tools.contains(text, "cleanup.policy=compact,delete", "describe");
        tool(0, bootstrap, tool, topic + "--alter --delete-config retention.ms,cleanup.policy");
        text = tool(0, bootstrap, tool, topic + "--describe");
        Expected.equal(text.contains("retention.ms"), false, "after delete-config");
        text = tool(0, bootstrap, tool, topic + "--describe --all");
        Tools.contains(text, "retention.ms=604800000", "describe --all");
        Tools.contains(tool(1, bootstrap, tool, topic + "--alter --add-config no.such.key=1"),
                "no.such.key", "an unknown key");
        String brokers = "--entity-type brokers --entity-default ";
        tool(0, bootstrap, tool, brokers + "--alter --add-config log.retention.ms=90000000");
        Tools.contains(tool(0, bootstrap, tool, brokers + "--describe"),
                "log.retention.ms=90000000", "the default of brokers");
        tool(0, bootstrap, tool, brokers + "--alter --delete-config log.retention.ms");
        String user = "--entity-type users --entity-name " + prefix + "-user ";
        tool(0, bootstrap, tool, user + "--alter --add-config producer_byte_rate=1024");
        Expected.soon(() -> tool(0, bootstrap, tool, user + "--describe")
                .contains("producer_byte_rate=1024.0"), "the quota is described");
        tool(0, bootstrap, tool, user + "--alter --delete-config producer_byte_rate");
    }

    /** After the phase group of Clients, which left offset 17 for partition 0. */
    static void groups(String bootstrap, String prefix, long baseMs) throws Exception {
        String tool = TOOLS + "consumer.group.ConsumerGroupCommand";
        String group = prefix + "-group-java";
        String one = "--group " + group + " ";
        String text = tool(0, bootstrap, tool, "--list");
        Expected.equal(text.lines().filter(group::equals).count(), 1L, "listed");
        row(tool(0, bootstrap, tool, one + "--describe"), prefix + "-codecs 0 17 50 33");
        Tools.contains(tool(0, bootstrap, tool, one + "--describe --state"), "Empty", "state");
        String reset = one + "--topic " + prefix + "-codecs:0 --reset-offsets --execute ";
        row(tool(0, bootstrap, tool, reset + "--to-earliest"), prefix + "-codecs 0 0");
        row(tool(0, bootstrap, tool, reset + "--shift-by 5"), prefix + "-codecs 0 5");
        row(tool(0, bootstrap, tool, reset + "--to-latest"), prefix + "-codecs 0 50");
        String time = java.time.Instant.ofEpochMilli(baseMs + 20 * Expected.STEP_MS).toString()
                .replace("Z", "");
        time = time.length() == 19 ? time + ".000" : time;
        row(tool(0, bootstrap, tool, reset + "--to-datetime " + time), prefix + "-codecs 0 20");
        row(tool(0, bootstrap, tool, one + "--describe"), prefix + "-codecs 0 20 50 30");
        tool(0, bootstrap, tool, reset.replace("codecs:0", "codecs") + "--to-earliest");
        row(tool(0, bootstrap, tool, one + "--delete-offsets --topic " + prefix + "-codecs:1"),
                prefix + "-codecs 1 Successful");
        Tools.contains(tool(0, bootstrap, tool, one + "--delete"), "was successful", "delete");
        text = tool(0, bootstrap, tool, "--list");
        Expected.equal(text.lines().filter(group::equals).count(), 0L, "listed after deletion");
    }

    /** Some line has these words one after another, with any blanks between. */
    static void row(String text, String words) {
        String pattern = Pattern.quote(words).replace(" ", "\\E\\s+\\Q") + "(\\s|$)";
        if (!Pattern.compile(pattern, Pattern.MULTILINE).matcher(text).find()) {
            throw new AssertionError("no row `" + words + "` in\n" + text);
        }
    }

    static void offsets(String bootstrap, String prefix, long baseMs) throws Exception {
        String topic = prefix + "-codecs";
        String tool = TOOLS + "GetOffsetShell";
        for (String[] row : new String[][] {{"earliest", "0"}, {"latest", "50"}, {"-1", "50"},
            {"max-timestamp", "49"}, {String.valueOf(baseMs + 1), "1"}}) {
            String text = tool(0, bootstrap, tool, "--topic-partitions " + topic + ":0 --time "
                    + row[0]);
            Tools.contains(text, topic + ":0:" + row[1], "offset for " + row[0]);
        }
        Path json = Files.createTempFile("millrace", ".json");
        Files.writeString(json, "{\"partitions\":[{\"topic\":\"" + topic
                + "\",\"partition\":0,\"offset\":7}],\"version\":1}");
        Tools.contains(tool(0, bootstrap, TOOLS + "DeleteRecordsCommand",
                "--offset-json-file " + json), "low_watermark: 7", "delete-records");
        Files.delete(json);
        Tools.contains(tool(0, bootstrap, tool, "--topic " + topic + " --time earliest"),
                topic + ":0:7", "after delete-records");
    }

    static void node(String bootstrap, String prefix, long baseMs) throws Exception {
        String text = tool(0, bootstrap, TOOLS + "LogDirsCommand", "--describe --topic-list "
                + prefix + "-codecs");
        Tools.contains(text, "\"partition\":\"" + prefix + "-codecs-0\"", "log-dirs");
        text = tool(0, bootstrap, TOOLS + "BrokerApiVersionsCommand", "");
        Tools.contains(text, "Produce(0): 0 to 13", "broker-api-versions");
        Tools.contains(text, "ApiVersions(18): 0 to 4", "broker-api-versions");
        Tools.contains(tool(0, bootstrap, TOOLS + "FeatureCommand", "describe"),
                "metadata.version", "features");
        Tools.contains(tool(0, bootstrap, TOOLS + "MetadataQuorumCommand", "describe --status"),
                "LeaderId:", "metadata-quorum");
        text = tool(0, bootstrap, TOOLS + "GroupsCommand", "--list");
        Tools.contains(text, "GROUP", "groups");
        Tools.contains(Tools.run(0, "", TOOLS + "ClusterTool", "cluster-id", "--bootstrap-server",
                bootstrap), "Cluster ID: ", "cluster-id");
        text = tool(0, bootstrap, TOOLS + "LeaderElectionCommand", "--election-type preferred "
                + "--topic " + prefix + "-codecs --partition 0");
        Tools.contains(text, "Valid replica already elected", "leader-election");
    }

    /** On a broker with two data folders: a partition of the phase create goes to the other. */
    static void folders(String bootstrap, String prefix, long baseMs) throws Exception {
        try (Admin admin = Clients.admin(bootstrap)) {
            int node = admin.describeCluster().nodes().get().iterator().next().id();
            var replica = new TopicPartitionReplica(prefix + "-codecs", 0, node);
            var dirs = admin.describeLogDirs(Set.of(node)).allDescriptions().get().get(node);
            Expected.equal(dirs.size(), 2, "folders");
            String text = tool(0, bootstrap, TOOLS + "LogDirsCommand", "--describe");
            for (var dir : dirs.entrySet()) {
                Tools.contains(text, "\"logDir\":\"" + dir.getKey() + "\"", "log-dirs");
                long total = dir.getValue().totalBytes().getAsLong();
                long usable = dir.getValue().usableBytes().getAsLong();
                Expected.equal(0 < usable && usable <= total, true, usable + " of " + total);
                long count = dir.getValue().replicaInfos().keySet().stream()
                        .filter(tp -> tp.topic().equals(prefix + "-codecs")).count();
                Expected.equal(count == 1 || count == 2, true, count + " in one folder");
            }
            String from = folderOf(admin, replica);
            String to = dirs.keySet().stream().filter(dir -> !dir.equals(from)).findAny().get();
            for (String dir : List.of(from, to)) {
                var wish = Map.of(replica, dir + "/none");
                Expected.raises("LogDirNotFoundException",
                        () -> admin.alterReplicaLogDirs(wish).all().get(), "no such folder");
            }
            Path json = Files.createTempFile("millrace", ".json");
            Files.writeString(json, "{\"version\":1,\"partitions\":[{\"topic\":\""
                    + replica.topic() + "\",\"partition\":0,\"replicas\":[" + node
                    + "],\"log_dirs\":[\"" + to + "\"]}]}");
            String tool = TOOLS + "reassign.ReassignPartitionsCommand";
            String file = "--reassignment-json-file " + json + " ";
            Tools.contains(tool(0, bootstrap, tool, file + "--execute"),
                    "Successfully started moving log directory", "reassign-partitions");
            Expected.soon(() -> tool(0, bootstrap, tool, file + "--verify")
                    .contains("completed successfully"), "reassign-partitions --verify");
            Expected.equal(folderOf(admin, replica), to, "moved by the tool");
            Files.delete(json);
            admin.alterReplicaLogDirs(Map.of(replica, from)).all().get();
            Expected.soon(() -> folderOf(admin, replica).equals(from), "moved back");
        }
    }

    /** On the same broker: folders that get no new partitions. */
    static void cordon(String bootstrap, String prefix, long baseMs) throws Exception {
        try (Admin admin = Clients.admin(bootstrap)) {
            int node = admin.describeCluster().nodes().get().iterator().next().id();
            var replica = new TopicPartitionReplica(prefix + "-codecs", 0, node);
            var dirs = admin.describeLogDirs(Set.of(node)).allDescriptions().get().get(node);
            String to = folderOf(admin, replica);
            String from = dirs.keySet().stream().filter(dir -> !dir.equals(to)).findAny().get();
            cordon(admin, node, from);
            Expected.soon(() -> admin.describeLogDirs(Set.of(node)).allDescriptions().get()
                    .get(node).get(from).isCordoned(), "cordoned");
            Expected.raises("InvalidReplicaAssignmentException", () -> admin.alterReplicaLogDirs(
                    Map.of(replica, from)).all().get(), "to a cordoned folder");
            var other = new NewTopic(prefix + "-cordoned", 3, (short) 1);
            admin.createTopics(Set.of(other)).all().get();
            Expected.soon(() -> admin.describeLogDirs(Set.of(node)).allDescriptions().get()
                    .get(node).get(to).replicaInfos().keySet().stream()
                    .filter(tp -> tp.topic().equals(other.name())).count() == 3, "all in one");
            cordon(admin, node, "*");
            Expected.soon(() -> {
                String name = prefix + "-" + System.nanoTime();
                try {
                    Clients.createOne(admin, name, 1, 1).get();
                    return false;
                } catch (ExecutionException e) {
                    return e.getCause() instanceof InvalidReplicationFactorException;
                }
            }, "no folder is open");
            Expected.raises("InvalidRequestException", () -> cordon(admin, node, to + "/none"),
                    "a folder that is not there");
            cordon(admin, node, "");
            Expected.soon(() -> !admin.describeLogDirs(Set.of(node)).allDescriptions().get()
                    .get(node).get(from).isCordoned(), "open again");
            admin.alterReplicaLogDirs(Map.of(replica, from)).all().get();
            Expected.soon(() -> folderOf(admin, replica).equals(from), "moved back");
        }
    }

    /** Records sent while their partition goes from folder to folder are there once, in order. */
    static void delivery(String bootstrap, String prefix, long baseMs) throws Exception {
        String topic = prefix + "-moving";
        var future = new ArrayList<Future<RecordMetadata>>();
        try (Admin admin = Clients.admin(bootstrap); var producer = Clients.producer(bootstrap)) {
            var config = Map.of("segment.bytes", "1048576");
            var wanted = new NewTopic(topic, 1, (short) 1).configs(config);
            admin.createTopics(Set.of(wanted)).all().get();
            int node = admin.describeCluster().nodes().get().iterator().next().id();
            var replica = new TopicPartitionReplica(topic, 0, node);
            var dirs = admin.describeLogDirs(Set.of(node)).allDescriptions().get().get(node);
            byte[] value = new byte[10_000];
            for (int round = 0; round < 8; round++) {
                String from = folderOf(admin, replica);
                String to = dirs.keySet().stream().filter(d -> !d.equals(from)).findAny().get();
                admin.alterReplicaLogDirs(Map.of(replica, to)).all().get();
                while (!folderOf(admin, replica).equals(to)) {
                    for (int i = 0; i < 50; i++) {
                        byte[] key = Expected.bytes(String.valueOf(future.size()));
                        future.add(producer.send(new ProducerRecord<>(topic, 0, key, value)));
                    }
                }
            }
            for (int i = 0; i < future.size(); i++) {
                Expected.equal(future.get(i).get().offset(), (long) i, "offset of record " + i);
            }
            var end = admin.listOffsets(Map.of(new TopicPartition(topic, 0),
                    OffsetSpec.latest())).all().get();
            Expected.equal(end.values().iterator().next().offset(), (long) future.size(), "end");
        }
    }

    static Object cordon(Admin admin, int node, String dirs) throws Exception {
        var broker = new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(node));
        var entry = new ConfigEntry("cordoned.log.dirs", dirs);
        return admin.incrementalAlterConfigs(Map.of(broker, List.of(
                new AlterConfigOp(entry, AlterConfigOp.OpType.SET)))).all().get();
    }

    static String folderOf(Admin admin, TopicPartitionReplica replica) throws Exception {
        return admin.describeReplicaLogDirs(Set.of(replica)).all().get().get(replica)
                .getCurrentReplicaLogDir();
    }

    static void perf(String bootstrap, String prefix, long baseMs) throws Exception {
        String topic = prefix + "-perf";
        Tools.topicTool(0, bootstrap, "--create", "--topic", topic, "--partitions", "3");
        String text = Tools.run(0, "", TOOLS + "ProducerPerformance", ("--topic " + topic
                + " --num-records 20000 --record-size 100 --throughput -1 --producer-props"
                + " bootstrap.servers=" + bootstrap + " compression.type=lz4").split(" "));
        Tools.contains(text, "20000 records sent", "producer-perf-test");
        text = tool(0, bootstrap, TOOLS + "ConsumerPerformance",
                "--topic " + topic + " --num-records 20000 --timeout 20000");
        String row = text.lines().filter(l -> l.startsWith("20")).findFirst().orElse("no row");
        Expected.equal(Integer.parseInt(row.split(", ")[4]) >= 20000, true, "records in " + text);
    }

    static void verifiable(String bootstrap, String prefix, long baseMs) throws Exception {
        String topic = prefix + "-verifiable";
        Tools.topicTool(0, bootstrap, "--create", "--topic", topic, "--partitions", "2");
        String text = process(TOOLS + "VerifiableProducer", "--bootstrap-server", bootstrap,
                "--topic", topic, "--max-messages", "100", "--acks", "-1");
        Tools.contains(text, "\"acked\":100", "verifiable producer");
        text = process(TOOLS + "VerifiableConsumer", "--bootstrap-server", bootstrap,
                "--topic", topic, "--group-id", prefix + "-verifiable", "--max-messages", "100",
                "--reset-policy", "earliest");
        long seen = text.lines().filter(l -> l.contains("\"records_consumed\""))
                .mapToLong(l -> Long.parseLong(l.replaceAll(".*\"count\":(\\d+).*", "$1")))
                .reduce(0, (a, b) -> a + b);
        Expected.equal(seen, 100L, "records of the verifiable consumer");
    }

    /** For tools which do their last work when their JVM ends. */
    static String process(String... command) throws Exception {
        List<String> all = new ArrayList<>(List.of("java", "-XX:TieredStopAtLevel=1", "-cp",
                System.getProperty("java.class.path")));
        all.addAll(List.of(command));
        Process process = new ProcessBuilder(all).redirectErrorStream(true).start();
        process.getOutputStream().close();
        String text = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        Expected.equal(process.waitFor(), 0, command[0] + " printed\n" + text + "\nand its status");
        return text;
    }

    /** Kafka's own reader of segment files finds our records and our index without fault. */
    static void dumpLog(String bootstrap, String prefix, long baseMs) throws Exception {
        Path folder = Path.of(System.getenv("MILLRACE_TEST_DATA"), prefix + "-codecs-0");
        String base = folder + "/00000000000000000000";
        String text = Tools.run(0, "", TOOLS + "DumpLogSegments", "--files", base + ".log",
                "--print-data-log", "--deep-iteration");
        for (String codec : new String[] {"none", "gzip", "snappy", "lz4", "zstd"}) {
            Tools.contains(text, "compresscodec: " + codec, "codecs in the segment");
        }
        Expected.equal(text.lines().filter(l -> l.startsWith("| offset:")).count(),
                (long) Expected.COUNT, "records in the segment");
        Expected.equal(text.contains("isvalid: false"), false, "a bad CRC in\n" + text);
        for (String index : new String[] {".index", ".timeindex"}) {
            text = Tools.run(0, "", TOOLS + "DumpLogSegments", "--files", base + index,
                    "--verify-index-only");
            Expected.equal(text.contains("ismatch"), false, index + " printed\n" + text);
        }
    }
}
