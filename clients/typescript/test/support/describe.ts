/**
 * Anything in a frame, described as the vectors describe it.
 *
 * A client never reads what clients write; here it is read back with the same checked tables.
 */
import type { Table } from "../../src/flatbuffer.js";
import { type Frame } from "../../src/frame.js";
import {
  Datatype,
  HandOverSlots,
  HeaderSlots,
  Message,
  ParameterKind,
  ParameterSlots,
  ReleaseSlots,
  RequestedOutputSlots,
  RequestSlots,
  TensorSlots,
} from "../../src/generated/schema.js";
import type { InferResponse, ModelMetadata, Parameter } from "../../src/values.js";
import { wireBytes } from "../../src/tensor.js";

const DATATYPES = Object.keys(Datatype);

/** Describes what a client writes; undefined for what a server writes. */
export function describeAsked(frame: Frame): Record<string, unknown> | undefined {
  const table = frame.header.table(HeaderSlots.message) as Table;
  const named = () => ({ model: table.string(0) ?? null, version: table.string(1) ?? null });
  switch (frame.header.uint8(HeaderSlots.messageType)) {
    case Message.Request:
      return { request: describeRequest(table, frame.payloads), ...describeShared(table) };
    case Message.Cancel:
      return { cancel: {} };
    case Message.ServerInfoRequest:
      return { server_info_request: {} };
    case Message.ReadyRequest:
      return { ready_request: named() };
    case Message.MetadataRequest:
      return { metadata_request: named() };
    case Message.HandOver:
      return {
        hand_over: { arena: table.uint32(HandOverSlots.arena), nbytes: table.uint64(HandOverSlots.nbytes) },
      };
    case Message.Release:
      return { release: { arena: table.uint32(ReleaseSlots.arena) } };
    default:
      return undefined;
  }
}

function describeRequest(table: Table, payloads: readonly Uint8Array[]): Record<string, unknown> {
  const timeout = table.uint64(RequestSlots.timeoutUs);
  const number = table.uint64(RequestSlots.sequenceId);
  const name = table.string(RequestSlots.sequenceName);
  const sequence = {
    start: table.uint8(RequestSlots.sequenceStart) === 1,
    end: table.uint8(RequestSlots.sequenceEnd) === 1,
    id: name ?? number,
  };
  return {
    model: table.string(RequestSlots.model) ?? "",
    version: table.string(RequestSlots.version) ?? null,
    id: table.string(RequestSlots.id) ?? null,
    timeout_us: timeout === 0 ? null : timeout,
    priority: table.uint32(RequestSlots.priority),
    inputs: table.tables(RequestSlots.inputs).map((tensor) => describeTensor(tensor, payloads)),
    outputs: table.tables(RequestSlots.outputs).map((output) => ({
      name: output.string(RequestedOutputSlots.name) ?? "",
      parameters: output.tables(RequestedOutputSlots.parameters).map(describeParameter),
    })),
    parameters: table.tables(RequestSlots.parameters).map(describeParameter),
    ...(number === 0 && name === undefined ? {} : { sequence }),
  };
}

function describeTensor(tensor: Table, payloads: readonly Uint8Array[]): Record<string, unknown> {
  const offset = Number(tensor.uint64(TensorSlots.offset));
  const payload = payloads[tensor.uint32(TensorSlots.payload)] as Uint8Array;
  const isShared = tensor.uint8(TensorSlots.location) === 1;
  const bytes = isShared
    ? new Uint8Array()
    : payload.subarray(offset, offset + Number(tensor.uint64(TensorSlots.nbytes)));
  return {
    name: tensor.string(TensorSlots.name) ?? "",
    datatype: DATATYPES[tensor.uint8(TensorSlots.datatype)],
    shape: tensor.int64s(TensorSlots.shape),
    data_hex: hex(bytes),
  };
}

function describePlace(tensor: Table, index: number): Record<string, unknown> {
  return {
    index,
    arena: tensor.uint32(TensorSlots.payload),
    offset: tensor.uint64(TensorSlots.offset),
    nbytes: tensor.uint64(TensorSlots.nbytes),
  };
}

function describeShared(table: Table): Record<string, unknown> {
  const shared = table
    .tables(RequestSlots.inputs)
    .flatMap((tensor, index) =>
      tensor.uint8(TensorSlots.location) === 1 ? [describePlace(tensor, index)] : [],
    );
  const places = table.tables(RequestSlots.outputs).flatMap((output, index) =>
    output.uint8(RequestedOutputSlots.location) === 1
      ? [
          {
            index,
            arena: output.uint32(RequestedOutputSlots.payload),
            offset: output.uint64(RequestedOutputSlots.offset),
            nbytes: output.uint64(RequestedOutputSlots.nbytes),
          },
        ]
      : [],
  );
  return { shared, ...(places.length > 0 ? { places } : {}) };
}

function describeParameter(table: Table): Record<string, unknown> {
  const name = table.string(ParameterSlots.name) ?? "";
  switch (table.uint8(ParameterSlots.kind)) {
    case ParameterKind.BOOL:
      return { name, kind: "bool", value: table.uint8(ParameterSlots.boolValue) === 1 };
    case ParameterKind.INT64:
      return { name, kind: "int64", value: table.int64(ParameterSlots.int64Value) };
    case ParameterKind.UINT64:
      return { name, kind: "uint64", value: table.uint64(ParameterSlots.uint64Value) };
    case ParameterKind.DOUBLE:
      return { name, kind: "double", value: table.float64(ParameterSlots.doubleValue) };
    default:
      return { name, kind: "string", value: table.string(ParameterSlots.stringValue) ?? "" };
  }
}

function kindOf(value: Parameter): string {
  if (typeof value === "boolean") return "bool";
  if (typeof value === "string") return "string";
  if (typeof value === "bigint") return value > 0n ? "uint64" : "int64";
  return Number.isInteger(value) ? "int64" : "double";
}

/** Describes a decoded response as the vectors do. */
export function describeResponse(response: InferResponse): Record<string, unknown> {
  return {
    model: response.model,
    version: response.version,
    id: response.id ?? null,
    outputs: [...response.outputs].map(([name, tensor]) => ({
      name,
      datatype: tensor.datatype,
      shape: tensor.shape,
      data_hex: hex(wireBytes(tensor)),
    })),
    parameters: [...response.parameters].map(([name, value]) => ({ name, kind: kindOf(value), value })),
    ...(response.stage === "only" ? {} : { stage: response.stage }),
  };
}

/** Describes decoded metadata as the vectors do. */
export function describeMetadata(metadata: ModelMetadata): Record<string, unknown> {
  const { name, versions, platform, inputs, outputs, maxBatchSize, description } = metadata;
  return { name, versions, platform, inputs, outputs, max_batch_size: maxBatchSize, description };
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}
