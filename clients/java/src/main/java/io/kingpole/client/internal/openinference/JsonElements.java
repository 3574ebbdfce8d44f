package io.kingpole.client.internal.openinference;

import io.kingpole.client.Code;
import io.kingpole.client.Datatype;
import io.kingpole.client.HalfPrecision;
import io.kingpole.client.KingpoleException;
import io.kingpole.client.Tensor;
import io.kingpole.client.internal.openinference.JsonReader.JsonException;
import io.kingpole.client.internal.openinference.JsonReader.JsonNumber;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** Elements of a tensor as JSON, for servers that take and give nothing else. */
final class JsonElements {
  private JsonElements() {}

  /** Writes elements as a flat list. */
  static void write(JsonWriter json, String name, Tensor tensor) {
    json.open('[');
    if (tensor.datatype() == Datatype.BYTES) {
      for (ByteBuffer element : tensor.toElements()) {
        json.string(utf8(name, element));
      }
    } else {
      ByteBuffer data = tensor.data();
      while (data.hasRemaining()) {
        json.raw(number(name, tensor.datatype(), data));
      }
    }
    json.close(']');
  }

  private static String utf8(String name, ByteBuffer element) {
    try {
      return StandardCharsets.UTF_8.newDecoder().decode(element).toString();
    } catch (CharacterCodingException e) {
      throw KingpoleException.of(
          Code.INVALID_ARGUMENT,
          "input '" + name + "': this server takes tensors as JSON, and an element is not UTF-8");
    }
  }

  private static String number(String name, Datatype datatype, ByteBuffer data) {
    return switch (datatype) {
      case BOOL -> data.get() == 0 ? "false" : "true";
      case UINT8 -> Integer.toString(Byte.toUnsignedInt(data.get()));
      case UINT16 -> Integer.toString(Short.toUnsignedInt(data.getShort()));
      case UINT32 -> Integer.toUnsignedString(data.getInt());
      case UINT64 -> Long.toUnsignedString(data.getLong());
      case INT8 -> Byte.toString(data.get());
      case INT16 -> Short.toString(data.getShort());
      case INT32 -> Integer.toString(data.getInt());
      case INT64 -> Long.toString(data.getLong());
      case FP16 -> single(name, HalfPrecision.fromFp16(data.getShort()));
      case BF16 -> single(name, HalfPrecision.fromBf16(data.getShort()));
      case FP32 -> single(name, data.getFloat());
      case FP64 -> finite(name, data.getDouble());
      case BYTES -> throw new IllegalStateException("BYTES are no numbers");
    };
  }

  private static String single(String name, float value) {
    return Float.isFinite(value) ? Float.toString(value) : finite(name, value);
  }

  private static String finite(String name, double value) {
    if (!Double.isFinite(value)) {
      throw KingpoleException.of(
          Code.INVALID_ARGUMENT,
          "input '" + name + "': this server takes tensors as JSON, which has no " + value);
    }
    return Double.toString(value);
  }

  /** Reads elements, flat or nested, to the bytes that they would have been. */
  static ByteBuffer read(Datatype datatype, Object data) throws JsonException {
    List<Object> flat = new ArrayList<>();
    flatten(data, flat);
    if (datatype == Datatype.BYTES) {
      return texts(flat);
    }
    ByteBuffer bytes =
        ByteBuffer.allocate(flat.size() * datatype.elementBytes()).order(ByteOrder.LITTLE_ENDIAN);
    for (Object element : flat) {
      put(bytes, datatype, element);
    }
    return bytes.flip();
  }

  private static void flatten(Object data, List<Object> flat) {
    if (data instanceof List<?> elements) {
      for (Object element : elements) {
        flatten(element, flat);
      }
    } else {
      flat.add(data);
    }
  }

  private static ByteBuffer texts(List<Object> flat) throws JsonException {
    List<String> texts = new ArrayList<>(flat.size());
    for (Object element : flat) {
      if (!(element instanceof String text)) {
        throw new JsonException("an element of BYTES is not a string");
      }
      texts.add(text);
    }
    return Tensor.ofTexts(texts, texts.size()).data();
  }

  private static void put(ByteBuffer bytes, Datatype datatype, Object element)
      throws JsonException {
    if (datatype == Datatype.BOOL && element instanceof Boolean bool) {
      bytes.put((byte) (bool ? 1 : 0));
      return;
    }
    if (!(element instanceof JsonNumber number) || datatype == Datatype.BOOL) {
      throw new JsonException("an element of " + datatype + " is " + element);
    }
    try {
      switch (datatype) {
        case UINT8 -> bytes.put((byte) integer(number, 0, 0xFF));
        case UINT16 -> bytes.putShort((short) integer(number, 0, 0xFFFF));
        case UINT32 -> bytes.putInt((int) integer(number, 0, 0xFFFF_FFFFL));
        case UINT64 -> bytes.putLong(Long.parseUnsignedLong(number.text()));
        case INT8 -> bytes.put((byte) integer(number, Byte.MIN_VALUE, Byte.MAX_VALUE));
        case INT16 -> bytes.putShort((short) integer(number, Short.MIN_VALUE, Short.MAX_VALUE));
        case INT32 -> bytes.putInt((int) integer(number, Integer.MIN_VALUE, Integer.MAX_VALUE));
        case INT64 -> bytes.putLong(Long.parseLong(number.text()));
        case FP16 -> bytes.putShort(HalfPrecision.toFp16(Double.parseDouble(number.text())));
        case BF16 -> bytes.putShort(HalfPrecision.toBf16(Double.parseDouble(number.text())));
        case FP32 -> bytes.putFloat(Float.parseFloat(number.text()));
        case FP64 -> bytes.putDouble(Double.parseDouble(number.text()));
        case BOOL, BYTES -> throw new IllegalStateException(datatype + " are no numbers");
      }
    } catch (NumberFormatException e) {
      throw new JsonException(number.text() + " is no " + datatype);
    }
  }

  private static long integer(JsonNumber number, long least, long greatest) {
    long value = Long.parseLong(number.text());
    if (value < least || value > greatest) {
      throw new NumberFormatException();
    }
    return value;
  }
}
