/**
 * What the protocols over HTTP need of whatever sends a request. Sends nothing itself.
 */
import { ResourceExhausted } from "./errors.js";
import { type Buffers, joinBuffers } from "./frame.js";

/** One request; its path stands behind the address. */
export interface HttpRequest {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffers;
}

/** One answer, whose body is still to be read. */
export interface HttpAnswer {
  readonly status: number;
  /** Returns a header by its lower-case name, empty if absent. */
  header(name: string): string;
  /** The body's pieces as they come. Rejects with a `KingpoleError`, or with the signal's reason. */
  readonly pieces: AsyncIterator<Uint8Array, undefined>;
  /** Lets go of a body that nobody reads to its end; the request is over for the server too. */
  discard(): void;
}

/** Sends requests to one server, never twice. */
export interface HttpSender {
  /** Rejects with a `KingpoleError`, or with the signal's reason, which also ends the reading of the body. */
  send(request: HttpRequest, signal: AbortSignal | undefined): Promise<HttpAnswer>;
  close(): void;
}

/** A body that was read to its end. */
export interface ReadAnswer {
  readonly status: number;
  header(name: string): string;
  readonly body: Uint8Array;
}

/**
 * Reads a body to its end.
 *
 * @throws ResourceExhausted if it is longer than `limit`, as soon as that is known.
 */
export async function readWhole(answer: HttpAnswer, limit: number): Promise<ReadAnswer> {
  const announced = Number(answer.header("content-length"));
  if (announced > limit) {
    answer.discard();
    throw new ResourceExhausted(`the answer has ${announced} bytes, this client takes ${limit}`);
  }
  const pieces: Uint8Array[] = [];
  let total = 0;
  for (;;) {
    const { done, value } = await answer.pieces.next();
    if (done === true) break;
    total += value.length;
    if (total > limit) {
      answer.discard();
      throw new ResourceExhausted(`the answer has at least ${total} bytes, this client takes ${limit}`);
    }
    pieces.push(value);
  }
  const [only] = pieces;
  const body = pieces.length === 1 && only !== undefined ? only : joinBuffers(pieces);
  return { status: answer.status, header: (name) => answer.header(name), body };
}
