#include "core/plan/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace sparsight {
namespace {

using Clock = std::chrono::steady_clock;

double secondsSince(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The lowest index of the largest value.
std::int32_t argmax(std::span<const float> logits) {
    return std::int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// Text that can be shown: an unfinished UTF-8 sequence at the end decodes as U+FFFD.
std::string_view finished(std::string_view text) {
    constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
    while (text.ends_with(kReplacement)) text.remove_suffix(kReplacement.size());
    return text;
}

/// The outcome of one pass, row by row, while another pass runs: hidden states where the runner
/// gives them, else the logits themselves.
class PassRows {
public:
    explicit PassRows(ModelRunner& model) : m_model(model), m_vocab(model.config().vocab) {}

    /// Keeps the first `rows` rows of the forward that has just run.
    void keep(Index rows) {
        const std::vector<float> hidden = m_model.hiddenStates(0, rows);
        if (!hidden.empty()) {
            m_width = Index(hidden.size()) / rows;
            m_hidden = true;
            m_data.insert(m_data.end(), hidden.begin(), hidden.end());
            return;
        }
        m_width = m_vocab;
        const std::size_t old = m_data.size();
        m_data.resize(old + std::size_t(rows * m_vocab));
        m_model.logits(0, rows, m_data.data() + old);
    }
    /// @param out  [row1 - row0][vocab]
    void logits(Index row0, Index row1, float* out) {
        const std::span<const float> part(m_data.data() + row0 * m_width,
                                          std::size_t((row1 - row0) * m_width));
        if (m_hidden)
            m_model.logitsOf(part, out);
        else
            std::copy(part.begin(), part.end(), out);
    }

private:
    ModelRunner& m_model;
    Index m_vocab, m_width = 0;
    bool m_hidden = false;
    std::vector<float> m_data;
};

/// Prefills the first `prefill` tokens, then feeds the others one by one.
/// @return seconds
double runPass(ModelRunner& model, std::span<const std::int32_t> ids, Index prefill,
               const AttentionFn& attention, PassRows& rows, const Job& job) {
    const auto start = Clock::now();
    const Index n = Index(ids.size());
    KvCache cache(model.config(), n);
    const double share = double(prefill) / double(n);
    if (prefill > 0) {
        model.forward(ids.first(std::size_t(prefill)), cache, attention, job.part(0, share));
        rows.keep(prefill);
    }
    for (Index t = prefill; t < n; ++t) {
        job.step(double(t) / double(n), "decode steps");
        model.forward(ids.subspan(std::size_t(t), 1), cache, attention,
                      Job({}, [&] { return job.stopAsked(); }));
        rows.keep(1);
    }
    return secondsSince(start);
}

struct Row {
    double logSum = 0;  ///< ln sum exp(logits)
    std::int32_t top = 0;
};

Row summarise(std::span<const float> logits) {
    Row row;
    row.top = argmax(logits);
    const double most = double(logits[std::size_t(row.top)]);
    double sum = 0;
    for (const float x : logits) sum += std::exp(double(x) - most);
    row.logSum = most + std::log(sum);
    return row;
}

double divergence(std::span<const float> p, const Row& pRow, std::span<const float> q,
                  const Row& qRow) {
    double kl = 0;
    for (std::size_t v = 0; v < p.size(); ++v) {
        const double logP = double(p[v]) - pRow.logSum;
        kl += std::exp(logP) * (logP - (double(q[v]) - qRow.logSum));
    }
    return std::max(kl, 0.0);  // rounding alone can make it negative
}

/// Linear interpolation between order statistics, as numpy does.
double percentile(std::vector<double> values, double share) {
    std::sort(values.begin(), values.end());
    const double at = share * double(values.size() - 1);
    const auto low = std::size_t(at);
    const double high = values[std::min(low + 1, values.size() - 1)];
    return values[low] + (high - values[low]) * (at - double(low));
}

}  // namespace

GenerateResult generate(ModelRunner& model, kernels::Backend& backend, const Tokenizer& tokenizer,
                        std::span<const std::int32_t> prompt, Index maxNew,
                        const AttentionPlan* plan,
                        const std::function<void(const std::string&)>& onText, const Job& job) {
    if (prompt.empty()) throw Error(Errc::Usage, "the prompt is empty; give at least one token");
    const ModelConfig& config = model.config();
    const bool encodes = !config.stacks.empty();  // the prompt is the encoder's then
    if (plan && encodes) requireDecoderOnly(config, "a plan");
    if (plan) checkFits(*plan, config);
    PlanUse use;
    // Cancel reaches the kernels, progress is told here: a layer's own 0..1 would jump about.
    const Job quiet({}, [&job] { return job.stopAsked(); });
    const AttentionFn attention =
        plan ? plannedAttention(*plan, backend, &use, quiet) : denseAttention(backend, quiet);
    GenerateResult result;
    const Index total = (encodes ? 1 : Index(prompt.size())) + std::max<Index>(maxNew, 0);
    if (config.maxPositions > 0 && total > config.maxPositions)
        result.notes.push_back(
            fmt::format("{} tokens go beyond the {} positions that the model "
                        "was made for",
                        total, config.maxPositions));

    KvCache cache(config, total);
    auto start = Clock::now();
    if (encodes) {
        const std::int32_t first = model.encode(prompt, attention, job.part(0, 0.5));
        model.forward(std::span(&first, 1), cache, attention, quiet);
    } else {
        model.forward(prompt, cache, attention, job.part(0, 0.5));
    }
    result.prefillSeconds = secondsSince(start);

    start = Clock::now();
    std::vector<float> logits(std::size_t(config.vocab));
    Index lastRow = encodes ? 0 : Index(prompt.size()) - 1;
    std::size_t shown = 0;
    while (Index(result.ids.size()) < maxNew) {
        model.logits(lastRow, lastRow + 1, logits.data());
        const std::int32_t next = argmax(logits);
        result.ids.push_back(next);
        if (onText) {
            const std::string text = tokenizer.decode(result.ids);
            const std::string_view ready = finished(text);
            if (ready.size() > shown) {
                onText(std::string(ready.substr(shown)));
                shown = ready.size();
            }
        }
        const auto& eos = config.eosTokens;
        if (std::find(eos.begin(), eos.end(), next) != eos.end()) break;
        if (Index(result.ids.size()) == maxNew) break;
        job.step(0.5 + 0.5 * double(result.ids.size()) / double(maxNew), "decoding");
        model.forward(std::span(&next, 1), cache, attention, quiet);
        lastRow = 0;
    }
    result.decodeSeconds = secondsSince(start);
    result.text = tokenizer.decode(result.ids);
    if (onText && result.text.size() > shown) onText(result.text.substr(shown));
    result.notes.insert(result.notes.end(), use.notes.begin(), use.notes.end());
    for (std::string& note : model.notes()) result.notes.push_back(std::move(note));
    return result;
}

EvalResult evaluatePlan(ModelRunner& model, kernels::Backend& backend,
                        std::span<const std::int32_t> ids, const std::optional<NeedleTruth>& needle,
                        const AttentionPlan& plan, const Job& job) {
    const ModelConfig& config = model.config();
    requireDecoderOnly(config, "a plan");
    checkFits(plan, config);
    const Index n = Index(ids.size());
    if (n < 2)
        throw Error(Errc::Usage,
                    fmt::format("a plan is judged on at least 2 tokens; the text has {}", n));
    if (ids.back() < 0 || ids.back() >= config.vocab)  // the only id that no forward pass checks
        throw Error(Errc::Usage, fmt::format("token id {} is outside the vocabulary of {}",
                                             ids.back(), config.vocab));
    const bool asked = needle && needle->answer.size() > 0;
    if (asked && (needle->answer.begin < 1 || needle->answer.end > n))
        throw Error(Errc::Shape, fmt::format("the answer's tokens {}..{} are not within the {} "
                                             "tokens of the prompt",
                                             needle->answer.begin, needle->answer.end, n));
    // The last row predicts nothing that is known. The row before an answer token predicts it.
    const Index rows = n - 1;
    const Index prefill = asked ? needle->answer.begin - 1 : rows;
    const auto input = ids.first(std::size_t(rows));

    EvalResult result;
    result.tokens = n;
    const Job quiet({}, [&job] { return job.stopAsked(); });
    PassRows dense(model), planned(model);
    result.secondsDense =
        runPass(model, input, prefill, denseAttention(backend, quiet), dense, job.part(0, 0.45));
    PlanUse use;
    result.secondsPlan =
        runPass(model, input, prefill, plannedAttention(plan, backend, &use, quiet), planned,
                job.part(0.45, 0.9));
    result.density = use.density();
    result.notes = use.notes;
    if (config.maxPositions > 0 && n > config.maxPositions)
        result.notes.push_back(
            fmt::format("{} tokens go beyond the {} positions that the model "
                        "was made for",
                        n, config.maxPositions));

    constexpr Index kChunk = 64;
    const auto vocab = std::size_t(config.vocab);
    std::vector<float> p(std::size_t(kChunk) * vocab), q(p.size());
    std::vector<double> kl;
    kl.reserve(std::size_t(rows));
    Index agree = 0;
    bool answersDense = true, answersPlan = true;
    for (Index row0 = 0; row0 < rows; row0 += kChunk) {
        job.step(0.9 + 0.1 * double(row0) / double(rows), "comparing");
        const Index row1 = std::min(row0 + kChunk, rows);
        dense.logits(row0, row1, p.data());
        planned.logits(row0, row1, q.data());
        for (Index row = row0; row < row1; ++row) {
            const std::span<const float> pRow(p.data() + std::size_t(row - row0) * vocab, vocab);
            const std::span<const float> qRow(q.data() + std::size_t(row - row0) * vocab, vocab);
            const Row a = summarise(pRow), b = summarise(qRow);
            const std::int32_t target = ids[std::size_t(row) + 1];
            kl.push_back(divergence(pRow, a, qRow, b));
            agree += a.top == b.top;
            result.nllDense += a.logSum - double(pRow[std::size_t(target)]);
            result.nllPlan += b.logSum - double(qRow[std::size_t(target)]);
            if (asked && needle->answer.contains(row + 1)) {
                answersDense = answersDense && a.top == target;
                answersPlan = answersPlan && b.top == target;
            }
        }
    }
    for (const double value : kl) result.meanKL += value;
    result.meanKL /= double(rows);
    result.p99KL = percentile(kl, 0.99);
    result.maxKL = *std::max_element(kl.begin(), kl.end());
    result.top1Agreement = double(agree) / double(rows);
    for (std::string& note : model.notes()) result.notes.push_back(std::move(note));
    result.nllDense /= double(rows);
    result.nllPlan /= double(rows);
    if (asked) {
        result.needleDense = answersDense;
        result.needlePlan = answersPlan;
    }
    return result;
}

}  // namespace sparsight
