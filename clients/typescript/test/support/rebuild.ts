/** Requests made with the client's own words from what a vector says. */
import { decodeTensor } from "../../src/received.js";
import { type InferRequest, makeRequest } from "../../src/request.js";
import type { AnyTensor, Datatype } from "../../src/tensor.js";
import type { Parameter } from "../../src/values.js";

interface Described {
  readonly name: string;
  readonly value: Parameter;
}

/** The value of a `frame-request-*` vector. */
export interface DescribedRequest {
  readonly model: string;
  readonly version: string | null;
  readonly id: string | null;
  readonly timeout_us: number | null;
  readonly priority: number;
  readonly inputs: readonly { name: string; datatype: Datatype; shape: number[]; data_hex: string }[];
  readonly outputs: readonly { name: string; parameters: readonly Described[] }[];
  readonly parameters: readonly Described[];
  readonly sequence?: { id: number | bigint | string; start: boolean; end: boolean };
}

function mapOf(described: readonly Described[]): Map<string, Parameter> {
  return new Map(described.map(({ name, value }) => [name, value]));
}

/** Makes the request that a vector describes. */
export function rebuildRequest(value: DescribedRequest): InferRequest {
  const inputs = new Map<string, AnyTensor>();
  for (const { name, datatype, shape, data_hex } of value.inputs) {
    inputs.set(name, decodeTensor(name, datatype, shape, Uint8Array.from(Buffer.from(data_hex, "hex"))));
  }
  return makeRequest(
    value.model,
    inputs,
    {
      version: value.version ?? undefined,
      id: value.id ?? undefined,
      timeoutMs: value.timeout_us === null ? undefined : value.timeout_us / 1000,
      priority: value.priority,
      outputs: value.outputs.map(({ name, parameters }) => ({ name, parameters: mapOf(parameters) })),
      parameters: mapOf(value.parameters),
      sequence: value.sequence,
    },
    undefined,
  );
}
