#pragma once

#include "core/masks/method.h"

namespace sparsight {

/// A-shape: row i keeps key j <= pos(i) when j < sink or pos(i) - j < window. The window counts the
/// query itself and ends there on bidirectional layers too. Reads no q or k, so the rule of a
/// decode row is the same. Source: StreamingLLM (Xiao et al., 2023); prefill form and counting as
/// MInference's `streaming_kernel.py` runs it (n_init, n_local).
class AShape final : public MaskPolicy {
public:
    static constexpr Param kParams[] = {
        {"sink", Param::Int, 64, 0, 1048576, "tokens", "Leading keys that every query keeps."},
        {"window", Param::Int, 1024, 1, 1048576, "tokens",
         "Latest keys that every query keeps, its own included."},
    };
    explicit AShape(const ParamValues& p)
        : m_sink(Index(p.numbers.at("sink"))), m_window(Index(p.numbers.at("window"))) {}
    kernels::Policy select(const HeadInput& head, const Job& = {}) const override {
        requireOneSequence(head.problem, "a-shape");
        return kernels::Streaming{m_sink, m_window};
    }

private:
    Index m_sink, m_window;
};

}  // namespace sparsight
