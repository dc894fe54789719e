#include <catch2/catch.hpp>
#include <cmath>

#include "core/masks/method.h"
#include "core/metrics/head_metrics.h"
#include "core/metrics/mask_metrics.h"
#include "core/model/safetensors.h"
#include "sessions/session.h"

using namespace sparsight;
using namespace sparsight::sessions;
namespace fs = std::filesystem;

namespace {

struct Folder {
    fs::path path;
    Folder() {
        std::string name = (fs::temp_directory_path() / "sparsight_models_XXXXXX").string();
        REQUIRE(mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~Folder() { fs::remove_all(path); }
};

/// Recall and coverage of a policy on one head of a stored layer.
MaskMetrics measured(kernels::Backend& backend, const LayerCapture& layer, Index h,
                     const kernels::Policy& policy) {
    HeadInput in;
    in.problem = headProblem(layer, h);
    in.q = headQ(layer, h);
    in.k = headK(layer, h);
    in.lse = layer.lse.data() + h * in.problem.Nq;
    in.backend = &backend;
    in.head = h;
    in.kvHead = layer.problem.kvHead(h);
    return measureMask(backend, in, headV(layer, h), policy, {});
}

}  // namespace

TEST_CASE("a session keeps each layer's own window, cap, sinks, scale and widths", "[session]") {
    const std::string name = GENERATE("gemma2", "gemma3", "gpt_oss_mxfp4", "deepseek_v3",
                                      "qwen2_window", "smollm3", "gpt2_scaled");
    CAPTURE(name);
    const fs::path directory = fs::path(SPARSIGHT_TEST_DATA) / "parity" / name;
    const auto golden = SafeTensors::openFile(directory / "golden.safetensors");
    const auto model = loadModel(directory, 1);
    const ModelConfig& c = model->config();
    const auto backend = kernels::makeBackend("cpu", 1);

    CaptureRequest request;
    request.config = c;
    request.modelDirectory = directory;
    for (const std::int64_t id : golden.at("p2.input_ids").toInt())
        request.tokenIds.push_back(std::int32_t(id));
    const Folder folder;
    std::string uuid;
    {
        const auto session = Session::create(folder.path / "s.sparsight");
        uuid = captureToSession(*session, *model, *backend, request);
    }
    const auto session = Session::open(folder.path / "s.sparsight", OpenMode::ReadOnly);
    CHECK(session->captureInfo(uuid).massError < 1e-6);
    for (Index l = 0; l < c.layers; ++l) {
        CAPTURE(l);
        const auto layer = session->layer(uuid, l);
        const kernels::Problem& p = layer->problem;
        const Index window = c.layer(l).window;
        CHECK(p.window == window);
        CHECK(p.softcap == float(c.softcap));
        CHECK(p.scale == float(c.scale(l)));
        CHECK(p.d == c.headDim);
        CHECK(p.dv == c.valueWidth());
        REQUIRE((p.sinks != nullptr) == !c.block.sinks.empty());

        const std::string at = "p2.L" + std::to_string(l);
        const auto attention = golden.at(at + ".attn").toFloat();
        const auto values = golden.at(at + ".v").toFloat();
        std::vector<float> row(static_cast<std::size_t>(p.Nk));
        double worst = 0, worstValue = 0;
        for (Index h = 0; h < p.Hq; ++h)
            for (Index i = 0; i < p.Nq; ++i) {
                rowProbabilities(headProblem(*layer, h), headQ(*layer, h), headK(*layer, h), i,
                                 row.data());
                const float* expected = attention.data() + (h * p.Nq + i) * p.Nk;
                for (Index j = 0; j < p.Nk; ++j)
                    worst = std::max(worst,
                                     std::abs(double(row[std::size_t(j)]) - double(expected[j])));
            }
        for (Index h = 0; h < p.Hkv; ++h)
            for (Index j = 0; j < p.Nk; ++j)
                for (Index e = 0; e < p.dv; ++e)
                    worstValue = std::max(
                        worstValue,
                        std::abs(double(kernels::loadFloat(layer->v.p, layer->v.t,
                                                           h * layer->v.sh + j * layer->v.sn + e)) -
                                 double(values[std::size_t((h * p.Nk + j) * p.dv + e)])));
        CHECK(worst < 2e-5);
        CHECK(worstValue < 2e-5);

        // Recall is against the model's own attention: what lies before its window is not lost.
        const MaskMetrics dense = measured(*backend, *layer, 0, kernels::Dense{});
        CHECK(dense.recall == Approx(1).margin(1e-6));
        CHECK(dense.outputError < 1e-6);
        const MaskMetrics narrow = measured(*backend, *layer, 0, kernels::Streaming{0, 9});
        if (window > 0 && window <= 9) {
            CHECK(narrow.coverage == 1);
            CHECK(narrow.recall == Approx(1).margin(1e-6));
        } else {
            CHECK(narrow.coverage < 1);
            CHECK(narrow.recall < 0.999);
        }
    }
}
