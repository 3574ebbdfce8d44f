// Memory shared with a server on this machine: tensors lie in it and do not travel through the socket.
//
// Knows no socket. One arena belongs to one connection and ends with it: a server may go on writing to the
// memory of a connection that has broken, so what was placed there is not used for another.
//
// Source: protocol/spec/shared-memory.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kingpole/client.hpp>

#include "frame.hpp"

namespace kingpole::detail {

class arena;

/// A range of an arena; free again when its last owner is gone.
struct block {
    std::size_t offset = 0;
    std::span<std::byte> bytes;
    std::shared_ptr<void> owner;
};

/// Where the tensors of one request are; keeps their ranges until it is dropped.
struct placement {
    struct wanted_output {
        std::string name;
        std::optional<block> where;
    };

    std::shared_ptr<arena> memory;
    /// Offset of each input that is in the arena, by position.
    std::map<std::size_t, std::size_t> inputs;
    /// The outputs to ask for, in order; empty: ask for what the request says.
    std::vector<wanted_output> outputs;
    std::vector<std::shared_ptr<const void>> kept;
    std::string key;

    /// Return an output that the server says is there; nothing if it was not asked for there.
    [[nodiscard]] std::optional<block> find(std::uint32_t arena, std::uint64_t offset,
                                            std::uint64_t nbytes) const;

    /// Remember how large the outputs were, for the next request like this one; null: it failed.
    void learn(const response* response) const;
};

/// A sealed memfd, mapped here and by the server, and which of it is free. Safe between threads.
class arena : public std::enable_shared_from_this<arena> {
  public:
    /// The number of the one arena of a connection.
    static constexpr std::uint32_t number = 0;

    /// Make one; `resource_exhausted` if there is no memory for it.
    [[nodiscard]] static result<std::shared_ptr<arena>> make(std::size_t nbytes);

    arena(const arena&) = delete;
    arena& operator=(const arena&) = delete;
    ~arena();

    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
    [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

    /// Reserve a range; nothing if there is no room.
    [[nodiscard]] std::optional<block> take(std::size_t nbytes);

    /// Put inputs where they are not yet, and reserve room for the outputs if their sizes are known.
    [[nodiscard]] placement place(const request& request);

  private:
    friend struct placement;
    using sizes = std::vector<std::pair<std::string, std::size_t>>;

    arena(int descriptor, std::span<std::byte> bytes);
    void give_back(std::size_t offset, std::size_t nbytes);
    [[nodiscard]] std::optional<std::size_t> offset_of(bytes_view data) const noexcept;

    int descriptor_;
    std::span<std::byte> bytes_;
    std::mutex mutex_;
    /// Bytes of each free range, by offset; neighbors are joined.
    std::map<std::size_t, std::size_t> free_;
    std::map<std::string, sizes> learned_;
};

}  // namespace kingpole::detail
