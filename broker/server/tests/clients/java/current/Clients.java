//! Kafka's Java clients, as old as 2.4: topics, codecs, reading by offset and time, groups.

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Clients {
    public static void main(String[] args) throws Exception {
        Map<String, Expected.Phase> phases = new HashMap<>();
        phases.put("create", Clients::create);
        phases.put("write", Clients::write);
        phases.put("read", Clients::read);
        phases.put("latest", Clients::latest);
        phases.put("too_large", Clients::tooLarge);
        phases.put("group", Clients::group);
        phases.put("configs", Clients::configs);
        phases.put("delete", Clients::delete);
        Expected.main(args, phases);
    }

    static Admin admin(String bootstrap) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        return Admin.create(properties);
    }

    static KafkaProducer<byte[], byte[]> producer(String bootstrap, String... options) {
        Properties properties = properties(bootstrap, options);
        return new KafkaProducer<>(
                properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, String... options) {
        Properties properties = properties(bootstrap, options);
        properties.putIfAbsent("enable.auto.commit", "false");
        return new KafkaConsumer<>(
                properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static Properties properties(String bootstrap, String... options) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        for (int i = 0; i < options.length; i += 2) {
            properties.put(options[i], options[i + 1]);
        }
        return properties;
    }

    static List<ConsumerRecord<byte[], byte[]>> poll(
            KafkaConsumer<byte[], byte[]> consumer, int count, String what) {
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        long end = System.nanoTime() + 15_000_000_000L;
        while (found.size() < count) {
            consumer.poll(Duration.ofMillis(200)).forEach(found::add);
            if (System.nanoTime() > end) {
                throw new AssertionError(what + ": " + found.size() + " of " + count + " in 15 s");
            }
        }
        return found;
    }

    static void create(String bootstrap, String prefix, long baseMs) throws Exception {
        try (Admin admin = admin(bootstrap)) {
            createOne(admin, prefix + "-codecs", 3, 1).get();
            Expected.raises("TopicExistsException",
                    () -> createOne(admin, prefix + "-codecs", 3, 1).get(), "second create");
            Expected.raises("InvalidReplicationFactorException",
                    () -> createOne(admin, prefix + "-f", 1, 3).get(), "factor 3");
            Expected.raises("InvalidTopicException",
                    () -> createOne(admin, "no/slash", 1, 1).get(), "bad name");
        }
    }

    static Future<Void> createOne(Admin admin, String name, int partitions, int factor) {
        NewTopic topic = new NewTopic(name, partitions, (short) factor);
        return admin.createTopics(Set.of(topic)).all();
    }

    static void write(String bootstrap, String prefix, long baseMs) throws Exception {
        String topic = prefix + "-codecs";
        for (int codec = 0; codec < Expected.CODECS.length; codec++) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            int first = codec * Expected.PER_CODEC;
            try (var producer = producer(bootstrap, "linger.ms", "20", "compression.type",
                    Expected.CODECS[codec])) {
                for (int offset = first; offset < first + Expected.PER_CODEC; offset++) {
                    sent.add(producer.send(Expected.record(topic, offset, baseMs)));
                }
            }
            for (int i = 0; i < sent.size(); i++) {
                RecordMetadata metadata = sent.get(i).get();
                Expected.equal(metadata.offset(), (long) (first + i), "offset sent");
                Expected.equal(metadata.timestamp(),
                        baseMs + (first + i) * Expected.STEP_MS, "time sent");
            }
        }
    }

    static void read(String bootstrap, String prefix, long baseMs) throws Exception {
        TopicPartition tp = new TopicPartition(prefix + "-codecs", 0);
        try (var consumer = consumer(bootstrap)) {
            Expected.equal(consumer.listTopics().get(tp.topic()).size(), 3, "partitions listed");
            consumer.assign(Set.of(tp));
            consumer.seekToBeginning(Set.of(tp));
            var found = poll(consumer, Expected.COUNT, "from the beginning");
            for (int offset = 0; offset < Expected.COUNT; offset++) {
                Expected.equalRecord(found.get(offset), offset, baseMs);
            }
            Expected.equal(consumer.beginningOffsets(Set.of(tp)).get(tp), 0L, "beginning");
            Expected.equal(consumer.endOffsets(Set.of(tp)).get(tp), (long) Expected.COUNT, "end");
            for (int offset : new int[] {0, 9, 10, 23, Expected.COUNT - 1}) {
                consumer.seek(tp, offset);
                Expected.equalRecord(poll(consumer, 1, "seek").get(0), offset, baseMs);
            }
            long[][] times = {{0, 0}, {baseMs, 0}, {baseMs + 1, 1},
                {baseMs + 22 * Expected.STEP_MS + 999, 23}};
            for (long[] row : times) {
                OffsetAndTimestamp hit = consumer.offsetsForTimes(Map.of(tp, row[0])).get(tp);
                Expected.equal(hit.offset(), row[1], "offset for time " + row[0]);
                Expected.equal(hit.timestamp(), baseMs + row[1] * Expected.STEP_MS, "time");
            }
            long late = baseMs + Expected.COUNT * Expected.STEP_MS;
            Expected.equal(consumer.offsetsForTimes(Map.of(tp, late)).get(tp), null, "late time");
        }
        try (var strict = consumer(bootstrap, "auto.offset.reset", "none")) {
            strict.assign(Set.of(tp));
            strict.seek(tp, Expected.COUNT + 1000);
            Expected.raises("OffsetOutOfRangeException",
                    () -> poll(strict, 1, "beyond the end"), "beyond the end");
        }
    }

    static void latest(String bootstrap, String prefix, long baseMs) throws Exception {
        TopicPartition tp = new TopicPartition(prefix + "-codecs", 1);
        try (var consumer = consumer(bootstrap, "auto.offset.reset", "latest")) {
            consumer.assign(Set.of(tp));
            long end = consumer.position(tp);
            for (String acks : new String[] {"1", "all", "0"}) {
                String idempotent = String.valueOf(acks.equals("all"));
                try (var producer = producer(bootstrap, "acks", acks,
                        "enable.idempotence", idempotent)) {
                    var record = new ProducerRecord<byte[], byte[]>(
                            tp.topic(), 1, null, Expected.bytes("acks"));
                    record.headers().add("null", null);
                    producer.send(record).get();
                }
                var found = poll(consumer, 1, "acks=" + acks).get(0);
                Expected.equal(found.offset(), end++, "offset with acks=" + acks);
                Expected.equal(Expected.text(found.headers()), "null=null", "null header");
            }
        }
    }

    static void tooLarge(String bootstrap, String prefix, long baseMs) throws Exception {
        TopicPartition tp = new TopicPartition(prefix + "-codecs", 2);
        try (var producer = producer(bootstrap, "max.request.size", "5000000")) {
            producer.send(new ProducerRecord<>(tp.topic(), 2, null, new byte[1_000_000])).get();
            Expected.raises("RecordTooLargeException", () -> producer.send(
                    new ProducerRecord<>(tp.topic(), 2, null, new byte[1_100_000])).get(), "1.1MB");
        }
        try (var consumer = consumer(bootstrap, "max.partition.fetch.bytes", "1000",
                "fetch.max.bytes", "1000")) {
            consumer.assign(Set.of(tp));
            consumer.seekToBeginning(Set.of(tp));
            Expected.equal(poll(consumer, 1, "large").get(0).value().length, 1_000_000, "large");
        }
    }

    static void group(String bootstrap, String prefix, long baseMs) throws Exception {
        TopicPartition tp = new TopicPartition(prefix + "-codecs", 0);
        String[] options = {"group.id", prefix + "-group-java", "auto.offset.reset", "earliest"};
        try (var consumer = consumer(bootstrap, options)) {
            consumer.subscribe(Set.of(tp.topic()));
            poll(consumer, Expected.COUNT, "group");
            Expected.equal(consumer.assignment().size(), 3, "assignment");
            consumer.commitSync(Map.of(tp, new OffsetAndMetadata(17, "note é")));
            OffsetAndMetadata back = consumer.committed(Set.of(tp)).get(tp);
            Expected.equal(back.offset(), 17L, "committed");
            Expected.equal(back.metadata(), "note é", "metadata");
        }
        try (var consumer = consumer(bootstrap, options)) {
            consumer.subscribe(Set.of(tp.topic()));
            for (var record : poll(consumer, Expected.COUNT - 17, "group, again")) {
                if (record.partition() == 0) {
                    Expected.equal(record.offset(), 17L, "goes on from the commit");
                    break;
                }
            }
        }
    }

    static void configs(String bootstrap, String prefix, long baseMs) throws Exception {
        var topic = new ConfigResource(ConfigResource.Type.TOPIC, prefix + "-codecs");
        try (Admin admin = admin(bootstrap)) {
            Expected.equal(config(admin, topic, "retention.ms").value(), "604800000", "default");
            Expected.equal(config(admin, topic, "retention.ms").source().name(),
                    "DEFAULT_CONFIG", "source of a default");
            var set = new AlterConfigOp(new ConfigEntry("retention.ms", "86400000"),
                    AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(topic, List.of(set))).all().get();
            Expected.equal(config(admin, topic, "retention.ms").value(), "86400000", "set");
            Expected.equal(config(admin, topic, "retention.ms").source().name(),
                    "DYNAMIC_TOPIC_CONFIG", "source of an override");
            var bad = new AlterConfigOp(new ConfigEntry("retention.ms", "soon"),
                    AlterConfigOp.OpType.SET);
            Expected.raises("InvalidConfigurationException", () -> admin.incrementalAlterConfigs(
                    Map.of(topic, List.of(bad))).all().get(), "a bad value");
            var remove = new AlterConfigOp(new ConfigEntry("retention.ms", ""),
                    AlterConfigOp.OpType.DELETE);
            admin.incrementalAlterConfigs(Map.of(topic, List.of(remove))).all().get();
            Expected.equal(config(admin, topic, "retention.ms").value(), "604800000", "removed");
        }
    }

    static ConfigEntry config(Admin admin, ConfigResource resource, String key) throws Exception {
        return admin.describeConfigs(Set.of(resource)).all().get().get(resource).get(key);
    }

    static void delete(String bootstrap, String prefix, long baseMs) throws Exception {
        String name = prefix + "-codecs";
        try (Admin admin = admin(bootstrap)) {
            admin.deleteTopics(Set.of(name)).all().get();
            Expected.raises("UnknownTopicOrPartitionException",
                    () -> admin.deleteTopics(Set.of(name)).all().get(), "deleted twice");
            Expected.soon(() -> !admin.listTopics().names().get().contains(name), "not listed");
        }
    }
}
