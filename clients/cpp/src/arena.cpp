#include "arena.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace kingpole::detail {

namespace {

/// Shorter tensors travel in the frame: a copy costs less than the bookkeeping.
constexpr std::size_t smallest_bytes = 4096;
constexpr std::size_t most_learned = 1024;

error no_memory(std::size_t nbytes) {
    return {.code = code::resource_exhausted,
            .message = "no shared memory of " + std::to_string(nbytes) + " bytes: " + std::strerror(errno)};
}

constexpr std::size_t rounded(std::size_t nbytes) noexcept {
    return nbytes == 0 ? frame_alignment : nbytes + padding_after(nbytes);
}

/// Requests of one key have outputs of the same sizes, or so we hope: a wrong guess costs a copy, nothing
/// else.
std::string key_of(const request& request) {
    std::string key = request.model + '\0' + request.version.value_or("");
    for (const auto& output : request.outputs) key += '\0' + output;
    return key;
}

}  // namespace

std::optional<block> placement::find(std::uint32_t arena, std::uint64_t offset, std::uint64_t nbytes) const {
    for (const auto& output : outputs) {
        if (output.where && arena == arena::number && offset == output.where->offset &&
            nbytes <= output.where->bytes.size()) {
            return block{output.where->offset, output.where->bytes.first(nbytes), output.where->owner};
        }
    }
    return std::nullopt;
}

void placement::learn(const response* response) const {
    const std::lock_guard lock(memory->mutex_);
    if (response == nullptr) {
        // Whatever is wrong now: the next one asks for what the caller says, and nothing else.
        memory->learned_.erase(key);
        return;
    }
    if (response->stage != stage::only) return;
    arena::sizes sizes;
    bool is_worth_it = false;
    for (const tensor& output : response->outputs) {
        // What is judged by its bytes is not read where the server could still change them.
        const bool is_judged = output.datatype == datatype::bytes || output.datatype == datatype::boolean;
        sizes.emplace_back(output.name, is_judged ? 0 : output.data.size());
        is_worth_it |= sizes.back().second >= smallest_bytes;
    }
    if (!is_worth_it) return;
    if (memory->learned_.size() >= most_learned) memory->learned_.clear();
    memory->learned_[key] = std::move(sizes);
}

arena::arena(int descriptor, std::span<std::byte> bytes) : descriptor_(descriptor), bytes_(bytes) {
    free_.emplace(0, bytes.size());
}

arena::~arena() {
    ::munmap(bytes_.data(), bytes_.size());
    ::close(descriptor_);
}

result<std::shared_ptr<arena>> arena::make(std::size_t nbytes) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    if (nbytes == 0 || nbytes > SIZE_MAX / 4) {
        return error{.code = code::invalid_argument,
                     .message = "shared memory of " + std::to_string(nbytes) + " bytes cannot be made"};
    }
    const std::size_t size = (nbytes + page - 1) / page * page;
    const int descriptor = ::memfd_create("kingpole-client", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (descriptor < 0) return no_memory(size);
    // The server maps it only if nobody can change its size any more.
    if (::ftruncate(descriptor, static_cast<off_t>(size)) != 0 ||
        ::fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        auto failure = no_memory(size);
        ::close(descriptor);
        return failure;
    }
    void* mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (mapped == MAP_FAILED) {
        auto failure = no_memory(size);
        ::close(descriptor);
        return failure;
    }
    return std::shared_ptr<arena>(new arena(descriptor, {static_cast<std::byte*>(mapped), size}));
}

std::optional<block> arena::take(std::size_t nbytes) {
    if (nbytes > size()) return std::nullopt;
    const std::size_t wanted = rounded(nbytes);
    const std::lock_guard lock(mutex_);
    for (auto range = free_.begin(); range != free_.end(); ++range) {
        const std::size_t offset = range->first;
        const std::size_t available = range->second;
        if (available < wanted) continue;
        free_.erase(range);
        if (available > wanted) free_.emplace(offset + wanted, available - wanted);
        auto keep = shared_from_this();
        // The owner's pointer says where the range is; what it keeps is the whole arena.
        std::shared_ptr<void> owner(bytes_.data() + offset, [keep, offset, wanted](void*) noexcept {
            keep->give_back(offset, wanted);
        });
        return block{offset, bytes_.subspan(offset, nbytes), std::move(owner)};
    }
    return std::nullopt;
}

void arena::give_back(std::size_t offset, std::size_t nbytes) {
    const std::lock_guard lock(mutex_);
    auto next = free_.lower_bound(offset);
    if (next != free_.end() && offset + nbytes == next->first) {
        nbytes += next->second;
        next = free_.erase(next);
    }
    if (next != free_.begin()) {
        const auto before = std::prev(next);
        if (before->first + before->second == offset) {
            before->second += nbytes;
            return;
        }
    }
    free_.emplace(offset, nbytes);
}

std::optional<std::size_t> arena::offset_of(bytes_view data) const noexcept {
    const auto start = reinterpret_cast<std::uintptr_t>(bytes_.data());
    const auto at = reinterpret_cast<std::uintptr_t>(data.data());
    if (data.empty() || at < start || at - start > size() - std::min(size(), data.size()))
        return std::nullopt;
    if (data.size() > size()) return std::nullopt;
    return at - start;
}

placement arena::place(const request& request) {
    placement placement{
        .memory = shared_from_this(), .inputs = {}, .outputs = {}, .kept = {}, .key = key_of(request)};
    for (std::size_t index = 0; index < request.inputs.size(); ++index) {
        const tensor& input = request.inputs[index];
        auto offset = offset_of(input.data);
        if (offset) {
            placement.kept.push_back(input.owner);
        } else if (input.data.size() >= smallest_bytes) {
            if (auto block = take(input.data.size())) {
                std::memcpy(block->bytes.data(), input.data.data(), input.data.size());
                offset = block->offset;
                placement.kept.push_back(std::move(block->owner));
            }
        }
        if (offset) placement.inputs.emplace(index, *offset);
    }
    sizes known;
    {
        const std::lock_guard lock(mutex_);
        if (const auto found = learned_.find(placement.key); found != learned_.end()) known = found->second;
    }
    for (auto& [name, nbytes] : known) {
        placement.outputs.push_back({name, nbytes >= smallest_bytes ? take(nbytes) : std::nullopt});
    }
    return placement;
}

}  // namespace kingpole::detail
