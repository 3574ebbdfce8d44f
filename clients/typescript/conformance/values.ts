/** The cases about what travels: datatypes, shapes, parameters. */
import assert from "node:assert/strict";

import type { Client } from "../src/client.js";
import { type AnyTensor, asHalfArray, Tensor, wireBytes } from "../src/tensor.js";
import { fp32 } from "./connecting.js";

function bits(...values: number[]): Uint16Array {
  return Uint16Array.from(values);
}

function bytes(...values: number[]): Uint8Array {
  return Uint8Array.from(values);
}

/** A payload of NaN that is not the usual one: it has to stay what it is. */
const ODD_NAN = new Float32Array(Uint32Array.of(0x7fc12345).buffer)[0] as number;
const SHAPE = [2, 3];

/** The least, the greatest and the odd of each datatype. */
export const EXTREMES: readonly AnyTensor[] = [
  new Tensor("BOOL", SHAPE, bytes(0, 1, 1, 0, 0, 1)),
  new Tensor("UINT8", SHAPE, bytes(0, 255, 1, 2, 3, 4)),
  new Tensor("UINT16", SHAPE, Uint16Array.of(0, 65535, 1, 2, 3, 4)),
  new Tensor("UINT32", SHAPE, Uint32Array.of(0, 2 ** 32 - 1, 1, 2, 3, 4)),
  new Tensor("UINT64", SHAPE, BigUint64Array.of(0n, 2n ** 64n - 1n, 2n ** 53n + 1n, 1n, 2n, 3n)),
  new Tensor("INT8", SHAPE, Int8Array.of(-128, 127, 0, -1, 1, 2)),
  new Tensor("INT16", SHAPE, Int16Array.of(-32768, 32767, 0, -1, 1, 2)),
  new Tensor("INT32", SHAPE, Int32Array.of(-(2 ** 31), 2 ** 31 - 1, 0, -1, 1, 2)),
  new Tensor("INT64", SHAPE, BigInt64Array.of(-(2n ** 63n), 2n ** 63n - 1n, -(2n ** 53n) - 1n, 0n, -1n, 1n)),
  // -65504, 65504, infinities, -0 and NaN.
  new Tensor("FP16", SHAPE, asHalfArray(bits(0xfbff, 0x7bff, 0x7c00, 0xfc00, 0x8000, 0x7e00))),
  new Tensor("BF16", SHAPE, bits(0xff7f, 0x7f7f, 0x7f80, 0xff80, 0x8000, 0x7fc0)),
  new Tensor("FP32", SHAPE, Float32Array.of(-3.4028234663852886e38, 1e-45, Infinity, -Infinity, -0, ODD_NAN)),
  new Tensor("FP64", SHAPE, Float64Array.of(-Number.MAX_VALUE, 5e-324, Infinity, -Infinity, -0, NaN)),
  Tensor.bytes(["", "é ü 🎪", bytes(0xff, 0xfe, 0x00), "a", bytes(0x80), "\u0000"], SHAPE),
];

async function checkSame(client: Client, model: string, tensor: AnyTensor): Promise<void> {
  const response = await client.infer(model, { x: tensor }, { timeoutMs: 10_000 });
  const back = response.output("x");
  assert.equal(back.datatype, tensor.datatype);
  assert.deepEqual(back.shape, tensor.shape, `${tensor.datatype}'s shape`);
  assert.deepEqual(
    Buffer.from(wireBytes(back)).toString("hex"),
    Buffer.from(wireBytes(tensor)).toString("hex"),
    `${tensor.datatype}'s bytes`,
  );
}

/** Every datatype comes back bit by bit. */
export async function datatypes(client: Client): Promise<void> {
  for (const tensor of EXTREMES) await checkSame(client, `echo-${tensor.datatype.toLowerCase()}`, tensor);
}

/** Scalars, empty tensors and many dimensions come back as they are. */
export async function shapes(client: Client): Promise<void> {
  await checkSame(client, "scalar", fp32([7], []));
  for (const shape of [
    [0, 3],
    [1, 1],
    [3, 0],
  ]) {
    await checkSame(client, "echo-fp32", fp32(shape.includes(0) ? [] : [1], shape));
  }
  const values = Array.from({ length: 16 }, (_, index) => index);
  await checkSame(client, "rank8", fp32(values, [1, 2, 1, 2, 1, 2, 1, 2]));
  await checkSame(client, "echo-bytes", Tensor.bytes([], [0, 2]));
}

/** Parameters, ids, versions and the outputs asked for arrive, and come back. */
export async function parameters(client: Client): Promise<void> {
  const x = fp32([1, 2]);
  const given = { flag: true, negative: -7, big: 2n ** 63n + 1n, fraction: 0.25, text: "ünï" };
  const described = await client.infer("describe", { x }, { parameters: given, id: "it-1", version: "1" });
  assert.equal(described.id, "it-1");
  assert.equal(described.version, "1");
  const text = described.output("text", "BYTES");
  assert.deepEqual(text.shape, [1]);
  const [said = ""] = text.texts();
  assert.match(said, /"big": 9223372036854775809[,}]/);
  const { big, ...rest } = JSON.parse(said) as Record<string, unknown>;
  assert.equal(big, Number(given.big));
  assert.deepEqual(rest, { flag: true, negative: -7, fraction: 0.25, text: "ünï" });

  const alone = await client.infer("twice", { x }, { outputs: ["b"] });
  assert.deepEqual([...alone.outputs.keys()], ["b"]);
  assert.deepEqual([...alone.output("b", "FP32").data], [2, 4]);
  const both = await client.infer("twice", { x }, { outputs: ["b", "a"] });
  assert.deepEqual([...both.outputs.keys()], ["b", "a"]);
  assert.deepEqual([...both.output("a", "FP32").data], [1, 2]);
}
