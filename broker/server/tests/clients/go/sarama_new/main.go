// Today's Sarama with its default version and with V0_10_0_1: all codecs, groups, admin.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"millrace/expected"
)

const within = 20 * time.Second

func main() {
	expected.Main(map[string]expected.Phase{
		"create": create, "write": write, "read": read, "group": group, "admin": admin,
		"version_0_10": version010, "delete": remove,
	})
}

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Producer.Return.Successes = true
	c.Consumer.Return.Errors = true
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	return c
}

func adminOf(bootstrap string) sarama.ClusterAdmin {
	admin, err := sarama.NewClusterAdmin([]string{bootstrap}, config())
	expected.Good(err, "admin")
	return admin
}

func create(bootstrap, prefix string, _ time.Time) {
	admin := adminOf(bootstrap)
	detail := &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1}
	expected.Good(admin.CreateTopic(prefix+"-codecs", detail, false), "create")
	err := admin.CreateTopic(prefix+"-codecs", detail, false)
	expected.Equal(errors.Is(err, sarama.ErrTopicAlreadyExists), true, "second create")
	soon(func() bool {
		topics, err := admin.DescribeTopics([]string{prefix + "-codecs"})
		expected.Good(err, "describe")
		return len(topics[0].Partitions) == 3
	}, "three partitions")
	expected.Good(admin.Close(), "close")
}

func write(bootstrap, prefix string, base time.Time) {
	for index, codec := range []sarama.CompressionCodec{sarama.CompressionNone,
		sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4,
		sarama.CompressionZSTD} {
		c := config()
		c.Producer.Compression = codec
		c.Producer.Partitioner = sarama.NewManualPartitioner
		c.Producer.RequiredAcks = sarama.WaitForAll
		c.Producer.Idempotent = index%2 == 1
		c.Net.MaxOpenRequests = 1
		producer, err := sarama.NewSyncProducer([]string{bootstrap}, c)
		expected.Good(err, "producer")
		first := index * expected.PerCodec
		var messages []*sarama.ProducerMessage
		for offset := first; offset < first+expected.PerCodec; offset++ {
			messages = append(messages, message(prefix+"-codecs", expected.At(offset, base)))
		}
		expected.Good(producer.SendMessages(messages), "send")
		for i, m := range messages {
			expected.Equal(m.Offset, int64(first+i), "offset of a sent message")
		}
		expected.Good(producer.Close(), "close")
	}
}

func message(topic string, r expected.Record) *sarama.ProducerMessage {
	m := &sarama.ProducerMessage{Topic: topic, Timestamp: r.Time}
	if r.Key != nil {
		m.Key = sarama.ByteEncoder(r.Key)
	}
	if r.Value != nil {
		m.Value = sarama.ByteEncoder(r.Value)
	}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
	}
	return m
}

func read(bootstrap, prefix string, base time.Time) {
	consumer, err := sarama.NewConsumer([]string{bootstrap}, config())
	expected.Good(err, "consumer")
	for _, from := range []int{0, 5, 13, 23, 39, 49} {
		p, err := consumer.ConsumePartition(prefix+"-codecs", 0, int64(from))
		expected.Good(err, "partition consumer")
		for offset := from; offset < expected.Count; offset++ {
			m, r := next(p), expected.At(offset, base)
			what := fmt.Sprintf("message %d from %d", offset, from)
			expected.Equal(m.Offset, int64(offset), what)
			expected.Equal(m.Timestamp.UnixMilli(), r.Time.UnixMilli(), what+", time")
			expected.Equal(same(m.Key, r.Key) && same(m.Value, r.Value), true, what+", bytes")
			expected.Equal(len(m.Headers), len(r.Headers), what+", headers")
			for i, h := range m.Headers {
				expected.Equal(string(h.Key), r.Headers[i].Key, what+", header")
				expected.Equal(bytes.Equal(h.Value, r.Headers[i].Value), true, what+", header")
			}
		}
		expected.Good(p.Close(), "close")
	}
	expected.Good(consumer.Close(), "close")
	client, err := sarama.NewClient([]string{bootstrap}, config())
	expected.Good(err, "client")
	for _, row := range []struct{ time, offset int64 }{
		{sarama.OffsetOldest, 0}, {sarama.OffsetNewest, expected.Count},
		{base.UnixMilli() + 22*expected.Step.Milliseconds() + 999, 23}} {
		offset, err := client.GetOffset(prefix+"-codecs", 0, row.time)
		expected.Good(err, "GetOffset")
		expected.Equal(offset, row.offset, fmt.Sprint("offset for ", row.time))
	}
	expected.Good(client.Close(), "close")
}

func next(p sarama.PartitionConsumer) *sarama.ConsumerMessage {
	select {
	case m := <-p.Messages():
		return m
	case err := <-p.Errors():
		expected.Fail("consumer: %v", err)
	case <-time.After(within):
		expected.Fail("no message within %v", within)
	}
	return nil
}

func same(a, b []byte) bool {
	return bytes.Equal(a, b) && (a == nil) == (b == nil)
}

type untilCount struct {
	left   int
	next   int64
	cancel context.CancelFunc
}

func (u *untilCount) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (u *untilCount) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (u *untilCount) ConsumeClaim(s sarama.ConsumerGroupSession,
	claim sarama.ConsumerGroupClaim) error {
	for m := range claim.Messages() {
		if m.Partition == 0 {
			expected.Equal(m.Offset, u.next, "the next offset")
			s.MarkMessage(m, "")
			u.next++
			if u.left--; u.left == 0 {
				u.cancel()
				return nil
			}
		}
	}
	return nil
}

func group(bootstrap, prefix string, _ time.Time) {
	for round, count := range []int{15, 25} {
		g, err := sarama.NewConsumerGroup([]string{bootstrap}, prefix+"-own", config())
		expected.Good(err, "consumer group")
		ctx, cancel := context.WithTimeout(context.Background(), within)
		handler := &untilCount{left: count, next: int64(round * 15), cancel: cancel}
		for ctx.Err() == nil {
			expected.Good(g.Consume(ctx, []string{prefix + "-codecs"}, handler), "consume")
		}
		expected.Equal(handler.left, 0, "records left")
		expected.Good(g.Close(), "close")
	}
}

// admin asks what Sarama's ClusterAdmin can ask of one node, after the phase group.
func admin(bootstrap, prefix string, _ time.Time) {
	admin, topic := adminOf(bootstrap), prefix+"-codecs"
	topics, err := admin.ListTopics()
	expected.Good(err, "ListTopics")
	expected.Equal(topics[topic].NumPartitions, int32(3), "partitions listed")
	groups, err := admin.ListConsumerGroups()
	expected.Good(err, "ListConsumerGroups")
	expected.Equal(groups[prefix+"-own"], "consumer", "protocol type of the group")
	described, err := admin.DescribeConsumerGroups([]string{prefix + "-own"})
	expected.Good(err, "DescribeConsumerGroups")
	expected.Equal(described[0].State, "Empty", "state of the group")
	offsets, err := admin.ListConsumerGroupOffsets(prefix+"-own", nil)
	expected.Good(err, "ListConsumerGroupOffsets")
	expected.Equal(offsets.Blocks[topic][0].Offset, int64(40), "committed")
	days := "86400000"
	expected.Good(admin.AlterConfig(sarama.TopicResource, topic,
		map[string]*string{"retention.ms": &days}, false), "AlterConfig")
	soon(func() bool {
		entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource,
			Name: topic, ConfigNames: []string{"retention.ms"}})
		expected.Good(err, "DescribeConfig")
		return len(entries) == 1 && entries[0].Value == days
	}, "the altered configuration")
	brokers, _, err := admin.DescribeCluster()
	expected.Good(err, "DescribeCluster")
	dirs, err := admin.DescribeLogDirs([]int32{brokers[0].ID()})
	expected.Good(err, "DescribeLogDirs")
	expected.Equal(len(dirs[brokers[0].ID()]) > 0, true, "log dirs")
	expected.Good(admin.DeleteRecords(topic, map[int32]int64{0: 5}), "DeleteRecords")
	client, err := sarama.NewClient([]string{bootstrap}, config())
	expected.Good(err, "client")
	oldest, err := client.GetOffset(topic, 0, sarama.OffsetOldest)
	expected.Good(err, "GetOffset")
	expected.Equal(oldest, int64(5), "log start offset")
	expected.Good(client.Close(), "close")
	expected.Good(admin.DeleteConsumerGroup(prefix+"-own"), "DeleteConsumerGroup")
	expected.Good(admin.CreatePartitions(topic, 5, nil, false), "CreatePartitions")
	expected.Good(admin.Close(), "close")
}

func version010(bootstrap, prefix string, base time.Time) {
	c := config()
	c.Version = sarama.V0_10_0_1
	topic := prefix + "-v010"
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, c)
	expected.Good(err, "producer")
	_, offset, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Timestamp: base,
		Value: sarama.StringEncoder("old")})
	expected.Good(err, "send")
	expected.Equal(offset, int64(0), "offset")
	expected.Good(producer.Close(), "close")
	consumer, err := sarama.NewConsumer([]string{bootstrap}, c)
	expected.Good(err, "consumer")
	partitions, err := consumer.Partitions(topic)
	expected.Good(err, "partitions")
	found := make(chan *sarama.ConsumerMessage)
	for _, partition := range partitions {
		p, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
		expected.Good(err, "partition consumer")
		go func() { found <- <-p.Messages() }()
	}
	select {
	case m := <-found:
		expected.Equal(string(m.Value), "old", "value")
		expected.Equal(m.Timestamp.UnixMilli(), base.UnixMilli(), "time")
	case <-time.After(within):
		expected.Fail("no message within %v", within)
	}
}

func remove(bootstrap, prefix string, _ time.Time) {
	admin := adminOf(bootstrap)
	expected.Good(admin.DeleteTopic(prefix+"-codecs"), "delete")
	err := admin.DeleteTopic(prefix + "-codecs")
	expected.Equal(errors.Is(err, sarama.ErrUnknownTopicOrPartition), true, "deleted twice")
	expected.Good(admin.Close(), "close")
}

func soon(holds func() bool, what string) {
	for end := time.Now().Add(within); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			expected.Fail("%s: not within %v", what, within)
		}
	}
}
