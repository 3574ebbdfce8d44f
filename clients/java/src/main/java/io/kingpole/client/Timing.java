package io.kingpole.client;

/**
 * How the server served a request.
 *
 * @param queueUs microseconds from admission to dispatch
 * @param executeUs microseconds of the batch's execution
 * @param batchRows rows of the batch; 0 for a model that does not batch
 * @param reason why the batch left when it did, for example {@code full}
 */
public record Timing(long queueUs, long executeUs, long batchRows, String reason) {
  /** Nothing was said. */
  public static final Timing NONE = new Timing(0, 0, 0, "");
}
