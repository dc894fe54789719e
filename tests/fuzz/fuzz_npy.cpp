// A .npy array, or a zip of them. The first byte's low bits: 0 = the rest is the array's file;
// 1 = it is the header's text, and magic, version (the byte's next bits) and length are put in
// front of it; 2 = it is a .npz file; 3 = an array's file, put into a sound .npz as its only entry.
#include <array>
#include <span>
#include <vector>

#include "core/import/npy.h"
#include "fuzz.h"

using namespace sparsight;

namespace {

void put(std::string& out, std::size_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) out += char(static_cast<unsigned char>(value >> 8 * i));
}

std::uint32_t crc32(std::string_view bytes) {
    static const auto table = [] {
        std::array<std::uint32_t, 256> t{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t c = i;
            for (int k = 0; k < 8; ++k) c = (c & 1u) != 0 ? 0xedb88320u ^ c >> 1 : c >> 1;
            t[i] = c;
        }
        return t;
    }();
    std::uint32_t c = ~0u;
    for (const char b : bytes) c = table[(c ^ static_cast<unsigned char>(b)) & 0xffu] ^ c >> 8;
    return ~c;
}

/// A zip with `bytes` as its one entry a.npy, stored.
std::string zipOf(std::string_view bytes) {
    constexpr std::string_view kName = "a.npy";
    std::string shared;  // what the local and the central header have in common
    put(shared, 20, 2);  // version that is needed
    put(shared, 0, 8);   // flags, method "stored", time, date
    put(shared, crc32(bytes), 4);
    put(shared, bytes.size(), 4);
    put(shared, bytes.size(), 4);
    put(shared, kName.size(), 2);
    put(shared, 0, 2);
    std::string zip("PK\x03\x04", 4);
    zip.append(shared).append(kName).append(bytes);
    const std::size_t directory = zip.size();
    zip.append("PK\x01\x02", 4);
    put(zip, 20, 2);
    zip.append(shared);
    put(zip, 0, 14);  // comment, disk, attributes, place of the entry
    zip.append(kName);
    const std::size_t size = zip.size() - directory;
    zip.append("PK\x05\x06", 4);
    put(zip, 0, 4);
    put(zip, 1, 2);
    put(zip, 1, 2);
    put(zip, size, 4);
    put(zip, directory, 4);
    put(zip, 0, 2);
    return zip;
}

void readAll(TensorFile& file, std::size_t bytes) {
    for (std::size_t i = 0; i < file.tensors().size(); ++i)
        expectErrorOrNothing([&] {
            const ForeignTensor& t = file.tensors()[i];
            require(t.elements() >= 0 && t.width >= 0, "sizes are not negative");
            t.shapeText();
            kernels::DType type{};
            valueType(t, true, type);
            // A deflated entry may hold more than the file has bytes, but not beyond all measure.
            if (t.elements() * t.width > Index(bytes) * 2048) return;
            std::vector<std::byte> all(std::size_t(t.elements() * t.width));
            file.read(i, 0, t.elements(), all.data());
            if (t.elements() > 1) file.read(i, 1, 1, all.data());
            if (t.element == Element::Int || t.element == Element::UInt)
                require(Index(readIntegers(file, i).size()) == t.elements(), "an integer for each");
        });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static FuzzDirectory directory;
    if (size < 1) return 0;
    const unsigned mode = data[0] & 3u;
    const std::string_view input(reinterpret_cast<const char*>(data + 1), size - 1);
    const auto parse = [](std::string_view file) {
        bool sound = false;
        expectErrorOrNothing([&] {
            const NpyHeader h = parseNpyHeader(std::as_bytes(std::span(file)), "fuzz");
            require(h.tensor.elements() >= 0 && h.tensor.width >= 0, "sizes are not negative");
            require(h.dataOffset <= Index(file.size()), "the data begin inside the file");
            sound = true;
        });
        return sound;
    };
    if (mode == 1) {
        const unsigned version = 1 + (data[0] >> 2) % 3u;
        std::string file("\x93NUMPY", 6);
        put(file, version, 2);
        put(file, input.size(), version == 1 ? 2 : 4);
        parse(file.append(input));
        return 0;
    }
    if (mode == 0) {
        // A file costs many times more than its header.
        if (!parse(input) || (data[0] & 4u) == 0) return 0;
        directory.write("x.npy", input);
        expectErrorOrNothing(
            [&] { readAll(*openNpyFile(directory.path() / "x.npy"), input.size()); });
        return 0;
    }
    if (mode == 3 && !parse(input)) return 0;
    directory.write("x.npz", mode == 2 ? std::string(input) : zipOf(input));
    expectErrorOrNothing([&] { readAll(*openNpzFile(directory.path() / "x.npz"), input.size()); });
    return 0;
}
