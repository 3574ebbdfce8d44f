/**
 * The client: what a caller asks, checked, with its timeout, its signal and its retries. Knows no transport's
 * kind; entry points give it one.
 */
import { onAbort } from "./abort.js";
import { DeadlineExceeded, InvalidArgument, NotFound, Unavailable } from "./errors.js";
import { GRACE_MS, patience } from "./patience.js";
import { type Inputs, type InferRequest, makeRequest, type RequestOptions, timeoutUs } from "./request.js";
import { withRetries } from "./retries.js";
import { responsesOf, type Transport } from "./transport.js";
import type { InferResponse, ModelMetadata, ModelState, ServerMetadata } from "./values.js";

/** Asking who is there needs no model and must not wait for ever. */
const ASK_TIMEOUT_MS = 10_000;

/** What every client can be told. */
export interface ClientOptions {
  /** The timeout of requests that say none. Absent: they wait for ever. */
  readonly timeoutMs?: number | undefined;
  /** Sent as `authorization: Bearer ...`, where the transport has a place for it. */
  readonly token?: string | undefined;
  /** The largest frame or body that the client takes; 2 GiB unless said. */
  readonly maxFrameBytes?: number | undefined;
  /**
   * How often `infer` and what asks about models may be tried again, and only where nothing can have run: what was
   * refused with a `retryAfterMs`, or certainly never sent. 0 unless said.
   */
  readonly retries?: number | undefined;
}

/** How one call is given up. */
export interface CallOptions {
  /** Gives the call up; it rejects with the signal's reason, and the server is told. */
  readonly signal?: AbortSignal | undefined;
}

/** Everything that can be said of a request beside its model and inputs. */
export interface InferOptions extends RequestOptions, CallOptions {}

/** What can be said of many requests at once. */
export interface InferManyOptions extends InferOptions {
  /** How many may wait for their answer at once; 64 unless said. */
  readonly inFlight?: number | undefined;
}

/** What can be said of a question about a model. */
export interface AskOptions extends CallOptions {
  /** Absent: the latest ready one. */
  readonly version?: string | undefined;
  /** How long to wait; 10 s unless said. */
  readonly timeoutMs?: number | undefined;
}

/**
 * A connection to one server. Made by `connect`.
 *
 * Nothing that may have run is ever sent twice: a request whose connection breaks fails with `Unavailable`, and it
 * is the caller who knows whether to ask again. Every call that fails rejects with a `KingpoleError`, or with the
 * reason of its own signal.
 */
export class Client {
  readonly #transport: Transport;
  readonly #timeoutMs: number | undefined;
  readonly #retries: number;

  /** Not for callers: use `connect`. */
  constructor(transport: Transport, { timeoutMs, retries = 0 }: ClientOptions) {
    timeoutUs(timeoutMs);
    if (!Number.isInteger(retries) || retries < 0) {
      throw new InvalidArgument(`retries is ${retries}, it must be a whole number of at least 0`);
    }
    this.#transport = transport;
    this.#timeoutMs = timeoutMs;
    this.#retries = retries;
  }

  /**
   * Asks a model for an inference. The tensors are sent from where they are, and must not change before the
   * answer is there.
   *
   * @param model - The model's name; empty asks for the server's default model.
   * @param inputs - Tensors by input name.
   */
  async infer(model: string, inputs: Inputs, options: InferOptions = {}): Promise<InferResponse> {
    const request = makeRequest(model, inputs, options, this.#timeoutMs);
    const startedMs = performance.now();
    const { signal, end } = patience(waitMs(request), options.signal);
    try {
      return await withRetries(
        (triesBefore) =>
          this.#transport.infer(triesBefore === 0 ? request : withTimeLeft(request, startedMs), signal),
        this.#retries,
        signal,
      );
    } finally {
      end();
    }
  }

  /**
   * Asks for many inferences, up to `inFlight` at a time; gives the responses in the requests' order. Requests are
   * read as responses are taken. Left early, or after an error, it cancels what waits.
   *
   * @param requests - The inputs of each request. All other options hold for every one.
   */
  async *inferMany(
    model: string,
    requests: Iterable<Inputs> | AsyncIterable<Inputs>,
    options: InferManyOptions = {},
  ): AsyncGenerator<InferResponse, void, undefined> {
    const { inFlight = 64, signal: given, ...rest } = options;
    if (!Number.isInteger(inFlight) || inFlight < 1) {
      throw new InvalidArgument(`inFlight is ${inFlight}, it must be a whole number of at least 1`);
    }
    const controller = new AbortController();
    const follow = () => {
      controller.abort((given as AbortSignal).reason);
    };
    given?.throwIfAborted();
    const unfollow = onAbort(given, follow);
    const waiting: Promise<InferResponse>[] = [];
    try {
      for await (const inputs of requests) {
        const answer = this.infer(model, inputs, { ...rest, signal: controller.signal });
        // Whoever takes it sees the rejection; nobody does if an earlier one ended everything.
        answer.catch(() => undefined);
        waiting.push(answer);
        if (waiting.length >= inFlight) yield await (waiting.shift() as Promise<InferResponse>);
      }
      while (waiting.length > 0) yield await (waiting.shift() as Promise<InferResponse>);
    } finally {
      unfollow();
      if (waiting.length > 0) controller.abort();
    }
  }

  /**
   * Asks for an inference that may be answered by any number of responses; they come as they are made. The
   * request is sent when the first response is waited for, over a connection or call of its own: responses that
   * are not taken hold up the model that makes them, and nothing else. Leaving the loop early tells the model to
   * make no more. An error is thrown where it comes; what came before stays good.
   */
  async *stream(
    model: string,
    inputs: Inputs,
    options: InferOptions = {},
  ): AsyncGenerator<InferResponse, void, undefined> {
    const request = makeRequest(model, inputs, options, this.#timeoutMs);
    const { signal, end } = patience(waitMs(request), options.signal);
    try {
      yield* responsesOf(await this.#transport.open(request, signal));
    } finally {
      end();
    }
  }

  /** Returns whether the server answers at all. */
  async live(options: AskOptions = {}): Promise<boolean> {
    try {
      return await this.#ask(options, (signal) => this.#transport.live(signal));
    } catch (error) {
      if (error instanceof Unavailable) return false;
      throw error;
    }
  }

  /** Returns whether a model, or without one the server, is ready to infer; an unknown model is not. */
  async ready(model?: string, options: AskOptions = {}): Promise<boolean> {
    try {
      return await this.#ask(options, (signal) => this.#transport.ready(model, options.version, signal));
    } catch (error) {
      if (error instanceof Unavailable || error instanceof NotFound) return false;
      throw error;
    }
  }

  /** Returns who the server is. */
  server(options: AskOptions = {}): Promise<ServerMetadata> {
    return this.#ask(options, (signal) => this.#transport.server(signal));
  }

  /** Returns what a model takes and gives. */
  metadata(model: string, options: AskOptions = {}): Promise<ModelMetadata> {
    return this.#ask(options, (signal) => this.#transport.metadata(model, options.version, signal));
  }

  /** Returns the repository's index: every model and version that the server knows, and its state. */
  models(options: AskOptions = {}): Promise<ModelState[]> {
    return this.#ask(options, (signal) => this.#transport.models(signal));
  }

  /** Ends every connection. What waits is rejected with `Cancelled`. */
  close(): void {
    this.#transport.close();
  }

  async #ask<T>(options: AskOptions, call: (signal: AbortSignal | undefined) => Promise<T>): Promise<T> {
    timeoutUs(options.timeoutMs);
    const { signal, end } = patience(options.timeoutMs ?? ASK_TIMEOUT_MS, options.signal);
    try {
      return await withRetries(() => call(signal), this.#retries, signal);
    } finally {
      end();
    }
  }
}

function waitMs(request: InferRequest): number | undefined {
  return request.timeoutUs === undefined ? undefined : request.timeoutUs / 1000 + GRACE_MS;
}

/** The time that earlier tries took is gone for the server too. */
function withTimeLeft(request: InferRequest, startedMs: number): InferRequest {
  if (request.timeoutUs === undefined) return request;
  const passedUs = Math.floor((performance.now() - startedMs) * 1000);
  const leftUs = request.timeoutUs - passedUs;
  if (leftUs <= 0) throw new DeadlineExceeded("the timeout passed before the request was sent");
  return { ...request, timeoutUs: leftUs };
}
