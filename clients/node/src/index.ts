/** Text to speech by a chorus fleet. */
export * from './contracts.js';
export { TTSError } from './errors.js';
export { ConfigMigrator, ConfigValidator, type LegacyConfig, type ValidationResult } from './config.js';
export { TTSManager, type TTSManagerOptions } from './manager.js';
export { BackwardCompatibilityLayer } from './legacy.js';
export type { NatsOptions } from './nats.js';
export type { RestartPolicy } from './gateway.js';
export { ElectronTTSIntegration, electronOptions, findPythonExecutable, registerTtsIpc } from './electron.js';
