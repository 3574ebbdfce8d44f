/** How the cases make clients, and what they ask all of them. */
import assert from "node:assert/strict";

import type { Client } from "../src/client.js";
import type { KingpoleError } from "../src/errors.js";
import { connect as connectByFetch } from "../src/index.js";
import { connect, type NodeClientOptions } from "../src/node/index.js";
import { Tensor } from "../src/tensor.js";

/** The prefix of the URLs that are asked with `fetch`, by the entry point that browsers use. */
export const FETCH = "fetch-";

/** Thrown by a case that does not apply. */
export class NotApplicable extends Error {}

/** Makes a client of whichever kind the URL says. */
export function clientOf(url: string, options: NodeClientOptions = {}): Client {
  return url.startsWith(FETCH) ? connectByFetch(url.slice(FETCH.length), options) : connect(url, options);
}

/** Runs a case with a client that is closed at its end. */
export async function withClient(
  url: string,
  use: (client: Client) => Promise<void>,
  options: NodeClientOptions = {},
): Promise<void> {
  const client = clientOf(url, options);
  try {
    await use(client);
  } finally {
    client.close();
  }
}

/** An FP32 tensor of these values. */
export function fp32(
  values: readonly number[],
  shape: readonly number[] = [1, values.length],
): Tensor<"FP32"> {
  return new Tensor("FP32", shape, Float32Array.from(values));
}

/** Checks that the client works. */
export async function checkEcho(client: Client): Promise<void> {
  const response = await client.infer("echo-fp32", { x: fp32([1, 2, 3]) }, { timeoutMs: 10_000 });
  assert.deepEqual([...response.output("x", "FP32").data], [1, 2, 3]);
}

/** Returns the error that a call has to fail with. */
export async function errorOf(call: Promise<unknown>): Promise<KingpoleError> {
  let answer: unknown;
  try {
    answer = await call;
  } catch (error) {
    return error as KingpoleError;
  }
  throw new assert.AssertionError({ message: `expected an error, got ${String(answer)}` });
}

/** Checks the code of an error, and that its text has a part. */
export async function checkFails(call: Promise<unknown>, code: string, part: string): Promise<void> {
  const error = await errorOf(call);
  assert.equal(error.code, code, `code of ${String(error)}`);
  assert.ok(error.message.includes(part), `'${part}' in '${error.message}'`);
}
