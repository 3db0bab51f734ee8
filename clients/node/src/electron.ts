/**
 * Electron's main process: the manager with Electron's own places, and handlers that renderers can invoke.
 *
 * Nothing here imports `electron`: its `app` and `ipcMain` are handed in, so that this works with every version of it, and
 * without it in tests.
 */
import { join } from 'node:path';
import { findOnPath } from './binary.js';
import type { SynthesisRequest } from './contracts.js';
import { ErrorCode } from './contracts.js';
import { failure, TTSError } from './errors.js';
import { TTSManager, type TTSManagerOptions } from './manager.js';

/** What is used of Electron's `app`. */
export interface ElectronApp {
  getPath(name: 'userData'): string;
  on(event: 'will-quit', listener: (event: { preventDefault(): void }) => void): unknown;
  quit(): void;
}

/** What is used of Electron's `ipcMain`. */
export interface IpcMain {
  handle(channel: string, listener: (event: unknown, ...args: any[]) => unknown): void;
  removeHandler(channel: string): void;
}

/** What is used of Electron's `WebContents`. */
interface Sender {
  id: number;
  isDestroyed(): boolean;
  send(channel: string, ...args: unknown[]): void;
}

const CHANNELS = ['tts-synthesize', 'tts-stream', 'tts-cancel', 'tts-status', 'tts-models', 'tts-metrics'] as const;

/**
 * Registers the handlers `tts-synthesize`, `tts-stream`, `tts-cancel`, `tts-status`, `tts-models` and `tts-metrics`; the
 * function that comes back takes them away again and cancels what they began.
 *
 * A renderer may give a second argument, an id of its own, and cancel by it. A stream's chunks are sent to it as
 * `tts-chunk` (id, chunk); its invocation resolves when the stream has ended. Failures come back as `{success: false,
 * error}`: Electron would cut a rejection down to its message.
 */
export function registerTtsIpc(ipcMain: IpcMain, manager: TTSManager): () => void {
  const running = new Map<string, AbortController>();
  const guarded = async (event: unknown, id: unknown, work: (signal: AbortSignal, sender: Sender) => Promise<unknown>): Promise<unknown> => {
    const sender = (event as { sender: Sender }).sender;
    const key = `${sender?.id}/${String(id ?? Math.random())}`;
    if (running.has(key)) return refused(failure(ErrorCode.INVALID_REQUEST, 'id_reused', `the id ${String(id)} is in use`, false));
    const abort = new AbortController();
    running.set(key, abort);
    try {
      return await work(abort.signal, sender);
    } catch (error) {
      return refused(error);
    } finally {
      running.delete(key);
    }
  };
  const handlers: Record<(typeof CHANNELS)[number], (event: unknown, ...args: any[]) => unknown> = {
    'tts-synthesize': (event, request: unknown, id?: unknown) =>
      guarded(event, id, async (signal) => manager.synthesize(requestOf(request), { signal })),
    'tts-stream': (event, request: unknown, id?: unknown) =>
      guarded(event, id, async (signal, sender) => {
        for await (const chunk of manager.synthesizeStream(requestOf(request), { signal })) {
          if (sender.isDestroyed()) break;
          sender.send('tts-chunk', id, chunk);
        }
        return { success: true };
      }),
    'tts-cancel': (event, id: unknown) => {
      const abort = running.get(`${(event as { sender?: Sender }).sender?.id}/${String(id)}`);
      abort?.abort(failure(ErrorCode.SYNTHESIS_FAILED, 'cancelled', 'cancelled by the renderer', false));
      return abort !== undefined;
    },
    'tts-status': () => manager.getStatus(),
    'tts-models': (event) => guarded(event, undefined, () => manager.getAvailableModels()),
    'tts-metrics': (event) => guarded(event, undefined, () => manager.getMetrics()),
  };
  for (const channel of CHANNELS) ipcMain.handle(channel, handlers[channel]);
  return () => {
    for (const channel of CHANNELS) ipcMain.removeHandler(channel);
    for (const abort of running.values()) abort.abort(failure(ErrorCode.SYNTHESIS_FAILED, 'cancelled', 'the application ends', false));
  };
}

/** A renderer is not trusted: what it asks for must look like a request. */
function requestOf(given: unknown): SynthesisRequest {
  const request = given as Partial<SynthesisRequest> | null;
  if (typeof request !== 'object' || request === null || typeof request.text !== 'string') {
    throw failure(ErrorCode.INVALID_REQUEST, 'malformed', 'a request is an object with a `text`', false, { field: 'text' });
  }
  if (request.outputPath !== undefined && typeof request.outputPath !== 'string') {
    throw failure(ErrorCode.INVALID_REQUEST, 'malformed', 'outputPath is a string', false, { field: 'outputPath' });
  }
  if (request.speakerClip !== undefined && typeof request.speakerClip !== 'string') {
    throw failure(ErrorCode.INVALID_REQUEST, 'malformed', 'speakerClip is a string', false, { field: 'speakerClip' });
  }
  return request as SynthesisRequest;
}

function refused(error: unknown): unknown {
  const known = error instanceof TTSError ? error : failure(ErrorCode.SYNTHESIS_FAILED, 'unknown', String(error), false);
  return { success: false, latencyMs: 0, error: known.toJSON() };
}

/** The manager's options in an Electron app: its caches below userData, a Python found on PATH. */
export function electronOptions(app: Pick<ElectronApp, 'getPath'>, env: NodeJS.ProcessEnv = process.env): TTSManagerOptions {
  const pythonPath = findPythonExecutable(env);
  return { cachePath: join(app.getPath('userData'), 'tts-cache'), ...(pythonPath ? { pythonPath } : {}) };
}

/** A Python for the engine: CHORUS_PYTHON, else the newest of those that Coqui runs on. */
export function findPythonExecutable(env: NodeJS.ProcessEnv = process.env): string | undefined {
  if (env['CHORUS_PYTHON']) return env['CHORUS_PYTHON'];
  const names = ['python3.12', 'python3.11', 'python3.13', 'python3.10', 'python3.14', 'python3'];
  return names.map((name) => findOnPath(name, env)).find((path) => path !== undefined);
}

/** The plan's integration: one manager for the app, its handlers, and an end that is waited for. */
export class ElectronTTSIntegration {
  readonly manager: TTSManager;
  readonly #app: ElectronApp;
  readonly #ipcMain: IpcMain;

  constructor(electron: { app: ElectronApp; ipcMain: IpcMain }, options: TTSManagerOptions = {}) {
    this.#app = electron.app;
    this.#ipcMain = electron.ipcMain;
    this.manager = new TTSManager({ ...electronOptions(electron.app, options.env), ...options });
  }

  async initializeWithElectron(): Promise<void> {
    const unregister = registerTtsIpc(this.#ipcMain, this.manager);
    let ending = false;
    this.#app.on('will-quit', (event) => {
      if (ending) return;
      ending = true;
      event.preventDefault();
      unregister();
      void this.manager.shutdown().finally(() => this.#app.quit());
    });
    await this.manager.initialize();
  }
}
