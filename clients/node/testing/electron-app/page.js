// The window's script: speaks, streams, gives up, asks, and reports what came through to here.
(async () => {
  const { tts } = globalThis;
  const chunks = [];
  tts.onChunk((id, { sequence, sampleRate, last, data }) =>
    chunks.push({ id, sequence, sampleRate, last, bytes: data instanceof Uint8Array ? data.byteLength : -1 }));
  const inline = await tts.speak({ text: 'From a window.' });
  const refused = await tts.speak({ text: 5 });
  const streamed = await tts.stream({ text: 'A stream. Of two sentences.' }, 'a');
  const long = tts.speak({ text: 'A sentence. '.repeat(3000) }, 'b');
  const cancelled = await tts.cancel('b');
  await tts.report({
    inline: { success: inline.success, riff: String.fromCharCode(...inline.audio.data.slice(0, 4)) },
    refused: refused.error,
    streamed,
    chunks,
    cancelled,
    given: (await long).error,
    state: (await tts.status()).state,
    models: await tts.models(),
    successes: (await tts.metrics()).successes,
  });
})().catch((error) => globalThis.tts.report({ failed: String(error) }));
