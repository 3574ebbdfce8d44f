/** Every request of the vectors, written to files for other languages to read. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { encodeRequest } from "../src/encode.js";
import { joinBuffers } from "../src/frame.js";
import { type DescribedRequest, rebuildRequest } from "../test/support/rebuild.js";
import { vectors } from "../test/support/vectors.js";

/** Writes `OUT/NAME.bin` for each `frame-request-*.json` that is no error and whose tensors travel in the frame. */
export function encode(directory: string, out: string): void {
  mkdirSync(out, { recursive: true });
  for (const { name, value } of vectors("frame-request-", pathToFileURL(`${directory}/`))) {
    if (value === undefined || (value.message["shared"] as unknown[]).length > 0) continue;
    const request = rebuildRequest(value.message["request"] as DescribedRequest);
    writeFileSync(join(out, `${name}.bin`), joinBuffers(encodeRequest(request, value.exchange)));
  }
}
