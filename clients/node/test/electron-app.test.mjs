// A whole Electron app with the package as `npm pack` makes it: its main process, a window in a process of its own, the end.
// On the stand-in everywhere; on a real Electron where CHORUS_ELECTRON names one, under Xvfb where there is no display.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, readFileSync, realpathSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { alive, ENV, temporary, until } from '../testing/support.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** The app in a folder of its own, with the packed package beside it. */
function installed(t) {
  const app = join(realpathSync(temporary(t)), 'app');
  cpSync(join(root, 'testing/electron-app'), app, { recursive: true });
  const modules = join(app, 'node_modules');
  mkdirSync(join(modules, 'chorus-tts'), { recursive: true });
  const npm = process.env.npm_execpath ? [process.execPath, process.env.npm_execpath] : ['npm'];
  const pack = [...npm.slice(1), 'pack', '--json', '--ignore-scripts', '--pack-destination', app];
  const [{ filename }] = JSON.parse(execFileSync(npm[0], pack, { cwd: root, encoding: 'utf8' }));
  execFileSync('tar', ['-xzf', join(app, filename), '-C', join(modules, 'chorus-tts'), '--strip-components=1']);
  symlinkSync(join(root, 'node_modules/@msgpack'), join(modules, '@msgpack'));
  return app;
}

async function run(t, app, command) {
  const [data, report] = [join(app, 'data'), join(app, 'report.json')];
  mkdirSync(data);
  const env = { ...ENV, APP_DATA: data, APP_REPORT: report };
  const child = spawn(command[0], [...command.slice(1), app], { env, stdio: ['ignore', 'inherit', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const [code] = await once(child, 'exit');
  const told = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : {};
  assert.equal(told.failed, undefined);
  assert.equal(code, 0);
  return told;
}

async function right(told) {
  assert.deepEqual(told.inline, { success: true, riff: 'RIFF' });
  assert.deepEqual([told.refused.code, told.refused.details.field], ['INVALID_REQUEST', 'text']);
  assert.deepEqual(told.streamed, { success: true });
  assert.ok(told.chunks.length > 0 && told.chunks.every(({ id, bytes }, at) => id === 'a' && bytes >= 0 && told.chunks[at].sequence === at));
  assert.equal(told.chunks.at(-1).last, true);
  assert.deepEqual([told.cancelled, told.given.details.reason], [true, 'cancelled']);
  assert.deepEqual([told.state, told.models], ['ready', ['null']]);
  assert.ok(told.successes > 0 && told.pids.length >= 2);
  await until(() => !told.pids.some(alive), 'no process of the fleet is left');
}

test('an app of the packed package speaks from its window, and leaves nothing behind', async (t) => {
  const app = installed(t);
  cpSync(join(root, 'testing/electron-stand-in'), join(app, 'node_modules/electron'), { recursive: true });
  await right(await run(t, app, [process.execPath]));
});

const electron = process.env.CHORUS_ELECTRON;
if (electron) test('the same app in a real Electron', async (t) => {
  const xvfb = process.platform === 'linux' && !process.env.DISPLAY ? ['xvfb-run', '-a'] : [];
  const told = await run(t, installed(t), [...xvfb, electron, '--no-sandbox', '--disable-gpu']);
  assert.match(told.electron, /^\d+\./);
  await right(told);
});
