/**
 * HTTP/1.1 through Node's own client: buffers leave as they are, and TLS trusts what it is told to.
 */
import http from "node:http";
import https from "node:https";

import { onAbort } from "../abort.js";
import type { Address } from "../address.js";
import { Cancelled, KingpoleError, MalformedFrame, Unavailable } from "../errors.js";
import { type Buffers, joinBuffers } from "../frame.js";
import type { HttpAnswer, HttpRequest, HttpSender } from "../http.js";
import { Pieces } from "./pieces.js";

/** Up to this a copy is cheaper than another write. */
const JOINED_BYTES = 16 * 1024;

/** Sends requests on kept-alive connections, each for one request at a time. */
export class NodeHttpSender implements HttpSender {
  readonly #address: Address;
  readonly #agent: http.Agent;
  readonly #common: http.OutgoingHttpHeaders;
  readonly #open = new Set<http.ClientRequest>();
  #isClosed = false;

  constructor(
    address: Address,
    token: string | undefined,
    rootCertificates: string | Uint8Array | undefined,
  ) {
    this.#address = address;
    const kept = { keepAlive: true, noDelay: true, scheduling: "lifo" } as const;
    const ca = rootCertificates === undefined ? {} : { ca: Buffer.from(rootCertificates) };
    this.#agent = address.scheme === "https" ? new https.Agent({ ...kept, ...ca }) : new http.Agent(kept);
    this.#common = {
      host: address.authority,
      "user-agent": "kingpole-client-typescript/0.1",
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    };
  }

  send(request: HttpRequest, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#isClosed) throw new Cancelled("the client is closed");
      const outgoing = this.#begin(request);
      const giveUp = () => {
        outgoing.destroy();
      };
      const over = () => {
        unfollow();
        this.#open.delete(outgoing);
      };
      this.#open.add(outgoing);
      const unfollow = onAbort(signal, giveUp);
      let isConnected = false;
      outgoing.once("socket", (socket) => {
        const connected = () => {
          isConnected = true;
        };
        if (outgoing.reusedSocket) connected();
        else socket.once(this.#address.scheme === "https" ? "secureConnect" : "connect", connected);
      });
      const reasonOf = (error: Error) => {
        if (signal?.aborted) return signal.reason as unknown;
        if (this.#isClosed) return new Cancelled("the client was closed");
        return this.#errorOf(error, isConnected);
      };
      outgoing.once("response", (incoming) => {
        resolve(new NodeAnswer(incoming, reasonOf, over));
      });
      // After the answer has begun this is about the rest of a body that the server did not want.
      outgoing.on("error", (error) => {
        over();
        reject(reasonOf(error));
      });
      write(outgoing, request.body ?? []);
    });
  }

  close(): void {
    this.#isClosed = true;
    for (const outgoing of this.#open) outgoing.destroy();
    this.#agent.destroy();
  }

  #begin(request: HttpRequest): http.ClientRequest {
    const { scheme, host, port, path, prefix } = this.#address;
    const length = request.body?.reduce((total, buffer) => total + buffer.length, 0);
    const options: https.RequestOptions = {
      ...(scheme === "unix" ? { socketPath: path } : { host, port }),
      method: request.method,
      path: `${prefix}${request.path}`,
      headers: {
        ...this.#common,
        ...request.headers,
        ...(length === undefined ? {} : { "content-length": length }),
      },
      agent: this.#agent,
    };
    return scheme === "https" ? https.request(options) : http.request(options);
  }

  #errorOf(error: Error, isConnected: boolean): KingpoleError {
    if (error instanceof KingpoleError) return error;
    const { name } = this.#address;
    const { code = "" } = error as NodeJS.ErrnoException;
    if (code.startsWith("HPE_")) {
      return new MalformedFrame(`${name} does not speak HTTP/1.1: ${error.message}`, { cause: error });
    }
    return isConnected
      ? new Unavailable(`the connection to ${name} broke: ${error.message}`, { cause: error })
      : new Unavailable(`cannot connect to ${name}: ${error.message}`, { neverSent: true, cause: error });
  }
}

function write(outgoing: http.ClientRequest, buffers: Buffers): void {
  const nbytes = buffers.reduce((total, buffer) => total + buffer.length, 0);
  if (nbytes <= JOINED_BYTES) {
    outgoing.end(nbytes === 0 ? undefined : joinBuffers(buffers));
    return;
  }
  for (const buffer of buffers) outgoing.write(buffer);
  outgoing.end();
}

class NodeAnswer implements HttpAnswer {
  readonly status: number;
  readonly pieces: AsyncIterator<Uint8Array, undefined>;
  readonly #incoming: http.IncomingMessage;
  readonly #over: () => void;

  constructor(incoming: http.IncomingMessage, reasonOf: (error: Error) => unknown, over: () => void) {
    this.status = incoming.statusCode ?? 0;
    this.#incoming = incoming;
    this.#over = over;
    this.pieces = new Pieces(incoming, reasonOf, over);
  }

  header(name: string): string {
    const value = this.#incoming.headers[name];
    return typeof value === "string" ? value : "";
  }

  discard(): void {
    this.#over();
    this.#incoming.destroy();
  }
}
