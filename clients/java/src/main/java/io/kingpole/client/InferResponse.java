package io.kingpole.client;

import java.util.Collections;
import java.util.Map;
import java.util.Optional;

/**
 * One inference answered. The tensors are read-only views of the received bytes.
 *
 * @param model the model that answered
 * @param version its version
 * @param id the request's id, if it had one
 * @param outputs tensors by name, in the order asked for
 * @param parameters what else the model said
 * @param timing how it was served
 * @param stage where it stands among the responses to its request
 */
public record InferResponse(
    String model,
    String version,
    Optional<String> id,
    Map<String, Tensor> outputs,
    Map<String, Parameter> parameters,
    Timing timing,
    Stage stage) {
  /** Makes the maps unmodifiable; they keep their order. */
  public InferResponse {
    outputs = Collections.unmodifiableMap(outputs);
    parameters = Collections.unmodifiableMap(parameters);
  }

  /**
   * Returns one output.
   *
   * @param name its name
   * @return the tensor
   * @throws KingpoleException.InvalidArgument if the response has no such output
   */
  public Tensor output(String name) {
    Tensor tensor = outputs.get(name);
    if (tensor == null) {
      throw KingpoleException.of(
          Code.INVALID_ARGUMENT,
          "the response has no output '" + name + "', only " + outputs.keySet());
    }
    return tensor;
  }
}
