package io.kingpole.client.internal.openinference;

import java.nio.charset.StandardCharsets;

/** Writes JSON one value after another; commas come by themselves. Knows no Open Inference. */
final class JsonWriter {
  private final StringBuilder text = new StringBuilder(256);

  JsonWriter open(char bracket) {
    comma();
    text.append(bracket);
    return this;
  }

  JsonWriter close(char bracket) {
    text.append(bracket);
    return this;
  }

  JsonWriter name(String name) {
    string(name);
    text.append(':');
    return this;
  }

  /** Writes a number or word as it is. */
  JsonWriter raw(String value) {
    comma();
    text.append(value);
    return this;
  }

  JsonWriter string(String value) {
    comma();
    text.append('"');
    for (int index = 0; index < value.length(); index++) {
      char next = value.charAt(index);
      if (next == '"' || next == '\\') {
        text.append('\\').append(next);
      } else if (next < ' ') {
        text.append(String.format("\\u%04x", (int) next));
      } else {
        text.append(next);
      }
    }
    text.append('"');
    return this;
  }

  private void comma() {
    if (text.length() > 0 && "[{:".indexOf(text.charAt(text.length() - 1)) < 0) {
      text.append(',');
    }
  }

  byte[] bytes() {
    return text.toString().getBytes(StandardCharsets.UTF_8);
  }
}
