#include "core/torch/threads.h"

#include <dlfcn.h>

#include <ATen/Parallel.h>

namespace sparsight {

void useTorchThreads(int threads) {
    if (at::get_num_threads() != threads) at::set_num_threads(threads);
    static const auto setBlas =
        reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
    if (setBlas) setBlas(threads);
}

}  // namespace sparsight
