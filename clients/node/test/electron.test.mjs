// The Electron integration with a fake app and ipcMain, and a real fleet behind it.
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ElectronTTSIntegration, electronOptions, findPythonExecutable } from 'chorus-tts/electron';
import { ENV, temporary } from '../testing/support.mjs';

class FakeApp extends EventEmitter {
  constructor(userData) { super(); this.userData = userData; }
  getPath(name) { assert.equal(name, 'userData'); return this.userData; }
  quit() { this.emit('quit'); }
}

class FakeIpcMain {
  handlers = new Map();
  handle(channel, handler) { assert.ok(!this.handlers.has(channel)); this.handlers.set(channel, handler); }
  removeHandler(channel) { this.handlers.delete(channel); }
  invoke(sender, channel, ...args) { return this.handlers.get(channel)({ sender }, ...args); }
}

function renderer(id) {
  const sent = [];
  return { id, sent, isDestroyed: () => false, send: (...args) => sent.push(args) };
}

test('renderers speak, stream and cancel; the app ends after the fleet', async (t) => {
  const userData = temporary(t);
  const [app, ipcMain] = [new FakeApp(userData), new FakeIpcMain()];
  const options = { args: ['--engine', 'null'], env: ENV, readyTimeoutMs: 120_000 };
  const integration = new ElectronTTSIntegration({ app, ipcMain }, options);
  await integration.initializeWithElectron();
  const [one, two] = [renderer(1), renderer(2)];

  const outputPath = join(userData, 'spoken.wav');
  const spoken = await ipcMain.invoke(one, 'tts-synthesize', { text: 'From a renderer.', outputPath });
  assert.equal(spoken.success, true, JSON.stringify(spoken.error));

  const refused = await ipcMain.invoke(one, 'tts-synthesize', { text: 5 });
  assert.deepEqual([refused.success, refused.error.code], [false, 'INVALID_REQUEST']);

  assert.deepEqual(await ipcMain.invoke(one, 'tts-stream', { text: 'A stream.' }, 'a'), { success: true });
  assert.ok(one.sent.length > 0 && one.sent.every(([channel, id]) => channel === 'tts-chunk' && id === 'a'));
  assert.equal(one.sent.at(-1)[2].last, true);

  const long = ipcMain.invoke(one, 'tts-synthesize', { text: 'A sentence. '.repeat(3000) }, 'b');
  assert.equal((await ipcMain.invoke(one, 'tts-synthesize', { text: 'x' }, 'b')).error.details.reason, 'id_reused');
  assert.equal(await ipcMain.invoke(two, 'tts-cancel', 'b'), false, "another renderer's id is not its own");
  assert.equal(await ipcMain.invoke(one, 'tts-cancel', 'b'), true);
  assert.equal((await long).error.details.reason, 'cancelled');

  assert.equal((await ipcMain.invoke(one, 'tts-status')).state, 'ready');
  assert.deepEqual(await ipcMain.invoke(one, 'tts-models'), ['null']);
  assert.ok((await ipcMain.invoke(one, 'tts-metrics')).successes > 0);

  const quit = once(app, 'quit');
  let prevented = false;
  app.emit('will-quit', { preventDefault: () => (prevented = true) });
  await quit;
  assert.ok(prevented && ipcMain.handlers.size === 0);
  assert.equal(integration.manager.getStatus().state, 'stopped');
});

test("an app's places are below userData", () => {
  const options = electronOptions({ getPath: () => '/data/app' }, { CHORUS_PYTHON: '/my/python' });
  assert.deepEqual(options, { cachePath: '/data/app/tts-cache', pythonPath: '/my/python' });
});

test('a Python is looked for on PATH, those first that Coqui runs on', (t) => {
  const folder = temporary(t);
  const env = { PATH: `/nowhere:${folder}` };
  assert.equal(findPythonExecutable(env), undefined);
  for (const name of ['python3', 'python3.11', 'python3.9']) {
    writeFileSync(join(folder, name), '');
    chmodSync(join(folder, name), 0o755);
  }
  assert.equal(findPythonExecutable(env), join(folder, 'python3.11'));
  chmodSync(join(folder, 'python3.11'), 0o644);
  assert.equal(findPythonExecutable(env), join(folder, 'python3'), 'one that cannot be run is none');
  assert.equal(findPythonExecutable({ ...env, CHORUS_PYTHON: '/my/python' }), '/my/python');
});
