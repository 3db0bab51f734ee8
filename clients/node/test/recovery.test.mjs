// What becomes of calls when the gateway dies, and of a gateway that cannot stay.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { TTSError, TTSManager } from 'chorus-tts';
import { alive, ENV, managerOf, temporary, until } from '../testing/support.mjs';

function script(t, body) {
  const file = join(temporary(t), 'chorus');
  writeFileSync(file, `#!/bin/sh\n${body}\n`);
  chmodSync(file, 0o755);
  return file;
}

test('calls of a gateway that is killed reject, retryable, and the next ones are answered by another', async () => {
  const manager = managerOf({ restart: { initialDelayMs: 10 } });
  await manager.initialize();
  const pid = (await manager.refreshStatus()).managers[0].pid;
  const [lost, restarted] = [once(manager, 'gatewayLost'), once(manager, 'gatewayRestarted')];
  const open = manager.synthesize({ text: 'A sentence. '.repeat(2000) });
  const stream = manager.synthesizeStream({ text: 'A sentence. '.repeat(2000) });
  await stream.next();
  process.kill(pid, 'SIGKILL');
  const isLost = (error) => error instanceof TTSError && error.retryable && error.reason === 'gateway_lost';
  await assert.rejects(open, isLost);
  await assert.rejects(async () => { for await (const chunk of stream) void chunk; }, isLost);
  await lost;
  assert.equal((await manager.synthesize({ text: 'Again.' })).success, true);
  const [again] = await restarted;
  assert.notEqual(again, pid);
  await manager.shutdown();
  await until(() => !alive(pid) && !alive(again), 'no gateway is left');
});

test('a binary that is not there, or is no gateway, is told at once', async (t) => {
  await assert.rejects(new TTSManager({ binary: '/no/such/chorus' }).initialize(), { code: 'INIT_FAILED', reason: 'no_binary' });
  await assert.rejects(new TTSManager({ env: { PATH: '' } }).initialize(), { reason: 'no_binary' });
  const dies = new TTSManager({ binary: script(t, 'echo "it is broken" >&2; exit 3') });
  await assert.rejects(dies.initialize(), (error) => /ended with 3: it is broken/.test(error.message));
  const silent = new TTSManager({ binary: script(t, 'exec sleep 60'), helloTimeoutMs: 200 });
  await assert.rejects(silent.initialize(), /handshake took too long/);
});

test('a fleet that cannot start is INIT_FAILED with its own words', async () => {
  const manager = managerOf({ engine: 'no-such-engine' });
  await assert.rejects(manager.initialize(), (error) => error.code === 'INIT_FAILED' && /no-such-engine/.test(error.message));
});

test('a gateway that never stays is given up, and says so', async (t) => {
  // Greets the first time as a gateway does, then dies whatever is asked.
  const answer = '{"version":"2.0.0","messageId":"x","timestamp":0,"type":"response","metadata":{"correlationId":"ID"},"payload":{"version":"2.0.0"}}';
  const ready = answer.replace('{"version":"2.0.0"}}', '{"state":"ready","managers":[],"workers":[],"models":[{"name":"m","readyWorkers":1}]}}');
  const binary = script(t, `
    reply() { id=$(printf '%s' "$2" | sed 's/.*"messageId":"\\([^"]*\\)".*/\\1/'); printf '%s\\n' "$1" | sed "s/ID/$id/"; }
    [ -e "$0.again" ] && exit 1
    while read -r line; do case "$line" in
      *'"method":"hello"'*) reply '${answer}' "$line";;
      *'"method":"status"'*) reply '${ready}' "$line";;
      *'"method":"metrics"'*) touch "$0.again"; exit 1;;
    esac; done`);
  const manager = new TTSManager({ binary, env: ENV, restart: { initialDelayMs: 1, maxDelayMs: 4, maxRestarts: 3 } });
  await manager.initialize();
  const failed = once(manager, 'gatewayFailed');
  await assert.rejects(manager.getMetrics(), { retryable: true, reason: 'gateway_lost' });
  await assert.rejects(manager.getMetrics(), { retryable: false, reason: 'gateway_failed' });
  const [error] = await failed;
  assert.match(error.message, /begun 4 times/);
  await manager.shutdown();
});
