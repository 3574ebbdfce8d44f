/** The conformance program: protocol/conformance/README.md. */
import type { Client } from "../src/client.js";
import { errors, models, refusals, server } from "./asking.js";
import { FETCH, NotApplicable, withClient } from "./connecting.js";
import { hostile, tls, token } from "./distrust.js";
import { encode } from "./encodings.js";
import { cancel, deadline, killed } from "./ending.js";
import { large, pipeline, sequence, stream } from "./many.js";
import { datatypes, parameters, shapes } from "./values.js";

const NOT_APPLICABLE = 77;

/** What any server of Open Inference gives. */
async function openInference(client: Client): Promise<void> {
  await datatypes(client);
  await shapes(client);
  await models(client);
  await refusals(client);
}

const CASES: Readonly<Record<string, (client: Client, extra: string | undefined) => Promise<void>>> = {
  server,
  datatypes,
  shapes,
  parameters,
  errors,
  deadline,
  cancel,
  stream,
  sequence,
  pipeline,
  large,
  killed,
  "open-inference": openInference,
};

/** Cases that make their clients themselves. */
const OWN_CLIENTS: Readonly<Record<string, (url: string, extra: string | undefined) => Promise<void>>> = {
  hostile,
  tls,
  token,
};

async function run(name: string, url: string, extra: string | undefined): Promise<void> {
  const own = OWN_CLIENTS[name];
  if (own !== undefined) return own(url, extra);
  const check = CASES[name];
  if (check === undefined) throw new NotApplicable(`this client has no case ${name}`);
  await withClient(url, (client) => check(client, extra));
}

const [name = "", first = "", second] = process.argv.slice(2);
if (name === "transports") {
  console.log(`http grpc frame unix ${FETCH}http`);
} else if (name === "encode") {
  encode(first, second ?? "");
} else {
  try {
    await run(name, first, second);
  } catch (error) {
    console.log(error instanceof NotApplicable ? error.message : error);
    process.exitCode = error instanceof NotApplicable ? NOT_APPLICABLE : 1;
  }
}
