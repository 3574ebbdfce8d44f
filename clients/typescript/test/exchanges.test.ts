/** The promises of a stream's exchanges: credit, answers in any order, giving up, the end. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";

import { decodeAnswer, exchangeOf } from "../src/decode.js";
import { encodeReadyRequest } from "../src/encode.js";
import { Internal, Unavailable, Unimplemented } from "../src/errors.js";
import { type Link, FrameStream } from "../src/frame-stream.js";
import { type Buffers, type Frame, joinBuffers, splitFrame } from "../src/frame.js";
import { HeaderSlots, Message } from "../src/generated/schema.js";
import { vectors } from "./support/vectors.js";

/** A vector's frame, as the answer of an exchange: its number is the 8 bytes that hold the vector's 7. */
function frameOf(name: string, exchange: number): Frame {
  const vector = vectors(name).find((each) => each.name === name);
  assert.ok(vector !== undefined);
  const bytes = Uint8Array.from(vector.bytes);
  const view = new DataView(bytes.buffer);
  for (let position = 16; position + 8 <= bytes.length; position += 4) {
    if (view.getBigUint64(position, true) !== 7n) continue;
    view.setBigUint64(position, BigInt(exchange), true);
    if (exchangeOf(splitFrame(bytes)) === exchange) return splitFrame(bytes);
    view.setBigUint64(position, 7n, true);
  }
  throw new Error(`${name} has no exchange 7`);
}

/** Keeps what is sent. */
class Kept implements Link {
  readonly sent: { kind: number; exchange: number }[] = [];
  hasEnded = false;

  write(buffers: Buffers): void {
    const { header } = splitFrame(joinBuffers(buffers));
    const exchange = Number(header.uint64(HeaderSlots.exchange));
    this.sent.push({ kind: header.uint8(HeaderSlots.messageType), exchange });
  }

  full(): undefined {
    return undefined;
  }

  end(): void {
    this.hasEnded = true;
  }
}

const ask = (stream: FrameStream, isRequest: boolean, signal?: AbortSignal) =>
  stream.ask((exchange) => encodeReadyRequest("m", undefined, exchange), isRequest, signal);

test("no more requests are open than one and what was granted; questions need no credit", async () => {
  const link = new Kept();
  const stream = new FrameStream(link);
  const answers = [1, 2, 3].map(() => ask(stream, true));
  const question = ask(stream, false);
  await turn();
  assert.deepEqual(
    link.sent.map(({ exchange }) => exchange),
    [1, 2],
    "one request, and the question",
  );
  stream.receive(frameOf("frame-response-fp32", 1));
  await turn();
  assert.equal(link.sent.length, 3, "an answer gives one back");
  stream.receive(frameOf("frame-ready", 2));
  await turn();
  assert.equal(link.sent.length, 3, "a question's answer gives none");
  stream.receive(frameOf("frame-credit-cancelled", 0));
  await turn();
  assert.equal(link.sent.length, 4, "credit allows one more");
  stream.receive(frameOf("frame-response-fp32", 4));
  stream.receive(frameOf("frame-response-fp32", 3));
  assert.deepEqual(
    (await Promise.all(answers)).map(({ kind }) => kind),
    ["response", "response", "response"],
  );
  assert.deepEqual(await question, { kind: "ready", ready: true });
});

test("what is given up is cancelled, and its credit comes back with the server's word", async () => {
  const link = new Kept();
  const stream = new FrameStream(link);
  const controller = new AbortController();
  const first = ask(stream, true, controller.signal);
  const second = ask(stream, true);
  await turn();
  controller.abort(new Error("changed my mind"));
  await assert.rejects(first, /changed my mind/);
  assert.deepEqual(link.sent.at(-1), { kind: Message.Cancel, exchange: 1 });
  await turn();
  assert.equal(link.sent.length, 2, "the second request still waits");
  stream.receive(frameOf("frame-credit-cancelled", 1));
  await turn();
  assert.deepEqual(link.sent.at(-1), { kind: Message.ReadyRequest, exchange: 2 });
  stream.receive(frameOf("frame-error-not-found", 2));
  assert.equal((await second).kind, "error");
});

test("a request given up while it waits for credit is never sent", async () => {
  const link = new Kept();
  const stream = new FrameStream(link);
  const controller = new AbortController();
  const first = ask(stream, true);
  const second = ask(stream, true, controller.signal);
  await turn();
  controller.abort();
  await assert.rejects(second, { name: "AbortError" });
  stream.receive(frameOf("frame-response-fp32", 1));
  await first;
  await turn();
  assert.equal(link.sent.length, 1);
});

test("the end of the stream fails all that waits, and all that comes", async () => {
  const link = new Kept();
  const stream = new FrameStream(link);
  const waiting = [ask(stream, true), ask(stream, true), ask(stream, false)];
  await turn();
  stream.fail(new Unavailable("gone"));
  for (const answer of waiting) await assert.rejects(answer, Unavailable);
  await assert.rejects(ask(stream, true), (error) => error instanceof Unavailable && error.neverSent);
  assert.ok(stream.hasEnded && link.hasEnded);
});

test("one of several responses is an error for who waits for one, and the rest is cancelled", async () => {
  const link = new Kept();
  const stream = new FrameStream(link);
  const answer = ask(stream, true);
  await turn();
  stream.receive(frameOf("frame-response-part", 1));
  const { kind, error } = (await answer) as { kind: string; error: Error };
  assert.equal(kind, "error");
  assert.ok(error instanceof Unimplemented && error.message.includes("use stream"));
  assert.deepEqual(link.sent.at(-1), { kind: Message.Cancel, exchange: 1 });
});

test("an error of exchange 0 ends the stream with the server's words", async () => {
  const stream = new FrameStream(new Kept());
  const answer = ask(stream, true);
  await turn();
  stream.receive(frameOf("frame-error-internal", 0));
  await assert.rejects(answer, (error) => error instanceof Internal && error.message.includes("INTERNAL"));
});

test("what is sent twice or to nobody is passed over", async () => {
  const stream = new FrameStream(new Kept());
  const answer = ask(stream, false);
  await turn();
  stream.receive(frameOf("frame-ready", 999));
  stream.receive(frameOf("frame-ready", 1));
  stream.receive(frameOf("frame-ready", 1));
  assert.deepEqual(await answer, { kind: "ready", ready: true });
  assert.equal(decodeAnswer(frameOf("frame-ready", 1)).kind, "ready");
});
