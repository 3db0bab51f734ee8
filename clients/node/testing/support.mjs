// What the tests share: a manager in front of a real fleet (engine `null` or `checkable`), polling, and a look at processes.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { TTSManager } from 'chorus-tts';

assert.ok(process.env.CHORUS_BIN, 'CHORUS_BIN names the chorus to test with; `cargo xtask test` sets it');

// A fleet that stands in the environment is not the one under test.
export const ENV = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('CHORUS_NATS_URL')));

export function managerOf(options = {}) {
  const { engine = 'null', ...rest } = options;
  return new TTSManager({ args: ["--engine", engine], env: ENV, readyTimeoutMs: 120_000, ...rest });
}

export function temporary(t) {
  const folder = mkdtempSync(join(tmpdir(), 'chorus-node-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export async function until(holds, what, withinMs = 30_000) {
  const deadline = Date.now() + withinMs;
  for (;;) {
    const value = await holds();
    if (value) return value;
    assert.ok(Date.now() < deadline, `not in time: ${what}`);
    await sleep(20);
  }
}

export function alive(pid) {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** The processes of a fleet of its own, from its status and the gateway's process. */
export async function processesOf(manager) {
  const { workers, managers } = await manager.refreshStatus();
  return [...new Set([...workers, ...managers].flatMap((part) => [part.pid, part.enginePid]).filter(Boolean))];
}

export function header(file) {
  return Buffer.from(file.subarray(0, 4)).toString('latin1');
}
