/**
 * What a client is given: responses, metadata, readiness. Knows no bytes.
 */
import { InvalidArgument } from "./errors.js";
import type { AnyTensor, Datatype, Tensor } from "./tensor.js";

/**
 * The value of a parameter. Whole numbers travel as integers, others as doubles; integers that a number cannot
 * hold exactly are bigints.
 */
export type Parameter = boolean | number | bigint | string;

/** A request's place in a sequence of requests that a stateful model keeps together. */
export interface Sequence {
  /** A number above 0, or a text that is not empty. */
  readonly id: number | bigint | string;
  /** Whether the request is the sequence's first. */
  readonly start?: boolean;
  /** Whether the request is the sequence's last. */
  readonly end?: boolean;
}

/** How the server served a request. All zero and empty where the server does not say. */
export interface Timing {
  /** From admission to dispatch. */
  readonly queueUs: number;
  /** Execution of the batch. */
  readonly executeUs: number;
  /** Rows of the batch; 0 for a model that does not batch. */
  readonly batchRows: number;
  /** Why the batch left when it did. */
  readonly reason: string;
}

/** Where a response stands among those of its request: the only one, one of several, or their empty end. */
export type Stage = "only" | "part" | "end";

/** One inference answered. */
export class InferResponse {
  constructor(
    /** The model that answered. */
    readonly model: string,
    /** The version that answered. */
    readonly version: string,
    /** The id of the request, if it had one. */
    readonly id: string | undefined,
    /** The outputs, in the order asked for. */
    readonly outputs: ReadonlyMap<string, AnyTensor>,
    /** What the model said beside its tensors. */
    readonly parameters: ReadonlyMap<string, Parameter>,
    /** How it was served. */
    readonly timing: Timing,
    /** Where it stands among the responses of its request. */
    readonly stage: Stage,
  ) {}

  /**
   * Returns one output; with a datatype it is checked, and so typed.
   *
   * @throws InvalidArgument if there is no such output, or if it is of another datatype.
   */
  output(name: string): AnyTensor;
  output<D extends Datatype>(name: string, datatype: D): Tensor<D>;
  output(name: string, datatype?: Datatype): AnyTensor {
    const tensor = this.outputs.get(name);
    if (tensor === undefined) {
      const there = [...this.outputs.keys()].map((each) => `'${each}'`).join(", ") || "none";
      throw new InvalidArgument(`the response has no output '${name}'; it has ${there}`);
    }
    if (datatype !== undefined && tensor.datatype !== datatype) {
      throw new InvalidArgument(`output '${name}' is ${tensor.datatype}, not ${datatype}`);
    }
    return tensor;
  }
}

/** An input or output of a model. */
export interface TensorSpec {
  readonly name: string;
  readonly datatype: Datatype;
  /** -1: any size. */
  readonly shape: readonly number[];
  readonly optional: boolean;
}

/** What a model takes and gives. */
export interface ModelMetadata {
  readonly name: string;
  /** Versions that are ready, ascending. */
  readonly versions: readonly string[];
  readonly platform: string;
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  /** 0: the model does not batch. Undefined: not said over this transport. */
  readonly maxBatchSize: number | undefined;
  readonly description: string;
}

/** Who the server is. */
export interface ServerMetadata {
  readonly name: string;
  readonly version: string;
  readonly extensions: readonly string[];
  /** The largest frame that the server takes; 0: not said. */
  readonly maxFrameBytes: number;
}

/** A row of the repository's index. */
export interface ModelState {
  readonly name: string;
  readonly version: string | undefined;
  readonly state: string;
  readonly reason: string;
}

/** The timing of a response that says none. */
export const NO_TIMING: Timing = { queueUs: 0, executeUs: 0, batchRows: 0, reason: "" };
