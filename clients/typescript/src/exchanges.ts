/**
 * Requests on a stream that wait for their answers. Knows no socket.
 *
 * Every exchange begun is settled exactly once: by its frame, by the end of its stream, or by being given up. No
 * more requests are open than the server has granted: one, and what its Credit messages say.
 */
import { onAbort } from "./abort.js";
import { type Answer, exchangeOf } from "./decode.js";
import { type KingpoleError, sameError, Unimplemented } from "./errors.js";
import type { Frame } from "./frame.js";
import { answerOf } from "./transport.js";

/** One grant of more than this is cut to it: no stream has that many requests open. */
const MOST_GRANTED = 2 ** 16;

interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (reason: unknown) => void;
}

/** The exchanges of one stream, by number. */
export class Exchanges {
  readonly #waiting = new Map<number, Waiting>();
  /** Exchanges that took no credit, and give none back. */
  readonly #questions = new Set<number>();
  readonly #wanting = new Set<() => void>();
  #credit = 1;
  #last = 0;
  #failure: KingpoleError | undefined;

  /** Why the stream has ended, if it has. */
  get failure(): KingpoleError | undefined {
    return this.#failure;
  }

  /** True if no exchange waits for its answer. */
  get isIdle(): boolean {
    return this.#waiting.size === 0;
  }

  /** Takes the next number; for a request, once the server allows one more. */
  async begin(isRequest: boolean, signal: AbortSignal | undefined): Promise<number> {
    if (isRequest) {
      if (this.#credit > 0) this.#credit--;
      else await this.#granted(signal);
    }
    if (this.#failure !== undefined) {
      // Whoever waits for credit next has to learn of it too.
      this.#grant(Number(isRequest));
      throw sameError(this.#failure, true);
    }
    this.#last++;
    if (!isRequest) this.#questions.add(this.#last);
    return this.#last;
  }

  /** Registers who waits for an exchange's answer. */
  wait(exchange: number, waiting: Waiting): void {
    if (this.#failure === undefined) this.#waiting.set(exchange, waiting);
    else waiting.reject(sameError(this.#failure, this.#failure.neverSent));
  }

  /** Forgets an exchange that the server was not told of. */
  withdraw(exchange: number): void {
    this.#waiting.delete(exchange);
    if (!this.#questions.delete(exchange)) this.#grant(1);
  }

  /** Forgets an exchange; returns whether it was still waiting. Its credit comes back with the server's answer. */
  giveUp(exchange: number): boolean {
    return this.#waiting.delete(exchange);
  }

  /**
   * Hands a received frame to whom it belongs; returns an exchange to cancel, if there is one.
   *
   * @throws KingpoleError: what the server says of the stream as a whole.
   */
  receive(frame: Frame): number | undefined {
    const exchange = Number(exchangeOf(frame));
    const answer = answerOf(frame);
    const goesOn = answer.kind === "response" && answer.response.stage === "part";
    if (answer.kind === "credit") {
      this.#grant(Math.min(answer.requests, MOST_GRANTED));
      return undefined;
    }
    // The answer of a request that was given up counts as well.
    if (!goesOn && exchange !== 0 && !this.#questions.delete(exchange)) this.#grant(1);
    const waiting = this.#waiting.get(exchange);
    if (waiting === undefined) {
      if (exchange === 0 && answer.kind === "error") throw answer.error;
      return undefined;
    }
    this.#waiting.delete(exchange);
    waiting.resolve(oneResponse(answer));
    return goesOn ? exchange : undefined;
  }

  /** Ends the stream: everything that waits, and everything later, fails with `error`. */
  fail(error: KingpoleError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    this.#grant(1);
    for (const { reject } of waiting) reject(sameError(error, error.neverSent));
  }

  #grant(requests: number): void {
    this.#credit += requests;
    for (const take of this.#wanting) {
      if (this.#credit === 0) return;
      this.#credit--;
      take();
    }
  }

  #granted(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const take = () => {
        unfollow();
        this.#wanting.delete(take);
        resolve();
      };
      const giveUp = () => {
        this.#wanting.delete(take);
        reject((signal as AbortSignal).reason);
      };
      const unfollow = onAbort(signal, giveUp);
      this.#wanting.add(take);
    });
  }
}

/** Makes an error of one response of several, for a request that waits for one. */
function oneResponse(answer: Answer): Answer {
  if (answer.kind !== "response" || answer.response.stage === "only") return answer;
  const { model } = answer.response;
  const error = new Unimplemented(
    `model '${model}' answers a request with any number of responses: use stream`,
  );
  return { kind: "error", error };
}
