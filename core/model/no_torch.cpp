#include "core/model/runner.h"

namespace sparsight {

/// Builds without LibTorch look at sessions but cannot run a model.
std::unique_ptr<ModelRunner> loadModel(const std::filesystem::path&, int, const Job&) {
    throw Error(Errc::Unsupported,
                "this build has no LibTorch, so it cannot run a model: configure with "
                "SPARSIGHT_WITH_TORCH=ON and libtorch-dev installed");
}

double measureGemm(int) {
    return 0;
}

}  // namespace sparsight
