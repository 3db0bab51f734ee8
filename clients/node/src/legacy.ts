/** The single-process service's call in front of today's service: a text and a path, the old result, never a rejection. */
import type { ITTSService, LegacyResult } from './contracts.js';

export class BackwardCompatibilityLayer {
  readonly #modernService: Pick<ITTSService, 'synthesize'>;

  constructor(modernService: Pick<ITTSService, 'synthesize'>) {
    this.#modernService = modernService;
  }

  async synthesize(text: string, outputPath?: string): Promise<LegacyResult> {
    const begun = performance.now();
    try {
      const request = { text, priority: 'normal' as const, ...(outputPath ? { outputPath } : {}) };
      const result = await this.#modernService.synthesize(request);
      return {
        success: result.success,
        ...(result.outputPath ? { outputPath: result.outputPath } : {}),
        latencyMs: result.latencyMs,
        ...(result.error ? { error: result.error.message } : {}),
      };
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      return { success: false, latencyMs: performance.now() - begun, error: message };
    }
  }
}
