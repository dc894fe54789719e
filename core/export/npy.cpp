#include <fmt/format.h>

#include <cstring>

#include "core/export/figure.h"
#include "core/export/write_file.h"

namespace sparsight {
namespace {

/// Magic, version 1.0, header length, then a Python dict padded so that the data starts at a
/// multiple of 64 (numpy's own rule).
std::string npyHeader(const char* dtype, const std::vector<Index>& shape) {
    std::string dims;
    for (const Index n : shape) dims += fmt::format("{}, ", n);
    if (shape.size() > 1) dims.resize(dims.size() - 2);
    if (shape.size() == 1) dims.resize(dims.size() - 1);  // a tuple of one keeps its comma
    std::string dict =
        fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", dtype, dims);
    constexpr std::size_t kFixed = 10;  // before the dict
    dict.append((64 - (kFixed + dict.size() + 1) % 64) % 64, ' ');
    dict += '\n';
    std::string header("\x93NUMPY\x01\x00", 8);
    header += char(dict.size() & 0xff);
    header += char(dict.size() >> 8);
    return header + dict;
}

void write(const std::filesystem::path& file, const char* dtype, std::span<const std::byte> bytes,
           std::size_t elements, const std::vector<Index>& shape) {
    Index product = 1;
    for (const Index n : shape) product *= n;
    if (product != Index(elements))
        throw Error(Errc::Shape, fmt::format("{}: the shape asks for {} numbers, there are {}",
                                             file.string(), product, elements));
    std::string out = npyHeader(dtype, shape);
    out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    writeFile(file, out);
}

}  // namespace

void writeNpy(const std::filesystem::path& file, std::span<const float> data,
              std::vector<Index> shape) {
    write(file, "<f4", std::as_bytes(data), data.size(), shape);
}

void writeNpy(const std::filesystem::path& file, std::span<const std::uint8_t> data,
              std::vector<Index> shape) {
    write(file, "|u1", std::as_bytes(data), data.size(), shape);
}

}  // namespace sparsight
