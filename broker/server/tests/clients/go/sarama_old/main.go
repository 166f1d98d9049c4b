// Sarama 1.19 as programs of 2018 use it, and sarama-cluster 2.1: no ApiVersions request, message
// sets of the formats 0 and 1, the lowest versions of every API.
package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/Shopify/sarama"
	cluster "github.com/bsm/sarama-cluster"
	"millrace/expected"
)

const within = 20 * time.Second

func main() {
	expected.Main(map[string]expected.Phase{
		"create": create, "write": write, "read": read, "default_version": defaultVersion,
		"async": async, "offsets": offsets, "cluster": clusterGroups, "group": group,
	})
}

func config(version sarama.KafkaVersion) *sarama.Config {
	c := sarama.NewConfig()
	c.Version = version
	c.Producer.Return.Successes = true
	c.Producer.Timeout = 5 * time.Second
	c.Consumer.Return.Errors = true
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	return c
}

func clientOf(bootstrap string, c *sarama.Config) sarama.Client {
	client, err := sarama.NewClient([]string{bootstrap}, c)
	expected.Good(err, "client")
	return client
}

func create(bootstrap, prefix string, _ time.Time) {
	createTopic(bootstrap, prefix+"-codecs", 3)
}

func createTopic(bootstrap, topic string, count int) {
	client := clientOf(bootstrap, config(sarama.V0_10_2_0))
	defer client.Close()
	broker, err := client.Controller()
	expected.Good(err, "controller")
	detail := &sarama.TopicDetail{NumPartitions: int32(count), ReplicationFactor: 1}
	request := &sarama.CreateTopicsRequest{Timeout: within,
		TopicDetails: map[string]*sarama.TopicDetail{topic: detail}}
	for _, wanted := range []sarama.KError{sarama.ErrNoError, sarama.ErrTopicAlreadyExists} {
		answer, err := broker.CreateTopics(request)
		expected.Good(err, "CreateTopics")
		expected.Equal(answer.TopicErrors[topic].Err, wanted, "CreateTopics v0")
	}
	soon(func() bool {
		expected.Good(client.RefreshMetadata(), "metadata")
		partitions, _ := client.Partitions(topic)
		return len(partitions) == count
	}, "partitions")
}

// write stores the expected records without their headers, which these formats do not have.
func write(bootstrap, prefix string, base time.Time) {
	codecs := []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP,
		sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionNone}
	for index, codec := range codecs {
		c := config(sarama.V0_10_0_1)
		c.Producer.Compression = codec
		c.Producer.Partitioner = sarama.NewManualPartitioner
		producer, err := sarama.NewSyncProducer([]string{bootstrap}, c)
		expected.Good(err, "producer")
		first := index * expected.PerCodec
		var messages []*sarama.ProducerMessage
		for offset := first; offset < first+expected.PerCodec; offset++ {
			r := expected.At(offset, base)
			m := &sarama.ProducerMessage{Topic: prefix + "-codecs", Timestamp: r.Time}
			if r.Key != nil {
				m.Key = sarama.ByteEncoder(r.Key)
			}
			if r.Value != nil {
				m.Value = sarama.ByteEncoder(r.Value)
			}
			messages = append(messages, m)
		}
		expected.Good(producer.SendMessages(messages), "send")
		for i, m := range messages {
			expected.Equal(m.Offset, int64(first+i), "offset of a sent message")
		}
		expected.Good(producer.Close(), "close")
	}
}

// read takes what any client wrote in the first four codecs: zstd cannot be read by old versions.
func read(bootstrap, prefix string, base time.Time) {
	consumer, err := sarama.NewConsumer([]string{bootstrap}, config(sarama.V0_10_0_1))
	expected.Good(err, "consumer")
	defer consumer.Close()
	for _, from := range []int64{sarama.OffsetOldest, 5, 13, 23, 39} {
		p, err := consumer.ConsumePartition(prefix+"-codecs", 0, from)
		expected.Good(err, "partition consumer")
		first := from
		if from == sarama.OffsetOldest {
			first = 0
		}
		for offset := int(first); offset < 4*expected.PerCodec; offset++ {
			m := next(p)
			r := expected.At(offset, base)
			what := fmt.Sprintf("message %d from %d", offset, from)
			expected.Equal(m.Offset, int64(offset), what)
			expected.Equal(m.Timestamp.UnixMilli(), r.Time.UnixMilli(), what+", time")
			expected.Equal(same(m.Key, r.Key) && same(m.Value, r.Value), true, what+", bytes")
		}
		// Not Close: that reports the zstd batch which may follow.
		p.AsyncClose()
	}
	_, err = consumer.ConsumePartition(prefix+"-codecs", 0, 1000)
	expected.Equal(err, sarama.ErrOffsetOutOfRange, "an offset beyond the end")
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

// defaultVersion is tutorial 003-25: no Version set, so Metadata v0 and Produce v0 with format 0.
func defaultVersion(bootstrap, prefix string, _ time.Time) {
	c := sarama.NewConfig()
	c.Producer.Return.Successes = true
	c.Producer.Timeout = 5 * time.Second
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, c)
	expected.Good(err, "producer")
	topic := prefix + "-default"
	sent := map[int32]int64{}
	for i := 0; i < 10; i++ {
		value := sarama.ByteEncoder(fmt.Sprintf("value %d", i))
		partition, offset, err := producer.SendMessage(
			&sarama.ProducerMessage{Topic: topic, Value: value})
		expected.Good(err, "send")
		expected.Equal(offset, sent[partition], "offsets rise by one in a partition")
		sent[partition]++
	}
	expected.Good(producer.Close(), "close")
	consumer, err := sarama.NewConsumer([]string{bootstrap}, nil)
	expected.Good(err, "consumer")
	for partition, count := range sent {
		p, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
		expected.Good(err, "partition consumer")
		for offset := int64(0); offset < count; offset++ {
			m := next(p)
			expected.Equal(m.Offset, offset, "offset")
			expected.Equal(m.Timestamp.IsZero(), true, "format 0 has no time")
		}
		expected.Good(p.Close(), "close")
	}
	expected.Good(consumer.Close(), "close")
}

// async is tutorial 003-26: V0_10_0_1, WaitForAll, a topic made by its first message.
func async(bootstrap, prefix string, _ time.Time) {
	c := config(sarama.V0_10_0_1)
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Partitioner = sarama.NewRandomPartitioner
	c.Producer.Return.Errors = true
	producer, err := sarama.NewAsyncProducer([]string{bootstrap}, c)
	expected.Good(err, "producer")
	for i := 0; i < 20; i++ {
		producer.Input() <- &sarama.ProducerMessage{Topic: "0606_" + prefix,
			Value: sarama.ByteEncoder(fmt.Sprint("message ", i))}
	}
	for i := 0; i < 20; i++ {
		select {
		case <-producer.Successes():
		case err := <-producer.Errors():
			expected.Fail("producer: %v", err)
		case <-time.After(within):
			expected.Fail("%d of 20 successes", i)
		}
	}
	producer.AsyncClose()
}

// offsets asks ListOffsets v0 and commits with OffsetCommit v1.
func offsets(bootstrap, prefix string, base time.Time) {
	client := clientOf(bootstrap, config(sarama.V0_10_0_1))
	defer client.Close()
	topic := prefix + "-codecs"
	for _, row := range []struct{ time, offset int64 }{
		{sarama.OffsetOldest, 0}, {sarama.OffsetNewest, expected.Count}} {
		offset, err := client.GetOffset(topic, 0, row.time)
		expected.Good(err, "GetOffset")
		expected.Equal(offset, row.offset, fmt.Sprint("offset for ", row.time))
	}
	for _, wanted := range []struct {
		offset int64
		note   string
	}{{sarama.OffsetOldest, ""}, {17, "note é"}} {
		manager, err := sarama.NewOffsetManagerFromClient(prefix+"-manager", client)
		expected.Good(err, "offset manager")
		p, err := manager.ManagePartition(topic, 0)
		expected.Good(err, "managed partition")
		offset, note := p.NextOffset()
		expected.Equal(offset, wanted.offset, "offset committed")
		expected.Equal(note, wanted.note, "note committed")
		p.MarkOffset(17, "note é")
		expected.Good(p.Close(), "close")
		expected.Good(manager.Close(), "close")
	}
}

// clusterGroups is tutorial 003-28 to 003-32 with sarama-cluster.
func clusterGroups(bootstrap, prefix string, _ time.Time) {
	topic := prefix + "-cluster"
	createTopic(bootstrap, topic, 1)
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config(sarama.V0_10_0_1))
	expected.Good(err, "producer")
	send := func(count int) {
		for i := 0; i < count; i++ {
			_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic,
				Value: sarama.StringEncoder(fmt.Sprint("cluster ", i))})
			expected.Good(err, "send")
		}
	}
	send(3)
	newest := []*cluster.Consumer{
		clusterMember(bootstrap, prefix+"-1", topic, sarama.OffsetNewest),
		clusterMember(bootstrap, prefix+"-2", topic, sarama.OffsetNewest)}
	send(5)
	for _, consumer := range newest {
		takeCluster(consumer, 5)
		expected.Good(consumer.Close(), "close")
	}
	// The marked offsets win over Offsets.Initial.
	send(2)
	again := clusterMember(bootstrap, prefix+"-1", topic, sarama.OffsetOldest)
	takeCluster(again, 2)
	expected.Good(again.Close(), "close")
	expected.Good(producer.Close(), "close")
}

func clusterMember(bootstrap, name, topic string, initial int64) *cluster.Consumer {
	c := cluster.NewConfig()
	c.Consumer.Return.Errors = true
	c.Group.Return.Notifications = true
	c.Consumer.Offsets.Initial = initial
	consumer, err := cluster.NewConsumer([]string{bootstrap}, name, []string{topic}, c)
	expected.Good(err, "cluster consumer")
	deadline := time.After(within)
	for {
		select {
		case n := <-consumer.Notifications():
			if n.Type == cluster.RebalanceOK && len(n.Current[topic]) > 0 {
				return consumer
			}
		case err := <-consumer.Errors():
			expected.Fail("cluster consumer: %v", err)
		case <-deadline:
			expected.Fail("no rebalance within %v", within)
		}
	}
}

func takeCluster(consumer *cluster.Consumer, count int) {
	deadline := time.After(within)
	for found := 0; found < count; found++ {
		select {
		case m := <-consumer.Messages():
			consumer.MarkOffset(m, "")
		case err := <-consumer.Errors():
			expected.Fail("cluster consumer: %v", err)
		case <-deadline:
			expected.Fail("%d of %d messages", found, count)
		}
	}
	select {
	case m := <-consumer.Messages():
		expected.Fail("one message too many: %s", m.Value)
	case <-time.After(300 * time.Millisecond):
	}
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
			u.next++
			s.MarkMessage(m, "")
			if u.left--; u.left == 0 {
				u.cancel()
				return nil
			}
		}
	}
	return nil
}

// group is Sarama's own consumer group, which commits with OffsetCommit v1.
func group(bootstrap, prefix string, _ time.Time) {
	for round, count := range []int{15, 25} {
		c := config(sarama.V0_10_2_0)
		g, err := sarama.NewConsumerGroup([]string{bootstrap}, prefix+"-own", c)
		expected.Good(err, "consumer group")
		ctx, cancel := context.WithTimeout(context.Background(), within)
		handler := &untilCount{left: count, next: int64(round * 15), cancel: cancel}
		for ctx.Err() == nil {
			expected.Good(g.Consume(ctx, []string{prefix + "-codecs"}, handler), "consume")
		}
		expected.Equal(handler.left <= 0, true, fmt.Sprintf("%d left of %d", handler.left, count))
		expected.Good(g.Close(), "close")
	}
}

func soon(holds func() bool, what string) {
	for end := time.Now().Add(within); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			expected.Fail("%s: not within %v", what, within)
		}
	}
}
