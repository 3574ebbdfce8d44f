// TLS around a socket, by OpenSSL. Knows no protocol above it.
#include <algorithm>
#include <cerrno>
#include <climits>
#include <mutex>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include "socket.hpp"

namespace kingpole::detail {

namespace {

template <class T, void (*Free)(T*)>
struct freed_by {
    void operator()(T* each) const noexcept { Free(each); }
};
using context_ptr = std::unique_ptr<SSL_CTX, freed_by<SSL_CTX, SSL_CTX_free>>;
using ssl_ptr = std::unique_ptr<SSL, freed_by<SSL, SSL_free>>;
using certificate_ptr = std::unique_ptr<X509, freed_by<X509, X509_free>>;

std::string openssl_reason() {
    const unsigned long number = ERR_get_error();
    ERR_clear_error();
    const char* text = number == 0 ? nullptr : ERR_reason_error_string(number);
    return text == nullptr ? "the TLS connection ended" : text;
}

/// OpenSSL's own socket writes with write(2), which ends the program with SIGPIPE when the server has gone.
int socket_write(BIO* bio, const char* from, std::size_t nbytes, std::size_t* written) {
    const auto* descriptor = static_cast<const int*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    const ssize_t sent = ::send(*descriptor, from, nbytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        if (errno == EAGAIN || errno == EINTR) BIO_set_retry_write(bio);
        return 0;
    }
    *written = static_cast<std::size_t>(sent);
    return 1;
}

int socket_read(BIO* bio, char* into, std::size_t nbytes, std::size_t* received) {
    const auto* descriptor = static_cast<const int*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    const ssize_t came = ::recv(*descriptor, into, nbytes, MSG_DONTWAIT);
    if (came <= 0) {
        if (came == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
        if (came < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
        return 0;
    }
    *received = static_cast<std::size_t>(came);
    return 1;
}

long socket_control(BIO* bio, int command, long, void*) {
    if (command == BIO_CTRL_EOF) return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

/// Made once, for the whole program.
const BIO_METHOD* socket_method() {
    static const std::unique_ptr<BIO_METHOD, freed_by<BIO_METHOD, BIO_meth_free>> method = [] {
        std::unique_ptr<BIO_METHOD, freed_by<BIO_METHOD, BIO_meth_free>> made(
            BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "kingpole socket"));
        BIO_meth_set_write_ex(made.get(), &socket_write);
        BIO_meth_set_read_ex(made.get(), &socket_read);
        BIO_meth_set_ctrl(made.get(), &socket_control);
        return made;
    }();
    return method.get();
}

error unreadable_certificates(const std::string& why) {
    return {.code = code::invalid_argument,
            .message = "root_certificates holds no certificates in PEM: " + why};
}

}  // namespace

class trust {
  public:
    explicit trust(context_ptr context) : context_(std::move(context)) {}
    [[nodiscard]] SSL_CTX* context() const noexcept { return context_.get(); }

  private:
    context_ptr context_;
};

result<std::shared_ptr<trust>> make_trust(const std::string& root_certificates) {
    context_ptr context(SSL_CTX_new(TLS_client_method()));
    if (!context) return error{.code = code::internal, .message = "OpenSSL: " + openssl_reason()};
    SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
    SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (root_certificates.empty()) {
        SSL_CTX_set_default_verify_paths(context.get());
        return std::make_shared<trust>(std::move(context));
    }
    const std::unique_ptr<BIO, decltype(&BIO_free_all)> pem(
        BIO_new_mem_buf(root_certificates.data(),
                        static_cast<int>(std::min<std::size_t>(root_certificates.size(), INT_MAX))),
        &BIO_free_all);
    X509_STORE* store = SSL_CTX_get_cert_store(context.get());
    int count = 0;
    while (const certificate_ptr certificate{PEM_read_bio_X509(pem.get(), nullptr, nullptr, nullptr)}) {
        if (X509_STORE_add_cert(store, certificate.get()) != 1)
            return unreadable_certificates(openssl_reason());
        ++count;
    }
    ERR_clear_error();
    if (count == 0) return unreadable_certificates("there is none");
    return std::make_shared<trust>(std::move(context));
}

namespace {

/// Encrypted. OpenSSL wants one thread at a time; here one thread at a time uses a connection, but for
/// `shut_down`.
class tls_stream final : public byte_stream {
  public:
    tls_stream(unique_descriptor socket, std::unique_ptr<int> descriptor, std::shared_ptr<trust> trust,
               ssl_ptr ssl, std::string name)
        : socket_(std::move(socket)),
          descriptor_(std::move(descriptor)),
          trust_(std::move(trust)),
          ssl_(std::move(ssl)),
          name_(std::move(name)) {}

    result<void> handshake(const deadline& deadline) {
        while (true) {
            ERR_clear_error();
            const int done = SSL_connect(ssl_.get());
            if (done == 1) return {};
            const long verified = SSL_get_verify_result(ssl_.get());
            if (verified != X509_V_OK) {
                return error{.code = code::unavailable,
                             .message = "cannot connect to " + name_ + ": its certificate is not trusted: " +
                                        X509_verify_cert_error_string(verified)};
            }
            if (auto ready = wait_again(done, deadline); !ready) return ready;
        }
    }

    result<std::size_t> read(std::span<std::byte> into, const deadline& deadline) override {
        while (true) {
            ERR_clear_error();
            std::size_t received = 0;
            const int done = SSL_read_ex(ssl_.get(), into.data(), into.size(), &received);
            if (done == 1) return received;
            if (SSL_get_error(ssl_.get(), done) == SSL_ERROR_ZERO_RETURN) return std::size_t{0};
            if (auto ready = wait_again(done, deadline); !ready) return std::move(ready).error();
        }
    }

    result<void> write(std::span<const bytes_view> buffers, const deadline& deadline) override {
        bool unsent = true;
        for (bytes_view buffer : buffers) {
            while (!buffer.empty()) {
                ERR_clear_error();
                std::size_t written = 0;
                const int done = SSL_write_ex(ssl_.get(), buffer.data(), buffer.size(), &written);
                if (done == 1) {
                    unsent = false;
                    buffer = buffer.subspan(written);
                } else if (auto ready = wait_again(done, deadline); !ready) {
                    ready.error().unsent = unsent;
                    return ready;
                }
            }
        }
        return {};
    }

    bool is_dead() override {
        if (SSL_pending(ssl_.get()) > 0) return true;
        pollfd poll{socket_.get(), POLLIN, 0};
        if (::poll(&poll, 1, 0) == 0) return false;
        // Tickets of TLS 1.3 come when nobody asked.
        ERR_clear_error();
        std::byte none{};
        const int done = SSL_peek(ssl_.get(), &none, 1);
        return SSL_get_error(ssl_.get(), done) != SSL_ERROR_WANT_READ;
    }

    void shut_down() noexcept override { ::shutdown(socket_.get(), SHUT_RDWR); }

    result<void> write_with_descriptor(bytes_view, int) override {
        return error{.code = code::internal, .message = "descriptors do not travel through TLS"};
    }

  private:
    result<void> wait_again(int done, const deadline& deadline) {
        switch (SSL_get_error(ssl_.get(), done)) {
            case SSL_ERROR_WANT_READ:
                return wait_for(socket_.get(), POLLIN, deadline, name_);
            case SSL_ERROR_WANT_WRITE:
                return wait_for(socket_.get(), POLLOUT, deadline, name_);
            default:
                return error{.code = code::unavailable,
                             .message = "the connection to " + name_ + " broke: " + openssl_reason()};
        }
    }

    unique_descriptor socket_;
    std::unique_ptr<int> descriptor_;
    std::shared_ptr<trust> trust_;
    ssl_ptr ssl_;
    std::string name_;
};

}  // namespace

result<std::unique_ptr<byte_stream>> open_tls(unique_descriptor socket, const address& address,
                                              const deadline& deadline, const std::shared_ptr<trust>& trust) {
    ssl_ptr ssl(SSL_new(trust->context()));
    BIO* bio = BIO_new(socket_method());
    if (!ssl || bio == nullptr) {
        BIO_free(bio);
        return error{.code = code::internal, .message = "OpenSSL: " + openssl_reason()};
    }
    // The connection's descriptor stays where it is for as long as OpenSSL uses it.
    auto kept = std::make_unique<int>(socket.get());
    BIO_set_data(bio, kept.get());
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl.get(), bio, bio);
    X509_VERIFY_PARAM* checks = SSL_get0_param(ssl.get());
    // An address in numbers is looked for among the certificate's addresses, a name among its names.
    if (X509_VERIFY_PARAM_set1_ip_asc(checks, address.host.c_str()) != 1) {
        ERR_clear_error();
        SSL_set_tlsext_host_name(ssl.get(), address.host.c_str());
        if (SSL_set1_host(ssl.get(), address.host.c_str()) != 1) {
            return error{.code = code::invalid_argument, .message = "no TLS name: " + address.host};
        }
    }
    auto stream = std::make_unique<tls_stream>(std::move(socket), std::move(kept), trust, std::move(ssl),
                                               address.text());
    deadline::value_type until = clock::now() + connect_timeout;
    if (deadline) until = std::min(until, *deadline);
    if (auto shaken = stream->handshake(until); !shaken) return std::move(shaken).error();
    return std::unique_ptr<byte_stream>(std::move(stream));
}

}  // namespace kingpole::detail
