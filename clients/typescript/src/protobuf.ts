/**
 * The one protobuf answer that has no frame of its own: the repository's index. Read by hand: two numbers and four
 * texts need no library.
 *
 * Source: protocol/schema/open_inference.proto: models = 1; name, version, state, reason = 1 to 4.
 */
import { Internal } from "./errors.js";
import type { ModelState } from "./values.js";

const VARINT = 0;
const FIXED64 = 1;
const DELIMITED = 2;
const FIXED32 = 5;

function readVarint(data: Uint8Array, start: number): { value: number; end: number } {
  let value = 0;
  for (let index = 0; index < 10; index++) {
    const byte = data[start + index];
    if (byte === undefined) break;
    value += (byte & 0x7f) * 2 ** (7 * index);
    if (byte < 0x80) return { value, end: start + index + 1 };
  }
  throw new Internal("the server's answer is not protobuf: a number does not end");
}

/** Returns number and content of the length-delimited fields; others are skipped. */
function delimitedFields(data: Uint8Array): [number, Uint8Array][] {
  const found: [number, Uint8Array][] = [];
  let position = 0;
  while (position < data.length) {
    const key = readVarint(data, position);
    position = key.end;
    switch (key.value % 8) {
      case VARINT:
        position = readVarint(data, position).end;
        break;
      case FIXED64:
        position += 8;
        break;
      case FIXED32:
        position += 4;
        break;
      case DELIMITED: {
        const length = readVarint(data, position);
        position = length.end + length.value;
        found.push([Math.floor(key.value / 8), data.subarray(length.end, position)]);
        break;
      }
      default:
        throw new Internal(`the server's answer is not protobuf: wire type ${key.value % 8}`);
    }
    if (position > data.length) throw new Internal("the server's answer is not protobuf: it is cut off");
  }
  return found;
}

/**
 * Reads an `inference.RepositoryIndexResponse`.
 *
 * @throws Internal if the bytes are none.
 */
export function readModels(data: Uint8Array): ModelState[] {
  const decoder = new TextDecoder();
  return delimitedFields(data)
    .filter(([number]) => number === 1)
    .map(([, row]) => {
      const texts = new Map(delimitedFields(row).map(([number, text]) => [number, decoder.decode(text)]));
      const version = texts.get(2) ?? "";
      return {
        name: texts.get(1) ?? "",
        version: version === "" ? undefined : version,
        state: texts.get(3) ?? "",
        reason: texts.get(4) ?? "",
      };
    });
}
