package io.kingpole.client.internal;

import io.kingpole.client.Datatype;
import io.kingpole.client.Parameter;
import io.kingpole.client.Tensor;
import io.kingpole.client.internal.openinference.JsonReader;
import io.kingpole.client.internal.openinference.JsonReader.JsonNumber;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The golden vectors of the protocol, from its own directory, so that a new one is a new test. */
public final class Vectors {
  private static final Path DIRECTORY = Path.of("..", "..", "protocol", "vectors");

  private Vectors() {}

  /** A vector: its name and what its file says. */
  public record Vector(String name, Map<String, Object> fields) {
    /** Returns its bytes. */
    public byte[] bytes() {
      return HexFormat.of().parseHex((String) fields.get("hex"));
    }

    /** Returns the code that decoding must fail with, null if it must not. */
    public String errorCode() {
      return fields.get("error") == null ? null : (String) at(fields, "error", "code");
    }

    @Override
    public String toString() {
      return name;
    }
  }

  /** Returns the vectors whose name begins like that. */
  public static List<Vector> named(Path directory, String prefix) {
    List<Vector> vectors = new ArrayList<>();
    try (DirectoryStream<Path> files = Files.newDirectoryStream(directory, prefix + "*.json")) {
      for (Path file : files) {
        String name = file.getFileName().toString().replace(".json", "");
        vectors.add(new Vector(name, fields(JsonReader.read(Files.readString(file)))));
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (JsonReader.JsonException e) {
      throw new IllegalStateException(e);
    }
    if (vectors.isEmpty()) {
      throw new IllegalStateException("there are no vectors " + prefix + " in " + directory);
    }
    return vectors;
  }

  /** Returns the vectors of the protocol's own directory. */
  public static List<Vector> named(String prefix) {
    return named(DIRECTORY, prefix);
  }

  /** Follows fields of objects. */
  public static Object at(Object document, String... path) {
    Object found = document;
    for (String name : path) {
      found = ((Map<?, ?>) found).get(name);
    }
    return found == JsonReader.JsonNull.NULL ? null : found;
  }

  /** Returns a document as an object. */
  public static Map<String, Object> fields(Object document) {
    Map<String, Object> fields = new LinkedHashMap<>();
    ((Map<?, ?>) document).forEach((name, value) -> fields.put((String) name, value));
    return fields;
  }

  /** Returns an integer as its 64 bits; absent is 0. */
  public static long integer(Object value) {
    if (value == null || value == JsonReader.JsonNull.NULL) {
      return 0;
    }
    String text = ((JsonNumber) value).text();
    return text.startsWith("-") ? Long.parseLong(text) : Long.parseUnsignedLong(text);
  }

  /** Returns the tensors of a list, by name. */
  public static Map<String, Tensor> tensors(Object list) {
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    for (Object each : (List<?>) list) {
      byte[] data = HexFormat.of().parseHex((String) at(each, "data_hex"));
      long[] shape = ((List<?>) at(each, "shape")).stream().mapToLong(Vectors::integer).toArray();
      Datatype datatype = Datatype.ofName((String) at(each, "datatype")).orElseThrow();
      tensors.put((String) at(each, "name"), Tensor.of(datatype, ByteBuffer.wrap(data), shape));
    }
    return tensors;
  }

  /** Returns the parameters of a list, by name. */
  public static Map<String, Parameter> parameters(Object list) {
    Map<String, Parameter> parameters = new LinkedHashMap<>();
    for (Object each : (List<?>) list) {
      Object value = at(each, "value");
      Parameter parameter =
          switch ((String) at(each, "kind")) {
            case "bool" -> Parameter.of((Boolean) value);
            case "int64" -> Parameter.of(integer(value));
            case "uint64" -> Parameter.ofUnsigned(integer(value));
            case "double" -> Parameter.of(Double.parseDouble(((JsonNumber) value).text()));
            default -> Parameter.of((String) value);
          };
      parameters.put((String) at(each, "name"), parameter);
    }
    return parameters;
  }
}
