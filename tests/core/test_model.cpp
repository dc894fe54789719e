#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/capture/capture.h"
#include "core/model/next_tokens.h"
#include "core/model/runner.h"
#include "core/model/safetensors.h"
#include "core/model/tokenizer.h"

using namespace sparsight;
namespace fs = std::filesystem;

namespace {

const std::string kData = SPARSIGHT_TEST_DATA;
const std::string kBookworm = SPARSIGHT_SOURCE_DIR "/resources/models/bookworm";

struct Folder {
    fs::path path;
    Folder() {
        std::string name = (fs::temp_directory_path() / "sparsight_model_XXXXXX").string();
        REQUIRE(mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~Folder() { fs::remove_all(path); }
};

nlohmann::json bookwormJson() {
    std::ifstream in(kData + "/bookworm/bookworm_golden.json");
    return nlohmann::json::parse(in);
}

std::vector<std::int32_t> idsOf(const StTensor& t) {
    std::vector<std::int32_t> out;
    for (const std::int64_t id : t.toInt()) out.push_back(std::int32_t(id));
    return out;
}

/// Attention by the definition in float64. `probability(layer, head, row, P of keys 0 ..)` sees
/// every row.
template <class Probability>
AttentionFn plainAttention(Probability probability) {
    return [probability](const LayerCall& call) {
        const kernels::Problem& p = call.problem;
        const auto q = static_cast<const float*>(call.q.p), k = static_cast<const float*>(call.k.p),
                   v = static_cast<const float*>(call.v.p);
        auto* o = static_cast<float*>(call.o.p);
        std::vector<double> row(std::size_t(p.Nk)), sum(std::size_t(p.dv));
        for (Index h = 0; h < p.Hq; ++h)
            for (Index i = 0; i < p.Nq; ++i) {
                double total = 0;
                std::fill(sum.begin(), sum.end(), 0.0);
                std::fill(row.begin(), row.end(), 0.0);
                for (Index j = 0; j < p.visibleEnd(i); ++j) {
                    double s = 0;
                    for (Index c = 0; c < p.d; ++c)
                        s += double(q[h * call.q.sh + i * call.q.sn + c]) *
                             double(k[p.kvHead(h) * call.k.sh + j * call.k.sn + c]);
                    const double e = std::exp(double(p.scale) * s);
                    row[std::size_t(j)] = e;
                    total += e;
                    for (Index c = 0; c < p.dv; ++c)
                        sum[std::size_t(c)] +=
                            e * double(v[p.kvHead(h) * call.v.sh + j * call.v.sn + c]);
                }
                for (double& x : row) x /= total;
                for (Index c = 0; c < p.dv; ++c)
                    o[h * call.o.sh + i * call.o.sn + c] = float(sum[std::size_t(c)] / total);
                probability(call.layer, h, i, row);
            }
    };
}

const auto kNobody = [](Index, Index, Index, const std::vector<double>&) {};

double largestDifference(const std::vector<float>& a, const float* b) {
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        most = std::max(most, std::abs(double(a[i]) - double(b[i])));
    return most;
}

std::int32_t argmax(const std::vector<float>& logits) {
    return std::int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double negativeLogProbability(const float* logits, Index vocab, std::int32_t id) {
    const double most = double(*std::max_element(logits, logits + vocab));
    double sum = 0;
    for (Index i = 0; i < vocab; ++i) sum += std::exp(double(logits[i]) - most);
    return most + std::log(sum) - double(logits[id]);
}

/// A copy of the tiny model whose tensor `name` is changed; removed when `edit` clears its shape.
void copyModel(const fs::path& to, const std::string& name,
               const std::function<void(std::vector<float>&, std::vector<Index>&)>& edit) {
    const fs::path from = kData + "/models/llama";
    fs::copy_file(from / "config.json", to / "config.json");
    const SafeTensors file = SafeTensors::openFile(from / "model.safetensors");
    std::map<std::string, std::vector<float>> values;
    std::vector<StWrite> out;
    for (const auto& [key, t] : file.tensors()) {
        std::vector<Index> shape = t.shape;
        values[key] = t.toFloat();
        if (key == name) edit(values[key], shape);
        if (!shape.empty()) out.push_back({key, StDType::F32, shape, values[key].data()});
    }
    writeSafeTensors(to / "model.safetensors", out);
}

std::string messageOf(const fs::path& model, Errc code) {
    try {
        loadModel(model, 1);
    } catch (const Error& e) {
        CHECK(e.code() == code);
        return e.what();
    }
    FAIL("no Error");
    return {};
}

}  // namespace

TEST_CASE("bookworm: ids, logits and every attention probability are those of transformers",
          "[model]") {
    const auto golden = SafeTensors::openFile(kData + "/bookworm/bookworm_golden.safetensors");
    const auto ids = idsOf(golden.at("input_ids"));
    const auto text =
        Tokenizer::load(kBookworm)->encode(bookwormJson().at("text").get<std::string>());
    REQUIRE(text.ids.size() >= ids.size());
    CHECK(std::equal(ids.begin(), ids.end(), text.ids.begin()));

    const auto model = loadModel(kBookworm, 2);
    const ModelConfig& c = model->config();
    const std::vector<float> attn = golden.at("attn").toFloat();
    const Index n = Index(ids.size());
    double worst = 0;
    KvCache cache(c, n);
    model->forward(
        ids, cache, plainAttention([&](Index l, Index h, Index i, const std::vector<double>& p) {
            const float* expected = attn.data() + ((l * c.heads + h) * n + i) * n;
            for (Index j = 0; j < n; ++j)
                worst = std::max(worst, std::abs(p[std::size_t(j)] - double(expected[j])));
        }));
    CHECK(worst < 1e-3);
    CHECK(cache.length() == n);

    const std::vector<float> logits = golden.at("logits").toFloat();
    const auto positions = golden.at("logit_positions").toInt();
    for (std::size_t i = 0; i < positions.size(); ++i) {
        std::vector<float> row(std::size_t(c.vocab));
        model->logits(positions[i], positions[i] + 1, row.data());
        CHECK(largestDifference(row, logits.data() + Index(i) * c.vocab) < 2e-3);
    }
}

TEST_CASE("bookworm: the needle prompt's greedy answer and its likelihood", "[model]") {
    const auto golden = bookwormJson();
    const auto tokenizer = Tokenizer::load(kBookworm);
    auto ids = tokenizer->encode(golden.at("needle_prompt").get<std::string>()).ids;
    REQUIRE(Index(ids.size()) == golden.at("n_tokens").get<Index>());
    const auto model = loadModel(kBookworm);
    const auto backend = kernels::makeBackend();
    const AttentionFn dense = denseAttention(*backend);
    const Index vocab = model->config().vocab, prompt = Index(ids.size());

    KvCache cache(model->config(), prompt + 8);
    model->forward(ids, cache, dense);
    std::vector<float> row(static_cast<std::size_t>(vocab)),
        all(static_cast<std::size_t>(prompt * vocab));
    model->logits(0, prompt, all.data());
    double nll = 0;
    for (Index i = 0; i + 1 < prompt; ++i)
        nll += negativeLogProbability(all.data() + i * vocab, vocab, ids[std::size_t(i) + 1]);
    std::copy(all.end() - vocab, all.end(), row.begin());
    for (int i = 0; i < 8; ++i) {
        const std::int32_t next = argmax(row);
        nll += negativeLogProbability(row.data(), vocab, next);
        ids.push_back(next);
        model->forward(std::span(ids).last(1), cache, dense);
        model->logits(0, 1, row.data());
    }
    const std::string answer = tokenizer->decode(std::span(ids).last(8));
    CAPTURE(answer);
    CHECK(answer.starts_with(" 41857"));
    CHECK(nll == Approx(golden.at("sum_neg_logprob_needle_prompt").get<double>()).epsilon(1e-3));
}

TEST_CASE("tiny llama models agree with transformers", "[model]") {
    const std::string name = GENERATE("llama", "llama_linear");
    const std::string directory = kData + "/models/" + name;
    const auto golden = SafeTensors::openFile(directory + "/golden.safetensors");
    const auto model = loadModel(directory, 1);
    const ModelConfig& c = model->config();
    for (const char* prompt : {"p0", "p1", "p2"}) {
        CAPTURE(name, prompt);
        const std::string p = prompt;
        const auto ids = idsOf(golden.at(p + ".input_ids"));
        const Index n = Index(ids.size());
        double worst = 0;
        const auto plain =
            plainAttention([&](Index l, Index h, Index i, const std::vector<double>& x) {
                const std::vector<float> attn =
                    golden.at(p + ".L" + std::to_string(l) + ".attn").toFloat();
                for (Index j = 0; j < n; ++j)
                    worst =
                        std::max(worst, std::abs(x[std::size_t(j)] -
                                                 double(attn[std::size_t((h * n + i) * n + j)])));
            });
        KvCache cache(c, n);
        model->forward(ids, cache, [&](const LayerCall& call) {
            plain(call);
            const auto close = [&](const kernels::TensorView& x, Index heads, const char* tensor) {
                const std::vector<float> expected =
                    golden.at(p + ".L" + std::to_string(call.layer) + tensor).toFloat();
                double most = 0, largest = 0;
                for (Index h = 0; h < heads; ++h)
                    for (Index i = 0; i < n; ++i)
                        for (Index e = 0; e < c.headDim; ++e) {
                            const double y =
                                double(expected[std::size_t((h * n + i) * c.headDim + e)]);
                            largest = std::max(largest, std::abs(y));
                            const double at =
                                double(static_cast<const float*>(x.p)[h * x.sh + i * x.sn + e]);
                            most = std::max(most, std::abs(at - y));
                        }
                CHECK(most < 2e-5 * largest);
            };
            close(call.q, c.heads, ".q");
            close(call.k, c.kvHeads, ".k");
            close(call.v, c.kvHeads, ".v");
        });
        CHECK(worst < 2e-5);
        std::vector<float> logits(std::size_t(4 * c.vocab));
        model->logits(n - 4, n, logits.data());
        CHECK(largestDifference(logits, golden.at(p + ".logits_last4").toFloat().data()) < 2e-4);
    }
}

TEST_CASE("decoding with the cache equals a forward of everything", "[model]") {
    const std::string directory = kData + "/models/llama";
    const auto golden = SafeTensors::openFile(directory + "/golden.safetensors");
    const auto ids = idsOf(golden.at("p1.input_ids"));
    const Index n = Index(ids.size());
    const auto model = loadModel(directory, 1);
    const Index vocab = model->config().vocab;
    const AttentionFn attention = plainAttention(kNobody);

    std::vector<float> full(static_cast<std::size_t>(n * vocab)),
        row(static_cast<std::size_t>(vocab));
    KvCache whole(model->config(), n);
    model->forward(ids, whole, attention);
    model->logits(0, n, full.data());

    KvCache cache(model->config(), n + 3);
    model->forward(std::span(ids).first(20), cache, attention);
    for (Index i = 20; i < n; ++i) {
        model->forward(std::span(ids).subspan(std::size_t(i), 1), cache, attention);
        model->logits(0, 1, row.data());
        CHECK(largestDifference(row, full.data() + i * vocab) < 2e-5);
    }
    CHECK(cache.length() == n);
}

TEST_CASE("a forward that stops early keeps the same layers and has no logits", "[model]") {
    const auto model = loadModel(kData + "/models/llama", 1);
    const std::vector<std::int32_t> ids{5, 6, 7, 8};
    std::vector<Index> seen;
    const AttentionFn attention = [&, plain = plainAttention(kNobody)](const LayerCall& call) {
        seen.push_back(call.layer);
        plain(call);
    };
    KvCache cache(model->config(), 4, KvCache::Keep::LastLayer);
    model->forward(ids, cache, attention, {}, 0);
    CHECK(seen == std::vector<Index>{0});
    std::vector<float> row(std::size_t(model->config().vocab));
    CHECK_THROWS_AS(model->logits(0, 1, row.data()), Error);
    // One layer's cache holds nothing to go on from.
    KvCache longer(model->config(), 8, KvCache::Keep::LastLayer);
    model->forward(ids, longer, attention);
    CHECK_THROWS_AS(model->forward(ids, longer, attention), Error);
}

TEST_CASE("what the model cannot run is refused with a reason", "[model]") {
    const auto model = loadModel(kData + "/models/llama", 1);
    const AttentionFn attention = plainAttention(kNobody);
    const auto refused = [&](const std::vector<std::int32_t>& ids, Index capacity) {
        KvCache cache(model->config(), capacity);
        try {
            model->forward(ids, cache, attention);
        } catch (const Error& e) {
            CHECK(e.code() == Errc::Usage);
            CHECK(cache.length() == 0);
            return std::string(e.what());
        }
        FAIL("no Error");
        return std::string();
    };
    refused({}, 4);
    CHECK(refused({1, 416}, 4).find("416") != std::string::npos);
    refused({1, -1}, 4);
    refused({1, 2, 3}, 2);

    KvCache cache(model->config(), 4);
    const std::vector<std::int32_t> ids{1, 2, 3};
    CHECK_THROWS_AS(model->forward(ids, cache, attention, Job({}, [] { return true; })), Cancelled);
    CHECK(cache.length() == 0);
}

TEST_CASE("damaged weights are named", "[model]") {
    const std::string name = "model.layers.1.mlp.up_proj.weight";
    Folder folder;
    SECTION("NaN") {
        copyModel(folder.path, name, [](auto& values, auto&) { values[17] = std::nanf(""); });
        CHECK(messageOf(folder.path, Errc::Format).find(name) != std::string::npos);
    }
    SECTION("missing") {
        copyModel(folder.path, name, [](auto&, auto& shape) { shape.clear(); });
        CHECK(messageOf(folder.path, Errc::Format).find(name) != std::string::npos);
    }
    SECTION("another shape") {
        copyModel(folder.path, name, [](auto&, auto& shape) { std::swap(shape[0], shape[1]); });
        CHECK(messageOf(folder.path, Errc::Format).find(name) != std::string::npos);
    }
    SECTION("activations that overflow name the layer") {
        copyModel(folder.path, name, [](auto& values, auto&) {
            for (float& x : values) x = 3e38f;
        });
        const auto model = loadModel(folder.path, 1);
        KvCache cache(model->config(), 4);
        const std::vector<std::int32_t> ids{1, 2, 3};
        try {
            model->forward(ids, cache, plainAttention(kNobody));
            FAIL("no Error");
        } catch (const Error& e) {
            CHECK(e.code() == Errc::Format);
            CHECK(std::string(e.what()).find("layer 1") != std::string::npos);
        }
    }
}

namespace {

/// Name, rows and columns (0 = a vector) of a tensor of zeros.
struct HollowTensor {
    std::string name;
    Index rows, cols;
};

/// A model of several shards whose weights are holes of sparse files: zeros that take no disk.
struct HollowFiles {
    Folder folder;
    nlohmann::json map;

    void shard(Index number, const std::vector<HollowTensor>& tensors) {
        const std::string name = "model-0000" + std::to_string(number + 1) + ".safetensors";
        nlohmann::json header;
        Index at = 0;
        for (const HollowTensor& t : tensors) {
            const Index bytes = t.rows * std::max<Index>(t.cols, 1) * 2;
            header[t.name] = {{"dtype", "BF16"},
                              {"shape", t.cols > 0 ? nlohmann::json{t.rows, t.cols}
                                                   : nlohmann::json::array({t.rows})},
                              {"data_offsets", {at, at + bytes}}};
            map[t.name] = name;
            at += bytes;
        }
        const std::string json = header.dump();
        const std::uint64_t size = json.size();
        const fs::path file = folder.path / name;
        std::ofstream(file, std::ios::binary)
            .write(reinterpret_cast<const char*>(&size), 8)
            .write(json.data(), std::streamsize(size));
        fs::resize_file(file, 8 + size + std::uint64_t(at));
    }
    void finish(const nlohmann::json& config) const {
        std::ofstream(folder.path / "model.safetensors.index.json")
            << nlohmann::json{{"weight_map", map}};
        std::ofstream(folder.path / "config.json") << config;
    }
    /// Files of the model that are mapped into this process.
    Index mapped() const {
        std::ifstream maps("/proc/self/maps");
        std::set<std::string> files;
        for (std::string line; std::getline(maps, line);)
            if (const auto at = line.find(folder.path.string()); at != line.npos)
                files.insert(line.substr(at));
        return Index(files.size());
    }
};

/// A decoder. Shard 0 has the embedding, shard i the layers of its turn, the last one the output
/// matrix.
struct HollowModel : HollowFiles {
    static constexpr Index kHidden = 1024, kWidth = 4096, kLayers = 8, kShards = 4, kVocab = 512;

    /// float32 bytes of one layer.
    static Index layerBytes() { return (4 * kHidden * kHidden + 3 * kHidden * kWidth) * 4; }

    HollowModel() {
        for (Index number = 0; number < kShards; ++number) {
            std::vector<HollowTensor> list;
            if (number == 0) list.push_back({"model.embed_tokens.weight", kVocab, kHidden});
            for (Index l = number * 2; l < number * 2 + 2; ++l) {
                const std::string layer = "model.layers." + std::to_string(l) + ".";
                for (const char* x : {"q", "k", "v", "o"})
                    list.push_back({layer + "self_attn." + x + "_proj.weight", kHidden, kHidden});
                for (const char* x : {"gate", "up"})
                    list.push_back({layer + "mlp." + x + "_proj.weight", kWidth, kHidden});
                list.push_back({layer + "mlp.down_proj.weight", kHidden, kWidth});
                for (const char* x : {"input", "post_attention"})
                    list.push_back({layer + x + "_layernorm.weight", kHidden, 0});
            }
            if (number == kShards - 1) {
                list.push_back({"model.norm.weight", kHidden, 0});
                list.push_back({"lm_head.weight", kVocab, kHidden});
            }
            shard(number, list);
        }
        finish({{"model_type", "llama"},
                {"hidden_size", kHidden},
                {"intermediate_size", kWidth},
                {"num_hidden_layers", kLayers},
                {"num_attention_heads", 16},
                {"vocab_size", kVocab}});
    }
};

/// An encoder-decoder: shard 0 has the embedding, 1 and 2 the encoder's blocks, 3 and 4 the
/// decoder's.
struct HollowT5 : HollowFiles {
    static constexpr Index kHidden = 1024, kWidth = 4096, kLayers = 4, kVocab = 512;

    /// float32 bytes of one block of the decoder.
    static Index blockBytes() { return (8 * kHidden * kHidden + 2 * kHidden * kWidth) * 4; }

    HollowT5() {
        shard(0, {{"shared.weight", kVocab, kHidden},
                  {"encoder.final_layer_norm.weight", kHidden, 0},
                  {"decoder.final_layer_norm.weight", kHidden, 0}});
        Index number = 1;
        for (const bool decoder : {false, true})
            for (Index first = 0; first < kLayers; first += kLayers / 2, ++number) {
                std::vector<HollowTensor> list;
                for (Index l = first; l < first + kLayers / 2; ++l) {
                    const std::string block =
                        (decoder ? "decoder.block." : "encoder.block.") + std::to_string(l) + ".";
                    const auto attention = [&](const std::string& layer, const std::string& name) {
                        for (const char* x : {"q", "k", "v", "o"})
                            list.push_back(
                                {block + layer + name + "." + x + ".weight", kHidden, kHidden});
                        list.push_back({block + layer + "layer_norm.weight", kHidden, 0});
                    };
                    attention("layer.0.", "SelfAttention");
                    if (l == 0)
                        list.push_back(
                            {block + "layer.0.SelfAttention.relative_attention_bias.weight", 32,
                             16});
                    if (decoder) attention("layer.1.", "EncDecAttention");
                    const std::string mlp = block + (decoder ? "layer.2." : "layer.1.");
                    list.push_back({mlp + "DenseReluDense.wi.weight", kWidth, kHidden});
                    list.push_back({mlp + "DenseReluDense.wo.weight", kHidden, kWidth});
                    list.push_back({mlp + "layer_norm.weight", kHidden, 0});
                }
                shard(number, list);
            }
        finish({{"model_type", "t5"},
                {"d_model", kHidden},
                {"d_ff", kWidth},
                {"num_layers", kLayers},
                {"num_heads", 16},
                {"d_kv", kHidden / 16},
                {"vocab_size", kVocab}});
    }
};

/// "VmHWM" or another line of /proc/self/status, in bytes.
Index memoryOf(const std::string& key) {
    std::ifstream in("/proc/self/status");
    for (std::string line; std::getline(in, line);)
        if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
    FAIL("no " << key);
    return 0;
}

const LayerSink kNoSink = [](const LayerCapture&, const LayerStats&) {};

}  // namespace

TEST_CASE("a capture maps only the shards up to its last layer", "[model]") {
    const HollowModel hollow;
    const auto backend = kernels::makeBackend("cpu", 2);
    const auto model = loadModel(hollow.folder.path, 2);
    CHECK(hollow.mapped() == 0);
    const std::vector<std::int32_t> ids{5, 6, 7, 8};
    CaptureOptions options;
    options.layers = {1};
    capturePrompt(*model, *backend, ids, options, kNoSink);
    CHECK(hollow.mapped() == 1);  // the embedding and layers 0 and 1 share a file
    options.layers = {0, 4};
    capturePrompt(*model, *backend, ids, options, kNoSink);
    CHECK(hollow.mapped() == 3);
    options.layers = {7};
    capturePrompt(*model, *backend, ids, options, kNoSink);
    CHECK(hollow.mapped() == 4);
}

TEST_CASE("a capture of a large model holds one layer at a time", "[model]") {
    const HollowModel hollow;
    const auto backend = kernels::makeBackend("cpu", 2);
    const auto model = loadModel(hollow.folder.path, 2);
    std::ofstream("/proc/self/clear_refs") << "5";  // the high water mark begins anew
    const Index before = memoryOf("VmRSS");
    const std::vector<std::int32_t> ids(64, 5);
    capturePrompt(*model, *backend, ids, {}, kNoSink);
    const Index most = memoryOf("VmHWM") - before, layer = HollowModel::layerBytes();
    CAPTURE(most >> 20, layer >> 20);
    CHECK(most > layer);  // the measurement works
    CHECK(most < 3 * layer);
    // Generating goes over the layers again and again: they stay when there is room.
    KvCache cache(model->config(), 8);
    const AttentionFn dense = denseAttention(*backend);
    model->forward(std::span(ids).first(2), cache, dense);
    model->forward(std::span(ids).first(1), cache, dense);
    std::vector<float> row(std::size_t(HollowModel::kVocab));
    model->logits(0, 1, row.data());
    CHECK(row[0] == 0);
    CHECK(cache.length() == 3);
}

TEST_CASE("an encoder-decoder reads its blocks when a pass comes to them", "[model]") {
    const HollowT5 hollow;
    const auto backend = kernels::makeBackend("cpu", 2);
    const auto model = loadModel(hollow.folder.path, 2);
    CHECK(hollow.mapped() == 0);
    ModelInput input;
    input.ids = {5, 6, 7, 8};
    input.decoderIds = {0, 9};
    CaptureOptions options;
    options.layers = {1};  // of the encoder
    capturePrompt(*model, *backend, input, options, kNoSink);
    CHECK(hollow.mapped() == 2);
    options.layers = {HollowT5::kLayers};  // the decoder's first, which needs the whole encoder
    capturePrompt(*model, *backend, input, options, kNoSink);
    CHECK(hollow.mapped() == 4);

    std::ofstream("/proc/self/clear_refs") << "5";
    const Index before = memoryOf("VmRSS");
    capturePrompt(*model, *backend, input, {}, kNoSink);
    CHECK(hollow.mapped() == 5);
    const Index most = memoryOf("VmHWM") - before, block = HollowT5::blockBytes();
    CAPTURE(most >> 20, block >> 20);
    CHECK(most > block / 2);  // the measurement works
    CHECK(most < 3 * block);
    model->pass(input, denseAttention(*backend), {}, {});
    std::vector<float> row(std::size_t(HollowT5::kVocab));
    model->logits(1, 2, row.data());
    CHECK(row[0] == 0);
}

TEST_CASE("the largest probabilities, by hand", "[model]") {
    const float logits[] = {0, 2, 1, 2, -1000};
    const auto best = largestProbabilities(logits, 3);
    REQUIRE(best.size() == 3);
    CHECK(best[0].id == 1);  // of equal ones the lower id
    CHECK(best[1].id == 3);
    CHECK(best[2].id == 2);
    const double sum = 1 + std::exp(1.0) + 2 * std::exp(2.0);
    CHECK(best[0].probability == Approx(std::exp(2.0) / sum));
    CHECK(best[2].probability == Approx(std::exp(1.0) / sum));
    CHECK(largestProbabilities(logits, 99).size() == 5);
    CHECK(largestProbabilities({}, 3).empty());
}

TEST_CASE("the next token of every row is the one that decoding takes", "[model]") {
    const auto model = loadModel(resolveModel("bookworm"), 2);
    const auto backend = kernels::makeBackend("cpu", 2);
    const AttentionFn dense = denseAttention(*backend);
    ModelInput input;
    for (std::int32_t i = 0; i < 70; ++i) input.ids.push_back(2 + 37 * i % 900);  // two pieces
    const auto rows = nextTokens(*model, input, dense, 5);
    REQUIRE(rows.size() == 70);
    KvCache cache(model->config(), 70);
    std::vector<float> logits(std::size_t(model->config().vocab));
    for (std::size_t r = 0; r < rows.size(); ++r) {
        model->forward(std::span(input.ids).subspan(r, 1), cache, dense);
        model->logits(0, 1, logits.data());
        const auto best = largestProbabilities(logits, 5);
        CAPTURE(r);
        for (std::size_t i = 0; i < 5; ++i)
            CHECK(rows[r][i].probability == Approx(best[i].probability).epsilon(1e-3));
        if (best[0].probability > 1.01 * best[1].probability) CHECK(rows[r][0].id == best[0].id);
    }
    CHECK_THROWS_AS(nextTokens(*model, input, dense, 5, Job({}, [] { return true; })), Cancelled);
    const auto image = loadModel(std::string(SPARSIGHT_TEST_DATA) + "/parity/vit", 1);
    CHECK_THROWS_WITH(nextTokens(*image, input, dense, 5), Catch::Contains("vocabulary"));
}
