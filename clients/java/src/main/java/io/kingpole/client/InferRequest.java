package io.kingpole.client;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;

/**
 * One inference to ask for. Immutable, and may be asked any number of times.
 *
 * @param model the model's name; empty for the server's default
 * @param version the version; empty for the latest ready one
 * @param id the client's own id, echoed in the response
 * @param inputs tensors by name
 * @param outputs names of the outputs wanted, in this order; empty: all
 * @param parameters passed to the model
 * @param timeout how long the answer is waited for, instead of the client's own timeout
 * @param priority 0 is the default, 1 the highest
 * @param sequence its place in a sequence of a stateful model
 */
public record InferRequest(
    String model,
    Optional<String> version,
    Optional<String> id,
    Map<String, Tensor> inputs,
    List<String> outputs,
    Map<String, Parameter> parameters,
    Optional<Duration> timeout,
    int priority,
    Optional<Sequence> sequence) {
  /** Keeps copies, in their order, and checks the numbers. */
  public InferRequest {
    Objects.requireNonNull(model, "model");
    inputs = Collections.unmodifiableMap(new LinkedHashMap<>(inputs));
    outputs = List.copyOf(outputs);
    parameters = Collections.unmodifiableMap(new LinkedHashMap<>(parameters));
    if (priority < 0) {
      throw KingpoleException.of(
          Code.INVALID_ARGUMENT, "priority is " + priority + ", it must be at least 0");
    }
    if (timeout.isPresent() && (timeout.get().isNegative() || timeout.get().isZero())) {
      throw KingpoleException.of(
          Code.INVALID_ARGUMENT, "timeout is " + timeout.get() + ", it must be above 0");
    }
  }

  /**
   * Begins a request.
   *
   * @param model the model's name
   * @return a builder without inputs
   */
  public static Builder of(String model) {
    return new Builder(model);
  }

  /** Collects what a request says. */
  public static final class Builder {
    private final String model;
    private final Map<String, Tensor> inputs = new LinkedHashMap<>();
    private final List<String> outputs = new ArrayList<>();
    private final Map<String, Parameter> parameters = new LinkedHashMap<>();
    private Optional<String> version = Optional.empty();
    private Optional<String> id = Optional.empty();
    private Optional<Duration> timeout = Optional.empty();
    private Optional<Sequence> sequence = Optional.empty();
    private int priority;

    private Builder(String model) {
      this.model = model;
    }

    /**
     * Adds an input.
     *
     * @param name its name
     * @param tensor its elements, which must not change before the answer is there
     * @return this
     */
    public Builder input(String name, Tensor tensor) {
      inputs.put(name, Objects.requireNonNull(tensor, name));
      return this;
    }

    /**
     * Asks for these outputs only, in this order.
     *
     * @param names the outputs
     * @return this
     */
    public Builder outputs(String... names) {
      outputs.addAll(List.of(names));
      return this;
    }

    /**
     * Asks for a version.
     *
     * @param version the version, without it the latest ready one answers
     * @return this
     */
    public Builder version(String version) {
      this.version = Optional.of(version);
      return this;
    }

    /**
     * Gives the request an id.
     *
     * @param id echoed in the response
     * @return this
     */
    public Builder id(String id) {
      this.id = Optional.of(id);
      return this;
    }

    /**
     * Adds a parameter.
     *
     * @param name its name
     * @param value its value
     * @return this
     */
    public Builder parameter(String name, Parameter value) {
      parameters.put(name, Objects.requireNonNull(value, name));
      return this;
    }

    /**
     * Says how long the answer is waited for; the server is told.
     *
     * @param timeout above 0
     * @return this
     */
    public Builder timeout(Duration timeout) {
      this.timeout = Optional.of(timeout);
      return this;
    }

    /**
     * Says how urgent it is.
     *
     * @param priority 0 is the default, 1 the highest
     * @return this
     */
    public Builder priority(int priority) {
      this.priority = priority;
      return this;
    }

    /**
     * Says where it stands in a sequence.
     *
     * @param sequence the place
     * @return this
     */
    public Builder sequence(Sequence sequence) {
      this.sequence = Optional.of(sequence);
      return this;
    }

    /**
     * Makes the request.
     *
     * @return the request
     * @throws KingpoleException.InvalidArgument if a number is out of its range
     */
    public InferRequest build() {
      return new InferRequest(
          model, version, id, inputs, outputs, parameters, timeout, priority, sequence);
    }
  }
}
