/**
 * Reading a flatbuffer that came from somebody else.
 *
 * The flatbuffers runtime trusts its bytes: an offset that lies reads a wrong place, and a `RangeError` or a
 * plain wrong value comes out. So nothing received goes near it: each offset is checked against the buffer as
 * it is followed, which makes reading and verifying one pass. Knows the flatbuffer format, not our schema.
 * Depth is bounded because each reader names its own children; the number of tables by a budget, against
 * graphs that share children to look bigger than they are.
 *
 * Source: flatbuffers.dev/internals; limits after the Rust and C++ verifiers.
 */
import { MalformedFrame } from "./errors.js";

const MAX_TABLES = 10_000;
const HIGH = 2 ** 32;

/** Received bytes, and how many more tables and strings may be read from them. */
export class FlatBuffer {
  readonly #bytes: Uint8Array;
  readonly view: DataView;
  readonly size: number;
  #left = MAX_TABLES;
  #decoder: TextDecoder | undefined;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.size = bytes.length;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Returns the root table. */
  root(): Table {
    if (this.size < 8) {
      throw new MalformedFrame(`the header has ${this.size} bytes, a flatbuffer needs at least 8`);
    }
    return new Table(this, this.follow(0));
  }

  /** Counts tables and strings. */
  spend(count: number): void {
    this.#left -= count;
    if (this.#left < 0) throw new MalformedFrame(`the header has more than ${MAX_TABLES} tables and strings`);
  }

  /** Returns where the unsigned offset at `position` leads; `position` is known to be inside. */
  follow(position: number): number {
    const target = position + this.view.getUint32(position, true);
    if (target <= position || target + 4 > this.size || target % 4 !== 0) {
      throw new MalformedFrame(`the header's offset at ${position} leads to ${target} of ${this.size} bytes`);
    }
    return target;
  }

  /** Returns the string that the offset at `position` leads to. */
  string(position: number): string {
    this.spend(1);
    const start = this.follow(position) + 4;
    const end = start + this.view.getUint32(start - 4, true);
    if (end + 1 > this.size || this.#bytes[end] !== 0) {
      throw new MalformedFrame(`a string of ${end - start} bytes at ${start} does not end inside the header`);
    }
    this.#decoder ??= new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    try {
      return this.#decoder.decode(this.#bytes.subarray(start, end));
    } catch {
      throw new MalformedFrame(`the string at ${start} is not UTF-8`);
    }
  }

  /** Returns start and length of the vector that the offset at `position` leads to. */
  vector(position: number, elementBytes: number): { start: number; length: number } {
    const start = this.follow(position) + 4;
    const length = this.view.getUint32(start - 4, true);
    if (start + length * elementBytes > this.size) {
      throw new MalformedFrame(`a vector of ${length} elements at ${start} is longer than the header`);
    }
    if (length > 0 && start % elementBytes !== 0) {
      throw new MalformedFrame(`the vector at ${start} is not aligned to ${elementBytes} bytes`);
    }
    return { start, length };
  }

  /** Returns an unsigned 64-bit integer; as a bigint only where a number cannot hold it. */
  uint64(position: number): number | bigint {
    const high = this.view.getUint32(position + 4, true);
    if (high >= 2 ** 21) return this.view.getBigUint64(position, true);
    return high * HIGH + this.view.getUint32(position, true);
  }

  /** Returns a signed 64-bit integer; as a bigint only where a number cannot hold it. */
  int64(position: number): number | bigint {
    const high = this.view.getInt32(position + 4, true);
    if (high >= 2 ** 21 || high < -(2 ** 21) + 1) return this.view.getBigInt64(position, true);
    return high * HIGH + this.view.getUint32(position, true);
  }
}

/** One table; every field is checked when it is read. A slot counts fields from 0. */
export class Table {
  readonly #buffer: FlatBuffer;
  readonly #position: number;
  readonly #vtable: number;
  readonly #vtableBytes: number;
  readonly #end: number;

  constructor(buffer: FlatBuffer, position: number) {
    buffer.spend(1);
    const { view, size } = buffer;
    const vtable = position - view.getInt32(position, true);
    if (vtable < 0 || vtable % 2 !== 0 || vtable + 4 > size) {
      throw new MalformedFrame(`the vtable of the table at ${position} lies outside of the header`);
    }
    const vtableBytes = view.getUint16(vtable, true);
    const tableBytes = view.getUint16(vtable + 2, true);
    if (vtableBytes < 4 || vtableBytes % 2 !== 0 || vtable + vtableBytes > size) {
      throw new MalformedFrame(`the vtable at ${vtable} says ${vtableBytes} bytes`);
    }
    if (tableBytes < 4 || position + tableBytes > size) {
      throw new MalformedFrame(`the table at ${position} says ${tableBytes} bytes`);
    }
    this.#buffer = buffer;
    this.#position = position;
    this.#vtable = vtable;
    this.#vtableBytes = vtableBytes;
    this.#end = position + tableBytes;
  }

  #field(slot: number, nbytes: number): number | undefined {
    const entry = 4 + 2 * slot;
    if (entry + 2 > this.#vtableBytes) return undefined;
    const offset = this.#buffer.view.getUint16(this.#vtable + entry, true);
    if (offset === 0) return undefined;
    const position = this.#position + offset;
    if (offset < 4 || position + nbytes > this.#end || position % nbytes !== 0) {
      throw new MalformedFrame(`field ${slot} of the table at ${this.#position} lies outside of it`);
    }
    return position;
  }

  /** Returns a byte, 0 if absent. */
  uint8(slot: number): number {
    const position = this.#field(slot, 1);
    return position === undefined ? 0 : this.#buffer.view.getUint8(position);
  }

  /** Returns an unsigned 32-bit integer, 0 if absent. */
  uint32(slot: number): number {
    const position = this.#field(slot, 4);
    return position === undefined ? 0 : this.#buffer.view.getUint32(position, true);
  }

  /** Returns an unsigned 64-bit integer, 0 if absent. */
  uint64(slot: number): number | bigint {
    const position = this.#field(slot, 8);
    return position === undefined ? 0 : this.#buffer.uint64(position);
  }

  /** Returns a signed 64-bit integer, 0 if absent. */
  int64(slot: number): number | bigint {
    const position = this.#field(slot, 8);
    return position === undefined ? 0 : this.#buffer.int64(position);
  }

  /** Returns a double, 0 if absent. */
  float64(slot: number): number {
    const position = this.#field(slot, 8);
    return position === undefined ? 0 : this.#buffer.view.getFloat64(position, true);
  }

  /** Returns a string, undefined if absent. */
  string(slot: number): string | undefined {
    const position = this.#field(slot, 4);
    return position === undefined ? undefined : this.#buffer.string(position);
  }

  /** Returns a child table, undefined if absent. */
  table(slot: number): Table | undefined {
    const position = this.#field(slot, 4);
    return position === undefined ? undefined : new Table(this.#buffer, this.#buffer.follow(position));
  }

  /** Returns a vector of signed 64-bit integers, empty if absent. */
  int64s(slot: number): (number | bigint)[] {
    return this.#elements(slot, 8, (position) => this.#buffer.int64(position));
  }

  /** Returns a vector of unsigned 64-bit integers, empty if absent. */
  uint64s(slot: number): (number | bigint)[] {
    return this.#elements(slot, 8, (position) => this.#buffer.uint64(position));
  }

  /** Returns a vector of tables, empty if absent. */
  tables(slot: number): Table[] {
    return this.#elements(slot, 4, (position) => new Table(this.#buffer, this.#buffer.follow(position)));
  }

  /** Returns a vector of strings, empty if absent. */
  strings(slot: number): string[] {
    return this.#elements(slot, 4, (position) => this.#buffer.string(position));
  }

  #elements<T>(slot: number, elementBytes: number, read: (position: number) => T): T[] {
    const position = this.#field(slot, 4);
    if (position === undefined) return [];
    const { start, length } = this.#buffer.vector(position, elementBytes);
    const elements: T[] = [];
    for (let index = 0; index < length; index++) elements.push(read(start + index * elementBytes));
    return elements;
  }
}
