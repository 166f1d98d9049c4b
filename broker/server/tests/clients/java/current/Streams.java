//! Kafka Streams: a word count, and windows with a repartition and a changelog topic, restarted.

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;

public final class Streams {
    public static void main(String[] args) throws Exception {
        Map<String, Expected.Phase> phases = new HashMap<>();
        phases.put("count", Streams::count);
        phases.put("count_again", Streams::countAgain);
        phases.put("windows", Streams::windows);
        Expected.main(args, phases);
    }

    static final String[] LINES = {"all streams lead to kafka", "hello kafka streams",
        "join kafka summit"};

    /** The changelog brings the counts back to a second run whose local state is gone. */
    static void count(String bootstrap, String prefix, long baseMs) throws Exception {
        topics(bootstrap, prefix + "-lines", prefix + "-counts");
        count(bootstrap, prefix, baseMs, 1);
    }

    static void countAgain(String bootstrap, String prefix, long baseMs) throws Exception {
        count(bootstrap, prefix, baseMs, 2);
    }

    static void count(String bootstrap, String prefix, long baseMs, long times) throws Exception {
        send(bootstrap, prefix + "-lines", LINES, baseMs);
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(prefix + "-lines", Consumed.with(Serdes.String(), Serdes.String()))
                .flatMapValues(line -> List.of(line.split(" ")))
                .groupBy((key, word) -> word, Grouped.with(Serdes.String(), Serdes.String()))
                .count().toStream()
                .to(prefix + "-counts", Produced.with(Serdes.String(), Serdes.Long()));
        Map<String, Long> wanted = new TreeMap<>();
        for (String line : LINES) {
            for (String word : line.split(" ")) {
                wanted.merge(word, times, Long::sum);
            }
        }
        run(bootstrap, prefix + "-count", builder, prefix + "-counts", wanted);
        Set<String> names = Clients.admin(bootstrap).listTopics().names().get();
        for (String kind : new String[] {"repartition", "changelog"}) {
            String start = prefix + "-count-KSTREAM-AGGREGATE-STATE-STORE-";
            Expected.equal(names.stream().anyMatch(n -> n.startsWith(start) && n.endsWith(kind)),
                    true, "a " + kind + " topic among " + names);
        }
    }

    /** Records per word and minute; the windows follow the records' times. */
    static void windows(String bootstrap, String prefix, long baseMs) throws Exception {
        topics(bootstrap, prefix + "-visits", prefix + "-minutes");
        long start = baseMs / 60_000 * 60_000;
        send(bootstrap, prefix + "-visits", new String[] {"a", "b", "a"}, start + 1000);
        send(bootstrap, prefix + "-visits", new String[] {"a", "c"}, start + 61_000);
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(prefix + "-visits", Consumed.with(Serdes.String(), Serdes.String()))
                .groupBy((key, word) -> word, Grouped.with(Serdes.String(), Serdes.String()))
                .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofMinutes(1)))
                .count().toStream()
                .map((w, n) -> KeyValue.pair(w.key() + "@" + (w.window().start() - start), n))
                .to(prefix + "-minutes", Produced.with(Serdes.String(), Serdes.Long()));
        run(bootstrap, prefix + "-windows", builder, prefix + "-minutes",
                Map.of("a@0", 2L, "b@0", 1L, "a@60000", 1L, "c@60000", 1L));
    }

    static void topics(String bootstrap, String... names) throws Exception {
        try (Admin admin = Clients.admin(bootstrap)) {
            List<NewTopic> topics = new ArrayList<>();
            for (String name : names) {
                topics.add(new NewTopic(name, 2, (short) 1));
            }
            admin.createTopics(topics).all().get();
        }
    }

    static void send(String bootstrap, String topic, String[] lines, long baseMs) {
        try (var producer = Clients.producer(bootstrap)) {
            for (int i = 0; i < lines.length; i++) {
                // One partition: a window must not be closed by the clock of another record.
                producer.send(new ProducerRecord<>(topic, 0, baseMs + i, null,
                        Expected.bytes(lines[i])));
            }
        }
    }

    /** Runs the topology with fresh local state until the output's last values are the wanted. */
    static void run(String bootstrap, String application, StreamsBuilder builder, String output,
            Map<String, Long> wanted) throws Exception {
        Path state = Files.createTempDirectory("millrace-streams");
        Properties properties = Clients.properties(bootstrap, "application.id", application,
                "state.dir", state.toString(), "commit.interval.ms", "100",
                // A stopped application does not leave; its next run waits this long.
                "session.timeout.ms", "6000",
                "auto.offset.reset", "earliest", "default.key.serde",
                Serdes.StringSerde.class.getName());
        Map<String, Long> last = new TreeMap<>();
        try (KafkaStreams streams = new KafkaStreams(builder.build(), properties);
                var consumer = Clients.consumer(bootstrap)) {
            streams.start();
            var partitions = List.of(new TopicPartition(output, 0), new TopicPartition(output, 1));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            LongDeserializer longs = new LongDeserializer();
            long end = System.nanoTime() + 60_000_000_000L;
            while (!last.equals(wanted)) {
                for (var r : consumer.poll(Duration.ofMillis(100))) {
                    last.put(new String(r.key()), longs.deserialize(output, r.value()));
                }
                if (System.nanoTime() > end) {
                    throw new AssertionError("in 60 s only " + last + ", not " + wanted
                            + "; state " + streams.state());
                }
            }
        }
    }
}
