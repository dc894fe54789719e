#include "app/bench/inputs.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace sparsight::bench {

using namespace kernels;

std::vector<unsigned char> randomTensor(Index count, DType type, unsigned seed) {
    std::vector<unsigned char> bytes(std::size_t(count * bytesOf(type)));
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (Index i = 0; i < count; ++i) storeFloat(bytes.data(), type, i, normal(random));
    return bytes;
}

Problem problemOf(const Shape& s) {
    Problem p;
    p.Hq = s.heads;
    p.Hkv = s.kvHeads;
    p.Nq = s.nq;
    p.Nk = s.nk;
    p.d = p.dv = s.d;
    p.scale = 1 / std::sqrt(float(s.d));
    p.causal = s.causal;
    return p;
}

Layer::Layer(const Shape& s, unsigned seed) : problem(problemOf(s)) {
    qData = randomTensor(s.heads * s.nq * s.d, s.type, seed);
    kData = randomTensor(s.kvHeads * s.nk * s.d, s.type, seed + 1);
    vData = randomTensor(s.kvHeads * s.nk * s.d, s.type, seed + 2);
    oData.resize(qData.size());
    lse.resize(std::size_t(s.heads * s.nq));
    q = {qData.data(), s.type, 0, s.nq * s.d, s.d};
    k = {kData.data(), s.type, 0, s.nk * s.d, s.d};
    v = {vData.data(), s.type, 0, s.nk * s.d, s.d};
    o = {oData.data(), s.type, 0, s.nq * s.d, s.d};
}

double distance(const float* a, const float* b, Index count) {
    double error = 0, norm = 0;
    for (Index i = 0; i < count; ++i) {
        const double x = double(a[i]), y = double(b[i]);
        error += (x - y) * (x - y);
        norm += y * y;
    }
    return norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
}

double timed(const std::function<void()>& run) {
    const auto start = std::chrono::steady_clock::now();
    run();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
}

Policies everyHead(Policy policy) {
    return [policy = std::move(policy)](const Problem&) { return std::vector<Policy>{policy}; };
}

namespace {

template <class Make>
Policies oneOrEach(bool perHead, unsigned seed, const Make& make) {
    return [=](const Problem& p) {
        std::vector<Policy> all;
        for (Index h = 0; h < (perHead ? p.Hq : 1); ++h) {
            std::mt19937 random(seed + unsigned(h));
            all.push_back(make(p, random));
        }
        return all;
    };
}

}  // namespace

Policies randomBlocks(Index block, double density, bool perHead) {
    return oneOrEach(perHead, 7, [=](const Problem& p, std::mt19937& random) {
        BlockList list;
        list.block = block;
        list.rowPtr.push_back(0);
        const Index rows = (p.Nq + block - 1) / block;
        for (Index r = 0; r < rows; ++r) {
            const Index valid =
                (std::min(p.visibleEnd(std::min(p.Nq, (r + 1) * block) - 1), p.Nk) + block - 1) /
                block;
            std::vector<std::int32_t> all;
            for (Index c = 0; c + 1 < valid; ++c) all.push_back(std::int32_t(c));
            std::shuffle(all.begin(), all.end(), random);
            const auto keep = std::size_t(std::llround(density * double(valid)));
            all.resize(std::min(all.size(), keep > 0 ? keep - 1 : 0));
            all.push_back(std::int32_t(valid - 1));
            std::sort(all.begin(), all.end());
            list.col.insert(list.col.end(), all.begin(), all.end());
            list.rowPtr.push_back(std::int32_t(list.col.size()));
        }
        return list;
    });
}

Policies randomVerticalSlash(Index columns, Index slashes, bool perHead) {
    return oneOrEach(perHead, 8, [=](const Problem& p, std::mt19937& random) {
        const auto pick = [&](Index count, Index from, std::vector<std::int32_t>& to) {
            std::vector<std::int32_t> all;
            for (Index i = from; i < p.Nk; ++i) all.push_back(std::int32_t(i));
            std::shuffle(all.begin(), all.end(), random);
            to.insert(to.end(), all.begin(),
                      all.begin() + std::min<Index>(count, Index(all.size())));
            std::sort(to.begin(), to.end());
        };
        VerticalSlash vs;
        pick(columns, 0, vs.cols);
        for (Index s = 0; s < slashes / 2; ++s) vs.diags.push_back(std::int32_t(s));
        pick(slashes - slashes / 2, slashes / 2, vs.diags);
        return vs;
    });
}

double densityOf(const Plan& plan) {
    double sum = 0;
    const auto heads = Index(plan.stats.tiles.size());
    for (Index h = 0; h < heads; ++h) sum += plan.stats.density(h);
    return sum / double(heads);
}

void forward(Backend& backend, Planned& x) {
    backend.forward(x.layer.problem, x.layer.q, x.layer.k, x.layer.v, x.plan, x.layer.o,
                    x.layer.lse.data());
}

double forwardError(Backend& backend, Shape s, const Policies& policies, PlanMode mode) {
    const Index group = s.heads / s.kvHeads;
    s.kvHeads = std::min<Index>(s.kvHeads, 2);
    s.heads = s.kvHeads * group;
    const bool square = s.nq == s.nk;
    s.nk = std::min(s.nk, kCheckedTokens);
    s.nq = square ? s.nk : std::min(s.nq, s.nk);
    Planned ours(s, policies, mode), theirs(s, policies, mode);
    forward(backend, ours);
    const auto reference = makeReference();
    forward(*reference, theirs);
    const auto floats = [&](const Layer& l, Index h) {
        std::vector<float> x(std::size_t(s.nq * s.d));
        for (std::size_t i = 0; i < x.size(); ++i)
            x[i] = loadFloat(l.oData.data(), s.type, h * s.nq * s.d + Index(i));
        return x;
    };
    double worst = 0;
    for (Index h = 0; h < s.heads; ++h)
        worst = std::max(worst, distance(floats(ours.layer, h).data(),
                                         floats(theirs.layer, h).data(), s.nq * s.d));
    return worst;
}

double errorLimitOf(DType type, bool gpu) {
    if (type == DType::F32) return gpu ? 2e-5 : 5e-6;
    return type == DType::F16 ? 2e-3 : 8e-3;
}

Captured::Captured(const Problem& p, bool keyPass, bool topK) {
    const auto rows = std::size_t(p.Hq * p.Nq);
    const auto blocks = std::size_t(p.Hq * ((p.Nq + spec.block - 1) / spec.block) *
                                    ((p.Nk + spec.block - 1) / spec.block));
    const auto get = [](std::vector<float>& x, std::size_t n) {
        x.resize(n);
        return x.data();
    };
    out.lse = get(lse, rows);
    out.rowMax = get(rowMax, rows);
    out.entropy = get(entropy, rows);
    out.meanDistance = get(distance, rows);
    out.sinkMass = get(sink, rows);
    out.localMass = get(local, rows);
    if (topK) {
        topKeys.resize(rows * std::size_t(spec.topK));
        out.topKey = topKeys.data();
        out.topP = get(top, rows * std::size_t(spec.topK));
    }
    if (!keyPass) return;
    out.blockSum = get(sum, blocks);
    out.blockMax = get(max, blocks);
    out.colMass = get(columns, std::size_t(p.Hq * p.Nk));
    out.diagMass = get(diagonals, std::size_t(p.Hq * (p.causal ? p.Nk : p.Nq + p.Nk - 1)));
}

double captureError(Backend& backend, Shape s, bool keyPass, bool topK) {
    s.heads = s.kvHeads = 1;
    s.nq = s.nk = kCheckedTokens;
    Layer layer(s);
    Captured ours(layer.problem, keyPass, topK), theirs(layer.problem, keyPass, topK);
    backend.capture(layer.problem, layer.q, layer.k, ours.spec, ours.out);
    makeReference()->capture(layer.problem, layer.q, layer.k, theirs.spec, theirs.out);
    double worst = 0;
    const auto compare = [&](const std::vector<float>& a, const std::vector<float>& b) {
        if (!a.empty()) worst = std::max(worst, distance(a.data(), b.data(), Index(a.size())));
    };
    compare(ours.lse, theirs.lse);
    compare(ours.entropy, theirs.entropy);
    compare(ours.distance, theirs.distance);
    compare(ours.sink, theirs.sink);
    compare(ours.local, theirs.local);
    compare(ours.sum, theirs.sum);
    compare(ours.max, theirs.max);
    compare(ours.columns, theirs.columns);
    compare(ours.diagonals, theirs.diagonals);
    compare(ours.top, theirs.top);
    // Keys whose P are equal in float32 may be told apart in float64; more is an error.
    std::size_t others = 0;
    for (std::size_t i = 0; i < ours.topKeys.size(); ++i)
        others += ours.topKeys[i] != theirs.topKeys[i] &&
                  std::abs(ours.top[i] - theirs.top[i]) > 1e-5f * theirs.top[i];
    return others > 0 ? 1 : worst;
}

double productFlops(const Shape& s, double pairs) {
    return 4.0 * double(s.heads) * pairs * double(s.d);
}
double pairsOf(const Shape& s) {
    Problem p;
    p.Nq = s.nq;
    p.Nk = s.nk;
    p.causal = s.causal;
    return double(validPairs(p));
}

}  // namespace sparsight::bench
