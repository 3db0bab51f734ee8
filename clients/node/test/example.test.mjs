// The example in the package, as a user would write it.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { VoiceEngine } from '../examples/voice-engine.mjs';
import { ENV, temporary } from '../testing/support.mjs';

test('the voice engine speaks', async (t) => {
  const engine = new VoiceEngine({ args: ['--engine', 'null'], env: ENV, readyTimeoutMs: 120_000 });
  await engine.initialize();
  const outputPath = join(temporary(t), 'spoken.wav');
  const result = await engine.speak('Spoken.', outputPath);
  await engine.shutdown();
  assert.equal(result.success, true, JSON.stringify(result.error));
  assert.ok(existsSync(outputPath));
});
