// The plan's VoiceEngine: `node examples/voice-engine.mjs "Hello." hello.wav`
import { pathToFileURL } from 'node:url';
import { TTSManager } from 'chorus-tts';

export class VoiceEngine {
  /** @param {import('chorus-tts').TTSManagerOptions} options */
  constructor(options = {}) {
    this.options = options;
  }

  async initialize() {
    this.ttsManager = new TTSManager({
      workerPool: { minWorkers: 1, maxWorkers: 3, scaleUpThreshold: 5 },
      ...this.options,
    });
    await this.ttsManager.initialize();
  }

  async speak(text, outputPath) {
    return await this.ttsManager.synthesize({ text, outputPath, priority: 'normal' });
  }

  async shutdown() {
    await this.ttsManager.shutdown();
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [text = 'Hello from the voice engine.', outputPath = 'hello.wav'] = process.argv.slice(2);
  const engine = new VoiceEngine();
  await engine.initialize();
  try {
    const result = await engine.speak(text, outputPath);
    console.log(result.success ? `${result.outputPath}: ${result.duration} s` : result.error.message);
  } finally {
    await engine.shutdown();
  }
}
