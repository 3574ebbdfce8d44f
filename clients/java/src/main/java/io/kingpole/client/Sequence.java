package io.kingpole.client;

import java.util.Objects;

/**
 * A request's place in a sequence of requests that a stateful model keeps together.
 *
 * @param id the sequence, as a number above 0 (unsigned) or as a text
 * @param start whether this is its first request
 * @param end whether this is its last
 */
public record Sequence(Id id, boolean start, boolean end) {
  /** What a sequence is known by. */
  public sealed interface Id {
    /**
     * A number.
     *
     * @param bits the unsigned number, not 0
     */
    record Numeric(long bits) implements Id {
      /** Checks that it is one. */
      public Numeric {
        if (bits == 0) {
          throw KingpoleException.of(
              Code.INVALID_ARGUMENT, "a sequence's id is 0, it must be above 0");
        }
      }
    }

    /**
     * A text.
     *
     * @param value the text, not empty
     */
    record Text(String value) implements Id {
      /** Checks that it is one. */
      public Text {
        if (value.isEmpty()) {
          throw KingpoleException.of(Code.INVALID_ARGUMENT, "a sequence's id is an empty text");
        }
      }
    }
  }

  /** Checks that there is an id. */
  public Sequence {
    Objects.requireNonNull(id, "id");
  }

  /**
   * Names a place in a sequence that is known by a number.
   *
   * @param id the sequence, above 0
   * @param start whether this is its first request
   * @param end whether this is its last
   * @return the place
   */
  public static Sequence of(long id, boolean start, boolean end) {
    return new Sequence(new Id.Numeric(id), start, end);
  }

  /**
   * Names a place in a sequence that is known by a text.
   *
   * @param id the sequence, not empty
   * @param start whether this is its first request
   * @param end whether this is its last
   * @return the place
   */
  public static Sequence of(String id, boolean start, boolean end) {
    return new Sequence(new Id.Text(id), start, end);
  }
}
