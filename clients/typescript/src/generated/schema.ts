// Made from protocol/schema/kingpole.fbs by scripts/generate.mjs. Never edited.

/** Numbers of the enum Datatype. */
export const Datatype = {
  NONE: 0,
  BOOL: 1,
  UINT8: 2,
  UINT16: 3,
  UINT32: 4,
  UINT64: 5,
  INT8: 6,
  INT16: 7,
  INT32: 8,
  INT64: 9,
  FP16: 10,
  FP32: 11,
  FP64: 12,
  BYTES: 13,
  BF16: 14,
} as const;

/** Numbers of the enum Location. */
export const Location = {
  INLINE: 0,
  SHARED: 1,
} as const;

/** Numbers of the enum ParameterKind. */
export const ParameterKind = {
  NONE: 0,
  BOOL: 1,
  INT64: 2,
  UINT64: 3,
  DOUBLE: 4,
  STRING: 5,
} as const;

/** Slots of the table Parameter. */
export const ParameterSlots = {
  name: 0,
  kind: 1,
  boolValue: 2,
  int64Value: 3,
  uint64Value: 4,
  doubleValue: 5,
  stringValue: 6,
  fields: 7,
} as const;

/** Slots of the table Tensor. */
export const TensorSlots = {
  name: 0,
  datatype: 1,
  shape: 2,
  location: 3,
  payload: 4,
  offset: 5,
  nbytes: 6,
  fields: 7,
} as const;

/** Slots of the table RequestedOutput. */
export const RequestedOutputSlots = {
  name: 0,
  parameters: 1,
  location: 2,
  payload: 3,
  offset: 4,
  nbytes: 5,
  fields: 6,
} as const;

/** Slots of the table Request. */
export const RequestSlots = {
  model: 0,
  version: 1,
  id: 2,
  timeoutUs: 3,
  priority: 4,
  inputs: 5,
  outputs: 6,
  parameters: 7,
  sequenceId: 8,
  sequenceName: 9,
  sequenceStart: 10,
  sequenceEnd: 11,
  fields: 12,
} as const;

/** Numbers of the enum Stage. */
export const Stage = {
  ONLY: 0,
  PART: 1,
  END: 2,
} as const;

/** Slots of the table Response. */
export const ResponseSlots = {
  model: 0,
  version: 1,
  id: 2,
  outputs: 3,
  parameters: 4,
  queueUs: 5,
  executeUs: 6,
  batchRows: 7,
  reason: 8,
  stage: 9,
  fields: 10,
} as const;

/** Slots of the table Error. */
export const ErrorSlots = {
  code: 0,
  message: 1,
  retryAfterMs: 2,
  id: 3,
  fields: 4,
} as const;

/** Slots of the table Credit. */
export const CreditSlots = {
  requests: 0,
  fields: 1,
} as const;

/** Slots of the table Cancel. */
export const CancelSlots = {
  fields: 0,
} as const;

/** Slots of the table ReadyRequest. */
export const ReadyRequestSlots = {
  model: 0,
  version: 1,
  fields: 2,
} as const;

/** Slots of the table Ready. */
export const ReadySlots = {
  ready: 0,
  fields: 1,
} as const;

/** Slots of the table ServerInfoRequest. */
export const ServerInfoRequestSlots = {
  fields: 0,
} as const;

/** Slots of the table ServerInfo. */
export const ServerInfoSlots = {
  name: 0,
  version: 1,
  extensions: 2,
  maxFrameBytes: 3,
  fields: 4,
} as const;

/** Slots of the table MetadataRequest. */
export const MetadataRequestSlots = {
  model: 0,
  version: 1,
  fields: 2,
} as const;

/** Slots of the table TensorSpec. */
export const TensorSpecSlots = {
  name: 0,
  datatype: 1,
  shape: 2,
  optional: 3,
  fields: 4,
} as const;

/** Slots of the table Metadata. */
export const MetadataSlots = {
  name: 0,
  versions: 1,
  platform: 2,
  inputs: 3,
  outputs: 4,
  maxBatchSize: 5,
  description: 6,
  fields: 7,
} as const;

/** Slots of the table HandOver. */
export const HandOverSlots = {
  arena: 0,
  nbytes: 1,
  fields: 2,
} as const;

/** Slots of the table Release. */
export const ReleaseSlots = {
  arena: 0,
  fields: 1,
} as const;

/** Slots of the table Done. */
export const DoneSlots = {
  fields: 0,
} as const;

/** Numbers of the union Message. */
export const Message = {
  NONE: 0,
  Request: 1,
  Response: 2,
  Error: 3,
  Credit: 4,
  Cancel: 5,
  ReadyRequest: 6,
  Ready: 7,
  ServerInfoRequest: 8,
  ServerInfo: 9,
  MetadataRequest: 10,
  Metadata: 11,
  HandOver: 12,
  Release: 13,
  Done: 14,
} as const;

/** Slots of the table Header. */
export const HeaderSlots = {
  messageType: 0,
  message: 1,
  exchange: 2,
  payloads: 3,
  fields: 4,
} as const;
