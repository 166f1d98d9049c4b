// segmentio/kafka-go: its writer, readers and client, which ask for old versions of many APIs.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"millrace/expected"
)

const within = 20 * time.Second

func main() {
	expected.Main(map[string]expected.Phase{
		"create": create, "write": write, "read": read, "group": group, "admin": admin,
		"delete": remove,
	})
}

func clientOf(bootstrap string) *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(bootstrap), Timeout: within}
}

func inTime() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), within)
}

func create(bootstrap, prefix string, _ time.Time) {
	ctx, cancel := inTime()
	defer cancel()
	topic := prefix + "-codecs"
	for _, wanted := range []error{nil, kafka.TopicAlreadyExists} {
		answer, err := clientOf(bootstrap).CreateTopics(ctx, &kafka.CreateTopicsRequest{
			Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 3, ReplicationFactor: 1}}})
		expected.Good(err, "CreateTopics")
		expected.Equal(errors.Is(answer.Errors[topic], wanted), true, "CreateTopics")
	}
}

func write(bootstrap, prefix string, base time.Time) {
	ctx, cancel := inTime()
	defer cancel()
	for index, codec := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4,
		kafka.Zstd} {
		writer := &kafka.Writer{Addr: kafka.TCP(bootstrap), Topic: prefix + "-codecs",
			BatchSize: expected.PerCodec, RequiredAcks: kafka.RequireAll, Compression: codec,
			Balancer: kafka.BalancerFunc(func(kafka.Message, ...int) int { return 0 })}
		var messages []kafka.Message
		for i := 0; i < expected.PerCodec; i++ {
			r := expected.At(index*expected.PerCodec+i, base)
			m := kafka.Message{Key: r.Key, Value: r.Value, Time: r.Time}
			for _, h := range r.Headers {
				m.Headers = append(m.Headers, kafka.Header{Key: h.Key, Value: h.Value})
			}
			messages = append(messages, m)
		}
		expected.Good(writer.WriteMessages(ctx, messages...), "write")
		expected.Good(writer.Close(), "close")
	}
}

func same(m kafka.Message, offset int, base time.Time) {
	r, what := expected.At(offset, base), fmt.Sprint("message ", offset)
	expected.Equal(m.Offset, int64(offset), what)
	expected.Equal(m.Time.UnixMilli(), r.Time.UnixMilli(), what+", time")
	expected.Equal(bytes.Equal(m.Key, r.Key) && bytes.Equal(m.Value, r.Value), true, what)
	expected.Equal(len(m.Headers), len(r.Headers), what+", headers")
	for i, h := range m.Headers {
		expected.Equal(h.Key, r.Headers[i].Key, what+", header")
		expected.Equal(bytes.Equal(h.Value, r.Headers[i].Value), true, what+", header")
	}
}

func readerOf(bootstrap, prefix string) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{Brokers: []string{bootstrap},
		Topic: prefix + "-codecs", MaxWait: 200 * time.Millisecond})
}

func read(bootstrap, prefix string, base time.Time) {
	ctx, cancel := inTime()
	defer cancel()
	reader := readerOf(bootstrap, prefix)
	for _, from := range []int{0, 5, 13, 23, 39, 49} {
		expected.Good(reader.SetOffset(int64(from)), "SetOffset")
		for offset := from; offset < expected.Count; offset++ {
			m, err := reader.ReadMessage(ctx)
			expected.Good(err, "read")
			same(m, offset, base)
		}
	}
	after := base.Add(22*expected.Step + 999*time.Millisecond)
	expected.Good(reader.SetOffsetAt(ctx, after), "SetOffsetAt")
	expected.Equal(reader.Offset(), int64(23), "offset for a time")
	expected.Good(reader.Close(), "close")
	conn, err := kafka.DialLeader(ctx, "tcp", bootstrap, prefix+"-codecs", 0)
	expected.Good(err, "dial")
	first, last, err := conn.ReadOffsets()
	expected.Good(err, "ReadOffsets")
	expected.Equal([]int64{first, last}, []int64{0, expected.Count}, "offsets")
	expected.Good(conn.Close(), "close")
}

// group reads, commits, ends, and goes on where it stood.
func group(bootstrap, prefix string, base time.Time) {
	ctx, cancel := inTime()
	defer cancel()
	next := 0
	for _, count := range []int{15, 25} {
		reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{bootstrap},
			Topic: prefix + "-codecs", GroupID: prefix + "-own", StartOffset: kafka.FirstOffset,
			MaxWait: 200 * time.Millisecond, JoinGroupBackoff: 100 * time.Millisecond})
		for ; count > 0; count-- {
			m, err := reader.FetchMessage(ctx)
			expected.Good(err, "fetch")
			same(m, next, base)
			expected.Good(reader.CommitMessages(ctx, m), "commit")
			next++
		}
		expected.Good(reader.Close(), "close")
	}
}

// admin asks what its client can ask of one node, after the phase group.
func admin(bootstrap, prefix string, _ time.Time) {
	ctx, cancel := inTime()
	defer cancel()
	client, topic, own := clientOf(bootstrap), prefix+"-codecs", prefix+"-own"
	metadata, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	expected.Good(err, "Metadata")
	expected.Equal(len(metadata.Topics[0].Partitions), 3, "partitions")
	groups, err := client.ListGroups(ctx, &kafka.ListGroupsRequest{})
	expected.Good(err, "ListGroups")
	listed := false
	for _, group := range groups.Groups {
		listed = listed || group.GroupID == own
	}
	expected.Equal(listed, true, "the group is listed")
	described, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{own}})
	expected.Good(err, "DescribeGroups")
	expected.Equal(described.Groups[0].GroupState, "Empty", "state of the group")
	offsets, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: own,
		Topics: map[string][]int{topic: {0}}})
	expected.Good(err, "OffsetFetch")
	expected.Equal(offsets.Topics[topic][0].CommittedOffset, int64(40), "committed")
	resource := kafka.DescribeConfigRequestResource{ResourceType: kafka.ResourceTypeTopic,
		ResourceName: topic, ConfigNames: []string{"retention.ms"}}
	_, err = client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms",
				Value: "86400000", ConfigOperation: kafka.ConfigOperationSet}}}}})
	expected.Good(err, "IncrementalAlterConfigs")
	soon(func() bool {
		configs, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
			Resources: []kafka.DescribeConfigRequestResource{resource}})
		expected.Good(err, "DescribeConfigs")
		return configs.Resources[0].ConfigEntries[0].ConfigValue == "86400000"
	}, "the altered configuration")
	created, err := client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: 5,
			TopicPartitionAssignments: []kafka.TopicPartitionAssignment{
				{BrokerIDs: []int32{int32(metadata.Brokers[0].ID)}},
				{BrokerIDs: []int32{int32(metadata.Brokers[0].ID)}}}}}})
	expected.Good(err, "CreatePartitions")
	expected.Good(created.Errors[topic], "CreatePartitions")
	gone, err := client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{own}})
	expected.Good(err, "DeleteGroups")
	expected.Good(gone.Errors[own], "DeleteGroups")
}

func remove(bootstrap, prefix string, _ time.Time) {
	ctx, cancel := inTime()
	defer cancel()
	topic := prefix + "-codecs"
	for _, wanted := range []error{nil, kafka.UnknownTopicOrPartition} {
		answer, err := clientOf(bootstrap).DeleteTopics(ctx,
			&kafka.DeleteTopicsRequest{Topics: []string{topic}})
		expected.Good(err, "DeleteTopics")
		expected.Equal(errors.Is(answer.Errors[topic], wanted), true, "DeleteTopics")
	}
}

func soon(holds func() bool, what string) {
	for end := time.Now().Add(within); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			expected.Fail("%s: not within %v", what, within)
		}
	}
}
