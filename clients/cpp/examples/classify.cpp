// Classify a picture with the demo model: classify PICTURE.ppm [URL [LABELS]]
//
// The picture is a binary PPM (P6): every tool that knows pictures writes one, and C++ needs no library to
// read it.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

#ifdef KINGPOLE_WITH_GRPC
#include <kingpole/grpc.hpp>
#endif
#include <kingpole/kingpole.hpp>

namespace {

struct picture {
    std::size_t width = 0;
    std::size_t height = 0;
    std::vector<std::uint8_t> rgb;
};

picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    picture read;
    int most = 0;
    file >> magic >> read.width >> read.height >> most;
    file.get();
    constexpr std::size_t largest_side = 1 << 14;
    if (magic != "P6" || most != 255 || read.width - 1 >= largest_side || read.height - 1 >= largest_side) {
        throw std::runtime_error(path + " is no binary PPM of 8 bits (P6)");
    }
    read.rgb.resize(read.width * read.height * 3);
    file.read(reinterpret_cast<char*>(read.rgb.data()), static_cast<std::streamsize>(read.rgb.size()));
    if (!file) throw std::runtime_error(path + " is cut off");
    return read;
}

/// Return the picture's middle in another size; each pixel is the nearest one.
std::vector<std::uint8_t> square(const picture& from, std::size_t height, std::size_t width) {
    const std::size_t side = std::min(from.width, from.height);
    const std::size_t left = (from.width - side) / 2;
    const std::size_t top = (from.height - side) / 2;
    std::vector<std::uint8_t> to;
    to.reserve(height * width * 3);
    for (std::size_t row = 0; row < height; ++row) {
        for (std::size_t column = 0; column < width; ++column) {
            const std::size_t at =
                ((top + row * side / height) * from.width + left + column * side / width) * 3;
            to.insert(to.end(), {from.rgb[at], from.rgb[at + 1], from.rgb[at + 2]});
        }
    }
    return to;
}

kingpole::client connect(const std::string& url) {
    const kingpole::options options{.timeout = std::chrono::seconds(10)};
#ifdef KINGPOLE_WITH_GRPC
    return kingpole::grpc::connect(url, options).value();
#else
    return kingpole::client::connect(url, options).value();
#endif
}

std::vector<std::string> read_labels(const std::string& path) {
    std::vector<std::string> labels;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) labels.push_back(line);
    return labels;
}

void classify(const std::string& path, const std::string& url, const std::vector<std::string>& labels) {
    const std::string model = "efficientnet-lite0";
    auto client = connect(url);
    const auto metadata = client.metadata(model).value();
    const auto& wanted = metadata.inputs.at(0);
    if (wanted.datatype != kingpole::datatype::uint8 || wanted.shape.size() != 4 || wanted.shape[3] != 3) {
        throw std::runtime_error(model + " takes no raw RGB picture");
    }
    const auto height = static_cast<std::size_t>(wanted.shape[1]);
    const auto width = static_cast<std::size_t>(wanted.shape[2]);
    auto image = kingpole::tensor::own<std::uint8_t>(wanted.name, {1, wanted.shape[1], wanted.shape[2], 3},
                                                     square(read_ppm(path), height, width));
    const auto response = client.infer({.model = model, .inputs = {image}}).value();
    const auto probabilities = response.outputs.at(0).as<float>().value();
    std::vector<std::size_t> order(probabilities.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const std::size_t shown = std::min<std::size_t>(5, order.size());
    std::ranges::partial_sort(order, order.begin() + static_cast<std::ptrdiff_t>(shown), std::greater(),
                              [&](std::size_t index) { return probabilities[index]; });
    for (std::size_t rank = 0; rank < shown; ++rank) {
        const std::size_t index = order[rank];
        const std::string label = index < labels.size() ? labels[index] : "class " + std::to_string(index);
        std::printf("%6.2f%%  %s\n", 100.0 * static_cast<double>(probabilities[index]), label.c_str());
    }
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 2 || count > 4) {
        std::cerr << "classify PICTURE.ppm [URL [LABELS]]\n";
        return 2;
    }
    try {
        classify(arguments[1], count > 2 ? arguments[2] : "http://localhost:8000",
                 count > 3 ? read_labels(arguments[3]) : std::vector<std::string>{});
        return 0;
    } catch (const std::exception& failure) {
        std::cerr << failure.what() << "\n";
        return 1;
    }
}
