/**
 * Frames to what a server says in them. Knows the schema, not how frames travel.
 */
import { errorOfNumber, type KingpoleError, MalformedFrame, Unimplemented } from "./errors.js";
import type { Table } from "./flatbuffer.js";
import type { Frame } from "./frame.js";
import {
  CreditSlots,
  Datatype as Numbers,
  ErrorSlots,
  HeaderSlots,
  Location,
  Message,
  MetadataSlots,
  ParameterKind,
  ParameterSlots,
  ReadySlots,
  ResponseSlots,
  ServerInfoSlots,
  Stage as Stages,
  TensorSlots,
  TensorSpecSlots,
} from "./generated/schema.js";
import { decodeTensor } from "./received.js";
import type { AnyTensor, Datatype } from "./tensor.js";
import {
  InferResponse,
  type ModelMetadata,
  type Parameter,
  type ServerMetadata,
  type Stage,
  type TensorSpec,
} from "./values.js";

/** What a server says in a frame. An error is a value here, for whoever asked to throw. */
export type Answer =
  | { readonly kind: "response"; readonly response: InferResponse }
  | { readonly kind: "error"; readonly error: KingpoleError }
  | { readonly kind: "credit"; readonly requests: number }
  | { readonly kind: "ready"; readonly ready: boolean }
  | { readonly kind: "server"; readonly server: ServerMetadata }
  | { readonly kind: "metadata"; readonly metadata: ModelMetadata }
  | { readonly kind: "done" };

const DATATYPE_NAMES = new Map<number, Datatype>(
  Object.entries(Numbers)
    .filter(([name]) => name !== "NONE")
    .map(([name, number]) => [number, name as Datatype]),
);
const STAGES = new Map<number, Stage>([
  [Stages.ONLY, "only"],
  [Stages.PART, "part"],
  [Stages.END, "end"],
]);

/** Returns the number that ties an answer to its request. No number of ours needs a bigint. */
export function exchangeOf(frame: Frame): number | bigint {
  return frame.header.uint64(HeaderSlots.exchange);
}

/**
 * Reads what a server sent. Outputs are views of the frame.
 *
 * @throws KingpoleError if the frame is malformed or says something that a server does not say.
 */
export function decodeAnswer(frame: Frame): Answer {
  const kind = frame.header.uint8(HeaderSlots.messageType);
  const message = frame.header.table(HeaderSlots.message);
  if (message === undefined) throw new MalformedFrame(`a frame's message of kind ${kind} is absent`);
  switch (kind) {
    case Message.Response:
      return { kind: "response", response: response(message, frame.payloads) };
    case Message.Error:
      return { kind: "error", error: error(message) };
    case Message.Credit:
      return { kind: "credit", requests: message.uint32(CreditSlots.requests) };
    case Message.Ready:
      return { kind: "ready", ready: message.uint8(ReadySlots.ready) !== 0 };
    case Message.ServerInfo:
      return { kind: "server", server: serverInfo(message) };
    case Message.Metadata:
      return { kind: "metadata", metadata: metadata(message) };
    case Message.Done:
      return { kind: "done" };
    default:
      throw new Unimplemented(`the server sent a message of kind ${kind}, which this client does not know`);
  }
}

function response(table: Table, payloads: readonly Uint8Array[]): InferResponse {
  const outputs = new Map<string, AnyTensor>();
  for (const [position, tensor] of table.tables(ResponseSlots.outputs).entries()) {
    const given = tensor.string(TensorSlots.name);
    const name = given === undefined || given === "" ? String(position) : given;
    if (outputs.has(name)) throw new MalformedFrame(`output '${name}' is there twice`);
    outputs.set(name, output(name, tensor, payloads));
  }
  const timing = {
    queueUs: Number(table.uint64(ResponseSlots.queueUs)),
    executeUs: Number(table.uint64(ResponseSlots.executeUs)),
    batchRows: table.uint32(ResponseSlots.batchRows),
    reason: table.string(ResponseSlots.reason) ?? "",
  };
  return new InferResponse(
    table.string(ResponseSlots.model) ?? "",
    table.string(ResponseSlots.version) ?? "",
    table.string(ResponseSlots.id),
    outputs,
    parameters(table.tables(ResponseSlots.parameters)),
    timing,
    STAGES.get(table.uint8(ResponseSlots.stage)) ?? "only",
  );
}

function output(name: string, tensor: Table, payloads: readonly Uint8Array[]): AnyTensor {
  if (tensor.uint8(TensorSlots.location) !== Location.INLINE) {
    throw new Unimplemented(`output '${name}' is not in the frame, and this client shares no memory`);
  }
  const index = tensor.uint32(TensorSlots.payload);
  const payload = payloads[index];
  if (payload === undefined) {
    throw new MalformedFrame(`output '${name}': payload ${index} of ${payloads.length} does not exist`);
  }
  const offset = Number(tensor.uint64(TensorSlots.offset));
  const nbytes = Number(tensor.uint64(TensorSlots.nbytes));
  if (offset + nbytes > payload.length) {
    throw new MalformedFrame(
      `output '${name}': ${nbytes} bytes at ${offset} pass the end of payload ${index}, which has ${payload.length}`,
    );
  }
  const datatype = datatypeOf(tensor.uint8(TensorSlots.datatype), name);
  const bytes = payload.subarray(offset, offset + nbytes);
  return decodeTensor(name, datatype, shapeOf(tensor, TensorSlots.shape, name), bytes);
}

function datatypeOf(number: number, name: string): Datatype {
  const datatype = DATATYPE_NAMES.get(number);
  if (datatype === undefined) throw new MalformedFrame(`tensor '${name}': unknown datatype ${number}`);
  return datatype;
}

function shapeOf(table: Table, slot: number, name: string): number[] {
  return table.int64s(slot).map((size) => {
    if (typeof size === "number") return size;
    throw new MalformedFrame(`tensor '${name}': impossible size ${size.toString()}`);
  });
}

function parameters(tables: readonly Table[]): Map<string, Parameter> {
  const found = new Map<string, Parameter>();
  for (const table of tables) {
    const name = table.string(ParameterSlots.name) ?? "";
    if (found.has(name)) throw new MalformedFrame(`parameter '${name}' is given twice`);
    found.set(name, parameter(table, name));
  }
  return found;
}

function parameter(table: Table, name: string): Parameter {
  switch (table.uint8(ParameterSlots.kind)) {
    case ParameterKind.BOOL:
      return table.uint8(ParameterSlots.boolValue) !== 0;
    case ParameterKind.INT64:
      return table.int64(ParameterSlots.int64Value);
    case ParameterKind.UINT64:
      return table.uint64(ParameterSlots.uint64Value);
    case ParameterKind.DOUBLE:
      return table.float64(ParameterSlots.doubleValue);
    case ParameterKind.STRING:
      return table.string(ParameterSlots.stringValue) ?? "";
    default:
      throw new MalformedFrame(`parameter '${name}' has no value of a known kind`);
  }
}

function error(table: Table): KingpoleError {
  const retryAfterMs = table.uint32(ErrorSlots.retryAfterMs);
  return errorOfNumber(table.uint8(ErrorSlots.code), table.string(ErrorSlots.message) ?? "", {
    id: table.string(ErrorSlots.id),
    retryAfterMs: retryAfterMs === 0 ? undefined : retryAfterMs,
  });
}

function serverInfo(table: Table): ServerMetadata {
  return {
    name: table.string(ServerInfoSlots.name) ?? "",
    version: table.string(ServerInfoSlots.version) ?? "",
    extensions: table.strings(ServerInfoSlots.extensions),
    maxFrameBytes: Number(table.uint64(ServerInfoSlots.maxFrameBytes)),
  };
}

function metadata(table: Table): ModelMetadata {
  return {
    name: table.string(MetadataSlots.name) ?? "",
    versions: table.strings(MetadataSlots.versions),
    platform: table.string(MetadataSlots.platform) ?? "",
    inputs: table.tables(MetadataSlots.inputs).map(tensorSpec),
    outputs: table.tables(MetadataSlots.outputs).map(tensorSpec),
    maxBatchSize: table.uint32(MetadataSlots.maxBatchSize),
    description: table.string(MetadataSlots.description) ?? "",
  };
}

function tensorSpec(table: Table): TensorSpec {
  const name = table.string(TensorSpecSlots.name) ?? "";
  return {
    name,
    datatype: datatypeOf(table.uint8(TensorSpecSlots.datatype), name),
    shape: shapeOf(table, TensorSpecSlots.shape, name),
    optional: table.uint8(TensorSpecSlots.optional) !== 0,
  };
}
