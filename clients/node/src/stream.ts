/**
 * A stream of audio as an async iterable with back-pressure: the fleet may send so many chunks ahead, and each chunk that is
 * taken asks for one more. A consumer that stops taking stops the asking; one that leaves early cancels.
 *
 * Its text may come in pieces, with back-pressure the other way: so many pieces are sent ahead of the fleet's answers to them.
 */
import type { GatewayChild } from './child.js';
import { ErrorCode, FLUSH, type AudioChunk, type CallOptions, type OutputFormat, type StreamRequest, type TextPieces } from './contracts.js';
import { aborted, failure, fromWire } from './errors.js';
import type { Gateway } from './gateway.js';
import { bytes } from './wire.js';

/** Chunks sent ahead of the consumer: 64 KiB at most each. */
export const WINDOW = 4;

/** Pieces of a text sent ahead of their answers; the gateway takes 64. */
const PIECES_AHEAD = 16;
/** A piece's length in UTF-16 units: at most three bytes each, of the 64 KiB that the gateway takes. */
const PIECE_LENGTH = 16_384;
/** A text up to this length, in UTF-16 units, goes in one message; a longer one may not fit into it and goes in pieces. */
const WHOLE_LENGTH = 65_536;

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
  #unanswered = 0;
  #room: () => void = () => {};
  /** Told when all is over. */
  readonly #over: Array<() => void> = [];
  #end: { error?: unknown } | undefined;
  readonly #abort = (): void => this.#finish({ error: aborted(this.#signal as AbortSignal) });

  constructor(child: GatewayChild, request: StreamRequest, signal: AbortSignal | undefined) {
    this.#child = child;
    this.#signal = signal;
    const { text, ...rest } = request;
    const isLong = typeof text === 'string' && text.length > WHOLE_LENGTH && rest.inputType !== 'ssml';
    const pieces = typeof text !== 'string' ? text : isLong ? alone(text) : undefined;
    const payload = { ...rest, ...(pieces ? { text: '', textComes: true } : { text }), method: 'synthesizeStream', window: WINDOW };
    const { id, answer } = child.call(payload, (event) => this.#hear(event));
    this.#id = id;
    answer.then(
      (result) => this.#finish(result['success'] === false ? { error: fromWire(result['error']) } : {}),
      (error: unknown) => this.#finish({ error }),
    );
    signal?.addEventListener('abort', this.#abort, { once: true });
    if (pieces) void this.#write(pieces);
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
    this.#finish({});
  }

  /** Hands the text on as it comes, until it ends or nobody listens any more. */
  async #write(pieces: TextPieces): Promise<void> {
    let iterator: AsyncIterator<string | typeof FLUSH> | undefined;
    try {
      iterator = pieces[Symbol.asyncIterator]();
      const told = iterator;
      this.#over.push(() => void told.return?.().catch(() => {}));
      for (;;) {
        const next = await iterator.next();
        if (this.#end) return;
        if (next.done) break;
        for (const message of messagesOf(next.value)) await this.#send(message);
      }
      await this.#send({ method: 'end' });
    } catch (error) {
      if (this.#end) return;
      this.#finish({ error });
      this.#child.cancel(this.#id);
    }
  }

  async #send(message: Record<string, unknown>): Promise<void> {
    while (this.#unanswered >= PIECES_AHEAD && !this.#end) await new Promise<void>((room) => (this.#room = room));
    if (this.#end) return;
    this.#unanswered += 1;
    const answered = (): void => {
      this.#unanswered -= 1;
      this.#room();
    };
    // A piece that is refused ends the request, whose own answer says why.
    this.#child.call({ ...message, messageId: this.#id }).answer.then(answered, answered);
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
    const first = !this.#end;
    this.#end ??= end;
    this.#wake();
    this.#room();
    if (first) for (const tell of this.#over.splice(0)) tell();
  }
}

async function* alone(text: string): AsyncGenerator<string> {
  yield text;
}

/** A piece of a text as what is sent. */
function messagesOf(piece: unknown): Array<Record<string, unknown>> {
  if (piece === FLUSH) return [{ method: 'flush' }];
  if (typeof piece !== 'string') {
    throw failure(ErrorCode.INVALID_REQUEST, 'malformed', 'text: a piece is a string or FLUSH', false, { field: 'text' });
  }
  const messages: Array<Record<string, unknown>> = [];
  for (let at = 0; at < piece.length; ) {
    let end = Math.min(at + PIECE_LENGTH, piece.length);
    // Not in the middle of a character.
    if (end < piece.length && /[\uD800-\uDBFF]/.test(piece.charAt(end - 1))) end -= 1;
    messages.push({ method: 'text', text: piece.slice(at, end) });
    at = end;
  }
  return messages;
}
