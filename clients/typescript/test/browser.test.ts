/** The client in a real browser against the real server: one origin behind the example's site, and two with CORS. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, describe, test } from "node:test";

import type { Page } from "playwright-core";

import { skipsChromium, withChromium } from "./support/chromium.js";
import { KINGPOLE, MODELS, skipsServer, type Started, startServer, startSite } from "./support/processes.js";

const skip = skipsServer || skipsChromium;
const skipsCors = skip || (!serverHelp().includes("--cors-origin") && "this server has no --cors-origin");

function serverHelp(): string {
  const [program = "", ...parameters] = (KINGPOLE ?? "").split(" ");
  return execFileSync(program, [...parameters, "serve", "--help"], { encoding: "utf8" });
}

/** What the page runs: a body of an asynchronous function with the client's names, `connect` and `Tensor` among them. */
function inPage<T>(page: Page, server: string, body: string): Promise<T> {
  const program = `(async () => {
    const kingpole = await import("/client/index.js");
    const { connect, Tensor } = kingpole;
    const client = connect(${JSON.stringify(server)});
    const x = new Tensor("FP32", [1, 2], Float32Array.of(1, 2));
    const caught = (call) => call.then(() => "no error", (error) => error.code + ": " + error.message);
    ${body}
  })()`;
  return page.evaluate<T>(program);
}

async function withPage(site: string, use: (page: Page) => Promise<void>): Promise<void> {
  await withChromium(async (context) => {
    const page = await context.newPage();
    await page.goto(site);
    await use(page);
  });
}

describe("in Chromium, behind one origin", { skip }, () => {
  let server: Started;
  let site: Started;

  before(async () => {
    server = await startServer(MODELS);
    site = await startSite(server.found[1] ?? "");
  });
  after(async () => {
    await site.stop();
    await server.stop();
  });

  test("infers, streams, fails, gives up and is on time", async () => {
    const origin = site.found[1] ?? "";
    await withPage(origin, async (page) => {
      const run = <T>(body: string) => inPage<T>(page, origin, body);
      assert.deepEqual(
        await run(`return [...(await client.infer("echo-fp32", { x })).output("x", "FP32").data]`),
        [1, 2],
      );
      assert.deepEqual(
        await run(`
          const y = Tensor.fp16([0.5, -2, 65504, 1e-7], [2, 2]);
          const back = (await client.infer("echo-fp16", { x: y })).output("x");
          return [back.data.constructor.name === (globalThis.Float16Array ?? Uint16Array).name, ...back.floats()]`),
        [true, 0.5, -2, 65504, 1.1920928955078125e-7],
      );
      assert.equal(
        await run(`
          const long = new Tensor("INT64", [1, 1], BigInt64Array.of(-(2n ** 63n)));
          return String((await client.infer("echo-int64", { x: long })).output("x").data[0])`),
        "-9223372036854775808",
      );
      assert.equal(
        await run(`
          const values = new Float32Array(5_000_000).map((_, index) => index);
          const large = new Tensor("FP32", [1000, 5000], values);
          const { data } = (await client.infer("echo-fp32", { x: large })).output("x", "FP32");
          return data.every((value, index) => value === index)`),
        true,
      );
      assert.deepEqual(
        await run(`
          const count = new Tensor("INT32", [1], Int32Array.of(1_000_000));
          const taken = [];
          for await (const response of client.stream("count", { count })) {
            taken.push(response.output("value").data[0]);
            if (taken.length === 3) break;
          }
          return taken`),
        [0, 1, 2],
      );
      assert.match(await run(`return caught(client.infer("absent", { x }))`), /^NOT_FOUND: .*absent/);
      assert.match(
        await run(
          `return caught(client.infer("sleeps", { x }, { parameters: { seconds: 5 }, timeoutMs: 200 }))`,
        ),
        /^DEADLINE_EXCEEDED: /,
      );
      assert.equal(
        await run(`
          const signal = AbortSignal.timeout(100);
          try {
            await client.infer("sleeps", { x }, { parameters: { seconds: 5 }, signal });
          } catch (error) {
            return error === signal.reason && error.name;
          }`),
        "TimeoutError",
      );
      assert.equal(
        await run(`
          const requests = Array.from({ length: 200 }, () => ({ x }));
          let answered = 0;
          for await (const response of client.inferMany("echo-fp32", requests, { inFlight: 6 })) answered++;
          return answered`),
        200,
      );
      assert.equal(await run(`return client.ready("absent")`), false);
    });
  });
});

describe("in Chromium, from another origin", { skip: skipsCors }, () => {
  const ask = `return caught(client.infer("describe", { x }, { parameters: { a: 1 } })
    .then((response) => Promise.reject({ code: "OK", message: response.output("text").texts()[0] })))`;

  test("a server without --cors-origin is refused by the browser, and the text names CORS", async () => {
    const server = await startServer(MODELS);
    const site = await startSite(server.found[1] ?? "");
    try {
      await withPage(site.found[1] ?? "", async (page) => {
        assert.match(await inPage(page, server.found[1] ?? "", ask), /^UNAVAILABLE: .*CORS/);
      });
    } finally {
      await site.stop();
      await server.stop();
    }
  });

  test("a server that allows the page's origin is asked directly, also with a token", async () => {
    // The page's origin has to be known before the server that allows it starts.
    const site = await startSite("http://127.0.0.1:9");
    const origin = site.found[1] ?? "";
    const server = await startServer(
      MODELS,
      "--cors-origin",
      origin,
      "--http-header-forward-pattern",
      "^authorization$",
    );
    const direct = server.found[1] ?? "";
    try {
      await withPage(origin, async (page) => {
        assert.equal(await inPage(page, direct, ask), 'OK: {"a": 1}');
        const withToken = ask.replace(
          "client.infer",
          `connect(${JSON.stringify(direct)}, { token: "abc" }).infer`,
        );
        assert.match(await inPage(page, direct, withToken), /^OK: .*"authorization": "Bearer abc"/);
        assert.match(
          await inPage(page, direct, `return caught(client.infer("absent", { x }))`),
          /^NOT_FOUND: /,
        );
        assert.deepEqual(
          await inPage(
            page,
            direct,
            `const taken = [];
             const count = new Tensor("INT32", [1], Int32Array.of(3));
             for await (const response of client.stream("count", { count })) taken.push(response.output("value").data[0]);
             return taken`,
          ),
          [0, 1, 2],
        );
      });
    } finally {
      await site.stop();
      await server.stop();
    }
  });
});
