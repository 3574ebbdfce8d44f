/**
 * Tensors as JSON holds them, for servers that take or give nothing else. Knows no message.
 */
import { Internal, InvalidArgument } from "./errors.js";
import type { Json } from "./json.js";
import { type AnyTensor, type Datatype, type DataOf, MAX_RANK, Tensor } from "./tensor.js";

const FLOATS: readonly Datatype[] = ["FP16", "BF16", "FP32", "FP64"];
/** The least and greatest value of each datatype of integers. */
const RANGES = new Map<Datatype, readonly [bigint, bigint]>([
  ["UINT8", [0n, 2n ** 8n - 1n]],
  ["UINT16", [0n, 2n ** 16n - 1n]],
  ["UINT32", [0n, 2n ** 32n - 1n]],
  ["UINT64", [0n, 2n ** 64n - 1n]],
  ["INT8", [-(2n ** 7n), 2n ** 7n - 1n]],
  ["INT16", [-(2n ** 15n), 2n ** 15n - 1n]],
  ["INT32", [-(2n ** 31n), 2n ** 31n - 1n]],
  ["INT64", [-(2n ** 63n), 2n ** 63n - 1n]],
]);

/**
 * Writes a tensor's elements as a flat list.
 *
 * @throws InvalidArgument if JSON cannot hold one.
 */
export function tensorToJson(name: string, tensor: Tensor): string {
  const { datatype } = tensor;
  if (datatype === "BYTES") return JSON.stringify(utf8Elements(name, tensor.data as DataOf["BYTES"]));
  if (datatype === "BOOL") return JSON.stringify(Array.from(tensor.data as Uint8Array, (byte) => byte !== 0));
  if (!FLOATS.includes(datatype)) return `[${(tensor.data as BigInt64Array).join(",")}]`;
  const numbers = datatype === "FP64" ? (tensor.data as Float64Array) : tensor.floats();
  if (!numbers.every(Number.isFinite)) {
    throw new InvalidArgument(
      `input '${name}': this server takes tensors as JSON, which has no NaN and no infinity`,
    );
  }
  return `[${Array.from(numbers, (number) => (Object.is(number, -0) ? "-0.0" : String(number))).join(",")}]`;
}

function utf8Elements(name: string, elements: readonly Uint8Array[]): string[] {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  return elements.map((element) => {
    try {
      return decoder.decode(element);
    } catch {
      throw new InvalidArgument(
        `input '${name}': this server takes tensors as JSON, and an element is not UTF-8`,
      );
    }
  });
}

/**
 * Reads elements, flat or nested.
 *
 * @throws Internal if datatype, shape and elements do not belong together.
 */
export function tensorOfJson(
  name: string,
  datatype: Datatype,
  shape: readonly number[],
  data: Json | undefined,
): AnyTensor {
  const elements = Array.isArray(data) ? ((data as unknown[]).flat(MAX_RANK) as Json[]) : [data as Json];
  try {
    return make(datatype, shape, elements) as AnyTensor;
  } catch (error) {
    throw new Internal(`output '${name}': ${(error as Error).message}`, { cause: error });
  }
}

function make(datatype: Datatype, shape: readonly number[], elements: readonly Json[]): Tensor {
  if (datatype === "BYTES")
    return Tensor.bytes(
      elements.map((element) => checked(element, "string")),
      shape,
    );
  if (datatype === "BOOL")
    return Tensor.bool(
      elements.map((element) => checked(element, "boolean")),
      shape,
    );
  const range = RANGES.get(datatype);
  if (range !== undefined) return integers(datatype, shape, elements, range);
  const numbers = elements.map((element) => Number(checked(element, "number", "bigint")));
  if (datatype === "FP16") return Tensor.fp16(numbers, shape);
  if (datatype === "BF16") return Tensor.bf16(numbers, shape);
  if (datatype === "FP32") return new Tensor("FP32", shape, Float32Array.from(numbers));
  return new Tensor("FP64", shape, Float64Array.from(numbers));
}

function integers(
  datatype: Datatype,
  shape: readonly number[],
  elements: readonly Json[],
  [least, greatest]: readonly [bigint, bigint],
): Tensor {
  const whole = elements.map((element) => {
    const value = BigInt(checked(element, "number", "bigint"));
    if (value >= least && value <= greatest) return value;
    throw new RangeError(`${value.toString()} is no ${datatype}`);
  });
  if (datatype === "INT64") return new Tensor("INT64", shape, BigInt64Array.from(whole));
  if (datatype === "UINT64") return new Tensor("UINT64", shape, BigUint64Array.from(whole));
  const narrow = whole.map(Number);
  switch (datatype) {
    case "UINT8":
      return new Tensor(datatype, shape, Uint8Array.from(narrow));
    case "UINT16":
      return new Tensor(datatype, shape, Uint16Array.from(narrow));
    case "UINT32":
      return new Tensor(datatype, shape, Uint32Array.from(narrow));
    case "INT8":
      return new Tensor(datatype, shape, Int8Array.from(narrow));
    case "INT16":
      return new Tensor(datatype, shape, Int16Array.from(narrow));
    default:
      return new Tensor("INT32", shape, Int32Array.from(narrow));
  }
}

interface JsonTypes {
  string: string;
  boolean: boolean;
  number: number;
  bigint: bigint;
}

function checked<K extends keyof JsonTypes>(element: Json, ...kinds: K[]): JsonTypes[K] {
  if (kinds.includes(typeof element as K)) return element as JsonTypes[K];
  throw new TypeError(`an element is ${element === null ? "null" : typeof element}, not ${kinds[0] ?? ""}`);
}
