/** Every golden vector of an answer of Open Inference over HTTP, read as the fallback reads it. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { decodeInference } from "../src/open-inference.js";
import { describeResponse } from "./support/describe.js";
import { vectors } from "./support/vectors.js";

for (const vector of vectors("http-response-")) {
  test(`${vector.name} is what it says`, () => {
    const length = vector.headerLength === null ? "" : String(vector.headerLength);
    const answer = {
      status: 200,
      header: (name: string) => (name === "inference-header-content-length" ? length : ""),
      body: vector.bytes,
    };
    assert.equal(vector.error, undefined);
    assert.deepEqual(describeResponse(decodeInference(answer)), vector.response);
  });
}
