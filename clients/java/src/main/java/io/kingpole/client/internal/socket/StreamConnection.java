package io.kingpole.client.internal.socket;

import io.kingpole.client.Code;
import io.kingpole.client.internal.Address;
import io.kingpole.client.internal.exchange.Exchanges;
import io.kingpole.client.internal.wire.Buffers;
import io.kingpole.client.internal.wire.DecodeException;
import io.kingpole.client.internal.wire.Failure;
import io.kingpole.client.internal.wire.Frame;
import io.kingpole.client.internal.wire.FrameAssembler;
import java.io.IOException;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/**
 * One socket with many requests in flight: a thread that connects and reads, and one that writes.
 *
 * <p>Nobody who asks ever waits for the network here. A frame that is partly out cannot be taken
 * back, so a server that reads nothing for too long loses the connection.
 */
final class StreamConnection {
  private static final Duration MOST_STUCK = Duration.ofSeconds(10);

  private final Address address;
  private final FrameAssembler assembler;
  private final Exchanges exchanges = new Exchanges(this::send);
  private final BlockingQueue<Buffers> outgoing = new LinkedBlockingQueue<>();
  private final Thread writer;
  private volatile Socket socket;

  StreamConnection(Address address, int limit) {
    this.address = address;
    this.assembler = new FrameAssembler(limit);
    this.writer = thread("write", this::write);
    thread("read", this::read).start();
  }

  private Thread thread(String what, Runnable run) {
    Thread thread = new Thread(run, "kingpole " + what + " " + address);
    thread.setDaemon(true);
    return thread;
  }

  Exchanges exchanges() {
    return exchanges;
  }

  private void send(Buffers frame) {
    outgoing.add(frame);
    Socket open = socket;
    if (open != null && open.stuckNanos() > MOST_STUCK.toNanos()) {
      fail(new Failure(Code.UNAVAILABLE, address + " stopped reading in the middle of a request"));
    }
  }

  private void read() {
    try {
      socket = Socket.open(address);
    } catch (IOException | RuntimeException e) {
      Failure refused =
          new Failure(Code.UNAVAILABLE, "cannot connect to " + address + ": " + e.getMessage());
      exchanges.fail(refused.beforeSending());
      return;
    }
    if (exchanges.failed()) {
      close();
      return;
    }
    writer.start();
    fail(readFrames());
  }

  private Failure readFrames() {
    try {
      while (socket.read(assembler.space()) >= 0) {
        Frame frame = assembler.filled();
        if (frame != null) {
          Optional<Failure> end = exchanges.answer(frame);
          if (end.isPresent()) {
            return end.get();
          }
        }
      }
      return new Failure(Code.UNAVAILABLE, address + " closed the connection");
    } catch (DecodeException e) {
      return e.asFailure();
    } catch (IOException e) {
      return broken(e);
    }
  }

  private Failure broken(IOException e) {
    String why = e.getMessage() == null ? e.getClass().getSimpleName() : e.getMessage();
    return new Failure(Code.UNAVAILABLE, "the connection to " + address + " broke: " + why);
  }

  private void write() {
    try {
      while (!exchanges.failed()) {
        socket.write(outgoing.take());
      }
    } catch (IOException e) {
      fail(broken(e));
    } catch (InterruptedException e) {
      // Only fail() interrupts this thread, and it has said why.
      close();
    }
  }

  /** Ends the stream and everything that waits on it. */
  void fail(Failure failure) {
    exchanges.fail(failure);
    writer.interrupt();
    close();
  }

  private void close() {
    Socket open = socket;
    if (open != null) {
      try {
        open.close();
      } catch (IOException e) {
        exchanges.fail(broken(e));
      }
    }
  }
}
