/** The golden vectors, and their values in the form that the tests compare. */
import { readdirSync, readFileSync } from "node:fs";

import { parseJson } from "../../src/json.js";

/** A golden vector of `protocol/vectors`. */
export interface Vector {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly headerLength: number | null;
  readonly canonical: boolean;
  readonly value: { readonly exchange: number; readonly message: Record<string, unknown> } | undefined;
  readonly response: unknown;
  readonly error: { readonly code: string; readonly message: string } | undefined;
}

const DIRECTORY = new URL("../../../../../protocol/vectors/", import.meta.url);

/** Reads every vector whose name begins so; there must be some. */
export function vectors(prefix: string, directory: URL = DIRECTORY): Vector[] {
  const names = readdirSync(directory).filter((name) => name.startsWith(prefix) && name.endsWith(".json"));
  if (names.length === 0) throw new Error(`no vector ${prefix}* in ${directory.href}`);
  return names.sort().map((file) => {
    const document = parseJson(readFileSync(new URL(file, directory), "utf8")) as unknown as {
      hex: string;
      header_length: number | null;
      canonical: boolean;
      value?: Vector["value"] & { response?: unknown };
      error?: Vector["error"];
    };
    return {
      name: file.slice(0, -".json".length),
      bytes: Uint8Array.from(Buffer.from(document.hex, "hex")),
      headerLength: document.header_length,
      canonical: document.canonical,
      value: document.value,
      response: document.value?.response,
      error: document.error,
    };
  });
}
