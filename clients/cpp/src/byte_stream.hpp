// A connection that bytes go into and come out of. Knows no protocol above it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "address.hpp"
#include "clock.hpp"
#include "frame.hpp"

namespace kingpole::detail {

/// One connection. One thread may read while another writes; `shut_down` may come from anywhere.
class byte_stream {
  public:
    byte_stream() = default;
    byte_stream(const byte_stream&) = delete;
    byte_stream& operator=(const byte_stream&) = delete;
    virtual ~byte_stream() = default;

    /// Wait for bytes; 0 at the end.
    [[nodiscard]] virtual result<std::size_t> read(std::span<std::byte> into, const deadline& deadline) = 0;

    /// Write all buffers, one after another. They are gathered by the system, not copied, where there is no
    /// TLS. An error is `unsent` if nothing was written.
    [[nodiscard]] virtual result<void> write(std::span<const bytes_view> buffers,
                                             const deadline& deadline) = 0;

    /// Return whether an idle connection was closed by the server: then nothing has been sent yet.
    [[nodiscard]] virtual bool is_dead() = 0;

    /// End it in both directions; whoever waits on it wakes up.
    virtual void shut_down() noexcept = 0;

    /// Write, and send a descriptor with the first byte. Unix sockets only.
    [[nodiscard]] virtual result<void> write_with_descriptor(bytes_view bytes, int descriptor) = 0;
};

/// Whom TLS trusts, read once for all connections of a client.
class trust;

/// Read certificates in PEM; none: whom the system trusts.
[[nodiscard]] result<std::shared_ptr<trust>> make_trust(const std::string& root_certificates);

/// Connect; with TLS where there is a trust. Errors are `unsent`.
[[nodiscard]] result<std::unique_ptr<byte_stream>> open_stream(const address& address,
                                                               const deadline& deadline,
                                                               const std::shared_ptr<trust>& trust);

/// Return the frame's buffers, in order.
[[nodiscard]] std::vector<bytes_view> buffers_of(const outgoing_frame& frame);

}  // namespace kingpole::detail
