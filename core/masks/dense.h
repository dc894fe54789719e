#pragma once

#include "core/masks/method.h"

namespace sparsight {

/// Dense: every pair that the model's own attention shows. The baseline of every comparison; also
/// what a method without a decode rule runs in decode rows.
class DenseMask final : public MaskPolicy {
public:
    static constexpr std::span<const Param> kParams{};
    explicit DenseMask(const ParamValues&) {}
    kernels::Policy select(const HeadInput&, const Job& = {}) const override {
        return kernels::Dense{};
    }
};

}  // namespace sparsight
