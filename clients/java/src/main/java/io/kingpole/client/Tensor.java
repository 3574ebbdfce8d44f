package io.kingpole.client;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Objects;

/**
 * Elements of one datatype in a shape: little-endian, row-major, densely packed.
 *
 * <p>A tensor is a view: of the buffer it was made of, or of the bytes that were received. Made of
 * a {@link ByteBuffer}, direct or not, it is sent from there without a copy; the buffer must not
 * change before the answer is there. Made of an array, it holds a copy.
 */
public final class Tensor {
  private static final int MAX_RANK = 32;

  private final Datatype datatype;
  private final long[] shape;
  private final ByteBuffer data;

  private Tensor(Datatype datatype, long[] shape, ByteBuffer data) {
    this.datatype = datatype;
    this.shape = shape;
    this.data = data;
  }

  /**
   * Makes a tensor of bytes that are as the protocol has them.
   *
   * @param datatype the type of the elements
   * @param data the bytes between the buffer's position and limit, whatever its order; kept, not
   *     copied
   * @param shape sizes of the dimensions, outermost first; none for a scalar
   * @return the tensor
   * @throws KingpoleException.InvalidArgument if datatype, shape and bytes do not belong together
   */
  public static Tensor of(Datatype datatype, ByteBuffer data, long... shape) {
    ByteBuffer view = data.slice().asReadOnlyBuffer().order(ByteOrder.LITTLE_ENDIAN);
    long elements = elementsOf(shape);
    if (datatype == Datatype.BYTES) {
      new TextElements(view).check(elements);
    } else if (elements * datatype.elementBytes() != view.remaining()) {
      throw invalid(
          String.format(
              "%s %s needs %d bytes, got %d",
              datatype,
              Arrays.toString(shape),
              elements * datatype.elementBytes(),
              view.remaining()));
    }
    return new Tensor(datatype, shape.clone(), view);
  }

  /**
   * Makes a tensor of FP32.
   *
   * @param elements copied
   * @param shape sizes of the dimensions
   * @return the tensor
   */
  public static Tensor of(float[] elements, long... shape) {
    ByteBuffer data = room(elements.length, Float.BYTES);
    data.asFloatBuffer().put(elements);
    return of(Datatype.FP32, data, shape);
  }

  /**
   * Makes a tensor of FP64.
   *
   * @param elements copied
   * @param shape sizes of the dimensions
   * @return the tensor
   */
  public static Tensor of(double[] elements, long... shape) {
    ByteBuffer data = room(elements.length, Double.BYTES);
    data.asDoubleBuffer().put(elements);
    return of(Datatype.FP64, data, shape);
  }

  /**
   * Makes a tensor of INT32.
   *
   * @param elements copied
   * @param shape sizes of the dimensions
   * @return the tensor
   */
  public static Tensor of(int[] elements, long... shape) {
    ByteBuffer data = room(elements.length, Integer.BYTES);
    data.asIntBuffer().put(elements);
    return of(Datatype.INT32, data, shape);
  }

  /**
   * Makes a tensor of INT64.
   *
   * @param elements copied
   * @param shape sizes of the dimensions
   * @return the tensor
   */
  public static Tensor of(long[] elements, long... shape) {
    ByteBuffer data = room(elements.length, Long.BYTES);
    data.asLongBuffer().put(elements);
    return of(Datatype.INT64, data, shape);
  }

  /**
   * Makes a tensor of a datatype whose elements have 16 bits: INT16, UINT16, FP16 or BF16.
   *
   * @param datatype one of these; {@link HalfPrecision} makes the bits of numbers
   * @param elements copied
   * @param shape sizes of the dimensions
   * @return the tensor
   */
  public static Tensor of(Datatype datatype, short[] elements, long... shape) {
    ByteBuffer data = room(elements.length, Short.BYTES);
    data.asShortBuffer().put(elements);
    return of(datatype, data, shape);
  }

  /**
   * Makes a tensor of BYTES out of texts.
   *
   * @param elements one text for each element, written as UTF-8
   * @param shape sizes of the dimensions
   * @return the tensor
   */
  public static Tensor ofTexts(Collection<String> elements, long... shape) {
    List<byte[]> encoded = new ArrayList<>(elements.size());
    for (String element : elements) {
      encoded.add(element.getBytes(StandardCharsets.UTF_8));
    }
    return ofElements(encoded, shape);
  }

  /**
   * Makes a tensor of BYTES.
   *
   * @param elements the bytes of each element; copied
   * @param shape sizes of the dimensions
   * @return the tensor
   */
  public static Tensor ofElements(Collection<byte[]> elements, long... shape) {
    return of(Datatype.BYTES, TextElements.join(elements), shape);
  }

  /**
   * Returns the type of the elements.
   *
   * @return the datatype
   */
  public Datatype datatype() {
    return datatype;
  }

  /**
   * Returns the sizes of the dimensions.
   *
   * @return a copy, outermost first; empty for a scalar
   */
  public long[] shape() {
    return shape.clone();
  }

  /**
   * Returns how many elements there are.
   *
   * @return the product of the shape
   */
  public long elements() {
    return elementsOf(shape);
  }

  /**
   * Returns the bytes.
   *
   * @return a read-only view of them, little-endian; its position and limit are the caller's own
   */
  public ByteBuffer data() {
    return data.duplicate().order(ByteOrder.LITTLE_ENDIAN);
  }

  /**
   * Returns the elements of a tensor of FP32.
   *
   * @return a read-only view of them
   * @throws KingpoleException.InvalidArgument if it is of another datatype
   */
  public FloatBuffer floats() {
    expect(Datatype.FP32);
    return data.asFloatBuffer();
  }

  /**
   * Returns the elements of a tensor of FP32.
   *
   * @return a copy of them
   * @throws KingpoleException.InvalidArgument if it is of another datatype
   */
  public float[] toFloatArray() {
    float[] elements = new float[floats().remaining()];
    floats().get(elements);
    return elements;
  }

  /**
   * Returns the elements of a tensor of BYTES.
   *
   * @return a read-only view of each element
   * @throws KingpoleException.InvalidArgument if it is of another datatype
   */
  public List<ByteBuffer> toElements() {
    expect(Datatype.BYTES);
    return new TextElements(data).views();
  }

  /**
   * Returns the elements of a tensor of BYTES as texts.
   *
   * @return each element, read as UTF-8; what is not UTF-8 becomes U+FFFD
   * @throws KingpoleException.InvalidArgument if it is of another datatype
   */
  public List<String> toTexts() {
    List<String> texts = new ArrayList<>();
    for (ByteBuffer element : toElements()) {
      texts.add(StandardCharsets.UTF_8.decode(element).toString());
    }
    return texts;
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Tensor that
        && datatype == that.datatype
        && Arrays.equals(shape, that.shape)
        && data.equals(that.data);
  }

  @Override
  public int hashCode() {
    return Objects.hash(datatype, Arrays.hashCode(shape), data);
  }

  @Override
  public String toString() {
    return datatype + " " + Arrays.toString(shape);
  }

  private void expect(Datatype wanted) {
    if (datatype != wanted) {
      throw invalid("the tensor is of " + datatype + ", not of " + wanted);
    }
  }

  private static ByteBuffer room(int elements, int elementBytes) {
    long bytes = (long) elements * elementBytes;
    if (bytes > Integer.MAX_VALUE - 8) {
      throw invalid("a tensor of " + bytes + " bytes does not fit in a buffer");
    }
    return ByteBuffer.allocate((int) bytes).order(ByteOrder.LITTLE_ENDIAN);
  }

  private static long elementsOf(long[] shape) {
    if (shape.length > MAX_RANK) {
      throw invalid(shape.length + " dimensions, the most is " + MAX_RANK);
    }
    boolean empty = false;
    for (long size : shape) {
      if (size < 0) {
        throw invalid("impossible shape " + Arrays.toString(shape));
      }
      empty |= size == 0;
    }
    long elements = empty ? 0 : 1;
    for (long size : shape) {
      // More bytes than a buffer can hold: refused here, so that products cannot overflow.
      if (!empty && size > Integer.MAX_VALUE / elements) {
        throw invalid(Arrays.toString(shape) + " has more elements than a buffer can hold");
      }
      elements *= size;
    }
    return elements;
  }

  private static KingpoleException invalid(String text) {
    return KingpoleException.of(Code.INVALID_ARGUMENT, text);
  }
}
