package io.kingpole.client.internal.socket;

import io.kingpole.client.Code;
import io.kingpole.client.internal.Address;
import io.kingpole.client.internal.exchange.FrameSource;
import io.kingpole.client.internal.wire.Buffers;
import io.kingpole.client.internal.wire.DecodeException;
import io.kingpole.client.internal.wire.Failure;
import io.kingpole.client.internal.wire.Frame;
import io.kingpole.client.internal.wire.FrameAssembler;
import java.io.IOException;
import java.util.List;
import java.util.concurrent.Semaphore;

/**
 * The answer to one request on a socket of its own. Closing it tells the server that nobody waits.
 */
final class SocketSource extends FrameSource {
  private final Address address;
  private final FrameAssembler assembler;
  private final Semaphore reads = new Semaphore(1);
  private final Thread reader;
  private volatile boolean closed;

  SocketSource(Address address, int limit, Buffers request) {
    this.address = address;
    this.assembler = new FrameAssembler(limit);
    this.reader = new Thread(() -> fail(read(request)), "kingpole stream " + address);
    reader.setDaemon(true);
    reader.start();
  }

  @Override
  protected void readOn() {
    reads.release();
  }

  private Failure read(Buffers request) {
    try (Socket socket = Socket.open(address)) {
      socket.write(request);
      while (!closed) {
        reads.acquire();
        if (socket.read(assembler.space()) < 0) {
          return unavailable("closed the connection within its answer");
        }
        Frame frame = assembler.filled();
        give(frame == null ? List.of() : List.of(frame));
      }
      return unavailable("is not listened to any more");
    } catch (IOException | RuntimeException e) {
      return unavailable("cannot be reached: " + e.getMessage());
    } catch (DecodeException e) {
      return e.asFailure();
    } catch (InterruptedException e) {
      return unavailable("is not listened to any more");
    }
  }

  private Failure unavailable(String what) {
    return new Failure(Code.UNAVAILABLE, address + " " + what);
  }

  @Override
  public void close(boolean ended) {
    closed = true;
    // Closes the channel of a thread that reads or writes, and wakes one that waits for its turn.
    reader.interrupt();
  }
}
