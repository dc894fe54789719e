// Attention over tile lists; compiled once per instruction set (see simd.h).
#if defined(SPARSIGHT_FORWARD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SPARSIGHT_FORWARD_INL_H
#undef SPARSIGHT_FORWARD_INL_H
#else
#define SPARSIGHT_FORWARD_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace sparsight::kernels::cpu {
namespace HWY_NAMESPACE {

/// The columns of a tile that one 64-row half uses.
struct Columns {
    int n = 0;
    std::int32_t keys[kChunk];
    std::uint8_t column[kChunk];

    void set(const Plan& plan, const KvTile& tile, int half, Index keyCount) {
        n = 0;
        const int limit = (tile.mask & MaskTail) || tile.kind == Gather ? tile.valid : kChunk;
        for (int part = 0; part < 2; ++part) {
            if (!(tile.own >> (2 * part + half) & 1)) continue;
            const int end = std::min(limit, 64 * part + 64);
            for (int c = 64 * part; c < end; ++c) {
                const std::int32_t key = tile.kind == Gather ? plan.gather[std::size_t(tile.a + c)]
                                         : tile.kind == Pair64 && part == 1 ? tile.b + c - 64
                                                                            : tile.a + c;
                if (key < 0 || key >= keyCount) continue;
                keys[n] = key;
                column[n++] = std::uint8_t(c);
            }
        }
    }
};

inline bool exactBit(const Plan& plan, std::size_t tile, Index row, int column) {
    const auto at = std::size_t(plan.bitsOffset[tile]) + std::size_t(row % kTile) * 2;
    return plan.bits[at + std::size_t(column >> 6)] >> (column & 63) & 1;
}

/// -inf where the tile's bits do not keep the pair.
HWY_NOINLINE void maskExact(const Plan& plan, std::size_t tile, const Strip& strip,
                            const std::uint8_t* column, int n, float* s) {
    const D d;
    const DI di;
    HWY_ALIGN std::int32_t words[4][kWidth];
    for (int r = 0; r < kWidth; ++r) {
        const auto at =
            std::size_t(plan.bitsOffset[tile]) + std::size_t((strip.row0 + r) % kTile) * 2;
        for (int w = 0; w < 4; ++w)
            words[w][r] =
                std::int32_t(std::uint32_t(plan.bits[at + std::size_t(w >> 1)] >> (32 * (w & 1))));
    }
    const V negInf = hn::Set(d, kNegInf);
    for (int c = 0; c < n; ++c) {
        const VI bit = hn::Set(di, std::int32_t(std::uint32_t(1) << (column[c] & 31)));
        for (int v = 0; v < kVecs; ++v) {
            float* at = s + c * kWidth + v * kLanes;
            const VI word = hn::Load(di, words[column[c] >> 5] + v * kLanes);
            const auto kept = hn::RebindMask(d, hn::TestBit(word, bit));
            hn::Store(hn::IfThenElse(kept, hn::Load(d, at), negInf), d, at);
        }
    }
}

/// Writes LSE and O of one finished row. @return 1 when NaN or Inf has got into it
inline Index finishRow(const Head& h, const ForwardOut& out, Index row, double max, double sum,
                       const float* o, Index oStride) {
    const double lse2 = sum > 0 || std::isnan(sum) ? max + std::log2(sum) : double(kNegInf);
    bool bad = std::isnan(lse2);
    if (out.lse) out.lse[row] = float(lse2 * kLn2);
    if (!out.o) return bad;
    double inverse = 0;
    if (sum > 0 || std::isnan(sum))
        inverse = std::exp2(max - withSink(lse2, double(h.sink()) * double(kLog2e)));
    const float factor = float(inverse);
    for (Index e = 0; e < h.problem->dv; ++e) {
        const float x = sum == 0 ? 0.0f : o[e * oStride] * factor;
        bad = bad || !std::isfinite(x);
        storeFloat(out.o, out.type, row * out.rowStride + e, x);
    }
    return bad;
}

Index forwardTile(const Head& h, const Plan& plan, const WorkItem& item, const ForwardOut& out,
                  Workspace& work, TaskContext& context) {
    const D d;
    const Problem& p = *h.problem;
    const Index first = Index(item.qtile) * kTile;
    const int rows = int(std::min<Index>(kTile, p.Nq - first));
    const int strips = (rows + kWidth - 1) / kWidth;
    const bool withV = out.o != nullptr;
    const auto packed = std::size_t(p.d * kWidth), outputs = std::size_t(withV ? p.dv * kWidth : 0);
    float* q = work.q.get(packed * std::size_t(strips));
    float* o = work.o.get(outputs * std::size_t(strips) + 16);
    float* s = work.s.get(std::size_t(kChunk) * kWidth);
    float* state = work.state.get(std::size_t(strips) * 2 * kWidth);
    std::fill(o, o + outputs * std::size_t(strips), 0.0f);
    bool qFinite[kTile];
    std::vector<Strip> strip;
    strip.reserve(std::size_t(strips));
    for (int i = 0; i < strips; ++i) {
        strip.emplace_back(p, first + i * kWidth);
        qFinite[i] = packStrip(h, first + i * kWidth, q + std::size_t(i) * packed);
        std::fill_n(state + i * 2 * kWidth, kWidth, kNegInf);
        std::fill_n(state + i * 2 * kWidth + kWidth, kWidth, 0.0f);
    }
    float* zeros = work.extra.get(std::size_t(p.dv) + 1);
    std::fill(zeros, zeros + p.dv, 0.0f);

    Columns halves[2];
    const float* kRows[2][kChunk];
    const float* vRows[2][kChunk];
    HWY_ALIGN float alpha[kWidth];
    for (std::int32_t t = item.first; t < item.first + item.count; ++t) {
        context.check();
        const auto tileIndex = std::size_t(t);
        const KvTile& tile = plan.tiles[tileIndex];
        const bool causal = tile.mask & MaskCausal, window = tile.mask & MaskWindow;
        const int usedHalves = rows > 64 ? 2 : 1;
        bool bad[2] = {false, false};
        for (int half = 0; half < usedHalves; ++half) {
            Columns& c = halves[half];
            c.set(plan, tile, half, p.Nk);
            for (int i = 0; i < c.n; ++i) {
                kRows[half][i] = h.k + c.keys[i] * h.kStride;
                if (!withV) continue;
                vRows[half][i] = h.v + c.keys[i] * h.vStride;
                if (h.vBad && h.vBad[c.keys[i]]) {
                    bad[half] = true;
                    vRows[half][i] = zeros;
                }
            }
        }
        for (int i = 0; i < strips; ++i) {
            const int half = i * kWidth / 64;
            const Columns& c = halves[half];
            int from = 0, end = c.n;
            if (causal)
                while (end > from && c.keys[end - 1] > strip[std::size_t(i)].maxPosition) --end;
            if (window)
                while (from < end && c.keys[from] < strip[std::size_t(i)].minBegin) ++from;
            const int n = end - from;
            if (n == 0) continue;
            const Strip& rowsOf = strip[std::size_t(i)];
            const std::int32_t* keys = c.keys + from;
            scoreStrip(kRows[half] + from, n, p.d, q + std::size_t(i) * packed, s);
            if (!h.kFinite || !qFinite[i]) poisonInfinite(s, n);
            if (!plainScores(h)) transformScores(h, rowsOf, keys, n, s);
            if (causal || window) maskStrip(rowsOf, causal, window, keys, n, s);
            if (tile.mask & MaskExact) maskExact(plan, tileIndex, rowsOf, c.column + from, n, s);

            // A kept key whose value is NaN or Inf reaches only the rows that keep it: 0 * NaN is
            // NaN.
            work.flags.clear();
            if (bad[half]) {
                for (int k = 0; k < n; ++k)
                    for (int r = 0; r < kWidth; ++r)
                        work.flags.push_back(s[k * kWidth + r] != kNegInf);
            }
            float* max = state + i * 2 * kWidth;
            float* sum = max + kWidth;
            for (int v = 0; v < kVecs; ++v) {
                const int lane = v * kLanes;
                const V before = hn::Load(d, max + lane);
                const V now = maxOf(s + lane, n, before);
                const V base = baseOf(now);
                const V scale = exp2(hn::Sub(before, base));
                V total = hn::Zero(d);
                for (int k = 0; k < n; ++k) {
                    const V weight = exp2(hn::Sub(hn::Load(d, s + k * kWidth + lane), base));
                    hn::Store(weight, d, s + k * kWidth + lane);
                    total = hn::Add(total, weight);
                }
                hn::Store(now, d, max + lane);
                hn::Store(scale, d, alpha + lane);
                hn::Store(hn::MulAdd(hn::Load(d, sum + lane), scale, total), d, sum + lane);
            }
            if (!withV) continue;
            float* to = o + std::size_t(i) * outputs;
            valueStrip(vRows[half] + from, n, p.dv, s, alpha, to);
            if (!bad[half]) continue;
            for (int k = 0; k < n; ++k) {
                if (!h.vBad[keys[k]]) continue;
                const float* value = h.v + keys[k] * h.vStride;
                for (int r = 0; r < rowsOf.rows; ++r) {
                    if (!work.flags[std::size_t(k * kWidth + r)]) continue;
                    for (Index e = 0; e < p.dv; ++e)
                        to[e * kWidth + r] += s[k * kWidth + r] * value[e];
                }
            }
        }
    }
    Index nonFinite = 0;
    for (int i = 0; i < strips; ++i)
        for (int r = 0; r < strip[std::size_t(i)].rows; ++r)
            nonFinite +=
                finishRow(h, out, first + i * kWidth + r, double(state[i * 2 * kWidth + r]),
                          double(state[i * 2 * kWidth + kWidth + r]),
                          o + std::size_t(i) * outputs + r, kWidth);
    return nonFinite;
}

/// q . k for four keys at a time.
template <class T>
HWY_INLINE void rowScores(const T* k, Index stride, const std::int32_t* keys, int n, Index width,
                          const float* q, float* s) {
    const D d;
    const Index whole = width / kLanes * kLanes;
    int c = 0;
    for (; c + 4 <= n; c += 4) {
        const T* r0 = k + keys[c] * stride;
        const T* r1 = k + keys[c + 1] * stride;
        const T* r2 = k + keys[c + 2] * stride;
        const T* r3 = k + keys[c + 3] * stride;
        V a0 = hn::Zero(d), a1 = a0, a2 = a0, a3 = a0;
        for (Index t = 0; t < whole; t += kLanes) {
            const V x = hn::LoadU(d, q + t);
            a0 = hn::MulAdd(x, load16(r0 + t), a0);
            a1 = hn::MulAdd(x, load16(r1 + t), a1);
            a2 = hn::MulAdd(x, load16(r2 + t), a2);
            a3 = hn::MulAdd(x, load16(r3 + t), a3);
        }
        s[c] = hn::GetLane(hn::SumOfLanes(d, a0));
        s[c + 1] = hn::GetLane(hn::SumOfLanes(d, a1));
        s[c + 2] = hn::GetLane(hn::SumOfLanes(d, a2));
        s[c + 3] = hn::GetLane(hn::SumOfLanes(d, a3));
    }
    for (; c < n; ++c) {
        const T* r0 = k + keys[c] * stride;
        V a = hn::Zero(d);
        for (Index t = 0; t < whole; t += kLanes)
            a = hn::MulAdd(hn::LoadU(d, q + t), load16(r0 + t), a);
        s[c] = hn::GetLane(hn::SumOfLanes(d, a));
    }
    if (whole == width) return;
    for (c = 0; c < n; ++c)
        for (Index t = whole; t < width; ++t) s[c] += q[t] * widenOne(k[keys[c] * stride + t]);
}

template <int NV, class T>
HWY_INLINE void rowValueBlock(const T* v, Index stride, const std::int32_t* keys, int n,
                              const float* p, float alpha, float* o) {
    const D d;
    V acc[NV];
    for (int i = 0; i < NV; ++i) acc[i] = hn::Mul(hn::Set(d, alpha), hn::LoadU(d, o + i * kLanes));
    for (int c = 0; c < n; ++c) {
        const T* row = v + keys[c] * stride;
        const V weight = hn::Set(d, p[c]);
        for (int i = 0; i < NV; ++i) acc[i] = hn::MulAdd(weight, load16(row + i * kLanes), acc[i]);
    }
    for (int i = 0; i < NV; ++i) hn::StoreU(acc[i], d, o + i * kLanes);
}

template <class T>
HWY_INLINE void rowValues(const T* v, Index stride, const std::int32_t* keys, int n, Index width,
                          const float* p, float alpha, float* o) {
    Index e = 0;
    for (; e + 8 * kLanes <= width; e += 8 * kLanes)
        rowValueBlock<8>(v + e, stride, keys, n, p, alpha, o + e);
    for (; e + 4 * kLanes <= width; e += 4 * kLanes)
        rowValueBlock<4>(v + e, stride, keys, n, p, alpha, o + e);
    for (; e + kLanes <= width; e += kLanes)
        rowValueBlock<1>(v + e, stride, keys, n, p, alpha, o + e);
    for (; e < width; ++e) {
        float sum = o[e] * alpha;
        for (int c = 0; c < n; ++c) sum += p[c] * widenOne(v[keys[c] * stride + e]);
        o[e] = sum;
    }
}

/// Keys of a tile that one row keeps.
inline int keptOfTile(const Head& h, const Plan& plan, std::size_t tileIndex, Index row,
                      const Columns& columns, std::int32_t* keys) {
    const KvTile& tile = plan.tiles[tileIndex];
    const Index position = h.problem->position(row), begin = h.problem->visibleBegin(row);
    int n = 0;
    for (int c = 0; c < columns.n; ++c) {
        const std::int32_t key = columns.keys[c];
        if ((tile.mask & MaskCausal) && key > position) continue;
        if ((tile.mask & MaskWindow) && key < begin) continue;
        if ((tile.mask & MaskExact) && !exactBit(plan, tileIndex, row, columns.column[c])) continue;
        keys[n++] = key;
    }
    return n;
}

Index forwardRows(const Head& h, const Plan& plan, const WorkItem& item, const ForwardOut& out,
                  Workspace& work, TaskContext& context) {
    const D d;
    const Problem& p = *h.problem;
    const Index first = Index(item.qtile) * kTile, last = std::min(first + kTile, p.Nq);
    float* q = work.q.get(std::size_t(p.d) + kLanes);
    float* o = work.o.get(std::size_t(p.dv) + kLanes);
    HWY_ALIGN float s[kChunk + 16];
    std::int32_t keys[kChunk];
    Columns columns;
    const bool plain = plainScores(h);
    Index nonFinite = 0;
    for (Index row = first; row < last; ++row) {
        const TensorView from = h.q.from(row);
        for (Index c = 0; c < p.d; ++c) q[c] = loadFloat(from.p, from.t, c) * packScale(h);
        std::fill(o, o + p.dv, 0.0f);
        float max = kNegInf;
        double sum = 0;
        for (std::int32_t t = item.first; t < item.first + item.count; ++t) {
            if ((t & 15) == 0) context.check();
            columns.set(plan, plan.tiles[std::size_t(t)], int(row % kTile / 64), p.Nk);
            const int n = keptOfTile(h, plan, std::size_t(t), row, columns, keys);
            if (n == 0) continue;
            switch (h.kRaw.t) {
                case DType::F32:
                    rowScores(static_cast<const float*>(h.kRaw.p), h.kRaw.sn, keys, n, p.d, q, s);
                    break;
                case DType::BF16:
                    rowScores(static_cast<const hwy::bfloat16_t*>(h.kRaw.p), h.kRaw.sn, keys, n,
                              p.d, q, s);
                    break;
                case DType::F16:
                    rowScores(static_cast<const hwy::float16_t*>(h.kRaw.p), h.kRaw.sn, keys, n, p.d,
                              q, s);
            }
            float top = max;
            for (int c = 0; c < n; ++c) {
                s[c] += s[c] - s[c];
                if (!plain) {
                    if (p.softcap > 0) s[c] = p.softcap * std::tanh(s[c] / p.softcap);
                    if (h.bias()) s[c] += h.bias()[keys[c] - row + p.Nq - 1];
                    s[c] *= kLog2e;
                }
                top = s[c] > top || std::isnan(s[c]) ? s[c] : top;
            }
            const float base = top == kNegInf ? 0.0f : top;
            for (int c = n; c < n + kLanes; ++c) s[c] = kNegInf;
            V total = hn::Zero(d);
            for (int c = 0; c < n; c += kLanes) {
                const V weight = exp2(hn::Sub(hn::Load(d, s + c), hn::Set(d, base)));
                hn::Store(weight, d, s + c);
                total = hn::Add(total, weight);
            }
            const float alpha = std::exp2(max - base);
            max = top;
            float tile = hn::GetLane(hn::SumOfLanes(d, total));
            if (std::isnan(top)) tile = top;
            sum = sum * double(alpha) + double(tile);
            if (!out.o) continue;
            switch (h.vRaw.t) {
                case DType::F32:
                    rowValues(static_cast<const float*>(h.vRaw.p), h.vRaw.sn, keys, n, p.dv, s,
                              alpha, o);
                    break;
                case DType::BF16:
                    rowValues(static_cast<const hwy::bfloat16_t*>(h.vRaw.p), h.vRaw.sn, keys, n,
                              p.dv, s, alpha, o);
                    break;
                case DType::F16:
                    rowValues(static_cast<const hwy::float16_t*>(h.vRaw.p), h.vRaw.sn, keys, n,
                              p.dv, s, alpha, o);
            }
        }
        nonFinite += finishRow(h, out, row, double(max), sum, o, 1);
    }
    return nonFinite;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace sparsight::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
