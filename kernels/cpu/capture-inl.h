// Capture passes, rendering and antidiagonal scores; compiled once per instruction set (see
// simd.h).
#if defined(SPARSIGHT_CAPTURE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SPARSIGHT_CAPTURE_INL_H
#undef SPARSIGHT_CAPTURE_INL_H
#else
#define SPARSIGHT_CAPTURE_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace sparsight::kernels::cpu {
namespace HWY_NAMESPACE {

/// The largest scores of each row of a strip, exact, in memory for a few times k of them. Keys come
/// in ascending order; whatever beats the row's bar is appended, so that candidates stay in the
/// order of their keys. When the room is full the best k stay (equal scores: the lower key), and
/// the worst of them is the bar from then on.
class TopKeys {
public:
    /// Memory of one strip.
    static std::size_t roomOf(Index k) { return std::size_t(kWidth * stride(k)); }
    /// @param scores, keys  [roomOf(k)]
    TopKeys(float* scores, std::int32_t* keys, Index k, const Strip& rows)
        : m_scores(scores), m_keys(keys), m_k(k) {
        for (int r = 0; r < kWidth; ++r) {
            m_count[r] = 0;
            m_bar[r] = r < rows.rows ? kNegInf : -kNegInf;
        }
    }

    /// The masked scores of n more keys from `key0` on. NaN beats no bar.
    HWY_NOINLINE void add(const float* s, Index key0, int n) {
        for (int c = 0; c < n; c += kKeys)
            addKeys(s + c * kWidth, key0 + c, std::min(kKeys, n - c));
    }

    /// The row's keys and their P, largest first, [k] each or null.
    /// @param denominator  log2 of the row's; NaN: poisoned; +inf: the row sees nothing
    HWY_NOINLINE void finish(int row, float denominator, std::int32_t* keys, float* p) {
        const D d;
        if (m_count[row] > m_k) keepBest(row);
        const bool poisoned = std::isnan(denominator);
        const int found = poisoned ? 0 : int(m_count[row]);
        if (keys) std::fill(keys + found, keys + m_k, -1);
        if (p) std::fill(p + found, p + m_k, poisoned ? denominator : 0.0f);
        const float* scores = m_scores + row * stride(m_k);
        const std::int32_t* mine = m_keys + row * stride(m_k);
        const V total = hn::Set(d, denominator);
        HWY_ALIGN std::int32_t rank[kLanes];
        HWY_ALIGN float weight[kLanes];
        // By counting, without a branch: as fast as sorting up to a few hundred.
        for (int i = 0; i < found; i += kLanes) {
            const V x = hn::LoadU(d, scores + i);
            const V one = hn::Set(d, 1.0f);
            V place = hn::Zero(d);
            for (int j = 0; j < i; ++j)
                place = hn::Add(place, hn::IfThenElseZero(hn::Ge(hn::Set(d, scores[j]), x), one));
            const int inside = std::min(found, i + kLanes);
            for (int j = i; j < inside; ++j) {
                const V other = hn::Set(d, scores[j]);
                const auto later = hn::Not(hn::FirstN(d, std::size_t(j - i + 1)));
                place = hn::Add(
                    place, hn::IfThenElseZero(
                               hn::Or(hn::Gt(other, x), hn::And(later, hn::Eq(other, x))), one));
            }
            for (int j = inside; j < found; ++j)
                place = hn::Add(place, hn::IfThenElseZero(hn::Gt(hn::Set(d, scores[j]), x), one));
            hn::Store(hn::ConvertTo(DI{}, place), DI{}, rank);
            hn::Store(exp2(hn::Sub(x, total)), d, weight);
            for (int r = 0; r < inside - i; ++r) {
                if (keys) keys[rank[r]] = mine[i + r];
                if (p) p[rank[r]] = weight[r];
            }
        }
    }

private:
    static constexpr int kKeys = 64;  ///< that are looked at together: the bits of a word

    HWY_INLINE void addKeys(const float* s, Index key0, int n) {
        const D d;
        HWY_ALIGN std::uint16_t beating[kKeys + 4];  // by key, a bit for each row; 8 bytes written
        for (int v = 0; v < kVecs; ++v) {
            const V bar = hn::Load(d, m_bar + v * kLanes);
            std::fill_n(beating, kKeys, std::uint16_t(0));
            unsigned rows = 0;
            for (int c = 0; c < n; ++c) {
                const auto beats = hn::Gt(hn::Load(d, s + c * kWidth + v * kLanes), bar);
                hn::StoreMaskBits(d, beats, reinterpret_cast<std::uint8_t*>(beating + c));
                rows |= beating[c];
            }
            for (; rows; rows &= rows - 1) {
                const int lane = std::countr_zero(rows);
                append(v * kLanes + lane, keysOf(beating, lane), s + v * kLanes + lane, key0);
            }
        }
    }

    /// The keys whose bit of a row is set, a bit for each.
    static HWY_INLINE std::uint64_t keysOf(const std::uint16_t* beating, int lane) {
        std::uint64_t keys = 0;
#if HWY_TARGET == HWY_SCALAR
        for (int c = 0; c < kKeys; ++c) keys |= std::uint64_t(beating[c] >> lane & 1) << c;
#else
        const hn::CappedTag<std::uint16_t, 32> d;
        const auto bit = hn::Set(d, std::uint16_t(1 << lane));
        std::uint8_t bytes[kKeys / 8 + 8];
        for (int c = 0; c < kKeys; c += int(hn::Lanes(d)))
            hn::StoreMaskBits(d, hn::TestBit(hn::Load(d, beating + c), bit), bytes + c / 8);
        std::memcpy(&keys, bytes, sizeof keys);
#endif
        return keys;
    }

    /// Candidates of a row: k, as many again (128 at least), kKeys more, and a vector beyond.
    static Index stride(Index k) {
        return k + std::max<Index>(k, 128) + kKeys + kLanes;
    }

    HWY_INLINE void append(int row, std::uint64_t beating, const float* s, Index key0) {
        float* scores = m_scores + row * stride(m_k);
        std::int32_t* keys = m_keys + row * stride(m_k);
        Index count = m_count[row];
        for (; beating; beating &= beating - 1, ++count) {
            const int c = std::countr_zero(beating);
            scores[count] = s[c * kWidth] + 0.0f;  // the two zeros are one score
            keys[count] = std::int32_t(key0 + c);
        }
        m_count[row] = count;
        if (count + kKeys + kLanes > stride(m_k)) keepBest(row);
    }

    static float fromOrder(std::int32_t x) {
        return std::bit_cast<float>(x ^ (x >> 31 & 0x7fffffff));
    }
    static std::int32_t order(float x) {
        const auto bits = std::bit_cast<std::int32_t>(x);
        return bits ^ (bits >> 31 & 0x7fffffff);
    }

    /// Leaves the best k of a row that has more.
    HWY_NOINLINE void keepBest(int row) {
        const D d;
        const DI di;
        float* scores = m_scores + row * stride(m_k);
        std::int32_t* keys = m_keys + row * stride(m_k);
        const Index count = m_count[row];
        hn::StoreU(hn::Set(d, kNegInf), d, scores + count);
        V most = hn::Set(d, kNegInf), least = hn::Set(d, -kNegInf);
        for (Index i = 0; i < count; i += kLanes) {
            const V x = hn::LoadU(d, scores + i);
            most = hn::Max(most, x);
            least = hn::Min(least, hn::IfThenElse(hn::Gt(x, hn::Set(d, kNegInf)), x, least));
        }
        const auto above = [&](float bar) HWY_ATTR {
            const V x = hn::Set(d, bar);
            Index sum = 0;
            for (Index i = 0; i < count; i += kLanes)
                sum += Index(hn::CountTrue(d, hn::Gt(hn::LoadU(d, scores + i), x)));
            return sum;
        };
        // More than k lie above `low`, fewer than k above `high`; stop where exactly k do. Halving
        // the interval is quick for scores, halving the count of floats in it always ends.
        float low = fromOrder(order(hn::GetLane(hn::MinOfLanes(d, least))) - 1),
              high = hn::GetLane(hn::MaxOfLanes(d, most));
        bool exact = false;
        for (int step = 0; !exact && order(high) - 1 > order(low); ++step) {
            float middle = low + (high - low) / 2;
            if (step >= 16 || !(middle > low && middle < high))
                middle = fromOrder(
                    std::int32_t((std::int64_t(order(low)) + std::int64_t(order(high))) >> 1));
            const Index n = above(middle);
            exact = n == m_k;
            (n >= m_k ? low : high) = middle;
        }
        // Without such a bar the k-th best, `high`, stands several times: the first of them stay.
        const V bar = hn::Set(d, exact ? low : high), tie = hn::Set(d, high);
        Index ties = exact ? 0 : m_k - above(high), kept = 0;
        least = hn::Set(d, -kNegInf);
        for (Index i = 0; i < count; i += kLanes) {
            const V x = hn::LoadU(d, scores + i);
            const VI key = hn::LoadU(di, keys + i);
            auto stays = hn::Gt(x, bar);
            if (ties > 0) {
                HWY_ALIGN float equal[kLanes];
                hn::Store(hn::IfThenElseZero(hn::Eq(x, tie), hn::Set(d, 1.0f)), d, equal);
                for (int r = 0; r < kLanes; ++r)
                    if (equal[r] != 0.0f && ties-- <= 0) equal[r] = 0.0f;
                stays = hn::Or(stays, hn::Gt(hn::Load(d, equal), hn::Zero(d)));
                ties = std::max<Index>(ties, 0);
            }
            least = hn::Min(least, hn::IfThenElse(stays, x, hn::Set(d, -kNegInf)));
            hn::StoreU(hn::Compress(x, stays), d, scores + kept);
            hn::StoreU(hn::Compress(key, hn::RebindMask(di, stays)), di, keys + kept);
            kept += Index(hn::CountTrue(d, stays));
        }
        m_count[row] = kept;
        m_bar[row] = hn::GetLane(hn::MinOfLanes(d, least));
    }

    HWY_ALIGN float m_bar[kWidth];
    float* m_scores;
    std::int32_t* m_keys;
    Index m_k, m_count[kWidth];
};

/// Pass R. Per chunk of keys, with w = 2^(x - m'):
///     l = alpha l + sum w,   u = alpha (u + (m - m') l_old) + sum w (x - m')
/// and with L = the denominator relative to m':  H = ln 2 (log2(L) l / L - u / L).
Index captureRows(const Head& h, const CapturePass& pass, Index first, Index last, Workspace& work,
                  TaskContext& context) {
    enum { Max, Sum, Entropy, Distance, SinkMass, LocalMass, States };
    const D d;
    const DI di;
    const Problem& p = *h.problem;
    const auto packed = std::size_t(p.d * kWidth);
    const Index strips = last - first;
    float* s = work.s.get(std::size_t(kChunk) * kWidth);
    float* state = work.state.get(std::size_t(strips * States * kWidth));
    std::vector<Strip> strip;
    strip.reserve(std::size_t(strips));
    Index begin = p.Nk, end = 0;
    for (Index i = 0; i < strips; ++i) {
        strip.emplace_back(p, (first + i) * kWidth);
        const Strip& rows = strip.back();
        std::fill_n(state + i * States * kWidth, kWidth, kNegInf);
        std::fill_n(state + (i * States + 1) * kWidth, (States - 1) * kWidth, 0.0f);
        begin = std::min(begin, rows.minBegin);
        end = std::max(end, p.visibleEnd(rows.row0 + rows.rows - 1));
    }
    const CaptureOut& out = pass.out;
    // No row has more keys than Nk.
    const Index topK = std::min(pass.topK, std::max<Index>(1, p.Nk));
    const std::size_t stripRoom = TopKeys::roomOf(topK);
    std::vector<TopKeys> top;
    if (topK > 0) {
        float* scores = work.top.get(std::size_t(strips) * stripRoom);
        work.topKeys.resize(std::size_t(strips) * stripRoom);
        for (std::size_t i = 0; i < std::size_t(strips); ++i)
            top.emplace_back(scores + i * stripRoom, work.topKeys.data() + i * stripRoom, topK,
                             strip[i]);
    }
    const bool distances = out.meanDistance || out.localMass;
    KeyRun run;
    for (Index chunk = begin / kChunk * kChunk; chunk < end; chunk += kChunk) {
        context.check();
        const int size = int(std::min<Index>(kChunk, p.Nk - chunk));
        run.set(h, chunk, size);
        for (Index i = 0; i < strips; ++i) {
            const Strip& rows = strip[std::size_t(i)];
            const int from = int(std::clamp<Index>(rows.minBegin - chunk, 0, size));
            const int to =
                int(std::clamp<Index>(p.visibleEnd(rows.row0 + rows.rows - 1) - chunk, 0, size));
            const int n = to - from;
            if (n <= 0) continue;
            visibleScores(h, rows, run, from, n, pass.packed + std::size_t(first + i) * packed,
                          pass.finite[first + i], s);
            if (topK > 0) top[std::size_t(i)].add(s, chunk + from, n);
            for (int v = 0; v < kVecs; ++v) {
                float* at = state + i * States * kWidth + v * kLanes;
                const V before = hn::Load(d, at + Max * kWidth);
                const V now = maxOf(s + v * kLanes, n, before);
                const V base = baseOf(now);
                const V alpha = exp2(hn::Sub(before, base));
                const V oldSum = hn::Load(d, at + Sum * kWidth);
                // Nothing seen before: 0, not -inf * 0.
                const V drop =
                    hn::IfThenZeroElse(hn::Eq(before, hn::Set(d, kNegInf)), hn::Sub(before, base));
                V sum = hn::Zero(d), u = sum, back = sum, sinkMass = sum, local = sum;
                const V floor = hn::Set(d, -1000.0f), zero = hn::Zero(d);
                const V position = hn::ConvertTo(d, hn::Load(di, rows.position + v * kLanes));
                const V reach = hn::Set(d, float(pass.localTokens));
                for (int c = 0; c < n; ++c) {
                    const V x = hn::Sub(hn::Load(d, s + c * kWidth + v * kLanes), base);
                    const V weight = exp2(x);
                    sum = hn::Add(sum, weight);
                    u = hn::MulAdd(weight, hn::Max(x, floor), u);
                    if (distances) {
                        const V distance = hn::Sub(position, hn::Set(d, float(run.keys[from + c])));
                        back = hn::MulAdd(weight, distance, back);
                        const auto near = hn::And(hn::Ge(distance, zero), hn::Lt(distance, reach));
                        local = hn::Add(local, hn::IfThenElseZero(near, weight));
                    }
                    if (run.keys[from + c] < pass.sinkTokens) sinkMass = hn::Add(sinkMass, weight);
                }
                const auto update = [&](int which, V added) HWY_ATTR {
                    hn::Store(hn::MulAdd(alpha, hn::Load(d, at + which * kWidth), added), d,
                              at + which * kWidth);
                };
                const V oldU = hn::Load(d, at + Entropy * kWidth);
                hn::Store(hn::MulAdd(alpha, hn::MulAdd(drop, oldSum, oldU), u), d,
                          at + Entropy * kWidth);
                update(Sum, sum);
                update(Distance, back);
                update(SinkMass, sinkMass);
                update(LocalMass, local);
                hn::Store(now, d, at + Max * kWidth);
            }
        }
    }
    const double sink2 = double(h.sink()) * double(kLog2e);
    Index nonFinite = 0;
    for (Index i = 0; i < strips; ++i) {
        const Strip& rows = strip[std::size_t(i)];
        for (int r = 0; r < kWidth; ++r) {
            const auto value = [&](int which) {
                return double(state[(i * States + which) * kWidth + r]);
            };
            float* denominator = pass.denominator + (first + i) * kWidth + r;
            *denominator = -kNegInf;  // a row that sees nothing has p = 0 everywhere
            if (r >= rows.rows) continue;
            const Index row = rows.row0 + r;
            const double sum = value(Sum), max = std::isnan(sum) ? sum : value(Max);
            const bool empty = sum == 0;
            const double lse2 = empty ? double(kNegInf) : max + std::log2(sum);
            const double total2 = withSink(lse2, sink2), log2L = total2 - max;
            const double factor = empty ? 0.0 : std::exp2(-log2L);
            if (!empty) *denominator = float(total2);
            nonFinite += std::isnan(lse2);
            if (out.lse) out.lse[row] = float(lse2 * kLn2);
            if (out.rowMax) out.rowMax[row] = float(max * kLn2);
            if (out.entropy)
                out.entropy[row] =
                    empty ? 0.0f : float(kLn2 * factor * (log2L * sum - value(Entropy)));
            if (out.meanDistance) out.meanDistance[row] = float(factor * value(Distance));
            if (out.sinkMass) out.sinkMass[row] = float(factor * value(SinkMass));
            if (out.localMass) out.localMass[row] = float(factor * value(LocalMass));
            if (topK == 0) continue;
            std::int32_t* keys = out.topKey ? out.topKey + row * pass.topK : nullptr;
            float* largest = out.topP ? out.topP + row * pass.topK : nullptr;
            top[std::size_t(i)].finish(r, *denominator, keys, largest);
            if (keys) std::fill(keys + topK, keys + pass.topK, -1);
            if (largest)
                std::fill(largest + topK, largest + pass.topK,
                          std::isnan(*denominator) ? *denominator : 0.0f);
        }
    }
    return nonFinite;
}

/// Weights of a strip are kept with a margin of zeros at both sides, so that a vector load at any
/// slant along a diagonal reads nothing else.
constexpr int kPitch = kWidth + 2 * kLanes;

/// sums[k + n - 1] += sum over c of p[c][c + k] for the diagonals k = r - c of a strip's weights:
/// kLanes neighbouring diagonals at a time, each a load that moves one row down and one lane right.
HWY_NOINLINE void addDiagonals(const float* p, int n, float* sums) {
    const D d;
    for (int k = -(n - 1); k < kWidth; k += kLanes) {
        const int begin = std::max(0, -k - kLanes + 1), end = std::min(n, kWidth - k);
        V even = hn::Zero(d), odd = even;
        int c = begin;
        for (; c + 2 <= end; c += 2) {
            even = hn::Add(even, hn::LoadU(d, p + c * kPitch + kLanes + c + k));
            odd = hn::Add(odd, hn::LoadU(d, p + (c + 1) * kPitch + kLanes + c + 1 + k));
        }
        if (c < end) even = hn::Add(even, hn::LoadU(d, p + c * kPitch + kLanes + c + k));
        float* to = sums + k + n - 1;
        hn::StoreU(hn::Add(hn::Add(even, odd), hn::LoadU(d, to)), d, to);
    }
}

/// Pass C: an owner of key tiles streams all query strips that see them.
void captureKeys(const Head& h, const CapturePass& pass, Index group, Workspace& work,
                 TaskContext& context) {
    const D d;
    const Problem& p = *h.problem;
    const CaptureOut& out = pass.out;
    const auto packed = std::size_t(p.d * kWidth);
    const Index block = pass.block, blockCols = (p.Nk + block - 1) / block;
    const bool wholeStrips = block % kWidth == 0;
    float* s = work.s.get(std::size_t(kChunk) * kWidth);
    float* weights = work.p.get(std::size_t(kChunk) * kPitch + 2 * kLanes);
    float* columns = work.keys.get(std::size_t(kChunk) * kWidth);
    float* blocks = work.o.get(std::size_t(kChunk) * 2 * kLanes);
    float* slants = work.extra.get(std::size_t(kChunk + kPitch));
    float* diagonal = pass.diagonal ? pass.diagonal + group * pass.diagonals : nullptr;
    if (diagonal) std::fill_n(diagonal, pass.diagonals, 0.0f);
    std::fill_n(weights, kChunk * kPitch + 2 * kLanes, 0.0f);
    KeyRun run;
    for (Index tile = group; tile * pass.tileKeys < p.Nk; tile += pass.groups) {
        const Index tileEnd = std::min(p.Nk, (tile + 1) * pass.tileKeys);
        if (out.blockSum || out.blockMax) {
            for (Index row = 0; row * block < p.Nq; ++row)
                for (Index c = tile * pass.tileKeys / block; c * block < tileEnd; ++c) {
                    if (out.blockSum) out.blockSum[row * blockCols + c] = 0;
                    if (out.blockMax) out.blockMax[row * blockCols + c] = 0;
                }
        }
        for (Index chunk = tile * pass.tileKeys; chunk < tileEnd; chunk += kChunk) {
            const int size = int(std::min<Index>(kChunk, tileEnd - chunk));
            const Index shift = p.Nk - p.Nq;
            const Index firstRow = p.causal ? std::max<Index>(0, chunk - shift) : 0;
            const Index endRow =
                p.window > 0 ? std::min(p.Nq, chunk + size - 1 + p.window - shift) : p.Nq;
            run.set(h, chunk, size);
            std::fill_n(columns, size * kWidth, 0.0f);
            const int blocksHere = int((chunk + size - 1) / block - chunk / block) + 1;
            std::fill_n(blocks, blocksHere * 2 * kLanes, 0.0f);
            Index blockRow = firstRow / block;
            const auto flush = [&]() HWY_ATTR {
                for (int b = 0; b < blocksHere; ++b) {
                    float* at = blocks + b * 2 * kLanes;
                    const Index to = blockRow * blockCols + chunk / block + b;
                    const float sum = hn::GetLane(hn::SumOfLanes(d, hn::Load(d, at)));
                    if (out.blockSum) out.blockSum[to] += sum;
                    // A maximum may lose a NaN; the sum never does.
                    const float max = hn::GetLane(hn::MaxOfLanes(d, hn::Load(d, at + kLanes)));
                    if (out.blockMax)
                        out.blockMax[to] = std::isnan(sum) ? sum : std::max(out.blockMax[to], max);
                    std::fill_n(at, 2 * kLanes, 0.0f);
                }
            };
            for (Index i = firstRow / kWidth; i < pass.strips && i * kWidth < endRow; ++i) {
                if ((i & 7) == 0) context.check();
                const Strip rows(p, i * kWidth);
                const int from = int(std::clamp<Index>(rows.minBegin - chunk, 0, size));
                const int to = int(
                    std::clamp<Index>(p.visibleEnd(rows.row0 + rows.rows - 1) - chunk, 0, size));
                const int n = to - from;
                if (n <= 0) continue;
                visibleScores(h, rows, run, from, n, pass.packed + std::size_t(i) * packed,
                              pass.finite[i], s);
                if (wholeStrips && rows.row0 / block != blockRow) {
                    flush();
                    blockRow = rows.row0 / block;
                }
                V denominators[kVecs];
                for (int v = 0; v < kVecs; ++v)
                    denominators[v] = hn::Load(d, pass.denominator + i * kWidth + v * kLanes);
                for (int c = 0; c < n;) {
                    const Index column = (chunk + from + c) / block;
                    const int stop = int(std::min<Index>(n, (column + 1) * block - chunk - from));
                    float* at = blocks + (column - chunk / block) * 2 * kLanes;
                    V sum = hn::Load(d, at), max = hn::Load(d, at + kLanes);
                    for (; c < stop; ++c) {
                        for (int v = 0; v < kVecs; ++v) {
                            const int lane = v * kLanes;
                            V w =
                                exp2(hn::Sub(hn::Load(d, s + c * kWidth + lane), denominators[v]));
                            if (HWY_UNLIKELY(rows.rows < kWidth))
                                w = hn::IfThenElseZero(
                                    hn::FirstN(
                                        d, std::size_t(std::clamp(rows.rows - lane, 0, kLanes))),
                                    w);
                            hn::Store(w, d, weights + c * kPitch + kLanes + lane);
                            float* mass = columns + (from + c) * kWidth + lane;
                            hn::Store(hn::Add(hn::Load(d, mass), w), d, mass);
                            sum = hn::Add(sum, w);
                            max = hn::Max(max, w);
                        }
                    }
                    if (wholeStrips) {
                        hn::Store(sum, d, at);
                        hn::Store(max, d, at + kLanes);
                    }
                }
                if (!wholeStrips) {
                    for (int c = 0; c < n; ++c)
                        for (int r = 0; r < rows.rows; ++r) {
                            const Index at =
                                (rows.row0 + r) / block * blockCols + (chunk + from + c) / block;
                            const float w = weights[c * kPitch + kLanes + r];
                            if (out.blockSum) out.blockSum[at] += w;
                            if (out.blockMax && !(out.blockMax[at] >= w) &&
                                !std::isnan(out.blockMax[at]))
                                out.blockMax[at] = w;
                        }
                }
                if (!diagonal) continue;
                std::fill_n(slants, n + kPitch, 0.0f);
                addDiagonals(weights, n, slants);
                // Diagonal k holds the pairs with position - key = k + base.
                const Index base = p.position(rows.row0) - (chunk + from);
                for (int k = -(n - 1); k < rows.rows; ++k) {
                    const Index at = p.causal ? base + k : p.Nk - 1 - (base + k);
                    if (at >= 0 && at < pass.diagonals) diagonal[at] += slants[k + n - 1];
                }
            }
            if (wholeStrips) flush();
            if (!out.colMass) continue;
            for (int c = 0; c < size; ++c) {
                double sum = 0;
                for (int r = 0; r < kWidth; ++r) sum += double(columns[c * kWidth + r]);
                out.colMass[chunk + c] = float(sum);
            }
        }
    }
}

/// Visible pairs of the rows [rows.begin, rows.end) and the keys [keys.begin, keys.end).
inline Index visiblePairs(const Problem& p, Range rows, Range keys) {
    // Both ends of a row's sight grow with the row.
    if (p.visibleBegin(rows.end - 1) <= keys.begin && p.visibleEnd(rows.begin) >= keys.end)
        return Index(rows.end - rows.begin) * (keys.end - keys.begin);
    Index pairs = 0;
    for (Index row = rows.begin; row < rows.end; ++row)
        pairs += std::max<Index>(0, std::min<Index>(keys.end, p.visibleEnd(row)) -
                                        std::max<Index>(keys.begin, p.visibleBegin(row)));
    return pairs;
}

/// [lane][cells] from [cells][kWidth]. @param cells a multiple of kCorner
HWY_NOINLINE void transposeCells(const float* in, Index cells, float* out) {
    const auto same = [](auto x) HWY_ATTR { return x; };
    for (Index b = 0; b < cells; b += kCorner)
        for (int r = 0; r < kWidth; r += kCorner)
            transposeCorner(in + b * kWidth + r, kWidth, out + r * cells + b, cells, same);
}

void render(const Head& h, const RenderPass& pass, Index first, Index last, Workspace& work,
            TaskContext& context) {
    const D d;
    const Problem& p = *h.problem;
    const RenderSpec& spec = *pass.spec;
    const Index rowTokens = spec.q1 - spec.q0, colTokens = spec.k1 - spec.k0;
    const Index cells = (spec.width + 3) / 4 * 4;
    const auto size = std::size_t(cells * kWidth);
    const bool maximum = spec.statistic == Statistic::Max;
    const double sink2 = double(h.sink()) * double(kLog2e);
    float* q = work.q.get(std::size_t(p.d * kWidth));
    float* s = work.s.get(std::size_t(kChunk) * kWidth);
    float* sums = work.o.get(4 * size);
    float* maxima = sums + size;
    float* sumRows = sums + 2 * size;
    float* maxRows = sums + 3 * size;
    float* denominators = work.state.get(std::size_t(kWidth));
    std::vector<Range> columns(static_cast<std::size_t>(spec.width));
    for (Index b = 0; b < spec.width; ++b)
        columns[std::size_t(b)] = pixelTokens(b, spec.width, colTokens);
    std::vector<double> total(std::size_t((last - first) * spec.width), 0.0);
    std::vector<float> top(maximum ? total.size() : 0, 0.0f);
    const Index endToken = spec.q0 + pixelTokens(last - 1, spec.height, rowTokens).end;
    KeyRun run;
    for (Index row0 = spec.q0 + pixelTokens(first, spec.height, rowTokens).begin; row0 < endToken;
         row0 += kWidth) {
        Strip rows(p, row0);
        rows.rows = int(std::min<Index>(rows.rows, endToken - row0));
        const bool qFinite = packStrip(h, row0, q);
        for (int r = 0; r < kWidth; ++r) {
            // A row that sees nothing has p = 0 everywhere.
            const bool sees = r < rows.rows && pass.lse[row0 + r] != kNegInf;
            denominators[r] =
                sees ? float(withSink(double(pass.lse[row0 + r]) / kLn2, sink2)) : -kNegInf;
        }
        std::fill_n(sums, maximum ? 2 * size : size, 0.0f);
        std::size_t pixel = 0;
        for (Index chunk = spec.k0; chunk < spec.k1; chunk += kChunk) {
            context.check();
            const int keys = int(std::min<Index>(kChunk, spec.k1 - chunk));
            const int n =
                int(std::clamp<Index>(p.visibleEnd(row0 + rows.rows - 1) - chunk, 0, keys));
            if (n == 0) break;
            run.set(h, chunk, n);
            visibleScores(h, rows, run, 0, n, q, qFinite, s);
            for (int c = 0; c < n; ++c)
                for (int v = 0; v < kVecs; ++v) {
                    float* at = s + c * kWidth + v * kLanes;
                    hn::Store(
                        exp2(hn::Sub(hn::Load(d, at), hn::Load(d, denominators + v * kLanes))), d,
                        at);
                }
            if (spec.show != Show::All) {
                work.flags.assign(std::size_t(n * kWidth), 0);
                for (int r = 0; r < rows.rows; ++r) {
                    keptRanges(*spec.mask, p, row0 + r, work.ranges);
                    for (const Range& range : work.ranges)
                        for (Index key = std::max<Index>(range.begin, chunk);
                             key < std::min<Index>(range.end, chunk + n); ++key)
                            work.flags[std::size_t((key - chunk) * kWidth + r)] = 1;
                }
                const std::uint8_t wanted = spec.show == Show::Kept;
                for (int i = 0; i < n * kWidth; ++i)
                    if (work.flags[std::size_t(i)] != wanted) s[i] = 0;
            }
            while (pixel < columns.size() && spec.k0 + columns[pixel].end <= chunk) ++pixel;
            for (std::size_t b = pixel; b < columns.size(); ++b) {
                const Index from = std::max<Index>(spec.k0 + columns[b].begin - chunk, 0);
                const Index to = std::min<Index>(spec.k0 + columns[b].end - chunk, n);
                if (from >= n) break;
                for (int v = 0; v < kVecs; ++v) {
                    float* sumAt = sums + Index(b) * kWidth + v * kLanes;
                    V sum = hn::Load(d, sumAt);
                    for (Index c = from; c < to; ++c)
                        sum = hn::Add(sum, hn::Load(d, s + c * kWidth + v * kLanes));
                    hn::Store(sum, d, sumAt);
                    if (!maximum) continue;
                    float* maxAt = maxima + Index(b) * kWidth + v * kLanes;
                    V max = hn::Load(d, maxAt);
                    for (Index c = from; c < to; ++c)
                        max = hn::Max(max, hn::Load(d, s + c * kWidth + v * kLanes));
                    hn::Store(max, d, maxAt);
                }
            }
        }
        transposeCells(sums, cells, sumRows);
        if (maximum) transposeCells(maxima, cells, maxRows);
        for (Index a = first; a < last; ++a) {
            const Range tokens = pixelTokens(a, spec.height, rowTokens);
            const Index from = std::max<Index>(spec.q0 + tokens.begin - row0, 0);
            const Index to = std::min<Index>(spec.q0 + tokens.end - row0, rows.rows);
            double* totals = total.data() + (a - first) * spec.width;
            for (Index r = from; r < to; ++r) {
                const float* row = sumRows + r * cells;
                for (Index b = 0; b < spec.width; ++b) totals[b] += double(row[b]);
                if (!maximum) continue;
                float* tops = top.data() + (a - first) * spec.width;
                for (Index b = 0; b < spec.width; ++b)
                    tops[b] = std::max(tops[b], maxRows[r * cells + b]);
            }
        }
    }
    for (Index a = first; a < last; ++a) {
        Range rows = pixelTokens(a, spec.height, rowTokens);
        rows = {std::int32_t(rows.begin + spec.q0), std::int32_t(rows.end + spec.q0)};
        for (Index b = 0; b < spec.width; ++b) {
            const auto at = std::size_t((a - first) * spec.width + b);
            const Range keys{std::int32_t(columns[std::size_t(b)].begin + spec.k0),
                             std::int32_t(columns[std::size_t(b)].end + spec.k0)};
            const Index pairs = visiblePairs(p, rows, keys);
            double value = total[at];
            if (pairs == 0)
                value = -1;
            else if (spec.statistic == Statistic::Mean)
                value /= double(pairs);
            else if (maximum && !std::isnan(value))
                value = double(top[at]);
            pass.px[std::size_t(first * spec.width) + at] = float(value);
        }
    }
}

/// Strip `group0` of query groups: out[t * d + c][lane] = row (group0 + lane) * stride + stride - 1
/// - t, scaled. One strided packing for every t.
inline void packGroups(const Head& h, const AntidiagonalPass& pass, Index group0, float* out) {
    Problem groups = *h.problem;
    groups.softcap = 0;
    groups.relBias = nullptr;
    groups.scale /= float(pass.stride);
    Head lane = h;
    lane.problem = &groups;
    for (Index t = 0; t < pass.stride; ++t) {
        const Index first = pass.stride - 1 - t;
        groups.Nq = first < h.problem->Nq ? (h.problem->Nq - first - 1) / pass.stride + 1 : 0;
        lane.q = h.q.from(first);
        lane.q.sn = h.q.sn * pass.stride;
        float* to = out + t * groups.d * kWidth;
        if (group0 < groups.Nq)
            packStrip(lane, group0, to);
        else
            std::fill_n(to, groups.d * kWidth, 0.0f);
    }
}

void antidiagonal(const Head& h, const AntidiagonalPass& pass, Index firstRow, Index lastRow,
                  Workspace& work, TaskContext& context) {
    const D d;
    const Problem& p = *h.problem;
    const Index perBlock = pass.block / pass.stride, inner = pass.stride * p.d;
    float* q = work.q.get(std::size_t(inner * kWidth));
    float* s = work.s.get(std::size_t(pass.kGroups * kWidth));
    const Index lastGroup = std::min(lastRow * perBlock, pass.qGroups);
    std::vector<double> total(std::size_t((lastRow - firstRow) * pass.cols), 0.0);
    const float* rows[kChunk];
    for (Index group0 = firstRow * perBlock; group0 < lastGroup; group0 += kWidth) {
        const int groups = int(std::min<Index>(kWidth, lastGroup - group0));
        packGroups(h, pass, group0, q);
        const auto visible = [&](int r) {
            return p.causal ? std::clamp<Index>(group0 + r + pass.offset + 1, 0, pass.kGroups)
                            : pass.kGroups;
        };
        const Index end = visible(groups - 1);
        for (Index chunk = 0; chunk < end; chunk += kChunk) {
            context.check();
            const int n = int(std::min<Index>(kChunk, end - chunk));
            for (int c = 0; c < n; ++c) rows[c] = pass.keys + (chunk + c) * inner;
            scoreStrip(rows, n, inner, q, s + chunk * kWidth);
        }
        for (Index c = std::max<Index>(0, visible(0)); c < end; ++c)
            for (int r = 0; r < groups; ++r)
                if (c >= visible(r)) s[c * kWidth + r] = kNegInf;
        for (int v = 0; v < kVecs; ++v) {
            float* at = s + v * kLanes;
            V max = hn::Set(d, kNegInf), sum = hn::Zero(d);
            for (Index c = 0; c < end; ++c) max = hn::Max(max, hn::Load(d, at + c * kWidth));
            const V base = baseOf(max);
            for (Index c = 0; c < end; ++c) {
                const V w = exp2(hn::Sub(hn::Load(d, at + c * kWidth), base));
                hn::Store(w, d, at + c * kWidth);
                sum = hn::Add(sum, w);
            }
            const V inverse =
                hn::IfThenZeroElse(hn::Eq(sum, hn::Zero(d)), hn::Div(hn::Set(d, 1.0f), sum));
            HWY_ALIGN float lanes[kLanes];
            for (Index b = 0; b * perBlock < end; ++b) {
                V mass = hn::Zero(d);
                for (Index c = b * perBlock; c < std::min(end, (b + 1) * perBlock); ++c)
                    mass = hn::Add(mass, hn::Load(d, at + c * kWidth));
                hn::Store(hn::Mul(mass, inverse), d, lanes);
                for (int r = 0; r < kLanes && v * kLanes + r < groups; ++r) {
                    const Index row = (group0 + v * kLanes + r) / perBlock - firstRow;
                    total[std::size_t(row * pass.cols + b)] += double(lanes[r]);
                }
            }
        }
    }
    for (std::size_t i = 0; i < total.size(); ++i)
        pass.score[firstRow * pass.cols + Index(i)] = float(total[i]);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace sparsight::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
