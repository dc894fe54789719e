#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/backend.h"

namespace sparsight::kernels {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// The tokens of one (batch, head), widened to float64: [tokens][width].
class Matrix {
public:
    Matrix(const TensorView& x, Index batch, Index head, Index tokens, Index width)
        : m_width(width), m_values(std::size_t(tokens * width)) {
        for (Index n = 0; n < tokens; ++n)
            for (Index c = 0; c < width; ++c)
                m_values[std::size_t(n * width + c)] =
                    double(loadFloat(x.p, x.t, batch * x.sb + head * x.sh + n * x.sn + c));
    }
    const double* row(Index n) const { return m_values.data() + n * m_width; }

private:
    Index m_width;
    std::vector<double> m_values;
};

/// Scores of one row over a list of keys, and their LSE.
struct Scores {
    std::vector<double> s;  ///< by position in the key list, natural units
    double max = -kInf;
    double lse = -kInf;  ///< without the sink; NaN for a row that sees NaN or infinity
};

class Head {
public:
    Head(const Problem& problem, const TensorView& q, const TensorView& k, Index batch, Index head)
        : m_p(problem),
          m_head(head),
          m_q(q, batch, head, problem.Nq, problem.d),
          m_k(k, batch, problem.kvHead(head), problem.Nk, problem.d) {}

    /// NaN when q or k hold NaN or infinity: a soft-cap would hide it.
    double score(Index row, Index key) const {
        double dot = 0;
        for (Index c = 0; c < m_p.d; ++c) dot += m_q.row(row)[c] * m_k.row(key)[c];
        if (!std::isfinite(dot)) return kNaN;
        double s = double(m_p.scale) * dot;
        if (m_p.softcap > 0) s = double(m_p.softcap) * std::tanh(s / double(m_p.softcap));
        if (m_p.relBias)
            s += double(m_p.relBias[m_head * (m_p.Nq + m_p.Nk - 1) + key - row + m_p.Nq - 1]);
        return s;
    }

    Scores scores(Index row, const std::vector<Index>& keys) const {
        Scores out;
        for (const Index key : keys) {
            out.s.push_back(score(row, key));
            if (std::isnan(out.s.back())) {
                out.max = out.lse = kNaN;
            } else if (!std::isnan(out.max)) {
                out.max = std::max(out.max, out.s.back());
            }
        }
        if (keys.empty() || std::isnan(out.max)) return out;
        double sum = 0;
        for (const double s : out.s) sum += std::exp(s - out.max);
        out.lse = out.max + std::log(sum);
        return out;
    }

    /// The LSE that probabilities are taken against: the sink's weight included.
    double withSink(double lse) const {
        if (!m_p.sinks || !(lse > -kInf)) return lse;
        const double sink = double(m_p.sinks[m_head]), top = std::max(lse, sink);
        return top + std::log(std::exp(lse - top) + std::exp(sink - top));
    }

private:
    const Problem& m_p;
    Index m_head;
    Matrix m_q, m_k;
};

std::vector<Index> keysOf(const std::vector<Range>& ranges) {
    std::vector<Index> keys;
    for (const Range& r : ranges)
        for (Index key = r.begin; key < r.end; ++key) keys.push_back(key);
    return keys;
}

std::vector<Index> visibleKeys(const Problem& p, Index row) {
    return keysOf({{std::int32_t(p.visibleBegin(row)), std::int32_t(p.visibleEnd(row))}});
}

Index ceilDiv(Index a, Index b) {
    return (a + b - 1) / b;
}

/// Half-open token bin of a pixel; at least one token.
struct Bin {
    Index begin, end;
    Bin(Index first, Index tokens, Index pixel, Index pixels)
        : begin(first + pixel * tokens / pixels),
          end(std::max(begin + 1, first + (pixel + 1) * tokens / pixels)) {}
};

class Reference final : public Backend {
public:
    std::string_view id() const override { return "reference"; }
    std::string device() const override { return "CPU, float64 loops"; }
    int threads() const override { return 1; }

    Report forward(const Problem& p, TensorView q, TensorView k, TensorView v, const Plan& plan,
                   MutTensorView o, float* lse, const Job& job) override {
        return attend(p, q, k, &v, plan, &o, lse, job);
    }

    Report lseOnly(const Problem& p, TensorView q, TensorView k, const Plan& plan, float* lse,
                   const Job& job) override {
        return attend(p, q, k, nullptr, plan, nullptr, lse, job);
    }

    Report capture(const Problem& p, TensorView q, TensorView k, const CaptureSpec& spec,
                   const CaptureOut& out, const Job& job) override {
        if ((out.topKey || out.topP) && spec.topK <= 0)
            throw Error(Errc::Shape,
                        "attention: a row's largest probabilities must be at least one");
        Report report = started();
        const Index heads = p.batch * p.Hq;
        for (Index g = 0; g < heads; ++g) {
            job.step(double(g) / double(heads), "capture");
            const Head head(p, q, k, g / p.Hq, g % p.Hq);
            captureHead(p, head, g, spec, out, job, report);
        }
        return report;
    }

    Report render(const Problem& p, TensorView q, TensorView k, const float* lse,
                  const RenderSpec& spec, float* px, const Job& job) override {
        const Head head(p, q, k, 0, 0);
        std::vector<Range> ranges;
        for (Index a = 0; a < spec.height; ++a) {
            job.step(double(a) / double(spec.height), "render");
            const Bin rows(spec.q0, spec.q1 - spec.q0, a, spec.height);
            std::vector<double> sum(std::size_t(spec.width), 0.0), max = sum;
            std::vector<Index> pairs(std::size_t(spec.width), 0);
            for (Index row = rows.begin; row < rows.end; ++row) {
                const double norm = head.withSink(double(lse[row]));
                if (spec.show != Show::All) keptRanges(*spec.mask, p, row, ranges);
                for (Index b = 0; b < spec.width; ++b) {
                    const Bin cols(spec.k0, spec.k1 - spec.k0, b, spec.width);
                    for (Index key = std::max(cols.begin, p.visibleBegin(row));
                         key < std::min(cols.end, p.visibleEnd(row)); ++key) {
                        const auto at = std::size_t(b);
                        ++pairs[at];
                        if (spec.show != Show::All &&
                            holds(ranges, key) != (spec.show == Show::Kept))
                            continue;
                        const double weight = std::exp(head.score(row, key) - norm);
                        sum[at] += weight;
                        max[at] = std::isnan(weight) ? weight : std::max(max[at], weight);
                    }
                }
            }
            for (Index b = 0; b < spec.width; ++b) {
                const auto at = std::size_t(b);
                const double value = pairs[at] == 0                     ? -1.0
                                     : spec.statistic == Statistic::Max ? max[at]
                                     : spec.statistic == Statistic::Mean
                                         ? sum[at] / double(pairs[at])
                                         : sum[at];
                px[a * spec.width + b] = float(value);
            }
        }
        return started();
    }

    Report antidiagonal(const Problem& p, TensorView q, TensorView k, Index stride, Index block,
                        Index padTo, float* blockScore, const Job& job) override {
        if (stride <= 0 || block <= 0 || block % stride != 0 || padTo < 0 || padTo % stride != 0)
            throw Error(Errc::Shape,
                        "antidiagonal: the stride must divide the block and the padding");
        const Index pad = padTo > 0 ? padTo : block;
        const Index paddedQ = ceilDiv(p.Nq, pad) * pad, paddedK = ceilDiv(p.Nk, pad) * pad;
        const Index offset = (paddedK - paddedQ) / stride;
        const Index rows = ceilDiv(p.Nq, stride), cols = ceilDiv(p.Nk, stride);
        const Index blockRows = ceilDiv(p.Nq, block), blockCols = ceilDiv(p.Nk, block);
        const Index heads = p.batch * p.Hq;
        for (Index g = 0; g < heads; ++g) {
            job.step(double(g) / double(heads), "antidiagonal scores");
            const Matrix mq(q, g / p.Hq, g % p.Hq, p.Nq, p.d);
            const Matrix mk(k, g / p.Hq, p.kvHead(g % p.Hq), p.Nk, p.d);
            std::vector<double> total(std::size_t(blockRows * blockCols), 0.0);
            for (Index row = 0; row < rows; ++row) {
                job.check();
                const Index end = p.causal ? std::clamp<Index>(row + offset + 1, 0, cols) : cols;
                std::vector<double> s;
                double max = -kInf;
                for (Index col = 0; col < end; ++col) {
                    double dot = 0;
                    for (Index t = 0; t < stride; ++t) {
                        const Index i = row * stride + stride - 1 - t, j = col * stride + t;
                        if (i >= p.Nq || j >= p.Nk) continue;  // zero padding
                        for (Index c = 0; c < p.d; ++c) dot += mq.row(i)[c] * mk.row(j)[c];
                    }
                    s.push_back(dot * double(p.scale) / double(stride));
                    max = std::max(max, s.back());
                }
                double sum = 0;
                for (double& x : s) sum += x = std::exp(x - max);
                for (Index col = 0; col < end; ++col)
                    total[std::size_t(row * stride / block * blockCols + col * stride / block)] +=
                        s[std::size_t(col)] / sum;
            }
            for (std::size_t i = 0; i < total.size(); ++i)
                blockScore[std::size_t(g * blockRows * blockCols) + i] = float(total[i]);
        }
        return started();
    }

private:
    static Report started() {
        Report report;
        report.kernel = "reference";
        return report;
    }

    static bool holds(const std::vector<Range>& ranges, Index key) {
        return std::any_of(ranges.begin(), ranges.end(),
                           [&](const Range& r) { return key >= r.begin && key < r.end; });
    }

    static Report attend(const Problem& p, const TensorView& q, const TensorView& k,
                         const TensorView* v, const Plan& plan, const MutTensorView* o, float* lse,
                         const Job& job) {
        Report report = started();
        for (const WorkItem& item : plan.work) report.tiles += p.batch * item.count;
        const Index heads = p.batch * p.Hq;
        std::vector<Range> ranges;
        for (Index g = 0; g < heads; ++g) {
            job.step(double(g) / double(heads), "reference attention");
            const Index batch = g / p.Hq, h = g % p.Hq;
            const Head head(p, q, k, batch, h);
            const Matrix values =
                v ? Matrix(*v, batch, p.kvHead(h), p.Nk, p.dv) : Matrix(q, batch, h, 0, 0);
            std::vector<double> row(std::size_t(p.dv));
            for (Index i = 0; i < p.Nq; ++i) {
                job.check();
                executedRanges(plan, p, h, i, ranges);
                const std::vector<Index> keys = keysOf(ranges);
                const Scores scores = head.scores(i, keys);
                if (lse) lse[g * p.Nq + i] = float(scores.lse);
                bool finite = !std::isnan(scores.lse);
                if (v) {
                    const double norm = head.withSink(scores.lse);
                    std::fill(row.begin(), row.end(), 0.0);
                    for (std::size_t n = 0; n < keys.size(); ++n) {
                        const double weight = std::exp(scores.s[n] - norm);
                        for (Index c = 0; c < p.dv; ++c)
                            row[std::size_t(c)] += weight * values.row(keys[n])[c];
                    }
                    for (Index c = 0; c < p.dv; ++c) {
                        finite = finite && std::isfinite(row[std::size_t(c)]);
                        storeFloat(o->p, o->t, batch * o->sb + h * o->sh + i * o->sn + c,
                                   float(row[std::size_t(c)]));
                    }
                }
                report.nonFiniteRows += finite ? 0 : 1;
            }
        }
        return report;
    }

    static void topKeys(Index row, const std::vector<Index>& keys, const Scores& scores,
                        double norm, Index topK, const CaptureOut& out) {
        if (!out.topKey && !out.topP) return;
        std::vector<std::size_t> order;
        if (!std::isnan(norm))
            for (std::size_t n = 0; n < keys.size(); ++n)
                if (scores.s[n] > -kInf) order.push_back(n);
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return scores.s[a] > scores.s[b]; });
        for (Index n = 0; n < topK; ++n) {
            const bool there = n < Index(order.size());
            const std::size_t at = there ? order[std::size_t(n)] : 0;
            if (out.topKey) out.topKey[row * topK + n] = there ? std::int32_t(keys[at]) : -1;
            if (out.topP)
                out.topP[row * topK + n] = std::isnan(norm) ? float(kNaN)
                                           : there          ? float(std::exp(scores.s[at] - norm))
                                                            : 0.0f;
        }
    }

    static void captureHead(const Problem& p, const Head& head, Index g, const CaptureSpec& spec,
                            const CaptureOut& out, const Job& job, Report& report) {
        const Index blockRows = ceilDiv(p.Nq, spec.block), blockCols = ceilDiv(p.Nk, spec.block);
        const Index diagonals = p.causal ? p.Nk : p.Nq + p.Nk - 1;
        std::vector<double> sum(std::size_t(blockRows * blockCols), 0.0), max = sum;
        std::vector<double> column(std::size_t(p.Nk), 0.0);
        std::vector<double> diagonal(std::size_t(std::max<Index>(0, diagonals)), 0.0);
        for (Index i = 0; i < p.Nq; ++i) {
            job.check();
            const std::vector<Index> keys = visibleKeys(p, i);
            const Scores scores = head.scores(i, keys);
            const double norm = head.withSink(scores.lse);
            report.nonFiniteRows += std::isnan(norm) ? 1 : 0;
            double entropy = 0, distance = 0, sinkMass = 0, localMass = 0;
            for (std::size_t n = 0; n < keys.size(); ++n) {
                const Index key = keys[n], back = p.position(i) - key;
                const double log = scores.s[n] - norm;
                const double weight = std::isnan(norm) ? kNaN : std::exp(log);
                entropy -= weight * log;
                distance += weight * double(back);
                if (key < spec.sinkTokens) sinkMass += weight;
                if (back >= 0 && back < spec.localTokens) localMass += weight;
                const auto at = std::size_t(i / spec.block * blockCols + key / spec.block);
                sum[at] += weight;
                max[at] = std::isnan(weight) ? weight : std::max(max[at], weight);
                column[std::size_t(key)] += weight;
                diagonal[std::size_t(p.causal ? back : key - i + p.Nq - 1)] += weight;
            }
            const auto put = [&](float* to, double value) {
                if (to) to[g * p.Nq + i] = float(value);
            };
            put(out.lse, scores.lse);
            put(out.rowMax, scores.max);
            put(out.entropy, entropy);
            put(out.meanDistance, distance);
            put(out.sinkMass, sinkMass);
            put(out.localMass, localMass);
            topKeys(g * p.Nq + i, keys, scores, norm, spec.topK, out);
        }
        const auto copy = [&](float* to, const std::vector<double>& from) {
            if (!to) return;
            for (std::size_t i = 0; i < from.size(); ++i)
                to[std::size_t(g) * from.size() + i] = float(from[i]);
        };
        copy(out.blockSum, sum);
        copy(out.blockMax, max);
        copy(out.colMass, column);
        copy(out.diagMass, diagonal);
    }
};

}  // namespace

std::unique_ptr<Backend> makeReference() {
    return std::make_unique<Reference>();
}

}  // namespace sparsight::kernels
