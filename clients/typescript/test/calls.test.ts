/** What a client does with a call before it reaches a transport: checks, retries, patience, order. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { parseAddress } from "../src/address.js";
import { Client } from "../src/client.js";
import {
  DeadlineExceeded,
  InvalidArgument,
  KingpoleError,
  ResourceExhausted,
  Unavailable,
  Unimplemented,
} from "../src/errors.js";
import { connect as connectByFetch } from "../src/index.js";
import { connect } from "../src/node/index.js";
import { pause } from "../src/patience.js";
import { type InferRequest, makeRequest } from "../src/request.js";
import { delayBeforeRetry, withRetries } from "../src/retries.js";
import { Tensor } from "../src/tensor.js";
import type { Transport } from "../src/transport.js";
import { InferResponse, NO_TIMING } from "../src/values.js";

const x = new Tensor("FP32", [1], new Float32Array(1));
const response = new InferResponse("m", "1", undefined, new Map([["x", x]]), new Map(), NO_TIMING, "only");

/** A transport that answers inference as it is told, and nothing else. */
function answering(
  infer: (request: InferRequest, signal?: AbortSignal) => Promise<InferResponse>,
): Transport {
  const refuse = () => Promise.reject(new Unimplemented("not in this test"));
  const others = {
    open: refuse,
    live: refuse,
    ready: refuse,
    server: refuse,
    metadata: refuse,
    models: refuse,
  };
  return { ...others, infer, close: () => undefined };
}

test("only what cannot have run is tried again", () => {
  assert.equal(delayBeforeRetry(new ResourceExhausted("full", { retryAfterMs: 50 }), 0), 50);
  assert.equal(delayBeforeRetry(new ResourceExhausted("too long"), 0), undefined);
  assert.equal(delayBeforeRetry(new Unavailable("broke"), 0), undefined);
  assert.equal(delayBeforeRetry(new DeadlineExceeded("late", { neverSent: true }), 0), undefined);
  assert.equal(delayBeforeRetry(new Error("else"), 0), undefined);
  const delay = delayBeforeRetry(new Unavailable("refused", { neverSent: true }), 1) ?? 0;
  assert.ok(delay >= 100 && delay <= 200, `${delay}`);
});

test("a call is tried again as often as it may be, and no longer than it is wanted", async () => {
  let tries = 0;
  const refused = () => {
    tries++;
    return Promise.reject(new ResourceExhausted("full", { retryAfterMs: 1 }));
  };
  await assert.rejects(withRetries(refused, 0, undefined), ResourceExhausted);
  assert.equal(tries, 1);
  await assert.rejects(withRetries(refused, 2, undefined), ResourceExhausted);
  assert.equal(tries, 4);
  const later = () => Promise.reject(new ResourceExhausted("full", { retryAfterMs: 60_000 }));
  await assert.rejects(withRetries(later, 5, AbortSignal.timeout(20)), { name: "TimeoutError" });
});

test("the time that earlier tries took is gone for the server too", async () => {
  const told: number[] = [];
  const client = new Client(
    answering((request) => {
      told.push(request.timeoutUs ?? 0);
      if (told.length === 1) return Promise.reject(new ResourceExhausted("full", { retryAfterMs: 60 }));
      return Promise.resolve(response);
    }),
    { retries: 1 },
  );
  await client.infer("m", { x }, { timeoutMs: 500 });
  assert.equal(told[0], 500_000);
  assert.ok((told[1] ?? 0) <= 445_000 && (told[1] ?? 0) > 0, String(told));
});

test("a transport that says nothing is given up a quarter of a second after the timeout", async () => {
  const client = new Client(
    answering(
      (_request, signal) =>
        new Promise((_resolve, reject) => {
          signal?.addEventListener("abort", () => {
            reject(signal.reason);
          });
        }),
    ),
    { timeoutMs: 50 },
  );
  const started = performance.now();
  await assert.rejects(client.infer("m", { x }), DeadlineExceeded);
  const ms = performance.now() - started;
  assert.ok(ms >= 290 && ms < 1500, `${ms}`);
});

test("many are asked for in order, no more at once than allowed, and the rest is given up after an error", async () => {
  let open = 0;
  let most = 0;
  let asked = 0;
  let givenUp = 0;
  const client = new Client(
    answering(async (request, signal) => {
      const index = asked++;
      most = Math.max(most, ++open);
      signal?.addEventListener("abort", () => givenUp++, { once: true });
      // Later ones are faster, so that order is the client's doing.
      await new Promise((resolve) => setTimeout(resolve, index % 2 === 0 ? 4 : 1));
      open--;
      if (request.inputs.length === 0) throw new InvalidArgument("nothing");
      return new InferResponse("m", String(index), undefined, new Map(), new Map(), NO_TIMING, "only");
    }),
    {},
  );
  const order: string[] = [];
  for await (const { version } of client.inferMany("m", Array(20).fill({ x }), { inFlight: 5 }))
    order.push(version);
  assert.deepEqual(
    order,
    Array.from({ length: 20 }, (_, index) => String(index)),
  );
  assert.equal(most, 5);
  const failing = async () => {
    for await (const one of client.inferMany("m", [{}, { x }, { x }, { x }], { inFlight: 4 }))
      assert.fail(one.version);
  };
  await assert.rejects(failing(), InvalidArgument);
  assert.ok(givenUp > 0);
});

test("what cannot be asked is refused before it is sent", () => {
  const refused = (options: object, text: RegExp, inputs: object = { x }) => {
    assert.throws(
      () => makeRequest("m", inputs as never, options, undefined),
      (error) => error instanceof InvalidArgument && text.test(error.message),
    );
  };
  refused({ timeoutMs: 0 }, /timeoutMs is 0/);
  refused({ timeoutMs: NaN }, /timeoutMs is NaN/);
  refused({ timeoutMs: Infinity }, /timeoutMs is Infinity/);
  refused({ priority: -1 }, /priority is -1/);
  refused({ sequence: { id: 0 } }, /sequence's id is 0/);
  refused({ sequence: { id: "" } }, /sequence's id is/);
  refused({ outputs: "x" }, /list of names/);
  refused({}, /input 'x' is no Tensor/, { x: [1, 2] });
});

test("addresses are read, and each way that they can be wrong is named", () => {
  const read = (url: string) => {
    const { scheme, host, port, prefix, path } = parseAddress(url);
    return [scheme, host, port, prefix, path];
  };
  assert.deepEqual(read("http://localhost"), ["http", "localhost", 80, "", ""]);
  assert.deepEqual(read("https://models.example.org/a/b/"), ["https", "models.example.org", 443, "/a/b", ""]);
  assert.deepEqual(read("grpc://[::1]:9000"), ["grpc", "::1", 9000, "", ""]);
  assert.deepEqual(read("frame://host"), ["frame", "host", 8000, "", ""]);
  assert.deepEqual(read("grpc://host:80"), ["grpc", "host", 80, "", ""]);
  assert.deepEqual(read("unix:/run/s"), ["unix", "", 0, "", "/run/s"]);
  for (const url of [
    "",
    "host:80",
    "ftp://host",
    "unix:",
    "http://u:p@host",
    "http://host?q",
    "grpc://host/a",
    "http://",
  ]) {
    assert.throws(() => parseAddress(url), InvalidArgument, url);
  }
});

test("a client is refused what its transport has no place for", () => {
  assert.throws(() => connect("unix:/run/s", { token: "abc" }), InvalidArgument);
  assert.throws(() => connect("http://host", { token: "a\nb" }), InvalidArgument);
  assert.throws(() => connect("http://host", { rootCertificates: "x" }), InvalidArgument);
  assert.throws(() => connect("https://host", { rootCertificates: "no certificate" }), InvalidArgument);
  assert.throws(() => connect("http://host", { retries: -1 }), InvalidArgument);
  assert.throws(() => connectByFetch("grpc://host"), Unimplemented);
});

test("where nobody listens the error is UNAVAILABLE, and says that nothing was sent", async () => {
  for (const url of [
    "http://127.0.0.1:9",
    "frame://127.0.0.1:9",
    "grpc://127.0.0.1:9",
    "unix:/nowhere/at/all",
  ]) {
    const client = connect(url, { timeoutMs: 5000 });
    await assert.rejects(
      client.infer("m", { x }),
      (error) => error instanceof Unavailable && error.neverSent,
      url,
    );
    assert.equal(await client.live(), false);
    client.close();
    await assert.rejects(client.infer("m", { x }), KingpoleError);
  }
});

test("a signal that many calls share is listened to once, and not at all when they are over", async () => {
  const controller = new AbortController();
  const { signal } = controller;
  let listeners = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...given: Parameters<typeof add>) => {
    listeners++;
    add(...given);
  };
  signal.removeEventListener = (...given: Parameters<typeof remove>) => {
    listeners--;
    remove(...given);
  };
  const client = new Client(
    answering(async (_request, given) => {
      await pause(5, given);
      return response;
    }),
    { timeoutMs: 10_000 },
  );
  const calls = Array.from({ length: 30 }, () => client.infer("m", { x }, { signal }));
  assert.equal(listeners, 1);
  await Promise.all(calls);
  assert.equal(listeners, 0);
  const givenUp = client.infer("m", { x }, { signal });
  controller.abort(new Error("enough"));
  await assert.rejects(givenUp, /enough/);
  await assert.rejects(client.infer("m", { x }, { signal }), /enough/);
});
