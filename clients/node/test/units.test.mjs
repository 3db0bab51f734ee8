// What needs no fleet: the decoder, the configuration, the legacy layer.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BackwardCompatibilityLayer, ConfigMigrator, ConfigValidator, findPythonExecutable, FLUSH } from 'chorus-tts';
import { Decoder, encodeMessage, ProtocolError } from '../dist/esm/wire.js';
import { environmentOf } from '../dist/esm/config.js';
import { streamOf } from '../dist/esm/stream.js';

const message = (n, data) => ({ version: '2.1.0', messageId: `m${n}`, timestamp: n, type: 'event', payload: { n, data } });

test('messages are read however they are cut, in both framings', () => {
  for (const framing of ['lines', 'frames']) {
    const data = framing === 'frames' ? new Uint8Array([0, 10, 255]) : 'text';
    const sent = [message(1, data), message(2, data), message(3, 'ä'.repeat(300))];
    const all = Buffer.concat(sent.map((each) => encodeMessage(framing, each)));
    for (const size of [1, 2, 3, 7, 64, all.length]) {
      const decoder = new Decoder();
      decoder.framing = framing;
      const read = [];
      for (let at = 0; at < all.length; at += size) {
        decoder.push(all.subarray(at, at + size));
        for (let next = decoder.next(); next; next = decoder.next()) read.push(next);
      }
      assert.deepEqual(read.map((each) => each.payload.n), [1, 2, 3], `${framing} in pieces of ${size}`);
    }
  }
});

test('noise between lines is skipped, and a message without an end is bounded', () => {
  const decoder = new Decoder(1000);
  decoder.push(Buffer.from('Loading model…\n{"half":\n[1]\n'));
  decoder.push(encodeMessage('lines', message(5, '')));
  assert.equal(decoder.next().payload.n, 5);
  decoder.push(Buffer.alloc(2000, 0x61));
  assert.throws(() => decoder.next(), ProtocolError);
  const frames = new Decoder(1000);
  frames.framing = 'frames';
  frames.push(Buffer.from([0xff, 0xff, 0xff, 0xff, 0]));
  assert.throws(() => frames.next(), ProtocolError);
});

test('a long piece goes in several, no character is cut in two, and few go ahead of their answers', async () => {
  const sent = [];
  const unanswered = [];
  let ended;
  let most = 0;
  const child = {
    call(payload) {
      sent.push(payload);
      if (payload.method === 'synthesizeStream') return { id: 's', answer: new Promise((resolve) => (ended = resolve)) };
      if (payload.method === 'end') ended({ success: true });
      const answer = new Promise((resolve) => unanswered.push(resolve));
      most = Math.max(most, unanswered.length);
      setImmediate(() => unanswered.shift()?.({}));
      return { id: `p${sent.length}`, answer };
    },
    cancel: () => assert.fail('nothing is cancelled'),
    grant: () => {},
  };
  const long = '🎶a'.repeat(20_000);
  async function* text() {
    yield long;
    yield FLUSH;
    yield '';
    for (let n = 0; n < 100; n++) yield 'word ';
  }
  for await (const chunk of streamOf(async () => ({ child: async () => child }), { text: text() })) assert.fail(`${chunk}`);
  const [asked, ...pieces] = sent;
  assert.deepEqual([asked.text, asked.textComes], ['', true]);
  assert.ok(pieces.every((piece) => piece.messageId === 's' && Buffer.byteLength(piece.text ?? '') <= 65_536));
  assert.ok(pieces.every((piece) => (piece.text ?? '').isWellFormed?.() ?? true));
  const flushed = pieces.findIndex((piece) => piece.method === 'flush');
  assert.ok(flushed > 3 && pieces.at(-1).method === 'end');
  const said = pieces.map((piece) => Buffer.from(piece.text ?? '', 'utf8').toString('utf8')).join('');
  assert.equal(said, long + 'word '.repeat(100));
  assert.ok(most <= 16, `${most} pieces were unanswered`);
});

test('every fault of a configuration is told', () => {
  const { valid, errors } = new ConfigValidator().validate({
    workerPool: { minWorkers: 3, maxWorkers: 2, workerTimeoutMs: 10 },
    circuitBreaker: { timeoutMs: 999, failureThreshold: 2 },
    sla: { synthesis: { latency: { p95: 1 } } },
  });
  assert.equal(valid, false);
  assert.equal(errors.length, 5, errors.join('\n'));
  assert.ok(errors.includes('minWorkers cannot exceed maxWorkers'));
  assert.ok(errors.includes('Circuit breaker timeout must be at least 1000ms'));
  const migrated = new ConfigMigrator().migrateConfig({ ttsModel: 'joe', ttsCacheDir: '/c' });
  assert.deepEqual(new ConfigValidator().validate(migrated), { valid: true, errors: [] });
});

test("a configuration becomes chorus's variables", () => {
  const migrated = new ConfigMigrator().migrateConfig({ ttsCacheDir: '/c' });
  const found = environmentOf({ ...migrated, pythonPath: '/p', sla: { resources: { memoryUsageGB: 2 } } });
  assert.equal(found.CHORUS_WORKER_POOL_MIN_WORKERS, '1');
  assert.equal(found.CHORUS_CIRCUIT_BREAKER_FAILURE_THRESHOLD, '0.5');
  assert.equal(found.CHORUS_SLA_RESOURCES_MEMORY_USAGE_GB, '2');
  assert.equal(found.CHORUS_CACHE_DIR, '/c');
  assert.equal(found.CHORUS_PYTHON, '/p');
  assert.equal('CHORUS_MODEL_NAME' in found, false, 'the default model needs no name');
});

test('the old call never rejects', async () => {
  const asked = [];
  const service = { synthesize: async (request) => { asked.push(request); throw new Error('gone'); } };
  const result = await new BackwardCompatibilityLayer(service).synthesize('hello', '/x.wav');
  assert.deepEqual(asked, [{ text: 'hello', outputPath: '/x.wav', priority: 'normal' }]);
  assert.equal(result.success, false);
  assert.equal(result.error, 'gone');
});

test('a Python is looked for', () => {
  assert.equal(findPythonExecutable({ CHORUS_PYTHON: '/my/python' }), '/my/python');
  assert.equal(findPythonExecutable({ PATH: '/nowhere' }), undefined);
});
