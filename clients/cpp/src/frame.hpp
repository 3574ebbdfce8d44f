// Where header and payloads lie in a frame, and how pieces of a stream become frames.
//
// Knows no socket, and of the schema only the payloads' lengths: bytes in, frames out. `frame_assembler`
// hands out the memory that the next bytes belong in, so that a socket can receive straight into place.
//
// Source: protocol/spec/frame.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include <kingpole/result.hpp>

namespace kingpole::frame {
struct Header;
}

namespace kingpole::detail {

/// The schema's own names.
namespace wire = kingpole::frame;

inline constexpr std::string_view media_type = "application/x-kingpole";
inline constexpr std::string_view stream_media_type = "application/x-kingpole-stream";
inline constexpr std::size_t prelude_bytes = 16;
inline constexpr std::size_t frame_alignment = 64;
inline constexpr std::uint32_t max_header_bytes = 256 * 1024;
inline constexpr std::uint32_t max_payloads = 1024;

using bytes_view = std::span<const std::byte>;

/// Memory whose first byte is at a multiple of 64, not touched before it is written.
struct aligned_memory {
    std::shared_ptr<std::byte> owner;
    std::size_t size = 0;

    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {owner.get(), size}; }
};

/// Ask for memory; `resource_exhausted` if there is none.
[[nodiscard]] result<aligned_memory> allocate_aligned(std::size_t nbytes);

/// A received frame. Its header is verified; the views are kept alive by the owners.
struct received_frame {
    const wire::Header* header = nullptr;
    std::vector<bytes_view> payloads = {};
    std::shared_ptr<const void> header_owner = {};
    std::shared_ptr<const void> payloads_owner = {};
};

/// A frame to be sent: buffers one after another, of which only the first is ours.
struct outgoing_frame {
    std::vector<std::byte> head;
    std::vector<bytes_view> parts;
    std::size_t nbytes = 0;
};

/// Return the bytes between `nbytes` and the next multiple of 64.
constexpr std::size_t padding_after(std::uint64_t nbytes) noexcept {
    return static_cast<std::size_t>(-nbytes % frame_alignment);
}

/// Lay out a frame; payloads are referred to, not copied.
[[nodiscard]] result<outgoing_frame> join_frame(bytes_view header, std::span<const bytes_view> payloads);

/// Read one whole frame from memory whose first byte is at a multiple of 8.
[[nodiscard]] result<received_frame> split_frame(bytes_view body, std::shared_ptr<const void> owner,
                                                 std::uint64_t limit);

/// Collects the pieces of a stream into frames.
///
/// Nothing is allocated before the length that asks for it has been checked. After an error it is of no use.
class frame_assembler {
  public:
    explicit frame_assembler(std::uint64_t limit);

    /// True between two frames.
    [[nodiscard]] bool idle() const noexcept { return stage_ == stage::prelude && have_ == 0; }

    /// Return the memory that the next bytes of the stream belong in; never empty.
    [[nodiscard]] std::span<std::byte> space() const noexcept { return target_.subspan(have_); }

    /// Account for more bytes in `space()`; the frame that they complete is added to `frames`.
    [[nodiscard]] result<void> filled(std::size_t nbytes, std::vector<received_frame>& frames);

    /// Copy a piece of the stream in; the frames that it completes are added to `frames`, oldest first.
    [[nodiscard]] result<void> feed(bytes_view piece, std::vector<received_frame>& frames);

  private:
    enum class stage : std::uint8_t { prelude, header, payloads };

    [[nodiscard]] result<void> begin_header();
    [[nodiscard]] result<void> begin_payloads();
    void finish(std::vector<received_frame>& frames);

    std::uint64_t limit_;
    stage stage_ = stage::prelude;
    std::unique_ptr<std::byte[]> prelude_;
    aligned_memory header_memory_;
    aligned_memory payload_memory_;
    std::span<std::byte> target_;
    std::size_t have_ = 0;
    std::uint32_t header_bytes_ = 0;
    std::uint32_t payload_count_ = 0;
    received_frame frame_;
};

}  // namespace kingpole::detail
