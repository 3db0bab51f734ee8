/**
 * The protocol on a pipe: envelopes as JSON lines (2.0) or as MessagePack frames (2.1), and their bounded decoder.
 *
 * A pipe begins with JSON lines; after a handshake that agreed on 2.1 everything is frames: a length of four bytes, big
 * endian, and a MessagePack map.
 */
import { decode, encode } from '@msgpack/msgpack';

export interface Envelope {
  version: string;
  messageId: string;
  timestamp: number;
  type: 'request' | 'response' | 'event' | 'error';
  payload: Record<string, unknown>;
  metadata?: { correlationId?: string; priority?: string; [more: string]: unknown };
}

export type Framing = 'lines' | 'frames';

/** The most that one message may have: 16 MiB of audio in base64, and its envelope. */
export const MAX_MESSAGE_BYTES = 32 * 1024 * 1024;

export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

export function encodeMessage(framing: Framing, message: Envelope): Uint8Array {
  if (framing === 'lines') return Buffer.from(JSON.stringify(message) + '\n', 'utf8');
  const body = encode(message, { ignoreUndefined: true });
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32BE(body.length, 0);
  frame.set(body, 4);
  return frame;
}

/** Bytes, whether they came as bytes (2.1) or as base64 (2.0). */
export function bytes(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value;
  if (typeof value === 'string') return Buffer.from(value, 'base64');
  return new Uint8Array(0);
}

/** Cuts a stream of bytes into messages. The framing may change between two messages. */
export class Decoder {
  framing: Framing = 'lines';
  readonly #limit: number;
  #chunks: Buffer[] = [];
  #size = 0;

  constructor(limit = MAX_MESSAGE_BYTES) {
    this.#limit = limit;
  }

  push(chunk: Uint8Array): void {
    this.#chunks.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    this.#size += chunk.byteLength;
  }

  /** The next whole message, if there is one; lines that are no envelope are skipped, for libraries print. */
  next(): Envelope | undefined {
    return this.framing === 'lines' ? this.#line() : this.#frame();
  }

  #line(): Envelope | undefined {
    for (;;) {
      const line = this.#takeLine();
      if (line === undefined) return undefined;
      try {
        const message: unknown = JSON.parse(line.toString('utf8'));
        if (isEnvelope(message)) return message;
      } catch {
        // Noise on a line of its own: what is no message cannot be answered.
      }
    }
  }

  #takeLine(): Buffer | undefined {
    let before = 0;
    for (const chunk of this.#chunks) {
      const end = chunk.indexOf(0x0a);
      if (end >= 0) {
        const line = this.#take(before + end + 1);
        return line.subarray(0, line.length - 1);
      }
      before += chunk.length;
    }
    this.#bound(before);
    return undefined;
  }

  #frame(): Envelope | undefined {
    if (this.#size < 4) return undefined;
    const length = this.#join().readUInt32BE(0);
    this.#bound(length);
    if (this.#size < 4 + length) return undefined;
    const message: unknown = decode(this.#take(4 + length).subarray(4));
    if (!isEnvelope(message)) throw new ProtocolError('a frame holds no envelope');
    return message;
  }

  #bound(size: number): void {
    if (size > this.#limit) throw new ProtocolError(`a message has over ${this.#limit} bytes`);
  }

  #join(): Buffer {
    if (this.#chunks.length > 1 && (this.#chunks[0]?.length ?? 0) < 4) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0] ?? Buffer.alloc(0);
  }

  #take(count: number): Buffer {
    const first = this.#chunks[0];
    const all = first && first.length >= count ? first : Buffer.concat(this.#chunks);
    const rest = all.subarray(count);
    if (all === first) {
      if (rest.length > 0) this.#chunks[0] = rest;
      else this.#chunks.shift();
    } else {
      this.#chunks = rest.length > 0 ? [rest] : [];
    }
    this.#size -= count;
    return all.subarray(0, count);
  }
}

function isEnvelope(value: unknown): value is Envelope {
  if (typeof value !== 'object' || value === null) return false;
  const message = value as Partial<Envelope>;
  return typeof message.type === 'string' && typeof message.payload === 'object' && message.payload !== null;
}
