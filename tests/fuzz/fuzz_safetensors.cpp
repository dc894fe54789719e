// A safetensors file. First byte even: the rest is the file. Odd: the second byte says how many of
// the last bytes are tensor data, the rest is the header, and its length is put in front of it.
#include "core/model/safetensors.h"
#include "core/model/safetensors_header.h"
#include "fuzz.h"

using namespace sparsight;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static FuzzDirectory directory;
    std::string_view input(reinterpret_cast<const char*>(data), size);
    if (size < 2) return 0;
    const std::uint8_t mode = data[0];
    const std::size_t tail = data[1];
    input.remove_prefix(1);
    std::string file(input);
    if ((mode & 1u) != 0) {
        input.remove_prefix(1);
        const std::size_t header = input.size() - std::min(tail, input.size());
        // A header that is refused needs no file, which would cost most of the time.
        bool sound = false;
        expectErrorOrNothing([&] {
            parseStHeader(input.substr(0, header), input.size() - header, "fuzz");
            sound = true;
        });
        if (!sound) return 0;
        file.clear();
        for (unsigned shift = 0; shift < 64; shift += 8)
            file += static_cast<char>(static_cast<unsigned char>(header >> shift & 0xffu));
        file += input;
    }
    directory.write("x.safetensors", file);
    expectErrorOrNothing([&] {
        const SafeTensors t = SafeTensors::openFile(directory.path() / "x.safetensors");
        std::size_t bytes = 0;
        for (const auto& [name, tensor] : t.tensors()) {
            bytes += tensor.bytes.size();
            expectErrorOrNothing([&, &one = tensor] {
                require(Index(one.toFloat().size()) == one.elements(), "a value per element");
            });
        }
        require(bytes <= file.size(), "tensors lie inside the file");
    });
    return 0;
}
