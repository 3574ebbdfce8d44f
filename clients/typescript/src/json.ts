/**
 * JSON whose integers are exact: those that a number cannot hold come as bigints. Knows nothing of tensors.
 */

/** What JSON holds. */
export type Json = null | boolean | number | bigint | string | Json[] | { [name: string]: Json };

// A text, which is passed over, or a number, of which only long integers matter.
const TEXT_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g;
const LONG_INTEGER = /^-?\d{16,}$/;

/**
 * Reads JSON.
 *
 * @throws SyntaxError if it is none.
 */
export function parseJson(text: string): Json {
  // Long integers become texts with a mark that no other text of the document begins with.
  let mark = "integer ";
  while (text.includes(mark)) mark = `-${mark}`;
  const marked = text.replace(TEXT_OR_NUMBER, (found) =>
    LONG_INTEGER.test(found) ? `"${mark}${found}"` : found,
  );
  if (marked === text) return JSON.parse(text) as Json;
  return JSON.parse(marked, (_name, value: Json) =>
    typeof value === "string" && value.startsWith(mark) ? exact(value.slice(mark.length)) : value,
  ) as Json;
}

function exact(digits: string): number | bigint {
  const number = Number(digits);
  return Number.isSafeInteger(number) ? number : BigInt(digits);
}
