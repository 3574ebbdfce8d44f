/**
 * How long a call waits: until its timeout, or until its caller gives up. Knows no transport.
 */
import { nothing, onAbort } from "./abort.js";
import { DeadlineExceeded } from "./errors.js";

/**
 * The server knows the timeout too and answers when it expires: its word, which says more, gets this long to
 * arrive before we give up ourselves.
 */
export const GRACE_MS = 250;

const MAX_TIMER_MS = 2 ** 31 - 1;

/** The patience of one call. `end` must be called when it is over. */
export interface Patience {
  /** Aborts when the call is to be given up; its reason is what the call rejects with. */
  readonly signal: AbortSignal | undefined;
  readonly end: () => void;
}

/** Returns the patience of a call with a timeout, a caller's signal, both or neither. */
export function patience(timeoutMs: number | undefined, given: AbortSignal | undefined): Patience {
  given?.throwIfAborted();
  if (timeoutMs === undefined) return { signal: given, end: nothing };
  const controller = new AbortController();
  const timer = setTimeout(
    () => {
      controller.abort(new DeadlineExceeded("no answer came in time"));
    },
    Math.min(timeoutMs, MAX_TIMER_MS),
  );
  const follow = () => {
    controller.abort((given as AbortSignal).reason);
  };
  const unfollow = onAbort(given, follow);
  return {
    signal: controller.signal,
    end: () => {
      clearTimeout(timer);
      unfollow();
    },
  };
}

/** Waits for something, but no longer than until `signal` aborts; then rejects with its reason. */
export async function whileWanted<T>(waitedFor: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await waitedFor;
  signal.throwIfAborted();
  let stop: () => void = nothing;
  const givenUp = new Promise<never>((_resolve, reject) => {
    stop = onAbort(signal, () => {
      reject(signal.reason);
    });
  });
  try {
    return await Promise.race([waitedFor, givenUp]);
  } finally {
    stop();
  }
}

/** Waits so long. */
export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    await whileWanted(
      new Promise<void>((resolve) => {
        timer = setTimeout(resolve, ms);
      }),
      signal,
    );
  } finally {
    clearTimeout(timer);
  }
}
