/**
 * Tensors of received bytes. Knows no frame and no transport, and trusts neither shape nor bytes.
 */
import { Internal } from "./errors.js";
import { type AnyTensor, ARRAYS, type Datatype, MAX_RANK, Tensor } from "./tensor.js";

/**
 * Makes a tensor of received bytes: a view of them, or a copy if they do not lie where its elements may.
 *
 * @throws Internal if datatype, shape and bytes do not belong together.
 */
export function decodeTensor(
  name: string,
  datatype: Datatype,
  shape: readonly number[],
  bytes: Uint8Array,
): AnyTensor {
  const elements = countElements(name, shape);
  const data =
    datatype === "BYTES"
      ? splitElements(name, shape, elements, bytes)
      : viewElements(name, datatype, shape, elements, bytes);
  return new Tensor(datatype, shape, data as never) as AnyTensor;
}

function countElements(name: string, shape: readonly number[]): number {
  let elements = 1;
  for (const size of shape) elements *= size;
  const isPossible =
    shape.length <= MAX_RANK &&
    shape.every((size) => Number.isSafeInteger(size) && size >= 0) &&
    Number.isSafeInteger(elements);
  if (!isPossible) throw new Internal(`output '${name}': impossible shape [${shape.join(", ")}]`);
  return elements;
}

function viewElements(
  name: string,
  datatype: Exclude<Datatype, "BYTES">,
  shape: readonly number[],
  elements: number,
  bytes: Uint8Array,
): ArrayBufferView {
  const wanted = ARRAYS[datatype];
  const nbytes = elements * wanted.BYTES_PER_ELEMENT;
  if (nbytes !== bytes.length) {
    throw new Internal(
      `output '${name}': ${datatype} [${shape.join(", ")}] needs ${nbytes} bytes, got ${bytes.length}`,
    );
  }
  const isAligned = bytes.byteOffset % wanted.BYTES_PER_ELEMENT === 0;
  const source = isAligned ? bytes : new Uint8Array(bytes);
  return new wanted(source.buffer, source.byteOffset, elements);
}

function splitElements(
  name: string,
  shape: readonly number[],
  elements: number,
  bytes: Uint8Array,
): Uint8Array[] {
  const needs = `output '${name}': BYTES [${shape.join(", ")}] needs ${elements} elements`;
  if (elements * 4 > bytes.length) throw new Internal(`${needs}, got ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: Uint8Array[] = [];
  let position = 0;
  while (position < bytes.length && found.length <= elements) {
    if (position + 4 > bytes.length) {
      throw new Internal(`output '${name}': the last element's length is cut off`);
    }
    const end = position + 4 + view.getUint32(position, true);
    if (end > bytes.length) throw new Internal(`output '${name}': an element passes the end of the tensor`);
    found.push(bytes.subarray(position + 4, end));
    position = end;
  }
  if (found.length !== elements) throw new Internal(`${needs}, got ${found.length}`);
  return found;
}
