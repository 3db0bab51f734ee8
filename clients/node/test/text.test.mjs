// A text that comes in pieces, as from a language model, and the voice of a recording.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { FLUSH, TTSError } from 'chorus-tts';
import { managerOf, temporary } from '../testing/support.mjs';

const manager = managerOf({ engine: 'checkable' });
before(() => manager.initialize());
after(() => manager.shutdown());

/** A promise, and what settles it. */
function signal() {
  let tell;
  const told = new Promise((resolve) => (tell = resolve));
  return { told, tell };
}

async function collected(stream, heard = () => {}) {
  const pieces = [];
  for await (const chunk of stream) {
    pieces.push(chunk.data);
    heard(chunk);
  }
  return Buffer.concat(pieces);
}

async function* tokens(text) {
  for (const token of text.match(/\S+\s*/g)) yield token;
}

test('tokens say what the whole text says', async () => {
  const text = 'The first sentence is here. And here, after some words, is another! A third? '.repeat(20) + 'Without an end';
  const whole = await collected(manager.synthesizeStream({ text }));
  const inPieces = await collected(manager.synthesizeStream({ text: tokens(text) }));
  assert.ok(inPieces.length > 1_000_000 && inPieces.equals(whole), `${inPieces.length} and ${whole.length} bytes`);
  const atOnce = await collected(manager.synthesizeStream({ text: (async function* () { yield text; })() }));
  assert.ok(atOnce.equals(whole));
});

test('a sentence is spoken as soon as it is complete, and what is flushed though it is not', async () => {
  const [first, second] = [signal(), signal()];
  async function* slow() {
    yield 'The first sentence is complete. ';
    yield 'And the second is';
    await first.told;
    yield FLUSH;
    await second.told;
    yield ' not at all.';
  }
  let chunks = 0;
  const heard = () => [first, second][chunks++]?.tell();
  const audio = await collected(manager.synthesizeStream({ text: slow() }), heard);
  assert.ok(chunks >= 3 && audio.length > 0, `${chunks} chunks`);
});

test('a book is no longer than a stream', async () => {
  let seconds = 0;
  const text = 'A sentence of the book. '.repeat(15_000);
  assert.ok(text.length > 300_000);
  for await (const chunk of manager.synthesizeStream({ text })) {
    seconds += chunk.data.length / 2 / chunk.sampleRate;
    if (seconds > 60) break;
  }
  assert.ok(seconds > 60);
});

test('a text that fails, is nothing, or is no text rejects, and the writer is told', async () => {
  const failing = (async function* () {
    yield 'Something. ';
    throw new Error('the model has crashed');
  })();
  await assert.rejects(collected(manager.synthesizeStream({ text: failing })), /the model has crashed/);
  const nothing = (async function* () {})();
  const unspeakable = (error) => error instanceof TTSError && error.reason === 'unspeakable';
  await assert.rejects(collected(manager.synthesizeStream({ text: nothing })), unspeakable);
  const number = (async function* () { yield 7; })();
  await assert.rejects(collected(manager.synthesizeStream({ text: number })), { code: 'INVALID_REQUEST' });
  const document = manager.synthesizeStream({ text: tokens('<speak>A.</speak>'), inputType: 'ssml' });
  await assert.rejects(collected(document), (error) => error.details.field === 'inputType');

  const left = signal();
  async function* endless() {
    try {
      for (;;) yield 'And so on, and on. ';
    } finally {
      left.tell();
    }
  }
  for await (const chunk of manager.synthesizeStream({ text: endless() })) {
    assert.ok(chunk.data.length > 0);
    break;
  }
  await left.told;
  // And a listener that stops taking stops the asking for text.
  let asked = 0;
  async function* counted() {
    for (;;) {
      asked += 1;
      yield 'And so on, and on. '.repeat(100);
    }
  }
  const stream = manager.synthesizeStream({ text: counted() });
  await stream.next();
  assert.equal((await manager.synthesize({ text: 'Meanwhile.' })).success, true);
  await stream.return();
  assert.ok(asked < 1_000, `${asked} pieces were asked for`);
});

test('a recording lends its voice', async (t) => {
  const folder = temporary(t);
  const [one, two] = ['one.wav', 'two.wav'].map((name) => join(folder, name));
  writeFileSync(one, 'a recording');
  writeFileSync(two, 'another recording');
  const like = async (speakerClip) => {
    const result = await manager.synthesize({ text: 'Whose voice is it?', outputFormat: 'pcm', ...(speakerClip ? { speakerClip } : {}) });
    assert.equal(result.success, true, JSON.stringify(result.error));
    return Buffer.from(result.audio.data).toString('base64');
  };
  const voices = [await like(), await like(one), await like(two)];
  assert.equal(new Set(voices).size, 3);
  assert.equal(await like(one), voices[1]);
  const streamed = await collected(manager.synthesizeStream({ text: 'Whose voice is it?', speakerClip: one }));
  assert.equal(streamed.toString('base64'), voices[1]);
  const missing = await manager.synthesize({ text: 'Whose?', speakerClip: join(folder, 'none.wav') });
  assert.equal(missing.error.details.field, 'speakerClip');
});
