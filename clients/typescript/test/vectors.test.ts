/** Every golden vector of the frame: whole, byte by byte, in odd pieces; and what is encoded here. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { type Answer, decodeAnswer, exchangeOf } from "../src/decode.js";
import {
  encodeCancel,
  encodeMetadataRequest,
  encodeReadyRequest,
  encodeRequest,
  encodeServerInfoRequest,
} from "../src/encode.js";
import { KingpoleError, MalformedFrame, Unimplemented } from "../src/errors.js";
import { type Frame, FrameAssembler, joinBuffers, splitFrame } from "../src/frame.js";
import { describeAsked, describeMetadata, describeResponse } from "./support/describe.js";
import { type DescribedRequest, rebuildRequest } from "./support/rebuild.js";
import { type Vector, vectors } from "./support/vectors.js";

const VECTORS = vectors("frame-");
const PIECES = [0, 1, 3, 17, 64, 1000];

function readPieces(bytes: Uint8Array, pieceBytes: number): Frame {
  const assembler = new FrameAssembler();
  const frames: Frame[] = [];
  for (let start = 0; start < bytes.length; start += pieceBytes) {
    frames.push(...assembler.feed(bytes.subarray(start, start + pieceBytes)));
  }
  assert.ok(assembler.idle);
  assert.equal(frames.length, 1);
  return frames[0] as Frame;
}

function described(answer: Answer): Record<string, unknown> {
  switch (answer.kind) {
    case "response":
      return { response: describeResponse(answer.response), shared: [] };
    case "error": {
      const { code, message, id, retryAfterMs } = answer.error;
      return { error: { code, message, id: id ?? null, retry_after_ms: retryAfterMs ?? 0 } };
    }
    case "credit":
      return { credit: { requests: answer.requests } };
    case "ready":
      return { ready: answer.ready };
    case "server": {
      const { name, version, extensions, maxFrameBytes } = answer.server;
      return { server_info: { name, version, extensions, max_frame_bytes: maxFrameBytes } };
    }
    case "metadata":
      return { metadata: describeMetadata(answer.metadata) };
    case "done":
      return { done: {} };
  }
}

function check(frame: Frame, vector: Vector): void {
  const expected = vector.value as NonNullable<Vector["value"]>;
  assert.equal(exchangeOf(frame), expected.exchange);
  const asked = describeAsked(frame);
  if (asked !== undefined) {
    assert.deepEqual(asked, expected.message);
    assert.throws(() => decodeAnswer(frame), Unimplemented, "a server never says this");
  } else if ((expected.message["shared"] as unknown[] | undefined)?.length) {
    // What is in memory that this client never shared is nowhere.
    assert.throws(() => decodeAnswer(frame), Unimplemented);
  } else {
    assert.deepEqual(described(decodeAnswer(frame)), expected.message);
  }
}

for (const vector of VECTORS) {
  if (vector.error === undefined) {
    for (const pieceBytes of PIECES) {
      test(`${vector.name} in pieces of ${pieceBytes || "all its"} bytes is what it says`, () => {
        check(pieceBytes === 0 ? splitFrame(vector.bytes) : readPieces(vector.bytes, pieceBytes), vector);
      });
    }
  } else {
    const { code } = vector.error;
    test(`${vector.name} is refused with ${code}`, () => {
      assert.throws(
        () => decodeAnswer(splitFrame(vector.bytes)),
        (error) => {
          // Whose fault it is depends on who reads: a client's INVALID_ARGUMENT is the server's malformed frame.
          if (code === "INVALID_ARGUMENT") return error instanceof MalformedFrame;
          return error instanceof KingpoleError && error.code === code;
        },
      );
    });
  }
}

function again(vector: Vector): Uint8Array | undefined {
  const { exchange, message } = vector.value as NonNullable<Vector["value"]>;
  const named = (message["ready_request"] ?? message["metadata_request"]) as
    { model: string; version: string } | undefined;
  if (message["request"] !== undefined) {
    if ((message["shared"] as unknown[]).length > 0) return undefined;
    return joinBuffers(encodeRequest(rebuildRequest(message["request"] as DescribedRequest), exchange));
  }
  if (message["cancel"] !== undefined) return joinBuffers(encodeCancel(exchange));
  if (message["server_info_request"] !== undefined) return joinBuffers(encodeServerInfoRequest(exchange));
  if (named === undefined) return undefined;
  const encode = message["ready_request"] === undefined ? encodeMetadataRequest : encodeReadyRequest;
  return joinBuffers(encode(named.model, named.version, exchange));
}

for (const vector of VECTORS) {
  const bytes = vector.error === undefined ? again(vector) : undefined;
  if (bytes === undefined) continue;
  test(`${vector.name} is written so that it reads the same`, () => {
    check(splitFrame(bytes), vector);
    if (vector.canonical) assert.deepEqual(bytes, vector.bytes);
  });
}
