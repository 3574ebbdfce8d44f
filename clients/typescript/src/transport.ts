/**
 * What a client needs of whatever carries its requests. Knows no protocol.
 */
import { type Answer, decodeAnswer } from "./decode.js";
import { Internal, KingpoleError } from "./errors.js";
import type { Frame } from "./frame.js";
import type { InferRequest } from "./request.js";
import type { InferResponse, ModelMetadata, ModelState, ServerMetadata } from "./values.js";

/** Carries requests to one server. Every call rejects with a `KingpoleError`, or with its signal's reason. */
export interface Transport {
  infer(request: InferRequest, signal: AbortSignal | undefined): Promise<InferResponse>;
  /** Sends a request whose answer may be any number of responses. */
  open(request: InferRequest, signal: AbortSignal | undefined): Promise<Source>;
  live(signal: AbortSignal | undefined): Promise<boolean>;
  ready(
    model: string | undefined,
    version: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<boolean>;
  server(signal: AbortSignal | undefined): Promise<ServerMetadata>;
  metadata(
    model: string,
    version: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<ModelMetadata>;
  models(signal: AbortSignal | undefined): Promise<ModelState[]>;
  /** Ends every connection; what waits is rejected with `Cancelled`. */
  close(): void;
}

/** Where the frames of one answer come from. */
export interface Source {
  /** Waits for the next frame. */
  next(): Promise<Frame>;
  /** Lets go of it; before the answer has ended this cancels the request. */
  close(hasEnded: boolean): void;
}

/** The number of the only exchange of a connection. */
export const ONLY_EXCHANGE = 1;

/**
 * Returns the answer that is of the kind asked for.
 *
 * @throws KingpoleError if it is an error, or of another kind.
 */
export function expect<K extends Answer["kind"]>(answer: Answer, kind: K): Extract<Answer, { kind: K }> {
  if (answer.kind === "error") throw answer.error;
  if (answer.kind !== kind) throw new Internal(`the server answered with ${answer.kind}, not with ${kind}`);
  return answer as Extract<Answer, { kind: K }>;
}

/** Decodes a frame; what is wrong with it is an error like any other that a server sends. */
export function answerOf(frame: Frame): Answer {
  try {
    return decodeAnswer(frame);
  } catch (error) {
    if (error instanceof KingpoleError) return { kind: "error", error };
    throw error;
  }
}

/** Gives the responses of one answer as they come. Left early, it cancels the request. */
export async function* responsesOf(source: Source): AsyncGenerator<InferResponse, void, undefined> {
  let hasEnded = false;
  try {
    while (!hasEnded) {
      const answer = answerOf(await source.next());
      if (answer.kind === "credit") continue;
      const { response } = expect(answer, "response");
      hasEnded = response.stage !== "part";
      if (response.stage !== "end") yield response;
    }
  } finally {
    source.close(hasEnded);
  }
}
