// What `npm pack` would publish: the two builds with their types, the examples, the README, and nothing else.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

test('the package holds what is promised, and only that', () => {
  const npm = process.env.npm_execpath;
  const command = npm ? [process.execPath, [npm]] : ['npm', []];
  const told = execFileSync(command[0], [...command[1], 'pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root, encoding: 'utf8' });
  const files = JSON.parse(told)[0].files.map((file) => file.path);
  const modules = ['binary', 'child', 'config', 'contracts', 'electron', 'errors', 'gateway', 'index', 'legacy', 'manager', 'nats', 'stream', 'wire'];
  const builds = ['esm', 'cjs'].flatMap((kind) => [
    `dist/${kind}/package.json`,
    ...modules.flatMap((name) => [`dist/${kind}/${name}.js`, `dist/${kind}/${name}.d.ts`]),
  ]);
  assert.deepEqual(files.sort(), [...builds, 'README.md', 'examples/voice-engine.mjs', 'package.json'].sort());
});

test('everything that package.json points at is there', () => {
  const about = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const named = (value) => (typeof value === 'string' ? [value] : Object.values(value).flatMap(named));
  for (const path of [about.main, about.module, about.types, ...named(about.exports)]) {
    assert.ok(existsSync(join(root, path)), path);
  }
});
