/**
 * The client of the Kingpole model server, for Node: over HTTP, gRPC, TCP and Unix sockets.
 */
import { checkToken, parseAddress } from "../address.js";
import { Client, type ClientOptions } from "../client.js";
import { InvalidArgument } from "../errors.js";
import { DEFAULT_MAX_FRAME_BYTES } from "../frame.js";
import { FrameTransport } from "../frame-transport.js";
import { HttpTransport } from "../http-transport.js";
import type { Transport } from "../transport.js";
import { GrpcOpener } from "./grpc.js";
import { NodeHttpSender } from "./http-sender.js";
import { SocketOpener } from "./socket.js";

export { Client } from "../client.js";
export type { AskOptions, CallOptions, ClientOptions, InferManyOptions, InferOptions } from "../client.js";
export * from "../exports.js";

/** What a client in Node can be told. */
export interface NodeClientOptions extends ClientOptions {
  /** The authorities that `https://` and `grpcs://` trust, as PEM. Absent: what Node trusts. */
  readonly rootCertificates?: string | Uint8Array | undefined;
}

/**
 * Makes a client of the server at `http://host:port`, `https://`, `grpc://`, `grpcs://`, `frame://` or `unix:/path`.
 * Nothing is sent yet. `grpc://` and `grpcs://` need the package `@grpc/grpc-js`.
 *
 * @throws InvalidArgument if the address or an option cannot be used.
 */
export function connect(url: string, options: NodeClientOptions = {}): Client {
  return new Client(transport(url, options), options);
}

function transport(url: string, options: NodeClientOptions): Transport {
  const address = parseAddress(url);
  const { token, rootCertificates, maxFrameBytes: limit = DEFAULT_MAX_FRAME_BYTES } = options;
  checkToken(token, address);
  checkCertificates(rootCertificates, address.scheme, address.name);
  switch (address.scheme) {
    case "http":
    case "https":
      return new HttpTransport(new NodeHttpSender(address, token, rootCertificates), limit);
    case "grpc":
    case "grpcs":
      return new FrameTransport(new GrpcOpener(address, token, rootCertificates, limit));
    default:
      return new FrameTransport(new SocketOpener(address, limit));
  }
}

function checkCertificates(pem: string | Uint8Array | undefined, scheme: string, name: string): void {
  if (pem === undefined) return;
  if (scheme !== "https" && scheme !== "grpcs") {
    throw new InvalidArgument(`rootCertificates is for https and grpcs, the address is ${name}`);
  }
  if (!Buffer.from(pem).includes("-----BEGIN CERTIFICATE-----")) {
    throw new InvalidArgument("rootCertificates holds no certificates in PEM");
  }
}
