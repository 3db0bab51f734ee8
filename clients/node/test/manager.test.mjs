// The manager against a real fleet of its own: requests, streams, cancellation, models, events, the end.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { TTSError } from 'chorus-tts';
import { alive, header, managerOf, processesOf, temporary, until } from '../testing/support.mjs';

const manager = managerOf();
before(() => manager.initialize());
after(() => manager.shutdown());

test('a request is answered with its audio', async () => {
  const result = await manager.synthesize({ text: 'Hello from Node.', priority: 'high' });
  assert.equal(result.success, true, JSON.stringify(result.error));
  assert.equal(header(result.audio.data), 'RIFF');
  assert.ok(result.duration > 0 && result.latencyMs > 0 && result.requestId && result.metadata.modelUsed);
});

test('a request with a path writes a file, in the format that its name says', async (t) => {
  const outputPath = join(temporary(t), 'hello.ogg');
  const result = await manager.synthesize({ text: 'Into a file.', outputPath });
  assert.equal(result.success, true, JSON.stringify(result.error));
  assert.equal(result.outputPath, outputPath);
  assert.equal(header(readFileSync(outputPath)), 'OggS');
  assert.equal(result.audio, undefined);
});

test('a text and a path are the old call, with the old result', async (t) => {
  const outputPath = join(temporary(t), 'old.wav');
  const result = await manager.synthesize('The old way.', outputPath);
  assert.deepEqual(Object.keys(result).sort(), ['latencyMs', 'outputPath', 'success']);
  assert.equal(header(readFileSync(outputPath)), 'RIFF');
  const refused = await manager.synthesize('', outputPath);
  assert.equal(refused.success, false);
  assert.equal(typeof refused.error, 'string');
});

test('a request that cannot be spoken resolves with a typed error', async () => {
  const result = await manager.synthesize({ text: 'Hello.', model: 'no-such-model' });
  assert.equal(result.success, false);
  assert.equal(result.error.code, 'MODEL_NOT_FOUND');
  assert.equal(result.error.retryable, false);
});

test('a stream is one file in pieces, counted from 0, the last one marked', async () => {
  const chunks = [];
  const text = 'One sentence. Another sentence. A third one.';
  for await (const chunk of manager.synthesizeStream({ text, outputFormat: 'wav' })) chunks.push(chunk);
  assert.deepEqual(chunks.map((chunk) => chunk.sequence), chunks.map((_, index) => index));
  assert.deepEqual(chunks.map((chunk) => chunk.last), chunks.map((_, index) => index === chunks.length - 1));
  assert.equal(header(Buffer.concat(chunks.map((chunk) => chunk.data))), 'RIFF');
});

test('a stream that fails throws a typed error', async () => {
  const taking = (async () => {
    for await (const chunk of manager.synthesizeStream({ text: 'Hello.', model: 'no-such-model' })) void chunk;
  })();
  await assert.rejects(taking, (error) => error instanceof TTSError && error.code === 'MODEL_NOT_FOUND');
});

test('a hundred requests at once are each answered', async () => {
  const texts = Array.from({ length: 100 }, (_, index) => `Request number ${index}.`);
  const results = await Promise.all(texts.map((text) => manager.synthesize({ text, outputFormat: 'pcm' })));
  assert.ok(results.every((result) => result.success));
  assert.equal(new Set(results.map((result) => result.requestId)).size, 100);
});

test('an aborted signal rejects with its reason, before and during', async () => {
  await assert.rejects(manager.synthesize({ text: 'No.' }, { signal: AbortSignal.abort(new Error('early')) }), /early/);
  const abort = new AbortController();
  const taken = [];
  const streaming = (async () => {
    for await (const chunk of manager.synthesizeStream({ text: 'A sentence. '.repeat(200) }, { signal: abort.signal })) {
      taken.push(chunk);
      abort.abort(new Error('enough'));
    }
  })();
  await assert.rejects(streaming, /enough/);
  assert.equal(taken.length, 1);
  await until(async () => (await manager.refreshStatus()).models.every((model) => model.queued === 0), 'the queue is empty');
});

/** Jobs that the workers have done, once the figure is the same over several looks: heartbeats tell it, so it lags. */
async function jobsDone() {
  let before = -1;
  let still = 0;
  await until(async () => {
    const now = (await manager.refreshStatus()).workers.reduce((sum, worker) => sum + worker.jobsDone, 0);
    still = now === before ? still + 1 : 0;
    before = now;
    return still >= 50;
  }, 'the workers stand still');
  return before;
}

test('a consumer that stops taking stops the asking', async () => {
  const first = await jobsDone();
  const stream = manager.synthesizeStream({ text: 'A sentence. '.repeat(600) });
  await stream.next();
  // Far below the book's 600 sentences.
  const spoken = (await jobsDone()) - first;
  assert.ok(spoken < 100, `${spoken} jobs were spoken for nobody`);
  // Another client is not held up.
  assert.equal((await manager.synthesize({ text: 'Meanwhile.' })).success, true);
  await stream.return();
});

test('models are listed, loaded and unloaded', async () => {
  assert.deepEqual(await manager.getAvailableModels(), ['null']);
  await manager.loadModel('second');
  assert.deepEqual((await manager.getAvailableModels()).sort(), ['null', 'second']);
  assert.equal((await manager.synthesize({ text: 'Second.', model: 'second' })).success, true);
  await manager.unloadModel('second');
  assert.deepEqual(await manager.getAvailableModels(), ['null']);
});

test('status and metrics tell what was done', async () => {
  const status = await manager.refreshStatus();
  assert.equal(status.state, 'ready');
  assert.equal(manager.getStatus().workers.length, 1);
  const metrics = await manager.getMetrics();
  assert.ok(metrics.successes > 0 && metrics.activeWorkers === 1);
});

test('shutdown leaves no process, and afterwards nothing can be asked', async () => {
  const other = managerOf();
  await other.initialize();
  await assert.rejects(other.initialize(), /initialized already/);
  const pids = await processesOf(other);
  assert.ok(pids.length >= 2 && pids.every(alive), `${pids}`);
  const asked = other.synthesize({ text: 'The last words.' });
  await other.shutdown();
  assert.equal((await asked).success, true, 'what is in flight ends first');
  await until(() => pids.every((pid) => !alive(pid)), 'all processes are gone');
  assert.equal(other.getStatus().state, 'stopped');
  await assert.rejects(other.synthesize({ text: 'Too late.' }), { code: 'INIT_FAILED' });
  await other.shutdown();
});

test('what happens in the fleet is told by its kind', async () => {
  const other = managerOf({ engine: 'checkable' });
  const told = new Map();
  other.on('fleetEvent', (event) => told.set(event.kind, event));
  let named;
  other.on('workerFailed', (event) => (named = event));
  await other.initialize();
  await until(() => told.has('fleetReady'), 'a model can speak');
  process.kill((await other.refreshStatus()).workers[0].enginePid, 'SIGKILL');
  await until(() => named, 'the engine failed');
  assert.ok(named.workerId && named.error && named.timestamp > 0, JSON.stringify(named));
  const again = await other.synthesize({ text: 'Recovered.' });
  assert.equal(again.success, true, JSON.stringify(again.error));
  await other.shutdown();
});
