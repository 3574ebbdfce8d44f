/** The cases about servers that lie, and about trust. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { KingpoleError } from "../src/errors.js";
import {
  checkEcho,
  checkFails,
  clientOf,
  errorOf,
  FETCH,
  fp32,
  NotApplicable,
  withClient,
} from "./connecting.js";

const REQUESTS = 50;
const LIMIT_BYTES = 16 * 1024 * 1024;
const GROWTH_BYTES = 64_000_000;

/** Whatever a server sends, a request ends in time with an error of ours, and memory stays bounded. */
export async function hostile(url: string): Promise<void> {
  const before = process.memoryUsage().rss;
  let most = before;
  const watching = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss);
  }, 5);
  const client = clientOf(url, { maxFrameBytes: LIMIT_BYTES, timeoutMs: 5000 });
  for (let index = 0; index < REQUESTS; index++) {
    const started = performance.now();
    const error = await errorOf(client.infer("echo-fp32", { x: fp32([1, 2, 3]) }));
    assert.ok(error instanceof KingpoleError, `request ${index} ended with ${String(error)}`);
    const seconds = (performance.now() - started) / 1000;
    assert.ok(seconds < 10, `request ${index} ended after ${seconds} s with ${String(error)}`);
  }
  client.close();
  clearInterval(watching);
  const grown = Math.max(most, process.memoryUsage().rss) - before;
  assert.ok(grown < GROWTH_BYTES, `memory grew by less than ${GROWTH_BYTES} bytes, was ${grown}`);
}

/** A server is trusted if its authority is; else the error says why. */
export async function tls(url: string, file: string | undefined): Promise<void> {
  if (url.startsWith(FETCH)) throw new NotApplicable("fetch trusts what its platform trusts");
  const rootCertificates = readFileSync(file ?? "");
  await withClient(url, checkEcho, { rootCertificates });
  await withClient(url, async (client) => {
    const call = client.infer("echo-fp32", { x: fp32([1]) }, { timeoutMs: 10_000 });
    await checkFails(call, "UNAVAILABLE", "certificate");
  });
}

/** A token reaches the server. */
export async function token(url: string): Promise<void> {
  await withClient(
    url,
    async (client) => {
      const response = await client.infer("describe", { x: fp32([1]) });
      const [said = ""] = response.output("text", "BYTES").texts();
      assert.deepEqual(JSON.parse(said), { authorization: "Bearer abc" });
    },
    { token: "abc" },
  );
}
