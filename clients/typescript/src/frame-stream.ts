/**
 * Frames both ways on one stream, many requests in flight, answers in any order. Knows no socket and no gRPC.
 */
import { onAbort } from "./abort.js";
import type { Answer } from "./decode.js";
import { encodeCancel } from "./encode.js";
import { Internal, KingpoleError, Unavailable } from "./errors.js";
import { Exchanges } from "./exchanges.js";
import type { Buffers, Frame } from "./frame.js";
import { whileWanted } from "./patience.js";

/** How long a server may take to give credit back before its stream is held to be broken. */
const OWED_CREDIT_MS = 1000;

/** What a stream writes to. */
export interface Link {
  /** Sends a frame. Never throws: what goes wrong is said by `FrameStream.fail`. */
  write(buffers: Buffers): void;
  /** A promise of having room again, if there is none now. */
  full(): Promise<void> | undefined;
  /** Ends the connection. */
  end(): void;
}

/** One stream. Whoever receives hands frames to `receive`, and says with `fail` that it has ended. */
export class FrameStream {
  readonly #exchanges = new Exchanges();
  readonly #link: Link;

  constructor(link: Link) {
    this.#link = link;
  }

  /** True once nothing more can be asked here. */
  get hasEnded(): boolean {
    return this.#exchanges.failure !== undefined;
  }

  /** Sends a request and waits for its answer; given up, it is cancelled. */
  async ask(
    make: (exchange: number) => Buffers,
    isRequest: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    signal?.throwIfAborted();
    const exchange = await this.#begin(isRequest, signal);
    let buffers: Buffers;
    try {
      const full = this.#link.full();
      if (full !== undefined) await whileWanted(full, signal);
      signal?.throwIfAborted();
      buffers = make(exchange);
    } catch (error) {
      this.#exchanges.withdraw(exchange);
      throw error;
    }
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        if (!this.#exchanges.giveUp(exchange)) return;
        this.#link.write(encodeCancel(exchange));
        reject((signal as AbortSignal).reason);
      };
      const over = onAbort(signal, giveUp);
      this.#exchanges.wait(exchange, {
        resolve: (answer) => {
          over();
          resolve(answer);
        },
        reject: (reason) => {
          over();
          reject(reason);
        },
      });
      if (!this.hasEnded) this.#link.write(buffers);
    });
  }

  async #begin(isRequest: boolean, signal: AbortSignal | undefined): Promise<number> {
    const startedMs = performance.now();
    try {
      return await this.#exchanges.begin(isRequest, signal);
    } catch (error) {
      // Nobody waits for an answer, and still nothing may be sent: the server owes credit for what was cancelled.
      if (this.#exchanges.isIdle && performance.now() - startedMs > OWED_CREDIT_MS) {
        this.fail(new Unavailable("the server gave no credit back for requests that were cancelled"));
      }
      throw error;
    }
  }

  /** Hands over what was received; a frame that makes no sense ends the stream. */
  receive(frame: Frame): void {
    try {
      const unwanted = this.#exchanges.receive(frame);
      if (unwanted !== undefined) this.#link.write(encodeCancel(unwanted));
    } catch (error) {
      this.fail(error);
    }
  }

  /** Ends the stream and everything that waits on it. */
  fail(error: unknown): void {
    const failure =
      error instanceof KingpoleError
        ? error
        : new Internal(`the stream broke: ${String(error)}`, { cause: error });
    this.#exchanges.fail(failure);
    this.#link.end();
  }
}
