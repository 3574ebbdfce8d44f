package io.kingpole.conformance;

import io.kingpole.client.Client;
import io.kingpole.client.KingpoleException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;

/** The conformance program: protocol/conformance/README.md says what each case must show. */
public final class Main {
  private static final int NOT_APPLICABLE = 77;

  private Main() {}

  /** Runs one case, or says which transports there are. */
  public static void main(String[] arguments) throws Exception {
    if (arguments.length == 0) {
      System.err.println("usage: transports | encode DIRECTORY OUT | bench URL | CASE URL [EXTRA]");
      System.exit(2);
    }
    try {
      switch (arguments[0]) {
        case "transports" -> System.out.println("http grpc frame unix");
        case "encode" -> Encode.run(Path.of(arguments[1]), Path.of(arguments[2]));
        case "bench" -> Bench.run(arguments[1]);
        default -> run(arguments[0], arguments[1], arguments.length > 2 ? arguments[2] : "");
      }
    } catch (Check.NotApplicable e) {
      System.out.println(e.getMessage());
      System.exit(NOT_APPLICABLE);
    } catch (Check.Failed e) {
      System.out.println(e.getMessage());
      System.exit(1);
    } catch (KingpoleException e) {
      e.printStackTrace(System.out);
      System.out.println(e.code() + ": " + e.getMessage());
      System.exit(1);
    }
    // Threads of the JDK's HTTP client would keep the program alive.
    System.exit(0);
  }

  private static void run(String name, String url, String extra) throws Exception {
    switch (name) {
      case "tls" -> Failing.tls(url, Files.readAllBytes(Path.of(extra)));
      case "hostile" -> Hostile.run(url);
      case "shared-memory" ->
          throw new Check.NotApplicable("the Java client hands over no shared memory");
      case "token" -> {
        try (Client client = Client.builder(url).token("abc").build()) {
          Values.token(client);
        }
      }
      default -> {
        try (Client client = Client.builder(url).timeout(Duration.ofSeconds(100)).build()) {
          runWith(client, name, extra);
        }
      }
    }
  }

  private static void runWith(Client client, String name, String extra) throws Exception {
    switch (name) {
      case "server" -> Values.server(client);
      case "datatypes" -> Values.datatypes(client);
      case "shapes" -> Values.shapes(client);
      case "parameters" -> Values.parameters(client);
      case "errors" -> Failing.errors(client);
      case "deadline" -> Failing.deadline(client);
      case "cancel" -> Failing.cancel(client, Path.of(extra));
      case "killed" -> Failing.killed(client);
      case "stream" -> Flowing.stream(client, Path.of(extra));
      case "sequence" -> Flowing.sequence(client);
      case "pipeline" -> Flowing.pipeline(client);
      case "large" -> Flowing.large(client);
      case "open-inference" -> openInference(client);
      default -> throw new IOException("there is no case " + name);
    }
  }

  private static void openInference(Client client) {
    Values.datatypes(client);
    Values.shapes(client);
    Values.metadata(client);
    Values.ready(client);
    Failing.firstFive(client);
  }
}
