package io.kingpole.client.internal.grpc;

import io.grpc.Status;
import io.kingpole.client.Code;
import io.kingpole.client.internal.Address;
import io.kingpole.client.internal.wire.Failure;
import java.net.ConnectException;
import java.util.Optional;

/** Makes failures of gRPC's statuses. */
final class Failures {
  private Failures() {}

  static Failure of(Status status, Address address) {
    if (status.isOk()) {
      return new Failure(Code.UNAVAILABLE, address + " ended the stream");
    }
    String text = Optional.ofNullable(status.getDescription()).orElse("no reason given");
    Optional<Code> known = Code.ofNumber(status.getCode().value());
    if (known.isEmpty()) {
      return new Failure(Code.INTERNAL, address + ": " + status.getCode() + ": " + text);
    }
    return switch (known.get()) {
      case UNAVAILABLE -> unavailable(status, address, text);
      case UNIMPLEMENTED ->
          new Failure(
              Code.UNIMPLEMENTED,
              text
                  + "; "
                  + address
                  + " takes no frames over gRPC: over http this client also speaks Open Inference");
      default -> new Failure(known.get(), text);
    };
  }

  private static Failure unavailable(Status status, Address address, String text) {
    StringBuilder why = new StringBuilder(address + ": " + text);
    boolean unsent = false;
    for (Throwable cause = status.getCause(); cause != null; cause = cause.getCause()) {
      unsent |= cause instanceof ConnectException;
      if (cause.getMessage() != null) {
        why.append(": ").append(cause.getMessage());
      }
    }
    Failure failure = new Failure(Code.UNAVAILABLE, why.toString());
    return unsent ? failure.beforeSending() : failure;
  }
}
