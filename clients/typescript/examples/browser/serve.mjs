/**
 * Serves the page, and passes what it asks on to a Kingpole server, so that both have one origin:
 * `node serve.mjs [--backend http://localhost:8000] [--port 8080]`. Needs `npm run build` once.
 *
 * A page of another origin asks the server directly if that was started with `--cors-origin`.
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import http from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const CLIENT = join(HERE, "../..");
const LABELS = join(CLIENT, "../../server/kingpole/demo/labels.txt");
const FOLDERS = [
  ["/client/", join(CLIENT, "dist")],
  ["/flatbuffers/", join(CLIENT, "node_modules/flatbuffers/mjs")],
  ["/", HERE],
];
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".txt": "text/plain; charset=utf-8",
};

const { values } = parseArgs({
  options: {
    backend: { type: "string", default: "http://localhost:8000" },
    port: { type: "string", default: "8080" },
  },
});
const backend = new URL(values.backend);

/** Passes a request on as it is, and its answer back as it comes. */
function pass(request, response) {
  const { method, url: path, headers } = request;
  const { hostname: host, port } = backend;
  const onward = http.request({ host, port, method, path, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on("error", (error) => {
    if (response.headersSent) response.destroy();
    else
      response
        .writeHead(502, { "content-type": "text/plain" })
        .end(`cannot ask ${backend.href}: ${error.message}`);
  });
  // Who leaves early is heard of behind too.
  response.on("close", () => onward.destroy());
  request.pipe(onward);
}

function fileOf(path) {
  if (path === "/") return join(HERE, "index.html");
  if (path === "/labels.txt") return LABELS;
  const [prefix, folder] = FOLDERS.find(([start]) => path.startsWith(start));
  const file = normalize(join(folder, path.slice(prefix.length)));
  return file.startsWith(folder) ? file : HERE;
}

const server = http.createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  if (/^\/v[12](\/|$)/.test(pathname)) return pass(request, response);
  const file = fileOf(pathname);
  const found = await stat(file).catch(() => undefined);
  if (!found?.isFile()) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" });
  return createReadStream(file).pipe(response);
});
server.listen(Number(values.port), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
