// Builds the package twice, as ES modules and as CommonJS, each with its types. TypeScript takes the kind of a module from
// the nearest package.json, so the CommonJS build is made of a copy of the sources that has one of its own.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
const dist = join(root, 'dist');
const copy = join(root, '.cjs');

function compile(sources, kind) {
  const out = join(dist, kind);
  execFileSync(process.execPath, [tsc, '-p', join(sources, 'tsconfig.json'), '--outDir', out], { stdio: 'inherit' });
  writeFileSync(join(out, 'package.json'), JSON.stringify({ type: kind === 'esm' ? 'module' : 'commonjs' }) + '\n');
}

rmSync(dist, { recursive: true, force: true });
rmSync(copy, { recursive: true, force: true });
try {
  mkdirSync(copy, { recursive: true });
  cpSync(join(root, 'src'), join(copy, 'src'), { recursive: true });
  cpSync(join(root, 'tsconfig.json'), join(copy, 'tsconfig.json'));
  writeFileSync(join(copy, 'package.json'), '{"type":"commonjs"}\n');
  compile(root, 'esm');
  compile(copy, 'cjs');
} finally {
  rmSync(copy, { recursive: true, force: true });
}
