// Frames straight over TCP or a Unix socket.
#pragma once

#include "byte_stream.hpp"
#include "frame_stream.hpp"

namespace kingpole::detail {

/// A stream of frames on a socket.
class socket_transport final : public stream_transport {
  public:
    socket_transport(address address, std::uint64_t limit, std::size_t shared_memory_bytes);
    ~socket_transport() override;

    [[nodiscard]] result<std::unique_ptr<source>> open(const infer_question& asked, const deadline& deadline,
                                                       std::stop_token stop) override;
    [[nodiscard]] result<std::shared_ptr<arena>> memory() override;

  private:
    [[nodiscard]] result<std::shared_ptr<frame_stream>> connect(const deadline& deadline) override;

    address address_;
    std::uint64_t limit_;
    std::size_t shared_memory_bytes_;
};

}  // namespace kingpole::detail
