// config.json of a model.
#include "core/model/config.h"
#include "fuzz.h"

using namespace sparsight;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    expectErrorOrNothing([&] {
        const ModelConfig c =
            parseConfig({reinterpret_cast<const char*>(data), size}, "fuzz", "config.json");
        require(c.layers >= 0 && c.heads >= 0 && c.vocab >= 0, "sizes are not negative");
    });
    return 0;
}
