package interop;

import java.io.ByteArrayInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;

/** PEM files as Java wants them. */
final class Certificates {
    private static final char[] NO_PASSWORD = new char[0];

    private Certificates() {}

    private static Certificate read(String file) throws Exception {
        byte[] pem = Files.readAllBytes(Path.of(file));
        return CertificateFactory.getInstance("X.509").generateCertificate(new ByteArrayInputStream(pem));
    }

    private static KeyStore empty() throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        return store;
    }

    static TrustManagerFactory trusted(Lines.Tls tls) throws Exception {
        KeyStore store = empty();
        store.setCertificateEntry("ca", read(tls.ca));
        TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(store);
        return factory;
    }

    /** Null where the client has no certificate. */
    static KeyManagerFactory own(Lines.Tls tls) throws Exception {
        if (tls.certificate == null) return null;
        String body = Files.readString(Path.of(tls.key)).replaceAll("-----[A-Z ]+-----|\\s", "");
        PrivateKey key = KeyFactory.getInstance("EC")
                .generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(body)));
        KeyStore store = empty();
        store.setKeyEntry("own", key, NO_PASSWORD, new Certificate[] {read(tls.certificate)});
        KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        factory.init(store, NO_PASSWORD);
        return factory;
    }

    static SSLSocketFactory sockets(Lines.Tls tls) throws Exception {
        KeyManagerFactory own = own(tls);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(own == null ? null : own.getKeyManagers(), trusted(tls).getTrustManagers(), null);
        return context.getSocketFactory();
    }
}
