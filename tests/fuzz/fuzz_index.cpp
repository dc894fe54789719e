// model.safetensors.index.json beside two good shards.
#include <nlohmann/json.hpp>

#include "core/model/json_input.h"
#include "core/model/safetensors.h"
#include "fuzz.h"

using namespace sparsight;

namespace {

struct Shards : FuzzDirectory {
    Shards() {
        const float values[] = {1, 2, 3, 4};
        writeSafeTensors(path() / "a.safetensors",
                         {{"x", StDType::F32, {2}, values}, {"y", StDType::F32, {4}, values}});
        writeSafeTensors(path() / "b.safetensors", {{"z", StDType::F32, {1}, values}});
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Shards directory;
    const std::string_view input(reinterpret_cast<const char*>(data), size);
    expectErrorOrNothing([&] {
        parseJson(input, "fuzz");  // what is not JSON needs no file
        directory.write("model.safetensors.index.json", input);
        const SafeTensors t = SafeTensors::openModel(directory.path());
        for (const auto& [name, tensor] : t.tensors())
            require(t.at(name).toFloat().size() <= 4, "only the shards' own tensors");
        require(t.fileCount() <= 2, "only the shards that there are");
    });
    return 0;
}
