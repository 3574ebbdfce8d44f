/**
 * Frames over gRPC: `kingpole.v1.Inference/Stream` with the identity codec. `@grpc/grpc-js` is loaded on first use.
 */
import type { Client as GrpcClient, ClientDuplexStream, Metadata, ServiceError } from "@grpc/grpc-js";

import { onAbort } from "../abort.js";
import type { Address } from "../address.js";
import { errorOfNumber, type KingpoleError, Unavailable, Unimplemented } from "../errors.js";
import { FrameStream, type Link } from "../frame-stream.js";
import { type Buffers, type Frame, joinBuffers, splitFrame } from "../frame.js";
import type { Opener } from "../frame-transport.js";
import { readModels } from "../protobuf.js";
import type { Source } from "../transport.js";
import type { ModelState } from "../values.js";

const STREAM = "/kingpole.v1.Inference/Stream";
const INDEX = "/inference.GRPCInferenceService/RepositoryIndex";
const MAX_MESSAGE_BYTES = 2 ** 31 - 1;
const UNAVAILABLE = 14;
const UNIMPLEMENTED = 12;
/** What grpc-js says when a call never left this machine. */
const NEVER_SENT = /^(No connection established|Name resolution failed)/;

type Grpc = typeof import("@grpc/grpc-js");
type Call = ClientDuplexStream<Buffers, Uint8Array>;

/** Opens calls on one channel. */
export class GrpcOpener implements Opener {
  readonly #address: Address;
  readonly #token: string | undefined;
  readonly #rootCertificates: string | Uint8Array | undefined;
  readonly #limit: number;
  #channel: Promise<Channel> | undefined;

  constructor(
    address: Address,
    token: string | undefined,
    rootCertificates: string | Uint8Array | undefined,
    limit: number,
  ) {
    this.#address = address;
    this.#token = token;
    this.#rootCertificates = rootCertificates;
    this.#limit = limit;
  }

  async open(): Promise<FrameStream> {
    const channel = await this.#opened();
    const call = channel.stream();
    const stream = new FrameStream(new CallLink(call));
    call.on("data", (message: Uint8Array) => {
      try {
        stream.receive(splitFrame(message, this.#limit));
      } catch (error) {
        stream.fail(error);
      }
    });
    call.on("error", (error) => {
      stream.fail(errorOfRpc(error as ServiceError, this.#address));
    });
    call.on("end", () => {
      stream.fail(new Unavailable(`${this.#address.name} ended the stream`));
    });
    return stream;
  }

  async openSource(buffers: Buffers, signal: AbortSignal | undefined): Promise<Source> {
    const channel = await this.#opened();
    signal?.throwIfAborted();
    const call = channel.stream();
    call.write(buffers);
    call.end();
    return new CallSource(call, this.#address, this.#limit, signal);
  }

  async models(signal: AbortSignal | undefined): Promise<ModelState[]> {
    const channel = await this.#opened();
    return readModels(await channel.index(signal));
  }

  close(): void {
    this.#channel?.then(
      (channel) => {
        channel.client.close();
      },
      () => undefined,
    );
  }

  #opened(): Promise<Channel> {
    this.#channel ??= this.#openChannel();
    return this.#channel;
  }

  async #openChannel(): Promise<Channel> {
    const { name, authority, scheme } = this.#address;
    let grpc: Grpc;
    try {
      grpc = await import("@grpc/grpc-js");
    } catch (error) {
      throw new Unimplemented(`${name} needs gRPC: npm install @grpc/grpc-js (${String(error)})`, {
        cause: error,
      });
    }
    const pem = this.#rootCertificates === undefined ? null : Buffer.from(this.#rootCertificates);
    const credentials =
      scheme === "grpcs" ? grpc.credentials.createSsl(pem) : grpc.credentials.createInsecure();
    const client = new grpc.Client(authority, credentials, {
      "grpc.max_receive_message_length": Math.min(this.#limit, MAX_MESSAGE_BYTES),
      "grpc.max_send_message_length": -1,
      // Nothing is sent twice, and so nothing is kept to be.
      "grpc.enable_retries": 0,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 2000,
    });
    const metadata = new grpc.Metadata();
    if (this.#token !== undefined) metadata.set("authorization", `Bearer ${this.#token}`);
    return new Channel(client, metadata, this.#address);
  }
}

class Channel {
  constructor(
    readonly client: GrpcClient,
    readonly metadata: Metadata,
    readonly address: Address,
  ) {}

  stream(): Call {
    return this.client.makeBidiStreamRequest(STREAM, serialize, plain, this.metadata);
  }

  index(signal: AbortSignal | undefined): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const call = this.client.makeUnaryRequest(
        INDEX,
        serialize,
        plain,
        [],
        this.metadata,
        (error, answer: Uint8Array | undefined) => {
          unfollow();
          if (error === null) resolve(answer ?? new Uint8Array());
          else reject(signal?.aborted ? signal.reason : errorOfRpc(error, this.address));
        },
      );
      const unfollow = onAbort(signal, () => {
        call.cancel();
      });
    });
  }
}

function serialize(buffers: Buffers): Buffer {
  const joined = joinBuffers(buffers);
  return Buffer.from(joined.buffer, joined.byteOffset, joined.byteLength);
}

/** A message's bytes are the frame. */
function plain(message: Buffer): Uint8Array {
  return new Uint8Array(message.buffer, message.byteOffset, message.byteLength);
}

function errorOfRpc(error: ServiceError, { name }: Address): KingpoleError {
  const text = error.details || "no reason given";
  const code: number = error.code;
  if (code === UNIMPLEMENTED) {
    const hint = `${name} takes no frames over gRPC: over http this client also speaks Open Inference`;
    return new Unimplemented(`${text}; ${hint}`, { cause: error });
  }
  if (code !== UNAVAILABLE) return errorOfNumber(code, text, { cause: error });
  return new Unavailable(`${name}: ${text}`, { neverSent: NEVER_SENT.test(text), cause: error });
}

class CallLink implements Link {
  readonly #call: Call;
  #full: Promise<void> | undefined;

  constructor(call: Call) {
    this.#call = call;
  }

  write(buffers: Buffers): void {
    if (this.#call.destroyed || this.#call.write(buffers) || this.#full !== undefined) return;
    this.#full = new Promise((resolve) => {
      const hasRoom = () => {
        this.#call.off("drain", hasRoom).off("close", hasRoom).off("error", hasRoom);
        this.#full = undefined;
        resolve();
      };
      this.#call.on("drain", hasRoom).on("close", hasRoom).on("error", hasRoom);
    });
  }

  full(): Promise<void> | undefined {
    return this.#full;
  }

  end(): void {
    this.#call.cancel();
  }
}

/** The answer to one request, on a call of its own. */
class CallSource implements Source {
  readonly #call: Call;
  readonly #messages: AsyncIterator<Uint8Array, undefined>;
  readonly #address: Address;
  readonly #limit: number;
  readonly #signal: AbortSignal | undefined;
  readonly #unfollow: () => void;

  constructor(call: Call, address: Address, limit: number, signal: AbortSignal | undefined) {
    this.#call = call;
    this.#messages = call[Symbol.asyncIterator]() as AsyncIterator<Uint8Array, undefined>;
    this.#address = address;
    this.#limit = limit;
    this.#signal = signal;
    this.#unfollow = onAbort(signal, () => {
      call.cancel();
    });
    call.on("error", () => undefined);
  }

  async next(): Promise<Frame> {
    let message: IteratorResult<Uint8Array, undefined>;
    try {
      message = await this.#messages.next();
    } catch (error) {
      this.#signal?.throwIfAborted();
      throw errorOfRpc(error as ServiceError, this.#address);
    }
    if (message.done === true) {
      throw new Unavailable(`${this.#address.name} ended the stream before the last response`);
    }
    return splitFrame(message.value, this.#limit);
  }

  close(hasEnded: boolean): void {
    this.#unfollow();
    // Lets a call that has ended end well instead of being reset.
    if (hasEnded) this.#call.resume();
    else this.#call.cancel();
  }
}
