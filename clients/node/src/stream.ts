/**
 * A stream of audio as an async iterable with back-pressure: the fleet may send so many chunks ahead, and each chunk that is
 * taken asks for one more. A consumer that stops taking stops the asking; one that leaves early cancels.
 */
import type { GatewayChild } from './child.js';
import type { AudioChunk, CallOptions, OutputFormat, StreamRequest } from './contracts.js';
import { aborted, fromWire } from './errors.js';
import type { Gateway } from './gateway.js';
import { bytes } from './wire.js';

/** Chunks sent ahead of the consumer: 64 KiB at most each. */
export const WINDOW = 4;

export async function* streamOf(
  gateway: () => Promise<Gateway>,
  request: StreamRequest,
  { signal }: CallOptions = {},
): AsyncGenerator<AudioChunk, void, undefined> {
  if (signal?.aborted) throw aborted(signal);
  const child = await (await gateway()).child(signal);
  const incoming = new Incoming(child, request, signal);
  try {
    for (;;) {
      const chunk = await incoming.next();
      if (!chunk) return;
      yield chunk;
    }
  } finally {
    incoming.leave();
  }
}

class Incoming {
  readonly #child: GatewayChild;
  readonly #id: string;
  readonly #signal: AbortSignal | undefined;
  readonly #queue: AudioChunk[] = [];
  #wake: () => void = () => {};
  #end: { error?: unknown } | undefined;
  readonly #abort = (): void => this.#finish({ error: aborted(this.#signal as AbortSignal) });

  constructor(child: GatewayChild, request: StreamRequest, signal: AbortSignal | undefined) {
    this.#child = child;
    this.#signal = signal;
    const payload = { ...request, method: 'synthesizeStream', window: WINDOW };
    const { id, answer } = child.call(payload, (event) => this.#hear(event));
    this.#id = id;
    answer.then(
      (result) => this.#finish(result['success'] === false ? { error: fromWire(result['error']) } : {}),
      (error: unknown) => this.#finish({ error }),
    );
    signal?.addEventListener('abort', this.#abort, { once: true });
  }

  async next(): Promise<AudioChunk | undefined> {
    for (;;) {
      const chunk = this.#queue.shift();
      if (chunk && !this.#signal?.aborted) {
        if (!this.#end) this.#child.grant(this.#id, 1);
        return chunk;
      }
      if (this.#end) {
        if ('error' in this.#end) throw this.#end.error;
        return undefined;
      }
      await new Promise<void>((wake) => (this.#wake = wake));
    }
  }

  /** The consumer is gone; what is still on its way is not wanted. */
  leave(): void {
    this.#signal?.removeEventListener('abort', this.#abort);
    this.#queue.length = 0;
    const over = this.#end && !this.#signal?.aborted;
    if (!over) this.#child.cancel(this.#id);
  }

  #hear(event: Record<string, unknown>): void {
    if (event['event'] !== 'audio' || this.#end) return;
    this.#queue.push({
      requestId: String(event['requestId'] ?? this.#id),
      sequence: Number(event['sequence']),
      data: bytes(event['data']),
      format: event['format'] as OutputFormat,
      sampleRate: Number(event['sampleRate']),
      last: event['last'] === true,
    });
    this.#wake();
  }

  #finish(end: { error?: unknown }): void {
    this.#end ??= end;
    this.#wake();
  }
}
