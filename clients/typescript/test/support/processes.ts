/** The real server, and the site of the example, as processes that end with the test. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** The root of the repository. */
export const ROOT = fileURLToPath(new URL("../../../../../", import.meta.url));
/** The folder of this client. */
export const CLIENT = fileURLToPath(new URL("../../../", import.meta.url));
/** The models that the conformance cases ask. */
export const MODELS = `${ROOT}protocol/conformance/models`;

const START_LIMIT_MS = 60_000;

/** The server's command, as the environment says it. */
export const KINGPOLE = process.env["KINGPOLE"];
/** Why tests against the real server are skipped, false if they are not. */
export const skipsServer: string | false =
  KINGPOLE === undefined
    ? "KINGPOLE does not say the server's command"
    : !existsSync(MODELS) && "the models of the conformance cases are not here";

/** A process, and what was found in its lines. */
export interface Started {
  readonly found: RegExpExecArray;
  stop(): Promise<void>;
}

/** Starts a program and waits for a line; all others are read and kept for the error. */
async function start(command: readonly string[], wanted: RegExp, last: RegExp): Promise<Started> {
  const [program = "", ...parameters] = command;
  const child = spawn(program, parameters, { stdio: ["ignore", "pipe", "pipe"] });
  // A test that fails before it stops what it started must end all the same, and take it along.
  child.unref();
  for (const output of [child.stdout, child.stderr]) (output as unknown as { unref(): void }).unref();
  process.once("exit", () => child.kill("SIGKILL"));
  const lines: string[] = [];
  let found: RegExpExecArray | undefined;
  await new Promise<void>((resolve, reject) => {
    const fail = (why: string) => {
      reject(new Error(`${command.join(" ")} ${why}:\n${lines.join("\n")}`));
    };
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      fail("did not start");
    }, START_LIMIT_MS);
    child.on("error", reject);
    child.on("exit", () => {
      clearTimeout(timer);
      fail("ended");
    });
    for (const output of [child.stdout, child.stderr]) {
      createInterface(output).on("line", (line) => {
        lines.push(line);
        found ??= wanted.exec(line) ?? undefined;
        if (found !== undefined && last.test(line)) {
          clearTimeout(timer);
          resolve();
        }
      });
    }
  });
  return { found: found as unknown as RegExpExecArray, stop: () => stop(child) };
}

function stop(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) {
      resolve();
      return;
    }
    child.ref();
    child.once("exit", () => {
      resolve();
    });
    child.kill("SIGTERM");
  });
}

/** Starts the server; `found[1]` is its URL over HTTP. */
export function startServer(models: string, ...more: readonly string[]): Promise<Started> {
  const command = [...(KINGPOLE ?? "").split(" "), "serve", models];
  const listening = ["--listen", "127.0.0.1:0", "--management", "off"];
  return start([...command, ...listening, ...more], /listens on (http:\/\/[\d.]+:\d+)/, /^ready,/);
}

/** Starts the site of the example before a server; `found[1]` is its URL. */
export function startSite(backend: string): Promise<Started> {
  const program = `${CLIENT}examples/browser/serve.mjs`;
  const url = /^(http:\/\/[\d.]+:\d+)/;
  return start([process.execPath, program, "--backend", backend, "--port", "0"], url, url);
}
