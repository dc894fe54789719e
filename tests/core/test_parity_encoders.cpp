#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/capture/capture.h"
#include "core/metrics/head_metrics.h"
#include "core/metrics/mask_metrics.h"
#include "core/model/encoder_config.h"
#include "core/model/image_file.h"
#include "core/model/image_input.h"
#include "core/model/safetensors.h"
#include "sessions/capture_input.h"

using namespace sparsight;
namespace fs = std::filesystem;

// Goldens of tests/data/parity: the same numbers as transformers gives (tests/data/README.md).

namespace {

const fs::path kParity = fs::path(SPARSIGHT_TEST_DATA) / "parity";

/// A model directory with the chosen spelling of its config.json.
struct Model {
    fs::path path;
    nlohmann::json golden;
    SafeTensors tensors;
    Model(const std::string& name, bool v4)
        : tensors(SafeTensors::openFile(kParity / name / "golden.safetensors")) {
        std::string folder = (fs::temp_directory_path() / "sparsight_parity_XXXXXX").string();
        REQUIRE(mkdtemp(folder.data()) != nullptr);
        path = folder;
        for (const auto& entry : fs::directory_iterator(kParity / name))
            if (entry.path().filename() != "config.json")
                fs::create_symlink(entry.path(), path / entry.path().filename());
        fs::copy_file(kParity / name / (v4 ? "config_v4.json" : "config.json"),
                      path / "config.json");
        std::ifstream in(kParity / name / "golden.json");
        golden = nlohmann::json::parse(in);
    }
    ~Model() { fs::remove_all(path); }
    bool has(const std::string& name) const { return tensors.contains(name); }
    std::vector<float> floats(const std::string& name) const { return tensors.at(name).toFloat(); }
    std::vector<std::int32_t> ids(const std::string& name) const {
        std::vector<std::int32_t> out;
        if (has(name))
            for (const std::int64_t id : tensors.at(name).toInt()) out.push_back(std::int32_t(id));
        return out;
    }
    /// The inputs of a prompt: one, or a text and an image for CLIP's two towers.
    std::vector<ModelInput> inputs(const std::string& prompt) const {
        std::vector<ModelInput> list;
        if (has(prompt + ".input_ids"))
            list.push_back({ids(prompt + ".input_ids"), ids(prompt + ".decoder_input_ids"), {}});
        if (has(prompt + ".pixel_values")) {
            const StTensor& t = tensors.at(prompt + ".pixel_values");
            REQUIRE(t.shape.size() == 3);
            list.push_back({{}, {}, {t.shape[1], t.shape[2], t.toFloat()}});
        }
        return list;
    }
};

struct Worst {
    double attn = 0, q = 0, k = 0, v = 0, lse = 0, logits = 0;
};

/// Largest difference, as a share of the largest magnitude.
double relative(const kernels::TensorView& x, Index heads, Index tokens, Index d,
                const std::vector<float>& golden) {
    REQUIRE(Index(golden.size()) == heads * tokens * d);
    double worst = 0, most = 0;
    for (Index h = 0; h < heads; ++h)
        for (Index n = 0; n < tokens; ++n)
            for (Index c = 0; c < d; ++c) {
                const double is = double(kernels::loadFloat(x.p, x.t, h * x.sh + n * x.sn + c));
                const double should = double(golden[std::size_t((h * tokens + n) * d + c)]);
                worst = std::max(worst, std::abs(is - should));
                most = std::max(most, std::abs(should));
            }
    return worst / most;
}

void compareLayer(const Model& model, const std::string& key, const LayerCapture& layer,
                  Worst& worst) {
    const kernels::Problem& p = layer.problem;
    worst.q = std::max(worst.q, relative(layer.q, p.Hq, p.Nq, p.d, model.floats(key + ".q")));
    worst.k = std::max(worst.k, relative(layer.k, p.Hkv, p.Nk, p.d, model.floats(key + ".k")));
    worst.v = std::max(worst.v, relative(layer.v, p.Hkv, p.Nk, p.dv, model.floats(key + ".v")));
    if (model.has(key + ".lse")) {
        const kernels::TensorView lse{layer.lse.data(), kernels::DType::F32, 0, p.Nq, 1};
        worst.lse = std::max(worst.lse, relative(lse, p.Hq, p.Nq, 1, model.floats(key + ".lse")));
    }
    const std::vector<float> golden = model.floats(key + ".attn");
    REQUIRE(Index(golden.size()) == p.Hq * p.Nq * p.Nk);
    std::vector<float> row(std::size_t(p.Nk));
    for (Index h = 0; h < p.Hq; ++h)
        for (Index i = 0; i < p.Nq; ++i) {
            rowProbabilities(headProblem(layer, h), headQ(layer, h), headK(layer, h), i,
                             row.data());
            double sum = 0;
            for (Index j = 0; j < p.Nk; ++j) {
                const double is = double(row[std::size_t(j)]);
                sum += is;
                worst.attn =
                    std::max(worst.attn,
                             std::abs(is - double(golden[std::size_t((h * p.Nq + i) * p.Nk + j)])));
            }
            if (std::abs(sum - 1) > 1e-6) FAIL("row " << i << " of " << key << " sums to " << sum);
        }
}

/// Last rows of the logits, and the argmax of all of them.
void compareLogits(const Model& model, const std::string& prompt, ModelRunner& runner,
                   const ModelInput& input, kernels::Backend& backend, Worst& worst) {
    const bool clip = model.has(prompt + ".text_embeds");
    if (!clip && !model.has(prompt + ".logits_last4")) return;
    runner.pass(input, denseAttention(backend));
    const OutputShape shape = outputShape(runner.config(), inputSize(runner.config(), input));
    std::vector<float> logits(std::size_t(shape.rows * shape.width));
    runner.logits(0, shape.rows, logits.data());
    const std::vector<float> last = model.floats(prompt + (!clip               ? ".logits_last4"
                                                           : input.ids.empty() ? ".image_embeds"
                                                                               : ".text_embeds"));
    REQUIRE(last.size() <= logits.size());
    const std::size_t skip = logits.size() - last.size();
    for (std::size_t i = 0; i < last.size(); ++i)
        worst.logits = std::max(worst.logits, std::abs(double(logits[skip + i]) - double(last[i])));
    if (clip) return;
    const std::vector<std::int32_t> top = model.ids(prompt + ".argmax");
    REQUIRE(Index(top.size()) == shape.rows);
    for (Index r = 0; r < shape.rows; ++r) {
        const auto row = logits.begin() + r * shape.width;
        CHECK(std::max_element(row, row + shape.width) - row == top[std::size_t(r)]);
    }
    double sum = 0, size = 0, square = 0;
    for (const float x : logits) {
        sum += double(x);
        size += std::abs(double(x));
        square += double(x) * double(x);
    }
    std::vector<double> sums(3);
    std::memcpy(sums.data(), model.tensors.at(prompt + ".logits_sums").bytes.data(), 24);
    CHECK(sum == Approx(sums[0]).margin(1e-3 * size / 100));
    CHECK(square == Approx(sums[1]).epsilon(1e-5));
    CHECK(size == Approx(sums[2]).epsilon(1e-5));
}

/// Greedy decoding with the cache, from the start token.
void compareDecode(const Model& model, ModelRunner& runner, kernels::Backend& backend,
                   Worst& worst) {
    if (!model.has("decode.ids")) return;
    const std::vector<std::int32_t> ids = model.ids("decode.ids");
    const std::vector<float> golden = model.floats("decode.logits");
    const AttentionFn attention = denseAttention(backend);
    std::int32_t token = runner.encode(model.ids("p1.input_ids"), attention);
    KvCache cache(runner.config(), Index(ids.size()));
    std::vector<float> logits(std::size_t(runner.config().vocab));
    for (std::size_t step = 0; step < ids.size(); ++step) {
        runner.forward({&token, 1}, cache, attention);
        runner.logits(0, 1, logits.data());
        for (std::size_t i = 0; i < logits.size(); ++i)
            worst.logits =
                std::max(worst.logits,
                         std::abs(double(logits[i]) - double(golden[step * logits.size() + i])));
        token = std::int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
        CHECK(token == ids[step]);
    }
}

}  // namespace

TEST_CASE("encoders agree with transformers in both spellings", "[parity]") {
    const auto name =
        GENERATE(as<std::string>{}, "bert", "t5", "vit", "roberta", "roberta_untied", "xlm_roberta",
                 "clip", "clip_vision", "vit_resized", "bart", "bart_untied", "t5_v11", "mt5");
    const bool v4 = GENERATE(false, true);
    CAPTURE(name, v4);
    const Model model(name, v4);
    const auto backend = kernels::makeBackend("cpu", 1);
    const auto runner = loadModel(model.path, 1);
    const ModelConfig& config = runner->config();
    Worst worst;
    for (const char* prompt : {"p0", "p1", "p2"}) {
        std::set<Index> seen;
        for (const ModelInput& input : model.inputs(prompt)) {
            const double massError = capturePrompt(
                *runner, *backend, input, {}, [&](const LayerCapture& layer, const LayerStats&) {
                    seen.insert(layer.layer);
                    const AttentionStack& stack = *stackOf(config, layer.layer);
                    compareLayer(model,
                                 prompt + std::string(".") +
                                     (stack.name.empty() ? "" : stack.name + ".") + "L" +
                                     std::to_string(layer.layer - stack.first),
                                 layer, worst);
                });
            CHECK(massError < 1e-5);
            compareLogits(model, prompt, *runner, input, *backend, worst);
        }
        CHECK((seen.empty() || seen.size() == model.golden.at("layers").size()));
    }
    compareDecode(model, *runner, *backend, worst);
    INFO(name << (v4 ? " (v4)" : "") << ": attention " << worst.attn << ", q " << worst.q << ", k "
              << worst.k << ", v " << worst.v << ", lse " << worst.lse << ", logits "
              << worst.logits);
    CHECK(worst.attn < 2e-5);
    CHECK(worst.q < 2e-5);
    CHECK(worst.k < 2e-5);
    CHECK(worst.v < 2e-5);
    CHECK(worst.lse < 2e-5);
    CHECK(worst.logits < 2e-4);
}

TEST_CASE("layers have names, and an input reaches its own", "[stacks]") {
    const ModelConfig t5 = readConfig(kParity / "t5"), bert = readConfig(kParity / "bert"),
                      clip = readConfig(kParity / "clip");
    REQUIRE(t5.layers == 6);
    CHECK(layerName(t5, 5) == "cross.1");
    CHECK(headName(t5, 2, 3) == "dec.0H3");
    CHECK(headName(bert, 1, 0) == "L1H0");
    CHECK(parseLayers("cross,enc.1,2", t5) == std::vector<Index>{1, 2, 4, 5});
    CHECK(parseLayers("dec.0-1", t5) == std::vector<Index>{2, 3});
    CHECK(parseLayer("cross.0", t5) == 4);
    CHECK_THROWS_AS(parseLayer("cross", t5), Error);
    CHECK_THROWS_AS(parseLayers("cross.2", t5), Error);
    CHECK_THROWS_AS(parseLayers("enc.0", bert), Error);
    CHECK(layersFor(t5, {7, 0, 0}) == std::vector<Index>{0, 1});
    CHECK(layersFor(clip, {7, 0, 0}) == std::vector<Index>{0, 1});
    CHECK(layersFor(clip, {0, 0, 17}) == std::vector<Index>{2, 3, 4});
    CHECK(layerShape(clip, 2, {0, 0, 17}).heads == 6);
    const std::vector<Index> cross{4}, first{0}, vision{3};
    CHECK(layerOrder(t5, cross) == std::vector<Index>{0, 1, 2, 4});
    CHECK(layerOrder(t5, first) == std::vector<Index>{0});
    CHECK(layerOrder(clip, vision) == std::vector<Index>{2, 3});
}

TEST_CASE("relative buckets are those of the reference", "[stacks]") {
    // T5Attention._relative_position_bucket, 8 buckets, distance 20: keys 24 before to 24 after.
    const std::vector<Index> both{3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3,
                                  3, 2, 2, 2, 2, 2, 1, 0, 5, 6, 6, 6, 6, 6, 7, 7, 7,
                                  7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7};
    const std::vector<Index> before{7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 6, 6, 6, 6, 6, 5,
                                    5, 5, 4, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (Index d = -24; d <= 24; ++d) {
        CAPTURE(d);
        CHECK(relativeBucket(d, true, 8, 20) == both[std::size_t(d + 24)]);
        CHECK(relativeBucket(d, false, 8, 20) == before[std::size_t(d + 24)]);
    }
}

namespace {

/// Recall and output error of a policy on one head, by the definition in float64.
void checkMask(kernels::Backend& backend, const LayerCapture& layer, const LayerStats& stats,
               Index h, const std::string& spec) {
    CAPTURE(layer.layer, h, spec);
    const HeadInput in = headInput(layer, &stats, h, backend);
    const kernels::Policy policy = makePolicy(parseMethod(spec))->select(in);
    const MaskMetrics m = measureMask(backend, in, headV(layer, h), policy, {});
    const kernels::Problem& p = in.problem;
    const kernels::TensorView v = headV(layer, h);
    std::vector<float> row(std::size_t(p.Nk));
    std::vector<kernels::Range> ranges;
    double recall = 0, error = 0, norm = 0;
    Index kept = 0;
    for (Index i = 0; i < p.Nq; ++i) {
        rowProbabilities(p, in.q, in.k, i, row.data());
        kernels::keptRanges(policy, p, i, ranges);
        double mass = 0;
        std::vector<double> dense(std::size_t(p.dv)), sparse(dense);
        for (Index j = 0; j < p.Nk; ++j) {
            bool in_ = false;
            for (const auto& r : ranges) in_ = in_ || (j >= r.begin && j < r.end);
            const double w = double(row[std::size_t(j)]);
            mass += in_ ? w : 0;
            kept += in_;
            for (Index c = 0; c < p.dv; ++c) {
                const double x = w * double(kernels::loadFloat(v.p, v.t, j * v.sn + c));
                dense[std::size_t(c)] += x;
                sparse[std::size_t(c)] += in_ ? x : 0;
            }
        }
        CHECK(double(m.rowRecall[std::size_t(i)]) == Approx(mass).margin(2e-6));
        recall += mass / double(p.Nq);
        for (Index c = 0; c < p.dv; ++c) {
            const double o = dense[std::size_t(c)];
            const double s = mass > 0 ? sparse[std::size_t(c)] / mass : 0;
            error += (s - o) * (s - o);
            norm += o * o;
        }
    }
    CHECK(m.recall == Approx(recall).margin(2e-6));
    CHECK(m.outputError == Approx(std::sqrt(error / norm)).margin(2e-5));
    CHECK(m.coverage == Approx(double(kept) / double(kernels::validPairs(p))));
}

}  // namespace

TEST_CASE("masks see the model's own attention: both ways, rectangular, with a bias", "[stacks]") {
    const Model model("t5", false);
    const auto backend = kernels::makeBackend("cpu", 1);
    const auto runner = loadModel(model.path, 1);
    const ModelInput input = model.inputs("p2").front();
    capturePrompt(
        *runner, *backend, input, {}, [&](const LayerCapture& layer, const LayerStats& stats) {
            const std::string stack = stackOf(runner->config(), layer.layer)->name;
            CHECK((layer.problem.relBias != nullptr) == (stack != "cross"));
            CHECK(layer.problem.causal == (stack == "dec"));
            for (const Index h : {Index(0), Index(3)}) {
                checkMask(*backend, layer, stats, h, "oracle-blocks:density=0.4");
                if (stack != "cross")
                    checkMask(*backend, layer, stats, h, "a-shape:sink=2,window=5");
                const HeadInput in = headInput(layer, &stats, h, *backend);
                if (stack != "dec") {
                    CHECK_THROWS_AS(makePolicy(parseMethod("vertical-slash"))->select(in), Error);
                    CHECK_THROWS_AS(makePolicy(parseMethod("antidiagonal"))->select(in), Error);
                }
                if (stack == "cross")
                    CHECK_THROWS_AS(makePolicy(parseMethod("a-shape"))->select(in), Error);
            }
            // The facts of a head count distances both ways.
            const auto facts = headFacts(*backend, layer, stats, {}, {});
            std::vector<float> row(std::size_t(layer.problem.Nk));
            double distance = 0;
            for (Index i = 0; i < layer.problem.Nq; ++i) {
                rowProbabilities(headProblem(layer, 1), headQ(layer, 1), headK(layer, 1), i,
                                 row.data());
                for (Index j = 0; j < layer.problem.Nk; ++j)
                    distance += double(row[std::size_t(j)]) *
                                double(std::abs(layer.problem.position(i) - j)) /
                                double(layer.problem.Nq);
            }
            CHECK(facts[1].distance == Approx(distance).epsilon(1e-4));
        });
}

TEST_CASE("a session keeps stacks, bias, decoder and image", "[stacks]") {
    std::string name = (fs::temp_directory_path() / "sparsight_stacks_XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    const fs::path folder = fs::path(name) / "s.sparsight";
    const auto backend = kernels::makeBackend("cpu", 1);
    {
        const Model model("t5", false), vit("vit_resized", false);
        const auto runner = loadModel(model.path, 1), eye = loadModel(vit.path, 1);
        const auto session = sessions::Session::create(folder);
        const ModelInput in = model.inputs("p1").front();
        sessions::CaptureInput input;
        input.ids = in.ids;
        input.decoderIds = in.decoderIds;
        auto request = sessions::makeRequest(model.path, runner->config(), nullptr, input);
        request.options.layers = parseLayers("enc.1,cross", runner->config());
        const auto uuid = sessions::captureToSession(*session, *runner, *backend, request);
        std::vector<LayerCapture> direct;
        std::vector<std::vector<float>> bias;
        CaptureOptions options;
        options.layers = request.options.layers;
        capturePrompt(
            *runner, *backend, in, options,
            [&](const LayerCapture& layer, const LayerStats&) { direct.push_back(layer); });
        const auto info = session->captureInfo(uuid);
        CHECK(info.complete());
        CHECK(info.layersDone == std::vector<Index>{1, 4, 5});
        CHECK(info.decoderIds == in.decoderIds);
        CHECK(info.decoderText.substr(0, 2) == "0 ");
        for (const LayerCapture& layer : direct) {
            const auto kept = session->layer(uuid, layer.layer);
            const auto stats = session->stats(uuid, layer.layer);
            const kernels::Problem &a = layer.problem, &b = kept->problem;
            CHECK((a.Nq == b.Nq && a.Nk == b.Nk && a.causal == b.causal && a.Hq == b.Hq));
            CHECK(stats->Nq == a.Nq);
            CHECK(stats->diagMass.size() == std::size_t(a.Hq * (a.Nq + a.Nk - 1)));
            REQUIRE((a.relBias != nullptr) == (b.relBias != nullptr));
            if (a.relBias)
                CHECK(std::equal(a.relBias, a.relBias + a.Hq * (a.Nq + a.Nk - 1), b.relBias));
            for (Index h = 0; h < a.Hq; ++h)
                for (Index i = 0; i < a.Nq; ++i) CHECK(layer.lse(h, i) == kept->lse(h, i));
        }

        sessions::CaptureRequest image;
        image.config = eye->config();
        image.modelDirectory = vit.path;
        setImage(image, vit.inputs("p1").front().image);
        const auto seen = sessions::captureToSession(*session, *eye, *backend, image);
        const auto about = session->captureInfo(seen);
        REQUIRE(about.image);
        CHECK(*about.image == ImageGrid{6, 9, 1});
        CHECK(about.tokenIds.size() == 55);
        CHECK_THROWS_AS(session->resumeCapture(seen), Error);
    }
    const auto report = sessions::checkSession(folder);
    CHECK(report.ok);
    CHECK(report.segments == 10);
    fs::remove_all(name);
}

TEST_CASE("images are read, resized and normalised as PIL and transformers do", "[stacks]") {
    const fs::path folder = kParity / "image";
    const SafeTensors golden = SafeTensors::openFile(folder / "golden.safetensors");
    const auto compare = [&](const Image& image, const std::string& key, int most) {
        CAPTURE(key);
        const StTensor& t = golden.at(key);
        REQUIRE(t.shape == std::vector<Index>{image.height, image.width, 3});
        int worst = 0;
        for (std::size_t i = 0; i < image.rgb.size(); ++i)
            worst = std::max(worst, std::abs(int(image.rgb[i]) - std::to_integer<int>(t.bytes[i])));
        CHECK(worst <= most);
    };
    for (const char* name : {"colour", "grey"}) {
        const Image image = readImage(folder / (std::string(name) + ".png"));
        compare(image, std::string(name) + ".rgb", 0);
        for (const int filter : {1, 2, 3})
            for (const auto& [h, w] : {std::pair<Index, Index>{24, 40}, {90, 20}, {53, 12}})
                compare(resize(image, h, w, Resample(filter)),
                        std::string(name) + "." + std::to_string(filter) + "." + std::to_string(h) +
                            "x" + std::to_string(w),
                        0);
    }
    compare(readImage(folder / "smooth.jpg"), "smooth.rgb", 2);
    const Image alpha = readImage(folder / "alpha.png");  // cairo forgets colours at alpha 0
    const StTensor& rgb = golden.at("alpha.rgb");
    for (Index y = 0; y < alpha.height; ++y)
        for (Index c = 0; c < 18 * 3; ++c) {
            const auto at = std::size_t(3 * y * alpha.width + c);
            CHECK(int(alpha.rgb[at]) == std::to_integer<int>(rgb.bytes[at]));
        }

    for (const char* kind : {"vit", "clip"}) {
        CAPTURE(kind);
        const Model model(kind, false);
        fs::copy_file(folder / (std::string(kind) + "_preprocessor.json"),
                      model.path / "preprocessor_config.json");
        const ModelConfig config = readConfig(model.path);
        const Pixels pixels = readPixels(folder / "wide.png", model.path, config);
        const std::vector<float> wanted = golden.at(std::string(kind) + ".pixels").toFloat();
        REQUIRE(pixels.values.size() == wanted.size());
        double worst = 0;
        for (std::size_t i = 0; i < wanted.size(); ++i)
            worst = std::max(worst, std::abs(double(pixels.values[i]) - double(wanted[i])));
        CHECK(worst < 1e-5);
        // The class's own rules say the same as the file.
        fs::remove(model.path / "preprocessor_config.json");
        CHECK(readPixels(folder / "wide.png", model.path, config).values == pixels.values);
        const Pixels wide =
            readPixels(folder / "wide.png", model.path, config, parseImageSize("48x72"));
        CHECK((wide.height == 48 && wide.width == 72));
    }
    CHECK_THROWS_AS(readImage(folder / "golden.safetensors"), Error);
    CHECK_THROWS_AS(readPixels(folder / "wide.png", kParity / "bert", readConfig(kParity / "bert")),
                    Error);
}

TEST_CASE("encoders refuse by name what they cannot run", "[stacks]") {
    const auto message = [](const std::string& name, const std::string& from,
                            const std::string& to) {
        std::ifstream in(kParity / name / "config.json");
        std::string text{std::istreambuf_iterator<char>(in), {}};
        const auto at = text.find(from);
        REQUIRE(at != text.npos);
        text.replace(at, from.size(), to);
        try {
            parseConfig(text, name, "config.json");
        } catch (const Error& e) {
            return std::string(e.what());
        }
        return std::string("accepted");
    };
    using Catch::Contains;
    CHECK_THAT(message("bert", "\"is_decoder\": false", "\"is_decoder\": true"),
               Contains("is_decoder"));
    CHECK_THAT(message("bert", "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"mish\""),
               Contains("mish"));
    CHECK_THAT(message("bert", "\"num_attention_heads\": 4", "\"num_attention_heads\": 5"),
               Contains("must divide"));
    CHECK_THAT(
        message("t5", "\"feed_forward_proj\": \"relu\"", "\"feed_forward_proj\": \"gated-mish\""),
        Contains("gated-mish"));
    CHECK_THAT(message("vit", "\"num_channels\": 3", "\"num_channels\": 4"),
               Contains("num_channels"));

    const Model model("bert", false);
    const auto backend = kernels::makeBackend("cpu", 1);
    const auto runner = loadModel(model.path, 1);
    const AttentionFn attention = denseAttention(*backend);
    CHECK_THROWS_AS(runner->encode(std::vector<std::int32_t>{1}, attention), Error);
    CHECK_THROWS_AS(runner->pass({{400}, {}, {}}, attention), Error);  // ids are 0 to 399
    CHECK_THROWS_AS(runner->pass({std::vector<std::int32_t>(161, 5), {}, {}}, attention), Error);
    CHECK_THROWS_AS(runner->pass({{5}, {5}, {}}, attention), Error);
    CHECK_THROWS_AS(runner->pass({}, attention), Error);
}
