/** Tensors, and the datatypes that JavaScript has no numbers for. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { Internal, InvalidArgument } from "../src/errors.js";
import { bfloat16Bits, floatsOfBfloat16, floatsOfHalf, halfBits } from "../src/half.js";
import { parseJson } from "../src/json.js";
import { decodeTensor } from "../src/received.js";
import { DATATYPES, Tensor, wireBytes } from "../src/tensor.js";

test("each of FP16's 65536 values is the same after there and back, but for NaN's payload", () => {
  const bits = Uint16Array.from({ length: 65536 }, (_, index) => index);
  const floats = floatsOfHalf(bits);
  const again = halfBits(floats);
  for (const [index, value] of floats.entries()) {
    if (Number.isNaN(value)) assert.equal((again[index] as number) & 0x7e00, 0x7e00);
    else assert.equal(again[index], index, `${value}`);
  }
});

test("each of BF16's 65536 values is the same after there and back, but for NaN's payload", () => {
  const bits = Uint16Array.from({ length: 65536 }, (_, index) => index);
  const floats = floatsOfBfloat16(bits);
  const again = bfloat16Bits(floats);
  for (const [index, value] of floats.entries()) {
    if (Number.isNaN(value)) assert.equal((again[index] as number) & 0x7fc0, 0x7fc0);
    else assert.equal(again[index], index, `${value}`);
  }
});

test("numbers are rounded once, to the nearest, ties to even", () => {
  // Between 1 and the next FP16; just above the middle, where rounding to FP32 first would make a tie.
  const step = 2 ** -10;
  assert.deepEqual([...floatsOfHalf(halfBits([1 + step / 2, 1 + 1.5 * step]))], [1, 1 + 2 * step]);
  assert.deepEqual([...floatsOfHalf(halfBits([1 + step / 2 + 2 ** -40]))], [1 + step]);
  assert.deepEqual([...halfBits([65519.99, 65520, 1e300, -1e300])], [0x7bff, 0x7c00, 0x7c00, 0xfc00]);
  assert.deepEqual([...halfBits([2 ** -25, 2 ** -25 * 1.001, -(2 ** -24)])], [0, 1, 0x8001]);
  assert.deepEqual([...bfloat16Bits([1 + 2 ** -8, 1 + 3 * 2 ** -8, 3.4e38])], [0x3f80, 0x3f82, 0x7f80]);
});

test("a tensor's elements are sent from where they are, and received where they lie", () => {
  const values = Float32Array.of(0, 1, 2, 3).subarray(1, 3);
  const bytes = wireBytes(new Tensor("FP32", [2], values));
  assert.equal(bytes.buffer, values.buffer);
  assert.equal(bytes.byteOffset, 4);
  const received = decodeTensor("y", "FP32", [2], bytes);
  assert.equal((received.data as Float32Array).buffer, values.buffer);
  const crooked = new Uint8Array(9).subarray(1);
  const copied = decodeTensor("y", "FP64", [1], crooked);
  assert.notEqual(
    (copied.data as Float64Array).buffer,
    crooked.buffer,
    "no view where its elements cannot lie",
  );
});

test("datatype, shape and elements have to belong together", () => {
  const wrong = (make: () => unknown, text: RegExp) => {
    assert.throws(make, (error) => error instanceof InvalidArgument && text.test(error.message));
  };
  wrong(() => new Tensor("FP32", [2, 2], new Float32Array(3)), /\[2, 2\] has 4 elements, got 3/);
  wrong(
    () => new Tensor("FP32", [2], new Float64Array(2) as never),
    /needs a Float32Array, got Float64Array/,
  );
  wrong(() => new Tensor("FP32", [2], [1, 2] as never), /needs a Float32Array, got Array/);
  wrong(() => new Tensor("FP8" as never, [0], new Float32Array(0) as never), /'FP8' is no datatype/);
  wrong(() => new Tensor("FP32", [-1], new Float32Array(0)), /at least 0/);
  wrong(() => new Tensor("FP32", Array<number>(33).fill(1), new Float32Array(1)), /33 dimensions/);
  wrong(() => Tensor.bytes([1 as never]), /Uint8Array/);
  wrong(() => new Tensor("INT8", [0], new Int8Array(0)).floats(), /the tensor is INT8/);
});

test("received shapes and bytes are not trusted", () => {
  const bytes = new Uint8Array(8);
  for (const shape of [[3], [-2], [2 ** 60, 2 ** 60], Array<number>(33).fill(1), [1.5]]) {
    assert.throws(() => decodeTensor("y", "FP32", shape, bytes), Internal, JSON.stringify(shape));
    assert.throws(() => decodeTensor("y", "BYTES", shape, bytes), Internal, JSON.stringify(shape));
  }
  assert.throws(() => decodeTensor("y", "BYTES", [1], Uint8Array.of(5, 0, 0, 0, 1)), Internal);
  assert.throws(() => decodeTensor("y", "BYTES", [1], Uint8Array.of(0, 0, 0, 0, 1)), Internal);
});

test("every datatype has a name, and texts come back", () => {
  assert.equal(DATATYPES.length, 14);
  const tensor = Tensor.bytes(["é", Uint8Array.of(0xff)]);
  assert.deepEqual(tensor.texts(), ["é", "\ufffd"]);
  assert.equal(tensor.shape[0], 2);
  assert.deepEqual([...Tensor.bool([true, false]).data], [1, 0]);
});

test("JSON's integers are exact, and its texts are left alone", () => {
  const text =
    '{"a": 9223372036854775807, "b": "12345678901234567890", "c": 1e20, "d": [-9007199254740993, 7], "e": 0.1234567890123456}';
  assert.deepEqual(parseJson(text), {
    a: 9223372036854775807n,
    b: "12345678901234567890",
    c: 1e20,
    d: [-9007199254740993n, 7],
    e: 0.1234567890123456,
  });
  assert.deepEqual(parseJson('["integer 5", 12345678901234567890]'), ["integer 5", 12345678901234567890n]);
  assert.throws(() => parseJson("[1234567890123456789"), SyntaxError);
});
