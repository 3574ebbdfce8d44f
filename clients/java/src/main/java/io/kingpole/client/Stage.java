package io.kingpole.client;

/** Where a response stands among those of its request. */
public enum Stage {
  /** It is the only one. */
  ONLY,
  /** More may follow. */
  PART,
  /** Nothing follows; it has no outputs. {@link Client#stream} never gives it. */
  END
}
