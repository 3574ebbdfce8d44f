/**
 * One inference asked for: checked once, for every protocol. Knows none of them.
 */
import { InvalidArgument } from "./errors.js";
import { Tensor, wireBytes } from "./tensor.js";
import type { Parameter, Sequence } from "./values.js";

/** The inputs of a request, by name. */
export type Inputs = Readonly<Record<string, Tensor>> | ReadonlyMap<string, Tensor>;

/** An output that is wanted, and what the server is told of it. */
export interface RequestedOutput {
  readonly name: string;
  readonly parameters?: Parameters | undefined;
}

/** Parameters by name. */
export type Parameters = Readonly<Record<string, Parameter>> | ReadonlyMap<string, Parameter>;

/** What can be said of a request beside its model and inputs. */
export interface RequestOptions {
  /** The outputs wanted, in that order; absent asks for all. */
  readonly outputs?: readonly (string | RequestedOutput)[] | undefined;
  /** Absent asks for the latest ready one. */
  readonly version?: string | undefined;
  /** Echoed in the response. */
  readonly id?: string | undefined;
  /** Passed to the model. */
  readonly parameters?: Parameters | undefined;
  /** Travels with the request and bounds the wait here, to the microsecond. Absent: the client's own. */
  readonly timeoutMs?: number | undefined;
  /** 0 is the default, 1 the highest. */
  readonly priority?: number | undefined;
  /** Where the request stands in a sequence that a stateful model keeps together. */
  readonly sequence?: Sequence | undefined;
}

/** An input and its bytes on the wire. */
export interface EncodedInput {
  readonly name: string;
  readonly tensor: Tensor;
  readonly bytes: Uint8Array;
}

/** One inference asked for, ready to be written in any protocol. */
export interface InferRequest {
  readonly model: string;
  readonly version: string | undefined;
  readonly id: string | undefined;
  readonly inputs: readonly EncodedInput[];
  readonly outputs: readonly RequestedOutput[];
  readonly parameters: ReadonlyMap<string, Parameter>;
  readonly timeoutUs: number | undefined;
  readonly priority: number;
  readonly sequence: Sequence | undefined;
}

const MAX_UINT64 = 2n ** 64n;

function entries<T>(given: Readonly<Record<string, T>> | ReadonlyMap<string, T> | undefined): [string, T][] {
  if (given === undefined) return [];
  if (given instanceof Map) return [...(given as ReadonlyMap<string, T>)];
  return Object.entries(given as Readonly<Record<string, T>>);
}

/** Returns parameters as a map. */
export function parameterMap(parameters: Parameters | undefined): ReadonlyMap<string, Parameter> {
  return new Map(entries(parameters));
}

/** Returns a timeout in microseconds, at least 1. */
export function timeoutUs(timeoutMs: number | undefined): number | undefined {
  if (timeoutMs === undefined) return undefined;
  const us = Math.ceil(timeoutMs * 1000);
  if (!(timeoutMs > 0) || !Number.isSafeInteger(us)) {
    throw new InvalidArgument(`timeoutMs is ${timeoutMs}, it must be above 0 and finite`);
  }
  return us;
}

function checkSequence({ id }: Sequence): void {
  const isRight =
    typeof id === "string"
      ? id !== ""
      : typeof id === "bigint"
        ? id > 0n && id < MAX_UINT64
        : Number.isSafeInteger(id) && id > 0;
  if (!isRight) {
    throw new InvalidArgument(`a sequence's id is ${id}, it must be a whole number above 0 or a text`);
  }
}

/**
 * Checks what a caller asks for.
 *
 * @throws InvalidArgument if it cannot be asked.
 */
export function makeRequest(
  model: string,
  inputs: Inputs,
  options: RequestOptions,
  defaultTimeoutMs: number | undefined,
): InferRequest {
  const { outputs = [], priority = 0, sequence } = options;
  if (!Number.isInteger(priority) || priority < 0 || priority >= 2 ** 32) {
    throw new InvalidArgument(`priority is ${priority}, it must be a whole number between 0 and 2^32-1`);
  }
  if (typeof outputs === "string") throw new InvalidArgument("outputs is a list of names, not one name");
  if (sequence !== undefined) checkSequence(sequence);
  return {
    model,
    version: options.version,
    id: options.id,
    inputs: entries(inputs).map(([name, tensor]) => {
      if (!(tensor instanceof Tensor)) throw new InvalidArgument(`input '${name}' is no Tensor`);
      return { name, tensor, bytes: wireBytes(tensor) };
    }),
    outputs: outputs.map((output) => (typeof output === "string" ? { name: output } : output)),
    parameters: parameterMap(options.parameters),
    timeoutUs: timeoutUs(options.timeoutMs ?? defaultTimeoutMs),
    priority,
    sequence,
  };
}
