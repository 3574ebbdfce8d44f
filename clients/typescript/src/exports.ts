/** What both entry points give beside their own `connect`. */
export {
  AlreadyExists,
  Cancelled,
  type Code,
  DeadlineExceeded,
  type ErrorDetail,
  FailedPrecondition,
  Internal,
  InvalidArgument,
  KingpoleError,
  MalformedFrame,
  NotFound,
  PermissionDenied,
  ResourceExhausted,
  Unauthenticated,
  Unavailable,
  Unimplemented,
} from "./errors.js";
export { bfloat16Bits, floatsOfBfloat16, floatsOfHalf, halfBits } from "./half.js";
export type { Inputs, Parameters, RequestedOutput, RequestOptions } from "./request.js";
export {
  type AnyTensor,
  type DataOf,
  type Datatype,
  DATATYPES,
  type HalfArray,
  type Numbers,
  Tensor,
} from "./tensor.js";
export {
  InferResponse,
  type ModelMetadata,
  type ModelState,
  type Parameter,
  type Sequence,
  type ServerMetadata,
  type Stage,
  type TensorSpec,
  type Timing,
} from "./values.js";
