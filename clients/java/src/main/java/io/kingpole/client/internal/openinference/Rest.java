package io.kingpole.client.internal.openinference;

import static io.kingpole.client.internal.openinference.JsonReader.field;
import static io.kingpole.client.internal.openinference.JsonReader.list;
import static io.kingpole.client.internal.openinference.JsonReader.optional;

import io.kingpole.client.Code;
import io.kingpole.client.Datatype;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.ModelMetadata;
import io.kingpole.client.ServerInfo;
import io.kingpole.client.TensorSpec;
import io.kingpole.client.internal.openinference.JsonReader.JsonException;
import io.kingpole.client.internal.openinference.JsonReader.JsonNumber;
import io.kingpole.client.internal.wire.Answer;
import io.kingpole.client.internal.wire.Failure;
import java.net.URLEncoder;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.OptionalLong;

/** The calls that travel as Open Inference over HTTP: where to ask, and how to read the answer. */
public final class Rest {
  private static final int MOST_ERROR_BYTES = 8192;

  private Rest() {}

  /** Returns where the server is asked whether it is ready, or a model is. */
  public static String readyPath(Optional<String> model, Optional<String> version) {
    return model.isPresent() ? modelPath(model.get(), version) + "/ready" : "/v2/health/ready";
  }

  /** Returns where the server is asked whether it lives. */
  public static String livePath() {
    return "/v2/health/live";
  }

  /** Returns where the server is asked who it is. */
  public static String serverPath() {
    return "/v2";
  }

  /** Returns where a model is asked. */
  static String inferPath(String model, Optional<String> version) {
    return modelPath(model, version) + "/infer";
  }

  /** Returns where a model's metadata is. */
  public static String modelPath(String model, Optional<String> version) {
    String path = "/v2/models/" + escaped(model);
    return version.isPresent() ? path + "/versions/" + escaped(version.get()) : path;
  }

  private static String escaped(String segment) {
    return URLEncoder.encode(segment, StandardCharsets.UTF_8).replace("+", "%20");
  }

  /** Makes the failure of an answer whose status is not 200; the text is the server's. */
  public static Failure failureOf(HttpAnswer answer) {
    ByteBuffer body = answer.body();
    String text =
        StandardCharsets.UTF_8
            .decode(body.slice(body.position(), Math.min(body.remaining(), MOST_ERROR_BYTES)))
            .toString()
            .strip();
    String message = errorField(text).orElse(text);
    return new Failure(
        Code.ofHttpStatus(answer.status()),
        message.isEmpty() ? "HTTP status " + answer.status() : message,
        new KingpoleException.Details(Optional.empty(), retryAfter(answer), false));
  }

  private static Optional<Duration> retryAfter(HttpAnswer answer) {
    String said = answer.header("retry-after");
    boolean seconds =
        !said.isEmpty() && said.length() < 9 && said.chars().allMatch(c -> c >= '0' && c <= '9');
    return seconds && Long.parseLong(said) > 0
        ? Optional.of(Duration.ofSeconds(Long.parseLong(said)))
        : Optional.empty();
  }

  private static Optional<String> errorField(String text) {
    try {
      if (JsonReader.read(text) instanceof Map<?, ?> fields) {
        // Servers made with FastAPI say `detail` for what they refuse themselves.
        for (String name : List.of("error", "detail")) {
          if (fields.get(name) instanceof String said && !said.isEmpty()) {
            return Optional.of(said);
          }
        }
      }
      return Optional.empty();
    } catch (JsonException e) {
      return Optional.empty();
    }
  }

  /** Reads whether a model or the server is ready, or lives. */
  public static Answer readReady(HttpAnswer answer) {
    if (answer.status() == 200) {
      return new Answer.Ready(true);
    }
    // Triton says 400 for a model that is there and not ready.
    return answer.status() == 400 || answer.status() == 503
        ? new Answer.Ready(false)
        : failureOf(answer);
  }

  /** Reads who the server is. */
  public static Answer readServerInfo(HttpAnswer answer) {
    return read(
        answer,
        document ->
            new Answer.Info(
                new ServerInfo(
                    field(document, "name", String.class),
                    field(document, "version", String.class),
                    texts(list(document, "extensions")),
                    0)));
  }

  /** Reads what a model takes and gives. */
  public static Answer readMetadata(HttpAnswer answer) {
    return read(
        answer,
        document ->
            new Answer.Described(
                new ModelMetadata(
                    field(document, "name", String.class),
                    texts(list(document, "versions")),
                    Objects.requireNonNullElse(optional(document, "platform", String.class), ""),
                    specs(list(document, "inputs")),
                    specs(list(document, "outputs")),
                    OptionalLong.empty(),
                    "")));
  }

  private interface Reading {
    Answer read(Object document) throws JsonException;
  }

  private static Answer read(HttpAnswer answer, Reading reading) {
    if (answer.status() != 200) {
      return failureOf(answer);
    }
    try {
      return reading.read(JsonReader.read(answer.body()));
    } catch (JsonException e) {
      return new Failure(Code.INTERNAL, "the server's answer cannot be read: " + e.getMessage());
    }
  }

  private static List<String> texts(List<?> elements) throws JsonException {
    List<String> texts = new ArrayList<>(elements.size());
    for (Object element : elements) {
      if (element instanceof JsonNumber number) {
        texts.add(number.text());
      } else if (element instanceof String text) {
        texts.add(text);
      } else {
        throw new JsonException("an element is no text");
      }
    }
    return texts;
  }

  private static List<TensorSpec> specs(List<?> elements) throws JsonException {
    List<TensorSpec> specs = new ArrayList<>(elements.size());
    for (Object element : elements) {
      String datatype = field(element, "datatype", String.class);
      List<Long> shape = new ArrayList<>();
      for (Object size : field(element, "shape", List.class)) {
        shape.add(integer(size));
      }
      specs.add(
          new TensorSpec(
              field(element, "name", String.class),
              Datatype.ofName(datatype)
                  .orElseThrow(() -> new JsonException("unknown datatype " + datatype)),
              shape,
              false));
    }
    return specs;
  }

  static long integer(Object value) throws JsonException {
    try {
      if (value instanceof JsonNumber number) {
        return Long.parseLong(number.text());
      }
    } catch (NumberFormatException e) {
      throw new JsonException(value + " is no integer");
    }
    throw new JsonException("an integer was expected");
  }
}
