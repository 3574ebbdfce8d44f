/** Bytes that lie: whatever they are, a decoder gives a value or a `KingpoleError`, and nothing else. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { decodeAnswer } from "../src/decode.js";
import { KingpoleError, ResourceExhausted } from "../src/errors.js";
import { FrameAssembler, splitFrame } from "../src/frame.js";
import { decodeInference } from "../src/open-inference.js";
import { readModels } from "../src/protobuf.js";
import { vectors } from "./support/vectors.js";

/** Numbers that look random and are the same each time (mulberry32). */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

function isValueOrOurError(decode: () => unknown): void {
  try {
    decode();
  } catch (error) {
    assert.ok(error instanceof KingpoleError, `expected a KingpoleError, got ${String(error)}`);
  }
}

/** Changes up to four bytes, and cuts some of what is made. */
function* garbled(bytes: Uint8Array, times: number, seed: number): Generator<Uint8Array> {
  const next = numbers(seed);
  for (let time = 0; time < times; time++) {
    const changed = Uint8Array.from(bytes);
    for (let change = 0; change <= next() % 4; change++) changed[next() % changed.length] = next() % 256;
    yield next() % 8 === 0 ? changed.subarray(0, next() % changed.length) : changed;
  }
}

test("a garbled frame is a value or a KingpoleError", () => {
  for (const [index, { bytes }] of vectors("frame-").entries()) {
    for (const changed of garbled(bytes, 400, index)) {
      isValueOrOurError(() => decodeAnswer(splitFrame(changed, 1 << 20)));
      isValueOrOurError(() => new FrameAssembler(1 << 20).feed(changed).map(decodeAnswer));
    }
  }
});

test("a garbled answer of Open Inference is a value or a KingpoleError", () => {
  for (const [index, { bytes, headerLength }] of vectors("http-response-").entries()) {
    for (const body of garbled(bytes, 200, index)) {
      const length = headerLength === null ? "" : String(headerLength);
      const header = (name: string) => (name === "inference-header-content-length" ? length : "");
      isValueOrOurError(() => decodeInference({ status: 200, header, body }));
    }
  }
});

test("a garbled index is a value or a KingpoleError", () => {
  const index = Uint8Array.of(10, 12, 10, 1, 109, 18, 1, 49, 26, 2, 79, 75, 34, 0);
  assert.deepEqual(readModels(index), [{ name: "m", version: "1", state: "OK", reason: "" }]);
  for (const changed of garbled(index, 5000, 1)) isValueOrOurError(() => readModels(changed));
});

test("no memory is asked for before a length is checked", () => {
  const { bytes } = vectors("frame-response-fp32")[0] as { bytes: Uint8Array };
  assert.throws(() => splitFrame(bytes, 64), ResourceExhausted);
  const assembler = new FrameAssembler(63);
  assert.throws(() => assembler.feed(bytes), ResourceExhausted);
});
