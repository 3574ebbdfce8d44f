/**
 * Inference as Open Inference over HTTP, for servers that take no frames. Sends nothing.
 *
 * The client asks with a frame first. A server that does not know what that is says so before anything has run,
 * and is asked like this from then on: with binary tensors if it offers them, else as JSON.
 */
import { Internal, InvalidArgument, KingpoleError } from "./errors.js";
import { MEDIA_TYPE } from "./frame.js";
import type { HttpRequest, ReadAnswer } from "./http.js";
import { type Json, parseJson } from "./json.js";
import { tensorOfJson, tensorToJson } from "./json-tensors.js";
import { decodeTensor } from "./received.js";
import { type EncodedInput, type InferRequest, parameterMap, type RequestedOutput } from "./request.js";
import { asText, datatype, errorOfAnswer, type Fields, fields, list, modelPath, shape } from "./rest.js";
import type { AnyTensor } from "./tensor.js";
import { InferResponse, NO_TIMING, type Parameter, type ServerMetadata } from "./values.js";

const HEADER_LENGTH = "inference-header-content-length";
// What servers say to a path or a content type that they do not know.
const REFUSALS = [404, 405, 415, 501];
const BINARY_EXTENSIONS = ["binary_tensor_data", "binary_data"];

/** How a server without frames is asked. */
export interface Dialect {
  /** Whether it takes tensors as bytes behind the JSON. */
  readonly isBinary: boolean;
}

/** Returns whether an answer to a frame says that the server knows no frames: then it ran nothing. */
export function refusesFrames(status: number, contentType: string): boolean {
  return REFUSALS.includes(status) && !contentType.startsWith(MEDIA_TYPE);
}

/** Chooses how to ask a server, from what it says of itself. */
export function dialectOf(server: ServerMetadata): Dialect {
  return { isBinary: BINARY_EXTENSIONS.some((name) => server.extensions.includes(name)) };
}

/**
 * Writes a request. Tensors are sent from where they are if the server takes them as bytes.
 *
 * @throws InvalidArgument if JSON cannot hold an input, and the server takes nothing else.
 */
export function encodeInference(request: InferRequest, { isBinary }: Dialect): HttpRequest {
  if (request.model === "") {
    throw new InvalidArgument("this server speaks Open Inference only, where a model must be named");
  }
  const parameters = requestParameters(request);
  if (isBinary && request.outputs.length === 0) parameters.push(["binary_data_output", true]);
  const document = [`"inputs":[${request.inputs.map((input) => inputJson(input, isBinary)).join(",")}]`];
  if (request.id !== undefined) document.push(`"id":${JSON.stringify(request.id)}`);
  if (parameters.length > 0) document.push(`"parameters":${parametersJson(parameters)}`);
  if (request.outputs.length > 0) {
    document.push(`"outputs":[${request.outputs.map((output) => outputJson(output, isBinary)).join(",")}]`);
  }
  const head = new TextEncoder().encode(`{${document.join(",")}}`);
  const path = `${modelPath(request.model, request.version)}/infer`;
  if (!isBinary) {
    return { method: "POST", path, headers: { "content-type": "application/json" }, body: [head] };
  }
  const headers = { "content-type": "application/octet-stream", [HEADER_LENGTH]: String(head.length) };
  const body = [head, ...request.inputs.map(({ bytes }) => bytes).filter(({ length }) => length > 0)];
  return { method: "POST", path, headers, body };
}

function requestParameters(request: InferRequest): [string, Parameter][] {
  const parameters: [string, Parameter][] = [...request.parameters];
  if (request.timeoutUs !== undefined) parameters.push(["timeout", request.timeoutUs]);
  if (request.priority !== 0) parameters.push(["priority", request.priority]);
  if (request.sequence !== undefined) {
    const { id, start = false, end = false } = request.sequence;
    parameters.push(["sequence_id", id], ["sequence_start", start], ["sequence_end", end]);
  }
  return parameters;
}

function parametersJson(parameters: readonly (readonly [string, Parameter])[]): string {
  const written = parameters.map(([name, value]) => {
    if (typeof value === "number" && !Number.isFinite(value)) {
      throw new InvalidArgument(`parameter '${name}': JSON has no ${value}`);
    }
    const json = typeof value === "bigint" ? value.toString() : JSON.stringify(value);
    return `${JSON.stringify(name)}:${json}`;
  });
  return `{${written.join(",")}}`;
}

function inputJson({ name, tensor, bytes }: EncodedInput, isBinary: boolean): string {
  const said = `"name":${JSON.stringify(name)},"datatype":"${tensor.datatype}","shape":[${tensor.shape.join(",")}]`;
  return isBinary
    ? `{${said},"parameters":{"binary_data_size":${bytes.length}}}`
    : `{${said},"data":${tensorToJson(name, tensor)}}`;
}

function outputJson(output: RequestedOutput, isBinary: boolean): string {
  const parameters = [...parameterMap(output.parameters)];
  if (isBinary) parameters.push(["binary_data", true]);
  const name = `"name":${JSON.stringify(output.name)}`;
  return parameters.length > 0 ? `{${name},"parameters":${parametersJson(parameters)}}` : `{${name}}`;
}

/**
 * Reads the answer to what `encodeInference` made; binary outputs are views of it.
 *
 * @throws KingpoleError: the server's error, or `Internal` for an answer that makes no sense.
 */
export function decodeInference(answer: ReadAnswer): InferResponse {
  if (answer.status !== 200) throw errorOfAnswer(answer);
  const { head, binary } = splitBody(answer);
  try {
    const document = fields(parseJson(new TextDecoder("utf-8", { fatal: true }).decode(head)));
    return new InferResponse(
      asText(document["model_name"]),
      asText(document["model_version"]),
      typeof document["id"] === "string" ? document["id"] : undefined,
      outputsOf(document, binary),
      parametersOf(document),
      NO_TIMING,
      "only",
    );
  } catch (error) {
    if (error instanceof KingpoleError) throw error;
    throw new Internal(`the server's answer cannot be read: ${String(error)}`, { cause: error });
  }
}

function splitBody(answer: ReadAnswer): { head: Uint8Array; binary: Uint8Array } {
  const { body } = answer;
  const length = answer.header(HEADER_LENGTH);
  if (length === "") return { head: body, binary: body.subarray(body.length) };
  if (!/^\d{1,15}$/.test(length) || Number(length) > body.length) {
    throw new Internal(`${HEADER_LENGTH} is '${length.slice(0, 40)}', the answer has ${body.length} bytes`);
  }
  return { head: body.subarray(0, Number(length)), binary: body.subarray(Number(length)) };
}

function outputsOf(document: Fields, binary: Uint8Array): Map<string, AnyTensor> {
  const outputs = new Map<string, AnyTensor>();
  let rest = binary;
  for (const json of list(document["outputs"])) {
    const output = fields(json);
    const name = asText(output["name"]);
    if (outputs.has(name)) throw new Internal(`output '${name}' is there twice`);
    const nbytes = fields(output["parameters"] ?? {})["binary_data_size"];
    if (nbytes === undefined) {
      outputs.set(
        name,
        tensorOfJson(name, datatype(output["datatype"]), shape(output["shape"]), output["data"]),
      );
      continue;
    }
    if (typeof nbytes !== "number" || !Number.isInteger(nbytes) || nbytes < 0 || nbytes > rest.length) {
      throw new Internal(`output '${name}': binary_data_size ${asText(nbytes)} passes the end of the answer`);
    }
    const bytes = rest.subarray(0, nbytes);
    outputs.set(name, decodeTensor(name, datatype(output["datatype"]), shape(output["shape"]), bytes));
    rest = rest.subarray(nbytes);
  }
  return outputs;
}

function parametersOf(document: Fields): Map<string, Parameter> {
  const parameters = new Map<string, Parameter>();
  for (const [name, value] of Object.entries(fields(document["parameters"] ?? {}))) {
    if (isParameter(value)) parameters.set(name, value);
  }
  return parameters;
}

function isParameter(value: Json | undefined): value is Parameter {
  return ["boolean", "number", "bigint", "string"].includes(typeof value);
}
