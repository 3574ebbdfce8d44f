package io.kingpole.client;

import java.util.List;

/**
 * An input or output of a model.
 *
 * @param name its name
 * @param datatype the type of its elements
 * @param shape sizes of its dimensions, -1 where any is taken
 * @param optional whether a request may leave it out
 */
public record TensorSpec(String name, Datatype datatype, List<Long> shape, boolean optional) {
  /** Keeps a copy of the shape. */
  public TensorSpec {
    shape = List.copyOf(shape);
  }
}
