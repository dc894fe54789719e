#include "core/model/blas_env.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string_view>

namespace sparsight {
namespace {

constexpr const char* kVariable = "OPENBLAS_CORETYPE";

/// The OpenBLAS kernels for this CPU; null when any choice is as good.
const char* coreType() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return "SkylakeX";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "Haswell";
#endif
    return nullptr;
}

/// True for the kernels that use AVX2 or more.
bool isModern(std::string_view core) {
    constexpr std::string_view names[] = {"Haswell", "Zen", "SkylakeX", "Cooperlake",
                                          "Sapphirerapids"};
    return std::any_of(std::begin(names), std::end(names), [&](std::string_view name) {
        return core.size() == name.size() &&
               std::equal(core.begin(), core.end(), name.begin(),
                          [](char a, char b) { return (a | 0x20) == (b | 0x20); });
    });
}

}  // namespace

void prepareBlas(int, char** argv) {
    if (std::getenv(kVariable)) return;  // the user's choice, or ours before the restart
    const auto coreName =
        reinterpret_cast<char* (*)()>(dlsym(RTLD_DEFAULT, "openblas_get_corename"));
    if (!coreName) return;
    const char* wanted = coreType();
    if (!wanted || isModern(coreName())) return;
    setenv(kVariable, wanted, 1);
    execv("/proc/self/exe", argv);
    unsetenv(kVariable);  // no restart: children shall decide for themselves
}

}  // namespace sparsight
