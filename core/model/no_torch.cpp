#include "core/model/runner.h"

namespace sparsight {

/// Builds without LibTorch look at sessions but cannot run a model.
std::unique_ptr<ModelRunner> loadModel(const std::filesystem::path&, int, const Job&,
                                       std::string_view) {
    throw Error(Errc::Unsupported,
                "this build has no LibTorch, so it cannot run a model: configure with "
                "SPARSIGHT_WITH_TORCH=ON and libtorch-dev installed");
}

double measureGemm(int, std::string_view) {
    return 0;
}

TorchDevices torchDevices() {
    return {false, "This build has no LibTorch."};
}

std::shared_ptr<const void> onGpu(std::span<const float>, std::string_view) {
    return nullptr;
}

}  // namespace sparsight
