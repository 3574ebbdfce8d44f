// A socket that ends with its owner, and how to wait on it. Knows no protocol.
#pragma once

#include <string>

#include "byte_stream.hpp"

namespace kingpole::detail {

/// A descriptor, closed with its owner.
class unique_descriptor {
  public:
    explicit unique_descriptor(int descriptor = -1) noexcept : descriptor_(descriptor) {}
    unique_descriptor(unique_descriptor&& other) noexcept;
    unique_descriptor& operator=(unique_descriptor&& other) noexcept;
    unique_descriptor(const unique_descriptor&) = delete;
    unique_descriptor& operator=(const unique_descriptor&) = delete;
    ~unique_descriptor();

    [[nodiscard]] int get() const noexcept { return descriptor_; }
    explicit operator bool() const noexcept { return descriptor_ >= 0; }

  private:
    int descriptor_;
};

/// Connect to the address; the socket does not block. Errors are `unsent`.
[[nodiscard]] result<unique_descriptor> open_socket(const address& address, const deadline& deadline);

/// Wait until the socket can be read (POLLIN) or written (POLLOUT); `deadline_exceeded` if it takes too long.
[[nodiscard]] result<void> wait_for(int descriptor, short events, const deadline& deadline,
                                    const std::string& name);

/// Make the error of a connection that broke.
[[nodiscard]] error broken(const std::string& name, int number);

/// Write all buffers with as few calls as there can be; returns how many bytes went out through `written`.
[[nodiscard]] result<void> send_all(int descriptor, std::span<const bytes_view> buffers,
                                    const deadline& deadline, const std::string& name, std::size_t& written);

/// Read what is there, or wait for it; 0 at the end.
[[nodiscard]] result<std::size_t> receive(int descriptor, std::span<std::byte> into, const deadline& deadline,
                                          const std::string& name);

/// Put TLS around a connected socket.
[[nodiscard]] result<std::unique_ptr<byte_stream>> open_tls(unique_descriptor socket, const address& address,
                                                            const deadline& deadline,
                                                            const std::shared_ptr<trust>& trust);

}  // namespace kingpole::detail
