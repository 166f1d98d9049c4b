//! What only newer admin clients can ask: topic ids, offsets, groups, log dirs, features, quorum.

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListConfigResourcesOptions;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.quota.ClientQuotaFilterComponent;

public final class NewerAdmin {
    public static void main(String[] args) throws Exception {
        Map<String, Expected.Phase> phases = new HashMap<>();
        phases.put("topics", NewerAdmin::topics);
        phases.put("offsets", NewerAdmin::offsets);
        phases.put("groups", NewerAdmin::groups);
        phases.put("node", NewerAdmin::node);
        phases.put("probes", NewerAdmin::probes);
        phases.put("quotas", NewerAdmin::quotas);
        Expected.main(args, phases);
    }

    static void topics(String bootstrap, String prefix, long baseMs) throws Exception {
        String name = prefix + "-codecs";
        try (Admin admin = Clients.admin(bootstrap)) {
            TopicDescription topic = admin.describeTopics(Set.of(name)).allTopicNames().get()
                    .get(name);
            Expected.equal(topic.partitions().size(), 3, "partitions");
            Expected.equal(topic.isInternal(), false, "internal");
            Expected.equal(topic.topicId().toString().length(), 22, "length of the topic id");
            int node = admin.describeCluster().nodes().get().iterator().next().id();
            for (var partition : topic.partitions()) {
                Expected.equal(partition.leader().id(), node, "leader");
                Expected.equal(partition.replicas().size(), 1, "replicas");
                Expected.equal(partition.isr().size(), 1, "in-sync replicas");
            }
            Expected.equal(admin.listTopics().listings().get().stream()
                    .filter(l -> l.name().equals(name)).findFirst().get().topicId(),
                    topic.topicId(), "topic id listed");
            Expected.equal(admin.listPartitionReassignments().reassignments().get().size(), 0,
                    "reassignments");
            Expected.raises("ElectionNotNeededException", () -> admin.electLeaders(
                    ElectionType.PREFERRED, Set.of(new TopicPartition(name, 0))).partitions()
                    .get().get(new TopicPartition(name, 0)).map(e -> { throw sneaky(e); }),
                    "an election nobody needs");
        }
    }

    static RuntimeException sneaky(Throwable e) {
        return (RuntimeException) e;
    }

    static void offsets(String bootstrap, String prefix, long baseMs) throws Exception {
        TopicPartition tp = new TopicPartition(prefix + "-codecs", 0);
        long last = Expected.COUNT - 1;
        try (Admin admin = Clients.admin(bootstrap)) {
            Expected.equal(listed(admin, tp, OffsetSpec.maxTimestamp()).offset(), last, "max");
            Expected.equal(listed(admin, tp, OffsetSpec.maxTimestamp()).timestamp(),
                    baseMs + last * Expected.STEP_MS, "time of the latest record");
            Expected.equal(listed(admin, tp, OffsetSpec.latest()).offset(), last + 1, "latest");
            Expected.equal(listed(admin, tp, OffsetSpec.earliest()).offset(), 0L, "earliest");
            long low = admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(7)))
                    .lowWatermarks().get(tp).get().lowWatermark();
            Expected.equal(low, 7L, "low watermark");
            Expected.equal(listed(admin, tp, OffsetSpec.earliest()).offset(), 7L, "after delete");
            Expected.raises("OffsetOutOfRangeException", () -> admin.deleteRecords(
                    Map.of(tp, RecordsToDelete.beforeOffset(last + 9))).all().get(), "beyond");
        }
    }

    static ListOffsetsResultInfo listed(Admin admin, TopicPartition tp, OffsetSpec spec)
            throws Exception {
        return admin.listOffsets(Map.of(tp, spec)).partitionResult(tp).get();
    }

    /** After the phase group of Clients. */
    static void groups(String bootstrap, String prefix, long baseMs) throws Exception {
        String name = prefix + "-group-java";
        TopicPartition tp = new TopicPartition(prefix + "-codecs", 0);
        try (Admin admin = Clients.admin(bootstrap)) {
            var listing = admin.listGroups().all().get().stream()
                    .filter(l -> l.groupId().equals(name)).findFirst().get();
            Expected.equal(listing.protocol(), "consumer", "protocol type listed");
            Expected.equal(listing.groupState().get().toString(), "Empty", "state listed");
            var group = admin.describeConsumerGroups(Set.of(name)).all().get().get(name);
            Expected.equal(group.members().size(), 0, "members");
            Expected.equal(group.groupState().toString(), "Empty", "state described");
            Expected.equal(admin.listConsumerGroupOffsets(name).partitionsToOffsetAndMetadata()
                    .get().get(tp).offset(), 17L, "committed");
            Expected.raises("GroupIdNotFoundException", () -> admin.describeConsumerGroups(
                    Set.of(name + "-missing")).all().get(), "a group that is not there");
            admin.deleteConsumerGroupOffsets(name, Set.of(tp)).all().get();
            Expected.equal(admin.listConsumerGroupOffsets(name).partitionsToOffsetAndMetadata()
                    .get().containsKey(tp), false, "deleted offset");
            admin.deleteConsumerGroups(Set.of(name)).all().get();
            Expected.raises("GroupIdNotFoundException",
                    () -> admin.deleteConsumerGroups(Set.of(name)).all().get(), "deleted twice");
        }
    }

    static void node(String bootstrap, String prefix, long baseMs) throws Exception {
        try (Admin admin = Clients.admin(bootstrap)) {
            var cluster = admin.describeCluster();
            int node = cluster.nodes().get().iterator().next().id();
            Expected.equal(cluster.controller().get().id(), node, "controller");
            Expected.equal(cluster.clusterId().get().isEmpty(), false, "cluster id");
            var broker = new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(node));
            var configs = admin.describeConfigs(Set.of(broker)).all().get().get(broker);
            for (String key : List.of("log.dirs", "listeners", "num.partitions",
                    "message.max.bytes", "log.retention.hours", "default.replication.factor",
                    "auto.create.topics.enable", "offsets.topic.replication.factor")) {
                Expected.equal(configs.get(key) != null, true, key + " is described");
            }
            var dirs = admin.describeLogDirs(Set.of(node)).allDescriptions().get().get(node);
            Expected.equal(dirs.values().stream().anyMatch(d -> d.replicaInfos().keySet().stream()
                    .anyMatch(tp -> tp.topic().equals(prefix + "-codecs"))), true, "log dirs");
        }
    }

    /** What consoles and frameworks ask at their start; none may fail otherwise than Kafka. */
    static void probes(String bootstrap, String prefix, long baseMs) throws Exception {
        TopicPartition tp = new TopicPartition(prefix + "-codecs", 0);
        try (Admin admin = Clients.admin(bootstrap)) {
            Expected.equal(admin.describeFeatures().featureMetadata().get().finalizedFeatures()
                    .containsKey("metadata.version"), true, "features");
            int node = admin.describeCluster().nodes().get().iterator().next().id();
            var quorum = admin.describeMetadataQuorum().quorumInfo().get();
            Expected.equal(quorum.leaderId(), node, "leader of the quorum");
            Expected.equal(quorum.voters().size(), 1, "voters");
            var topic = new ConfigResource(ConfigResource.Type.TOPIC, tp.topic());
            Expected.equal(admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC),
                    new ListConfigResourcesOptions()).all().get().contains(topic), true, "listed");
            admin.describeProducers(Set.of(tp)).all().get();
            admin.listTransactions().all().get();
            admin.describeUserScramCredentials().all().get();
            Expected.raises("SecurityDisabledException", () -> admin.describeAcls(
                    org.apache.kafka.common.acl.AclBindingFilter.ANY).values().get(), "acls");
        }
    }

    /** Quotas are kept as they were set. */
    static void quotas(String bootstrap, String prefix, long baseMs) throws Exception {
        var entity = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, prefix + "-user"));
        var filter = ClientQuotaFilter.containsOnly(List.of(ClientQuotaFilterComponent.ofEntity(
                ClientQuotaEntity.USER, prefix + "-user")));
        try (Admin admin = Clients.admin(bootstrap)) {
            for (Double value : new Double[] {1024.0, 2048.0, null}) {
                var op = new ClientQuotaAlteration.Op("producer_byte_rate", value);
                admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity, List.of(op))))
                        .all().get();
                var wanted = value == null ? Map.of()
                        : Map.of(entity, Map.of("producer_byte_rate", value));
                Expected.soon(() -> admin.describeClientQuotas(filter).entities().get()
                        .equals(wanted), "quotas of the user are " + wanted);
            }
            var bad = new ClientQuotaAlteration.Op("no_such_rate", 1.0);
            Expected.raises("InvalidRequestException", () -> admin.alterClientQuotas(List.of(
                    new ClientQuotaAlteration(entity, List.of(bad)))).all().get(), "a bad key");
        }
    }
}
