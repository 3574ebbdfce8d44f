/**
 * A server's address, read from a URL. Opens nothing.
 */
import { InvalidArgument } from "./errors.js";

const PORTS = { http: 80, https: 443, grpc: 8000, grpcs: 443, frame: 8000 } as const;

/** Where a server is: host and port, or a path for Unix sockets. */
export interface Address {
  readonly scheme: keyof typeof PORTS | "unix";
  readonly host: string;
  readonly port: number;
  /** Of a Unix socket; else empty. */
  readonly path: string;
  /** What stands before every path over HTTP, without a slash at its end. */
  readonly prefix: string;
  /** Host and port as they stand in a `Host` header. */
  readonly authority: string;
  /** For texts. */
  readonly name: string;
}

/**
 * Reads `http://`, `https://`, `grpc://`, `grpcs://`, `frame://` with host and port, or `unix:/path`.
 *
 * @throws InvalidArgument if it is none of these.
 */
export function parseAddress(url: string): Address {
  if (url.startsWith("unix:")) return unixAddress(url);
  const scheme = url.slice(0, Math.max(url.indexOf("://"), 0)).toLowerCase();
  if (!Object.hasOwn(PORTS, scheme)) {
    const known = Object.keys(PORTS).map((each) => `${each}://host:port`);
    throw new InvalidArgument(`the address '${url}' is none of ${known.join(", ")}, unix:/path`);
  }
  let parts: URL;
  try {
    // Platforms read only the schemes that they know as having a host and a port.
    parts = new URL(`http${url.slice(scheme.length)}`);
  } catch {
    throw new InvalidArgument(`the address '${url}' cannot be read`);
  }
  if (parts.username !== "" || parts.password !== "" || parts.search !== "" || parts.hash !== "") {
    throw new InvalidArgument(
      `the address '${url}' may have no user, query or fragment; pass a token instead`,
    );
  }
  const known = scheme as keyof typeof PORTS;
  const prefix = parts.pathname.replace(/\/+$/, "");
  if (prefix !== "" && !known.startsWith("http")) {
    throw new InvalidArgument(`the address '${url}' may have no path`);
  }
  const port = givenPort(url.slice(scheme.length + 3)) ?? PORTS[known];
  const authority = `${parts.hostname}:${port}`;
  return {
    scheme: known,
    host: parts.hostname.replace(/^\[|\]$/g, ""),
    port,
    path: "",
    prefix,
    authority,
    name: `${known}://${authority}${prefix}`,
  };
}

/** A URL's own `port` leaves out what is usual for its scheme. */
function givenPort(rest: string): number | undefined {
  const found = /^[^/]*?:(\d+)(?:\/|$)/.exec(rest.replace(/^\[[^\]]*\]/, ""));
  return found === null ? undefined : Number(found[1]);
}

function unixAddress(url: string): Address {
  const path = url.slice("unix:".length).replace(/^\/\//, "");
  if (path === "") throw new InvalidArgument(`the address '${url}' has no path`);
  return {
    scheme: "unix",
    host: "",
    port: 0,
    path,
    prefix: "",
    authority: "localhost",
    name: `unix:${path}`,
  };
}

/**
 * Refuses a token that cannot travel.
 *
 * @throws InvalidArgument if the transport has no place for it, or if it could not stand in a header.
 */
export function checkToken(token: string | undefined, address: Address): void {
  if (token === undefined) return;
  if (address.scheme === "frame" || address.scheme === "unix") {
    throw new InvalidArgument(`a token cannot travel over ${address.name}: use http, https, grpc or grpcs`);
  }
  if (!/^[\x20-\x7e]*$/.test(token)) {
    throw new InvalidArgument("the token has characters that cannot stand in a header");
  }
}
