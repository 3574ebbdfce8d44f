/**
 * Requests over HTTP: one frame each, or Open Inference where no frames are known. Knows no socket and no `fetch`.
 */
import { decodeAnswer } from "./decode.js";
import { encodeRequest } from "./encode.js";
import { Internal, MalformedFrame, Unavailable, Unimplemented } from "./errors.js";
import {
  beginsAsFrame,
  type Frame,
  FrameAssembler,
  MEDIA_TYPE,
  splitFrame,
  STREAM_MEDIA_TYPE,
} from "./frame.js";
import { type HttpAnswer, type HttpRequest, type HttpSender, type ReadAnswer, readWhole } from "./http.js";
import {
  decodeInference,
  type Dialect,
  dialectOf,
  encodeInference,
  refusesFrames,
} from "./open-inference.js";
import type { InferRequest } from "./request.js";
import * as rest from "./rest.js";
import { expect, ONLY_EXCHANGE, type Source, type Transport } from "./transport.js";
import type { InferResponse, ModelMetadata, ModelState, ServerMetadata } from "./values.js";

const INFER_PATH = "/v1/infer";
const NOT_FRAMES = "this server takes no frames, and so gives one response to a request at most: use infer";

/** Requests to one server, through whatever sends them. */
export class HttpTransport implements Transport {
  readonly #sender: HttpSender;
  readonly #limit: number;
  #dialect: Dialect | undefined;

  constructor(sender: HttpSender, limit: number) {
    this.#sender = sender;
    this.#limit = limit;
  }

  async infer(request: InferRequest, signal: AbortSignal | undefined): Promise<InferResponse> {
    if (this.#dialect === undefined) {
      const answer = await this.#sender.send(post(request), signal);
      if (!refusesFrames(answer.status, answer.header("content-type"))) {
        return onlyResponse(await readFrame(answer, this.#limit));
      }
      answer.discard();
      this.#dialect = dialectOf(await this.server(signal));
    }
    return decodeInference(await this.#ask(encodeInference(request, this.#dialect), signal));
  }

  async open(request: InferRequest, signal: AbortSignal | undefined): Promise<Source> {
    if (this.#dialect !== undefined) throw new Unimplemented(NOT_FRAMES);
    const answer = await this.#sender.send(post(request, STREAM_MEDIA_TYPE), signal);
    const contentType = answer.header("content-type");
    if (answer.status === 200 && contentType.startsWith(STREAM_MEDIA_TYPE)) {
      return new HttpSource(answer, this.#limit);
    }
    const isOther = answer.status === 200 && !contentType.startsWith(MEDIA_TYPE);
    if (isOther || refusesFrames(answer.status, contentType)) {
      answer.discard();
      throw new Unimplemented(NOT_FRAMES);
    }
    return new FrameSource(await readFrame(answer, this.#limit));
  }

  async live(signal: AbortSignal | undefined): Promise<boolean> {
    return rest.readReady(await this.#ask(rest.ASK_LIVE, signal));
  }

  async ready(
    model: string | undefined,
    version: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    return rest.readReady(await this.#ask(rest.askReady(model, version), signal));
  }

  async server(signal: AbortSignal | undefined): Promise<ServerMetadata> {
    return rest.readServer(await this.#ask(rest.ASK_SERVER, signal));
  }

  async metadata(
    model: string,
    version: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<ModelMetadata> {
    return rest.readMetadata(await this.#ask(rest.askMetadata(model, version), signal));
  }

  async models(signal: AbortSignal | undefined): Promise<ModelState[]> {
    return rest.readModels(await this.#ask(rest.ASK_MODELS, signal));
  }

  close(): void {
    this.#sender.close();
  }

  async #ask(request: HttpRequest, signal: AbortSignal | undefined): Promise<ReadAnswer> {
    return readWhole(await this.#sender.send(request, signal), this.#limit);
  }
}

function post(request: InferRequest, accept?: string): HttpRequest {
  const headers = { "content-type": MEDIA_TYPE, ...(accept === undefined ? {} : { accept }) };
  return { method: "POST", path: INFER_PATH, headers, body: encodeRequest(request, ONLY_EXCHANGE) };
}

/**
 * Reads the one frame of an answer, whatever its status, unless something in between spoke. Each piece is looked at
 * as it comes, so that what is no frame is not read to its end.
 */
async function readFrame(answer: HttpAnswer, limit: number): Promise<Frame> {
  if (!answer.header("content-type").startsWith(MEDIA_TYPE)) {
    const whole = await readWhole(answer, limit);
    if (beginsAsFrame(whole.body)) return splitFrame(whole.body, limit);
    if (answer.status === 200) throw new Internal("the server answered with something else than a frame");
    throw rest.errorOfAnswer(whole);
  }
  const assembler = new FrameAssembler(limit);
  const frames: Frame[] = [];
  try {
    for (;;) {
      const { done, value } = await answer.pieces.next();
      if (done === true) break;
      frames.push(...assembler.feed(value));
      if (frames.length > 1 || (frames.length === 1 && !assembler.idle)) {
        throw new MalformedFrame("the answer goes on behind its frame");
      }
    }
  } catch (error) {
    answer.discard();
    throw error;
  }
  const [frame] = frames;
  if (frame === undefined) throw new MalformedFrame("the answer ended within its frame");
  return frame;
}

function onlyResponse(frame: Frame): InferResponse {
  const { response } = expect(decodeAnswer(frame), "response");
  if (response.stage === "only") return response;
  throw new Unimplemented(
    `model '${response.model}' answers a request with any number of responses: use stream`,
  );
}

/** Frames one after another in the body of one answer, which is read while it is made. */
class HttpSource implements Source {
  readonly #answer: HttpAnswer;
  readonly #assembler: FrameAssembler;
  #frames: Frame[] = [];

  constructor(answer: HttpAnswer, limit: number) {
    this.#answer = answer;
    this.#assembler = new FrameAssembler(limit);
  }

  async next(): Promise<Frame> {
    for (;;) {
      const frame = this.#frames.shift();
      if (frame !== undefined) return frame;
      const { done, value } = await this.#answer.pieces.next();
      if (done === true) throw new Unavailable("the server ended its answer before the last response");
      this.#frames = this.#assembler.feed(value);
    }
  }

  close(hasEnded: boolean): void {
    if (!hasEnded) {
      this.#answer.discard();
      return;
    }
    // What is left is the body's end; once it is read the connection can be used again.
    this.#answer.pieces.next().then(
      ({ done }) => {
        if (done !== true) this.#answer.discard();
      },
      () => undefined,
    );
  }
}

/** The one frame of an answer that is no stream. */
class FrameSource implements Source {
  readonly #frame: Frame;

  constructor(frame: Frame) {
    this.#frame = frame;
  }

  next(): Promise<Frame> {
    return Promise.resolve(this.#frame);
  }

  close(): void {
    // The body was read to its end.
  }
}
