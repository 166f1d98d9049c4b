//! What tutorials promise of delivery, and groups with each assignor, with Kafka's Java clients.

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;

public final class Delivery {
    public static void main(String[] args) throws Exception {
        Map<String, Expected.Phase> phases = new HashMap<>();
        phases.put("sends", Delivery::sends);
        phases.put("listener", Delivery::listener);
        phases.put("assignors", Delivery::assignors);
        phases.put("static_member", Delivery::staticMember);
        phases.put("other_topics", Delivery::otherTopics);
        Expected.main(args, phases);
    }

    static void create(String bootstrap, String topic, int partitions) throws Exception {
        try (Admin admin = Clients.admin(bootstrap)) {
            Clients.createOne(admin, topic, partitions, 1).get();
        }
    }

    /** Each form of record; callbacks in order; threads that share a producer. */
    static void sends(String bootstrap, String prefix, long baseMs) throws Exception {
        String topic = prefix + "-sends";
        create(bootstrap, topic, 4);
        byte[] value = Expected.bytes("value");
        try (var producer = Clients.producer(bootstrap, "batch.size", "100")) {
            Set<Integer> spread = new HashSet<>();
            for (int i = 0; i < 200; i++) {
                spread.add(producer.send(new ProducerRecord<>(topic, value)).get().partition());
                byte[] key = Expected.bytes("key-" + i % 10);
                int one = producer.send(new ProducerRecord<>(topic, key, value)).get().partition();
                int two = producer.send(new ProducerRecord<>(topic, key, value)).get().partition();
                Expected.equal(two, one, "the partition of a key");
            }
            Expected.equal(spread.size(), 4, "partitions of records without a key");
            var placed = new ProducerRecord<>(topic, 3, Expected.bytes("key"), value);
            Expected.equal(producer.send(placed).get().partition(), 3, "a partition by name");
        }
        String shared = prefix + "-shared";
        create(bootstrap, shared, 1);
        List<Long> offsets = Collections.synchronizedList(new ArrayList<>());
        try (var producer = Clients.producer(bootstrap)) {
            List<Thread> threads = new ArrayList<>();
            for (int t = 0; t < 4; t++) {
                String name = "t" + t + " ";
                threads.add(new Thread(() -> {
                    for (int i = 0; i < 100; i++) {
                        producer.send(new ProducerRecord<>(shared, Expected.bytes(name + i)),
                                (RecordMetadata m, Exception e) -> offsets.add(m.offset()));
                    }
                }));
            }
            threads.forEach(Thread::start);
            for (Thread thread : threads) {
                thread.join();
            }
        }
        List<Long> wanted = new ArrayList<>();
        Map<String, Integer> next = new HashMap<>();
        try (var consumer = Clients.consumer(bootstrap, "auto.offset.reset", "earliest")) {
            consumer.assign(Set.of(new TopicPartition(shared, 0)));
            for (var record : Clients.poll(consumer, 400, "shared")) {
                wanted.add((long) wanted.size());
                String[] words = new String(record.value()).split(" ");
                int number = next.merge(words[0], 1, Integer::sum) - 1;
                Expected.equal(Integer.parseInt(words[1]), number, "order of a thread's records");
            }
        }
        Expected.equal(offsets, wanted, "callbacks, one a record, in order");
    }

    /** Commits in the revoke callback, seeks in the assign callback into the middle of a batch. */
    static void listener(String bootstrap, String prefix, long baseMs) throws Exception {
        String topic = prefix + "-listener";
        create(bootstrap, topic, 2);
        try (var producer = Clients.producer(bootstrap, "linger.ms", "100")) {
            for (int i = 0; i < 20; i++) {
                producer.send(new ProducerRecord<>(topic, i % 2, null, Expected.bytes("" + i)));
            }
        }
        String[] options = {"group.id", prefix + "-listener", "auto.offset.reset", "earliest",
            "heartbeat.interval.ms", "200", "session.timeout.ms", "6000"};
        List<String> calls = new ArrayList<>();
        try (var first = Clients.consumer(bootstrap, options);
                var second = Clients.consumer(bootstrap, options)) {
            first.subscribe(Set.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    calls.add("revoked " + partitions.size());
                    first.commitSync();
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    calls.add("assigned " + partitions.size());
                    if (partitions.size() == 2) {
                        partitions.forEach(partition -> first.seek(partition, 5));
                    }
                }
            });
            List<ConsumerRecord<byte[], byte[]>> found = Clients.poll(first, 10, "from offset 5");
            for (var record : found) {
                Expected.equal(record.offset() >= 5, true, "offset " + record.offset());
            }
            second.subscribe(Set.of(topic));
            Expected.soon(() -> {
                for (var consumer : List.of(first, second)) {
                    Expected.equal(consumer.poll(Duration.ofMillis(100)).count(), 0, "read twice");
                }
                return first.assignment().size() == 1 && second.assignment().size() == 1;
            }, 20, "a partition for each");
            Expected.equal(calls, List.of("assigned 2", "revoked 2", "assigned 1"), "calls");
            TopicPartition moved = second.assignment().iterator().next();
            Expected.equal(second.committed(Set.of(moved)).get(moved).offset(), 10L,
                    "committed while it was revoked");
        }
    }

    /** Kafka's own assignors, of which the last moves partitions in two rounds. */
    static void assignors(String bootstrap, String prefix, long baseMs) throws Exception {
        String topic = prefix + "-assignors";
        create(bootstrap, topic, 4);
        for (String name : new String[] {"Range", "RoundRobin", "Sticky", "CooperativeSticky"}) {
            String[] options = {"group.id", prefix + name, "heartbeat.interval.ms", "200",
                "session.timeout.ms", "6000", "partition.assignment.strategy",
                "org.apache.kafka.clients.consumer." + name + "Assignor"};
            try (var first = Clients.consumer(bootstrap, options)) {
                first.subscribe(Set.of(topic));
                shared(name, List.of(first), 4);
                var kept = first.assignment();
                try (var second = Clients.consumer(bootstrap, options)) {
                    second.subscribe(Set.of(topic));
                    shared(name, List.of(first, second), 2);
                    if (name.endsWith("Sticky")) {
                        Expected.equal(kept.containsAll(first.assignment()), true, name + " kept");
                    }
                }
                shared(name, List.of(first), 4);
            }
        }
    }

    /** Polls members until each owns `each` partitions of the four, none twice. */
    static void shared(String what, List<KafkaConsumer<byte[], byte[]>> members, int each)
            throws Exception {
        Expected.soon(() -> {
            members.forEach(member -> member.poll(Duration.ofMillis(50)));
            Set<TopicPartition> all = new HashSet<>();
            members.forEach(member -> all.addAll(member.assignment()));
            return all.size() == 4 && members.stream().allMatch(m -> m.assignment().size() == each);
        }, 20, what + " among " + members.size());
    }

    /** A static member comes back to what it had, without a round; its double is fenced. */
    static void staticMember(String bootstrap, String prefix, long baseMs) throws Exception {
        String topic = prefix + "-static";
        create(bootstrap, topic, 4);
        String[] other = {"group.id", prefix + "-static", "heartbeat.interval.ms", "200",
            "session.timeout.ms", "10000"};
        String[] named = {"group.id", prefix + "-static", "heartbeat.interval.ms", "200",
            "session.timeout.ms", "10000", "group.instance.id", "one"};
        try (var dynamic = Clients.consumer(bootstrap, other)) {
            dynamic.subscribe(Set.of(topic));
            var first = Clients.consumer(bootstrap, named);
            first.subscribe(Set.of(topic));
            shared("static member", List.of(dynamic, first), 2);
            var owned = first.assignment();
            int generation = dynamic.groupMetadata().generationId();
            first.close();
            try (var again = Clients.consumer(bootstrap, named)) {
                again.subscribe(Set.of(topic));
                shared("static member again", List.of(dynamic, again), 2);
                Expected.equal(again.assignment(), owned, "what it had");
                Expected.equal(dynamic.groupMetadata().generationId(), generation, "generation");
                try (var twin = Clients.consumer(bootstrap, named)) {
                    twin.subscribe(Set.of(topic));
                    twin.poll(Duration.ofMillis(500));
                    Expected.raises("FencedInstanceIdException", () -> {
                        for (int i = 0; i < 100; i++) {
                            again.poll(Duration.ofMillis(100));
                        }
                        return "no exception";
                    }, "a double");
                }
            }
        }
    }

    /** Only what is subscribed to is delivered, and offsets of groups are kept as Kafka does. */
    static void otherTopics(String bootstrap, String prefix, long baseMs) throws Exception {
        String[] topics = {prefix + "-one", prefix + "-two"};
        for (String topic : topics) {
            create(bootstrap, topic, 1);
            for (int p = 0; p < 3; p++) {
                try (var producer = Clients.producer(bootstrap)) {
                    producer.send(new ProducerRecord<>(topic, Expected.bytes(topic)));
                }
            }
        }
        for (String topic : topics) {
            try (var consumer = Clients.consumer(bootstrap, "group.id", prefix + "-others",
                    "auto.offset.reset", "earliest")) {
                consumer.subscribe(Set.of(topic));
                for (var record : Clients.poll(consumer, 3, topic)) {
                    Expected.equal(record.topic(), topic, "topic");
                }
                consumer.commitSync(Map.of(new TopicPartition(topic, 0),
                        new OffsetAndMetadata(2, "")));
            }
        }
        try (Admin admin = Clients.admin(bootstrap)) {
            String name = "__consumer_offsets";
            var offsets = admin.describeTopics(Set.of(name)).allTopicNames().get().get(name);
            Expected.equal(offsets.isInternal(), true, "internal");
            Expected.equal(offsets.partitions().size(), 50, "partitions");
            Expected.equal(admin.listTopics().names().get().contains(name), false, "hidden");
            var resource = new org.apache.kafka.common.config.ConfigResource(
                    org.apache.kafka.common.config.ConfigResource.Type.TOPIC, name);
            Expected.equal(Clients.config(admin, resource, "cleanup.policy").value(), "compact",
                    "its policy");
            var listed = admin.listConsumerGroupOffsets(prefix + "-others")
                    .partitionsToOffsetAndMetadata().get();
            Expected.equal(listed.size(), 2, "offsets of two topics");
            admin.deleteTopics(Set.of(topics[0])).all().get();
            Expected.soon(() -> admin.listConsumerGroupOffsets(prefix + "-others")
                    .partitionsToOffsetAndMetadata().get().keySet().stream()
                    .noneMatch(tp -> tp.topic().equals(topics[0])), "offsets go with the topic");
        }
    }
}
