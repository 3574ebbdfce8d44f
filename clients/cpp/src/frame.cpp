#include "frame.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <string>

#include "generated/kingpole_generated.h"

namespace kingpole::detail {

namespace {

constexpr std::array<char, 7> magic{'K', 'I', 'N', 'G', 'P', 'O', 'L'};
constexpr std::uint8_t version = 1;
constexpr std::array<std::byte, frame_alignment> zeros{};
// Source: protocol/spec/frame.md, rule 4.
constexpr flatbuffers::uoffset_t max_depth = 16;
constexpr flatbuffers::uoffset_t max_tables = 1000;

struct prelude {
    std::uint32_t header_bytes;
    std::uint32_t payload_count;
};

error malformed(std::string message) {
    return {.code = code::invalid_argument, .message = std::move(message)};
}

result<prelude> read_prelude(bytes_view bytes) {
    if (std::memcmp(bytes.data(), magic.data(), magic.size()) != 0) {
        return malformed("not a Kingpole frame: it does not start with KINGPOL and a version");
    }
    const auto said = std::to_integer<std::uint8_t>(bytes[magic.size()]);
    if (said != version) {
        return malformed("frame version " + std::to_string(said) + " is not known; this side speaks 1");
    }
    prelude prelude{};
    std::memcpy(&prelude.header_bytes, bytes.data() + 8, sizeof prelude.header_bytes);
    std::memcpy(&prelude.payload_count, bytes.data() + 12, sizeof prelude.payload_count);
    if (prelude.header_bytes > max_header_bytes) {
        return error{.code = code::resource_exhausted,
                     .message = "the frame's header says " + std::to_string(prelude.header_bytes) +
                                " bytes; at most " + std::to_string(max_header_bytes) + " are taken"};
    }
    if (prelude.payload_count > max_payloads) {
        return error{.code = code::resource_exhausted,
                     .message = "the frame says " + std::to_string(prelude.payload_count) +
                                " payloads; at most " + std::to_string(max_payloads) + " are taken"};
    }
    return prelude;
}

result<const wire::Header*> verify_header(bytes_view header, std::uint32_t payload_count) {
    const auto* data = reinterpret_cast<const std::uint8_t*>(header.data());
    flatbuffers::Verifier verifier(data, header.size(), max_depth, max_tables);
    if (!verifier.VerifyBuffer<wire::Header>(nullptr)) return malformed("malformed frame header");
    const auto* root = flatbuffers::GetRoot<wire::Header>(data);
    const std::uint32_t said = root->payloads() == nullptr ? 0 : root->payloads()->size();
    if (said != payload_count) {
        return malformed("the frame says " + std::to_string(payload_count) + " payloads, its header " +
                         std::to_string(said));
    }
    return root;
}

/// Return the bytes of all payloads with their padding; `before` bytes of the frame come before them.
result<std::uint64_t> payload_bytes(const wire::Header& header, std::uint64_t before, std::uint64_t limit) {
    std::uint64_t total = 0;
    if (header.payloads() != nullptr) {
        for (const std::uint64_t nbytes : *header.payloads()) {
            // Each is below the limit, so that the sum of at most 1024 of them cannot pass 64 bits.
            if (nbytes > limit || total + before + nbytes > limit) {
                return error{.code = code::resource_exhausted,
                             .message = "the frame has at least " +
                                        std::to_string(nbytes > limit ? nbytes : total + before + nbytes) +
                                        " bytes; at most " + std::to_string(limit) + " are taken"};
            }
            total += nbytes + padding_after(nbytes);
        }
    }
    return total;
}

void view_payloads(received_frame& frame, bytes_view body) {
    std::size_t position = 0;
    if (frame.header->payloads() == nullptr) return;
    frame.payloads.reserve(frame.header->payloads()->size());
    for (const std::uint64_t nbytes : *frame.header->payloads()) {
        frame.payloads.push_back(body.subspan(position, nbytes));
        position += nbytes + padding_after(nbytes);
    }
}

}  // namespace

result<aligned_memory> allocate_aligned(std::size_t nbytes) {
    constexpr std::align_val_t alignment{frame_alignment};
    auto* memory =
        static_cast<std::byte*>(::operator new(std::max(nbytes, std::size_t{1}), alignment, std::nothrow));
    if (memory == nullptr) {
        return error{.code = code::resource_exhausted,
                     .message = "no memory for " + std::to_string(nbytes) + " bytes"};
    }
    return aligned_memory{{memory, [](std::byte* each) { ::operator delete(each, alignment); }}, nbytes};
}

result<outgoing_frame> join_frame(bytes_view header, std::span<const bytes_view> payloads) {
    if (header.size() > max_header_bytes || payloads.size() > max_payloads) {
        return error{.code = code::resource_exhausted,
                     .message = "the request's header has " + std::to_string(header.size()) + " bytes and " +
                                std::to_string(payloads.size()) + " payloads; the most is " +
                                std::to_string(max_header_bytes) + " and " + std::to_string(max_payloads)};
    }
    outgoing_frame frame;
    const std::size_t end = prelude_bytes + header.size();
    frame.head.resize(end + padding_after(end));
    const auto header_bytes = static_cast<std::uint32_t>(header.size());
    const auto count = static_cast<std::uint32_t>(payloads.size());
    std::memcpy(frame.head.data(), magic.data(), magic.size());
    frame.head[magic.size()] = std::byte{version};
    std::memcpy(frame.head.data() + 8, &header_bytes, sizeof header_bytes);
    std::memcpy(frame.head.data() + 12, &count, sizeof count);
    std::memcpy(frame.head.data() + prelude_bytes, header.data(), header.size());
    frame.nbytes = frame.head.size();
    frame.parts.reserve(2 * payloads.size());
    for (const bytes_view payload : payloads) {
        if (payload.empty()) continue;
        const std::size_t padding = padding_after(payload.size());
        frame.parts.push_back(payload);
        if (padding != 0) frame.parts.emplace_back(zeros.data(), padding);
        frame.nbytes += payload.size() + padding;
    }
    return frame;
}

result<received_frame> split_frame(bytes_view body, std::shared_ptr<const void> owner, std::uint64_t limit) {
    if (body.size() < prelude_bytes) {
        return malformed("the frame is cut off after " + std::to_string(body.size()) + " bytes");
    }
    auto prelude = read_prelude(body);
    if (!prelude) return std::move(prelude).error();
    const std::size_t end = prelude_bytes + prelude->header_bytes;
    if (end > body.size()) {
        return malformed("the frame is cut off within its header, after " + std::to_string(body.size()) +
                         " bytes");
    }
    auto header = verify_header(body.subspan(prelude_bytes, prelude->header_bytes), prelude->payload_count);
    if (!header) return std::move(header).error();
    const std::size_t before = end + padding_after(end);
    auto payloads = payload_bytes(**header, before, limit);
    if (!payloads) return std::move(payloads).error();
    if (before + *payloads != body.size()) {
        return malformed("the frame says " + std::to_string(before + *payloads) + " bytes, got " +
                         std::to_string(body.size()));
    }
    received_frame frame{.header = *header, .payloads = {}, .header_owner = owner, .payloads_owner = owner};
    view_payloads(frame, body.subspan(before));
    return frame;
}

frame_assembler::frame_assembler(std::uint64_t limit)
    : limit_(limit),
      prelude_(std::make_unique<std::byte[]>(prelude_bytes)),
      target_(prelude_.get(), prelude_bytes) {}

result<void> frame_assembler::filled(std::size_t nbytes, std::vector<received_frame>& frames) {
    have_ += nbytes;
    while (have_ == target_.size()) {
        if (stage_ == stage::prelude) {
            if (auto begun = begin_header(); !begun) return begun;
        } else if (stage_ == stage::header) {
            if (auto begun = begin_payloads(); !begun) return begun;
            if (target_.empty()) {
                finish(frames);
                return {};
            }
        } else {
            finish(frames);
            return {};
        }
    }
    return {};
}

result<void> frame_assembler::begin_header() {
    auto prelude = read_prelude({prelude_.get(), prelude_bytes});
    if (!prelude) return std::move(prelude).error();
    if (prelude->header_bytes == 0) return malformed("the frame has no header");
    header_bytes_ = prelude->header_bytes;
    payload_count_ = prelude->payload_count;
    const std::size_t end = prelude_bytes + header_bytes_;
    auto memory = allocate_aligned(end + padding_after(end) - prelude_bytes);
    if (!memory) return std::move(memory).error();
    header_memory_ = *std::move(memory);
    stage_ = stage::header;
    target_ = header_memory_.bytes();
    have_ = 0;
    return {};
}

result<void> frame_assembler::begin_payloads() {
    auto header = verify_header(header_memory_.bytes().first(header_bytes_), payload_count_);
    if (!header) return std::move(header).error();
    auto nbytes = payload_bytes(**header, prelude_bytes + header_memory_.size, limit_);
    if (!nbytes) return std::move(nbytes).error();
    if (*nbytes != 0) {
        auto memory = allocate_aligned(*nbytes);
        if (!memory) return std::move(memory).error();
        payload_memory_ = *std::move(memory);
    }
    frame_.header = *header;
    stage_ = stage::payloads;
    target_ = payload_memory_.bytes();
    have_ = 0;
    return {};
}

void frame_assembler::finish(std::vector<received_frame>& frames) {
    view_payloads(frame_, payload_memory_.bytes());
    frame_.header_owner = std::move(header_memory_.owner);
    frame_.payloads_owner = std::move(payload_memory_.owner);
    frames.push_back(std::move(frame_));
    frame_ = {};
    header_memory_ = {};
    payload_memory_ = {};
    stage_ = stage::prelude;
    target_ = {prelude_.get(), prelude_bytes};
    have_ = 0;
}

result<void> frame_assembler::feed(bytes_view piece, std::vector<received_frame>& frames) {
    while (!piece.empty()) {
        const auto space = this->space();
        const std::size_t nbytes = std::min(space.size(), piece.size());
        std::memcpy(space.data(), piece.data(), nbytes);
        piece = piece.subspan(nbytes);
        if (auto done = filled(nbytes, frames); !done) return done;
    }
    return {};
}

}  // namespace kingpole::detail
