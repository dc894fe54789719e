#include <algorithm>
#include <chrono>
#include <cmath>

#include "app/bench/inputs.h"

namespace sparsight::bench {
namespace {

double quantile(std::vector<double> values, double p) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const double at = p * double(values.size() - 1);
    const auto low = std::size_t(at);
    const double high = values[std::min(low + 1, values.size() - 1)];
    return values[low] + (high - values[low]) * (at - double(low));
}

Timing summary(std::vector<double> all) {
    return {quantile(all, 0.5), quantile(all, 0.1), quantile(all, 0.9), std::move(all)};
}

}  // namespace

std::string toString(const Shape& s) {
    return std::to_string(s.heads) + "/" + std::to_string(s.kvHeads) + " heads, " +
           (s.nq == s.nk ? "n=" + std::to_string(s.nk)
                         : std::to_string(s.nq) + "x" + std::to_string(s.nk)) +
           ", d=" + std::to_string(s.d) + (s.causal ? ", causal" : ", full") +
           (s.type == kernels::DType::F32 ? "" : std::string(", ") + kernels::nameOf(s.type));
}

Result measure(const Operation& operation, int rounds, double seconds,
               const std::function<double()>& peak) {
    Result result;
    result.operation = &operation;
    if (operation.error) result.error = operation.error();
    const auto once = [&] {
        return operation.milliseconds ? operation.milliseconds() : timed(operation.run);
    };
    once();
    // A rival that cannot do it says NaN and is not asked again.
    std::vector<bool> runs;
    for (const Rival& rival : operation.rivals) runs.push_back(!std::isnan(rival.milliseconds()));
    std::vector<double> ours, peaks;
    std::vector<std::vector<double>> theirs(operation.rivals.size()), ratios(theirs.size());
    const auto start = std::chrono::steady_clock::now();
    for (int round = 0; round < rounds; ++round) {
        const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
        if (round >= 3 && spent.count() > seconds) break;
        // Every second round runs backwards: whoever comes after a slow neighbour changes.
        const auto rivalsTurn = [&] {
            for (std::size_t i = 0; i < theirs.size(); ++i)
                if (runs[i]) theirs[i].push_back(operation.rivals[i].milliseconds());
        };
        if (round % 2) rivalsTurn();
        ours.push_back(once());
        peaks.push_back(peak());
        if (round % 2 == 0) rivalsTurn();
        for (std::size_t i = 0; i < theirs.size(); ++i) {
            if (!runs[i]) continue;
            const Rival& rival = operation.rivals[i];
            ratios[i].push_back(rival.kind == Rival::Peer
                                    ? theirs[i].back() / ours.back()
                                    : ours.back() / (rival.share * theirs[i].back()));
        }
    }
    result.ours = summary(std::move(ours));
    result.peak = quantile(std::move(peaks), 0.5);
    for (auto& t : theirs) result.rivals.push_back(summary(std::move(t)));
    for (auto& r : ratios) result.ratios.push_back(quantile(std::move(r), 0.5));
    return result;
}

}  // namespace sparsight::bench
