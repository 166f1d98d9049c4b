// What every client writes and reads back; the twin of python/expected.py, which explains it.
'use strict'

const assert = require('node:assert').strict

const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd']
const PER_CODEC = 10
const COUNT = PER_CODEC * CODECS.length
const STEP_MS = 1000

function record(offset, baseMs) {
  const codec = CODECS[Math.floor(offset / PER_CODEC)]
  const i = offset % PER_CODEC
  let key = Buffer.from(`key-${codec}-${i}`)
  if (i === 0 || i === 8) key = null
  if (i === 1) key = Buffer.alloc(0)
  const [mark, rest] = [Buffer.from([0, 0xff]), Buffer.alloc(i * 100, 'x')]
  let value = Buffer.concat([Buffer.from(`${codec}-${i}-é中文-`), mark, rest])
  if (i === 4 || i === 9) value = null
  if (i === 3) value = Buffer.alloc(0)
  const two = { a: [Buffer.from('1'), Buffer.from('2')], 空: Buffer.alloc(0) }
  const headers = [{}, two, { h: mark }][i % 3]
  return { timestamp: String(baseMs + offset * STEP_MS), key, value, headers }
}

// For what Apache Kafka does a moment after its answer.
async function soon(holds, what) {
  for (const end = Date.now() + 20000; !(await holds()); ) {
    assert.ok(Date.now() < end, `${what}: not within 20 s`)
    await new Promise(done => setTimeout(done, 50))
  }
}

// Runs FILE BOOTSTRAP PREFIX BASE_MS PHASE...
async function main(phases) {
  const [bootstrap, prefix, baseMs, ...names] = process.argv.slice(2)
  for (const name of names) {
    await phases[name](bootstrap, prefix, Number(baseMs))
    console.log('passed:', name)
  }
  process.exit(0)
}

module.exports = { PER_CODEC, COUNT, STEP_MS, record, soon, main }
