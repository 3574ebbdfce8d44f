package io.kingpole.client.internal;

import io.kingpole.client.Code;
import io.kingpole.client.KingpoleException;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.util.Collection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** What TLS trusts. Opens no socket. */
public final class Trust {
  private Trust() {}

  /**
   * Makes a context that trusts these authorities and no others.
   *
   * @throws KingpoleException.InvalidArgument if they cannot be read
   */
  public static SSLContext of(byte[] pem) {
    try {
      Collection<? extends Certificate> certificates =
          CertificateFactory.getInstance("X.509")
              .generateCertificates(new ByteArrayInputStream(pem));
      if (certificates.isEmpty()) {
        throw invalid("there is none");
      }
      KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
      store.load(null, null);
      int number = 0;
      for (Certificate certificate : certificates) {
        store.setCertificateEntry("authority-" + number++, certificate);
      }
      TrustManagerFactory trust =
          TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
      trust.init(store);
      SSLContext context = SSLContext.getInstance("TLS");
      context.init(null, trust.getTrustManagers(), null);
      return context;
    } catch (GeneralSecurityException | IOException e) {
      throw invalid(e.getMessage());
    }
  }

  private static KingpoleException invalid(String why) {
    return KingpoleException.of(
        Code.INVALID_ARGUMENT, "the root certificates are no certificates in PEM: " + why);
  }
}
