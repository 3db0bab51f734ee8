/** Where the program `chorus` is: told, in CHORUS_BIN, or on PATH. */
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { ErrorCode } from './contracts.js';
import { failure } from './errors.js';

export function findChorus(told: string | undefined, env: NodeJS.ProcessEnv): string {
  const named = told || env['CHORUS_BIN'];
  if (named) {
    if (isProgram(named)) return named;
    const by = told ? 'the option `binary`' : 'CHORUS_BIN';
    throw missing(`${by} names ${named}, which is no program`);
  }
  const found = findOnPath('chorus', env);
  if (found) return found;
  throw missing('the program `chorus` is not on PATH');
}

/** The first program of this name on PATH. */
export function findOnPath(name: string, env: NodeJS.ProcessEnv): string | undefined {
  const folders = (env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return folders.map((folder) => join(folder, name)).find(isProgram);
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

function missing(why: string): Error {
  const advice = 'install it (`cargo install --path cli` in chorus), or name it in the option `binary` or in CHORUS_BIN';
  return failure(ErrorCode.INITIALIZATION_FAILED, 'no_binary', `${why}: ${advice}`, false);
}
