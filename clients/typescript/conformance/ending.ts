/** The cases about how a request ends before its answer: deadline, cancellation, a killed server. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import type { Client } from "../src/client.js";
import { checkEcho, errorOf, fp32 } from "./connecting.js";

async function timed(
  call: Promise<unknown>,
): Promise<{ error: Error & { code?: unknown }; seconds: number }> {
  const started = performance.now();
  const error = await errorOf(call);
  return { error, seconds: (performance.now() - started) / 1000 };
}

function sleeping(client: Client, seconds: number, options = {}): Promise<unknown> {
  return client.infer("sleeps", { x: fp32([1]) }, { parameters: { seconds }, ...options });
}

/** Waits for a file that another program writes. */
export async function awaitFile(path: string | undefined, limitMs: number): Promise<void> {
  if (path === undefined) return;
  const until = performance.now() + limitMs;
  while (!existsSync(path)) {
    assert.ok(performance.now() < until, `${path} within ${limitMs} ms`);
    await sleep(20);
  }
}

/** A timeout ends the request in time. */
export async function deadline(client: Client): Promise<void> {
  const { error, seconds } = await timed(sleeping(client, 5, { timeoutMs: 300 }));
  assert.equal(error.code, "DEADLINE_EXCEEDED", String(error));
  assert.ok(seconds >= 0.25 && seconds <= 2, `after 0.25 to 2 s, was ${seconds}`);
  await checkEcho(client);
}

/** An `AbortSignal` ends the request, here and at the server. */
export async function cancel(client: Client, heard: string | undefined): Promise<void> {
  const controller = new AbortController();
  setTimeout(() => {
    controller.abort();
  }, 200);
  const { error, seconds } = await timed(sleeping(client, 30, { signal: controller.signal }));
  assert.equal(error.name, "AbortError", String(error));
  assert.ok(seconds <= 2, `within 2 s, was ${seconds}`);
  await checkEcho(client);
  await awaitFile(heard, 5000);
}

/** A server that is killed is UNAVAILABLE, and the same client finds the next one. */
export async function killed(client: Client): Promise<void> {
  await checkEcho(client);
  const call = sleeping(client, 60);
  setTimeout(() => {
    console.log("waiting");
  }, 300);
  const { error, seconds } = await timed(call);
  assert.equal(error.code, "UNAVAILABLE", String(error));
  assert.ok(seconds <= 5.3, `within 5 s, was ${seconds}`);
  console.log("lost");
  const until = performance.now() + 20_000;
  for (;;) {
    try {
      await checkEcho(client);
      return;
    } catch (failure) {
      if (performance.now() > until) throw failure;
      await sleep(100);
    }
  }
}
