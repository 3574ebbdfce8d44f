/**
 * Hearing of an `AbortSignal`. One listener for each signal, however many calls share it: platforms warn of a leak
 * when there are more than ten.
 */

interface Heard {
  readonly callbacks: Set<() => void>;
  readonly listener: () => void;
}

const heard = new WeakMap<AbortSignal, Heard>();

/** Calls `callback` once if the signal aborts from now on; returns how to take that back. */
export function onAbort(signal: AbortSignal | undefined, callback: () => void): () => void {
  if (signal === undefined) return nothing;
  const { callbacks } = heard.get(signal) ?? listen(signal);
  callbacks.add(callback);
  return () => {
    if (!callbacks.delete(callback) || callbacks.size > 0) return;
    const listening = heard.get(signal);
    if (listening?.callbacks !== callbacks) return;
    heard.delete(signal);
    signal.removeEventListener("abort", listening.listener);
  };
}

function listen(signal: AbortSignal): Heard {
  const callbacks = new Set<() => void>();
  const listener = () => {
    heard.delete(signal);
    const called = [...callbacks];
    callbacks.clear();
    for (const callback of called) callback();
  };
  signal.addEventListener("abort", listener, { once: true });
  const hearing = { callbacks, listener };
  heard.set(signal, hearing);
  return hearing;
}

/** Does nothing. */
export function nothing(): void {
  // There is nothing to take back.
}
