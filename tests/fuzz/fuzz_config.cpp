// config.json of a model.
#include "core/model/config.h"
#include "fuzz.h"

using namespace sparsight;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const FuzzDirectory directory;
    directory.write("config.json", {reinterpret_cast<const char*>(data), size});
    expectErrorOrNothing([&] {
        const ModelConfig c = readConfig(directory.path());
        require(c.layers >= 0 && c.heads >= 0 && c.vocab >= 0, "sizes are not negative");
    });
    return 0;
}
