/**
 * Plain requests straight to a fleet's broker: one question, one answer, by the official NATS client, which is loaded only
 * when this is used. Everything else (streams, models, metrics) needs a session and goes through `chorus stdio --nats`.
 */
import { createHash, randomUUID } from 'node:crypto';
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { ObjectStore } from '@nats-io/obj';
import type { NatsConnection } from '@nats-io/transport-node';
import { ErrorCode, type OutputFormat, type SynthesisRequest, type SynthesisResult } from './contracts.js';
import { aborted, failure } from './errors.js';

export interface NatsOptions {
  url: string;
  token?: string;
  user?: string;
  password?: string;
}

const CLIPS_BUCKET = 'tts-clips';
const MAX_CLIP_BYTES = 16 * 1024 * 1024;

/** How long a reply may take when the request says nothing: the fleet's own deadline, and its way here. */
const REPLY_MS = 35_000;

interface Reply extends Omit<SynthesisResult, 'audio'> {
  audio?: { format: OutputFormat; sampleRate: number; data?: string; bucket?: string; key?: string };
}

export class NatsRequests {
  readonly #connection: NatsConnection;

  private constructor(connection: NatsConnection) {
    this.#connection = connection;
  }

  static async connect({ url, token, user, password }: NatsOptions): Promise<NatsRequests> {
    const client = await import('@nats-io/transport-node').catch((cause: unknown) => {
      throw failure(ErrorCode.INITIALIZATION_FAILED, 'no_client', 'the NATS transport needs `npm install @nats-io/transport-node`', false, { cause: String(cause) });
    });
    const servers = url.split(',').map((server) => server.trim());
    try {
      return new NatsRequests(await client.connect({ servers, name: 'chorus-tts', ...(token ? { token } : {}), ...(user ? { user } : {}), ...(password ? { pass: password } : {}) }));
    } catch (error) {
      throw failure(ErrorCode.INITIALIZATION_FAILED, 'no_broker', `no broker answers at ${servers.join(', ')}: ${String(error)}`, true);
    }
  }

  async synthesize(request: SynthesisRequest, signal?: AbortSignal): Promise<SynthesisResult> {
    const { outputPath, ...rest } = request;
    const clip = rest.speakerClip;
    if (clip !== undefined && !clip.startsWith('sha256:')) rest.speakerClip = await unlessAborted(this.#keepClip(clip), signal);
    const asked = { ...rest, ...(outputPath && !rest.outputFormat ? { outputFormat: formatOf(outputPath) } : {}) };
    const reply = await this.#ask(asked, (request.deadlineMs ?? 0) + REPLY_MS, signal);
    if (!reply.success || !reply.audio) return { ...reply, audio: undefined };
    const data = await unlessAborted(this.#audio(reply.audio), signal);
    if (!outputPath) return { ...reply, audio: { format: reply.audio.format, sampleRate: reply.audio.sampleRate, data } };
    const path = resolve(outputPath);
    await write(path, data);
    return { ...reply, audio: undefined, outputPath: path };
  }

  async close(): Promise<void> {
    await this.#connection.close();
  }

  /** One that may be aborted travels under a name by which the fleet can be told to give it up. */
  async #ask(request: object, timeout: number, signal: AbortSignal | undefined): Promise<Reply> {
    if (!signal) return this.#request<Reply>(request, timeout);
    if (signal.aborted) throw aborted(signal);
    const named = envelope(request);
    const giveUp = (): void => {
      this.#connection.publish('tts.cancel', JSON.stringify(envelope({ messageId: named.messageId })));
    };
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      return (await unlessAborted(this.#request<{ payload: Reply }>(named, timeout), signal)).payload;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
  }

  async #request<T>(question: object, timeout: number): Promise<T> {
    try {
      const reply = await this.#connection.request('tts.synthesize', JSON.stringify(question), { timeout });
      return reply.json<T>();
    } catch (error) {
      const name = error instanceof Error ? error.name : '';
      if (name === 'NoRespondersError') throw failure(ErrorCode.RESOURCE_EXHAUSTED, 'no_manager', 'no manager answers on this broker', true);
      if (name === 'TimeoutError') throw failure(ErrorCode.TIMEOUT, 'attempt', 'the fleet did not answer in time', true);
      throw failure(ErrorCode.SYNTHESIS_FAILED, 'no_broker', `the request could not be carried: ${String(error)}`, true);
    }
  }

  /** Puts a recording where workers find it; one that was put there before is put there again, so that it does not run out. */
  async #keepClip(path: string): Promise<string> {
    const unusable = (why: unknown): Error =>
      failure(ErrorCode.INVALID_REQUEST, 'malformed', `the clip ${path} cannot be used: ${String(why)}`, false, { field: 'speakerClip' });
    const about = await stat(path).catch((error: unknown) => {
      throw unusable(error);
    });
    if (!about.isFile() || about.size === 0 || about.size > MAX_CLIP_BYTES) throw unusable(`a file of 1 to ${MAX_CLIP_BYTES} bytes is needed`);
    const clip = await readFile(path);
    const key = createHash('sha256').update(clip).digest('hex');
    const store = await this.#store(CLIPS_BUCKET);
    await store.putBlob({ name: key }, clip);
    return `sha256:${key}`;
  }

  async #store(bucket: string): Promise<ObjectStore> {
    const { Objm } = await import('@nats-io/obj').catch(() => {
      throw failure(ErrorCode.INITIALIZATION_FAILED, 'no_client', 'large audio and clips over NATS need `npm install @nats-io/obj`', false);
    });
    return new Objm(this.#connection).open(bucket);
  }

  /** Audio that does not fit into a message is an object. */
  async #audio(audio: NonNullable<Reply['audio']>): Promise<Uint8Array> {
    if (audio.data !== undefined) return Buffer.from(audio.data, 'base64');
    const store = await this.#store(audio.bucket ?? '');
    const data = await store.getBlob(audio.key ?? '');
    if (!data) throw failure(ErrorCode.SYNTHESIS_FAILED, 'audio_gone', 'the audio is not in its bucket any more', true);
    return data;
  }
}

function envelope(payload: object): { messageId: string } {
  const named = { version: '2.1.0', messageId: randomUUID(), timestamp: Date.now(), type: 'request', payload };
  return named;
}

function formatOf(path: string): OutputFormat {
  const extension = path.split('.').pop()?.toLowerCase() ?? '';
  const known: OutputFormat[] = ['wav', 'mp3', 'ogg', 'opus', 'flac', 'pcm'];
  return known.find((format) => format === extension) ?? 'wav';
}

/** Whole or not at all. */
async function write(path: string, data: Uint8Array): Promise<void> {
  const draft = `${path}.${randomUUID()}.part`;
  try {
    await writeFile(draft, data);
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw failure(ErrorCode.INVALID_REQUEST, 'output_path', `${path} cannot be written: ${String(error)}`, false);
  }
}

async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  work.catch(() => {});
  if (signal.aborted) throw aborted(signal);
  let abort = (): void => {};
  const cancelled = new Promise<never>((_resolve, reject) => {
    abort = () => reject(aborted(signal));
    signal.addEventListener('abort', abort, { once: true });
  });
  try {
    return await Promise.race([work, cancelled]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
