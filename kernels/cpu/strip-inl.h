// Building blocks on strips of query rows; compiled once per instruction set (see simd.h).
#if defined(SPARSIGHT_STRIP_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SPARSIGHT_STRIP_INL_H
#undef SPARSIGHT_STRIP_INL_H
#else
#define SPARSIGHT_STRIP_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace sparsight::kernels::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using DI = hn::RebindToSigned<D>;
using V = hn::Vec<D>;
using VI = hn::Vec<DI>;

constexpr int kLanes = int(hn::MaxLanes(D{}));
// Six keys times kVecs vectors of accumulators, plus operands, must fit the registers.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kVecs = 4;
#else
constexpr int kVecs = 2;
#endif
constexpr int kWidth = kLanes * kVecs;
static_assert(64 % kWidth == 0, "a strip must lie in one half of a q tile");

constexpr float kNegInf = -std::numeric_limits<float>::infinity();
constexpr double kLn2 = 0.6931471805599453;
constexpr float kLog2e = 1.44269504088896341f;

/// 2^x for x <= 127, relative error below 2.5e-7; exactly 0 below -126 (so also at -inf); NaN
/// stays. Degree 5 minimax polynomial on [-0.5, 0.5] in relative error. Its constant term is 1
/// rather than the minimax 1.00000007: running sums are rescaled by 2^0 once per chunk of keys, and
/// that excess would grow with the number of chunks.
HWY_INLINE V exp2(V x) {
    const D d;
    // Adding 1.5 * 2^23 rounds to an integer in the low bits; 127 more makes it the exponent field.
    const V magic = hn::Set(d, 12582912.0f + 127.0f);
    const V t = hn::Add(x, magic);
    const V f = hn::Sub(x, hn::Sub(t, magic));
    V y = hn::Set(d, 0.0013276472f);
    y = hn::MulAdd(y, f, hn::Set(d, 0.00967554133f));
    y = hn::MulAdd(y, f, hn::Set(d, 0.0555071327f));
    y = hn::MulAdd(y, f, hn::Set(d, 0.240221197f));
    y = hn::MulAdd(y, f, hn::Set(d, 0.693146967f));
    y = hn::MulAdd(y, f, hn::Set(d, 1.0f));
    const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(DI{}, t)));
    return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)), hn::Mul(y, power));
}

HWY_INLINE V load16(const hwy::bfloat16_t* p) {
    const hn::Rebind<hwy::bfloat16_t, D> narrow;
    return hn::PromoteTo(D{}, hn::LoadU(narrow, p));
}
HWY_INLINE V load16(const hwy::float16_t* p) {
    const hn::Rebind<hwy::float16_t, D> narrow;
    return hn::PromoteTo(D{}, hn::LoadU(narrow, p));
}
HWY_INLINE V load16(const float* p) {
    return hn::LoadU(D{}, p);
}

inline float widenOne(hwy::bfloat16_t x) {
    std::uint16_t bits;
    std::memcpy(&bits, &x, 2);
    return bfloatToFloat(bits);
}
inline float widenOne(hwy::float16_t x) {
    std::uint16_t bits;
    std::memcpy(&bits, &x, 2);
    return halfToFloat(bits);
}
inline float widenOne(float x) {
    return x;
}

template <class T>
void widenAs(const T* from, Index n, float* to) {
    Index i = 0;
    for (; i + kLanes <= n; i += kLanes) hn::StoreU(load16(from + i), D{}, to + i);
    for (; i < n; ++i) to[i] = widenOne(from[i]);
}

void widen(const void* from, DType type, Index n, float* to) {
    if (type == DType::F32) {
        std::memcpy(to, from, std::size_t(n) * sizeof(float));
    } else if (type == DType::BF16) {
        widenAs(static_cast<const hwy::bfloat16_t*>(from), n, to);
    } else {
        widenAs(static_cast<const hwy::float16_t*>(from), n, to);
    }
}

bool finite(const float* from, Index n) {
    const D d;
    // x * 0 is 0 or NaN, and NaN survives the sum.
    V sum = hn::Zero(d);
    Index i = 0;
    for (; i + kLanes <= n; i += kLanes) sum = hn::MulAdd(hn::LoadU(d, from + i), hn::Zero(d), sum);
    float rest = hn::GetLane(hn::SumOfLanes(d, sum));
    for (; i < n; ++i) rest += from[i] * 0.0f;
    return rest == 0.0f;
}

/// Without soft-cap and bias the change to base 2 is folded into the packed queries.
inline bool plainScores(const Head& h) {
    return !(h.problem->softcap > 0) && !h.problem->relBias;
}
inline float packScale(const Head& h) {
    return plainScores(h) ? h.problem->scale * kLog2e : h.problem->scale;
}

/// Rows that will be read soon. They are fetched into the second-level cache line by line beside
/// the arithmetic; the hardware does that by itself only where rows follow each other.
class Ahead {
public:
    Ahead() = default;
    Ahead(const float* const* rows, int n, Index width)
        : m_row(rows), m_end(rows + n), m_width(width) {}
    /// One more cache line.
    HWY_INLINE void line() {
        if (m_row == m_end) return;
        __builtin_prefetch(*m_row + m_at, 0, 2);
        m_at += Index(64 / sizeof(float));
        if (m_at < m_width) return;
        m_at = 0;
        ++m_row;
    }
    Index lines() const { return (m_end - m_row) * ((m_width + 15) / 16); }

private:
    const float* const* m_row = nullptr;
    const float* const* m_end = nullptr;
    Index m_width = 0, m_at = 0;
};

/// Rows that are transposed together; 1 where vectors have one lane.
#if HWY_TARGET == HWY_SCALAR
constexpr int kCorner = 1;
#else
constexpr int kCorner = 4;
#endif
using DCorner = hn::CappedTag<float, kCorner>;

/// A square of kCorner: reads its rows `from` apart, puts each through `change`, writes its columns
/// `to` apart.
template <class Change>
HWY_INLINE void transposeCorner(const float* in, Index from, float* out, Index to,
                                const Change& change) {
    const DCorner d;
#if HWY_TARGET == HWY_SCALAR
    (void)from;
    (void)to;
    hn::StoreU(change(hn::LoadU(d, in)), d, out);
#else
    const auto r0 = change(hn::LoadU(d, in)), r1 = change(hn::LoadU(d, in + from)),
               r2 = change(hn::LoadU(d, in + 2 * from)), r3 = change(hn::LoadU(d, in + 3 * from));
    const auto a = hn::InterleaveLower(d, r0, r1), b = hn::InterleaveUpper(d, r0, r1),
               c = hn::InterleaveLower(d, r2, r3), e = hn::InterleaveUpper(d, r2, r3);
    hn::StoreU(hn::ConcatLowerLower(d, c, a), d, out);
    hn::StoreU(hn::ConcatUpperUpper(d, c, a), d, out + to);
    hn::StoreU(hn::ConcatLowerLower(d, e, b), d, out + 2 * to);
    hn::StoreU(hn::ConcatUpperUpper(d, e, b), d, out + 3 * to);
#endif
}

/// Widths up to which rows are widened on the stack.
constexpr Index kStackWidth = 256;

bool packAhead(const Head& h, Index row0, float* out, Ahead& ahead) {
    const Problem& p = *h.problem;
    const float scale = packScale(h);
    float rest = 0;
    // x * 0 is 0 or NaN, and NaN survives the sum.
    auto check = hn::Zero(DCorner{});
    const auto scaled = [&](auto x) HWY_ATTR {
        check = hn::MulAdd(x, hn::Zero(DCorner{}), check);
        return hn::Mul(x, hn::Set(DCorner{}, scale));
    };
    HWY_ALIGN float wide[kCorner * kStackWidth];
    for (int r0 = 0; r0 < kWidth; r0 += kCorner) {
        const Index row = row0 + r0;
        Index c = 0;
        if (row + kCorner <= p.Nq && p.d <= kStackWidth) {
            const TensorView q = h.q.from(row);
            const float* rows = static_cast<const float*>(q.p);
            Index stride = q.sn;
            if (q.t != DType::F32) {
                for (int r = 0; r < kCorner; ++r) widen(q.from(r).p, q.t, p.d, wide + r * p.d);
                rows = wide;
                stride = p.d;
            }
            for (; c + kCorner <= p.d; c += kCorner) {
                ahead.line();
                transposeCorner(rows + c, stride, out + c * kWidth + r0, kWidth, scaled);
            }
        }
        for (int r = 0; r < kCorner; ++r) {
            const TensorView from = h.q.from(std::min(row + r, p.Nq - 1));
            for (Index i = c; i < p.d; ++i) {
                const float x = row + r < p.Nq ? loadFloat(from.p, from.t, i) : 0.0f;
                rest += x * 0.0f;
                out[i * kWidth + r0 + r] = x * scale;
            }
        }
    }
    return rest + hn::GetLane(hn::SumOfLanes(DCorner{}, check)) == 0.0f;
}

bool packStrip(const Head& h, Index row0, float* out) {
    Ahead nothing;
    return packAhead(h, row0, out, nothing);
}

/// What the rows of a strip may see, for masks.
struct Strip {
    HWY_ALIGN std::int32_t position[kWidth];
    HWY_ALIGN std::int32_t begin[kWidth];
    Index row0;
    int rows;  ///< those that exist; other lanes hold anything
    Index minPosition, maxPosition, minBegin, maxBegin;

    Strip(const Problem& p, Index first)
        : row0(first), rows(int(std::min<Index>(kWidth, p.Nq - first))) {
        for (int r = 0; r < kWidth; ++r) {
            position[r] = std::int32_t(p.position(first + r));
            begin[r] = std::int32_t(p.visibleBegin(std::min(first + r, p.Nq - 1)));
        }
        minPosition = position[0];
        maxPosition = position[rows - 1];
        minBegin = begin[0];
        maxBegin = begin[rows - 1];
    }
};

template <int MR>
HWY_INLINE void scoreBlock(const float* const* rows, Index d, const float* HWY_RESTRICT q,
                           float* HWY_RESTRICT s, Ahead& ahead) {
    const D df;
    V acc[MR][kVecs];
    const float* r[MR];
    for (int i = 0; i < MR; ++i) {
        r[i] = rows[i];
        for (int v = 0; v < kVecs; ++v) acc[i][v] = hn::Zero(df);
    }
    const auto steps = [&](Index from, Index to) HWY_ATTR {
        for (Index t = from; t < to; ++t) {
            V b[kVecs];
            for (int v = 0; v < kVecs; ++v) b[v] = hn::Load(df, q + t * kWidth + v * kLanes);
            for (int i = 0; i < MR; ++i) {
                const V a = hn::Set(df, r[i][t]);
                for (int v = 0; v < kVecs; ++v) acc[i][v] = hn::MulAdd(a, b[v], acc[i][v]);
            }
        }
    };
    Index t = 0;
    for (; t + 16 <= d; t += 16) {
        for (int i = 0; i < MR; ++i) ahead.line();
        steps(t, t + 16);
    }
    steps(t, d);
    for (int i = 0; i < MR; ++i)
        for (int v = 0; v < kVecs; ++v) hn::Store(acc[i][v], df, s + i * kWidth + v * kLanes);
}

/// How many of the `n` rows left the next block takes: sixes, with a tail that is not tiny.
HWY_INLINE int blockRows(Index n) {
    return n > 8 || n == 6 ? 6 : n > 6 ? 4 : int(n);
}

/// s[c][width] = rows[c] . packed strip, for n keys.
HWY_NOINLINE void scoreStrip(const float* const* rows, int n, Index d, const float* q, float* s,
                             Ahead ahead = {}) {
    for (int c = 0; c < n;) {
        const int step = blockRows(n - c);
        float* to = s + c * kWidth;
        switch (step) {
            case 6:
                scoreBlock<6>(rows + c, d, q, to, ahead);
                break;
            case 5:
                scoreBlock<5>(rows + c, d, q, to, ahead);
                break;
            case 4:
                scoreBlock<4>(rows + c, d, q, to, ahead);
                break;
            case 3:
                scoreBlock<3>(rows + c, d, q, to, ahead);
                break;
            case 2:
                scoreBlock<2>(rows + c, d, q, to, ahead);
                break;
            default:
                scoreBlock<1>(rows + c, d, q, to, ahead);
        }
        c += step;
    }
}

/// Whether all scores are finite.
HWY_NOINLINE bool finiteScores(const float* s, int n) {
    const D d;
    // x * 0 is 0 or NaN, and NaN survives the sum.
    V even = hn::Zero(d), odd = even;
    for (int i = 0; i < n * kWidth; i += kLanes * kVecs)
        for (int v = 0; v < kVecs; v += 2) {
            even = hn::MulAdd(hn::Load(d, s + i + v * kLanes), hn::Zero(d), even);
            odd = hn::MulAdd(hn::Load(d, s + i + (v + 1) * kLanes), hn::Zero(d), odd);
        }
    return hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd))) == 0.0f;
}

/// Infinite dot products become NaN: a later soft-cap or mask must not hide them.
HWY_NOINLINE void poisonInfinite(float* s, int n) {
    const D d;
    for (int i = 0; i < n * kWidth; i += kLanes) {
        const V x = hn::Load(d, s + i);
        hn::Store(hn::Add(x, hn::Sub(x, x)), d, s + i);
    }
}

/// Soft-cap, then bias, then base 2; only where Head is not plain.
HWY_NOINLINE void transformScores(const Head& h, const Strip& strip, const std::int32_t* keys,
                                  int n, float* s) {
    const D d;
    const Problem& p = *h.problem;
    if (p.softcap > 0) {
        const V cap = hn::Set(d, p.softcap), inverse = hn::Set(d, 1.0f / p.softcap);
        for (int i = 0; i < n * kWidth; i += kLanes) {
            const V x = hn::Mul(hn::Load(d, s + i), inverse);
            // The library's tanh may swallow NaN.
            const V y = hn::IfThenElse(hn::IsNaN(x), x, hn::Tanh(d, x));
            hn::Store(hn::Mul(cap, y), d, s + i);
        }
    }
    if (const float* bias = h.bias()) {
        for (int c = 0; c < n; ++c)
            for (int r = 0; r < strip.rows; ++r)
                s[c * kWidth + r] += bias[keys[c] - (strip.row0 + r) + p.Nq - 1];
    }
    const V log2e = hn::Set(d, kLog2e);
    for (int i = 0; i < n * kWidth; i += kLanes)
        hn::Store(hn::Mul(hn::Load(d, s + i), log2e), d, s + i);
}

/// -inf where the key is after the row's position (causal) or before its window.
HWY_INLINE void maskStrip(const Strip& strip, bool causal, bool window, const std::int32_t* keys,
                          int n, float* s) {
    const D d;
    const DI di;
    const V negInf = hn::Set(d, kNegInf);
    for (int c = 0; c < n; ++c) {
        const bool late = causal && keys[c] > strip.minPosition;
        const bool early = window && keys[c] < strip.maxBegin;
        if (!late && !early) continue;
        const VI key = hn::Set(di, keys[c]);
        for (int v = 0; v < kVecs; ++v) {
            float* at = s + c * kWidth + v * kLanes;
            V x = hn::Load(d, at);
            if (late) {
                const auto out = hn::Gt(key, hn::Load(di, strip.position + v * kLanes));
                x = hn::IfThenElse(hn::RebindMask(d, out), negInf, x);
            }
            if (early) {
                const auto out = hn::Lt(key, hn::Load(di, strip.begin + v * kLanes));
                x = hn::IfThenElse(hn::RebindMask(d, out), negInf, x);
            }
            hn::Store(x, d, at);
        }
    }
}

template <int MR>
HWY_INLINE void valueBlock(const float* const* rows, int n, Index column,
                           const float* HWY_RESTRICT p, const float* HWY_RESTRICT alpha,
                           float* HWY_RESTRICT o, Ahead& ahead, int linesPer8) {
    const D df;
    V acc[MR][kVecs];
    for (int v = 0; v < kVecs; ++v) {
        const V a = hn::Load(df, alpha + v * kLanes);
        for (int i = 0; i < MR; ++i)
            acc[i][v] = hn::Mul(a, hn::Load(df, o + i * kWidth + v * kLanes));
    }
    const auto steps = [&](int from, int to) HWY_ATTR {
        for (int c = from; c < to; ++c) {
            const float* HWY_RESTRICT r = rows[c] + column;
            V b[kVecs];
            for (int v = 0; v < kVecs; ++v) b[v] = hn::Load(df, p + c * kWidth + v * kLanes);
            for (int i = 0; i < MR; ++i) {
                const V a = hn::Set(df, r[i]);
                for (int v = 0; v < kVecs; ++v) acc[i][v] = hn::MulAdd(a, b[v], acc[i][v]);
            }
        }
    };
    int c = 0;
    for (; c + 8 <= n; c += 8) {
        for (int i = 0; i < linesPer8; ++i) ahead.line();
        steps(c, c + 8);
    }
    steps(c, n);
    for (int i = 0; i < MR; ++i)
        for (int v = 0; v < kVecs; ++v) hn::Store(acc[i][v], df, o + i * kWidth + v * kLanes);
}

/// o[e][width] = alpha * o + sum over c of rows[c][e] * p[c][width].
HWY_NOINLINE void valueStrip(const float* const* rows, int n, Index dv, const float* p,
                             const float* alpha, float* o, Ahead ahead = {}) {
    const Index eights = std::max<Index>(1, n / 8 * ((dv + 5) / 6));
    const int lines = int((ahead.lines() + eights - 1) / eights);
    for (Index e = 0; e < dv;) {
        const int step = blockRows(dv - e);
        float* to = o + e * kWidth;
        switch (step) {
            case 6:
                valueBlock<6>(rows, n, e, p, alpha, to, ahead, lines);
                break;
            case 5:
                valueBlock<5>(rows, n, e, p, alpha, to, ahead, lines);
                break;
            case 4:
                valueBlock<4>(rows, n, e, p, alpha, to, ahead, lines);
                break;
            case 3:
                valueBlock<3>(rows, n, e, p, alpha, to, ahead, lines);
                break;
            case 2:
                valueBlock<2>(rows, n, e, p, alpha, to, ahead, lines);
                break;
            default:
                valueBlock<1>(rows, n, e, p, alpha, to, ahead, lines);
        }
        e += step;
    }
}

/// Running maximum after n more scores, and what to subtract (0 where nothing was seen yet).
HWY_INLINE V maxOf(const float* s, int n, V max) {
    for (int c = 0; c < n; ++c) max = hn::Max(max, hn::Load(D{}, s + c * kWidth));
    return max;
}
HWY_INLINE V baseOf(V max) {
    return hn::IfThenZeroElse(hn::Eq(max, hn::Set(D{}, kNegInf)), max);
}

/// log2 of the row's denominator with the sink's weight (base-2 logit), from its LSE in base 2.
inline double withSink(double lse2, double sink2) {
    if (std::isinf(lse2) && lse2 < 0) return lse2;
    if (std::isinf(sink2)) return lse2;
    const double top = std::max(lse2, sink2);
    return top + std::log2(std::exp2(lse2 - top) + std::exp2(sink2 - top));
}

/// Keys begin .. begin + n - 1 as the lists that the strip functions read.
struct KeyRun {
    const float* rows[kChunk];
    std::int32_t keys[kChunk];
    void set(const Head& h, Index begin, int n) {
        for (int c = 0; c < n; ++c) {
            rows[c] = h.k + (begin + c - h.kFirst) * h.kStride;
            keys[c] = std::int32_t(begin + c);
        }
    }
};

/// Masked base-2 scores of the visible part of a run.
inline void visibleScores(const Head& h, const Strip& strip, const KeyRun& run, int from, int n,
                          const float* q, bool qFinite, float* s) {
    scoreStrip(run.rows + from, n, h.problem->d, q, s);
    if (!h.kFinite || !qFinite) poisonInfinite(s, n);
    if (!plainScores(h)) transformScores(h, strip, run.keys + from, n, s);
    maskStrip(strip, h.problem->causal, h.problem->window > 0, run.keys + from, n, s);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace sparsight::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
