#include "core/model/config.h"

namespace sparsight {

// To add an architecture: a row here with its class defaults (model-formats.md 4), and what its
// block does differently in core/torch.
std::vector<Architecture> architectures() {
    Architecture llama;
    llama.modelType = "llama";
    llama.title = "Llama 1-3, SmolLM2, TinyLlama, Yi, Vicuna, CodeLlama";
    return {llama};
}

}  // namespace sparsight
