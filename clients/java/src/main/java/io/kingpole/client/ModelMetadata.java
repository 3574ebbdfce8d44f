package io.kingpole.client;

import java.util.List;
import java.util.OptionalLong;

/**
 * What a model takes and gives.
 *
 * @param name its name
 * @param versions the versions that are ready, ascending
 * @param platform what runs it
 * @param inputs what it takes
 * @param outputs what it gives
 * @param maxBatchSize rows of a batch, 0 if it does not batch; empty if this transport does not say
 * @param description what it is, in its owner's words; may be empty
 */
public record ModelMetadata(
    String name,
    List<String> versions,
    String platform,
    List<TensorSpec> inputs,
    List<TensorSpec> outputs,
    OptionalLong maxBatchSize,
    String description) {
  /** Keeps copies of the lists. */
  public ModelMetadata {
    versions = List.copyOf(versions);
    inputs = List.copyOf(inputs);
    outputs = List.copyOf(outputs);
  }
}
