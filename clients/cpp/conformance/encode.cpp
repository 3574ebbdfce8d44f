// Writes this client's own encoding of the requests of golden vectors.
#include <algorithm>
#include <fstream>
#include <iostream>

#include "cases.hpp"
#include "messages.hpp"
#include "vector_values.hpp"

namespace kingpole::conformance {

int encode_vectors(const std::string& directory, const std::string& out) {
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        const std::string name = entry.path().stem();
        if (!name.starts_with("frame-request-")) continue;
        const auto vector = vectors::read_json(entry.path());
        if (vector.contains("error")) continue;
        const request request = vectors::request_of(vector["value"]["message"]["request"]);
        auto frame = detail::encode(detail::infer_question{&request, request.timeout},
                                    vector["value"]["exchange"].get<std::uint64_t>());
        if (!frame) {
            std::cout << name << ": " << frame.error().text() << "\n";
            return 1;
        }
        std::ofstream file(std::filesystem::path(out) / (name + ".bin"), std::ios::binary);
        const auto write = [&](detail::bytes_view bytes) {
            file.write(reinterpret_cast<const char*>(bytes.data()),
                       static_cast<std::streamsize>(bytes.size()));
        };
        write(frame->head);
        std::ranges::for_each(frame->parts, write);
    }
    return 0;
}

}  // namespace kingpole::conformance
