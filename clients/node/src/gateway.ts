/**
 * The gateway as a service: one `chorus stdio` child at a time, begun again when it dies.
 *
 * Restarts wait longer each time and are bounded; a child that has lived for a while earns the whole number back. Calls made
 * while there is none wait for the next, so a restart costs them time only; calls that were open are refused, retryable,
 * because whether they were spoken is not known.
 */
import { EventEmitter } from 'node:events';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { GatewayChild, type ChildConfig } from './child.js';
import { ErrorCode } from './contracts.js';
import { aborted, failure, TTSError } from './errors.js';

export interface RestartPolicy {
  /** Milliseconds before the first restart; doubles with each. */
  initialDelayMs: number;
  maxDelayMs: number;
  /** Restarts in a row. */
  maxRestarts: number;
  /** A child that lived so long is not counted among them. */
  steadyAfterMs: number;
}

export const USUAL_RESTARTS: RestartPolicy = {
  initialDelayMs: 100,
  maxDelayMs: 5_000,
  maxRestarts: 5,
  steadyAfterMs: 30_000,
};

/** Emits `event` (fleet events), `lost` (TTSError), `restarted` (pid), `failed` (TTSError). */
export class Gateway extends EventEmitter {
  readonly #config: ChildConfig;
  readonly #policy: RestartPolicy;
  readonly #stopping = new AbortController();
  #child: Promise<GatewayChild> | undefined;
  #keeping: Promise<void> | undefined;

  constructor(config: ChildConfig, policy: Partial<RestartPolicy> = {}) {
    super();
    this.#config = config;
    this.#policy = { ...USUAL_RESTARTS, ...policy };
  }

  /** Starts the first child; a binary that is not there is told at once. */
  async start(): Promise<GatewayChild> {
    if (this.#stopping.signal.aborted) throw stopped();
    if (this.#child) return this.#child;
    this.#child = this.#begin();
    try {
      const child = await this.#child;
      this.#keeping = this.#keep(child);
      return child;
    } catch (error) {
      this.#child = undefined;
      throw error;
    }
  }

  /** The child, or the next one. */
  async child(signal?: AbortSignal): Promise<GatewayChild> {
    if (!this.#child || this.#stopping.signal.aborted) throw stopped();
    if (!signal) return this.#child;
    if (signal.aborted) throw aborted(signal);
    let abort = (): void => {};
    const cancelled = new Promise<never>((_resolve, reject) => {
      abort = () => reject(aborted(signal));
      signal.addEventListener('abort', abort, { once: true });
    });
    try {
      return await Promise.race([this.#child, cancelled]);
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  async stop(): Promise<void> {
    // What was asked for in this turn of the loop is on its way first, and is still answered.
    await turn();
    this.#stopping.abort();
    const child = await this.#child?.catch(() => undefined);
    await child?.stop();
    await this.#keeping;
  }

  async #begin(): Promise<GatewayChild> {
    const child = await GatewayChild.start(this.#config);
    child.onFleetEvent = (payload) => this.emit('event', payload);
    // Heard by who asks for it; a gateway that cannot tell events can still speak.
    child.call({ method: 'subscribe' }).answer.catch(() => {});
    return child;
  }

  async #keep(first: GatewayChild): Promise<void> {
    let child = first;
    let restarts = 0;
    for (;;) {
      const begun = Date.now();
      const why = await child.ended;
      if (this.#stopping.signal.aborted) return;
      if (Date.now() - begun >= this.#policy.steadyAfterMs) restarts = 0;
      const next = deferred<GatewayChild>();
      this.#child = next.promise;
      this.emit('lost', why);
      const begunAgain = await this.#restart(restarts, why);
      if (begunAgain instanceof TTSError) {
        next.reject(begunAgain);
        if (!this.#stopping.signal.aborted) this.emit('failed', begunAgain);
        return;
      }
      restarts = begunAgain.restarts;
      child = begunAgain.child;
      next.resolve(child);
      if (!this.#stopping.signal.aborted) this.emit('restarted', child.pid);
    }
  }

  async #restart(before: number, why: TTSError): Promise<{ child: GatewayChild; restarts: number } | TTSError> {
    let last = why;
    for (let restarts = before + 1; restarts <= this.#policy.maxRestarts; restarts++) {
      const delay = Math.min(this.#policy.initialDelayMs * 2 ** (restarts - 1), this.#policy.maxDelayMs);
      try {
        await sleep(delay * (0.5 + Math.random() / 2), undefined, { signal: this.#stopping.signal });
        return { child: await this.#begin(), restarts };
      } catch (error) {
        if (this.#stopping.signal.aborted) return stopped();
        last = error instanceof TTSError ? error : last;
      }
    }
    const message = `chorus stdio was begun ${this.#policy.maxRestarts + 1} times and did not stay: ${last.message}`;
    return failure(ErrorCode.INITIALIZATION_FAILED, 'gateway_failed', message, false, { stderr: last.details?.['stderr'] });
  }
}

export function stopped(): TTSError {
  return failure(ErrorCode.INITIALIZATION_FAILED, 'not_initialized', 'the TTSManager is not initialized, or was shut down', false);
}

function deferred<T>(): { promise: Promise<T>; resolve(value: T): void; reject(error: unknown): void } {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => ([resolve, reject] = [yes, no]));
  // Whoever waits for it hears of a failure; when nobody does it is no failure of the process.
  promise.catch(() => {});
  return { promise, resolve, reject };
}
