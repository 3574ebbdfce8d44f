/** The cases about who the server is and how it refuses. */
import assert from "node:assert/strict";

import type { Client } from "../src/client.js";
import { Tensor } from "../src/tensor.js";
import { checkEcho, checkFails, fp32 } from "./connecting.js";

const RAISED = [
  "INVALID_ARGUMENT",
  "NOT_FOUND",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "UNAVAILABLE",
  "INTERNAL",
];

/** Readiness and metadata of models; what any server of Open Inference can say. */
export async function models(client: Client): Promise<void> {
  assert.equal(await client.ready("echo-fp32"), true);
  assert.equal(await client.ready("absent"), false);
  const metadata = await client.metadata("echo-fp32");
  assert.equal(metadata.name, "echo-fp32");
  assert.deepEqual(metadata.versions, ["1"]);
  for (const specs of [metadata.inputs, metadata.outputs]) {
    assert.deepEqual(specs, [{ name: "x", datatype: "FP32", shape: [-1, -1], optional: false }]);
  }
  await checkFails(client.metadata("absent"), "NOT_FOUND", "absent");
}

/** Who the server is, and what it has. */
export async function server(client: Client): Promise<void> {
  assert.equal(await client.live(), true);
  assert.equal(await client.ready(), true);
  const info = await client.server();
  assert.equal(info.name, "kingpole");
  assert.notEqual(info.version, "");
  assert.ok(info.extensions.length > 0, "some extensions");
  await models(client);
  const states = await client.models();
  assert.ok(
    states.some(({ name, state }) => name === "echo-fp32" && state === "READY"),
    `echo-fp32 is READY in ${JSON.stringify(states)}`,
  );
}

/** A request that is wrong in each way is refused with a text that names what is wrong. */
export async function refusals(client: Client): Promise<void> {
  const x = fp32([1, 2]);
  await checkFails(client.infer("absent", { x }), "NOT_FOUND", "absent");
  const wrong = new Tensor("INT32", [1, 2], Int32Array.of(1, 2));
  await checkFails(client.infer("echo-fp32", { x: wrong }), "INVALID_ARGUMENT", "x");
  await checkFails(client.infer("echo-fp32", { x: fp32([1], [1]) }), "INVALID_ARGUMENT", "x");
  await checkFails(client.infer("echo-fp32", { x, stranger: x }), "INVALID_ARGUMENT", "stranger");
  await checkFails(client.infer("echo-fp32", {}), "INVALID_ARGUMENT", "x");
}

/** Refusals, and every code that a model raises. */
export async function errors(client: Client): Promise<void> {
  await refusals(client);
  for (const code of RAISED) {
    const text = `raised ${code} on purpose`;
    const call = client.infer("fails", { x: fp32([1, 2]) }, { parameters: { code, text } });
    await checkFails(call, code, text);
  }
  await checkEcho(client);
}
