/**
 * A tensor and the typed arrays of each datatype. Knows no frame and no transport.
 */
import { InvalidArgument, Unimplemented } from "./errors.js";
import { bfloat16Bits, floatsOfBfloat16, floatsOfHalf, halfBits } from "./half.js";

/**
 * What FP16 elements are in: `Float16Array` where the platform has it, else the bits in a `Uint16Array`.
 * `Tensor.floats` gives plain numbers in both cases.
 */
export type HalfArray = typeof globalThis extends { Float16Array: { prototype: infer Half } }
  ? Half | Uint16Array
  : Uint16Array;

/** The array of each datatype's elements. BOOL is one byte each, 0 or 1; BF16 are the bits. */
export interface DataOf {
  BOOL: Uint8Array;
  UINT8: Uint8Array;
  UINT16: Uint16Array;
  UINT32: Uint32Array;
  UINT64: BigUint64Array;
  INT8: Int8Array;
  INT16: Int16Array;
  INT32: Int32Array;
  INT64: BigInt64Array;
  FP16: HalfArray;
  FP32: Float32Array;
  FP64: Float64Array;
  BYTES: readonly Uint8Array[];
  BF16: Uint16Array;
}

/** The type of a tensor's elements, by its name in every protocol. */
export type Datatype = keyof DataOf;

/** Numbers that are looked at one after another. */
export type Numbers = ArrayLike<number>;

interface ArrayClass {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): ArrayBufferView;
}

const NativeHalf = (globalThis as { Float16Array?: ArrayClass }).Float16Array;

/** The class of each datatype's array; BYTES has none. */
export const ARRAYS: Readonly<Record<Exclude<Datatype, "BYTES">, ArrayClass>> = {
  BOOL: Uint8Array,
  UINT8: Uint8Array,
  UINT16: Uint16Array,
  UINT32: Uint32Array,
  UINT64: BigUint64Array,
  INT8: Int8Array,
  INT16: Int16Array,
  INT32: Int32Array,
  INT64: BigInt64Array,
  FP16: NativeHalf ?? Uint16Array,
  FP32: Float32Array,
  FP64: Float64Array,
  BF16: Uint16Array,
};

/** Every datatype. */
export const DATATYPES: readonly Datatype[] = [...(Object.keys(ARRAYS) as Datatype[]), "BYTES"];

/** The most dimensions that a tensor has. */
export const MAX_RANK = 32;

const isLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
const utf8 = new TextEncoder();

/** Elements with a datatype and a shape, in row-major order. */
export class Tensor<D extends Datatype = Datatype> {
  /** The type of the elements. */
  readonly datatype: D;
  /** Sizes of the dimensions, outermost first; empty for a scalar. */
  readonly shape: readonly number[];
  /** The elements. Those of a response are views of the received bytes. */
  readonly data: DataOf[D];

  /**
   * Makes a tensor of elements, which are not copied and must not change until the request is answered.
   *
   * @throws InvalidArgument if datatype, shape and elements do not belong together.
   */
  constructor(datatype: D, shape: readonly number[], data: DataOf[D]) {
    checkDatatype(datatype);
    checkArray(datatype, data);
    const elements = countElements(shape);
    if (data.length !== elements) {
      throw new InvalidArgument(
        `a tensor of shape [${shape.join(", ")}] has ${elements} elements, got ${data.length}`,
      );
    }
    this.datatype = datatype;
    this.shape = shape;
    this.data = data;
  }

  /** Makes a BYTES tensor; texts are written as UTF-8. The shape is one dimension, unless it is given. */
  static bytes(elements: readonly (string | Uint8Array)[], shape?: readonly number[]): Tensor<"BYTES"> {
    const data = elements.map((element) => (typeof element === "string" ? utf8.encode(element) : element));
    return new Tensor("BYTES", shape ?? [data.length], data);
  }

  /** Makes a BOOL tensor. The shape is one dimension, unless it is given. */
  static bool(elements: readonly boolean[], shape?: readonly number[]): Tensor<"BOOL"> {
    return new Tensor("BOOL", shape ?? [elements.length], Uint8Array.from(elements, Number));
  }

  /** Makes an FP16 tensor of numbers, each rounded to the nearest. The shape is one dimension, unless given. */
  static fp16(numbers: Numbers, shape?: readonly number[]): Tensor<"FP16"> {
    const bits = halfBits(numbers);
    return new Tensor("FP16", shape ?? [numbers.length], asHalfArray(bits));
  }

  /** Makes a BF16 tensor of numbers, each rounded to the nearest. The shape is one dimension, unless given. */
  static bf16(numbers: Numbers, shape?: readonly number[]): Tensor<"BF16"> {
    return new Tensor("BF16", shape ?? [numbers.length], bfloat16Bits(numbers));
  }

  /**
   * Returns the elements of an FP16 or BF16 tensor as FP32, and FP32's own as they are.
   *
   * @throws InvalidArgument for any other datatype.
   */
  floats(): Float32Array {
    const { datatype, data } = this as Tensor;
    if (datatype === "FP32") return data as Float32Array;
    const array = data as Uint16Array;
    const bits = () => new Uint16Array(array.buffer, array.byteOffset, array.length);
    if (datatype === "FP16") return floatsOfHalf(bits());
    if (datatype === "BF16") return floatsOfBfloat16(bits());
    throw new InvalidArgument(`floats() is for FP16, BF16 and FP32, the tensor is ${datatype}`);
  }

  /**
   * Returns the elements of a BYTES tensor as texts; what is not UTF-8 becomes U+FFFD.
   *
   * @throws InvalidArgument for any other datatype.
   */
  texts(): string[] {
    const { datatype, data } = this as Tensor;
    if (datatype !== "BYTES") throw new InvalidArgument(`texts() is for BYTES, the tensor is ${datatype}`);
    const decoder = new TextDecoder();
    return (data as readonly Uint8Array[]).map((element) => decoder.decode(element));
  }
}

/** A tensor of which a look at `datatype` tells the type of `data`. */
export type AnyTensor = { [D in Datatype]: Tensor<D> }[Datatype];

/** Wraps FP16's bits in what the platform has for them. */
export function asHalfArray(bits: Uint16Array): HalfArray {
  if (NativeHalf === undefined) return bits;
  return new NativeHalf(bits.buffer, bits.byteOffset, bits.length) as HalfArray;
}

/** Returns the bytes that a tensor has on the wire: a view of its elements, except that BYTES are joined. */
export function wireBytes(tensor: Tensor): Uint8Array {
  if (tensor.datatype === "BYTES") return joinElements(tensor.data as readonly Uint8Array[]);
  if (!isLittleEndian) throw new Unimplemented("this client needs a little-endian machine");
  const array = tensor.data as ArrayBufferView;
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function joinElements(elements: readonly Uint8Array[]): Uint8Array {
  let nbytes = 4 * elements.length;
  for (const element of elements) nbytes += element.length;
  const joined = new Uint8Array(nbytes);
  const view = new DataView(joined.buffer);
  let position = 0;
  for (const element of elements) {
    view.setUint32(position, element.length, true);
    joined.set(element, position + 4);
    position += 4 + element.length;
  }
  return joined;
}

function checkDatatype(datatype: string): void {
  if (!DATATYPES.includes(datatype as Datatype)) {
    throw new InvalidArgument(`'${datatype}' is no datatype; there are ${DATATYPES.join(", ")}`);
  }
}

function checkArray(datatype: Datatype, data: unknown): void {
  if (datatype === "BYTES") {
    if (Array.isArray(data) && data.every((element) => element instanceof Uint8Array)) return;
    throw new InvalidArgument("a BYTES tensor needs an array of Uint8Array; Tensor.bytes also takes texts");
  }
  const wanted = ARRAYS[datatype];
  if (data instanceof wanted) return;
  if (datatype === "FP16" && data instanceof Uint16Array) return;
  const got = Object.prototype.toString.call(data).slice("[object ".length, -1);
  throw new InvalidArgument(`a ${datatype} tensor needs a ${(wanted as { name?: string }).name}, got ${got}`);
}

function countElements(shape: readonly number[]): number {
  if (shape.length > MAX_RANK) {
    throw new InvalidArgument(`a tensor has ${shape.length} dimensions, the most is ${MAX_RANK}`);
  }
  let elements = 1;
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) {
      throw new InvalidArgument(`a shape is of whole numbers of at least 0, got [${shape.join(", ")}]`);
    }
    elements *= size;
  }
  return elements;
}
