/**
 * `TTSManager`: the plan's service for Node, in front of a `chorus stdio` child (a fleet of its own, or a remote one).
 *
 * A request that failed *resolves* with `success: false`, as the plan has it; a call that could not be carried (the gateway
 * died, nothing was initialized, the signal was aborted) *rejects*.
 */
import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { findChorus } from './binary.js';
import { ConfigValidator, environmentOf } from './config.js';
import { ErrorCode, type AudioChunk, type CallOptions, type FleetEvent, type ITTSService, type LegacyResult, type ServiceMetrics, type ServiceStatus, type StreamRequest, type SynthesisRequest, type SynthesisResult, type TTSConfig } from './contracts.js';
import { failure, TTSError } from './errors.js';
import { Gateway, stopped, type RestartPolicy } from './gateway.js';
import { BackwardCompatibilityLayer } from './legacy.js';
import { NatsRequests, type NatsOptions } from './nats.js';
import { streamOf } from './stream.js';
import { bytes } from './wire.js';

export interface TTSManagerOptions extends TTSConfig {
  /** The program `chorus`; CHORUS_BIN, or the one on PATH, without it. */
  binary?: string;
  /** A fleet that is there; without it the manager starts one of its own. A string is the broker's address. */
  nats?: string | NatsOptions;
  /** `stdio` (default): all through the child. `nats`: requests go straight to the broker; needs `nats`. */
  transport?: 'stdio' | 'nats';
  /** More arguments for `chorus stdio`, such as `['--engine', 'null']`. */
  args?: string[];
  /** The child's environment; this process's without it. */
  env?: NodeJS.ProcessEnv;
  /** How long initialize waits for a model that can speak. A first start may have to install the engine. */
  readyTimeoutMs?: number;
  helloTimeoutMs?: number;
  restart?: Partial<RestartPolicy>;
}

const STOPPED: ServiceStatus = { state: 'stopped', managers: [], workers: [], models: [] };
const READY_MS = 300_000;
const HELLO_MS = 30_000;
/** How old the status that getStatus tells may be. */
const STATUS_EVERY_MS = 1_000;
const ASK_EVERY_MS = 100;

/**
 * Emits the fleet's events by their kind (`workerStarted`, `workerStopped`, `workerFailed`, …; FleetEvent) and every one of
 * them as `fleetEvent`; its own: `gatewayLost` (TTSError), `gatewayRestarted`, `gatewayFailed` (TTSError).
 */
export class TTSManager extends EventEmitter implements ITTSService {
  #options: TTSManagerOptions;
  #gateway: Gateway | undefined;
  #nats: NatsRequests | undefined;
  #status: ServiceStatus = STOPPED;
  #watch: NodeJS.Timeout | undefined;
  readonly #legacy = new BackwardCompatibilityLayer(this);

  constructor(options: TTSManagerOptions = {}) {
    super();
    this.#options = options;
  }

  /** Starts the gateway and waits until a model can speak. */
  async initialize(config: TTSConfig = {}): Promise<void> {
    if (this.#gateway) throw failure(ErrorCode.INITIALIZATION_FAILED, 'initialized', 'the TTSManager is initialized already', false);
    this.#options = { ...this.#options, ...config };
    const gateway = this.#makeGateway();
    this.#gateway = gateway;
    try {
      await gateway.start();
      await this.#ready(gateway);
      if (this.#options.transport === 'nats') this.#nats = await NatsRequests.connect(natsOf(this.#options));
      this.#watch = setInterval(() => void this.refreshStatus().catch(() => {}), STATUS_EVERY_MS);
      this.#watch.unref();
    } catch (error) {
      await this.shutdown();
      throw asInitialization(error);
    }
  }

  /** Lets what is in flight end, and leaves no process behind. */
  async shutdown(): Promise<void> {
    const [gateway, nats] = [this.#gateway, this.#nats];
    this.#gateway = undefined;
    this.#nats = undefined;
    clearInterval(this.#watch);
    await Promise.all([gateway?.stop(), nats?.close()]);
    this.#status = STOPPED;
  }

  /** As it was within the last second; see refreshStatus. */
  getStatus(): ServiceStatus {
    return this.#status;
  }

  /** As it is now. */
  async refreshStatus(): Promise<ServiceStatus> {
    const gateway = this.#running();
    const status = (await this.#ask({ method: 'status' })) as unknown as ServiceStatus;
    if (gateway === this.#gateway) this.#status = status;
    return status;
  }

  synthesize(request: SynthesisRequest, options?: CallOptions): Promise<SynthesisResult>;
  /** The single-process service's call, with its result; never rejects. */
  synthesize(text: string, outputPath?: string): Promise<LegacyResult>;
  synthesize(what: SynthesisRequest | string, more?: CallOptions | string): Promise<SynthesisResult | LegacyResult> {
    if (typeof what === 'string') return this.#legacy.synthesize(what, more as string | undefined);
    return this.#synthesize(what, (more ?? {}) as CallOptions);
  }

  synthesizeStream(request: StreamRequest, options?: CallOptions): AsyncGenerator<AudioChunk, void, undefined> {
    return streamOf(async () => this.#running(), request, options);
  }

  /** Puts a model into the catalogue and waits until a worker can speak it. */
  async loadModel(modelName: string, { signal }: CallOptions = {}): Promise<void> {
    const { name } = (await this.#ask({ method: 'loadModel', model: modelName }, signal)) as { name?: string };
    const asked = name ?? modelName;
    const deadline = Date.now() + (this.#options.readyTimeoutMs ?? READY_MS);
    while (Date.now() < deadline) {
      const { models, workers } = await this.refreshStatus();
      if (models.some((model) => model.name === asked && model.readyWorkers > 0)) return;
      const states = workers.flatMap((worker) => (worker['models'] ?? []) as Array<{ name: string; state: string; error?: string }>);
      const failed = states.find((model) => model.name === asked && model.state === 'failed');
      if (failed) throw failure(ErrorCode.INITIALIZATION_FAILED, 'load_failed', `the model ${asked} did not load: ${failed.error ?? 'the engine does not say why'}`, false);
      await sleep(ASK_EVERY_MS, undefined, signal ? { signal } : {});
    }
    throw failure(ErrorCode.TIMEOUT, 'load', `no worker has loaded the model ${asked} in time`, true);
  }

  async unloadModel(modelName: string): Promise<void> {
    await this.#ask({ method: 'unloadModel', model: modelName, remove: true });
  }

  async getAvailableModels(): Promise<string[]> {
    const { models } = (await this.#ask({ method: 'listModels' })) as { models?: Array<{ name: string }> };
    return (models ?? []).map((model) => model.name);
  }

  async getMetrics(): Promise<ServiceMetrics> {
    return (await this.#ask({ method: 'metrics' })) as unknown as ServiceMetrics;
  }

  async clearCache(): Promise<void> {
    await this.#ask({ method: 'clearCache' });
  }

  async #synthesize(request: SynthesisRequest, { signal }: CallOptions): Promise<SynthesisResult> {
    this.#running();
    if (this.#nats) return this.#nats.synthesize(request, signal);
    const result = (await this.#ask({ ...request, method: 'synthesize' }, signal)) as unknown as SynthesisResult;
    if (result.audio) result.audio.data = bytes(result.audio.data);
    return result;
  }

  async #ask(payload: Record<string, unknown>, signal?: AbortSignal): Promise<Record<string, unknown>> {
    const child = await this.#running().child(signal);
    return child.ask(payload, signal);
  }

  #running(): Gateway {
    if (!this.#gateway) throw stopped();
    return this.#gateway;
  }

  #makeGateway(): Gateway {
    const options = this.#options;
    const { valid, errors } = new ConfigValidator().validate(options);
    if (!valid) throw failure(ErrorCode.INVALID_REQUEST, 'configuration', `the configuration is wrong: ${errors.join('; ')}`, false, { errors });
    const env: NodeJS.ProcessEnv = { ...(options.env ?? process.env), ...environmentOf(options) };
    const nats = options.nats || options.transport === 'nats' ? natsOf(options) : undefined;
    const set = (name: string, value: string | undefined): void => void (value && (env[name] = value));
    // In the environment, where no list of processes shows it.
    set('CHORUS_NATS_TOKEN', nats?.token);
    set('CHORUS_NATS_USER', nats?.user);
    set('CHORUS_NATS_PASSWORD', nats?.password);
    const args = ['stdio', ...(nats ? ['--nats', nats.url] : []), ...(options.args ?? [])];
    const helloTimeoutMs = options.helloTimeoutMs ?? HELLO_MS;
    const gateway = new Gateway({ binary: findChorus(options.binary, env), args, env, helloTimeoutMs }, options.restart);
    gateway.on('event', (payload: Record<string, unknown>) => this.#tell(payload));
    gateway.on('lost', (error: TTSError) => this.emit('gatewayLost', error));
    gateway.on('restarted', (pid: number) => this.emit('gatewayRestarted', pid));
    gateway.on('failed', (error: TTSError) => this.emit('gatewayFailed', error));
    return gateway;
  }

  async #ready(gateway: Gateway): Promise<void> {
    const limit = this.#options.readyTimeoutMs ?? READY_MS;
    const deadline = Date.now() + limit;
    while (Date.now() < deadline) {
      if (gateway !== this.#gateway) throw stopped();
      const status = await this.refreshStatus().catch((error: unknown) => this.#unlessRetryable(error));
      if (status?.models.some((model) => model.readyWorkers > 0)) return;
      await sleep(ASK_EVERY_MS);
    }
    throw failure(ErrorCode.INITIALIZATION_FAILED, 'not_ready', `no model can speak after ${limit} ms`, true);
  }

  /** While a fleet comes up a manager may not answer yet; a gateway that died is no such case. */
  #unlessRetryable(error: unknown): undefined {
    if (!(error instanceof TTSError) || !error.retryable || error.reason === 'gateway_lost') throw error;
    return undefined;
  }

  #tell(payload: Record<string, unknown>): void {
    const event: FleetEvent = {
      kind: String(payload['kind'] ?? 'unknown'),
      timestamp: Date.now(),
      ...(typeof payload['workerId'] === 'string' ? { workerId: payload['workerId'] } : {}),
      ...(typeof payload['message'] === 'string' ? { message: payload['message'] } : {}),
      ...(payload['details'] ? { details: payload['details'] as Record<string, unknown> } : {}),
    };
    if (event.kind === 'workerFailed' && event.message) event.error = event.message;
    this.emit('fleetEvent', event);
    // An EventEmitter throws at an `error` that nobody listens to.
    if (event.kind !== 'error') this.emit(event.kind, event);
  }
}

/** A gateway that is lost before it was ready is one that could not be initialized. */
function asInitialization(error: unknown): unknown {
  if (!(error instanceof TTSError) || error.reason !== 'gateway_lost') return error;
  return new TTSError({ ...error.toJSON(), code: ErrorCode.INITIALIZATION_FAILED }, { cause: error });
}

function natsOf({ nats }: TTSManagerOptions): NatsOptions {
  if (!nats) throw failure(ErrorCode.INVALID_REQUEST, 'configuration', 'the transport `nats` needs the option `nats`', false);
  return typeof nats === 'string' ? { url: nats } : nats;
}
