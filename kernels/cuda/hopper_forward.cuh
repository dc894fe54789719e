#pragma once

#include <cfloat>

#include "kernels/cuda/hopper_producer.cuh"

namespace sparsight::kernels::cuda::hopper {

/// The two rows of a thread while it walks their keys, in base 2.
struct RowState {
    float max[2] = {-INFINITY, -INFINITY};  ///< of scores; base-2 logits are `factor` times these
    float sum[2] = {0, 0};                  ///< of this thread's columns, as all below
    float moment[2] = {0, 0};               ///< sum of 2^(x - max) (x - max)
    float distance[2] = {0, 0}, sink[2] = {0, 0}, local[2] = {0, 0};
};

constexpr int kStoreBarrier = 4;  ///< named barriers of the warpgroups: this and the next

template <class T, int Width, Want W, bool Plain>
struct Consumer {
    using S = Shape<Width, W>;
    static constexpr int kScores = S::kKeys / 2;  ///< accumulators of a thread
    static constexpr int kOutputs = S::kValues ? Width / 2 : 2;

    const ForwardArgs& a;
    const int group;  ///< warpgroup = half of the q tile
    const int thread = int(threadIdx.x) % 128;
    const int firstRow = thread / 32 * 16 + thread % 32 / 4;  ///< of the half; the other is + 8
    const int firstColumn = 2 * (thread % 4);
    const float factor = Plain ? a.layer.scale * kLog2e : 1.0f;

    __device__ int row(int qtile, int i) const {
        return qtile * kTokens + group * kHalfTokens + firstRow + 8 * i;
    }
    __device__ static int key(const ForwardArgs& args, const Step& step, int column) {
        const KvTile& tile = step.tile;
        if (tile.kind == Gather) return args.plan.gather[tile.a + min(column, tile.valid - 1)];
        return tile.kind == Pair64 && column >= kHalfTokens ? tile.b + column - kHalfTokens
                                                            : tile.a + column;
    }
    /// Which column halves of the tile this warpgroup uses: bit 0 the first 64, bit 1 the second.
    __device__ unsigned halves(const Step& step) const {
        const unsigned own = step.tile.own >> group;
        return (own & 1) | (own >> 1 & 2);
    }
    /// This warpgroup has something to do in the step.
    __device__ bool uses(std::uint32_t flags) const { return flags >> (kUsesBit + group) & 1; }

    /// Scores to base-2 logits over `factor`; pairs that do not count to -inf.
    __device__ void prepare(float (&s)[kScores], const Step& step, std::uint32_t flags) const {
        const int rows[2] = {row(step.qtile, 0), row(step.qtile, 1)};
        if constexpr (!Plain) {
            const int offset = step.part * S::kKeys;
#pragma unroll
            for (int i = 0; i < kScores; ++i) {
                const int column = offset + i / 4 * 8 + firstColumn + i % 2, r = rows[i / 2 % 2];
                // Rows and keys past the end have no bias of their own.
                const int j = min(key(a, step, column), a.layer.Nk - 1);
                s[i] = a.layer.logit2(s[i], step.head, min(r, a.layer.Nq - 1), j);
                // One after the other: loads ahead of their use would need too many registers.
                if (i % 4 == 3) asm volatile("" ::: "memory");
            }
        }
        if (!(flags >> (kMaskedBit + group) & 1)) return;
        const std::uint32_t mask = step.tile.mask;
        if (mask & MaskExact) {
            hideByBits(s, step);
        } else if (step.tile.kind == Gather) {
            hideListed(s, step, rows);
        } else {
            hideRuns(s, step, rows);
        }
    }
    /// Runs: the columns of each half that count are a range [low, high).
    __device__ void hideRuns(float (&s)[kScores], const Step& step, const int (&rows)[2]) const {
        constexpr int kHalves = S::kKeys / kHalfTokens;
        int low[kHalves][2], high[kHalves][2];
        const unsigned own = halves(step);
#pragma unroll
        for (int h = 0; h < kHalves; ++h) {
            const int half = step.part + h, first = half * kHalfTokens;
            const int begin = half && step.tile.kind == Pair64 ? step.tile.b : step.tile.a + first;
            const int end = own >> half & 1 ? min(step.tile.valid - first, kHalfTokens) : 0;
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                high[h][r] = end;
                low[h][r] = 0;
                if (step.tile.mask & MaskCausal)
                    high[h][r] = min(end, a.layer.position(rows[r]) - begin + 1);
                if (step.tile.mask & MaskWindow) low[h][r] = a.layer.visibleBegin(rows[r]) - begin;
            }
        }
#pragma unroll
        for (int i = 0; i < kScores; ++i) {
            const int column = i / 4 * 8 + i % 2, h = column / kHalfTokens, r = i / 2 % 2;
            const int inHalf = column % kHalfTokens + firstColumn;
            if (inHalf >= high[h][r] || inHalf < low[h][r]) s[i] = -INFINITY;
        }
    }
    __device__ void hideByBits(float (&s)[kScores], const Step& step) const {
        const unsigned own = halves(step);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int local = group * kHalfTokens + firstRow + 8 * r;
            const auto* words =
                reinterpret_cast<const std::uint32_t*>(a.plan.bits + step.bits + 2 * local) +
                step.part * S::kKeys / 32;
#pragma unroll
            for (int w = 0; w < S::kKeys / 32; ++w) {
                const int half = step.part + w / 2, past = half * kHalfTokens + w % 2 * 32;
                const std::uint32_t word =
                    (own >> half & 1 ? words[w] : 0) &
                    (step.tile.valid - past >= 32 ? ~0u
                                                  : (1u << max(0, step.tile.valid - past)) - 1);
                const std::uint32_t mine = word >> firstColumn;
#pragma unroll
                for (int n = 0; n < 8; ++n)  // 4 groups of 8 columns, 2 each
                    if (!(mine >> (n / 2 * 8 + n % 2) & 1))
                        s[(w * 4 + n / 2) * 4 + 2 * r + n % 2] = -INFINITY;
            }
        }
    }
    __device__ void hideListed(float (&s)[kScores], const Step& step, const int (&rows)[2]) const {
        const unsigned own = halves(step);
        int last[2] = {INT_MAX, INT_MAX}, begin[2] = {0, 0};
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            if (step.tile.mask & MaskCausal) last[r] = a.layer.position(rows[r]);
            if (step.tile.mask & MaskWindow) begin[r] = a.layer.visibleBegin(rows[r]);
        }
        const bool tests = step.tile.mask & (MaskCausal | MaskWindow);
#pragma unroll
        for (int i = 0; i < kScores; ++i) {
            const int column = step.part * S::kKeys + i / 4 * 8 + firstColumn + i % 2;
            const int r = i / 2 % 2;
            bool counts = column < step.tile.valid && (own >> (column / kHalfTokens) & 1);
            if (tests) {
                const int j = key(a, step, column);
                counts = counts && j <= last[r] && j >= begin[r];
            }
            if (!counts) s[i] = -INFINITY;
        }
    }

    /// Scores to weights 2^(x - max); the state takes the sub-tile in.
    /// @param alpha     what earlier weights are multiplied with
    /// @param firstKey  of the sub-tile, a run; for statistics
    __device__ void soften(float (&s)[kScores], RowState& state, float (&alpha)[2], int firstKey,
                           int qtile) const {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float most = s[2 * r];
#pragma unroll
            for (int i = 2 * r; i < kScores; i += 4) most = fmaxf(most, fmaxf(s[i], s[i + 1]));
            most = fmaxf(state.max[r], quadMax(most));
            const float base = most == -INFINITY ? 0 : most * factor;
            alpha[r] = exp2Fast(state.max[r] * factor - base);
            float sum = 0, moment = 0;
            if constexpr (W == Want::Statistics) {
                const float shift =
                    state.max[r] == -INFINITY ? 0 : state.max[r] * factor - base;  // <= 0
                moment = alpha[r] * (state.moment[r] + shift * state.sum[r]);
            }
            float columns = 0;
#pragma unroll
            for (int i = 2 * r; i < kScores; i += 4) {
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const float x = fmaf(s[i + e], factor, -base);
                    const float p = exp2Fast(x);
                    s[i + e] = p;
                    sum += p;
                    if constexpr (W == Want::Statistics) {
                        // x of a hidden pair is -inf, which must not meet the 0 of its weight.
                        moment = fmaf(p, fmaxf(x, -200.0f), moment);
                        columns = fmaf(p, float(i / 4 * 8 + e), columns);
                    }
                }
            }
            state.max[r] = most;
            state.sum[r] = fmaf(state.sum[r], alpha[r], sum);
            if constexpr (W == Want::Statistics) {
                state.moment[r] = moment;
                takeKeys(s, state, alpha[r], sum, columns, r, firstKey, qtile);
            }
        }
    }

    /// Mean distance, sink mass and local mass of one sub-tile.
    __device__ void takeKeys(const float (&s)[kScores], RowState& state, float alpha, float sum,
                             float columns, int r, int firstKey, int qtile) const {
        // Statistics walk the dense plan: runs only.
        const int i = row(qtile, r), first = firstKey + firstColumn;
        const int position = a.layer.position(i);
        state.distance[r] =
            fmaf(state.distance[r], alpha, fmaf(float(position - first), sum, -columns));
        float sink = 0, local = 0;
        if (first < a.rows.sinkTokens)
#pragma unroll
            for (int n = 2 * r; n < kScores; n += 4)
#pragma unroll
                for (int e = 0; e < 2; ++e)
                    if (first + n / 4 * 8 + e < a.rows.sinkTokens) sink += s[n + e];
        // Some key of the sub-tile may be near, and some row may be.
        if (position - (first + S::kKeys) < a.rows.localTokens)
#pragma unroll
            for (int n = 2 * r; n < kScores; n += 4)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const int back = position - (first + n / 4 * 8 + e);
                    if (back >= 0 && back < a.rows.localTokens) local += s[n + e];
                }
        state.sink[r] = fmaf(state.sink[r], alpha, sink);
        state.local[r] = fmaf(state.local[r], alpha, local);
    }

    /// Weights to 16-bit pairs, the left operand of the product with V.
    __device__ static void pack(const float (&s)[kScores], std::uint32_t (&p)[kScores / 2]) {
#pragma unroll
        for (int i = 0; i < kScores / 2; ++i) p[i] = pair<T>(s[2 * i], s[2 * i + 1]);
    }
    /// Two numbers of 16 bits, the first in the lower half.
    template <class To>
    __device__ static std::uint32_t pair(float x, float y) {
        if constexpr (std::is_same_v<To, __half>) {
            const __half2 h = __floats2half2_rn(x, y);
            return reinterpret_cast<const std::uint32_t&>(h);
        } else {
            const __nv_bfloat162 h = __floats2bfloat162_rn(x, y);
            return reinterpret_cast<const std::uint32_t&>(h);
        }
    }

    /// O += P V, enqueued and committed.
    __device__ static void accumulate(float (&o)[kOutputs], const std::uint32_t (&p)[kScores / 2],
                                      std::uint32_t v) {
        wgmma::pin(o);
        wgmma::fence();
#pragma unroll
        for (int step = 0; step < S::kKeys / 16; ++step)
            wgmma::Product<T, Width>::mulRegisters(
                o, &p[4 * step],
                wgmma::descriptor(v + std::uint32_t(step * 16 * kRowBytes), S::kKeys * kRowBytes));
        wgmma::commit();
    }
    __device__ static void rescale(float (&o)[kOutputs], const float (&alpha)[2]) {
#pragma unroll
        for (int i = 0; i < kOutputs; ++i) o[i] *= alpha[i / 2 % 2];
    }

    /// Writes the outputs and statistics of the two rows.
    /// @param staged  where this warpgroup's queries were
    __device__ void finish(const float (&o)[kOutputs], RowState& state, int batch, int head,
                           int qtile, std::uint32_t staged, const CUtensorMap* map) const {
        const Layer& l = a.layer;
        bool odd = false;  // a row is not finite, or sees nothing
        float parts[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int i = row(qtile, r);
            const float sum = quadSum(state.sum[r]);
            odd = odd || (i < l.Nq && !(sum > 0));
            const float top = state.max[r] == -INFINITY ? 0 : state.max[r] * factor;
            const float sinkWeight = l.sinks ? exp2Fast(fmaf(l.sinks[head], kLog2e, -top)) : 0.0f;
            const float total = sum + sinkWeight;
            const Index at = (Index(batch) * l.Hq + head) * l.Nq + i;
            if constexpr (W == Want::Statistics) {
                const float moment = quadSum(state.moment[r]),
                            distance = quadSum(state.distance[r]);
                const float sink = quadSum(state.sink[r]), local = quadSum(state.local[r]);
                if (thread % 4 == 0 && i < l.Nq) {
                    const bool empty = sum == 0;
                    const float part = empty ? 0 : 1 / total;
                    const auto put = [&](float* to, float x) {
                        if (to) to[at] = x;
                    };
                    put(a.rows.rowMax, empty ? -INFINITY : top * kLn2);
                    put(a.rows.entropy,
                        empty ? 0 : kLn2 * (sum * part * log2f(total) - moment * part));
                    put(a.rows.meanDistance, distance * part);
                    put(a.rows.sinkMass, sink * part);
                    put(a.rows.localMass, local * part);
                }
            }
            if (a.rows.lse && thread % 4 == 0 && i < l.Nq)
                a.rows.lse[at] = sum == 0 ? -INFINITY : kLn2 * (top + __log2f(sum));
            if constexpr (S::kValues) {
                const float part = parts[r] = sum == 0 ? 0 : __frcp_rn(total);
                float most = 0;
#pragma unroll
                for (int n = 2 * r; n < kOutputs; n += 4)
                    most = maxOrNaN(most, maxOrNaN(fabsf(o[n]), fabsf(o[n + 1])));
                odd =
                    odd || (i < l.Nq && !(most * part <= (a.o.t == DType::F16 ? 65504 : FLT_MAX)));
                if ((S::kStaged && a.wideStores == 2) || i >= l.Nq) continue;
                const Index from = batch * a.o.sb + head * a.o.sh + i * a.o.sn;
#pragma unroll
                for (int n = 2 * r; n < kOutputs; n += 4) {
                    const int column = n / 4 * 8 + firstColumn;
                    if (column < l.dv)
                        put(from + column, o[n] * part, o[n + 1] * part, column + 1 < l.dv);
                }
            }
        }
        if constexpr (S::kStaged)
            if (a.wideStores == 2) store(o, parts, staged, map, batch, head, qtile);
        if (odd) *a.odd = 1;
    }
    /// Outputs times `part` to the tensor, by the copy engine, through the rows of Q's stage that
    /// were this warpgroup's queries.
    /// @param rows  the shared address of the first
    __device__ void store(const float (&o)[kOutputs], const float (&part)[2], std::uint32_t rows,
                          const CUtensorMap* map, int batch, int head, int qtile) const {
        const int lane = thread % 32, first = thread / 32 * 16;
        ptx::namedBarrier(kStoreBarrier + group, 128);  // nobody's products read the rows any more
        const std::uint32_t mine = rows + std::uint32_t((first + lane % 16) * kRowBytes);
#pragma unroll
        for (int g = 0; g < Width / 8; g += 2) {  // pairs of 8 columns
            const int piece = g % 8 + lane / 16;
            std::uint32_t m[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int n = 4 * (g + i / 2) + 2 * (i % 2);
                m[i] = pair<T>(o[n] * part[i % 2], o[n + 1] * part[i % 2]);
            }
            ptx::storeMatrices(
                mine + std::uint32_t(g / 8 * kTokens * kRowBytes + ((piece ^ lane) & 7) * 16), m);
        }
        ptx::fenceAsync();
        __syncwarp();
        if (lane != 0) return;
#pragma unroll
        for (int chunk = 0; chunk < Width / 64; ++chunk)
            if (chunk * 64 < a.layer.dv)
                ptx::storeBox(map, rows + std::uint32_t((chunk * kTokens + first) * kRowBytes),
                              chunk * 64, row(qtile, 0), head, batch);
        ptx::storeCommit();
    }
    /// Two neighbouring outputs, the second only if `both`.
    __device__ void put(Index at, float x, float y, bool both) const {
        if (a.o.t == DType::F32) {
            float* const to = static_cast<float*>(a.o.p) + at;
            if (a.wideStores) {
                *reinterpret_cast<float2*>(to) = make_float2(x, y);
            } else {
                to[0] = x;
                if (both) to[1] = y;
            }
            return;
        }
        const std::uint32_t both16 =
            a.o.t == DType::F16 ? pair<__half>(x, y) : pair<__nv_bfloat16>(x, y);
        std::uint16_t* const to = static_cast<std::uint16_t*>(a.o.p) + at;
        if (a.wideStores) {
            *reinterpret_cast<std::uint32_t*>(to) = both16;
        } else {
            to[0] = std::uint16_t(both16);
            if (both) to[1] = std::uint16_t(both16 >> 16);
        }
    }

    using Bars = Barriers<S>;

    /// The first row of this warpgroup's queries.
    __device__ std::uint32_t queries(std::uint32_t q, int stage) const {
        return q + std::uint32_t(stage * S::kQBytes + group * kHalfTokens * kRowBytes);
    }
    __device__ static std::uint32_t tileAt(std::uint32_t ring, int stage) {
        return ring + std::uint32_t(stage * S::kKvBytes);
    }
    /// Scores of a stage to weights: masks, then K is given back, then the state takes them in.
    __device__ void weigh(float (&s)[kScores], RowState& state, float (&alpha)[2], int qtile,
                          std::uint32_t flags, int stage, Bars& bars) const {
        const Step& step = bars.step[stage];
        const int firstKey = step.tile.a + step.part * S::kKeys;
        prepare(s, step, flags);
        __syncwarp();
        release(&bars.kEmpty[stage]);
        soften(s, state, alpha, firstKey, qtile);
    }

    /// Without V: the scores of one step are computed while those of the one before are taken in.
    __device__ void runScores(std::uint32_t q, std::uint32_t k, Bars& bars) const {
        Ring<S::kStages> ring;
        Ring<S::kQStages> qRing;
        RowState state;
        float even[kScores], odd[kScores], alpha[2];
        const float none[kOutputs] = {};
        // Waits for the stage that `ring` stands at; its flags.
        const auto look = [&] {
            ptx::wait(&bars.kFull[ring.stage], ring.phase);
            const std::uint32_t flags = bars.step[ring.stage].flags;
            if (flags & FirstStep) ptx::wait(&bars.qFull[qRing.stage], qRing.phase);
            return flags;
        };
        const auto issue = [&](float(&s)[kScores], std::uint32_t flags) {
            if (flags & GatheredStep) ptx::fenceAsync();
            multiply<T, S::kKeys, Width>(s, queries(q, qRing.stage), kTokens,
                                         tileAt(k, ring.stage));
        };
        // What stands in a step beside its scores is read before its stage is given back.
        struct Place {
            int batch, head, qtile;
        };
        const auto placeOf = [&](int stage) {
            const Step& step = bars.step[stage];
            return Place{step.batch, step.head, step.qtile};
        };
        const auto take = [&](float(&s)[kScores], std::uint32_t flags, int stage) {
            if (flags & FirstStep) state = {};
            const Place at = placeOf(stage);
            weigh(s, state, alpha, at.qtile, flags, stage, bars);
            if (flags & LastStep) finish(none, state, at.batch, at.head, at.qtile, 0, nullptr);
        };
        std::uint32_t flags = 0;
        // Steps that do not concern this warpgroup; ends at one that does, or at the end.
        const auto skip = [&] {
            while (!(flags & End) && !uses(flags)) {
                if (flags & FirstStep) state = {};
                const Place at = placeOf(ring.stage);
                __syncwarp();
                release(&bars.kEmpty[ring.stage]);
                if (flags & LastStep) {
                    finish(none, state, at.batch, at.head, at.qtile, 0, nullptr);
                    release(&bars.qEmpty[qRing.stage]);
                    qRing.next();
                }
                ring.next();
                flags = look();
            }
        };
        // The scores of `flags` at `ring` are under way in `now`.
        const auto half = [&](float(&now)[kScores], float(&then)[kScores]) {
            const std::uint32_t mine = flags;
            const int stage = ring.stage;
            if (mine & LastStep) {
                wgmma::wait<0>();
                release(&bars.qEmpty[qRing.stage]);
                qRing.next();
            }
            ring.next();
            flags = look();
            if (!(flags & End) && uses(flags)) {
                issue(then, flags);
                wgmma::wait<1>();
                wgmma::pin(now);
                take(now, mine, stage);
                return true;
            }
            wgmma::wait<0>();
            wgmma::pin(now);
            take(now, mine, stage);
            skip();
            if (flags & End) return false;
            issue(then, flags);
            return true;
        };
        flags = look();
        skip();
        if (flags & End) return;
        issue(even, flags);
        while (half(even, odd) && half(odd, even)) {
        }
    }

    /// With V: while the scores of a step are computed, the weights of the one before meet V.
    __device__ void runValues(std::uint32_t q, std::uint32_t k, std::uint32_t v, Bars& bars,
                              const CUtensorMap* map) const {
        Ring<S::kStages> ring;
        Ring<S::kQStages> qRing;
        float s[kScores], o[kOutputs];
        std::uint32_t p[kScores / 2];
        // While one warpgroup's products run the other one softens: they issue in turn, the first
        // one first.
        const bool inTurn = a.inTurn;
        const auto myTurn = [&] {
            if (inTurn) ptx::namedBarrier(1 + group, 128 * kConsumers);
        };
        const auto yourTurn = [&] {
            if (inTurn) ptx::namedArrive(2 - group, 128 * kConsumers);
        };
        if (group == 1) yourTurn();
        const auto stageOf = [](std::uint32_t flags) { return int(flags >> kValueBit & 3); };
        const auto waitValues = [&](std::uint32_t flags) {
            ptx::wait(&bars.vFull[stageOf(flags)], flags >> (kValueBit + 2) & 1);
        };
        std::uint32_t others = 0;  // flags of the step before, if only the other warpgroup uses it
        bool held = false;         // the results of the item before leave through its queries
        for (;;) {                 // work items
            ptx::wait(&bars.kFull[ring.stage], ring.phase);
            std::uint32_t flags = bars.step[ring.stage].flags;
            if (flags & End) break;
            const int batch = bars.step[ring.stage].batch, head = bars.step[ring.stage].head,
                      qtile = bars.step[ring.stage].qtile;
            ptx::wait(&bars.qFull[qRing.stage], qRing.phase);
            const std::uint32_t rows = queries(q, qRing.stage);
            RowState state;
            float alpha[2];
#pragma unroll
            for (int i = 0; i < kOutputs; ++i) o[i] = 0;
            std::uint32_t pending = 0;  // flags of the step whose weights are in p
            const auto accumulatePending = [&] {
                waitValues(pending);
                if (pending & GatheredStep) ptx::fenceAsync();
                accumulate(o, p, tileAt(v, stageOf(pending)));
            };
            const auto flush = [&] {
                accumulatePending();
                wgmma::wait<0>();
                wgmma::pin(o);
                release(&bars.vEmpty[stageOf(pending)]);
                pending = 0;
            };
            for (;;) {
                const std::uint32_t keys = tileAt(k, ring.stage);
                if (flags & GatheredStep) ptx::fenceAsync();
                if (others) {  // seen to arrive, so that its barrier is never a phase behind
                    waitValues(others);
                    release(&bars.vEmpty[stageOf(others)]);
                    others = 0;
                }
                if (!uses(flags)) {
                    if (!(flags & NoTile)) {
                        myTurn();
                        yourTurn();
                    }
                    if (pending) flush();
                    __syncwarp();
                    release(&bars.kEmpty[ring.stage]);
                    if (flags >> kUsesBit & 3) others = flags;
                } else {
                    if (Plain && pending) {
                        myTurn();
                        multiply<T, S::kKeys, Width>(s, rows, kTokens, keys);
                        accumulatePending();
                        yourTurn();
                        wgmma::wait<1>();
                        wgmma::pin(s);
                        weigh(s, state, alpha, qtile, flags, ring.stage, bars);
                        wgmma::wait<0>();
                        wgmma::pin(o);
                        release(&bars.vEmpty[stageOf(pending)]);
                    } else {
                        // Caps and biases need the registers that overlapping would take.
                        if (!Plain && pending) flush();
                        myTurn();
                        multiply<T, S::kKeys, Width>(s, rows, kTokens, keys);
                        yourTurn();
                        wgmma::wait<0>();
                        wgmma::pin(s);
                        weigh(s, state, alpha, qtile, flags, ring.stage, bars);
                    }
                    rescale(o, alpha);
                    pack(s, p);
                    pending = flags;
                    if (S::kLooksAhead && flags >> (kRestsBit + group) & 1)
                        flush();  // nothing to overlap it with
                }
                if (S::kStaged && held && flags & FirstStep) {
                    if (thread % 32 == 0) ptx::storeWaitRead();
                    release(&bars.qEmpty[qRing.stage ^ 1]);
                }
                ring.next();
                if (flags & LastStep) break;
                ptx::wait(&bars.kFull[ring.stage], ring.phase);
                flags = bars.step[ring.stage].flags;
            }
            if (!S::kStaged) release(&bars.qEmpty[qRing.stage]);
            qRing.next();
            held = true;
            if (pending) flush();
            finish(o, state, batch, head, qtile, rows, map);
        }
        if (S::kStaged && thread % 32 == 0) ptx::storeWait();
    }
};

template <class T, int Width, Want W, bool Plain>
__global__ void __launch_bounds__(kThreads, 1)
    forwardKernel(const __grid_constant__ CUtensorMap qMap,
                  const __grid_constant__ CUtensorMap kMap,
                  const __grid_constant__ CUtensorMap vMap,
                  const __grid_constant__ CUtensorMap oMap, const __grid_constant__ ForwardArgs a) {
    using S = Shape<Width, W>;
    extern __shared__ char raw[];
    __shared__ Barriers<S> bars;
    char* const q = raw + (1024 - ptx::shared(raw) % 1024) % 1024;  // swizzle repeats every 1024
    char* const k = q + S::kQStages * S::kQBytes;
    char* const v = k + S::kStages * S::kKvBytes;
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::kStages; ++i) {
            ptx::barrierInit(&bars.kFull[i], 1);
            ptx::barrierInit(&bars.kEmpty[i], kReleases);
        }
        for (int i = 0; i < S::kVStages; ++i) {
            ptx::barrierInit(&bars.vFull[i], 1);
            ptx::barrierInit(&bars.vEmpty[i], kReleases);
        }
        for (int i = 0; i < S::kQStages; ++i) {
            ptx::barrierInit(&bars.qFull[i], 1);
            ptx::barrierInit(&bars.qEmpty[i], kReleases);
        }
        ptx::barrierInitFence();
        ptx::prefetchMap(&qMap);
        ptx::prefetchMap(&kMap);
        if (S::kValues) ptx::prefetchMap(&vMap);
        if (S::kStaged) ptx::prefetchMap(&oMap);
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx::registersDown<S::kProducerRegisters>();
        if (threadIdx.x < 32 || a.gathers)
            produce<S, Width>(a, &qMap, &kMap, &vMap, ptx::shared(q), ptx::shared(k),
                              ptx::shared(v), bars);
    } else {
        ptx::registersUp<S::kConsumerRegisters>();
        const Consumer<T, Width, W, Plain> consumer{a, int(threadIdx.x) / 128 - 1};
        if constexpr (S::kValues)
            consumer.runValues(ptx::shared(q), ptx::shared(k), ptx::shared(v), bars, &oMap);
        else
            consumer.runScores(ptx::shared(q), ptx::shared(k), bars);
    }
}

template <class T, int Width, Want W, bool Plain>
void launch(const ForwardArgs& args, const CUtensorMap& q, const CUtensorMap& k,
            const CUtensorMap& v, const CUtensorMap& o, int blocks, cudaStream_t stream) {
    constexpr int bytes = Shape<Width, W>::kBytes;
    const auto kernel = forwardKernel<T, Width, W, Plain>;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "shared memory of the forward kernel");
    kernel<<<blocks, kThreads, bytes, stream>>>(q, k, v, o, args);
    check(cudaGetLastError(), "start of the forward kernel");
}

}  // namespace sparsight::kernels::cuda::hopper

/// Defines launchOf<Type, Width>: one translation unit each, so that they compile side by side.
#define SPARSIGHT_HOPPER_FORWARD(Type, Width)                                \
    namespace sparsight::kernels::cuda::hopper {                             \
    template <>                                                              \
    Launch launchOf<Type, Width>(Want want, bool plain) {                    \
        switch (want) {                                                      \
            case Want::Output:                                               \
                return plain ? launch<Type, Width, Want::Output, true>       \
                             : launch<Type, Width, Want::Output, false>;     \
            case Want::Lse:                                                  \
                return plain ? launch<Type, Width, Want::Lse, true>          \
                             : launch<Type, Width, Want::Lse, false>;        \
            default:                                                         \
                return plain ? launch<Type, Width, Want::Statistics, true>   \
                             : launch<Type, Width, Want::Statistics, false>; \
        }                                                                    \
    }                                                                        \
    }
