// franz-go: the newest version of every API, cooperative groups, what consoles ask of a cluster.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"millrace/expected"
)

const within = 20 * time.Second

func main() {
	expected.Main(map[string]expected.Phase{
		"create": create, "write": write, "read": read, "group": group, "admin": admin,
		"probes": probes, "delete": remove,
	})
}

func clientOf(bootstrap string, options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(bootstrap))...)
	expected.Good(err, "client")
	return client
}

// withAdmin gives an admin client, and a time after which its calls fail.
func withAdmin(bootstrap string, act func(context.Context, *kadm.Client)) {
	client := clientOf(bootstrap)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	act(ctx, kadm.NewClient(client))
}

func create(bootstrap, prefix string, _ time.Time) {
	withAdmin(bootstrap, func(ctx context.Context, admin *kadm.Client) {
		_, err := admin.CreateTopic(ctx, 3, 1, nil, prefix+"-codecs")
		expected.Good(err, "create")
		_, err = admin.CreateTopic(ctx, 3, 1, nil, prefix+"-codecs")
		expected.Equal(errors.Is(err, kerr.TopicAlreadyExists), true, "second create")
	})
}

func write(bootstrap, prefix string, base time.Time) {
	for index, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(),
		kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		options := []kgo.Opt{kgo.ProducerBatchCompression(codec),
			kgo.RecordPartitioner(kgo.ManualPartitioner())}
		if index%2 == 0 {
			options = append(options, kgo.DisableIdempotentWrite())
		}
		client := clientOf(bootstrap, options...)
		first := index * expected.PerCodec
		var records []*kgo.Record
		for offset := first; offset < first+expected.PerCodec; offset++ {
			records = append(records, record(prefix+"-codecs", expected.At(offset, base)))
		}
		ctx, cancel := context.WithTimeout(context.Background(), within)
		for i, result := range client.ProduceSync(ctx, records...) {
			expected.Good(result.Err, "produce")
			expected.Equal(result.Record.Offset, int64(first+i), "offset of a sent record")
		}
		cancel()
		client.Close()
	}
}

func record(topic string, r expected.Record) *kgo.Record {
	record := &kgo.Record{Topic: topic, Key: r.Key, Value: r.Value, Timestamp: r.Time}
	for _, h := range r.Headers {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return record
}

// take polls until there are so many records of partition 0.
func take(client *kgo.Client, count int) []*kgo.Record {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var found []*kgo.Record
	for len(found) < count {
		fetches := client.PollRecords(ctx, count-len(found))
		expected.Good(fetches.Err(), "poll")
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Partition == 0 {
				found = append(found, r)
			}
		})
	}
	return found
}

func same(found *kgo.Record, offset int, base time.Time) {
	r, what := expected.At(offset, base), fmt.Sprint("record ", offset)
	expected.Equal(found.Offset, int64(offset), what)
	expected.Equal(found.Timestamp.UnixMilli(), r.Time.UnixMilli(), what+", time")
	equal := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
	expected.Equal(equal(found.Key, r.Key) && equal(found.Value, r.Value), true, what+", bytes")
	expected.Equal(len(found.Headers), len(r.Headers), what+", headers")
	for i, h := range found.Headers {
		expected.Equal(h.Key, r.Headers[i].Key, what+", header")
		expected.Equal(bytes.Equal(h.Value, r.Headers[i].Value), true, what+", header")
	}
}

func read(bootstrap, prefix string, base time.Time) {
	topic := prefix + "-codecs"
	for _, from := range []int{0, 5, 13, 23, 39, 49} {
		offset := kgo.NewOffset().At(int64(from))
		client := clientOf(bootstrap, kgo.ConsumePartitions(
			map[string]map[int32]kgo.Offset{topic: {0: offset}}))
		for i, found := range take(client, expected.Count-from) {
			same(found, from+i, base)
		}
		client.Close()
	}
	withAdmin(bootstrap, func(ctx context.Context, admin *kadm.Client) {
		check := func(listed kadm.ListedOffsets, err error, offset int64, what string) {
			expected.Good(err, what)
			found, _ := listed.Lookup(topic, 0)
			expected.Good(found.Err, what)
			expected.Equal(found.Offset, offset, what)
		}
		listed, err := admin.ListStartOffsets(ctx, topic)
		check(listed, err, 0, "start")
		listed, err = admin.ListEndOffsets(ctx, topic)
		check(listed, err, expected.Count, "end")
		time := base.UnixMilli() + 22*expected.Step.Milliseconds() + 999
		listed, err = admin.ListOffsetsAfterMilli(ctx, time, topic)
		check(listed, err, 23, "offset for a time")
	})
}

// member is a client of a group that knows its partitions.
type member struct {
	*kgo.Client
	lock  sync.Mutex
	count int
}

func memberOf(bootstrap, prefix string) *member {
	m := &member{}
	change := func(by int) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			m.lock.Lock()
			defer m.lock.Unlock()
			m.count += by * len(partitions[prefix+"-codecs"])
		}
	}
	m.Client = clientOf(bootstrap, kgo.ConsumerGroup(prefix+"-own"), kgo.DisableAutoCommit(),
		kgo.ConsumeTopics(prefix+"-codecs"), kgo.HeartbeatInterval(100*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.OnPartitionsAssigned(change(1)), kgo.OnPartitionsRevoked(change(-1)),
		kgo.OnPartitionsLost(change(-1)))
	return m
}

func (m *member) has(count int) bool {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.count == count
}

// group commits, hands partitions over cooperatively, takes them back, and goes on where it stood.
func group(bootstrap, prefix string, base time.Time) {
	ctx := context.Background()
	one := memberOf(bootstrap, prefix)
	records := take(one.Client, 15)
	expected.Good(one.CommitRecords(ctx, records...), "commit")
	soon(func() bool { return one.has(3) }, "all partitions")
	other := memberOf(bootstrap, prefix)
	soon(func() bool { return one.has(2) && other.has(1) || one.has(1) && other.has(2) }, "parts")
	one.Close()
	soon(func() bool { return other.has(3) }, "all partitions once more")
	other.Close()
	again := memberOf(bootstrap, prefix)
	records = take(again.Client, 25)
	for i, found := range records {
		same(found, 15+i, base)
	}
	expected.Good(again.CommitRecords(ctx, records...), "commit")
	again.Close()
}

// admin does what an administrator does, after the phase group.
func admin(bootstrap, prefix string, _ time.Time) {
	topic, own := prefix+"-codecs", prefix+"-own"
	withAdmin(bootstrap, func(ctx context.Context, admin *kadm.Client) {
		groups, err := admin.ListGroups(ctx)
		expected.Good(err, "ListGroups")
		expected.Equal(groups[own].ProtocolType, "consumer", "type of the group")
		lags, err := admin.Lag(ctx, own)
		expected.Good(err, "Lag")
		expected.Good(lags.Error(), "Lag")
		expected.Equal(lags[own].State, "Empty", "state of the group")
		expected.Equal(lags[own].Lag.Total(), int64(10), "lag")
		days := "86400000"
		altered, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
			{Op: kadm.SetConfig, Name: "retention.ms", Value: &days}}, topic)
		expected.Good(err, "AlterTopicConfigs")
		expected.Good(altered[0].Err, "AlterTopicConfigs")
		soon(func() bool {
			configs, err := admin.DescribeTopicConfigs(ctx, topic)
			expected.Good(err, "DescribeTopicConfigs")
			for _, config := range configs[0].Configs {
				if config.Key == "retention.ms" {
					return config.MaybeValue() == days
				}
			}
			return false
		}, "the altered configuration")
		deleted, err := admin.DeleteRecords(ctx, kadm.Offsets{topic: {0: {Topic: topic, At: 5}}})
		expected.Good(err, "DeleteRecords")
		row, _ := deleted.Lookup(topic, 0)
		expected.Equal(row.LowWatermark, int64(5), "log start offset")
		updated, err := admin.UpdatePartitions(ctx, 5, topic)
		expected.Good(err, "UpdatePartitions")
		expected.Good(updated.Error(), "UpdatePartitions")
		gone, err := admin.DeleteGroups(ctx, own)
		expected.Good(err, "DeleteGroups")
		expected.Good(gone.Error(), "DeleteGroups")
	})
}

// probes is what consoles ask when they start and on their pages.
func probes(bootstrap, prefix string, _ time.Time) {
	topic := prefix + "-codecs"
	withAdmin(bootstrap, func(ctx context.Context, admin *kadm.Client) {
		metadata, err := admin.Metadata(ctx)
		expected.Good(err, "Metadata")
		expected.Equal(len(metadata.Brokers), 1, "brokers")
		node := metadata.Brokers[0].NodeID
		expected.Equal(metadata.Controller, node, "controller")
		versions, err := admin.ApiVersions(ctx)
		expected.Good(err, "ApiVersions")
		expected.Good(versions[node].Err, "ApiVersions")
		configs, err := admin.DescribeBrokerConfigs(ctx, node)
		expected.Good(err, "DescribeBrokerConfigs")
		expected.Equal(len(configs[0].Configs) > 100, true, "configurations of the broker")
		folders, err := admin.DescribeAllLogDirs(ctx, nil)
		expected.Good(err, "DescribeAllLogDirs")
		expected.Good(folders[node].Error(), "DescribeAllLogDirs")
		first, _ := folders[node].LookupPartition(topic, 0)
		expected.Equal(first.Size > 0, true, "size of a partition")
		moving, err := admin.ListPartitionReassignments(ctx, nil)
		expected.Good(err, "ListPartitionReassignments")
		expected.Equal(len(moving), 0, "reassignments")
		_, err = admin.DescribeClientQuotas(ctx, false, nil)
		expected.Good(err, "DescribeClientQuotas")
		users, err := admin.DescribeUserSCRAMs(ctx)
		expected.Good(err, "DescribeUserSCRAMs")
		expected.Equal(len(users), 0, "users")
		set := kadm.TopicsSet{}
		set.Add(topic, 0)
		producers, err := admin.DescribeProducers(ctx, set)
		expected.Good(err, "DescribeProducers")
		expected.Equal(len(producers), 1, "topics with producers described")
		rules, err := admin.DescribeACLs(ctx, kadm.NewACLs().AnyResource().Allow().AllowHosts().
			Deny().DenyHosts().Operations().ResourcePatternType(kadm.ACLPatternAny))
		expected.Good(err, "DescribeACLs")
		expected.Equal(errors.Is(rules[0].Err, kerr.SecurityDisabled), true, "DescribeACLs")
		elected, err := admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, set)
		expected.Good(err, "ElectLeaders")
		expected.Equal(errors.Is(elected[topic][0].Err, kerr.ElectionNotNeeded), true, "election")
	})
}

func remove(bootstrap, prefix string, _ time.Time) {
	withAdmin(bootstrap, func(ctx context.Context, admin *kadm.Client) {
		_, err := admin.DeleteTopic(ctx, prefix+"-codecs")
		expected.Good(err, "delete")
		_, err = admin.DeleteTopic(ctx, prefix+"-codecs")
		expected.Equal(errors.Is(err, kerr.UnknownTopicOrPartition), true, "deleted twice")
	})
}

func soon(holds func() bool, what string) {
	for end := time.Now().Add(within); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			expected.Fail("%s: not within %v", what, within)
		}
	}
}
