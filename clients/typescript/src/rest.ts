/**
 * The calls that travel as Open Inference REST: what to ask, and how to read the answer. Sends nothing.
 */
import { errorOfHttpStatus, Internal, type KingpoleError, NotFound } from "./errors.js";
import type { HttpRequest, ReadAnswer } from "./http.js";
import { type Json, parseJson } from "./json.js";
import { DATATYPES, type Datatype } from "./tensor.js";
import type { ModelMetadata, ModelState, ServerMetadata, TensorSpec } from "./values.js";

const MAX_ERROR_TEXT_BYTES = 8192;

/** An object of JSON. */
export type Fields = Record<string, Json | undefined>;

/** Where a model is, below the address. */
export function modelPath(model: string, version: string | undefined): string {
  const path = `/v2/models/${encodeURIComponent(model)}`;
  return version === undefined || version === "" ? path : `${path}/versions/${encodeURIComponent(version)}`;
}

/** Asks whether the server lives. */
export const ASK_LIVE: HttpRequest = { method: "GET", path: "/v2/health/live" };

/** Asks who the server is. */
export const ASK_SERVER: HttpRequest = { method: "GET", path: "/v2" };

/** Asks for the repository's index. */
export const ASK_MODELS: HttpRequest = {
  method: "POST",
  path: "/v2/repository/index",
  headers: { "content-type": "application/json" },
  body: [new TextEncoder().encode("{}")],
};

/** Asks whether a model, or without one the server, is ready. */
export function askReady(model: string | undefined, version: string | undefined): HttpRequest {
  const path = model === undefined || model === "" ? "/v2/health" : modelPath(model, version);
  return { method: "GET", path: `${path}/ready` };
}

/** Asks what a model takes and gives. */
export function askMetadata(model: string, version: string | undefined): HttpRequest {
  return { method: "GET", path: modelPath(model, version) };
}

/** Makes the error of an answer whose status is not 200; the text is the server's, at most 8 KiB of it. */
export function errorOfAnswer(answer: ReadAnswer): KingpoleError {
  const text = new TextDecoder().decode(answer.body.subarray(0, MAX_ERROR_TEXT_BYTES)).trim();
  const retryAfter = answer.header("retry-after");
  return errorOfHttpStatus(answer.status, errorText(text) || `HTTP status ${answer.status}`, {
    retryAfterMs: /^\d{1,8}$/.test(retryAfter) ? Number(retryAfter) * 1000 : undefined,
  });
}

function errorText(text: string): string {
  if (!text.startsWith("{")) return text;
  try {
    const document = fields(parseJson(text));
    // Servers made with FastAPI say `detail` for what they refuse themselves.
    const said = document["error"] ?? document["detail"];
    if (said === undefined || said === null) return text;
    return asText(said);
  } catch {
    return text;
  }
}

/** Returns a text as it is, nothing as an empty one, and anything else as JSON. */
export function asText(json: Json | undefined): string {
  if (json === undefined || json === null) return "";
  if (typeof json !== "object") return String(json);
  return JSON.stringify(json, (_name, value: Json) => (typeof value === "bigint" ? value.toString() : value));
}

/**
 * Reads the answer to `askReady` or `ASK_LIVE`.
 *
 * @throws KingpoleError if the server refused to say, or does not know the model.
 */
export function readReady(answer: ReadAnswer): boolean {
  if (answer.status === 200) return true;
  const error = errorOfAnswer(answer);
  // Triton says 400 for a model that is there and not ready.
  if ((answer.status === 400 || answer.status === 503) && !(error instanceof NotFound)) return false;
  throw error;
}

/** Reads who the server is. */
export function readServer(answer: ReadAnswer): ServerMetadata {
  return readable(answer, "the server's metadata", (json) => {
    const document = fields(json);
    return {
      name: text(document, "name"),
      version: text(document, "version"),
      extensions: list(document["extensions"]).map(asText),
      maxFrameBytes: 0,
    };
  });
}

/** Reads what a model takes and gives. */
export function readMetadata(answer: ReadAnswer): ModelMetadata {
  return readable(answer, "the model's metadata", (json) => {
    const document = fields(json);
    return {
      name: text(document, "name"),
      versions: list(document["versions"]).map(asText),
      platform: asText(document["platform"]),
      inputs: list(document["inputs"]).map(tensorSpec),
      outputs: list(document["outputs"]).map(tensorSpec),
      maxBatchSize: undefined,
      description: "",
    };
  });
}

/** Reads the repository's index. */
export function readModels(answer: ReadAnswer): ModelState[] {
  return readable(answer, "the repository's index", (json) =>
    list(json).map((row) => {
      const state = fields(row);
      const version = asText(state["version"]);
      return {
        name: text(state, "name"),
        version: version === "" ? undefined : version,
        state: asText(state["state"]),
        reason: asText(state["reason"]),
      };
    }),
  );
}

function readable<T>(answer: ReadAnswer, what: string, read: (json: Json) => T): T {
  if (answer.status !== 200) throw errorOfAnswer(answer);
  try {
    return read(parseJson(new TextDecoder().decode(answer.body)));
  } catch (error) {
    throw new Internal(`${what} cannot be read: ${String(error)}`, { cause: error });
  }
}

function tensorSpec(json: Json): TensorSpec {
  const spec = fields(json);
  return {
    name: text(spec, "name"),
    datatype: datatype(spec["datatype"]),
    shape: shape(spec["shape"]),
    optional: false,
  };
}

/** Returns a shape as a server says it. */
export function shape(json: Json | undefined): number[] {
  return list(json).map((size) => {
    const number = typeof size === "string" ? Number(size) : size;
    if (typeof number === "number" && Number.isSafeInteger(number)) return number;
    throw new TypeError(`impossible size ${asText(size)}`);
  });
}

/** Returns a datatype as a server says it. */
export function datatype(json: Json | undefined): Datatype {
  if (DATATYPES.includes(json as Datatype)) return json as Datatype;
  throw new TypeError(`unknown datatype ${asText(json).slice(0, 40)}`);
}

/** Returns the fields of what has to be an object. */
export function fields(json: Json | undefined): Fields {
  if (typeof json === "object" && json !== null && !Array.isArray(json)) return json;
  throw new TypeError(`expected an object, got ${json === null ? "null" : typeof json}`);
}

/** Returns the elements of what is a list, or absent. */
export function list(json: Json | undefined): Json[] {
  if (json === undefined || json === null) return [];
  if (Array.isArray(json)) return json;
  throw new TypeError(`expected a list, got ${typeof json}`);
}

function text(document: Fields, name: string): string {
  const value = document[name];
  if (typeof value === "string") return value;
  throw new TypeError(`'${name}' is no text`);
}
