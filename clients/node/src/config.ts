/**
 * The configuration: validated here with every error at once, and handed to chorus as environment variables, the same that
 * its own documentation names. `ConfigMigrator` and `ConfigValidator` are the plan's.
 */
import type { TTSConfig } from './contracts.js';

export interface ValidationResult {
  valid: boolean;
  errors: string[];
}

export class ConfigValidator {
  validate(config: TTSConfig): ValidationResult {
    const errors: string[] = [];
    const demand = (holds: boolean, error: string): void => void (holds || errors.push(error));
    const pool = config.workerPool ?? {};
    const breaker = config.circuitBreaker ?? {};
    const latency = config.sla?.synthesis?.latency ?? {};
    const whole = (value: number | undefined, least: number, name: string): void =>
      demand(value === undefined || (Number.isSafeInteger(value) && value >= least), `${name} must be a whole number of at least ${least}`);
    whole(pool.minWorkers, 1, 'workerPool.minWorkers');
    whole(pool.maxWorkers, 1, 'workerPool.maxWorkers');
    demand((pool.minWorkers ?? 1) <= (pool.maxWorkers ?? Infinity), 'minWorkers cannot exceed maxWorkers');
    whole(pool.scaleUpThreshold, 1, 'workerPool.scaleUpThreshold');
    whole(pool.scaleDownThreshold, 1000, 'workerPool.scaleDownThreshold');
    whole(pool.workerTimeoutMs, 1000, 'workerPool.workerTimeoutMs');
    const rate = breaker.failureThreshold;
    demand(rate === undefined || (rate > 0 && rate <= 1), 'circuitBreaker.failureThreshold must be a rate over 0, up to 1');
    demand(breaker.timeoutMs === undefined || breaker.timeoutMs >= 1000, 'Circuit breaker timeout must be at least 1000ms');
    whole(breaker.timeoutMs, 1, 'circuitBreaker.timeoutMs');
    whole(breaker.resetTimeoutMs, 1, 'circuitBreaker.resetTimeoutMs');
    whole(breaker.successThreshold, 1, 'circuitBreaker.successThreshold');
    whole(breaker.slidingWindowSize, 1, 'circuitBreaker.slidingWindowSize');
    const [p50, p95, p99] = [latency.p50 ?? 150, latency.p95 ?? 300, latency.p99 ?? 500];
    demand(p50 <= p95 && p95 <= p99, 'sla.synthesis.latency: p50, p95 and p99 must not fall');
    demand(!config.cacheDir || !config.cachePath || config.cacheDir === config.cachePath, 'cacheDir and cachePath are the same setting');
    return { valid: errors.length === 0, errors };
  }
}

/** The old service's configuration. */
export interface LegacyConfig {
  ttsModel?: string;
  ttsCacheDir?: string;
  [more: string]: unknown;
}

export class ConfigMigrator {
  migrateConfig(legacyConfig: LegacyConfig): TTSConfig {
    return {
      modelName: legacyConfig.ttsModel || 'default',
      ...(legacyConfig.ttsCacheDir ? { cacheDir: legacyConfig.ttsCacheDir } : {}),
      workerPool: { minWorkers: 1, maxWorkers: 3, scaleUpThreshold: 5, scaleDownThreshold: 30_000 },
      circuitBreaker: {
        failureThreshold: 0.5,
        timeoutMs: 10_000,
        resetTimeoutMs: 60_000,
        successThreshold: 3,
        slidingWindowSize: 10,
      },
    };
  }
}

/** What chorus is told: `workerPool.minWorkers` becomes `CHORUS_WORKER_POOL_MIN_WORKERS`. */
export function environmentOf(config: TTSConfig): Record<string, string> {
  const found: Record<string, string> = {};
  const set = (name: string, value: unknown): void => {
    if (value !== undefined && value !== null && value !== '') found[name] = String(value);
  };
  if (config.modelName !== 'default') set('CHORUS_MODEL_NAME', config.modelName);
  set('CHORUS_CACHE_DIR', config.cacheDir ?? config.cachePath);
  set('CHORUS_PYTHON', config.pythonPath);
  const walk = (name: string, value: unknown): void => {
    if (typeof value !== 'object' || value === null) return set(name, value);
    for (const [key, inner] of Object.entries(value)) walk(`${name}_${snake(key)}`, inner);
  };
  walk('CHORUS_WORKER_POOL', config.workerPool);
  walk('CHORUS_CIRCUIT_BREAKER', config.circuitBreaker);
  walk('CHORUS_SLA', config.sla);
  return found;
}

/** `memoryUsageGB` → `MEMORY_USAGE_GB`. */
function snake(name: string): string {
  return name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase();
}
