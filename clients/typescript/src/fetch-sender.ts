/**
 * HTTP through the platform's `fetch`: browsers, Node, Deno, Bun, workers. Knows no protocol above HTTP.
 *
 * `fetch` takes one body, so that a request's buffers are joined: one copy, unlike the transports for Node.
 */
import { onAbort } from "./abort.js";
import type { Address } from "./address.js";
import { Cancelled, Unavailable } from "./errors.js";
import { joinBuffers } from "./frame.js";
import type { HttpAnswer, HttpRequest, HttpSender } from "./http.js";

/** What the platforms say when no connection came about, so that nothing was sent. */
const NEVER_CONNECTED = [
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
];

/** Sends requests with `fetch`. */
export class FetchSender implements HttpSender {
  readonly #address: Address;
  readonly #common: Readonly<Record<string, string>>;
  readonly #closed = new AbortController();

  constructor(address: Address, token: string | undefined) {
    this.#address = address;
    this.#common = token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  async send(request: HttpRequest, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    this.#closed.signal.throwIfAborted();
    const { name } = this.#address;
    const ending = new Ending([signal, this.#closed.signal]);
    let response: Response;
    try {
      response = await fetch(`${name}${request.path}`, {
        method: request.method,
        headers: { ...this.#common, ...request.headers },
        ...(request.body === undefined ? {} : { body: joinBuffers(request.body) }),
        signal: ending.signal,
        // A request is for the server that was named, and so is its token.
        redirect: "manual",
      });
    } catch (error) {
      ending.over();
      if (ending.signal.aborted) throw ending.signal.reason;
      throw unreachable(error, name);
    }
    if (response.type === "opaqueredirect") {
      ending.over();
      throw new Unavailable(`${name} redirects to another address, which this client does not follow`);
    }
    return new FetchAnswer(response, ending, name);
  }

  close(): void {
    this.#closed.abort(new Cancelled("the client was closed"));
  }
}

/** Aborts with whichever signal aborts first, until it is over. */
class Ending {
  readonly #controller = new AbortController();
  readonly #unfollow: readonly (() => void)[];

  constructor(signals: readonly (AbortSignal | undefined)[]) {
    this.#unfollow = signals.map((signal) => {
      const follow = () => {
        this.#controller.abort(signal?.reason);
      };
      if (signal?.aborted) follow();
      return onAbort(signal, follow);
    });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  over(): void {
    for (const unfollow of this.#unfollow) unfollow();
  }

  abort(): void {
    this.over();
    this.#controller.abort();
  }
}

class FetchAnswer implements HttpAnswer {
  readonly status: number;
  readonly pieces: AsyncIterator<Uint8Array, undefined>;
  readonly #response: Response;
  readonly #ending: Ending;

  constructor(response: Response, ending: Ending, name: string) {
    this.status = response.status;
    this.#response = response;
    this.#ending = ending;
    this.pieces = piecesOf(response, ending, name);
  }

  header(name: string): string {
    return this.#response.headers.get(name) ?? "";
  }

  discard(): void {
    this.#ending.abort();
  }
}

async function* piecesOf(
  response: Response,
  ending: Ending,
  name: string,
): AsyncGenerator<Uint8Array, undefined> {
  const reader = response.body?.getReader();
  try {
    while (reader !== undefined) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    if (ending.signal.aborted) throw ending.signal.reason;
    throw new Unavailable(`${name} ended the connection within its answer: ${said(error)}`, { cause: error });
  } finally {
    ending.over();
  }
}

function unreachable(error: unknown, name: string): Unavailable {
  const { cause } = error as { cause?: { code?: string } };
  const neverSent = NEVER_CONNECTED.includes(cause?.code ?? "");
  // Browsers tell a page nothing more, so that the text names what they may mean.
  const hint = cause === undefined ? " (not reachable, or it does not allow this page's origin: CORS)" : "";
  return new Unavailable(`cannot ask ${name}: ${said(error)}${hint}`, { neverSent, cause: error });
}

function said(error: unknown): string {
  const { message, cause } = error as { message?: string; cause?: { message?: string } };
  return cause?.message ? `${message ?? ""}: ${cause.message}` : (message ?? String(error));
}
