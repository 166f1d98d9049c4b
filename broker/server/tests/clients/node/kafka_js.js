// KafkaJS, whose codec is its own: records, groups, admin.
'use strict'

const assert = require('node:assert').strict
const { Kafka, CompressionCodecs, CompressionTypes, ConfigResourceTypes, logLevel } =
  require('kafkajs')
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
const { COUNT, PER_CODEC, STEP_MS, main, record, soon } = require('./expected.js')

const clientOf = bootstrap =>
  new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50 } })

async function withAdmin(bootstrap, act) {
  const admin = clientOf(bootstrap).admin()
  await admin.connect()
  await act(admin)
  await admin.disconnect()
}

async function create(bootstrap, prefix) {
  const topic = `${prefix}-codecs`
  await withAdmin(bootstrap, async admin => {
    const topics = [{ topic, numPartitions: 3, replicationFactor: 1 }]
    assert.equal(await admin.createTopics({ topics }), true)
    assert.equal(await admin.createTopics({ topics }), false, 'created twice')
  })
}

// KafkaJS brings gzip, and is given Snappy; the records of the others are written plainly.
async function write(bootstrap, prefix, baseMs) {
  const { None, GZIP, Snappy } = CompressionTypes
  for (const [index, compression] of [None, GZIP, Snappy, None, None].entries()) {
    const producer = clientOf(bootstrap).producer({
      idempotent: index % 2 === 1,
      allowAutoTopicCreation: false,
    })
    await producer.connect()
    const first = index * PER_CODEC
    const messages = Array.from({ length: PER_CODEC }, (_, i) => ({
      partition: 0,
      ...record(first + i, baseMs),
    }))
    const [sent] = await producer.send({ topic: `${prefix}-codecs`, compression, messages })
    assert.deepEqual([sent.errorCode, sent.partition, sent.baseOffset], [0, 0, String(first)])
    await producer.disconnect()
  }
}

// Takes records of partition 0, from where the group stands or from an offset, until there are
// `count`; commits them when it is told to.
async function take(bootstrap, prefix, group, count, { from, commits = false } = {}) {
  const consumer = clientOf(bootstrap).consumer({
    groupId: `${prefix}-${group}`,
    maxWaitTimeInMs: 200,
  })
  const topic = `${prefix}-codecs`
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  const found = []
  let [finish, fail] = []
  const all = new Promise((...both) => ([finish, fail] = both))
  const late = setTimeout(() => fail(new Error(`${found.length} of ${count} records`)), 20000)
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      if (partition !== 0 || found.length === count) return
      if (found.push(message) === count) finish()
    },
  })
  if (from !== undefined) consumer.seek({ topic, partition: 0, offset: String(from) })
  await all
  clearTimeout(late)
  if (commits) {
    const offset = String(Number(found.at(-1).offset) + 1)
    await consumer.commitOffsets([{ topic, partition: 0, offset, metadata: 'from node' }])
  }
  await consumer.disconnect()
  return found
}

function same(message, offset, baseMs) {
  const { timestamp, key, value, headers } = message
  const found = { timestamp, key, value, headers: { ...headers } }
  assert.deepEqual([message.offset, found], [String(offset), record(offset, baseMs)])
}

async function read(bootstrap, prefix, baseMs) {
  const all = await take(bootstrap, prefix, 'read', COUNT)
  all.forEach((message, offset) => same(message, offset, baseMs))
  const [one] = await take(bootstrap, prefix, 'seek', 1, { from: 23 })
  same(one, 23, baseMs)
  await withAdmin(bootstrap, async admin => {
    const [first] = (await admin.fetchTopicOffsets(`${prefix}-codecs`))
      .filter(row => row.partition === 0)
    assert.deepEqual([first.low, first.high], ['0', String(COUNT)])
    const time = baseMs + 22 * STEP_MS + 999
    const rows = await admin.fetchTopicOffsetsByTimestamp(`${prefix}-codecs`, time)
    assert.equal(rows.find(row => row.partition === 0).offset, '23', 'offset for a time')
  })
}

async function group(bootstrap, prefix, baseMs) {
  const first = await take(bootstrap, prefix, 'own', 15, { commits: true })
  first.forEach((message, offset) => same(message, offset, baseMs))
  const second = await take(bootstrap, prefix, 'own', 25, { commits: true })
  second.forEach((message, index) => same(message, 15 + index, baseMs))
}

// What its admin client can ask of one node, after the phase group.
async function admin(bootstrap, prefix) {
  const [topic, groupId] = [`${prefix}-codecs`, `${prefix}-own`]
  await withAdmin(bootstrap, async admin => {
    assert.ok((await admin.listTopics()).includes(topic))
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    assert.equal(topics[0].partitions.length, 3)
    const cluster = await admin.describeCluster()
    assert.equal(`${cluster.brokers[0].host}:${cluster.brokers[0].port}`, bootstrap)
    const { groups } = await admin.listGroups()
    assert.equal(groups.find(row => row.groupId === groupId).protocolType, 'consumer')
    const described = (await admin.describeGroups([groupId])).groups[0]
    assert.deepEqual([described.errorCode, described.state], [0, 'Empty'])
    const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] })
    const committed = partitions.find(row => row.partition === 0)
    assert.deepEqual(committed, { partition: 0, offset: '40', metadata: 'from node' })
    const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
    const configEntries = [{ name: 'retention.ms', value: '86400000' }]
    await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries }] })
    const configNames = ['retention.ms']
    await soon(async () => {
      const { resources } = await admin.describeConfigs({
        includeSynonyms: false,
        resources: [{ ...resource, configNames }],
      })
      return resources[0].configEntries[0].configValue === '86400000'
    }, 'the altered configuration')
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '5' }] })
    const offsets = await admin.fetchTopicOffsets(topic)
    assert.equal(offsets.find(row => row.partition === 0).low, '5', 'log start offset')
    await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
    await soon(async () => {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
      return topics[0].partitions.length === 5
    }, 'five partitions')
    const refused = admin.describeAcls({
      resourceType: 1, resourcePatternType: 1, operation: 1, permissionType: 1,
    })
    await assert.rejects(refused, { type: 'SECURITY_DISABLED' })
    await admin.deleteGroups([groupId])
    const left = (await admin.listGroups()).groups.map(row => row.groupId)
    assert.ok(!left.includes(groupId), 'the group is gone')
  })
}

async function remove(bootstrap, prefix) {
  await withAdmin(bootstrap, async admin => {
    await admin.deleteTopics({ topics: [`${prefix}-codecs`] })
    const again = admin.deleteTopics({ topics: [`${prefix}-codecs`] })
    await assert.rejects(again, ({ cause }) => cause.type === 'UNKNOWN_TOPIC_OR_PARTITION')
  })
}

main({ create, write, read, group, admin, delete: remove }).catch(error => {
  console.error(error)
  process.exit(1)
})
