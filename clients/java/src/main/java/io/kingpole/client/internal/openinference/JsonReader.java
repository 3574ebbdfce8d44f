package io.kingpole.client.internal.openinference;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/**
 * Reads JSON that came from somebody else: a value or {@link JsonException}, nothing else.
 *
 * <p>The JDK has no JSON, and a library would weigh more than the whole client; numbers must keep
 * their text here besides, so that each is rounded once, to its tensor's datatype. Knows no Open
 * Inference.
 *
 * <p>Objects become maps in their order, arrays lists, numbers {@link JsonNumber}.
 */
public final class JsonReader {
  private static final int MOST_NESTED = 64;

  /** A number, as it was written. */
  public record JsonNumber(String text) {}

  /** Stands for {@code null}: maps and lists of Java would rather not hold its own. */
  public enum JsonNull {
    /** The only one. */
    NULL
  }

  private final String text;
  private int position;

  private JsonReader(String text) {
    this.text = text;
  }

  /**
   * Reads one value that takes up all the bytes.
   *
   * @throws JsonException if they are not JSON
   */
  public static Object read(ByteBuffer bytes) throws JsonException {
    try {
      return read(StandardCharsets.UTF_8.newDecoder().decode(bytes.duplicate()).toString());
    } catch (CharacterCodingException e) {
      throw new JsonException("it is not UTF-8");
    }
  }

  /**
   * Reads one value that takes up all the text.
   *
   * @throws JsonException if it is not JSON
   */
  public static Object read(String text) throws JsonException {
    JsonReader reader = new JsonReader(text);
    Object value = reader.value(0);
    reader.skipSpace();
    if (reader.position != text.length()) {
      throw reader.unexpected();
    }
    return value;
  }

  private Object value(int depth) throws JsonException {
    if (depth > MOST_NESTED) {
      throw new JsonException("it is nested more than " + MOST_NESTED + " deep");
    }
    skipSpace();
    char first = peek();
    return switch (first) {
      case '{' -> object(depth);
      case '[' -> array(depth);
      case '"' -> string();
      case 't' -> word("true", true);
      case 'f' -> word("false", false);
      case 'n' -> word("null", JsonNull.NULL);
      default -> number();
    };
  }

  private Map<String, Object> object(int depth) throws JsonException {
    Map<String, Object> object = new LinkedHashMap<>();
    position++;
    if (closes('}')) {
      return object;
    }
    do {
      skipSpace();
      String name = string();
      skipSpace();
      take(':');
      if (object.put(name, value(depth + 1)) != null) {
        throw new JsonException("the field '" + name + "' is there twice");
      }
    } while (goesOn('}'));
    return object;
  }

  private List<Object> array(int depth) throws JsonException {
    List<Object> array = new ArrayList<>();
    position++;
    if (closes(']')) {
      return array;
    }
    do {
      array.add(value(depth + 1));
    } while (goesOn(']'));
    return array;
  }

  private boolean closes(char bracket) throws JsonException {
    skipSpace();
    if (peek() == bracket) {
      position++;
      return true;
    }
    return false;
  }

  private boolean goesOn(char bracket) throws JsonException {
    if (closes(bracket)) {
      return false;
    }
    take(',');
    return true;
  }

  private String string() throws JsonException {
    take('"');
    int start = position;
    while (peek() != '"' && peek() != '\\') {
      if (peek() < ' ') {
        throw unexpected();
      }
      position++;
    }
    if (peek() == '"') {
      return text.substring(start, position++);
    }
    StringBuilder unescaped = new StringBuilder(text.substring(start, position));
    for (char next = take(); next != '"'; next = take()) {
      if (next < ' ') {
        position--;
        throw unexpected();
      }
      unescaped.append(next == '\\' ? escaped() : next);
    }
    return unescaped.toString();
  }

  private char escaped() throws JsonException {
    char escape = take();
    return switch (escape) {
      case '"', '\\', '/' -> escape;
      case 'b' -> '\b';
      case 'f' -> '\f';
      case 'n' -> '\n';
      case 'r' -> '\r';
      case 't' -> '\t';
      case 'u' -> unicode();
      default -> throw new JsonException("\\" + escape + " escapes nothing");
    };
  }

  private char unicode() throws JsonException {
    int code = 0;
    for (int digits = 0; digits < 4; digits++) {
      int digit = Character.digit(take(), 16);
      if (digit < 0) {
        throw new JsonException("\\u is followed by something else than four digits");
      }
      code = 16 * code + digit;
    }
    return (char) code;
  }

  private Object word(String word, Object value) throws JsonException {
    if (!text.startsWith(word, position)) {
      throw unexpected();
    }
    position += word.length();
    return value;
  }

  private JsonNumber number() throws JsonException {
    int start = position;
    if (peek() == '-') {
      position++;
    }
    int whole = position;
    digits();
    if (text.charAt(whole) == '0' && position > whole + 1) {
      throw new JsonException("a number begins with 0");
    }
    if (position < text.length() && text.charAt(position) == '.') {
      position++;
      digits();
    }
    if (position < text.length() && (text.charAt(position) | 0x20) == 'e') {
      position++;
      if (peek() == '+' || peek() == '-') {
        position++;
      }
      digits();
    }
    return new JsonNumber(text.substring(start, position));
  }

  private void digits() throws JsonException {
    int start = position;
    while (position < text.length()
        && text.charAt(position) >= '0'
        && text.charAt(position) <= '9') {
      position++;
    }
    if (position == start) {
      throw unexpected();
    }
  }

  private void skipSpace() {
    while (position < text.length() && " \t\r\n".indexOf(text.charAt(position)) >= 0) {
      position++;
    }
  }

  private char peek() throws JsonException {
    if (position >= text.length()) {
      throw new JsonException("it ends after " + position + " characters");
    }
    return text.charAt(position);
  }

  private char take() throws JsonException {
    char next = peek();
    position++;
    return next;
  }

  private void take(char wanted) throws JsonException {
    if (peek() != wanted) {
      throw unexpected();
    }
    position++;
  }

  private JsonException unexpected() {
    return new JsonException(
        position < text.length()
            ? "unexpected '" + text.charAt(position) + "' at " + position
            : "it ends after " + position + " characters");
  }

  /** Bytes that are not JSON, or not the JSON that was expected. */
  public static final class JsonException extends Exception {
    JsonException(String message) {
      super(message);
    }
  }

  /** Returns a field that must be there and of a kind. */
  static <T> T field(Object object, String name, Class<T> kind) throws JsonException {
    T value = optional(object, name, kind);
    if (value == null) {
      throw new JsonException("the field '" + name + "' is missing");
    }
    return value;
  }

  /** Returns a field that may be absent or null, which gives null. */
  static <T> T optional(Object object, String name, Class<T> kind) throws JsonException {
    if (!(object instanceof Map<?, ?> fields)) {
      throw new JsonException("an object with '" + name + "' was expected");
    }
    Object value = fields.get(name);
    if (value == null || value == JsonNull.NULL) {
      return null;
    }
    if (!kind.isInstance(value)) {
      throw new JsonException("the field '" + name + "' is no " + kind.getSimpleName());
    }
    return kind.cast(value);
  }

  /** Returns a list that may be absent, which is empty then. */
  static List<?> list(Object object, String name) throws JsonException {
    return Objects.requireNonNullElse(optional(object, name, List.class), List.of());
  }
}
