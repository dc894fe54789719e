#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <map>
#include <thread>

#include "core/capture/capture.h"
#include "core/capture/cost.h"
#include "core/capture/decode.h"
#include "core/capture/layer_writer.h"
#include "core/capture/measure.h"
#include "core/model/device.h"
#include "core/model/weights.h"
#include "core/plan/generate.h"
#include "core/torch/gpu_decoder.h"
#include "core/torch/gpu_or_cpu.h"

using namespace sparsight;
using Catch::Matchers::Contains;

namespace {

const std::string kBookworm = SPARSIGHT_SOURCE_DIR "/resources/models/bookworm";
const std::string kLlama = SPARSIGHT_TEST_DATA "/models/llama";

std::vector<std::int32_t> someIds(Index n) {
    std::vector<std::int32_t> ids;
    for (Index i = 0; i < n; ++i) ids.push_back(std::int32_t((i * 37 + 11) % 300));
    return ids;
}

/// The GPU's code on the CPU.
std::unique_ptr<Decoder> gpuCode(const std::string& directory) {
    const ModelConfig config = readConfig(directory);
    return makeGpuDecoder(config, openWeights(directory, config), 2, "cpu");
}

std::unique_ptr<Decoder> cpuCode(const std::string& directory) {
    auto model = loadModel(directory, 2);
    return std::unique_ptr<Decoder>(dynamic_cast<Decoder*>(model.release()));
}

/// What a sink was given.
struct Given {
    std::vector<float> lse, sum;
    Index rows = 0;
};
using Layers = std::map<Index, Given>;

LayerSink collect(Layers& layers) {
    return [&layers](const LayerCapture& layer, const LayerStats& stats) {
        REQUIRE(layers.count(layer.layer) == 0);
        Given& g = layers[layer.layer];
        g.lse.assign(layer.lse.data(), layer.lse.data() + layer.lse.size());
        g.sum = stats.pyramid.front().sum;
        g.rows = layer.problem.Nq;
    };
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        worst = std::max(worst, std::abs(double(a[i]) - double(b[i])));
    return worst;
}

void checkNear(const Layers& a, const Layers& b) {
    REQUIRE(a.size() == b.size());
    for (const auto& [l, given] : a) {
        CAPTURE(l);
        CHECK(given.rows == b.at(l).rows);
        CHECK(difference(given.lse, b.at(l).lse) < 5e-3);
        CHECK(difference(given.sum, b.at(l).sum) < 1e-2);
    }
}

/// A backend that has no memory for more than `most` heads, or for anything after `calls` calls.
class Small final : public kernels::Backend {
public:
    explicit Small(Index heads, Index calls = 1 << 30)
        : m_inner(kernels::makeBackend("cpu", 1)), m_most(heads), m_calls(calls) {}
    std::string_view id() const override { return "small"; }
    std::string device() const override { return "small"; }
    int threads() const override { return 1; }
    kernels::Report forward(const kernels::Problem& p, kernels::TensorView q, kernels::TensorView k,
                            kernels::TensorView v, const kernels::Plan& plan,
                            kernels::MutTensorView o, float* lse, const Job& job) override {
        check(p);
        return m_inner->forward(p, q, k, v, plan, o, lse, job);
    }
    kernels::Report lseOnly(const kernels::Problem& p, kernels::TensorView q, kernels::TensorView k,
                            const kernels::Plan& plan, float* lse, const Job& job) override {
        check(p);
        return m_inner->lseOnly(p, q, k, plan, lse, job);
    }
    kernels::Report capture(const kernels::Problem& p, kernels::TensorView q, kernels::TensorView k,
                            const kernels::CaptureSpec& spec, const kernels::CaptureOut& out,
                            const Job& job) override {
        check(p);
        most = std::max(most, p.Hq);
        return m_inner->capture(p, q, k, spec, out, job);
    }
    kernels::Report render(const kernels::Problem& p, kernels::TensorView q, kernels::TensorView k,
                           const float* lse, const kernels::RenderSpec& spec, float* px,
                           const Job& job) override {
        check(p);
        return m_inner->render(p, q, k, lse, spec, px, job);
    }
    kernels::Report antidiagonal(const kernels::Problem& p, kernels::TensorView q,
                                 kernels::TensorView k, Index stride, Index block, Index padTo,
                                 float* score, const Job& job) override {
        check(p);
        return m_inner->antidiagonal(p, q, k, stride, block, padTo, score, job);
    }
    Index most = 0;  ///< heads of the largest capture that fitted

private:
    void check(const kernels::Problem& p) {
        if (p.Hq > m_most || m_calls-- <= 0)
            throw Error(Errc::Resources, "CUDA: taking memory failed.");
    }
    std::unique_ptr<kernels::Backend> m_inner;
    Index m_most, m_calls;
};

/// True where this LibTorch finds a GPU: what is said without one cannot be tested there.
bool torchHasGpu() {
    return torchDevices().gpu;
}

}  // namespace

TEST_CASE("devices by name", "[device]") {
    CHECK(parseDevice("cpu").id() == "cpu");
    CHECK_FALSE(parseDevice("cpu").gpu);
    CHECK(parseDevice("cuda").id() == "cuda:0");
    CHECK(parseDevice("cuda:0").index == 0);
    CHECK(parseDevice("cuda:13").id() == "cuda:13");
    for (const char* name : {"", "gpu", "CPU", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda: 1",
                             "cuda:99999999999", "cpu:0"}) {
        CAPTURE(name);
        try {
            parseDevice(name);
            FAIL("accepted");
        } catch (const Error& e) {
            CHECK(e.code() == Errc::Usage);
            CHECK_THAT(e.what(), Contains("cpu, cuda or cuda:N"));
        }
    }
    CHECK(bytesText(Index(1) << 20) == "1 MiB");
    CHECK(bytesText((Index(1) << 20) + 1) == "2 MiB");
    CHECK(bytesText(Index(3) << 29) == "1.5 GiB");
}

TEST_CASE("the list of devices begins with the CPU and says why there is no GPU", "[device]") {
    const DeviceList list = deviceList();
    REQUIRE(!list.devices.empty());
    CHECK(list.devices[0].id == "cpu");
    CHECK(list.devices[0].memoryBytes > list.devices[0].freeBytes);
    CHECK(list.devices[0].freeBytes > 0);
    CHECK(list.noGpu.empty() == (list.devices.size() > 1));
    if (list.devices.size() == 1) {
        CHECK(list.noGpu.back() == '.');
        CHECK(list.noModel.empty());
        CHECK(freeMemory("cuda:0") == 0);
        try {
            backendOrCpu("cuda:0");
            FAIL("there is no GPU");
        } catch (const Error& e) {
            CHECK(e.code() == Errc::Device);
            CHECK(e.what() == list.noGpu);
        }
    }
    CHECK(freeMemory("cpu") == 0);
    CHECK_THROWS_AS(backendOrCpu("gpu"), Error);
}

TEST_CASE("rows at a time follow the memory that is free", "[device]") {
    GpuNeed need;
    need.weights = 1000;
    need.tensors = 500;
    need.perRow = 10;
    const Index fixed = 1500 + GpuNeed::kReserve;
    CHECK(need.bytes(7) == fixed + 70);
    CHECK(gpuRows(need, 100, fixed + 1000) == 100);
    CHECK(gpuRows(need, 100, fixed + 999) == 0);  // fewer than the fewest do not help
    CHECK(gpuRows(need, 20000, fixed + 81920) == 8192);
    CHECK(gpuRows(need, 20000, fixed + 81919) == 4096);
    CHECK(gpuRows(need, 20000, fixed + 2560) == 256);
    CHECK(gpuRows(need, 20000, fixed + 2559) == 0);
}

TEST_CASE("what a capture takes on a GPU, and what is said when it does not fit", "[device]") {
    // Llama 3 8B.
    const ModelConfig c = parseConfig(
        R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "vocab_size": 128256, "torch_dtype": "bfloat16"})",
        "llama", "a test");
    CHECK(gpuBytesEach(c) == 2);
    const GpuNeed need = gpuNeed(c, 32768, 32768, 1, 2);
    // A layer has 218,112,000 parameters; two of them are there.
    CHECK(need.weights == 2 * 2 * 218112000);
    CHECK(need.everyWeight == 2 * modelParameters(c));
    // Hidden states, q, o and one layer of k and v in bfloat16 are 2 * 32768 * 14336 bytes.
    CHECK(need.tensors > 2 * Index(32768) * 14336);
    CHECK(need.tensors < 4 * Index(32768) * 14336);
    CHECK(gpuNeed(c, 65536, 65536, 1, 2).tensors > 2 * need.tensors - 1);
    CHECK(gpuNeed(c, 1, 32768, 32, 2).tensors > 31 * gpuNeed(c, 1, 32768, 1, 2).tensors / 2);

    CaptureEstimate plenty;
    plenty.modelBytes = 123;
    addGpu(c, {32768, 0, 0}, Index(80) << 30, plenty);
    CHECK(plenty.note.empty());
    CHECK(plenty.gpuFree == Index(80) << 30);
    CHECK(plenty.gpuBytes > Index(2) << 30);
    CHECK(plenty.gpuBytes < Index(8) << 30);
    CHECK(plenty.modelBytes == 0);  // nothing is converted in the CPU's memory
    CHECK_THAT(memoryText(plenty), Contains("80.0 GiB that are free on the GPU"));

    CaptureEstimate tight;
    addGpu(c, {32768, 0, 0}, need.bytes(2048), tight);
    CHECK_THAT(tight.note, Contains("2048 at a time"));
    CaptureEstimate none;
    none.modelBytes = 123;
    addGpu(c, {32768, 0, 0}, Index(1) << 30, none);
    CHECK_THAT(none.note, Contains("1.0 GiB are free") && Contains("will run on the CPU"));
    CHECK(none.modelBytes == 123);
}

TEST_CASE("without a GPU a model runs on the CPU and says so", "[device]") {
    if (torchHasGpu()) return;
    for (const std::string& directory :
         {kBookworm, std::string(SPARSIGHT_TEST_DATA "/parity/vit")}) {
        const auto model = loadModel(directory, 1, {}, "cuda");
        CHECK(model->device() == "CPU");
        REQUIRE(model->notes().size() == 1);
        CHECK_THAT(model->notes()[0], Contains("LibTorch") && Contains("runs on the CPU."));
        CHECK(loadModel(directory, 1)->notes().empty());
    }
    CHECK_THROWS_AS(loadModel(kBookworm, 1, {}, "tpu"), Error);
    CHECK(measureGemm(1, "cuda") == 0);
    CHECK(onGpu(std::vector<float>(4), "cuda") == nullptr);
}

TEST_CASE("layers are written in order while others are made", "[device]") {
    std::vector<Index> written;
    std::atomic<int> inSink{0}, most{0};
    const LayerSink slow = [&](const LayerCapture& layer, const LayerStats&) {
        most = std::max(most.load(), ++inSink);
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        written.push_back(layer.layer);
        --inSink;
    };
    const auto layer = [](Index l) {
        LayerCapture c;
        c.layer = l;
        return c;
    };
    {
        LayerWriter writer(slow);
        const auto start = std::chrono::steady_clock::now();
        writer.add(layer(0), {});
        const auto took = std::chrono::steady_clock::now() - start;
        CHECK(took < std::chrono::milliseconds(20));  // it did not wait for the sink
        for (Index l = 1; l < 5; ++l) writer.add(layer(l), {});
        // Two may wait, so two at least were written by now.
        writer.write(layer(5), {});
        writer.finish();
        CHECK(written == std::vector<Index>{0, 1, 2, 3, 4, 5});
        CHECK(most == 1);
    }
    written.clear();
    {  // stopped: the one under way ends, the rest is dropped
        LayerWriter writer(slow);
        writer.add(layer(0), {});
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        writer.add(layer(1), {});
    }
    CHECK(written == std::vector<Index>{0});
    const LayerSink full = [](const LayerCapture& l, const LayerStats&) {
        if (l.layer == 1) throw Error(Errc::Io, "the disk is full");
    };
    LayerWriter writer(full);
    writer.add(layer(0), {});
    writer.add(layer(1), {});
    CHECK_THROWS_WITH(writer.finish(), "the disk is full");
    CHECK_THROWS_WITH(writer.add(layer(2), {}), "the disk is full");
}

TEST_CASE("a capture from a GPU's memory is that of the CPU", "[device]") {
    const auto backend = kernels::makeBackend("cpu", 2);
    const auto ids = someIds(150);
    CaptureOptions options;
    SECTION("all layers, float32") {}
    SECTION("some layers") {
        options.layers = {1};
    }
    SECTION("narrow values are measured as they are stored") {
        options.store = kernels::DType::BF16;
    }
    Layers there, here;
    const auto gpu = gpuCode(kLlama);
    const auto cpu = loadModel(kLlama, 2);
    std::thread::id thread = std::this_thread::get_id();
    const LayerSink sink = collect(there);
    capturePrompt(*gpu, *backend, ids, options,
                  [&](const LayerCapture& layer, const LayerStats& stats) {
                      thread = std::this_thread::get_id();
                      CHECK(layer.q.t == options.store);
                      sink(layer, stats);
                  });
    CHECK(thread != std::this_thread::get_id());
    capturePrompt(*cpu, *backend, ids, options, collect(here));
    checkNear(there, here);

    // Errors of the sink and stops reach the caller.
    CHECK_THROWS_WITH(capturePrompt(*gpu, *backend, ids, {},
                                    [](const LayerCapture&, const LayerStats&) {
                                        throw Error(Errc::Io, "the disk is full");
                                    }),
                      "the disk is full");
    std::atomic<bool> stop{false};
    CHECK_THROWS_AS(
        capturePrompt(
            *gpu, *backend, ids, {}, [&](const LayerCapture&, const LayerStats&) { stop = true; },
            Job({}, [&] { return stop.load(); })),
        Cancelled);
}

TEST_CASE("decoding from a GPU's memory is that of the CPU", "[device]") {
    const auto backend = kernels::makeBackend("cpu", 2);
    const auto ids = someIds(40);
    Layers there, here;
    std::vector<std::int32_t> thereIds, hereIds;
    captureDecode(
        *gpuCode(kLlama), *backend, ids, 5, {},
        [&](std::span<const std::int32_t> g) { thereIds.assign(g.begin(), g.end()); },
        collect(there));
    captureDecode(
        *loadModel(kLlama, 2), *backend, ids, 5, {},
        [&](std::span<const std::int32_t> g) { hereIds.assign(g.begin(), g.end()); },
        collect(here));
    CHECK(thereIds == hereIds);
    checkNear(there, here);
}

TEST_CASE("a GPU without the memory for all heads does fewer at a time", "[device]") {
    const auto whole = kernels::makeBackend("cpu", 1);
    const auto model = loadModel(kLlama, 1);
    const auto ids = someIds(150);
    const Index most = GENERATE(1, 2, 3);
    Small small(most);
    Layers parts, all;
    capturePrompt(*model, small, ids, {}, collect(parts));
    capturePrompt(*model, *whole, ids, {}, collect(all));
    CHECK(small.most <= most);
    for (const auto& [l, given] : all) {  // the same bits: every head has its own arithmetic
        CHECK(given.lse == parts.at(l).lse);
        CHECK(given.sum == parts.at(l).sum);
    }
}

TEST_CASE("calls that a GPU has no memory for are made by the CPU", "[device]") {
    std::vector<std::string> said;
    const auto backend = orCpu(std::make_unique<Small>(0),
                               [&](const std::string& sentence) { said.push_back(sentence); });
    const auto cpu = kernels::makeBackend("cpu", 1);
    const auto model = loadModel(kLlama, 1);
    const auto ids = someIds(100);
    Layers a, b;
    capturePrompt(*model, *backend, ids, {}, collect(a));
    capturePrompt(*model, *cpu, ids, {}, collect(b));
    checkNear(a, b);
    REQUIRE(said.size() == 1);  // once is enough
    CHECK_THAT(said[0], Contains("memory failed") && Contains("The CPU does it instead."));
    // Pointers into a GPU's memory are nothing for the CPU.
    const GpuPass pass;
    CHECK_THROWS_AS(capturePrompt(*model, *backend, ids, {}, collect(a)), Error);
}

TEST_CASE("a pass that a GPU cannot finish goes on on the CPU", "[device]") {
    const auto ids = someIds(60);
    const auto cpuBackend = kernels::makeBackend("cpu", 1);
    const auto make = [] {
        return makeGpuOrCpu([] { return gpuCode(kLlama); },
                            [](const Job&) { return cpuCode(kLlama); }, {});
    };
    SECTION("a capture") {
        const Index calls = GENERATE(0, 1, 2);
        const auto backend = orCpu(std::make_unique<Small>(1 << 20, calls));
        const auto model = make();
        CHECK(model->notes().empty());
        CHECK_THAT(model->device(), Contains("float32"));
        Layers a, b;
        const ModelConfig& config = model->config();
        capturePrompt(*model, *backend, ids, {}, collect(a));
        capturePrompt(*loadModel(kLlama, 1), *cpuBackend, ids, {}, collect(b));
        checkNear(a, b);
        CHECK(model->device() == "CPU");
        REQUIRE(model->notes().size() == 1);
        CHECK_THAT(model->notes()[0],
                   Contains("memory failed") && Contains("The model runs on the CPU."));
        CHECK(&config == &model->config());
    }
    SECTION("tokens that were generated before are run again") {
        const auto model = make(), reference = loadModel(kLlama, 1);
        Index left = GENERATE(1, 5, 9);
        const AttentionFn dense = denseAttention(*cpuBackend);
        const AttentionFn failing = [&](const LayerCall& call) {
            if (call.onGpu() && left-- <= 0)
                throw Error(Errc::Resources, "CUDA: taking memory failed.");
            dense(call);
        };
        KvCache cache(model->config(), 70), plain(model->config(), 70);
        std::vector<float> a(std::size_t(model->config().vocab)), b(a.size());
        std::span<const std::int32_t> next(ids);
        for (int step = 0; step < 6; ++step) {
            model->forward(next, cache, failing);
            reference->forward(next, plain, dense);
            const Index row = Index(next.size()) - 1;
            model->logits(row, row + 1, a.data());
            reference->logits(row, row + 1, b.data());
            CHECK(difference(a, b) < 1e-3);
            next = std::span(ids).subspan(std::size_t(step), 1);
        }
        CHECK(model->device() == "CPU");
        CHECK(cache.length() == plain.length());
    }
    SECTION("when it cannot even load") {
        const auto model = makeGpuOrCpu(
            []() -> std::unique_ptr<Decoder> {
                throw Error(Errc::Resources, "LibTorch: CUDA out of memory.");
            },
            [](const Job&) { return cpuCode(kLlama); }, {});
        CHECK(model->device() == "CPU");
        CHECK(model->notes().size() == 1);
    }
    SECTION("other errors stay errors") {
        CHECK_THROWS_WITH(
            makeGpuOrCpu([]() -> std::unique_ptr<Decoder> { throw Error(Errc::Format, "damaged"); },
                         [](const Job&) { return cpuCode(kLlama); }, {}),
            "damaged");
    }
}

TEST_CASE("damaged weights are named by the GPU's code too", "[device]") {
    const std::string name = "model.layers.1.mlp.up_proj.weight";
    const std::filesystem::path from = kLlama;
    std::string folder =
        (std::filesystem::temp_directory_path() / "sparsight_device_XXXXXX").string();
    REQUIRE(mkdtemp(folder.data()) != nullptr);
    std::filesystem::copy_file(from / "config.json", folder + "/config.json");
    {
        const SafeTensors source = SafeTensors::openModel(from);
        std::map<std::string, std::vector<float>> values;
        std::vector<StWrite> out;
        for (const auto& [key, tensor] : source.tensors()) {
            values[key] = source.at(key).toFloat();
            if (key == name) values[key][17] = std::nanf("");
            out.push_back({key, StDType::F32, tensor.shape, values[key].data()});
        }
        writeSafeTensors(folder + "/model.safetensors", out);
    }
    const auto model = gpuCode(folder);
    const auto backend = kernels::makeBackend("cpu", 1);
    KvCache cache(model->config(), 4);
    CHECK_THROWS_WITH(model->forward(someIds(4), cache, denseAttention(*backend), {}, -1),
                      Contains(name));
    CHECK(cache.length() == 0);
    std::filesystem::remove_all(folder);
}
