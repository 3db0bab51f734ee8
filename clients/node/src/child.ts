/**
 * One `chorus stdio` process: started, greeted, spoken with, ended.
 *
 * A child answers each call once, by the call's id; what is open when it dies is refused with a retryable error. Its stderr
 * is kept as a short tail, for the error. It ends with us: its stdin closes when this process dies.
 */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { ErrorCode } from './contracts.js';
import { aborted, failure, fromWire, TTSError } from './errors.js';
import { Decoder, encodeMessage, ProtocolError, type Envelope, type Framing } from './wire.js';

const ACCEPT = '>=2.0.0 <3.0.0';
const STDERR_TAIL = 4096;
/** What `shutdown` may take before SIGTERM, and SIGTERM before SIGKILL; the child gives its calls 10 s. */
const SHUTDOWN_MS = 12_000;
const TERMINATE_MS = 5_000;

export interface ChildConfig {
  binary: string;
  args: string[];
  env: NodeJS.ProcessEnv;
  helloTimeoutMs: number;
}

export interface Call {
  id: string;
  /** Settles with the answer's payload. */
  answer: Promise<Record<string, unknown>>;
}

interface Open {
  resolve(payload: Record<string, unknown>): void;
  reject(error: unknown): void;
  event?: (payload: Record<string, unknown>) => void;
}

export class GatewayChild {
  readonly version: string;
  readonly deprecations: unknown[];
  /** Resolves when the process has ended; never rejects. */
  readonly ended: Promise<TTSError>;
  onFleetEvent: (payload: Record<string, unknown>) => void = () => {};
  readonly #wire: Wire;

  private constructor(wire: Wire, hello: Record<string, unknown>) {
    this.#wire = wire;
    this.version = String(hello['version'] ?? '2.0.0');
    this.deprecations = Array.isArray(hello['deprecations']) ? hello['deprecations'] : [];
    this.ended = wire.ended;
    wire.onFleetEvent = (payload) => this.onFleetEvent(payload);
  }

  static async start(config: ChildConfig): Promise<GatewayChild> {
    const wire = new Wire(config);
    const timer = setTimeout(() => wire.kill('the handshake took too long'), config.helloTimeoutMs);
    try {
      const hello = await wire.call({ method: 'hello', accept: ACCEPT, client: 'chorus-tts/0.1.0' }).answer;
      return new GatewayChild(wire, hello);
    } catch (error) {
      wire.kill('the handshake failed');
      await wire.ended;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  get pid(): number | undefined {
    return this.#wire.pid;
  }

  call(payload: Record<string, unknown>, event?: (payload: Record<string, unknown>) => void): Call {
    return this.#wire.call(payload, event);
  }

  /** A call and its answer; an aborted signal cancels it there and rejects here at once. */
  async ask(payload: Record<string, unknown>, signal?: AbortSignal): Promise<Record<string, unknown>> {
    if (!signal) return this.call(payload).answer;
    if (signal.aborted) throw aborted(signal);
    const { id, answer } = this.call(payload);
    let abort = (): void => {};
    const cancelled = new Promise<never>((_resolve, reject) => {
      abort = () => {
        this.cancel(id);
        reject(aborted(signal));
      };
      signal.addEventListener('abort', abort, { once: true });
    });
    // Whichever loses the race is settled too, and nobody's.
    answer.catch(() => {});
    cancelled.catch(() => {});
    try {
      return await Promise.race([answer, cancelled]);
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  cancel(id: string): void {
    this.call({ method: 'cancel', messageId: id }).answer.catch(() => {});
  }

  grant(id: string, chunks: number): void {
    this.#wire.tell({ event: 'grant', messageId: id, chunks });
  }

  /** Asks it to finish; what does not end in time is ended. */
  async stop(): Promise<void> {
    this.call({ method: 'shutdown' }).answer.catch(() => {});
    await this.#wire.end();
  }
}

class Wire {
  readonly ended: Promise<TTSError>;
  onFleetEvent: (payload: Record<string, unknown>) => void = () => {};
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #open = new Map<string, Open>();
  readonly #decoder = new Decoder();
  #framing: Framing = 'lines';
  #hello: string | undefined;
  #stderr = '';
  #why: string | undefined;
  #end: TTSError | undefined;

  constructor(config: ChildConfig) {
    this.#child = spawn(config.binary, config.args, { env: config.env, stdio: ['pipe', 'pipe', 'pipe'] });
    this.ended = new Promise((resolve) => {
      const end = (how: string): void => {
        if (this.#end) return;
        this.#end = this.#lost(how);
        for (const open of this.#open.values()) open.reject(this.#end);
        this.#open.clear();
        resolve(this.#end);
      };
      this.#child.once('error', (error) => end(`cannot be started: ${error.message}`));
      // `close` comes when its last words were read, too.
      this.#child.once('close', (code, signal) => end(signal ? `was ended by ${signal}` : `ended with ${code}`));
    });
    this.#child.stdin.on('error', () => {}); // A broken pipe is followed by `close`.
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_TAIL);
    });
    this.#child.stdout.on('data', (chunk: Buffer) => this.#read(chunk));
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  call(payload: Record<string, unknown>, event?: (payload: Record<string, unknown>) => void): Call {
    const id = randomUUID();
    const answer = new Promise<Record<string, unknown>>((resolve, reject) => {
      if (this.#end) return reject(this.#end);
      this.#open.set(id, { resolve, reject, ...(event ? { event } : {}) });
      if (payload['method'] === 'hello') this.#hello = id;
      this.#write({ ...this.#envelope('request', payload), messageId: id });
    });
    return { id, answer };
  }

  tell(payload: Record<string, unknown>): void {
    if (!this.#end) this.#write(this.#envelope('event', payload));
  }

  kill(why: string): void {
    this.#why ??= why;
    this.#child.kill('SIGKILL');
  }

  async end(): Promise<void> {
    const terminate = setTimeout(() => this.#child.kill('SIGTERM'), SHUTDOWN_MS);
    const kill = setTimeout(() => this.#child.kill('SIGKILL'), SHUTDOWN_MS + TERMINATE_MS);
    try {
      await this.ended;
    } finally {
      clearTimeout(terminate);
      clearTimeout(kill);
    }
  }

  #envelope(type: Envelope['type'], payload: Record<string, unknown>): Envelope {
    const version = this.#framing === 'frames' ? '2.1.0' : '2.0.0';
    return { version, messageId: randomUUID(), timestamp: Date.now(), type, payload };
  }

  #write(message: Envelope): void {
    this.#child.stdin.write(encodeMessage(this.#framing, message));
  }

  #read(chunk: Buffer): void {
    this.#decoder.push(chunk);
    try {
      for (let message = this.#decoder.next(); message; message = this.#decoder.next()) this.#hear(message);
    } catch (error) {
      if (!(error instanceof ProtocolError)) this.kill(`an answer cannot be read: ${String(error)}`);
      else this.kill(error.message);
    }
  }

  #hear(message: Envelope): void {
    const id = message.metadata?.correlationId ?? '';
    const open = this.#open.get(id);
    if (message.type === 'event') {
      if (open?.event) open.event(message.payload);
      else if (message.payload['event'] === 'fleet') this.onFleetEvent(message.payload);
      return;
    }
    if (!open) return;
    this.#open.delete(id);
    if (id === this.#hello && message.type === 'response' && message.payload['version'] === '2.1.0') {
      this.#framing = 'frames';
      this.#decoder.framing = 'frames';
    }
    if (message.type === 'response') open.resolve(message.payload);
    else open.reject(fromWire(message.payload));
  }

  #lost(how: string): TTSError {
    const tail = this.#stderr.trim().split('\n').slice(-5).join('\n');
    const message = `chorus stdio ${this.#why ?? how}${tail ? `: ${tail}` : ''}`;
    const started = how.startsWith('cannot be started') ? ErrorCode.INITIALIZATION_FAILED : ErrorCode.SYNTHESIS_FAILED;
    return failure(started, 'gateway_lost', message, started === ErrorCode.SYNTHESIS_FAILED, { stderr: tail });
  }
}
