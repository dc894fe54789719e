#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "core/capture/decode.h"
#include "core/capture/row_range.h"
#include "core/capture/token_texts.h"
#include "core/metrics/head_metrics.h"
#include "core/model/tokenizer.h"
#include "core/plan/generate.h"

using namespace sparsight;
using Catch::Matchers::Contains;

namespace {

const std::string kBookworm = SPARSIGHT_SOURCE_DIR "/resources/models/bookworm";
const std::string kModels = SPARSIGHT_TEST_DATA "/models/";

/// A copy of a layer that outlives the sink's call.
struct Kept {
    std::vector<float> q, k, v, lse;
    LayerCapture layer;
    LayerStats stats;

    Kept(const LayerCapture& from, const LayerStats& s) : layer(from), stats(s) {
        const auto copy = [](const kernels::TensorView& x, Index heads, Index rows, Index d,
                             std::vector<float>& out) {
            for (Index h = 0; h < heads; ++h)
                for (Index n = 0; n < rows; ++n)
                    for (Index c = 0; c < d; ++c)
                        out.push_back(kernels::loadFloat(x.p, x.t, h * x.sh + n * x.sn + c));
            return kernels::TensorView{out.data(), kernels::DType::F32, heads * rows * d, rows * d,
                                       d};
        };
        const kernels::Problem& p = from.problem;
        layer.q = copy(from.q, p.Hq, p.Nq, p.d, q);
        layer.k = copy(from.k, p.Hkv, p.Nk, p.d, k);
        layer.v = copy(from.v, p.Hkv, p.Nk, p.dv, v);
        lse.assign(from.lse.data(), from.lse.data() + from.lse.size());
        layer.lse = {lse.data(), {p.Hq, p.Nq}};
        layer.owner.reset();
    }
};
using Layers = std::map<Index, std::shared_ptr<Kept>>;

struct Decoded {
    std::vector<std::int32_t> generated;
    Layers layers;
    double massError = 0;
};

Decoded decode(ModelRunner& model, std::span<const std::int32_t> prompt, Index steps,
               const CaptureOptions& options = {}) {
    const auto backend = kernels::makeBackend("cpu", 2);
    Decoded d;
    d.massError = captureDecode(
        model, *backend, prompt, steps, options,
        [&](std::span<const std::int32_t> ids) {
            CHECK(d.layers.empty());
            d.generated.assign(ids.begin(), ids.end());
        },
        [&](const LayerCapture& l, const LayerStats& s) {
            REQUIRE_FALSE(d.generated.empty());
            d.layers[l.layer] = std::make_shared<Kept>(l, s);
        });
    return d;
}

Layers prefill(ModelRunner& model, std::span<const std::int32_t> ids) {
    const auto backend = kernels::makeBackend("cpu", 2);
    Layers layers;
    capturePrompt(model, *backend, ids, {}, [&](const LayerCapture& l, const LayerStats& s) {
        layers[l.layer] = std::make_shared<Kept>(l, s);
    });
    return layers;
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    double worst = 0, largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        worst = std::max(worst, double(std::abs(a[i] - b[i])));
        largest = std::max(largest, double(std::abs(b[i])));
    }
    return worst / largest;
}

std::vector<std::int32_t> bookwormIds(Index tokens) {
    auto ids = Tokenizer::load(kBookworm)
                   ->encode(
                       "The old man looked at the sea for a long time, and then he said to "
                       "the boy that the wind would turn before the night came. The boy did "
                       "not answer. He sat upon the wall and counted the boats, one after "
                       "another, until the last of them had gone behind the cape.")
                   .ids;
    REQUIRE(Index(ids.size()) >= tokens);
    ids.resize(std::size_t(tokens));
    return ids;
}

/// The same model with another end-of-text token.
class WithEos final : public ModelRunner {
public:
    WithEos(ModelRunner& model, std::int32_t eos) : m_model(model), m_config(model.config()) {
        m_config.eosTokens = {eos};
    }
    const ModelConfig& config() const override { return m_config; }
    void forward(std::span<const std::int32_t> ids, KvCache& cache, const AttentionFn& attention,
                 const Job& job, Index lastLayer) override {
        m_model.forward(ids, cache, attention, job, lastLayer);
    }
    void logits(Index row0, Index row1, float* out) override { m_model.logits(row0, row1, out); }
    int threads() const override { return m_model.threads(); }

private:
    ModelRunner& m_model;
    ModelConfig m_config;
};

}  // namespace

TEST_CASE("decode rows equal those of a prefill over prompt and generated tokens", "[decode]") {
    const std::string name =
        GENERATE(std::string("bookworm"), std::string("llama"), std::string("llama_linear"));
    CAPTURE(name);
    const auto model = loadModel(name == "bookworm" ? kBookworm : kModels + name, 2);
    std::vector<std::int32_t> prompt;
    if (name == "bookworm")
        prompt = bookwormIds(50);
    else
        for (int i = 0; i < 70; ++i) prompt.push_back(3 + (i * 37) % 400);
    const Decoded d = decode(*model, prompt, 9);
    REQUIRE(d.generated.size() == 9);
    CHECK(d.massError < 1e-5);

    // The tokens are those of generation without a capture.
    const auto backend = kernels::makeBackend("cpu", 2);
    if (name == "bookworm")
        CHECK(d.generated ==
              generate(*model, *backend, *Tokenizer::load(kBookworm), prompt, 9, nullptr).ids);

    auto all = prompt;
    all.insert(all.end(), d.generated.begin(), d.generated.end());
    const Layers whole = prefill(*model, all);
    REQUIRE(d.layers.size() == whole.size());
    REQUIRE(Index(whole.size()) == model->config().layers);
    const Index n = Index(all.size());
    double worst = 0;
    for (const auto& [l, a] : d.layers) {
        const Kept& b = *whole.at(l);
        CAPTURE(l);
        REQUIRE(a->layer.problem.Nq == n);
        REQUIRE(a->layer.problem.Nk == n);
        CHECK(difference(a->q, b.q) < 1e-5);
        CHECK(difference(a->k, b.k) < 1e-5);
        CHECK(difference(a->v, b.v) < 1e-5);
        CHECK(difference(a->lse, b.lse) < 1e-5);
        std::vector<float> p(static_cast<std::size_t>(n)), q(p);
        for (Index h = 0; h < a->layer.problem.Hq; ++h)
            for (Index row = Index(prompt.size()); row < n; ++row) {
                rowProbabilities(headProblem(a->layer, h), headQ(a->layer, h), headK(a->layer, h),
                                 row, p.data());
                rowProbabilities(headProblem(b.layer, h), headQ(b.layer, h), headK(b.layer, h), row,
                                 q.data());
                for (std::size_t i = 0; i < p.size(); ++i)
                    worst = std::max(worst, double(std::abs(p[i] - q[i])));
            }
    }
    CHECK(worst < 1e-5);
    CHECK(worst > 0);  // two ways of computing: equal bits would mean that one was not taken
}

TEST_CASE("a decode capture of some layers, in 16 bits, and one that ends early", "[decode]") {
    const auto model = loadModel(kBookworm, 2);
    const auto prompt = bookwormIds(30);
    const Decoded all = decode(*model, prompt, 6);
    CaptureOptions options;
    options.layers = {1, 4};
    options.store = kernels::DType::BF16;
    const Decoded some = decode(*model, prompt, 6, options);
    CHECK(some.generated == all.generated);
    REQUIRE(some.layers.size() == 2);
    const double q = difference(some.layers.at(4)->q, all.layers.at(4)->q);
    CHECK(q > 1e-5);
    CHECK(q < 1e-2);

    // Its third token made the end of text: that token is the last row.
    std::size_t third = 2;
    while (std::find(all.generated.begin(), all.generated.begin() + std::ptrdiff_t(third),
                     all.generated[third]) != all.generated.begin() + std::ptrdiff_t(third))
        ++third;
    WithEos ending(*model, all.generated[third]);
    const Decoded early = decode(ending, prompt, 6);
    REQUIRE(early.generated.size() == third + 1);
    CHECK(early.layers.at(7)->layer.problem.Nq == Index(prompt.size() + third + 1));

    const auto backend = kernels::makeBackend("cpu", 1);
    const auto run = [&](Index steps) {
        captureDecode(
            *model, *backend, prompt, steps, {}, [](auto) {}, [](auto&, auto&) {});
    };
    CHECK_THROWS_WITH(run(0), Contains("1 to"));
    Job stopped({}, [] { return true; });
    CHECK_THROWS_AS(captureDecode(
                        *model, *backend, prompt, 3, {}, [](auto) {}, [](auto&, auto&) {}, stopped),
                    Cancelled);
}

TEST_CASE("prefill and decode rows as layers of their own", "[decode]") {
    const auto model = loadModel(kBookworm, 2);
    const auto backend = kernels::makeBackend("cpu", 2);
    const auto prompt = bookwormIds(45);
    const Decoded d = decode(*model, prompt, 5);
    const Layers alone = prefill(*model, prompt);
    const auto kept = d.layers.at(3);
    const std::shared_ptr<const LayerCapture> layer(kept, &kept->layer);

    const RowPart first = rowPart(*backend, layer, 45, RowRange::Prefill);
    REQUIRE(first.layer->problem.Nq == 45);
    REQUIRE(first.layer->problem.Nk == 45);
    CHECK(difference(first.stats->colMass, alone.at(3)->stats.colMass) < 1e-5);
    CHECK(difference(first.stats->entropy, alone.at(3)->stats.entropy) < 1e-5);

    const RowPart rest = rowPart(*backend, layer, 45, RowRange::Decode);
    REQUIRE(rest.layer->problem.Nq == 5);
    REQUIRE(rest.layer->problem.Nk == 50);
    for (Index h = 0; h < rest.layer->problem.Hq; ++h)
        for (Index r = 0; r < 5; ++r)
            CHECK(rest.layer->lse(h, r) == Approx(kept->layer.lse(h, 45 + r)).margin(1e-5));
    CHECK_THROWS_WITH(rowPart(*backend, layer, 50, RowRange::Decode), Contains("--decode N"));
    CHECK_THROWS_WITH(parseRows("some"), Contains("prefill, decode or all"));
}

TEST_CASE("decode steps as text", "[decode]") {
    CHECK(parseSteps("0,3,5-9") == std::vector<Index>{0, 3, 5, 6, 7, 8, 9});
    CHECK(parseSteps("4,2,3-4") == std::vector<Index>{2, 3, 4});
    for (const char* bad : {"", "a", "3-1", "1,,2", "-1", "1-", "99999999999999999999"}) {
        CAPTURE(bad);
        CHECK_THROWS_WITH(parseSteps(bad), Contains("0,3,5-9"));
    }
}

TEST_CASE("decoded tokens have their texts", "[decode]") {
    const auto tokenizer = Tokenizer::load(kBookworm);
    const std::string text = "Ça va? A long line – and an emoji \xF0\x9F\x98\x80 at the end";
    const Encoding e = tokenizer->encode(text, false);
    TokenTexts texts;
    appendDecoded(*tokenizer, e.ids, 0, texts);
    CHECK(texts.text == text);
    REQUIRE(texts.offsets.size() == e.ids.size());
    CHECK(texts.offsets.back().byteEnd == Index(text.size()));
    CHECK(texts.offsets.back().end == 46);
    for (std::size_t i = 0; i < e.ids.size(); ++i) {
        // Where a token is whole characters, the span is the tokenizer's own.
        if (texts.offsets[i].byteEnd - texts.offsets[i].byteBegin ==
            e.offsets[i].byteEnd - e.offsets[i].byteBegin)
            CHECK(texts.offsets[i].byteBegin == e.offsets[i].byteBegin);
        if (i > 0) CHECK(texts.offsets[i].byteBegin <= texts.offsets[i - 1].byteEnd);
    }
    // Byte tokens beside each other: none is spoilt by a context that begins inside another.
    const std::string emojis =
        "a \xF0\x9F\x98\x80\xF0\x9F\x98\x81\xE4\xBD\xA0\xE5\xA5\xBD\xF0\x9F\x98\x82 b";
    const auto bytes = Tokenizer::load(SPARSIGHT_TEST_DATA "/parity/tokenizers/gemma");
    const Encoding many = bytes->encode(emojis, false);
    TokenTexts bytewise;
    appendDecoded(*bytes, many.ids, 0, bytewise);
    CHECK(bytewise.text == emojis);
    // In two parts: the second goes on where the first ended.
    TokenTexts parts;
    const std::span<const std::int32_t> ids = e.ids;
    appendDecoded(*tokenizer, ids.first(5), 0, parts);
    appendDecoded(*tokenizer, ids, 5, parts);
    CHECK(parts.text == text);
}
