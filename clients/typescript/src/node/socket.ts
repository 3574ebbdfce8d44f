/**
 * Frames straight over TCP and Unix sockets.
 *
 * Requests leave by `writev`, and what is long is received into the memory that it stays in.
 */
import net from "node:net";

import { onAbort } from "../abort.js";
import type { Address } from "../address.js";
import { encodeCancel } from "../encode.js";
import { Unavailable } from "../errors.js";
import { FrameStream, type Link } from "../frame-stream.js";
import { type Buffers, type Frame, FrameAssembler } from "../frame.js";
import type { Opener } from "../frame-transport.js";
import * as rest from "../rest.js";
import { readWhole } from "../http.js";
import { ONLY_EXCHANGE, type Source } from "../transport.js";
import type { ModelState } from "../values.js";
import { NodeHttpSender } from "./http-sender.js";

const SCRATCH_BYTES = 64 * 1024;
const CONNECT_TIMEOUT_MS = 10_000;

/** Opens sockets to one address. */
export class SocketOpener implements Opener {
  readonly #address: Address;
  readonly #limit: number;
  readonly #sources = new Set<SocketSource>();
  #http: NodeHttpSender | undefined;

  constructor(address: Address, limit: number) {
    this.#address = address;
    this.#limit = limit;
  }

  async open(): Promise<FrameStream> {
    const receiver = new Receiver(this.#limit);
    const socket = await connect(this.#address, undefined, {
      buffer: () => receiver.space(),
      callback: (nbytes, buffer) => receiver.received(nbytes, buffer),
    });
    const stream = new FrameStream(new SocketLink(socket));
    receiver.stream = stream;
    const { name } = this.#address;
    socket.on("error", (error) => {
      stream.fail(new Unavailable(`the connection to ${name} broke: ${error.message}`, { cause: error }));
    });
    socket.on("close", () => {
      stream.fail(new Unavailable(`${name} closed the connection`));
    });
    return stream;
  }

  async openSource(buffers: Buffers, signal: AbortSignal | undefined): Promise<Source> {
    const socket = await connect(this.#address, signal);
    const source = new SocketSource(socket, this.#address.name, this.#limit, signal, () => {
      this.#sources.delete(source);
    });
    this.#sources.add(source);
    write(socket, buffers);
    return source;
  }

  /** The same port speaks HTTP. */
  async models(signal: AbortSignal | undefined): Promise<ModelState[]> {
    this.#http ??= new NodeHttpSender(this.#address, undefined, undefined);
    return rest.readModels(await readWhole(await this.#http.send(rest.ASK_MODELS, signal), this.#limit));
  }

  close(): void {
    for (const source of this.#sources) source.close(false);
    this.#http?.close();
  }
}

function connect(
  address: Address,
  signal: AbortSignal | undefined,
  onread?: net.OnReadOpts,
): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const where =
      address.scheme === "unix" ? { path: address.path } : { host: address.host, port: address.port };
    const socket = net.connect({ ...where, ...(onread === undefined ? {} : { onread }) });
    const timer = setTimeout(() => {
      socket.destroy(new Error(`no connection within ${CONNECT_TIMEOUT_MS} ms`));
    }, CONNECT_TIMEOUT_MS);
    const giveUp = () => {
      socket.destroy(new Error("given up"));
    };
    const over = () => {
      clearTimeout(timer);
      unfollow();
      socket.off("error", failed);
    };
    const failed = (error: Error) => {
      over();
      if (signal?.aborted) reject(signal.reason);
      const text = `cannot connect to ${address.name}: ${error.message}`;
      reject(new Unavailable(text, { neverSent: true, cause: error }));
    };
    const unfollow = onAbort(signal, giveUp);
    socket.once("error", failed);
    socket.once("connect", () => {
      over();
      socket.setNoDelay(true);
      resolve(socket);
    });
  });
}

function write(socket: net.Socket, buffers: Buffers): boolean {
  const [only] = buffers;
  if (buffers.length === 1 && only !== undefined) return socket.write(only);
  let hasRoom = true;
  socket.cork();
  for (const buffer of buffers) hasRoom = socket.write(buffer);
  socket.uncork();
  return hasRoom;
}

/** Says where the next bytes go, and makes frames of them. */
class Receiver {
  /** Set before the first bytes come. */
  stream: FrameStream | undefined;
  readonly #assembler: FrameAssembler;
  readonly #scratch = new Uint8Array(SCRATCH_BYTES);

  constructor(limit: number) {
    this.#assembler = new FrameAssembler(limit);
  }

  space(): Uint8Array {
    const space = this.#assembler.space();
    // For what is short one read that may take several frames is better than one for each part.
    return space.length >= SCRATCH_BYTES ? space : this.#scratch;
  }

  received(nbytes: number, buffer: Uint8Array): boolean {
    try {
      if (buffer === this.#scratch) {
        for (const frame of this.#assembler.feed(buffer.subarray(0, nbytes))) this.stream?.receive(frame);
      } else {
        const frame = this.#assembler.filled(nbytes);
        if (frame !== undefined) this.stream?.receive(frame);
      }
    } catch (error) {
      this.stream?.fail(error);
    }
    return true;
  }
}

class SocketLink implements Link {
  readonly #socket: net.Socket;
  #full: Promise<void> | undefined;

  constructor(socket: net.Socket) {
    this.#socket = socket;
  }

  write(buffers: Buffers): void {
    if (this.#socket.destroyed || write(this.#socket, buffers) || this.#full !== undefined) return;
    this.#full = new Promise((resolve) => {
      const hasRoom = () => {
        this.#socket.off("drain", hasRoom).off("close", hasRoom);
        this.#full = undefined;
        resolve();
      };
      this.#socket.on("drain", hasRoom).on("close", hasRoom);
    });
  }

  full(): Promise<void> | undefined {
    return this.#full;
  }

  end(): void {
    this.#socket.destroy();
  }
}

/** Frames on a socket of their own. What is not taken stays in the socket, where the server sees that it does. */
class SocketSource implements Source {
  readonly #socket: net.Socket;
  readonly #pieces: AsyncIterator<Buffer, undefined>;
  readonly #assembler: FrameAssembler;
  readonly #name: string;
  readonly #signal: AbortSignal | undefined;
  readonly #onClose: () => void;
  readonly #unfollow: () => void;
  #frames: Frame[] = [];

  constructor(
    socket: net.Socket,
    name: string,
    limit: number,
    signal: AbortSignal | undefined,
    onClose: () => void,
  ) {
    this.#socket = socket;
    this.#pieces = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer, undefined>;
    this.#assembler = new FrameAssembler(limit);
    this.#name = name;
    this.#signal = signal;
    this.#onClose = onClose;
    this.#unfollow = onAbort(signal, () => {
      this.close(false);
    });
    socket.on("error", () => undefined);
  }

  async next(): Promise<Frame> {
    for (;;) {
      const frame = this.#frames.shift();
      if (frame !== undefined) return frame;
      this.#frames = this.#assembler.feed(await this.#piece());
    }
  }

  async #piece(): Promise<Uint8Array> {
    this.#signal?.throwIfAborted();
    try {
      const { done, value } = await this.#pieces.next();
      if (done !== true) return value;
    } catch (error) {
      this.#signal?.throwIfAborted();
      const text = `the connection to ${this.#name} broke: ${(error as Error).message}`;
      throw new Unavailable(text, { cause: error });
    }
    this.#signal?.throwIfAborted();
    throw new Unavailable(`${this.#name} closed the connection within its answer`);
  }

  close(hasEnded: boolean): void {
    this.#unfollow();
    this.#onClose();
    if (this.#socket.destroyed) return;
    // A server need not have answered to hear that nobody wants it to.
    if (!hasEnded) write(this.#socket, encodeCancel(ONLY_EXCHANGE));
    this.#socket.destroySoon();
  }
}
