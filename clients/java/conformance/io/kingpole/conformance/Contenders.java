package io.kingpole.conformance;

import com.google.protobuf.ByteString;
import inference.OpenInference.ModelInferRequest;
import inference.OpenInference.ModelInferResponse;
import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.MethodDescriptor;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import io.kingpole.client.Client;
import io.kingpole.client.Datatype;
import io.kingpole.client.InferRequest;
import io.kingpole.client.Tensor;
import io.kingpole.client.internal.wire.RequestEncoder;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.util.Map;

/** The contenders of the benchmark. All send the same number of bytes to echo-fp32. */
final class Contenders {
  private static final int MOST_BYTES = 1 << 28;

  private Contenders() {}

  private static Tensor tensor(int elements) {
    return Tensor.of(Datatype.FP32, ByteBuffer.allocate(4 * elements), 1, elements);
  }

  private static void expect(int bytes, int got) {
    if (got < bytes) {
      throw new Check.Failed("expected an answer of " + bytes + " bytes, got " + got);
    }
  }

  static Bench.Contender kingpole(String url, int elements) {
    Client client = Client.connect(url);
    Map<String, Tensor> inputs = Map.of("x", tensor(elements));
    return new Bench.Contender() {
      @Override
      public void request() {
        Tensor x = client.infer("echo-fp32", inputs).output("x");
        expect(4 * elements, x.data().remaining());
      }

      @Override
      public void close() {
        client.close();
      }
    };
  }

  private static ManagedChannel channel(String url) {
    URI uri = URI.create(url);
    return ManagedChannelBuilder.forAddress(uri.getHost(), uri.getPort())
        .usePlaintext()
        .maxInboundMessageSize(MOST_BYTES)
        .build();
  }

  /**
   * What the generated blocking stub does; the plugin that writes stubs is not published
   * everywhere.
   */
  static Bench.Contender stubs(String url, int elements) {
    ManagedChannel channel = channel(url);
    MethodDescriptor<ModelInferRequest, ModelInferResponse> infer =
        MethodDescriptor.<ModelInferRequest, ModelInferResponse>newBuilder()
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName("inference.GRPCInferenceService/ModelInfer")
            .setSampledToLocalTracing(true)
            .setRequestMarshaller(ProtoUtils.marshaller(ModelInferRequest.getDefaultInstance()))
            .setResponseMarshaller(ProtoUtils.marshaller(ModelInferResponse.getDefaultInstance()))
            .build();
    ByteBuffer data = tensor(elements).data();
    return new Bench.Contender() {
      @Override
      public void request() {
        ModelInferRequest request =
            ModelInferRequest.newBuilder()
                .setModelName("echo-fp32")
                .addInputs(
                    ModelInferRequest.InferInputTensor.newBuilder()
                        .setName("x")
                        .setDatatype("FP32")
                        .addShape(1)
                        .addShape(elements))
                .addRawInputContents(ByteString.copyFrom(data.duplicate()))
                .build();
        ModelInferResponse response =
            ClientCalls.blockingUnaryCall(channel, infer, CallOptions.DEFAULT, request);
        expect(4 * elements, response.getRawOutputContents(0).size());
      }

      @Override
      public void close() {
        channel.shutdownNow();
      }
    };
  }

  static Bench.Contender floor(String url, int elements) {
    InferRequest request = InferRequest.of("echo-fp32").input("x", tensor(elements)).build();
    byte[] frame = new RequestEncoder(request, 0).encode(1).joined().array();
    return url.startsWith("grpc") ? grpcFloor(url, frame) : httpFloor(url, frame);
  }

  private static Bench.Contender grpcFloor(String url, byte[] frame) {
    ManagedChannel channel = channel(url);
    MethodDescriptor<byte[], byte[]> infer =
        MethodDescriptor.<byte[], byte[]>newBuilder()
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName("kingpole.v1.Inference/Infer")
            .setRequestMarshaller(new Bytes())
            .setResponseMarshaller(new Bytes())
            .build();
    return new Bench.Contender() {
      @Override
      public void request() {
        byte[] answer = ClientCalls.blockingUnaryCall(channel, infer, CallOptions.DEFAULT, frame);
        expect(frame.length / 2, answer.length);
      }

      @Override
      public void close() {
        channel.shutdownNow();
      }
    };
  }

  private static final class Bytes implements MethodDescriptor.Marshaller<byte[]> {
    @Override
    public InputStream stream(byte[] value) {
      return new ByteArrayInputStream(value);
    }

    @Override
    public byte[] parse(InputStream stream) {
      try {
        return stream.readAllBytes();
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }

  private static Bench.Contender httpFloor(String url, byte[] frame) {
    HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(url + "/v1/infer"))
            .header("Content-Type", "application/x-kingpole")
            .POST(HttpRequest.BodyPublishers.ofByteArray(frame))
            .build();
    return new Bench.Contender() {
      @Override
      public void request() throws Exception {
        byte[] answer = client.send(request, HttpResponse.BodyHandlers.ofByteArray()).body();
        expect(frame.length / 2, answer.length);
      }

      @Override
      public void close() {
        // The JDK's client ends when nobody refers to it.
      }
    };
  }
}
