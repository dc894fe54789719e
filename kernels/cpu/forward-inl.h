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

/// Writes the LSE of a row. @return what its O has to be multiplied with; NaN for a poisoned row
inline float finishSum(const Head& h, const ForwardOut& out, Index row, double max, double sum) {
    const bool empty = sum == 0;
    const double lse2 = empty ? double(kNegInf) : max + std::log2(sum);
    if (out.lse) out.lse[row] = float(lse2 * kLn2);
    if (empty) return 0;
    if (std::isnan(lse2)) return float(lse2);
    if (std::isinf(h.sink())) return float(1 / sum);
    return float(std::exp2(max - withSink(lse2, double(h.sink()) * double(kLog2e))));
}

/// Writes O of one row. @return 1 when NaN or Inf has got into it
inline Index finishRow(const Head& h, const ForwardOut& out, Index row, float factor,
                       const float* o) {
    bool bad = std::isnan(factor);
    if (!out.o) return bad;
    for (Index e = 0; e < h.problem->dv; ++e) {
        const float x = o[e] * factor;
        bad = bad || !std::isfinite(x);
        storeFloat(out.o, out.type, row * out.rowStride + e, x);
    }
    return bad;
}

/// The same for the rows of a strip, kCorner at a time. @param o [dv][kWidth]
/// @param lines room for kCorner x dv floats
inline Index finishStrip(const Head& h, const ForwardOut& out, const Strip& strip, const float* max,
                         const float* sum, const float* o, float* lines) {
    const DCorner d;
    const Index dv = h.problem->dv;
    HWY_ALIGN float factor[kWidth] = {};
    for (int r = 0; r < strip.rows; ++r)
        factor[r] = finishSum(h, out, strip.row0 + r, double(max[r]), double(sum[r]));
    Index nonFinite = 0;
    for (int r0 = 0; r0 < strip.rows; r0 += kCorner) {
        const int rows = std::min(kCorner, strip.rows - r0);
        HWY_ALIGN float checks[kCorner] = {};
        if (out.o) {
            const bool direct = out.type == DType::F32 && rows == kCorner;
            float* to =
                direct ? static_cast<float*>(out.o) + (strip.row0 + r0) * out.rowStride : lines;
            const Index stride = direct ? out.rowStride : dv;
            const auto factors = hn::Load(d, factor + r0);
            auto check = hn::Zero(d);
            const auto scaled = [&](auto x) HWY_ATTR {
                const auto y = hn::Mul(x, factors);
                check = hn::MulAdd(y, hn::Zero(d), check);
                return y;
            };
            Index e = 0;
            for (; e + kCorner <= dv; e += kCorner)
                transposeCorner(o + e * kWidth + r0, kWidth, to + e, stride, scaled);
            hn::Store(check, d, checks);
            for (; e < dv; ++e)
                for (int r = 0; r < rows; ++r) {
                    const float x = o[e * kWidth + r0 + r] * factor[r0 + r];
                    checks[r] += x * 0.0f;
                    to[r * stride + e] = x;
                }
            if (!direct)
                for (int r = 0; r < rows; ++r)
                    for (Index i = 0; i < dv; ++i)
                        storeFloat(out.o, out.type, (strip.row0 + r0 + r) * out.rowStride + i,
                                   lines[r * dv + i]);
        }
        for (int r = 0; r < rows; ++r) nonFinite += std::isnan(factor[r0 + r]) || checks[r] != 0.0f;
    }
    return nonFinite;
}

/// Keys that one half of a q tile works on together: those of one tile or, where tiles are narrow
/// for this half, of several. Rescaling O costs the same for few keys as for many.
struct Chunk {
    struct Part {
        std::int32_t tile;
        int end;  ///< the part's keys end here in the lists
    };
    int n = 0;
    std::vector<Part> parts;
    bool bad = false;  ///< some value row holds NaN or Inf; it reads as zeros here
    std::int32_t keys[kChunk];
    std::uint8_t column[kChunk];
    const float* k[kChunk];
    const float* v[kChunk];

    void clear() {
        n = 0;
        parts.clear();
        bad = false;
    }
    /// Adds the columns of a tile that one 64-row half uses.
    void add(const Head& h, const Plan& plan, std::int32_t tileIndex, int half, bool withV,
             const float* zeros) {
        const KvTile& tile = plan.tiles[std::size_t(tileIndex)];
        const int limit = (tile.mask & MaskTail) || tile.kind == Gather ? tile.valid : kChunk;
        const int before = n;
        for (int part = 0; part < 2; ++part) {
            if (!(tile.own >> (2 * part + half) & 1)) continue;
            const int first = 64 * part, count = std::min(limit, first + 64) - first;
            if (count <= 0) continue;
            if (tile.kind == Gather) {
                for (int i = 0; i < count; ++i)
                    keys[n + i] = plan.gather[std::size_t(tile.a + first + i)];
                takeKeys(h, first, count, withV);
                continue;
            }
            // A run may reach over both ends of the keys.
            const std::int32_t key = tile.kind == Pair64 && part == 1 ? tile.b : tile.a + first;
            const int from = std::max(0, -key);
            const int to = int(std::min<Index>(count, h.problem->Nk - key));
            if (from >= to) continue;
            for (int i = from; i < to; ++i) keys[n + i - from] = key + i;
            takeKeys(h, first + from, to - from, withV);
        }
        if (n == before) return;
        parts.push_back({tileIndex, n});
        if (!withV || !h.vBad) return;
        for (int i = before; i < n; ++i) {
            if (!h.vBad[keys[i]]) continue;
            bad = true;
            v[i] = zeros;
        }
    }

private:
    /// The other lists of the `count` keys that have just been written behind the last one.
    void takeKeys(const Head& h, int firstColumn, int count, bool withV) {
        for (int i = 0; i < count; ++i) column[n + i] = std::uint8_t(firstColumn + i);
        for (int i = 0; i < count; ++i) k[n + i] = h.k + keys[n + i] * h.kStride;
        if (withV)
            for (int i = 0; i < count; ++i) v[n + i] = h.v + keys[n + i] * h.vStride;
        n += count;
    }
};

/// The rows of one q tile at work.
class TileForward {
public:
    TileForward(const Head& h, const Plan& plan, const WorkItem& item, const ForwardOut& out,
                Workspace& work, TaskContext& context)
        : m_h(h),
          m_p(*h.problem),
          m_plan(plan),
          m_item(item),
          m_out(out),
          m_work(work),
          m_context(context),
          m_first(Index(item.qtile) * kTile),
          m_rows(int(std::min<Index>(kTile, m_p.Nq - m_first))),
          m_strips((m_rows + kWidth - 1) / kWidth),
          m_packed(std::size_t(m_p.d * kWidth)),
          m_outputs(std::size_t(out.o ? m_p.dv * kWidth : 0)),
          m_q(work.q.get(m_packed * std::size_t(m_strips))),
          m_o(work.o.get(m_outputs * std::size_t(m_strips) + 16)),
          m_s(work.s.get(std::size_t(kChunk) * kWidth)),
          m_state(work.state.get(std::size_t(m_strips) * 2 * kWidth)),
          m_zeros(work.extra.get(std::size_t(m_p.dv) * (kCorner + 1) + 1)) {
        std::fill(m_o, m_o + m_outputs * std::size_t(m_strips), 0.0f);
        std::fill(m_zeros, m_zeros + m_p.dv, 0.0f);
        m_strip.reserve(std::size_t(m_strips));
        // The first keys come into the cache while the queries are packed.
        if (item.count > 0) filling(0).add(h, plan, item.first, 0, withV(), m_zeros);
        Ahead firstKeys = keysOf(filling(0));
        for (int i = 0; i < m_strips; ++i) {
            m_strip.emplace_back(m_p, m_first + i * kWidth);
            m_finite[i] =
                packAhead(h, m_first + i * kWidth, m_q + std::size_t(i) * m_packed, firstKeys);
            std::fill_n(m_state + i * 2 * kWidth, kWidth, kNegInf);
            std::fill_n(m_state + i * 2 * kWidth + kWidth, kWidth, 0.0f);
        }
    }

    /// @return rows poisoned by NaN or Inf, or kNeedsCheck
    Index run() {
        const int halves = m_rows > 64 ? 2 : 1;
        for (std::int32_t t = m_item.first; t < m_item.first + m_item.count && !m_needsCheck; ++t) {
            const KvTile& tile = m_plan.tiles[std::size_t(t)];
            const int valid = tile.mask & MaskTail || tile.kind == Gather ? tile.valid : kChunk;
            for (int half = 0; half < halves; ++half) {
                if (t == m_item.first && half == 0) continue;  // the constructor has taken it
                const int most = (tile.own >> half & 1 ? std::min(valid, 64) : 0) +
                                 (tile.own >> (2 + half) & 1 ? std::max(valid - 64, 0) : 0);
                // A chunk that is full waits until the next one is known, to fetch that ahead.
                if (filling(half).n + most > kChunk) {
                    work(half);
                    m_turn[half] ^= 1;
                }
                filling(half).add(m_h, m_plan, t, half, withV(), m_zeros);
            }
        }
        for (int half = 0; half < halves; ++half) {
            work(half);
            m_turn[half] ^= 1;
            work(half);
        }
        if (m_needsCheck) return kNeedsCheck;
        Index nonFinite = 0;
        for (int i = 0; i < m_strips; ++i)
            nonFinite += finishStrip(m_h, m_out, m_strip[std::size_t(i)], m_state + i * 2 * kWidth,
                                     m_state + i * 2 * kWidth + kWidth,
                                     m_o + std::size_t(i) * m_outputs, m_zeros + m_p.dv);
        // A NaN in O may come from a value that no row keeps.
        return m_h.unchecked && nonFinite > 0 ? kNeedsCheck : nonFinite;
    }

private:
    bool withV() const { return m_out.o != nullptr; }
    Ahead keysOf(const Chunk& chunk) const { return Ahead(chunk.k, chunk.n, m_p.d); }
    Chunk& filling(int half) { return m_chunks[half][m_turn[half]]; }
    Chunk& waiting(int half) { return m_chunks[half][m_turn[half] ^ 1]; }

    /// Does the waiting chunk of a half. Its first strip fetches the values of the chunk, then the
    /// keys of the one that is being filled.
    void work(int half) {
        Chunk& chunk = waiting(half);
        if (chunk.n == 0) return;
        m_context.check();
        for (int i = half * 64 / kWidth; i < m_strips && i * kWidth < (half + 1) * 64; ++i)
            strip(i, chunk, i * kWidth % 64 == 0 ? &filling(half) : nullptr);
        chunk.clear();
    }

    void strip(int i, const Chunk& chunk, const Chunk* next) {
        const D d;
        const Strip& rows = m_strip[std::size_t(i)];
        // Keys that no row of the strip sees, at both ends.
        int from = 0, end = chunk.n;
        for (auto part = chunk.parts.rbegin(); part != chunk.parts.rend() && end == part->end;
             ++part) {
            const int begin = part + 1 == chunk.parts.rend() ? 0 : (part + 1)->end;
            if (m_plan.tiles[std::size_t(part->tile)].mask & MaskCausal)
                while (end > begin && chunk.keys[end - 1] > rows.maxPosition) --end;
        }
        if (m_plan.tiles[std::size_t(chunk.parts[0].tile)].mask & MaskWindow)
            while (from < std::min(end, chunk.parts[0].end) && chunk.keys[from] < rows.minBegin)
                ++from;
        const int n = end - from;
        if (n == 0) return;
        float* s = m_s;
        scoreStrip(chunk.k + from, n, m_p.d, m_q + std::size_t(i) * m_packed, s,
                   !next     ? Ahead()
                   : withV() ? Ahead(chunk.v + from, n, m_p.dv)
                             : keysOf(*next));
        if (m_h.unchecked && !finiteScores(s, n)) {
            m_needsCheck = true;
            return;
        }
        if (!m_h.kFinite || !m_finite[i]) poisonInfinite(s, n);
        if (!plainScores(m_h)) transformScores(m_h, rows, chunk.keys + from, n, s);
        int begin = from;
        for (const Chunk::Part& part : chunk.parts) {
            const int stop = std::min(part.end, end);
            if (stop <= begin) continue;
            const std::uint32_t mask = m_plan.tiles[std::size_t(part.tile)].mask;
            float* at = s + (begin - from) * kWidth;
            const bool causal = mask & MaskCausal, window = mask & MaskWindow;
            if (causal || window)
                maskStrip(rows, causal, window, chunk.keys + begin, stop - begin, at);
            if (mask & MaskExact)
                maskExact(m_plan, std::size_t(part.tile), rows, chunk.column + begin, stop - begin,
                          at);
            begin = stop;
        }

        // A kept key whose value is NaN or Inf reaches only the rows that keep it: 0 * NaN is NaN.
        m_work.flags.clear();
        if (chunk.bad) {
            for (int k = 0; k < n; ++k)
                for (int r = 0; r < kWidth; ++r)
                    m_work.flags.push_back(s[k * kWidth + r] != kNegInf);
        }
        HWY_ALIGN float alpha[kWidth];
        float* max = m_state + i * 2 * kWidth;
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
        if (!withV()) return;
        float* to = m_o + std::size_t(i) * m_outputs;
        valueStrip(chunk.v + from, n, m_p.dv, s, alpha, to, next ? keysOf(*next) : Ahead());
        if (!chunk.bad) return;
        for (int k = 0; k < n; ++k) {
            const std::int32_t key = chunk.keys[from + k];
            if (!m_h.vBad[key]) continue;
            const float* value = m_h.v + key * m_h.vStride;
            for (int r = 0; r < rows.rows; ++r) {
                if (!m_work.flags[std::size_t(k * kWidth + r)]) continue;
                for (Index e = 0; e < m_p.dv; ++e)
                    to[e * kWidth + r] += s[k * kWidth + r] * value[e];
            }
        }
    }

    const Head& m_h;
    const Problem& m_p;
    const Plan& m_plan;
    const WorkItem& m_item;
    const ForwardOut& m_out;
    Workspace& m_work;
    TaskContext& m_context;
    const Index m_first;
    const int m_rows, m_strips;
    const std::size_t m_packed, m_outputs;
    float *m_q, *m_o, *m_s, *m_state;
    float* m_zeros;  ///< [dv] zeros, then room for kCorner rows
    bool m_finite[kTile];
    bool m_needsCheck = false;
    std::vector<Strip> m_strip;
    Chunk m_chunks[2][2];  ///< [half]: one is filled, the other waits
    int m_turn[2] = {0, 0};
};

Index forwardTile(const Head& h, const Plan& plan, const WorkItem& item, const ForwardOut& out,
                  Workspace& work, TaskContext& context) {
    return TileForward(h, plan, item, out, work, context).run();
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

/// q . k of one query and the listed keys, from rows of any type.
inline void scoresOf(const Head& h, const std::int32_t* keys, int n, const float* q, float* s) {
    const Index d = h.problem->d;
    switch (h.kRaw.t) {
        case DType::F32:
            rowScores(static_cast<const float*>(h.kRaw.p), h.kRaw.sn, keys, n, d, q, s);
            break;
        case DType::BF16:
            rowScores(static_cast<const hwy::bfloat16_t*>(h.kRaw.p), h.kRaw.sn, keys, n, d, q, s);
            break;
        case DType::F16:
            rowScores(static_cast<const hwy::float16_t*>(h.kRaw.p), h.kRaw.sn, keys, n, d, q, s);
    }
}

/// o = alpha o + sum of p v over the listed keys.
inline void valuesOf(const Head& h, const std::int32_t* keys, int n, const float* p, float alpha,
                     float* o) {
    const Index dv = h.problem->dv;
    switch (h.vRaw.t) {
        case DType::F32:
            rowValues(static_cast<const float*>(h.vRaw.p), h.vRaw.sn, keys, n, dv, p, alpha, o);
            break;
        case DType::BF16:
            rowValues(static_cast<const hwy::bfloat16_t*>(h.vRaw.p), h.vRaw.sn, keys, n, dv, p,
                      alpha, o);
            break;
        case DType::F16:
            rowValues(static_cast<const hwy::float16_t*>(h.vRaw.p), h.vRaw.sn, keys, n, dv, p,
                      alpha, o);
    }
}

Index forwardRows(std::span<const Head> heads, const Plan& plan, const WorkItem& item,
                  std::span<const ForwardOut> outs, Workspace& work, TaskContext& context) {
    const D d;
    const Head& any = heads[0];
    const Problem& p = *any.problem;
    const Index first = Index(item.qtile) * kTile, last = std::min(first + kTile, p.Nq);
    const bool withV = outs[0].o != nullptr;
    const auto qRow = std::size_t(p.d) + kLanes, oRow = std::size_t(p.dv) + kLanes;
    float* qs = work.q.get(heads.size() * qRow);
    float* os = work.o.get(heads.size() * oRow);
    std::vector<float> maxima(heads.size());
    std::vector<double> sums(heads.size());
    HWY_ALIGN float s[kChunk + 16];
    std::int32_t keys[kChunk];
    Columns columns;
    const bool plain = plainScores(any);
    Index nonFinite = 0;
    for (Index row = first; row < last; ++row) {
        for (std::size_t g = 0; g < heads.size(); ++g) {
            const TensorView from = heads[g].q.from(row);
            for (Index c = 0; c < p.d; ++c)
                qs[g * qRow + std::size_t(c)] = loadFloat(from.p, from.t, c) * packScale(any);
            std::fill_n(os + g * oRow, p.dv, 0.0f);
            maxima[g] = kNegInf;
            sums[g] = 0;
        }
        for (std::int32_t t = item.first; t < item.first + item.count; ++t) {
            if ((t & 15) == 0) context.check();
            columns.set(plan, plan.tiles[std::size_t(t)], int(row % kTile / 64), p.Nk);
            const int n = keptOfTile(any, plan, std::size_t(t), row, columns, keys);
            if (n == 0) continue;
            // The tile's keys and values stay in the cache for all heads of the group.
            for (std::size_t g = 0; g < heads.size(); ++g) {
                const Head& h = heads[g];
                scoresOf(h, keys, n, qs + g * qRow, s);
                float top = maxima[g];
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
                const float alpha = std::exp2(maxima[g] - base);
                maxima[g] = top;
                float tile = hn::GetLane(hn::SumOfLanes(d, total));
                if (std::isnan(top)) tile = top;
                sums[g] = sums[g] * double(alpha) + double(tile);
                if (withV) valuesOf(h, keys, n, s, alpha, os + g * oRow);
            }
        }
        for (std::size_t g = 0; g < heads.size(); ++g)
            nonFinite += finishRow(heads[g], outs[g], row,
                                   finishSum(heads[g], outs[g], row, double(maxima[g]), sums[g]),
                                   os + g * oRow);
    }
    return nonFinite;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace sparsight::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
