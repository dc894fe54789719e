#include <catch2/catch.hpp>
#include <numeric>

#include "kernels/backend.h"
#include "layer_case.h"

using namespace sparsight;
using namespace sparsight::kernels;

namespace {

const std::vector<LayerCase>& cases() {
    static const std::vector<LayerCase> all = [] {
        std::vector<LayerCase> c;
        const auto add = [&](auto change) {
            LayerCase x;
            change(x);
            c.push_back(x);
        };
        add([](LayerCase& x) { x.Nq = x.Nk = 1; });
        add([](LayerCase& x) { x.Nq = x.Nk = 7, x.d = 7, x.dv = 5; });
        add([](LayerCase& x) { x.Nq = x.Nk = 129, x.d = x.dv = 80, x.Hq = 4, x.Hkv = 1; });
        add([](LayerCase& x) { x.Nq = x.Nk = 300, x.d = x.dv = 96, x.causal = false; });
        add([](LayerCase& x) { x.Nq = x.Nk = 511, x.d = x.dv = 128, x.Hq = x.Hkv = 2; });
        add([](LayerCase& x) { x.Nq = 65, x.Nk = 400, x.Hq = 6, x.Hkv = 2, x.batch = 2; });
        add([](LayerCase& x) { x.Nq = 200, x.Nk = 127; });
        add([](LayerCase& x) { x.Nq = 200, x.Nk = 127, x.causal = false, x.dv = 32; });
        add([](LayerCase& x) { x.Nq = x.Nk = 400, x.window = 100, x.sinks = true, x.Hq = 2; });
        add([](LayerCase& x) { x.Nq = x.Nk = 257, x.softcap = 5, x.gain = 4; });
        add([](LayerCase& x) {
            x.Nq = 130, x.Nk = 200, x.bias = true, x.Hq = x.Hkv = 2, x.causal = false;
        });
        add([](LayerCase& x) {
            x.Nq = 130, x.Nk = 330, x.bias = x.sinks = true, x.softcap = 20, x.window = 64,
            x.Hq = 4, x.Hkv = 2;
        });
        add([](LayerCase& x) { x.Nq = x.Nk = 260, x.gain = 8; });
        add([](LayerCase& x) { x.Nq = x.Nk = 260, x.gain = 1e-30f; });
        add([](LayerCase& x) { x.Nq = x.Nk = 200, x.type = DType::F16, x.Hq = 2; });
        add([](LayerCase& x) { x.Nq = x.Nk = 200, x.type = DType::BF16, x.d = x.dv = 128; });
        add([](LayerCase& x) {
            x.Nq = 33, x.Nk = 190, x.type = DType::BF16, x.d = 256, x.dv = 96;
        });
#ifdef SPARSIGHT_SANITIZED  // slow there: one of each kind
        c = {c[1], c[5], c[8], c[11], c[16]};
#endif
        return c;
    }();
    return all;
}

bool onGpu(const Backend& backend) {
    return backend.id().starts_with("cuda");
}
/// The same for every type on a GPU, where each has kernels of its own.
std::vector<LayerCase> casesFor(const Backend& backend) {
    std::vector<LayerCase> all = cases();
    if (!onGpu(backend)) return all;
    for (const LayerCase& c : cases())
        for (const DType type : {DType::BF16, DType::F16})
            for (const Index wider : {1, 2, 4}) {
                if (c.type == type || c.gain < 1e-3f || c.d * wider > 256) continue;
                LayerCase other = c;
                other.type = type;
                other.d *= wider;
                other.dv = std::min<Index>(256, other.dv * wider);
                all.push_back(other);
            }
    return all;
}

double outputTolerance(DType t, bool gpu) {
    if (t == DType::F32) return gpu ? 2e-5 : 5e-6;
    return t == DType::F16 ? 2e-3 : 8e-3;
}

/// ||a - b|| / ||b||
double distance(const std::vector<float>& a, const std::vector<float>& b) {
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double x = double(a[i]), y = double(b[i]);
        error += (x - y) * (x - y);
        norm += y * y;
    }
    return norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
}

/// Largest |a - b|, relative above `unit`; infinite where one is finite and the other is not.
double worst(const std::vector<float>& a, const std::vector<float>& b, double unit = 8) {
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
        const double e =
            std::abs(double(a[i]) - double(b[i])) / std::max(1.0, std::abs(double(b[i])) / unit);
        if (std::isnan(e)) return std::numeric_limits<double>::infinity();
        most = std::max(most, e);
    }
    return most;
}

struct Output {
    Guarded o, lse;
    Report report;
};

/// O has its rows dv + 3 apart; the gaps must stay as they are.
Output forward(Backend& backend, const Layer& l, const Plan& plan) {
    const Problem& p = l.problem;
    const Index row = p.dv + 3, head = p.Nq * row, heads = p.batch * p.Hq;
    Output out{{heads * head, l.q.type}, Guarded(heads * p.Nq), {}};
    out.report =
        backend.forward(p, l.q.view(), l.k.view(), l.v.view(), plan,
                        {out.o.data(), l.q.type, p.Hq * head, head, row}, out.lse.floats());
    bool all = true, gaps = true;
    for (Index i = 0; i < heads * p.Nq; ++i) {
        for (Index c = 0; c < p.dv; ++c) all = all && !out.o.untouched(i * row + c);
        for (Index c = p.dv; c < row; ++c) gaps = gaps && out.o.untouched(i * row + c);
    }
    CHECK(all);
    CHECK(gaps);
    CHECK(out.o.intact());
    CHECK(out.lse.intact());
    CHECK(out.lse.written());
    return out;
}

std::vector<float> rowsOf(const Output& out, const Problem& p, Index head) {
    std::vector<float> values;
    for (Index i = 0; i < p.Nq; ++i)
        for (Index c = 0; c < p.dv; ++c)
            values.push_back(out.o[(head * p.Nq + i) * (p.dv + 3) + c]);
    return values;
}

/// Keys of the largest probabilities; -1 is a value, so that no bytes tell what was written.
class Keys {
public:
    explicit Keys(Index n) : m_keys(std::size_t(n + 2 * kGuard), kUntouched) {}
    std::int32_t* data() { return m_keys.data() + kGuard; }
    std::int32_t operator[](Index i) const { return m_keys[std::size_t(i + kGuard)]; }
    Index size() const { return Index(m_keys.size()) - 2 * kGuard; }
    bool written() const {
        return std::count(m_keys.begin(), m_keys.end(), kUntouched) == 2 * kGuard;
    }
    bool intact() const {
        return std::count(m_keys.begin(), m_keys.begin() + kGuard, kUntouched) == kGuard &&
               std::count(m_keys.end() - kGuard, m_keys.end(), kUntouched) == kGuard;
    }
    bool operator==(const Keys&) const = default;

private:
    static constexpr Index kGuard = 64;
    static constexpr std::int32_t kUntouched = -7777;
    std::vector<std::int32_t> m_keys;
};

struct Captured {
    std::vector<Guarded> fields;
    Keys keys;
    CaptureOut out;
    Report report;

    Captured(Backend& backend, const Layer& l, const CaptureSpec& spec)
        : keys(l.problem.batch * l.problem.Hq * l.problem.Nq * spec.topK) {
        const Problem& p = l.problem;
        const Index heads = p.batch * p.Hq;
        const Index blocks =
            ((p.Nq + spec.block - 1) / spec.block) * ((p.Nk + spec.block - 1) / spec.block);
        const Index diagonals = p.causal ? p.Nk : p.Nq + p.Nk - 1;
        const Index sizes[] = {
            p.Nq, p.Nq, p.Nq, p.Nq, p.Nq, p.Nq, blocks, blocks, p.Nk, diagonals, p.Nq * spec.topK};
        for (const Index n : sizes) fields.emplace_back(heads * n);
        out = {fields[0].floats(), fields[1].floats(), fields[2].floats(), fields[3].floats(),
               fields[4].floats(), fields[5].floats(), fields[6].floats(), fields[7].floats(),
               fields[8].floats(), fields[9].floats(), keys.data(),        fields[10].floats()};
        report = backend.capture(p, l.q.view(), l.k.view(), spec, out);
        for (const Guarded& f : fields) {
            CHECK(f.intact());
            CHECK(f.written());
        }
        CHECK(keys.intact());
        CHECK(keys.written());
    }
};

const char* const kFields[] = {"lse",      "rowMax",    "entropy",  "meanDistance",
                               "sinkMass", "localMass", "blockSum", "blockMax",
                               "colMass",  "diagMass",  "topP"};

/// The row's keys are the reference's, each once, where P tells them apart: two keys may change
/// places only when their P are as good as equal, and P is compared place by place elsewhere.
bool sameKeys(const Captured& got, const Captured& want, Index row, Index k, double tolerance) {
    const auto at = [&](const Captured& x, Index n) {
        return std::pair(x.keys[row * k + n], double(x.fields[10][row * k + n]));
    };
    std::vector<std::int32_t> seen;
    for (Index n = 0; n < k; ++n) {
        const auto [key, p] = at(got, n);
        if ((key < 0) != (at(want, n).first < 0)) return false;
        if (key < 0) {
            if (!(p == 0)) return false;
            continue;
        }
        if (n > 0 && p > at(got, n - 1).second) return false;
        seen.push_back(key);
        bool found = false;
        for (Index m = 0; m < k && !found; ++m)
            found = at(want, m).first == key && std::abs(at(want, m).second - p) <= tolerance;
        // A key that the reference has not: as good as the reference's last.
        if (!found && std::abs(at(want, k - 1).second - p) > tolerance) return false;
    }
    std::sort(seen.begin(), seen.end());
    return std::adjacent_find(seen.begin(), seen.end()) == seen.end();
}

template <class Test>
void everyKernel(const Test& test) {
    const auto reference = makeReference();
    for (const Kernel& kernel : sparsight::kernels::kernels()) {
        if (!kernel.supported()) continue;
        for (const int threads : {2, 1}) {
            const auto backend = kernel.make(threads);
            INFO("kernel " << kernel.id << ", " << threads << " threads");
            test(*backend, *reference);
            if (kernel.id == "reference" || kernel.device != "cpu") break;
#ifdef SPARSIGHT_SANITIZED
            break;
#endif
        }
    }
}

}  // namespace

TEST_CASE("the registry ends with the reference") {
    REQUIRE(!sparsight::kernels::kernels().empty());
    CHECK(sparsight::kernels::kernels().back().id == "reference");
    CHECK(sparsight::kernels::kernels().back().supported());
}

TEST_CASE("reference: two keys by hand") {
    LayerCase c;
    c.Nq = c.Nk = 2;
    c.d = c.dv = 1;
    Layer l(c, 1);
    const float q[] = {2, 3}, k[] = {1, 0}, v[] = {10, 20};
    for (Index n = 0; n < 2; ++n) {
        l.q.set(0, 0, n, 0, q[n]);
        l.k.set(0, 0, n, 0, k[n]);
        l.v.set(0, 0, n, 0, v[n]);
    }
    l.problem.scale = 0.5f;
    const Policy dense = Dense{};
    const auto reference = makeReference();
    const Output out =
        forward(*reference, l, buildPlan(l.problem, std::span(&dense, 1), PlanMode::Exact));
    const double a = std::exp(1.5), sum = a + 1;
    CHECK(out.lse[0] == Approx(1.0));
    CHECK(out.lse[1] == Approx(std::log(sum)));
    CHECK(rowsOf(out, l.problem, 0)[1] == Approx((10 * a + 20) / sum));
    const Captured seen(*reference, l, {});
    CHECK(seen.fields[3][1] == Approx(a / sum));  // one token back
    CHECK(seen.fields[2][1] ==
          Approx(-(a / sum * std::log(a / sum) + 1 / sum * std::log(1 / sum))));  // entropy
    CHECK(seen.fields[9][0] == Approx(1 + 1 / sum));                              // main diagonal
    CHECK(seen.fields[9][1] == Approx(a / sum));
}

TEST_CASE("reference: the worked example of the antidiagonal sheet") {
    LayerCase c;
    c.Nq = c.Nk = 8;
    c.d = c.dv = 1;
    Layer l(c, 1);
    const float q[] = {1, 0, 2, 1, 0, 1, 3, 1}, k[] = {2, 0, 1, 0, 0, 1, 1, 2};
    for (Index n = 0; n < 8; ++n) {
        l.q.set(0, 0, n, 0, q[n]);
        l.k.set(0, 0, n, 0, k[n]);
    }
    Guarded b(4);
    makeReference()->antidiagonal(l.problem, l.q.view(), l.k.view(), 2, 4, 0, b.floats());
    CHECK(b[0] == Approx(2));
    CHECK(b[1] == 0);
    CHECK(b[2] == Approx(0.918).margin(1e-3));
    CHECK(b[3] == Approx(1.082).margin(1e-3));
}

TEST_CASE("forward and lseOnly follow the plan") {
    everyKernel([&](Backend& backend, Backend& reference) {
        unsigned seed = 100;
        for (const LayerCase& c : casesFor(backend)) {
            const Layer l(c, ++seed);
            const Problem& p = l.problem;
            RandomPolicy make(seed);
            for (int kind = -1; kind < 5; ++kind) {  // -1: another policy for every head
                for (const PlanMode mode : {PlanMode::Exact, PlanMode::Tile}) {
                    if (kind == 0 && mode == PlanMode::Tile) continue;
                    std::vector<Policy> policies;
                    for (Index h = 0; h < (kind < 0 ? p.Hq : 1); ++h)
                        policies.push_back(make.make(kind < 0 ? int(h % 5) : kind, p));
                    INFO(c << ", policy " << kind << (mode == PlanMode::Tile ? " by tile" : ""));
                    const Plan plan = buildPlan(p, policies, mode);
                    const Output got = forward(backend, l, plan),
                                 want = forward(reference, l, plan);
                    double error = 0;
                    for (Index h = 0; h < p.batch * p.Hq; ++h)
                        error = std::max(error, distance(rowsOf(got, p, h), rowsOf(want, p, h)));
                    CHECK(error <= outputTolerance(c.type, onGpu(backend)));
                    const double lseTolerance = c.type == DType::F32 ? 1e-5 : 2e-3;
                    CHECK(worst(got.lse.values(), want.lse.values()) <= lseTolerance);
                    CHECK(got.report.nonFiniteRows == 0);
                    Guarded only(p.batch * p.Hq * p.Nq);
                    backend.lseOnly(p, l.q.view(), l.k.view(), plan, only.floats());
                    CHECK(only.intact());
                    CHECK(only.written());
                    CHECK(worst(only.values(), want.lse.values()) <= lseTolerance);
                }
            }
        }
    });
}

TEST_CASE("a full block list gives the bits of dense") {
    everyKernel([&](Backend& backend, Backend&) {
        LayerCase c;
        c.Nq = c.Nk = 333;
        const Layer l(c, 9);
        const Policy dense = Dense{};
        BlockList list;
        list.rowPtr.push_back(0);
        for (int r = 0; r < 6; ++r) {
            for (int k = 0; k < 6; ++k) list.col.push_back(k);
            list.rowPtr.push_back(std::int32_t(list.col.size()));
        }
        const Policy full = list;
        const Output a =
            forward(backend, l, buildPlan(l.problem, std::span(&dense, 1), PlanMode::Exact));
        const Output b =
            forward(backend, l, buildPlan(l.problem, std::span(&full, 1), PlanMode::Exact));
        CHECK(a.o.sameBits(b.o));
        CHECK(a.lse.sameBits(b.lse));
    });
}

TEST_CASE("masks at once give the bits of their plan") {
    everyKernel([&](Backend& backend, Backend&) {
        LayerCase c;
        c.Nq = c.Nk = 333;
        c.Hq = 4;
        c.Hkv = 2;
        c.type = onGpu(backend) ? DType::BF16 : DType::F32;
        const Layer l(c, 19);
        const Problem& p = l.problem;
        RandomPolicy make(19);
        for (const PlanMode mode : {PlanMode::Exact, PlanMode::Tile})
            for (const int last : {4, 5}) {  // with ranges or without
                std::vector<Policy> policies;
                for (int h = 0; h < 4; ++h) policies.push_back(make.make((h + 1) % last, p));
                const Output want = forward(backend, l, buildPlan(p, policies, mode));
                const Index row = p.dv + 3, head = p.Nq * row;
                Guarded o(p.Hq * head, c.type), lse(p.Hq * p.Nq);
                const Report report =
                    backend.forwardMasks(p, l.q.view(), l.k.view(), l.v.view(), policies, mode,
                                         {o.data(), c.type, p.Hq * head, head, row}, lse.floats());
                CHECK(o.sameBits(want.o));
                CHECK(lse.sameBits(want.lse));
                CHECK(report.tiles == want.report.tiles);
            }
    });
}

TEST_CASE("capture: every statistic") {
    everyKernel([&](Backend& backend, Backend& reference) {
        unsigned seed = 200;
        for (const LayerCase& c : casesFor(backend)) {
            const Layer l(c, ++seed);
            const Problem& p = l.problem;
            constexpr Index kTopK[] = {64, 1, 7, 200};
            const CaptureSpec spec{seed % 2 ? Index(64) : Index(32), 3, 20, kTopK[seed % 4]};
            INFO(c << ", block " << spec.block << ", top " << spec.topK);
            const Captured got(backend, l, spec), want(reference, l, spec);
            for (std::size_t f = 0; f < std::size(kFields); ++f) {
                INFO(kFields[f]);
                const auto a = got.fields[f].values(), b = want.fields[f].values();
                if (f < 2)
                    CHECK(worst(a, b) <= 2e-5);
                else if (f == 3)
                    CHECK(worst(a, b) <= 2e-3);  // tokens
                else
                    CHECK(worst(a, b) <= 2e-4);
                if (f >= 2) CHECK(distance(a, b) <= 2e-3);
            }
            Index wrongRows = 0;
            for (Index row = 0; row < p.batch * p.Hq * p.Nq; ++row)
                wrongRows += !sameKeys(got, want, row, spec.topK, 1e-4);
            CHECK(wrongRows == 0);
            if (p.sinks) continue;
            // All the mass of all rows that see a key lies in the blocks, columns and diagonals.
            Index rows = 0;
            for (Index i = 0; i < p.Nq; ++i) rows += p.visibleEnd(i) > p.visibleBegin(i);
            for (const std::size_t f : {6, 8, 9}) {
                const auto m = got.fields[f].values();
                INFO(kFields[f]);
                CHECK(std::accumulate(m.begin(), m.end(), 0.0) ==
                      Approx(double(rows * p.batch * p.Hq)).epsilon(1e-4));
            }
        }
    });
}

TEST_CASE("capture: scores far below zero keep their weights") {
    const Index d = GENERATE(64, 128, 256);
    const DType type = GENERATE(DType::F32, DType::BF16);
    everyKernel([&](Backend& backend, Backend& reference) {
        LayerCase c;
        c.Nq = c.Nk = 200;
        c.d = d;
        c.type = type;
        Layer l(c, 31);
        for (Index n = 0; n < 200; ++n)
            for (Index i = 0; i < d; ++i) {
                l.q.set(0, 0, n, i, 3);
                l.k.set(0, 0, n, i, n % 2 ? -3.0f : -4.0f);  // -72 or -96 and lower
            }
        INFO(c);
        const Captured got(backend, l, {}), want(reference, l, {});
        for (std::size_t f = 0; f < std::size(kFields); ++f) {
            INFO(kFields[f]);
            CHECK(worst(got.fields[f].values(), want.fields[f].values()) <= 2e-4);
        }
    });
}

TEST_CASE("capture: fields that nobody asks for") {
    everyKernel([&](Backend& backend, Backend& reference) {
        LayerCase c;
        c.Nq = c.Nk = 150;
        const Layer l(c, 17);
        const Captured want(reference, l, {});
        for (int f = 0; f < 11; ++f) {
            INFO(kFields[f]);
            Guarded one(want.fields[std::size_t(f)].size());
            CaptureOut out;
            float** const slots[] = {&out.lse,          &out.rowMax,   &out.entropy,
                                     &out.meanDistance, &out.sinkMass, &out.localMass,
                                     &out.blockSum,     &out.blockMax, &out.colMass,
                                     &out.diagMass,     &out.topP};
            *slots[f] = one.floats();
            backend.capture(l.problem, l.q.view(), l.k.view(), {}, out);
            CHECK(one.intact());
            CHECK(one.written());
            CHECK(worst(one.values(), want.fields[std::size_t(f)].values()) <= 2e-3);
        }
        const Captured all(backend, l, {});
        Keys keys(all.keys.size());
        CaptureOut out;
        out.topKey = keys.data();
        backend.capture(l.problem, l.q.view(), l.k.view(), {}, out);
        CHECK(keys == all.keys);
    });
}

TEST_CASE("capture: equal scores rank the lower key first") {
    const Index k = GENERATE(1, 64, 200);
    const bool causal = GENERATE(true, false);
    everyKernel([&](Backend& backend, Backend&) {
        LayerCase c;
        c.Nq = c.Nk = 330;
        c.Hq = 2;
        c.Hkv = 1;
        c.causal = causal;
        c.window = causal ? 150 : 0;
        Layer l(c, 23);
        // Head 0 scores every key 0, with either sign; head 1 sees each key three times in a row.
        for (Index n = 0; n < 330; ++n)
            for (Index i = 0; i < c.d; ++i) {
                l.q.set(0, 0, n, i, i % 2 ? 0.0f : -0.0f);
                l.k.set(0, 0, n, i,
                        loadFloat(l.k.bytes.data(), c.type, l.k.at(0, 0, n / 3 * 3, i)));
            }
        INFO("top " << k << (causal ? ", causal" : ""));
        CaptureSpec spec;
        spec.topK = k;
        const Captured got(backend, l, spec);
        bool first = true, uniform = true, groups = true, ends = true;
        for (Index i = 0; i < 330; ++i) {
            const Index begin = l.problem.visibleBegin(i), seen = l.problem.visibleEnd(i) - begin;
            for (Index n = 0; n < k; ++n) {
                const Index at = i * k + n, other = (330 + i) * k + n;
                if (n >= seen) {
                    ends = ends && got.keys[at] == -1 && got.fields[10][at] == 0 &&
                           got.keys[other] == -1 && got.fields[10][other] == 0;
                    continue;
                }
                first = first && got.keys[at] == begin + n;
                uniform = uniform && std::abs(got.fields[10][at] - 1 / float(seen)) < 1e-5f;
                if (n == 0) continue;
                // Equal P and the same three: the next key, nothing between.
                const std::int32_t a = got.keys[other - 1], b = got.keys[other];
                if (got.fields[10][other] == got.fields[10][other - 1] && a / 3 == b / 3)
                    groups = groups && b == a + 1;
                else
                    groups = groups && (b % 3 == 0 || b == begin);
            }
        }
        CHECK(first);
        CHECK(uniform);
        CHECK(groups);
        CHECK(ends);
    });
}

TEST_CASE("capture: no top key is too few") {
    everyKernel([&](Backend& backend, Backend&) {
        LayerCase c;
        const Layer l(c, 3);
        float p = 0;
        CaptureOut out;
        out.topP = &p;
        CaptureSpec spec;
        spec.topK = 0;
        CHECK_THROWS_WITH(backend.capture(l.problem, l.q.view(), l.k.view(), spec, out),
                          "attention: a row's largest probabilities must be at least one");
    });
}

TEST_CASE("render: pixels of every kind") {
    everyKernel([&](Backend& backend, Backend& reference) {
        unsigned seed = 300;
        for (LayerCase c : casesFor(backend)) {
            c.batch = c.Hq = c.Hkv = 1;
            const Layer l(c, ++seed);
            const Problem& p = l.problem;
            RandomPolicy make(seed);
            const Captured stats(reference, l, {});
            for (int turn = 0; turn < 6; ++turn) {
                const Policy mask = make.make(turn % 5, p);
                RenderSpec spec;
                spec.mask = &mask;
                spec.q0 = turn ? make.below(p.Nq) : 0;
                spec.q1 = turn ? spec.q0 + 1 + make.below(p.Nq - spec.q0) : p.Nq;
                spec.k0 = turn ? make.below(p.Nk) : 0;
                spec.k1 = turn ? spec.k0 + 1 + make.below(p.Nk - spec.k0) : p.Nk;
                spec.height = 1 + make.below(70);
                spec.width = 1 + make.below(90);
                for (const Statistic s : {Statistic::Sum, Statistic::Mean, Statistic::Max}) {
                    for (const Show show : {Show::All, Show::Kept, Show::Lost}) {
                        spec.statistic = s;
                        spec.show = show;
                        INFO(c << ", rows " << spec.q0 << ".." << spec.q1 << " keys " << spec.k0
                               << ".." << spec.k1 << " pixels " << spec.height << "x" << spec.width
                               << " statistic " << int(s) << " show " << int(show) << " policy "
                               << turn % 5);
                        Guarded got(spec.width * spec.height), want(spec.width * spec.height);
                        const float* lse = stats.out.lse;
                        backend.render(p, l.q.view(), l.k.view(), lse, spec, got.floats());
                        reference.render(p, l.q.view(), l.k.view(), lse, spec, want.floats());
                        CHECK(got.intact());
                        CHECK(got.written());
                        CHECK(worst(got.values(), want.values()) <= 1e-4);
                    }
                }
            }
        }
    });
}

TEST_CASE("antidiagonal: block scores") {
    everyKernel([&](Backend& backend, Backend& reference) {
        unsigned seed = 400;
        for (const LayerCase& c : casesFor(backend)) {
            const Layer l(c, ++seed);
            const Problem& p = l.problem;
            for (const auto& [stride, block, padTo] :
                 {std::array<Index, 3>{8, 128, 0}, {16, 64, 0}, {4, 64, 512}}) {
                INFO(c << ", stride " << stride << " block " << block << " padding " << padTo);
                const Index size =
                    p.batch * p.Hq * ((p.Nq + block - 1) / block) * ((p.Nk + block - 1) / block);
                Guarded got(size), want(size);
                backend.antidiagonal(p, l.q.view(), l.k.view(), stride, block, padTo, got.floats());
                reference.antidiagonal(p, l.q.view(), l.k.view(), stride, block, padTo,
                                       want.floats());
                CHECK(got.intact());
                CHECK(got.written());
                CHECK(worst(got.values(), want.values()) <= 2e-4);
            }
        }
    });
}

TEST_CASE("the number of threads does not change a bit") {
    for (const Kernel& kernel : sparsight::kernels::kernels()) {
        if (!kernel.supported() || kernel.id == "reference") continue;
        INFO("kernel " << kernel.id);
        LayerCase c;
        c.Nq = c.Nk = 700;
        c.Hq = 4;
        c.Hkv = 2;
        c.sinks = true;
        const Layer l(c, 55);
        RandomPolicy make(55);
        std::vector<Policy> policies;
        for (int h = 0; h < 4; ++h) policies.push_back(make.make(h + 1, l.problem));
        const Plan plan = buildPlan(l.problem, policies, PlanMode::Exact);
        const auto one = kernel.make(1);
        const Output o1 = forward(*one, l, plan);
        const Captured c1(*one, l, {});
        for (const int threads : {1, 2, 3}) {
            INFO(threads << " threads");
            const auto many = kernel.make(threads);
            const Output on = forward(*many, l, plan);
            CHECK(on.o.sameBits(o1.o));
            CHECK(on.lse.sameBits(o1.lse));
            const Captured cn(*many, l, {});
            for (std::size_t f = 0; f < std::size(kFields); ++f) {
                INFO(kFields[f]);
                CHECK(cn.fields[f].sameBits(c1.fields[f]));
            }
            CHECK(cn.keys == c1.keys);
            const Problem head = l.problem.oneHead(0);
            RenderSpec spec;
            spec.q1 = spec.k1 = 700;
            spec.width = 97;
            spec.height = 83;
            Guarded a(spec.width * spec.height), b(spec.width * spec.height);
            one->render(head, l.q.view(), l.k.view(), c1.out.lse, spec, a.floats());
            many->render(head, l.q.view(), l.k.view(), c1.out.lse, spec, b.floats());
            CHECK(a.sameBits(b));
            Guarded x(4 * 36), y(4 * 36);
            one->antidiagonal(l.problem, l.q.view(), l.k.view(), 8, 128, 0, x.floats());
            many->antidiagonal(l.problem, l.q.view(), l.k.view(), 8, 128, 0, y.floats());
            CHECK(x.sameBits(y));
        }
    }
}

TEST_CASE("NaN and infinity poison the rows that see them, no other") {
    const float bad =
        GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
    const int where = GENERATE(0, 1, 2);  // q, k, v
    everyKernel([&](Backend& backend, Backend&) {
        LayerCase c;
        c.Nq = c.Nk = 300;
        c.Hq = 2;
        c.Hkv = 1;
        Layer l(c, 77);
        const Policy policies[] = {Dense{}, Streaming{4, 70}};
        const Plan plan = buildPlan(l.problem, policies, PlanMode::Exact);
        const Output clean = forward(backend, l, plan);
        const Index token = 150;
        Tensor& x = where == 0 ? l.q : where == 1 ? l.k : l.v;
        x.set(0, 0, token, 5, bad);
        INFO("in "
             << "qkv"[where] << " " << bad);
        const Output got = forward(backend, l, plan);
        std::vector<Range> ranges;
        Index poisoned = 0;
        bool exact = true, lseExact = true, others = true;
        for (Index h = 0; h < 2; ++h) {
            for (Index i = 0; i < 300; ++i) {
                executedRanges(plan, l.problem, h, i, ranges);
                const bool sees =
                    where == 0 ? h == 0 && i == token
                               : std::any_of(ranges.begin(), ranges.end(), [&](const Range& r) {
                                     return r.begin <= token && token < r.end;
                                 });
                poisoned += sees;
                const Index at = (h * 300 + i) * (l.problem.dv + 3);
                bool finite = true;
                for (Index d = 0; d < l.problem.dv; ++d) {
                    finite = finite && std::isfinite(got.o[at + d]);
                    if (!sees) others = others && got.o[at + d] == clean.o[at + d];
                }
                exact = exact && finite == !sees;
                if (where < 2) lseExact = lseExact && std::isnan(got.lse[h * 300 + i]) == sees;
            }
        }
        CHECK(exact);
        CHECK(lseExact);
        CHECK(others);
        CHECK(got.report.nonFiniteRows == poisoned);
        if (where < 2) {
            Guarded lse(600), top(600 * 64);
            Keys keys(600 * 64);
            CaptureOut out;
            out.lse = lse.floats();
            out.topKey = keys.data();
            out.topP = top.floats();
            const Report report = backend.capture(l.problem, l.q.view(), l.k.view(), {}, out);
            CHECK(report.nonFiniteRows == (where == 0 ? 1 : 2 * (300 - token)));
            bool poison = true, rest = true;
            for (Index i = 0; i < 600 * 64; ++i) {
                const Index row = i / 64 % 300, head = i / (300 * 64), n = i % 64;
                if (where == 0 ? head == 0 && row == token : row >= token) {
                    poison = poison && keys[i] == -1 && std::isnan(top[i]);
                } else {
                    rest = rest && (keys[i] >= 0) == (n <= row) && std::isfinite(top[i]);
                }
            }
            CHECK(poison);
            CHECK(rest);
        }
    });
}

TEST_CASE("a stop is obeyed") {
    everyKernel([&](Backend& backend, Backend&) {
        LayerCase c;
        c.Nq = c.Nk = 300;
        const Layer l(c, 5);
        const Policy dense = Dense{};
        const Plan plan = buildPlan(l.problem, std::span(&dense, 1), PlanMode::Exact);
        const Job stopped({}, [] { return true; });
        std::vector<float> o(300 * 64), lse(300);
        CHECK_THROWS_AS(
            backend.forward(l.problem, l.q.view(), l.k.view(), l.v.view(), plan,
                            {o.data(), DType::F32, 300 * 64, 300 * 64, 64}, lse.data(), stopped),
            Cancelled);
        CaptureOut out;
        out.lse = lse.data();
        CHECK_THROWS_AS(backend.capture(l.problem, l.q.view(), l.k.view(), {}, out, stopped),
                        Cancelled);
    });
}
