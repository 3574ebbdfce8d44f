package examples;

import io.kingpole.client.Client;
import io.kingpole.client.Datatype;
import io.kingpole.client.Tensor;
import io.kingpole.client.TensorSpec;
import java.awt.Graphics2D;
import java.awt.RenderingHints;
import java.awt.image.BufferedImage;
import java.awt.image.DataBufferByte;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import javax.imageio.ImageIO;

/** Classifies a picture with the demo model: {@code Classify PICTURE [URL [LABELS]]}. */
public final class Classify {
  private static final String MODEL = "efficientnet-lite0";

  private Classify() {}

  /** Asks the server and prints the five likeliest classes. */
  public static void main(String[] arguments) throws IOException {
    if (arguments.length < 1 || arguments.length > 3) {
      System.err.println("usage: Classify PICTURE [URL [LABELS]]");
      System.exit(2);
    }
    String url = arguments.length > 1 ? arguments[1] : "http://localhost:8000";
    List<String> labels =
        arguments.length > 2 ? Files.readAllLines(Path.of(arguments[2])) : List.of();
    try (Client client = Client.builder(url).timeout(Duration.ofSeconds(10)).build()) {
      TensorSpec wanted = client.metadata(MODEL).inputs().get(0);
      Tensor image = readPicture(new File(arguments[0]), wanted);
      float[] scores =
          client
              .infer(MODEL, Map.of(wanted.name(), image))
              .outputs()
              .values()
              .iterator()
              .next()
              .toFloatArray();
      IntStream.range(0, scores.length)
          .boxed()
          .sorted(Comparator.comparingDouble(index -> -scores[index]))
          .limit(5)
          .forEach(
              index ->
                  System.out.printf(
                      "%6.2f%%  %s%n",
                      100 * scores[index],
                      index < labels.size() ? labels.get(index) : "class " + index));
    }
  }

  /** Returns the picture's middle as raw RGB, UINT8 of shape (1, height, width, 3). */
  private static Tensor readPicture(File file, TensorSpec wanted) throws IOException {
    if (wanted.datatype() != Datatype.UINT8 || wanted.shape().size() != 4) {
      throw new IOException("the model takes " + wanted + ", which is no raw RGB picture");
    }
    BufferedImage picture = ImageIO.read(file);
    if (picture == null) {
      throw new IOException(file + " is no picture that Java reads");
    }
    int height = wanted.shape().get(1).intValue();
    int width = wanted.shape().get(2).intValue();
    int side = Math.min(picture.getWidth(), picture.getHeight());
    int left = (picture.getWidth() - side) / 2;
    int top = (picture.getHeight() - side) / 2;
    BufferedImage square = new BufferedImage(width, height, BufferedImage.TYPE_3BYTE_BGR);
    Graphics2D graphics = square.createGraphics();
    graphics.setRenderingHint(
        RenderingHints.KEY_INTERPOLATION, RenderingHints.VALUE_INTERPOLATION_BICUBIC);
    graphics.drawImage(picture, 0, 0, width, height, left, top, left + side, top + side, null);
    graphics.dispose();
    byte[] pixels = ((DataBufferByte) square.getRaster().getDataBuffer()).getData();
    for (int pixel = 0; pixel < pixels.length; pixel += 3) {
      byte blue = pixels[pixel];
      pixels[pixel] = pixels[pixel + 2];
      pixels[pixel + 2] = blue;
    }
    return Tensor.of(Datatype.UINT8, ByteBuffer.wrap(pixels), 1, height, width, 3);
  }
}
