#include "core/torch/experts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/torch/ops.h"

namespace sparsight {
namespace {

/// Indices of the k largest of x[0 .. n), best first; the lower index wins a tie.
void largest(const float* x, Index n, Index k, std::vector<Index>& order) {
    order.resize(std::size_t(n));
    std::iota(order.begin(), order.end(), Index(0));
    std::partial_sort(order.begin(), order.begin() + k, order.end(),
                      [x](Index a, Index b) { return x[a] > x[b] || (x[a] == x[b] && a < b); });
    order.resize(std::size_t(k));
}

void softmax(float* x, Index n) {
    const float most = *std::max_element(x, x + n);
    double sum = 0;
    for (Index i = 0; i < n; ++i) sum += double(x[i] = std::exp(x[i] - most));
    for (Index i = 0; i < n; ++i) x[i] = float(double(x[i]) / sum);
}

/// Leaves only the experts of the best groups: the others become `excluded`.
/// A group's score is the sum of its `best` largest values.
void keepGroups(const ExpertsConfig& e, Index best, float excluded, float* x) {
    const Index size = e.count / e.groups;
    std::vector<float> score(std::size_t(e.groups));
    std::vector<Index> order;
    for (Index g = 0; g < e.groups; ++g) {
        largest(x + g * size, size, best, order);
        for (const Index i : order) score[std::size_t(g)] += x[g * size + i];
    }
    largest(score.data(), e.groups, e.groupsKept, order);
    for (Index g = 0; g < e.groups; ++g)
        if (std::find(order.begin(), order.end(), g) == order.end())
            std::fill_n(x + g * size, size, excluded);
}

/// gpt_oss: h = (up + 1) gate sigma(slope gate), gate <= limit, |up| <= limit.
void clampedGate(const ExpertsConfig& e, float* gate, const float* up, Index count) {
    const float limit = float(e.clamp), slope = float(e.sigmoidSlope);
    for (Index i = 0; i < count; ++i) {
        const float g = std::min(gate[i], limit), u = std::clamp(up[i], -limit, limit);
        gate[i] = (u + 1) * (g / (1 + std::exp(-slope * g)));
    }
}

void multiply(float* x, const float* y, Index count) {
    for (Index i = 0; i < count; ++i) x[i] *= y[i];
}

}  // namespace

void mlpOnto(const MlpWeights& w, const float* x, Index rows, const std::string& activation,
             float* sum, const Job& job) {
    const Index width = w.up.w.rows;
    std::vector<float> up(std::size_t(rows * width)), gate(w.gate.given() ? up.size() : 0);
    project(up.data(), x, rows, w.up);
    job.check();
    if (w.gate.given()) {
        project(gate.data(), x, rows, w.gate);
        job.check();
        activate(gate.data(), rows * width, activation);
        multiply(gate.data(), up.data(), rows * width);
    } else {
        activate(up.data(), rows * width, activation);
    }
    projectOnto(sum, w.gate.given() ? gate.data() : up.data(), rows, w.down);
}

Routing route(const ExpertsConfig& e, float* logits, Index rows, const float* correction) {
    Routing r;
    r.expert.resize(std::size_t(rows * e.perToken));
    r.weight.resize(r.expert.size());
    std::vector<Index> order;
    std::vector<float> choice;
    for (Index i = 0; i < rows; ++i) {
        float* x = logits + i * e.count;
        Index* expert = r.expert.data() + i * e.perToken;
        float* weight = r.weight.data() + i * e.perToken;
        const float* by = x;  // what the choice goes by
        if (e.router == Router::SoftmaxTop) {
            softmax(x, e.count);
            if (e.groups > 0) keepGroups(e, 1, 0.0f, x);
        } else if (e.router == Router::SigmoidBias) {
            choice.resize(std::size_t(e.count));
            for (Index k = 0; k < e.count; ++k) {
                x[k] = 1 / (1 + std::exp(-x[k]));
                choice[std::size_t(k)] = x[k] + correction[k];
            }
            keepGroups(e, 2, -std::numeric_limits<float>::infinity(), choice.data());
            by = choice.data();
        }
        largest(by, e.count, e.perToken, order);
        for (Index k = 0; k < e.perToken; ++k) {
            expert[k] = order[std::size_t(k)];
            weight[k] = x[expert[k]];
        }
        if (e.router == Router::TopSoftmax) softmax(weight, e.perToken);
        if (e.renormalise) {
            float total = e.router == Router::SigmoidBias ? 1e-20f : 0.0f;
            for (Index k = 0; k < e.perToken; ++k) total += weight[k];
            for (Index k = 0; k < e.perToken; ++k) weight[k] /= total;
        }
        for (Index k = 0; k < e.perToken; ++k) weight[k] *= float(e.scaling);
    }
    return r;
}

void runExperts(const ModelConfig& c, const LayerWeights& w, const float* x, Index rows,
                Index chunk, const std::function<MlpWeights(Index)>& expert, float* sum,
                const Job& job) {
    const ExpertsConfig& e = c.experts;
    const Index H = c.hidden;
    std::vector<float> logits(std::size_t(rows * e.count));
    project(logits.data(), x, rows, w.router);
    const Routing routing = route(e, logits.data(), rows, w.correction.data);

    std::vector<std::vector<Index>> places(std::size_t(e.count));  // into routing, by expert
    for (std::size_t p = 0; p < routing.expert.size(); ++p)
        places[std::size_t(routing.expert[p])].push_back(Index(p));
    std::vector<float> in, out, gate, up;
    for (Index k = 0; k < e.count; ++k) {
        const std::vector<Index>& mine = places[std::size_t(k)];
        if (mine.empty()) continue;
        const MlpWeights m = expert(k);
        for (std::size_t first = 0; first < mine.size(); first += std::size_t(chunk)) {
            job.check();
            const Index n = std::min(chunk, Index(mine.size() - first));
            in.resize(std::size_t(n * H));
            out.assign(std::size_t(n * H), 0.0f);
            for (Index i = 0; i < n; ++i)
                std::copy_n(x + mine[first + std::size_t(i)] / e.perToken * H, H,
                            in.data() + i * H);
            if (e.clamp > 0) {
                gate.resize(std::size_t(n * e.intermediate));
                up.resize(gate.size());
                project(gate.data(), in.data(), n, m.gate);
                project(up.data(), in.data(), n, m.up);
                clampedGate(e, gate.data(), up.data(), n * e.intermediate);
                project(out.data(), gate.data(), n, m.down);
            } else {
                mlpOnto(m, in.data(), n, c.activation, out.data(), job);
            }
            for (Index i = 0; i < n; ++i) {
                const Index place = mine[first + std::size_t(i)];
                const float weight = routing.weight[std::size_t(place)];
                float* to = sum + place / e.perToken * H;
                for (Index j = 0; j < H; ++j) to[j] += weight * out[std::size_t(i * H + j)];
            }
        }
    }
    if (!w.mlp.down.given()) return;
    for (Index r = 0; r < rows; r += chunk)
        mlpOnto(w.mlp, x + r * H, std::min(chunk, rows - r), c.activation, sum + r * H, job);
}

}  // namespace sparsight
