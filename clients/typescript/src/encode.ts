/**
 * What a client asks, written as frames. Knows the schema, not how frames travel.
 */
import { Builder, type Offset } from "flatbuffers";

import { InvalidArgument } from "./errors.js";
import { type Buffers, joinFrame } from "./frame.js";
import {
  CancelSlots,
  Datatype,
  HeaderSlots,
  Message,
  MetadataRequestSlots,
  ParameterKind,
  ParameterSlots,
  ReadyRequestSlots,
  RequestedOutputSlots,
  RequestSlots,
  ServerInfoRequestSlots,
  TensorSlots,
} from "./generated/schema.js";
import { type EncodedInput, type InferRequest, parameterMap, type RequestedOutput } from "./request.js";
import type { Parameter } from "./values.js";

const MIN_INT64 = -(2n ** 63n);
const MAX_INT64 = 2n ** 63n - 1n;
const MAX_UINT64 = 2n ** 64n - 1n;

/** Writes a request; its payloads are the inputs' bytes, not copies. */
export function encodeRequest(request: InferRequest, exchange: number): Buffers {
  const builder = new Builder(512);
  const model = text(builder, request.model);
  const version = text(builder, request.version);
  const id = text(builder, request.id);
  const inputs = offsets(
    builder,
    request.inputs.map((input, index) => tensor(builder, input, index)),
  );
  const outputs = offsets(
    builder,
    request.outputs.map((output) => requestedOutput(builder, output)),
  );
  const parameters = parameterList(builder, request.parameters);
  const { sequence } = request;
  const sequenceName = typeof sequence?.id === "string" ? text(builder, sequence.id) : 0;
  builder.startObject(RequestSlots.fields);
  builder.addFieldOffset(RequestSlots.model, model, 0);
  builder.addFieldOffset(RequestSlots.version, version, 0);
  builder.addFieldOffset(RequestSlots.id, id, 0);
  builder.addFieldInt64(RequestSlots.timeoutUs, BigInt(request.timeoutUs ?? 0), 0n);
  builder.addFieldInt32(RequestSlots.priority, request.priority, 0);
  builder.addFieldOffset(RequestSlots.inputs, inputs, 0);
  builder.addFieldOffset(RequestSlots.outputs, outputs, 0);
  builder.addFieldOffset(RequestSlots.parameters, parameters, 0);
  if (sequence !== undefined) {
    const number = typeof sequence.id === "string" ? 0n : BigInt(sequence.id);
    builder.addFieldInt64(RequestSlots.sequenceId, number, 0n);
    builder.addFieldOffset(RequestSlots.sequenceName, sequenceName, 0);
    builder.addFieldInt8(RequestSlots.sequenceStart, Number(sequence.start ?? false), 0);
    builder.addFieldInt8(RequestSlots.sequenceEnd, Number(sequence.end ?? false), 0);
  }
  const payloads = request.inputs.map(({ bytes }) => bytes);
  return finish(builder, Message.Request, builder.endObject(), exchange, payloads);
}

/** Says that the answer of an exchange is no longer wanted. */
export function encodeCancel(exchange: number): Buffers {
  const builder = new Builder(64);
  builder.startObject(CancelSlots.fields);
  return finish(builder, Message.Cancel, builder.endObject(), exchange);
}

/** Asks who the server is. */
export function encodeServerInfoRequest(exchange: number): Buffers {
  const builder = new Builder(64);
  builder.startObject(ServerInfoRequestSlots.fields);
  return finish(builder, Message.ServerInfoRequest, builder.endObject(), exchange);
}

/** Asks whether a model, or without one the server, is ready. */
export function encodeReadyRequest(
  model: string | undefined,
  version: string | undefined,
  exchange: number,
): Buffers {
  return named(Message.ReadyRequest, ReadyRequestSlots, model, version, exchange);
}

/** Asks what a model takes and gives. */
export function encodeMetadataRequest(model: string, version: string | undefined, exchange: number): Buffers {
  return named(Message.MetadataRequest, MetadataRequestSlots, model, version, exchange);
}

function named(
  kind: number,
  slots: { readonly fields: number; readonly model: number; readonly version: number },
  model: string | undefined,
  version: string | undefined,
  exchange: number,
): Buffers {
  const builder = new Builder(128);
  const modelText = text(builder, model);
  const versionText = text(builder, version);
  builder.startObject(slots.fields);
  builder.addFieldOffset(slots.model, modelText, 0);
  builder.addFieldOffset(slots.version, versionText, 0);
  return finish(builder, kind, builder.endObject(), exchange);
}

function text(builder: Builder, value: string | undefined): Offset {
  return value === undefined || value === "" ? 0 : builder.createString(value);
}

function offsets(builder: Builder, elements: readonly Offset[]): Offset {
  if (elements.length === 0) return 0;
  builder.startVector(4, elements.length, 4);
  for (let index = elements.length - 1; index >= 0; index--) builder.addOffset(elements[index] as Offset);
  return builder.endVector();
}

function numbers(builder: Builder, elements: readonly number[]): Offset {
  builder.startVector(8, elements.length, 8);
  for (let index = elements.length - 1; index >= 0; index--) {
    builder.addInt64(BigInt(elements[index] as number));
  }
  return builder.endVector();
}

function tensor(builder: Builder, input: EncodedInput, payload: number): Offset {
  const name = text(builder, input.name);
  const shape = numbers(builder, input.tensor.shape);
  builder.startObject(TensorSlots.fields);
  builder.addFieldOffset(TensorSlots.name, name, 0);
  builder.addFieldInt8(TensorSlots.datatype, Datatype[input.tensor.datatype], 0);
  builder.addFieldOffset(TensorSlots.shape, shape, 0);
  builder.addFieldInt32(TensorSlots.payload, payload, 0);
  builder.addFieldInt64(TensorSlots.nbytes, BigInt(input.bytes.length), 0n);
  return builder.endObject();
}

function requestedOutput(builder: Builder, output: RequestedOutput): Offset {
  const name = text(builder, output.name);
  const parameters = parameterList(builder, parameterMap(output.parameters));
  builder.startObject(RequestedOutputSlots.fields);
  builder.addFieldOffset(RequestedOutputSlots.name, name, 0);
  builder.addFieldOffset(RequestedOutputSlots.parameters, parameters, 0);
  return builder.endObject();
}

function parameterList(builder: Builder, parameters: ReadonlyMap<string, Parameter>): Offset {
  return offsets(
    builder,
    [...parameters].map(([name, value]) => parameter(builder, name, value)),
  );
}

function parameter(builder: Builder, name: string, value: Parameter): Offset {
  const nameText = text(builder, name);
  // An empty text is a value too, unlike an empty name.
  const valueText = typeof value === "string" ? builder.createString(value) : 0;
  builder.startObject(ParameterSlots.fields);
  builder.addFieldOffset(ParameterSlots.name, nameText, 0);
  if (typeof value === "string") {
    builder.addFieldInt8(ParameterSlots.kind, ParameterKind.STRING, 0);
    builder.addFieldOffset(ParameterSlots.stringValue, valueText, 0);
  } else if (typeof value === "boolean") {
    builder.addFieldInt8(ParameterSlots.kind, ParameterKind.BOOL, 0);
    builder.addFieldInt8(ParameterSlots.boolValue, Number(value), 0);
  } else if (typeof value === "bigint" || Number.isSafeInteger(value)) {
    integer(builder, name, BigInt(value));
  } else if (typeof value === "number") {
    builder.addFieldInt8(ParameterSlots.kind, ParameterKind.DOUBLE, 0);
    builder.addFieldFloat64(ParameterSlots.doubleValue, value, 0);
  } else {
    throw new InvalidArgument(
      `parameter '${name}' is ${typeof value}, not boolean, number, bigint or string`,
    );
  }
  return builder.endObject();
}

function integer(builder: Builder, name: string, value: bigint): void {
  if (value >= MIN_INT64 && value <= MAX_INT64) {
    builder.addFieldInt8(ParameterSlots.kind, ParameterKind.INT64, 0);
    builder.addFieldInt64(ParameterSlots.int64Value, value, 0n);
  } else if (value > 0n && value <= MAX_UINT64) {
    builder.addFieldInt8(ParameterSlots.kind, ParameterKind.UINT64, 0);
    builder.addFieldInt64(ParameterSlots.uint64Value, value, 0n);
  } else {
    throw new InvalidArgument(`parameter '${name}': ${value.toString()} does not fit in 64 bits`);
  }
}

function finish(
  builder: Builder,
  kind: number,
  message: Offset,
  exchange: number,
  payloads: readonly Uint8Array[] = [],
): Buffers {
  const lengths =
    payloads.length > 0
      ? numbers(
          builder,
          payloads.map(({ length }) => length),
        )
      : 0;
  builder.startObject(HeaderSlots.fields);
  builder.addFieldInt8(HeaderSlots.messageType, kind, 0);
  builder.addFieldOffset(HeaderSlots.message, message, 0);
  builder.addFieldInt64(HeaderSlots.exchange, BigInt(exchange), 0n);
  builder.addFieldOffset(HeaderSlots.payloads, lengths, 0);
  builder.finish(builder.endObject());
  return joinFrame(builder.asUint8Array(), payloads);
}
