/**
 * Where header and payloads lie in a frame, and how pieces of a stream become frames.
 *
 * Knows no socket and no schema: bytes in, frames out. `FrameAssembler` hands out the memory that the next
 * bytes belong in, so that a socket can receive straight into place.
 *
 * Source: protocol/spec/frame.md
 */
import { MalformedFrame, ResourceExhausted } from "./errors.js";
import { FlatBuffer, type Table } from "./flatbuffer.js";
import { HeaderSlots } from "./generated/schema.js";

/** The media type of one frame. */
export const MEDIA_TYPE = "application/x-kingpole";
/** The media type of frames one after another. */
export const STREAM_MEDIA_TYPE = "application/x-kingpole-stream";
/** The largest frame that a client takes unless it is told otherwise. */
export const DEFAULT_MAX_FRAME_BYTES = 2 ** 31;

const MAGIC = Uint8Array.of(0x4b, 0x49, 0x4e, 0x47, 0x50, 0x4f, 0x4c);
const VERSION = 1;
const PRELUDE_BYTES = 16;
const ALIGNMENT = 64;
const MAX_HEADER_BYTES = 256 * 1024;
const MAX_PAYLOADS = 1024;
const ZEROS = new Uint8Array(ALIGNMENT);
const NOTHING = new Uint8Array(0);

/** A received frame: its header, verified as it is read, and views of its payloads. */
export interface Frame {
  readonly header: Table;
  readonly payloads: readonly Uint8Array[];
}

/** Buffers to be sent one after another. */
export type Buffers = readonly Uint8Array[];

function aligned(nbytes: number): number {
  return Math.ceil(nbytes / ALIGNMENT) * ALIGNMENT;
}

/** Lays out a frame as buffers to be sent one after another; payloads are not copied. */
export function joinFrame(header: Uint8Array, payloads: readonly Uint8Array[]): Buffers {
  if (header.length > MAX_HEADER_BYTES) {
    throw new ResourceExhausted(
      `the request's header has ${header.length} bytes, the most is ${MAX_HEADER_BYTES}`,
    );
  }
  if (payloads.length > MAX_PAYLOADS) {
    throw new ResourceExhausted(`the request has ${payloads.length} tensors, the most is ${MAX_PAYLOADS}`);
  }
  const first = new Uint8Array(aligned(PRELUDE_BYTES + header.length));
  first.set(MAGIC);
  first[7] = VERSION;
  const view = new DataView(first.buffer);
  view.setUint32(8, header.length, true);
  view.setUint32(12, payloads.length, true);
  first.set(header, PRELUDE_BYTES);
  const buffers: Uint8Array[] = [first];
  for (const payload of payloads) {
    if (payload.length === 0) continue;
    buffers.push(payload);
    const rest = aligned(payload.length) - payload.length;
    if (rest > 0) buffers.push(ZEROS.subarray(0, rest));
  }
  return buffers;
}

/** Returns buffers as one. */
export function joinBuffers(buffers: Buffers): Uint8Array<ArrayBuffer> {
  let nbytes = 0;
  for (const buffer of buffers) nbytes += buffer.length;
  const joined = allocate(nbytes);
  let position = 0;
  for (const buffer of buffers) {
    joined.set(buffer, position);
    position += buffer.length;
  }
  return joined;
}

/**
 * Returns memory for bytes whose number was checked against a limit.
 *
 * @throws ResourceExhausted if there is none.
 */
export function allocate(nbytes: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(nbytes);
  } catch {
    throw new ResourceExhausted(`there is no memory for ${nbytes} bytes`);
  }
}

/** Returns whether bytes begin as a frame does. */
export function beginsAsFrame(bytes: Uint8Array): boolean {
  return MAGIC.every((byte, index) => bytes[index] === byte);
}

function readPrelude(prelude: Uint8Array): { headerBytes: number; payloadCount: number } {
  if (!beginsAsFrame(prelude)) throw new MalformedFrame("the answer does not begin with a frame's magic");
  if (prelude[7] !== VERSION) {
    throw new MalformedFrame(
      `the frame has version ${prelude[7] ?? 0}, this client knows version ${VERSION}`,
    );
  }
  const view = new DataView(prelude.buffer, prelude.byteOffset, PRELUDE_BYTES);
  const headerBytes = view.getUint32(8, true);
  const payloadCount = view.getUint32(12, true);
  if (headerBytes > MAX_HEADER_BYTES) {
    throw new ResourceExhausted(
      `the frame's header says ${headerBytes} bytes, the most is ${MAX_HEADER_BYTES}`,
    );
  }
  if (headerBytes === 0) throw new MalformedFrame("the frame has no header");
  if (payloadCount > MAX_PAYLOADS) {
    throw new ResourceExhausted(`the frame says ${payloadCount} payloads, the most is ${MAX_PAYLOADS}`);
  }
  return { headerBytes, payloadCount };
}

interface Layout {
  readonly ranges: readonly (readonly [number, number])[];
  readonly end: number;
}

/** Returns the first and last byte of each payload and the frame's end, counted like `start`. */
function layOut(header: Table, payloadCount: number, start: number, limit: number): Layout {
  const lengths = header.uint64s(HeaderSlots.payloads);
  if (lengths.length !== payloadCount) {
    throw new MalformedFrame(`the frame says ${payloadCount} payloads, its header ${lengths.length}`);
  }
  let end = start;
  const ranges: [number, number][] = [];
  for (const length of lengths) {
    const last = end + Number(length);
    ranges.push([end, last]);
    end = aligned(last);
    if (end > limit) {
      throw new ResourceExhausted(`the answer has at least ${end} bytes, this client takes ${limit}`);
    }
  }
  return { ranges, end };
}

/**
 * Reads one whole frame; payloads are views of it.
 *
 * @throws MalformedFrame if the bytes are not one frame.
 * @throws ResourceExhausted if it is longer than `limit`.
 */
export function splitFrame(body: Uint8Array, limit: number = DEFAULT_MAX_FRAME_BYTES): Frame {
  if (body.length < PRELUDE_BYTES)
    throw new MalformedFrame(`the frame is cut off after ${body.length} bytes`);
  const { headerBytes, payloadCount } = readPrelude(body);
  const headerEnd = PRELUDE_BYTES + headerBytes;
  if (headerEnd > body.length) {
    throw new MalformedFrame(`the frame is cut off within its header, after ${body.length} bytes`);
  }
  const header = new FlatBuffer(body.subarray(PRELUDE_BYTES, headerEnd)).root();
  const { ranges, end } = layOut(header, payloadCount, aligned(headerEnd), limit);
  if (end !== body.length) throw new MalformedFrame(`the frame says ${end} bytes, got ${body.length}`);
  return { header, payloads: ranges.map(([first, last]) => body.subarray(first, last)) };
}

/**
 * Collects the pieces of a stream into frames.
 *
 * Ask `space()` for the memory the next bytes go to, fill any part of it, say how much in `filled`; each call
 * gives a frame or nothing. Nothing is allocated before the length that asks for it has been checked.
 */
export class FrameAssembler {
  readonly #limit: number;
  #memory: Uint8Array = new Uint8Array(PRELUDE_BYTES);
  #have = 0;
  #headerBytes = 0;
  #payloadCount = 0;
  #header: Table | undefined;
  #ranges: Layout["ranges"] = [];

  constructor(limit: number = DEFAULT_MAX_FRAME_BYTES) {
    this.#limit = limit;
  }

  /** True between two frames. */
  get idle(): boolean {
    return this.#have === 0 && this.#headerBytes === 0;
  }

  /** Returns the memory that the next bytes of the stream belong in; never empty. */
  space(): Uint8Array {
    return this.#memory.subarray(this.#have);
  }

  /** Accounts for more bytes in `space()`; returns the frame that they complete. */
  filled(nbytes: number): Frame | undefined {
    this.#have += nbytes;
    while (this.#have === this.#memory.length) {
      if (this.#headerBytes === 0) {
        ({ headerBytes: this.#headerBytes, payloadCount: this.#payloadCount } = readPrelude(this.#memory));
        this.#expect(aligned(PRELUDE_BYTES + this.#headerBytes) - PRELUDE_BYTES);
      } else if (this.#header === undefined) {
        this.#header = new FlatBuffer(this.#memory.subarray(0, this.#headerBytes)).root();
        const { ranges, end } = layOut(this.#header, this.#payloadCount, 0, this.#limit);
        this.#ranges = ranges;
        if (end === 0) return this.#finish(NOTHING);
        this.#expect(end);
      } else {
        return this.#finish(this.#memory);
      }
    }
    return undefined;
  }

  /** Copies a piece of the stream in; returns the frames it completes, oldest first. */
  feed(piece: Uint8Array): Frame[] {
    const frames: Frame[] = [];
    let rest = piece;
    while (rest.length > 0) {
      const nbytes = Math.min(this.#memory.length - this.#have, rest.length);
      this.#memory.set(nbytes === rest.length ? rest : rest.subarray(0, nbytes), this.#have);
      rest = rest.subarray(nbytes);
      const frame = this.filled(nbytes);
      if (frame !== undefined) frames.push(frame);
    }
    return frames;
  }

  #expect(nbytes: number): void {
    this.#memory = allocate(nbytes);
    this.#have = 0;
  }

  #finish(body: Uint8Array): Frame {
    const header = this.#header as Table;
    const payloads = this.#ranges.map(([first, last]) => body.subarray(first, last));
    this.#expect(PRELUDE_BYTES);
    this.#headerBytes = 0;
    this.#header = undefined;
    return { header, payloads };
  }
}
