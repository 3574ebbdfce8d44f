/**
 * When a call is tried again: never if the server may have run it. Knows no transport.
 */
import { KingpoleError, ResourceExhausted, Unavailable } from "./errors.js";
import { pause } from "./patience.js";

const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 5000;

/** Returns how long to wait before trying again, undefined if it must not be. */
export function delayBeforeRetry(error: unknown, triesBefore: number): number | undefined {
  if (!(error instanceof KingpoleError)) return undefined;
  const { retryAfterMs } = error;
  // Refused before it was queued; without a time, trying again is no use.
  if (error instanceof ResourceExhausted) return retryAfterMs === 0 ? undefined : retryAfterMs;
  if (!(error instanceof Unavailable) || !error.neverSent) return undefined;
  const most = Math.min(FIRST_DELAY_MS * 2 ** triesBefore, MAX_DELAY_MS);
  // Not all clients at once, when a server comes back.
  return most / 2 + (Math.random() * most) / 2;
}

/** Calls, and calls again where that is safe, up to `retries` times and while the call is wanted. */
export async function withRetries<T>(
  attempt: (triesBefore: number) => Promise<T>,
  retries: number,
  signal: AbortSignal | undefined,
): Promise<T> {
  for (let triesBefore = 0; ; triesBefore++) {
    try {
      return await attempt(triesBefore);
    } catch (error) {
      const delayMs = triesBefore < retries ? delayBeforeRetry(error, triesBefore) : undefined;
      if (delayMs === undefined) throw error;
      await pause(delayMs, signal);
    }
  }
}
