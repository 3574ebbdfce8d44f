/**
 * The client of the Kingpole model server, for every platform that has `fetch`.
 *
 * Node has more: `@kingpole/client/node` also speaks gRPC and raw frames, and sends without a copy.
 */
import { checkToken, parseAddress } from "./address.js";
import { Client, type ClientOptions } from "./client.js";
import { Unimplemented } from "./errors.js";
import { FetchSender } from "./fetch-sender.js";
import { DEFAULT_MAX_FRAME_BYTES } from "./frame.js";
import { HttpTransport } from "./http-transport.js";

export { Client } from "./client.js";
export type { AskOptions, CallOptions, ClientOptions, InferManyOptions, InferOptions } from "./client.js";
export * from "./exports.js";

/**
 * Makes a client of the server at `http://host:port` or `https://host:port`. Nothing is sent yet.
 *
 * @throws InvalidArgument if the address cannot be read.
 * @throws Unimplemented if it is one that only Node can reach.
 */
export function connect(url: string, options: ClientOptions = {}): Client {
  const address = parseAddress(url);
  checkToken(options.token, address);
  if (address.scheme !== "http" && address.scheme !== "https") {
    throw new Unimplemented(`${address.name} needs Node: import { connect } from "@kingpole/client/node"`);
  }
  const sender = new FetchSender(address, options.token);
  return new Client(new HttpTransport(sender, options.maxFrameBytes ?? DEFAULT_MAX_FRAME_BYTES), options);
}
