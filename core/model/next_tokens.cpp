#include "core/model/next_tokens.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/model/encoder_config.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

constexpr Index kRowsAtOnce = 32;  ///< of 128k tokens each: 16 MiB, and a stop is soon heard

bool saysTokens(const ModelConfig& config) {
    if (!config.encoder) return true;
    switch (config.encoder->head) {
        case EncoderHead::BertMaskedLm:
        case EncoderHead::RobertaMaskedLm:
        case EncoderHead::LanguageModel:
            return true;
        default:
            return false;
    }
}

}  // namespace

std::vector<TokenGuess> largestProbabilities(std::span<const float> logits, Index k) {
    if (logits.empty()) return {};
    const double top = double(*std::max_element(logits.begin(), logits.end()));
    double sum = 0;
    for (const float x : logits) sum += std::exp(double(x) - top);
    std::vector<std::int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    const auto end = order.begin() + std::min(k, Index(order.size()));
    std::partial_sort(order.begin(), end, order.end(), [&](std::int32_t a, std::int32_t b) {
        const float x = logits[std::size_t(a)], y = logits[std::size_t(b)];
        return x != y ? x > y : a < b;
    });
    std::vector<TokenGuess> best;
    for (auto it = order.begin(); it != end; ++it)
        best.push_back({*it, std::exp(double(logits[std::size_t(*it)]) - top) / sum});
    return best;
}

std::vector<std::vector<TokenGuess>> nextTokens(ModelRunner& model, const ModelInput& input,
                                                const AttentionFn& attention, Index k,
                                                const Job& job) {
    const ModelConfig& config = model.config();
    if (!saysTokens(config))
        throw Error(Errc::Unsupported, "Model '" + config.name + "' (" + config.arch +
                                           ") says nothing about tokens: it has no output of "
                                           "probabilities over a vocabulary.");
    const OutputShape shape = outputShape(config, inputSize(config, input));
    model.pass(input, attention, job.part(0, 0.7));
    std::vector<std::vector<TokenGuess>> rows;
    std::vector<float> values(std::size_t(std::min(kRowsAtOnce, shape.rows) * shape.width));
    for (Index r = 0; r < shape.rows; r += kRowsAtOnce) {
        job.step(0.7 + 0.3 * double(r) / double(shape.rows), "output matrix");
        const Index n = std::min(kRowsAtOnce, shape.rows - r);
        model.logits(r, r + n, values.data());
        for (Index i = 0; i < n; ++i)
            rows.push_back(largestProbabilities(
                std::span(values).subspan(std::size_t(i * shape.width), std::size_t(shape.width)),
                k));
    }
    return rows;
}

bool fillsPlaces(const ModelConfig& config) {
    return config.encoder && (config.encoder->head == EncoderHead::BertMaskedLm ||
                              config.encoder->head == EncoderHead::RobertaMaskedLm);
}

}  // namespace sparsight
