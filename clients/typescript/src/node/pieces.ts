/**
 * The pieces of a body as they come, one at a time. Node's own iterator of a stream does the same for several times
 * the CPU time, which a small answer would notice.
 */
import type { IncomingMessage } from "node:http";

type Result = IteratorResult<Uint8Array, undefined>;

interface Waiting {
  readonly resolve: (result: Result) => void;
  readonly reject: (reason: unknown) => void;
}

/** Pulls a body. What is not taken is not read, but for one piece. */
export class Pieces implements AsyncIterator<Uint8Array, undefined> {
  readonly #incoming: IncomingMessage;
  readonly #reasonOf: (error: Error) => unknown;
  readonly #queue: Uint8Array[] = [];
  #waiting: Waiting | undefined;
  #hasEnded = false;
  #failure: { readonly reason: unknown } | undefined;

  /**
   * @param reasonOf - What to reject with for an error of the stream.
   * @param over - Called once, when the stream has ended in whichever way.
   */
  constructor(incoming: IncomingMessage, reasonOf: (error: Error) => unknown, over: () => void) {
    this.#incoming = incoming;
    this.#reasonOf = reasonOf;
    incoming.on("data", (piece: Buffer) => {
      this.#take(new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength));
    });
    incoming.on("end", () => {
      this.#hasEnded = true;
      this.#waiting?.resolve({ done: true, value: undefined });
      over();
    });
    incoming.on("error", (error) => {
      this.#fail(error);
      over();
    });
    incoming.on("close", () => {
      if (!this.#hasEnded) this.#fail(new Error("closed within the answer"));
      over();
    });
  }

  next(): Promise<Result> {
    const piece = this.#queue.shift();
    if (this.#queue.length === 0 && this.#incoming.isPaused()) this.#incoming.resume();
    if (piece !== undefined) return Promise.resolve({ done: false, value: piece });
    if (this.#failure !== undefined) return Promise.reject(this.#failure.reason);
    if (this.#hasEnded) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  #take(piece: Uint8Array): void {
    const waiting = this.#waiting;
    if (waiting === undefined) {
      this.#queue.push(piece);
      this.#incoming.pause();
      return;
    }
    this.#waiting = undefined;
    waiting.resolve({ done: false, value: piece });
  }

  #fail(error: Error): void {
    this.#failure ??= { reason: this.#reasonOf(error) };
    this.#waiting?.reject(this.#failure.reason);
    this.#waiting = undefined;
  }
}
