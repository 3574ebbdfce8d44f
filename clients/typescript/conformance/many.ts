/** The cases about many responses, many requests and many bytes. */
import assert from "node:assert/strict";

import type { Client } from "../src/client.js";
import type { InferResponse } from "../src/values.js";
import { Tensor } from "../src/tensor.js";
import { checkEcho, checkFails, fp32 } from "./connecting.js";
import { awaitFile } from "./ending.js";

const REQUESTS = 10_000;
const LARGE_BYTES = 100_000_000;

function counting(client: Client, count: number, parameters = {}): AsyncGenerator<InferResponse, void> {
  const inputs = { count: new Tensor("INT32", [1], Int32Array.of(count)) };
  return client.stream("count", inputs, { parameters });
}

function valueOf(response: InferResponse): number {
  return response.output("value", "INT32").data[0] as number;
}

/** Any number of responses come in order; an error comes where it happens; leaving ends the model. */
export async function stream(client: Client, mark: string | undefined): Promise<void> {
  for (const count of [0, 1, 1000]) {
    const values: number[] = [];
    for await (const response of counting(client, count)) values.push(valueOf(response));
    assert.deepEqual(
      values,
      Array.from({ length: count }, (_, index) => index),
    );
  }
  const before: number[] = [];
  const failing = async () => {
    for await (const response of counting(client, 1000, { fail_at: 3 })) before.push(valueOf(response));
  };
  await checkFails(failing(), "UNAVAILABLE", "cannot count beyond 3");
  assert.deepEqual(before, [0, 1, 2]);

  let taken = 0;
  for await (const response of counting(client, 1_000_000, mark === undefined ? {} : { mark })) {
    assert.equal(valueOf(response), taken++);
    if (taken === 2) break;
  }
  const once: number[][] = [];
  for await (const response of client.stream("echo-fp32", { x: fp32([5]) })) {
    once.push([...response.output("x", "FP32").data]);
  }
  assert.deepEqual(once, [[5]]);
  await checkEcho(client);
  await awaitFile(mark, 10_000);
}

/** A model that keeps a sum for each sequence keeps them apart. */
export async function sequence(client: Client): Promise<void> {
  const sums = new Map<number | string, number[]>([
    [7001, []],
    ["text-7001", []],
  ]);
  for (const value of [1, 2, 3]) {
    for (const [id, answers] of sums) {
      const place = { id, start: value === 1, end: value === 3 };
      const response = await client.infer("sums", { x: fp32([value]) }, { sequence: place });
      answers.push(response.output("sum", "FP32").data[0] as number);
    }
  }
  for (const answers of sums.values()) assert.deepEqual(answers, [1, 3, 6]);
}

/** Many requests at once, each with its own answer. */
export async function pipeline(client: Client): Promise<void> {
  function* requests() {
    for (let index = 0; index < REQUESTS; index++) yield { x: fp32([index, index + 0.5]) };
  }
  let answered = 0;
  for await (const response of client.inferMany("echo-fp32", requests(), { inFlight: 64 })) {
    assert.deepEqual([...response.output("x", "FP32").data], [answered, answered + 0.5]);
    answered++;
  }
  assert.equal(answered, REQUESTS);
}

/** As many bytes as the server takes come back as they were. */
export async function large(client: Client): Promise<void> {
  const values = new Float32Array(LARGE_BYTES / 4);
  for (let index = 0; index < values.length; index++) values[index] = index;
  const sent = new Tensor("FP32", [1000, values.length / 1000], values);
  const response = await client.infer("echo-fp32", { x: sent });
  const { data } = response.output("x", "FP32");
  assert.equal(Buffer.compare(view(values), view(data)), 0, "the same bytes");
}

function view(array: Float32Array): Buffer {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength);
}
