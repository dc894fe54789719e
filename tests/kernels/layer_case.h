#pragma once

#include <cmath>
#include <cstring>
#include <ostream>

#include "kernels/backend.h"
#include "random_policy.h"

/// What a test layer looks like.
struct LayerCase {
    sparsight::Index batch = 1, Hq = 1, Hkv = 1, Nq = 64, Nk = 64, d = 64, dv = 64;
    bool causal = true;
    sparsight::Index window = 0;
    float softcap = 0;
    bool sinks = false, bias = false;
    sparsight::kernels::DType type = sparsight::kernels::DType::F32;
    float gain = 1;

    friend std::ostream& operator<<(std::ostream& to, const LayerCase& c) {
        return to << "batch " << c.batch << " heads " << c.Hq << "/" << c.Hkv << " tokens " << c.Nq
                  << "x" << c.Nk << " width " << c.d << "/" << c.dv << " causal " << c.causal
                  << " window " << c.window << " cap " << c.softcap << " sinks " << c.sinks
                  << " bias " << c.bias << " " << nameOf(c.type) << " gain " << c.gain;
    }
};

/// [batch, head, token, width] with gaps between tokens and heads, NaN in the gaps.
struct Tensor {
    sparsight::Index heads = 0, tokens = 0, width = 0, row = 0;
    sparsight::kernels::DType type{};
    std::vector<unsigned char> bytes;

    Tensor(sparsight::Index batch, sparsight::Index headCount, sparsight::Index tokenCount,
           sparsight::Index rowWidth, sparsight::kernels::DType t)
        : heads(headCount),
          tokens(tokenCount),
          width(rowWidth),
          row(rowWidth + 3),
          type(t),
          bytes(std::size_t(batch * headCount * (tokenCount * row + 5) *
                            sparsight::kernels::bytesOf(t)),
                0xff) {}

    sparsight::Index at(sparsight::Index b, sparsight::Index h, sparsight::Index n,
                        sparsight::Index c) const {
        return (b * heads + h) * (tokens * row + 5) + n * row + c;
    }
    void set(sparsight::Index b, sparsight::Index h, sparsight::Index n, sparsight::Index c,
             float value) {
        sparsight::kernels::storeFloat(bytes.data(), type, at(b, h, n, c), value);
    }
    sparsight::kernels::TensorView view() const {
        return {bytes.data(), type, heads * (tokens * row + 5), tokens * row + 5, row};
    }
};

/// Normal random q, k, v of a case, rounded to its type.
struct Layer {
    sparsight::kernels::Problem problem;
    Tensor q, k, v;
    std::vector<float> sinks, bias;

    Layer(const LayerCase& c, unsigned seed)
        : q(c.batch, c.Hq, c.Nq, c.d, c.type),
          k(c.batch, c.Hkv, c.Nk, c.d, c.type),
          v(c.batch, c.Hkv, c.Nk, c.dv, c.type) {
        using sparsight::Index;
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        const auto fill = [&](Tensor& x, float gain) {
            for (Index b = 0; b < c.batch; ++b)
                for (Index h = 0; h < x.heads; ++h)
                    for (Index n = 0; n < x.tokens; ++n)
                        for (Index i = 0; i < x.width; ++i)
                            x.set(b, h, n, i, gain * normal(random));
        };
        fill(q, c.gain);
        fill(k, 1);
        fill(v, 1);
        auto& p = problem;
        p.batch = c.batch;
        p.Hq = c.Hq;
        p.Hkv = c.Hkv;
        p.Nq = c.Nq;
        p.Nk = c.Nk;
        p.d = c.d;
        p.dv = c.dv;
        p.scale = 1 / std::sqrt(float(c.d));
        p.causal = c.causal;
        p.window = c.window;
        p.softcap = c.softcap;
        if (c.sinks) {
            for (Index h = 0; h < c.Hq; ++h) sinks.push_back(normal(random));
            p.sinks = sinks.data();
        }
        if (c.bias) {
            for (Index i = 0; i < c.Hq * (c.Nq + c.Nk - 1); ++i) bias.push_back(normal(random));
            p.relBias = bias.data();
        }
    }
    Layer(const Layer&) = delete;
    Layer& operator=(const Layer&) = delete;
};

/// An output buffer between guard words, filled with a NaN pattern.
class Guarded {
public:
    static constexpr std::size_t kGuard = 256;
    Guarded(sparsight::Index elements, sparsight::kernels::DType type)
        : m_type(type),
          m_bytes(2 * kGuard + std::size_t(elements * sparsight::kernels::bytesOf(type)), 0xff) {
        std::fill(m_bytes.begin(), m_bytes.begin() + kGuard, 0xa5);
        std::fill(m_bytes.end() - kGuard, m_bytes.end(), 0xa5);
    }
    explicit Guarded(sparsight::Index floats) : Guarded(floats, sparsight::kernels::DType::F32) {}

    void* data() { return m_bytes.data() + kGuard; }
    float* floats() { return reinterpret_cast<float*>(data()); }
    sparsight::Index size() const {
        return sparsight::Index(m_bytes.size() - 2 * kGuard) / sparsight::kernels::bytesOf(m_type);
    }
    float operator[](sparsight::Index i) const {
        return sparsight::kernels::loadFloat(m_bytes.data() + kGuard, m_type, i);
    }
    /// Nothing wrote element i.
    bool untouched(sparsight::Index i) const {
        const auto width = std::size_t(sparsight::kernels::bytesOf(m_type));
        const unsigned char* p = m_bytes.data() + kGuard + std::size_t(i) * width;
        return std::all_of(p, p + width, [](unsigned char b) { return b == 0xff; });
    }
    bool written() const {
        for (sparsight::Index i = 0; i < size(); ++i)
            if (untouched(i)) return false;
        return true;
    }
    bool intact() const {
        const auto guard = [](unsigned char b) { return b == 0xa5; };
        return std::all_of(m_bytes.begin(), m_bytes.begin() + kGuard, guard) &&
               std::all_of(m_bytes.end() - kGuard, m_bytes.end(), guard);
    }
    std::vector<float> values() const {
        std::vector<float> out;
        for (sparsight::Index i = 0; i < size(); ++i) out.push_back((*this)[i]);
        return out;
    }
    bool sameBits(const Guarded& o) const { return m_bytes == o.m_bytes; }

private:
    sparsight::kernels::DType m_type;
    std::vector<unsigned char> m_bytes;
};
