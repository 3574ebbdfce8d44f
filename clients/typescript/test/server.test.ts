/** The conformance cases that take no long time, over every transport, against the real server. */
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { errors, server as info } from "../conformance/asking.js";
import { FETCH, withClient } from "../conformance/connecting.js";
import { cancel, deadline } from "../conformance/ending.js";
import { sequence, stream } from "../conformance/many.js";
import { datatypes, parameters, shapes } from "../conformance/values.js";
import { MODELS, skipsServer, type Started, startServer } from "./support/processes.js";

const CASES = { info, datatypes, shapes, parameters, errors, deadline, cancel, stream, sequence };
const SOCKET = join(tmpdir(), `kingpole-ts-${process.pid}`);

describe("against the real server", { skip: skipsServer }, () => {
  let server: Started;

  before(async () => {
    server = await startServer(MODELS, "--listen", `unix:${SOCKET}`);
  });
  after(async () => {
    await server.stop();
    rmSync(SOCKET, { force: true });
  });

  const urls: Readonly<Record<string, (http: string) => string>> = {
    http: (http) => http,
    fetch: (http) => FETCH + http,
    grpc: (http) => http.replace("http", "grpc"),
    frame: (http) => http.replace("http", "frame"),
    unix: () => `unix:${SOCKET}`,
  };
  for (const [transport, urlOf] of Object.entries(urls)) {
    for (const [name, check] of Object.entries(CASES)) {
      test(`${name} over ${transport} is as it should be`, async () => {
        await withClient(urlOf(server.found[1] ?? ""), (client) => check(client, undefined));
      });
    }
  }
});
