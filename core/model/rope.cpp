#include "core/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/base/error.h"

namespace sparsight {
namespace {

/// base^(2k/dim), k = 0 .. pairs of dim - 1. The exponent is rounded to float first, as the
/// reference does.
std::vector<float> powers(double base, Index dim) {
    std::vector<float> out(std::size_t(ropePairs(dim)));
    for (std::size_t k = 0; k < out.size(); ++k) {
        const float exponent = float(2 * k) / float(dim);
        out[k] = float(std::pow(double(float(base)), double(exponent)));
    }
    return out;
}

std::vector<float> plain(double base, Index dim) {
    std::vector<float> f = powers(base, dim);
    for (float& x : f) x = 1.0f / x;
    return f;
}

std::vector<float> llama3(const RopeConfig& r, Index dim) {
    std::vector<float> f = plain(r.theta, dim);
    const double lowWave = r.originalMaxPositions / r.lowFreqFactor;
    const double highWave = r.originalMaxPositions / r.highFreqFactor;
    const float factor = float(r.factor);
    for (float& x : f) {
        const float wave = float(2 * std::numbers::pi) / x;
        if (double(wave) > lowWave) {
            x = x / factor;
        } else if (double(wave) >= highWave) {
            const float smooth = (float(r.originalMaxPositions) / wave - float(r.lowFreqFactor)) /
                                 float(r.highFreqFactor - r.lowFreqFactor);
            x = (1.0f - smooth) * x / factor + smooth * x;
        }
    }
    return f;
}

double yarnScale(double factor, double mscale) {
    return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

RopeTable yarn(const RopeConfig& r, Index dim, double factor, double original) {
    // The pair that makes `turns` full turns over the original context.
    const auto pairOf = [&](double turns) {
        return double(dim) * std::log(original / (turns * 2 * std::numbers::pi)) /
               (2 * std::log(r.theta));
    };
    double low = pairOf(r.betaFast), high = pairOf(r.betaSlow);
    if (r.truncate) {
        low = std::floor(low);
        high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, double(dim - 1));
    if (low == high) high += 0.001;

    RopeTable t;
    t.inverseFrequency = powers(r.theta, dim);
    for (std::size_t k = 0; k < t.inverseFrequency.size(); ++k) {
        const float p = t.inverseFrequency[k];
        const float ramp = std::clamp((float(k) - float(low)) / float(high - low), 0.0f, 1.0f);
        const float keep = 1.0f - ramp;  // share of the unscaled frequency
        t.inverseFrequency[k] = 1.0f / (float(factor) * p) * (1.0f - keep) + 1.0f / p * keep;
    }
    if (r.attentionFactor > 0)
        t.attentionFactor = float(r.attentionFactor);
    else if (r.mscale != 0 && r.mscaleAllDim != 0)
        t.attentionFactor = float(yarnScale(factor, r.mscale) / yarnScale(factor, r.mscaleAllDim));
    else
        t.attentionFactor = float(yarnScale(factor, 1.0));
    return t;
}

RopeTable longrope(const RopeConfig& r, Index dim, double factor, double original, Index length) {
    const std::vector<double>& ext = double(length) > original ? r.longFactor : r.shortFactor;
    if (Index(ext.size()) != ropePairs(dim))
        throw Error(Errc::Format, "rope of kind longrope: " + std::to_string(ext.size()) +
                                      " factors given, the head has " +
                                      std::to_string(ropePairs(dim)) + " pairs");
    RopeTable t;
    t.inverseFrequency = powers(r.theta, dim);
    for (std::size_t k = 0; k < ext.size(); ++k)
        t.inverseFrequency[k] = 1.0f / (float(ext[k]) * t.inverseFrequency[k]);
    if (r.attentionFactor > 0)
        t.attentionFactor = float(r.attentionFactor);
    else if (factor > 1)
        t.attentionFactor = float(std::sqrt(1.0 + std::log(factor) / std::log(original)));
    return t;
}

}  // namespace

bool ropeDependsOnLength(const RopeConfig& rope) {
    return rope.kind == "dynamic" || rope.kind == "longrope";
}

RopeTable ropeTable(const RopeConfig& r, Index headDim, Index length) {
    const Index dim = Index(double(headDim) * r.partial);
    const double original = r.originalMaxPositions > 0 ? r.originalMaxPositions : r.maxPositions;
    const double factor = r.factor > 0 ? r.factor : r.maxPositions / original;
    if (r.kind == "none") return {};
    if (r.kind == "default") return {plain(r.theta, dim), 1.0f};
    if (r.kind == "linear") {
        RopeTable t{plain(r.theta, dim), 1.0f};
        for (float& x : t.inverseFrequency) x /= float(factor);
        return t;
    }
    if (r.kind == "dynamic") {
        const double n = std::max(double(length), r.maxPositions);
        const double stretch = factor * n / r.maxPositions - (factor - 1);
        return {plain(r.theta * std::pow(stretch, double(dim) / double(dim - 2)), dim), 1.0f};
    }
    if (r.kind == "llama3") return {llama3(r, dim), 1.0f};
    if (r.kind == "yarn") return yarn(r, dim, factor, original);
    if (r.kind == "longrope") return longrope(r, dim, factor, original, length);
    throw Error(Errc::Unsupported, "rope of kind \"" + r.kind +
                                       "\" is not supported (supported: "
                                       "default, linear, dynamic, llama3, yarn, longrope)");
}

}  // namespace sparsight
