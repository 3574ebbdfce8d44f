/**
 * Requests as frames on one stream, which is opened when it is first needed, and again after it has ended. Knows no
 * socket and no gRPC.
 */
import type { Answer } from "./decode.js";
import {
  encodeMetadataRequest,
  encodeReadyRequest,
  encodeRequest,
  encodeServerInfoRequest,
} from "./encode.js";
import { Cancelled } from "./errors.js";
import type { FrameStream } from "./frame-stream.js";
import type { Buffers } from "./frame.js";
import { whileWanted } from "./patience.js";
import type { InferRequest } from "./request.js";
import { expect, ONLY_EXCHANGE, type Source, type Transport } from "./transport.js";
import type { InferResponse, ModelMetadata, ModelState, ServerMetadata } from "./values.js";

/** Opens streams to one server. */
export interface Opener {
  /** Opens the stream that requests share. */
  open(): Promise<FrameStream>;
  /** Sends one request on a connection or call of its own. */
  openSource(buffers: Buffers, signal: AbortSignal | undefined): Promise<Source>;
  models(signal: AbortSignal | undefined): Promise<ModelState[]>;
  close(): void;
}

/** A stream to one server. */
export class FrameTransport implements Transport {
  readonly #opener: Opener;
  #stream: FrameStream | undefined;
  #opening: Promise<FrameStream> | undefined;
  #isClosed = false;

  constructor(opener: Opener) {
    this.#opener = opener;
  }

  async infer(request: InferRequest, signal: AbortSignal | undefined): Promise<InferResponse> {
    const answer = await this.#ask((exchange) => encodeRequest(request, exchange), true, signal);
    return expect(answer, "response").response;
  }

  async open(request: InferRequest, signal: AbortSignal | undefined): Promise<Source> {
    this.#checkOpen();
    return this.#opener.openSource(encodeRequest(request, ONLY_EXCHANGE), signal);
  }

  async live(signal: AbortSignal | undefined): Promise<boolean> {
    await this.server(signal);
    return true;
  }

  async ready(
    model: string | undefined,
    version: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const make = (exchange: number) => encodeReadyRequest(model, version, exchange);
    return expect(await this.#ask(make, false, signal), "ready").ready;
  }

  async server(signal: AbortSignal | undefined): Promise<ServerMetadata> {
    return expect(await this.#ask(encodeServerInfoRequest, false, signal), "server").server;
  }

  async metadata(
    model: string,
    version: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<ModelMetadata> {
    const make = (exchange: number) => encodeMetadataRequest(model, version, exchange);
    return expect(await this.#ask(make, false, signal), "metadata").metadata;
  }

  async models(signal: AbortSignal | undefined): Promise<ModelState[]> {
    this.#checkOpen();
    return this.#opener.models(signal);
  }

  close(): void {
    this.#isClosed = true;
    this.#stream?.fail(new Cancelled("the client was closed"));
    this.#opener.close();
  }

  async #ask(
    make: (exchange: number) => Buffers,
    isRequest: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    this.#checkOpen();
    const stream =
      this.#stream?.hasEnded === false ? this.#stream : await whileWanted(this.#opened(), signal);
    return stream.ask(make, isRequest, signal);
  }

  /** Several calls that find no stream wait for the same one. */
  #opened(): Promise<FrameStream> {
    this.#opening ??= this.#openOnce().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #openOnce(): Promise<FrameStream> {
    const stream = await this.#opener.open();
    this.#stream = stream;
    if (this.#isClosed) stream.fail(new Cancelled("the client was closed"));
    return stream;
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new Cancelled("the client is closed");
  }
}
