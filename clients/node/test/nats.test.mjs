// A fleet that is there (`chorus up`): plain requests by the NATS client, all else through `chorus stdio --nats`.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { TTSManager } from 'chorus-tts';
import { ENV, header, temporary, until } from '../testing/support.mjs';

const token = 'a-token-of-the-test';
let fleet;
let url;

// A run file and a broker's store of its own; what is installed is used from where it is.
const folder = mkdtempSync(join(tmpdir(), 'chorus-node-up-'));

before(async () => {
  const home = join(folder, 'home');
  mkdirSync(home);
  const installed = ENV.CHORUS_HOME ?? join(ENV.HOME, '.local/share/chorus');
  for (const name of readdirSync(installed)) {
    if (['engine', 'env', 'tools', 'cache', 'voices'].includes(name)) symlinkSync(join(installed, name), join(home, name));
  }
  const env = { ...ENV, CHORUS_HOME: home, CHORUS_NATS_TOKEN: token };
  fleet = spawn(process.env.CHORUS_BIN, ['up', '--engine', 'null', '--port', '0'], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  url = await new Promise((resolve, reject) => {
    let told = '';
    fleet.stdout.setEncoding('utf8').on('data', (text) => {
      told += text;
      const found = /ready: (nats:\/\/\S+)/.exec(told);
      if (found) resolve(found[1]);
    });
    fleet.once('exit', (code) => reject(new Error(`chorus up ended with ${code}: ${told}`)));
  });
});

after(async () => {
  if (fleet.exitCode === null) {
    const gone = once(fleet, 'exit');
    fleet.kill('SIGTERM');
    await gone;
  }
  rmSync(folder, { recursive: true, force: true });
});

for (const transport of ['nats', 'stdio']) {
  test(`a fleet that is there speaks through ${transport}`, async (t) => {
    const manager = new TTSManager({ transport, nats: { url, token }, env: ENV });
    await manager.initialize();
    t.after(() => manager.shutdown());
    const result = await manager.synthesize({ text: 'Over the wire.' });
    assert.equal(result.success, true, JSON.stringify(result.error));
    assert.equal(header(result.audio.data), 'RIFF');
    const long = await manager.synthesize({ text: 'A sentence that is spoken. '.repeat(80) });
    assert.ok(long.audio.data.length > 1_000_000, 'more than a message holds');
    const outputPath = join(temporary(t), 'wire.ogg');
    const written = await manager.synthesize({ text: 'Into a file.', outputPath });
    assert.equal(written.outputPath, outputPath, JSON.stringify(written.error));
    assert.equal(header(readFileSync(outputPath)), 'OggS');
    assert.equal((await manager.synthesize({ text: '' })).error.code, 'INVALID_REQUEST');
    // The clip arrives; this engine has but one voice.
    const speakerClip = join(temporary(t), 'clip.wav');
    writeFileSync(speakerClip, 'a recording');
    const { error } = await manager.synthesize({ text: 'Like whom?', speakerClip });
    assert.equal(`${error.details.reason} ${error.details.field}`, 'unsupported_option speakerClip');
    const spoken = async () => {
      const { models, workers } = await manager.refreshStatus();
      const idle = models.every(({ queued }) => queued === 0) && workers.every(({ inFlight }) => inFlight === 0);
      return { idle, jobs: workers.reduce((sum, { jobsDone }) => sum + jobsDone, 0) };
    };
    const before = (await spoken()).jobs;
    const abort = AbortSignal.timeout(50);
    await assert.rejects(manager.synthesize({ text: 'A sentence. '.repeat(5000) }, { signal: abort }), { name: 'TimeoutError' });
    let last = 0;
    let since = Date.now();
    await until(async () => {
      const { idle, jobs } = await spoken();
      if (!idle || jobs !== last) [last, since] = [jobs, Date.now()];
      // Longer than two heartbeats, by which the figures are known.
      return Date.now() - since > 2500;
    }, 'nobody speaks it any more');
    assert.ok(last - before < 600, `${last - before} of its 1,200 segments were spoken`);
    const chunks = [];
    for await (const chunk of manager.synthesizeStream({ text: 'A stream.' })) chunks.push(chunk);
    assert.equal(chunks.at(-1).last, true);
    assert.equal((await manager.getMetrics()).activeWorkers, 1);
  });
}

test('workers that come and leave are events', async () => {
  const manager = new TTSManager({ nats: { url, token }, env: ENV });
  const told = [];
  manager.on('workerStarted', (event) => told.push(event));
  manager.on('workerStopped', (event) => told.push(event));
  await manager.initialize();
  const args = ['worker', '--engine', 'null', '--nats', url, '--id', 'second'];
  const worker = spawn(process.env.CHORUS_BIN, args, { env: { ...ENV, CHORUS_NATS_TOKEN: token }, stdio: 'inherit' });
  const gone = once(worker, 'exit');
  const heard = (kind) => told.some((event) => event.kind === kind && event.workerId === 'second');
  await until(() => heard('workerStarted'), 'the worker is told of');
  await until(async () => (await manager.refreshStatus()).workers.length === 2, 'it is in the status');
  worker.kill('SIGTERM');
  await gone;
  await until(() => heard('workerStopped'), 'its end is told of');
  await manager.shutdown();
});

test('a broker that is not there is told', async () => {
  const manager = new TTSManager({ nats: 'nats://127.0.0.1:9', transport: 'nats', env: ENV, readyTimeoutMs: 2000 });
  await assert.rejects(manager.initialize(), (error) => error.code === 'INIT_FAILED' || error.retryable);
});
