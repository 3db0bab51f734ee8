// The CommonJS build: the same names, and a fleet that speaks.
const assert = require('node:assert/strict');
const { test } = require('node:test');
const tts = require('chorus-tts');
const electron = require('chorus-tts/electron');

test('the CommonJS build exports what the ES modules do, and speaks', async () => {
  const esm = await import('chorus-tts');
  assert.deepEqual(Object.keys(tts).sort(), Object.keys(esm).filter((name) => name !== 'default' && name !== 'module.exports').sort());
  assert.equal(typeof electron.registerTtsIpc, 'function');
  const manager = new tts.TTSManager({ args: ['--engine', 'null'], readyTimeoutMs: 120_000 });
  await manager.initialize();
  try {
    const result = await manager.synthesize({ text: 'From CommonJS.' });
    assert.equal(result.success, true, JSON.stringify(result.error));
  } finally {
    await manager.shutdown();
  }
});
