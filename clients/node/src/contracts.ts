/**
 * The contracts of the service: the plan's `ITTSService` with its requests, results, errors and configuration, field for
 * field, and what chorus adds to them (marked so).
 */

export type Priority = 'low' | 'normal' | 'high';
export type OutputFormat = 'wav' | 'mp3' | 'ogg' | 'opus' | 'flac' | 'pcm';

/** In a text that comes in pieces: speak what has come, though its last sentence may not look complete. */
export const FLUSH: unique symbol = Symbol.for('chorus-tts.flush');

export interface SynthesisRequest {
  text: string;
  /** Added: `ssml` makes the text a document. */
  inputType?: 'text' | 'ssml';
  voice?: string;
  /**
   * Added: a recording of somebody's speech on this host, for models that can take on a voice; or a clip that is on the broker, as
   * `sha256:` and its digest.
   */
  speakerClip?: string;
  /** Added: a model of the catalogue. */
  model?: string;
  /** Added: for models that speak several. */
  language?: string;
  /** 0.25 to 4; 1 is the voice's own. */
  speed?: number;
  pitch?: number;
  outputFormat?: OutputFormat;
  /** Where the audio is written on this host; without it the audio is in the result. */
  outputPath?: string;
  priority?: Priority;
  metadata?: Record<string, unknown>;
  /** Added: milliseconds to first audio. */
  deadlineMs?: number;
  /** Added: the same seed gives the same take, where the model lets it. */
  seed?: number;
  /** Added: samples per second of the audio; the model's own without it. */
  sampleRate?: number;
  /** Added: a new take, though the same words may have been spoken before. */
  fresh?: boolean;
}

/** Pieces of a text in their order, such as a language model's tokens; a sentence is spoken as soon as it is complete. */
export type TextPieces = AsyncIterable<string | typeof FLUSH>;

export type StreamRequest = Omit<SynthesisRequest, 'outputPath' | 'text'> & {
  /** Added: or a text that is still to come. */
  text: string | TextPieces;
};

export enum ErrorCode {
  INITIALIZATION_FAILED = 'INIT_FAILED',
  MODEL_NOT_FOUND = 'MODEL_NOT_FOUND',
  SYNTHESIS_FAILED = 'SYNTHESIS_FAILED',
  TIMEOUT = 'TIMEOUT',
  RESOURCE_EXHAUSTED = 'RESOURCE_EXHAUSTED',
  INVALID_REQUEST = 'INVALID_REQUEST',
}

export interface ServiceError {
  code: ErrorCode;
  message: string;
  retryable: boolean;
  /** `reason` tells more than the code; `retryAfterMs` says when to ask again. */
  details?: Record<string, unknown>;
}

export interface SynthesisResult {
  success: boolean;
  requestId: string;
  outputPath?: string;
  /** Seconds of audio. */
  duration?: number;
  latencyMs: number;
  error?: ServiceError;
  metadata?: {
    modelUsed: string;
    workerUsed: string;
    cacheHit: boolean;
    [more: string]: unknown;
  };
  /** Added: the audio, when no outputPath was given. */
  audio?: { format: OutputFormat; sampleRate: number; data: Uint8Array };
}

/** One piece of a stream; all pieces together are one file of `format`. */
export interface AudioChunk {
  requestId: string;
  /** Counts from 0. */
  sequence: number;
  data: Uint8Array;
  format: OutputFormat;
  sampleRate: number;
  last: boolean;
}

/** The answer of the single-process service. */
export interface LegacyResult {
  success: boolean;
  outputPath?: string;
  latencyMs: number;
  error?: string;
}

export interface ModelStatus {
  name: string;
  default: boolean;
  aliases: string[];
  readyWorkers: number;
  queued: number;
}

export interface WorkerStatus {
  id: string;
  host: string;
  pid: number;
  engine: string;
  inFlight: number;
  jobsDone: number;
  jobsFailed: number;
  [more: string]: unknown;
}

export interface ServiceStatus {
  /** `stopped` before initialize and after shutdown; `starting` until a model can speak. */
  state: 'stopped' | 'starting' | 'ready' | 'degraded' | 'down';
  managers: Array<{ id: string; [more: string]: unknown }>;
  workers: WorkerStatus[];
  models: ModelStatus[];
  nats?: { url: string; version: string; maxPayload: number };
}

export interface ServiceMetrics {
  successes: number;
  clientFaults: number;
  backPressure: number;
  workerFaults: number;
  audioSeconds: number;
  engineSeconds: number;
  queueDepth: number;
  activeWorkers: number;
  p50Ms: number;
  p95Ms: number;
  p99Ms: number;
  [more: string]: unknown;
}

export interface WorkerPoolConfig {
  minWorkers: number;
  maxWorkers: number;
  scaleUpThreshold: number;
  scaleDownThreshold: number;
  workerTimeoutMs: number;
  modelSpecialization: boolean;
}

export interface CircuitBreakerConfig {
  failureThreshold: number;
  timeoutMs: number;
  resetTimeoutMs: number;
  successThreshold: number;
  slidingWindowSize: number;
}

export interface ServiceSLA {
  synthesis: {
    latency: { p50: number; p95: number; p99: number };
    throughput: { requestsPerSecond: number; concurrentRequests: number };
    availability: number;
  };
  models: { loadTime: number; switchTime: number };
  resources: { memoryUsageGB: number; cpuUsagePercent: number };
}

/** Each part of a type is optional. */
export type Sparse<T> = { [K in keyof T]?: T[K] extends object ? Sparse<T[K]> : T[K] };

/** The service's own configuration; what is not said is chorus's default. */
export interface TTSConfig {
  modelName?: string;
  cacheDir?: string;
  /** The same as cacheDir, as Electron apps call it. */
  cachePath?: string;
  pythonPath?: string;
  workerPool?: Partial<WorkerPoolConfig>;
  circuitBreaker?: Partial<CircuitBreakerConfig>;
  sla?: Sparse<ServiceSLA>;
}

export interface CallOptions {
  /** Cancels the call: it rejects with the signal's reason, and the fleet stops speaking it. */
  signal?: AbortSignal;
}

/** What happened in the fleet: `workerStarted`, `workerStopped`, `workerFailed`, `breaker`, … */
export interface FleetEvent {
  kind: string;
  workerId?: string;
  /** What went wrong, for `workerFailed`. */
  error?: string;
  message?: string;
  timestamp: number;
  details?: Record<string, unknown>;
}

export interface ITTSService {
  initialize(config?: TTSConfig): Promise<void>;
  shutdown(): Promise<void>;
  getStatus(): ServiceStatus;

  synthesize(request: SynthesisRequest, options?: CallOptions): Promise<SynthesisResult>;
  synthesizeStream(request: StreamRequest, options?: CallOptions): AsyncIterable<AudioChunk>;

  loadModel(modelName: string): Promise<void>;
  unloadModel(modelName: string): Promise<void>;
  getAvailableModels(): Promise<string[]>;

  getMetrics(): Promise<ServiceMetrics>;
  clearCache(): Promise<void>;
}
