#include "socket.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

namespace kingpole::detail {

namespace {

// Linux takes 1024 buffers a call (IOV_MAX).
constexpr std::size_t most_buffers = 256;

error cannot_connect(const address& address, const std::string& why) {
    return {.code = code::unavailable,
            .message = "cannot connect to " + address.text() + ": " + why,
            .unsent = true};
}

/// Connect one socket; 0, or the number of what went wrong, ETIMEDOUT when it took too long.
int connect_one(int descriptor, const sockaddr* to, socklen_t length, clock::time_point until) {
    if (::connect(descriptor, to, length) == 0) return 0;
    // A Unix socket whose queue is full says EAGAIN, and nothing ever says when it is not.
    if (errno != EINPROGRESS && errno != EINTR) return errno;
    if (!wait_for(descriptor, POLLOUT, until, {})) return ETIMEDOUT;
    int failure = 0;
    socklen_t size = sizeof failure;
    ::getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &failure, &size);
    return failure;
}

result<unique_descriptor> failed_connect(const address& address, const deadline& deadline, int number) {
    if (number == ETIMEDOUT && has_passed(deadline)) {
        return error{.code = code::deadline_exceeded,
                     .message = address.text() + " did not accept a connection in time",
                     .unsent = true};
    }
    return cannot_connect(
        address, number == ETIMEDOUT ? "it did not accept a connection in time" : std::strerror(number));
}

result<unique_descriptor> open_unix(const address& address, const deadline& deadline,
                                    clock::time_point until) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::memcpy(to.sun_path, address.path.data(), std::min(address.path.size(), sizeof to.sun_path - 1));
    unique_descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int failure =
        socket ? connect_one(socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to, until) : errno;
    if (failure != 0) return failed_connect(address, deadline, failure);
    return socket;
}

result<unique_descriptor> open_tcp(const address& address, const deadline& deadline,
                                   clock::time_point until) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int unresolved =
        ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
    if (unresolved != 0) return cannot_connect(address, ::gai_strerror(unresolved));
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
    int failure = EADDRNOTAVAIL;
    for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
        unique_descriptor socket(::socket(each->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        failure = socket ? connect_one(socket.get(), each->ai_addr, each->ai_addrlen, until) : errno;
        if (failure != 0) continue;
        const int on = 1;
        ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        return socket;
    }
    return failed_connect(address, deadline, failure);
}

/// Not encrypted: buffers are gathered by the system.
class plain_stream final : public byte_stream {
  public:
    plain_stream(unique_descriptor socket, std::string name)
        : socket_(std::move(socket)), name_(std::move(name)) {}

    result<std::size_t> read(std::span<std::byte> into, const deadline& deadline) override {
        return receive(socket_.get(), into, deadline, name_);
    }

    result<void> write(std::span<const bytes_view> buffers, const deadline& deadline) override {
        std::size_t written = 0;
        auto sent = send_all(socket_.get(), buffers, deadline, name_, written);
        if (!sent) sent.error().unsent = written == 0;
        return sent;
    }

    bool is_dead() override {
        pollfd poll{socket_.get(), POLLIN, 0};
        return ::poll(&poll, 1, 0) != 0;
    }

    void shut_down() noexcept override { ::shutdown(socket_.get(), SHUT_RDWR); }

    result<void> write_with_descriptor(bytes_view bytes, int descriptor) override {
        // The control message, aligned as the system wants it.
        alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
        iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        cmsghdr* rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
        // Nothing else was sent yet, so that there is room for all of it.
        const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
        if (sent != static_cast<ssize_t>(bytes.size())) return broken(name_, sent < 0 ? errno : EPIPE);
        return {};
    }

  private:
    unique_descriptor socket_;
    std::string name_;
};

}  // namespace

unique_descriptor::unique_descriptor(unique_descriptor&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

unique_descriptor& unique_descriptor::operator=(unique_descriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
}

unique_descriptor::~unique_descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

error broken(const std::string& name, int number) {
    return {.code = code::unavailable,
            .message = "the connection to " + name + " broke: " + std::strerror(number)};
}

result<void> wait_for(int descriptor, short events, const deadline& deadline, const std::string& name) {
    while (true) {
        int timeout_ms = -1;
        if (deadline) {
            const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - clock::now()).count();
            timeout_ms = static_cast<int>(std::clamp<std::int64_t>(left, 0, INT_MAX));
        }
        pollfd poll{descriptor, events, 0};
        const int ready = ::poll(&poll, 1, timeout_ms);
        if (ready > 0) return {};
        if (ready == 0) {
            return error{.code = code::deadline_exceeded,
                         .message = "no answer came from " + name + " in time"};
        }
        if (errno != EINTR) return broken(name, errno);
    }
}

result<unique_descriptor> open_socket(const address& address, const deadline& deadline) {
    clock::time_point until = clock::now() + connect_timeout;
    if (deadline) until = std::min(until, *deadline);
    return address.path.empty() ? open_tcp(address, deadline, until) : open_unix(address, deadline, until);
}

result<void> send_all(int descriptor, std::span<const bytes_view> buffers, const deadline& deadline,
                      const std::string& name, std::size_t& written) {
    std::array<iovec, most_buffers> parts;
    std::size_t first = 0;
    std::size_t skip = 0;
    written = 0;
    while (first < buffers.size()) {
        const std::size_t count = std::min(buffers.size() - first, parts.size());
        for (std::size_t index = 0; index < count; ++index) {
            const bytes_view buffer = buffers[first + index].subspan(index == 0 ? skip : 0);
            parts[index] = {const_cast<std::byte*>(buffer.data()), buffer.size()};
        }
        msghdr message{};
        message.msg_iov = parts.data();
        message.msg_iovlen = count;
        const ssize_t sent = ::sendmsg(descriptor, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK) return broken(name, errno);
            if (auto ready = wait_for(descriptor, POLLOUT, deadline, name); !ready) return ready;
            continue;
        }
        written += static_cast<std::size_t>(sent);
        skip += static_cast<std::size_t>(sent);
        while (first < buffers.size() && skip >= buffers[first].size()) skip -= buffers[first++].size();
    }
    return {};
}

result<std::size_t> receive(int descriptor, std::span<std::byte> into, const deadline& deadline,
                            const std::string& name) {
    while (true) {
        if (auto ready = wait_for(descriptor, POLLIN, deadline, name); !ready)
            return std::move(ready).error();
        const ssize_t received = ::recv(descriptor, into.data(), into.size(), MSG_DONTWAIT);
        if (received >= 0) return static_cast<std::size_t>(received);
        if (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK) return broken(name, errno);
    }
}

result<std::unique_ptr<byte_stream>> open_stream(const address& address, const deadline& deadline,
                                                 const std::shared_ptr<trust>& trust) {
    auto socket = open_socket(address, deadline);
    if (!socket) return std::move(socket).error();
    if (address.secure()) {
        auto stream = open_tls(*std::move(socket), address, deadline, trust);
        // Whatever went wrong: the request was not written yet.
        if (!stream) stream.error().unsent = true;
        return stream;
    }
    return std::unique_ptr<byte_stream>(std::make_unique<plain_stream>(*std::move(socket), address.text()));
}

std::vector<bytes_view> buffers_of(const outgoing_frame& frame) {
    std::vector<bytes_view> buffers;
    buffers.reserve(1 + frame.parts.size());
    buffers.emplace_back(frame.head);
    buffers.insert(buffers.end(), frame.parts.begin(), frame.parts.end());
    return buffers;
}

}  // namespace kingpole::detail
