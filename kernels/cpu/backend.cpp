#include "kernels/cpu/backend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/thread_pool.h"

namespace sparsight::kernels {
namespace {

using cpu::Head;
using cpu::Simd;

/// Rows up to which a q tile is worked on row by row: a strip costs the same for one row as for
/// all.
constexpr Index kFewRows = 4;
/// Widened or packed copies that may be held at a time.
constexpr std::size_t kCopyBytes = std::size_t(512) << 20;
constexpr Index kCopyRows = 1024;  ///< rows of one widening task
/// Owners of key tiles per head in capture. A constant, so that sums do not depend on the threads.
constexpr Index kOwners = 16;

Index ceilDiv(Index a, Index b) {
    return (a + b - 1) / b;
}

void require(bool condition, const char* what) {
    if (!condition) throw Error(Errc::Shape, std::string("attention: ") + what);
}

void checkProblem(const Problem& p) {
    require(p.batch >= 0 && p.Nq >= 0 && p.Nk >= 0 && p.d > 0 && p.dv >= 0,
            "sizes must not be negative and heads must have a width");
    require(p.Hq > 0 && p.Hkv > 0 && p.Hq % p.Hkv == 0,
            "the query heads must be a multiple of the key/value heads");
    constexpr Index limit = std::numeric_limits<std::int32_t>::max() / 2;
    require(p.Nq < limit && p.Nk < limit, "too many tokens for 32-bit positions");
}

/// Float rows of one K or V head: the caller's own memory or a widened copy.
struct Rows {
    const float* p = nullptr;
    Index stride = 0;
    bool finite = true;
    std::vector<std::uint8_t> bad;  ///< [rows], filled only when not finite
};

class CpuSimd final : public Backend {
public:
    CpuSimd(std::string_view id, const Simd& simd, int threads)
        : m_id(id),
          m_pool(std::max(1, threads > 0 ? threads : physicalCores())),
          m_simd(simd),
          m_work(std::size_t(m_pool.threads())) {}

    std::string_view id() const override { return m_id; }
    std::string device() const override {
        return "CPU, " + std::string(m_simd.name) + ", " + std::to_string(threads()) +
               (threads() == 1 ? " thread" : " threads");
    }
    int threads() const override { return m_pool.threads(); }

    Report forward(const Problem& p, TensorView q, TensorView k, TensorView v, const Plan& plan,
                   MutTensorView o, float* lse, const Job& job) override {
        return attend(p, q, k, &v, plan, &o, lse, job);
    }
    Report lseOnly(const Problem& p, TensorView q, TensorView k, const Plan& plan, float* lse,
                   const Job& job) override {
        return attend(p, q, k, nullptr, plan, nullptr, lse, job);
    }
    Report capture(const Problem&, TensorView q, TensorView k, const CaptureSpec&,
                   const CaptureOut&, const Job&) override;
    Report render(const Problem&, TensorView q, TensorView k, const float* lse, const RenderSpec&,
                  float* px, const Job&) override;
    Report antidiagonal(const Problem&, TensorView q, TensorView k, Index stride, Index block,
                        Index padTo, float* blockScore, const Job&) override;

private:
    Report attend(const Problem&, const TensorView& q, const TensorView& k, const TensorView* v,
                  const Plan&, const MutTensorView* o, float* lse, const Job&);
    Report started() const {
        Report report;
        report.kernel = id();
        report.threads = threads();
        return report;
    }
    cpu::Workspace& workspace(const TaskContext& context) {
        return m_work[std::size_t(context.worker())];
    }
    std::vector<Index> sharing(std::vector<const WorkItem*>& items, Index group) const;
    enum class Look { Never, AtHeads, AtRows };
    std::vector<Rows> floatRows(const TensorView& x, Index heads, Index rows, Index width,
                                Look look, Scratch& copy, const Job& job);

    const std::string_view m_id;
    ThreadPool m_pool;
    const Simd& m_simd;
    std::vector<cpu::Workspace> m_work;
    std::timed_mutex m_busy;  ///< workspaces serve one operation at a time
};

/// One operation at a time; a waiting caller still notices a stop.
class Turn {
public:
    Turn(std::timed_mutex& mutex, const Job& job) : m_lock(mutex, std::defer_lock) {
        // By the system's clock: thread sanitizers do not know waits by the steady one.
        while (!m_lock.try_lock_until(std::chrono::system_clock::now() +
                                      std::chrono::milliseconds(20)))
            job.check();
    }

private:
    std::unique_lock<std::timed_mutex> m_lock;
};

/// Makes `heads` heads of x readable as float rows and looks for NaN and Inf in them: not at all,
/// in each head, or also in which of its rows.
std::vector<Rows> CpuSimd::floatRows(const TensorView& x, Index heads, Index rows, Index width,
                                     Look look, Scratch& copy, const Job& job) {
    std::vector<Rows> out(static_cast<std::size_t>(heads));
    const bool inPlace = x.t == DType::F32;
    float* to = inPlace ? nullptr : copy.get(std::size_t(heads * rows * width));
    const Index parts = ceilDiv(rows, kCopyRows);
    std::vector<std::uint8_t> finite(std::size_t(heads * parts), 1);
    const bool nothingToDo = inPlace && look == Look::Never;
    m_pool.run(
        nothingToDo ? 0 : heads * parts,
        [&](Index task, TaskContext& context) {
            context.check();
            const Index h = task / parts, first = task % parts * kCopyRows;
            const TensorView from = x.head(h);
            for (Index n = first; n < std::min(rows, first + kCopyRows); ++n) {
                const void* row = from.from(n).p;
                if (!inPlace) m_simd.widen(row, x.t, width, to + (h * rows + n) * width);
                const float* values =
                    inPlace ? static_cast<const float*>(row) : to + (h * rows + n) * width;
                if (look != Look::Never && !m_simd.finite(values, width))
                    finite[std::size_t(task)] = 0;
            }
        },
        Job({}, [&job] { return job.stopAsked(); }));
    for (Index h = 0; h < heads; ++h) {
        Rows& head = out[std::size_t(h)];
        head.p = inPlace ? static_cast<const float*>(x.head(h).p) : to + h * rows * width;
        head.stride = inPlace ? x.sn : width;
        for (Index part = 0; part < parts; ++part)
            head.finite = head.finite && finite[std::size_t(h * parts + part)];
        if (head.finite || look != Look::AtRows) continue;
        head.bad.resize(std::size_t(rows));
        for (Index n = 0; n < rows; ++n)
            head.bad[std::size_t(n)] = !m_simd.finite(head.p + n * head.stride, width);
    }
    return out;
}

/// Where runs of items end that have one K/V head and the same tiles: such query heads read the
/// keys once. Every item alone when that would leave threads without work.
std::vector<Index> CpuSimd::sharing(std::vector<const WorkItem*>& items, Index group) const {
    const auto place = [&](const WorkItem* i) {
        return std::tuple(i->head / group, i->qtile, i->first, i->count);
    };
    std::stable_sort(items.begin(), items.end(),
                     [&](const WorkItem* a, const WorkItem* b) { return place(a) < place(b); });
    std::vector<Index> together, alone;
    for (std::size_t i = 0; i < items.size(); ++i) {
        alone.push_back(Index(i) + 1);
        if (i > 0 && place(items[i]) == place(items[i - 1])) together.pop_back();
        together.push_back(Index(i) + 1);
    }
    return Index(together.size()) >= threads() ? together : alone;
}

Report CpuSimd::attend(const Problem& p, const TensorView& q, const TensorView& k,
                       const TensorView* v, const Plan& plan, const MutTensorView* o, float* lse,
                       const Job& job) {
    checkProblem(p);
    job.check();
    const Turn turn(m_busy, job);
    Report report = started();
    for (const WorkItem& item : plan.work) report.tiles += p.batch * item.count;

    // Rows that no work item covers keep nothing.
    const Index qTiles = ceilDiv(p.Nq, kTile);
    std::vector<std::uint8_t> covered(std::size_t(p.Hq * qTiles), 0);
    bool few = true;
    for (const WorkItem& item : plan.work) {
        covered[std::size_t(item.head * qTiles + item.qtile)] = 1;
        few = few && p.Nq - Index(item.qtile) * kTile <= kFewRows;
    }
    const auto outputOf = [&](Index batch, Index h) {
        cpu::ForwardOut out;
        if (o) {
            out.type = o->t;
            out.rowStride = o->sn;
            out.o = static_cast<char*>(o->p) + (batch * o->sb + h * o->sh) * bytesOf(o->t);
        }
        if (lse) out.lse = lse + (batch * p.Hq + h) * p.Nq;
        return out;
    };
    for (Index batch = 0; batch < p.batch; ++batch)
        for (Index h = 0; h < p.Hq; ++h)
            for (Index t = 0; t < qTiles; ++t) {
                if (covered[std::size_t(h * qTiles + t)]) continue;
                const cpu::ForwardOut out = outputOf(batch, h);
                for (Index row = t * kTile; row < std::min(p.Nq, (t + 1) * kTile); ++row) {
                    if (out.lse) out.lse[row] = -std::numeric_limits<float>::infinity();
                    if (out.o)
                        for (Index e = 0; e < p.dv; ++e)
                            storeFloat(out.o, out.type, row * out.rowStride + e, 0.0f);
                }
            }

    const Index group = p.Hq / p.Hkv;
    const auto headBytes = std::size_t(p.Nk) * std::size_t(p.d + (v ? p.dv : 0)) * sizeof(float);
    const bool copies = k.t != DType::F32 || (v && v->t != DType::F32);
    const Index atOnce = few || !copies || headBytes == 0
                             ? p.Hkv
                             : std::clamp<Index>(Index(kCopyBytes / headBytes), 1, p.Hkv);
    const Index rounds = p.batch * ceilDiv(p.Hkv, atOnce);
    Scratch kCopy, vCopy;
    std::vector<Index> nonFinite(std::size_t(threads()), 0);
    std::vector<Rows> kRows, vRows;
    std::vector<const WorkItem*> items;
    Index round = 0;
    for (Index batch = 0; batch < p.batch; ++batch)
        for (Index first = 0; first < p.Hkv; first += atOnce, ++round) {
            const Index heads = std::min(atOnce, p.Hkv - first);
            const auto at = [&](const TensorView& x, Index h) {
                TensorView y = x.head(h);
                y.p = static_cast<const char*>(y.p) + batch * x.sb * bytesOf(x.t);
                return y;
            };
            // Looking for NaN and Inf reads all keys and values once more than needed; most layers
            // hold none. Where that shows while working, it is looked for and those items are done
            // again. 16-bit rows are read to be widened anyway.
            const bool lookLater = !copies;
            const auto readRows = [&](bool look) {
                kRows = floatRows(at(k, first), heads, p.Nk, p.d,
                                  look ? Look::AtHeads : Look::Never, kCopy, job);
                if (v)
                    vRows = floatRows(at(*v, first), heads, p.Nk, p.dv,
                                      look ? Look::AtRows : Look::Never, vCopy, job);
            };
            if (!few) readRows(!lookLater);
            items.clear();
            for (const WorkItem& item : plan.work)
                if (item.head / group >= first && item.head / group < first + heads)
                    items.push_back(&item);
            const std::vector<Index> ends = few ? sharing(items, group) : std::vector<Index>();
            std::vector<std::vector<Index>> again(static_cast<std::size_t>(threads()));
            bool unchecked = !few && lookLater;
            const auto work = [&](Index task, TaskContext& context) {
                const Index begin = !few ? task : task > 0 ? ends[std::size_t(task - 1)] : 0;
                const Index end = few ? ends[std::size_t(task)] : task + 1;
                const WorkItem& item = *items[std::size_t(begin)];
                const Index kv = item.head / group;
                std::vector<Head> members;
                std::vector<cpu::ForwardOut> outs;
                for (Index i = begin; i < end; ++i) {
                    Head& head = members.emplace_back();
                    head.problem = &p;
                    head.head = items[std::size_t(i)]->head;
                    head.q = at(q, head.head);
                    head.kRaw = at(k, kv);
                    if (v) head.vRaw = at(*v, kv);
                    outs.push_back(outputOf(batch, head.head));
                    if (few) continue;
                    const Rows& rows = kRows[std::size_t(kv - first)];
                    head.unchecked = unchecked;
                    head.k = rows.p;
                    head.kStride = rows.stride;
                    head.kFinite = rows.finite;
                    if (!v) continue;
                    const Rows& values = vRows[std::size_t(kv - first)];
                    head.v = values.p;
                    head.vStride = values.stride;
                    head.vBad = values.bad.empty() ? nullptr : values.bad.data();
                }
                const bool rowWise = p.Nq - Index(item.qtile) * kTile <= kFewRows;
                const Index bad = rowWise ? m_simd.forwardRows(members, plan, item, outs,
                                                               workspace(context), context)
                                          : m_simd.forwardTile(members[0], plan, item, outs[0],
                                                               workspace(context), context);
                if (bad == cpu::kNeedsCheck)
                    again[std::size_t(context.worker())].push_back(task);
                else
                    nonFinite[std::size_t(context.worker())] += bad;
            };
            m_pool.run(few ? Index(ends.size()) : Index(items.size()), work, job,
                       double(round) / double(rounds), double(round + 1) / double(rounds));
            std::vector<Index> repeats;
            for (const auto& list : again) repeats.insert(repeats.end(), list.begin(), list.end());
            if (repeats.empty()) continue;
            readRows(true);
            unchecked = false;
            m_pool.run(
                Index(repeats.size()),
                [&](Index task, TaskContext& context) {
                    work(repeats[std::size_t(task)], context);
                },
                Job({}, [&job] { return job.stopAsked(); }));
        }
    for (const Index n : nonFinite) report.nonFiniteRows += n;
    return report;
}

Report CpuSimd::capture(const Problem& p, TensorView q, TensorView k, const CaptureSpec& spec,
                        const CaptureOut& out, const Job& job) {
    checkProblem(p);
    require(spec.block > 0, "capture blocks must have a positive edge");
    const bool topKeys = out.topKey || out.topP;
    require(!topKeys || spec.topK > 0, "a row's largest probabilities must be at least one");
    job.check();
    const Turn turn(m_busy, job);
    Report report = started();
    const Index width = m_simd.width, strips = ceilDiv(p.Nq, width);
    const Index perTile = std::max<Index>(1, kTile / width);
    const Index rowTasks = ceilDiv(strips, perTile), group = p.Hq / p.Hkv;
    const Index blockRows = ceilDiv(p.Nq, spec.block), blockCols = ceilDiv(p.Nk, spec.block);
    const Index diagonals = p.causal ? p.Nk : std::max<Index>(0, p.Nq + p.Nk - 1);
    const Index tileKeys = spec.block <= kTile ? kTile / spec.block * spec.block : spec.block;
    const Index owners = std::clamp<Index>(ceilDiv(p.Nk, tileKeys), 1, kOwners);
    const bool keyPass = out.blockSum || out.blockMax || out.colMass || out.diagMass;

    // Heads are done in groups that share a widened K and fit the memory for packed queries.
    const auto groupBytes =
        std::size_t(group * strips * width + p.Nk) * std::size_t(p.d) * sizeof(float) +
        (out.diagMass ? std::size_t(group * owners * diagonals) * sizeof(float) : 0);
    const Index atOnce =
        groupBytes == 0 ? p.Hkv : std::clamp<Index>(Index(kCopyBytes / groupBytes), 1, p.Hkv);
    const Index rounds = p.batch * ceilDiv(p.Hkv, atOnce);
    Scratch kCopy, packed, denominators, partial;
    std::vector<std::uint8_t> finite;
    std::vector<Index> nonFinite(std::size_t(threads()), 0);
    const auto offset = [](float* base, Index by) { return base ? base + by : nullptr; };
    Index round = 0;
    for (Index batch = 0; batch < p.batch; ++batch)
        for (Index first = 0; first < p.Hkv; first += atOnce, ++round) {
            const Index kvHeads = std::min(atOnce, p.Hkv - first), heads = kvHeads * group;
            const auto at = [&](const TensorView& x, Index h) {
                TensorView y = x.head(h);
                y.p = static_cast<const char*>(y.p) + batch * x.sb * bytesOf(x.t);
                return y;
            };
            const auto progress = [&](double within) {
                return (double(round) + within) / double(rounds);
            };
            const std::vector<Rows> kRows =
                floatRows(at(k, first), kvHeads, p.Nk, p.d, Look::AtHeads, kCopy, job);
            float* q0 = packed.get(std::size_t(heads * strips * width * p.d));
            float* den0 = denominators.get(std::size_t(heads * strips * width));
            float* diag0 =
                out.diagMass ? partial.get(std::size_t(heads * owners * diagonals)) : nullptr;
            finite.assign(std::size_t(heads * strips), 1);
            const auto headOf = [&](Index local) {
                Head head;
                head.problem = &p;
                head.head = first * group + local;
                head.q = at(q, head.head);
                head.kRaw = at(k, p.kvHead(head.head));
                const Rows& rows = kRows[std::size_t(local / group)];
                head.k = rows.p;
                head.kStride = rows.stride;
                head.kFinite = rows.finite;
                return head;
            };
            const auto passOf = [&](Index local) {
                const Index g = batch * p.Hq + first * group + local;
                cpu::CapturePass pass;
                pass.strips = strips;
                pass.packed = q0 + local * strips * width * p.d;
                pass.finite = finite.data() + local * strips;
                pass.denominator = den0 + local * strips * width;
                pass.block = spec.block;
                pass.tileKeys = tileKeys;
                pass.groups = owners;
                pass.sinkTokens = spec.sinkTokens;
                pass.localTokens = spec.localTokens;
                pass.topK = topKeys ? spec.topK : 0;
                pass.out.lse = offset(out.lse, g * p.Nq);
                pass.out.rowMax = offset(out.rowMax, g * p.Nq);
                pass.out.entropy = offset(out.entropy, g * p.Nq);
                pass.out.meanDistance = offset(out.meanDistance, g * p.Nq);
                pass.out.sinkMass = offset(out.sinkMass, g * p.Nq);
                pass.out.localMass = offset(out.localMass, g * p.Nq);
                pass.out.blockSum = offset(out.blockSum, g * blockRows * blockCols);
                pass.out.blockMax = offset(out.blockMax, g * blockRows * blockCols);
                pass.out.colMass = offset(out.colMass, g * p.Nk);
                if (out.topKey) pass.out.topKey = out.topKey + g * p.Nq * spec.topK;
                pass.out.topP = offset(out.topP, g * p.Nq * spec.topK);
                pass.diagonal = diag0 ? diag0 + local * owners * diagonals : nullptr;
                pass.diagonals = diagonals;
                return pass;
            };
            // Late rows see the most keys: hand them out first.
            m_pool.run(
                heads * rowTasks,
                [&](Index task, TaskContext& context) {
                    const Index local = task % heads, part = rowTasks - 1 - task / heads;
                    const Head head = headOf(local);
                    const cpu::CapturePass pass = passOf(local);
                    const Index begin = part * perTile, end = std::min(strips, begin + perTile);
                    for (Index i = begin; i < end; ++i)
                        finite[std::size_t(local * strips + i)] = m_simd.packStrip(
                            head, i * width, q0 + (local * strips + i) * width * p.d);
                    nonFinite[std::size_t(context.worker())] +=
                        m_simd.captureRows(head, pass, begin, end, workspace(context), context);
                },
                job, progress(0), progress(keyPass ? 0.5 : 1));
            if (!keyPass) continue;
            m_pool.run(
                heads * owners,
                [&](Index task, TaskContext& context) {
                    const Index local = task / owners;
                    m_simd.captureKeys(headOf(local), passOf(local), task % owners,
                                       workspace(context), context);
                },
                job, progress(0.5), progress(1));
            if (!out.diagMass) continue;
            for (Index local = 0; local < heads; ++local) {
                float* to = out.diagMass + (batch * p.Hq + first * group + local) * diagonals;
                for (Index s = 0; s < diagonals; ++s) {
                    double sum = 0;
                    for (Index owner = 0; owner < owners; ++owner)
                        sum += double(diag0[(local * owners + owner) * diagonals + s]);
                    to[s] = float(sum);
                }
            }
        }
    for (const Index n : nonFinite) report.nonFiniteRows += n;
    for (Index t = 0; t * kTile < p.Nq; ++t) {
        const Index last = std::min(p.Nq, (t + 1) * kTile) - 1;
        report.tiles += p.batch * p.Hq *
                        std::max<Index>(0, ceilDiv(p.visibleEnd(last), kTile) -
                                               p.visibleBegin(t * kTile) / kTile);
    }
    return report;
}

Report CpuSimd::render(const Problem& p, TensorView q, TensorView k, const float* lse,
                       const RenderSpec& spec, float* px, const Job& job) {
    checkProblem(p);
    require(p.Hq == 1 && p.Hkv == 1, "a rendering shows one head");
    require(0 <= spec.q0 && spec.q0 <= spec.q1 && spec.q1 <= p.Nq && 0 <= spec.k0 &&
                spec.k0 <= spec.k1 && spec.k1 <= p.Nk,
            "the rectangle to draw lies outside the map");
    require(spec.show == Show::All || spec.mask, "a rendering of kept or lost pairs needs a mask");
    job.check();
    const Turn turn(m_busy, job);
    Report report = started();
    if (spec.width <= 0 || spec.height <= 0) return report;
    const Index rowTokens = spec.q1 - spec.q0, colTokens = spec.k1 - spec.k0;
    if (rowTokens == 0 || colTokens == 0) {
        std::fill(px, px + spec.width * spec.height, -1.0f);
        return report;
    }
    // Bands of whole pixel rows of about 64 tokens.
    const Index perBand = std::max<Index>(1, ceilDiv(64 * spec.height, rowTokens));
    const Index bands = ceilDiv(spec.height, perBand);

    Scratch kCopy;
    TensorView keys = k.from(spec.k0);
    const std::vector<Rows> rows = floatRows(keys, 1, colTokens, p.d, Look::AtHeads, kCopy, job);
    Head head;
    head.problem = &p;
    head.q = q;
    head.kRaw = k;
    head.kStride = rows[0].stride;
    head.k = rows[0].p;
    head.kFirst = spec.k0;
    head.kFinite = rows[0].finite;
    cpu::RenderPass pass{&spec, lse, px};
    m_pool.run(
        bands,
        [&](Index task, TaskContext& context) {
            const Index first = (bands - 1 - task) * perBand;
            m_simd.render(head, pass, first, std::min(spec.height, first + perBand),
                          workspace(context), context);
        },
        job);
    report.tiles = ceilDiv(rowTokens, kTile) * ceilDiv(colTokens, kTile);
    return report;
}

Report CpuSimd::antidiagonal(const Problem& p, TensorView q, TensorView k, Index stride,
                             Index block, Index padTo, float* blockScore, const Job& job) {
    checkProblem(p);
    if (stride <= 0 || block <= 0 || block % stride != 0 || padTo < 0 || padTo % stride != 0)
        throw Error(Errc::Shape, "antidiagonal: the stride must divide the block and the padding");
    job.check();
    const Turn turn(m_busy, job);
    Report report = started();
    const Index pad = padTo > 0 ? padTo : block;
    cpu::AntidiagonalPass pass;
    pass.stride = stride;
    pass.block = block;
    pass.qGroups = ceilDiv(p.Nq, stride);
    pass.kGroups = ceilDiv(p.Nk, stride);
    pass.offset = (ceilDiv(p.Nk, pad) - ceilDiv(p.Nq, pad)) * pad / stride;
    pass.rows = ceilDiv(p.Nq, block);
    pass.cols = ceilDiv(p.Nk, block);
    const Index padded = pass.kGroups * stride, group = p.Hq / p.Hkv;
    // A strip of query groups spans several block rows where these are narrower.
    const Index rowsAtOnce = std::max<Index>(1, m_simd.width * stride / block);
    const Index tasks = ceilDiv(pass.rows, rowsAtOnce);
    const bool inPlace = k.t == DType::F32 && k.sn == p.d && padded == p.Nk;
    Scratch copy;
    for (Index batch = 0; batch < p.batch; ++batch)
        for (Index kv = 0; kv < p.Hkv; ++kv) {
            TensorView from = k.head(kv);
            from.p = static_cast<const char*>(from.p) + batch * k.sb * bytesOf(k.t);
            if (inPlace) {
                pass.keys = static_cast<const float*>(from.p);
            } else {
                float* keys = copy.get(std::size_t(padded * p.d));
                m_pool.run(
                    ceilDiv(padded, kCopyRows),
                    [&](Index task, TaskContext& context) {
                        context.check();
                        for (Index n = task * kCopyRows;
                             n < std::min(padded, (task + 1) * kCopyRows); ++n) {
                            if (n < p.Nk)
                                m_simd.widen(from.from(n).p, k.t, p.d, keys + n * p.d);
                            else
                                std::fill_n(keys + n * p.d, p.d, 0.0f);
                        }
                    },
                    Job({}, [&job] { return job.stopAsked(); }));
                pass.keys = keys;
            }
            const double done = double(batch * p.Hkv + kv), all = double(p.batch * p.Hkv);
            m_pool.run(
                group * tasks,
                [&](Index task, TaskContext& context) {
                    const Index h = kv * group + task % group;
                    Head head;
                    head.problem = &p;
                    head.head = h;
                    head.q = q.head(h);
                    head.q.p = static_cast<const char*>(head.q.p) + batch * q.sb * bytesOf(q.t);
                    cpu::AntidiagonalPass mine = pass;
                    mine.score = blockScore + (batch * p.Hq + h) * pass.rows * pass.cols;
                    // The last rows see the most keys: they go first.
                    const Index first = (tasks - 1 - task / group) * rowsAtOnce;
                    m_simd.antidiagonal(head, mine, first, std::min(pass.rows, first + rowsAtOnce),
                                        workspace(context), context);
                },
                job, done / all, (done + 1) / all);
        }
    return report;
}

}  // namespace

std::unique_ptr<Backend> makeCpuSimd(std::string_view id, const Simd& simd, int threads) {
    return std::make_unique<CpuSimd>(id, simd, threads);
}

}  // namespace sparsight::kernels
