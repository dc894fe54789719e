#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>

#include "kernels/backend.h"
#include "sessions/analysis.h"
#include "sessions/h5_tensors.h"
#include "sessions/import_to_session.h"

using namespace sparsight;
using namespace sparsight::sessions;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

const std::string kData = SPARSIGHT_TEST_DATA "/import/";

/// A session of its own that goes with the test.
struct Place {
    fs::path folder =
        fs::temp_directory_path() / ("sparsight_import_" + std::to_string(getpid()) + ".sparsight");
    Place() { fs::remove_all(folder); }
    ~Place() { fs::remove_all(folder); }
};

struct Imported {
    Place place;
    std::shared_ptr<Session> session;
    ImportResult result;
    CaptureInfo info;

    Imported(const std::vector<std::string>& names, ImportRequest request = {}) {
        std::vector<fs::path> files;
        for (const std::string& name : names) files.push_back(kData + name);
        const TensorSet set = openTensors(files);
        const auto backend = kernels::makeBackend("cpu", 2);
        result =
            importToSession(place.folder, set, planImport(set, request.options), request, *backend);
        session = result.session;
        info = session->captureInfo(result.capture);
    }
};

}  // namespace

TEST_CASE("every layout imports to the LSE that numpy computed", "[import]") {
    // lseDifference compares with the float64 LSE inside each file (tests/data/README.md).
    struct Case {
        std::vector<std::string> files;
        Index queries, keys, heads, kvHeads, layers;
        bool thd = false, bf16 = false, causal = true;
    };
    const auto c =
        GENERATE(Case{{"stacked.npz"}, 37, 37, 4, 2, 2}, Case{{"layers.npz"}, 37, 37, 4, 2, 2},
                 Case{{"turned_q.npy", "turned_k.npy", "turned_v.npy", "turned_lse.npy"},
                      37,
                      37,
                      4,
                      2,
                      2,
                      true},
                 Case{{"bf16.npz"}, 37, 37, 1, 1, 1, false, true},
                 Case{{"cross.npz"}, 50, 21, 2, 2, 1, false, false, false},
                 Case{{"chunk.npz"}, 5, 37, 2, 2, 1}, Case{{"heads.h5"}, 37, 37, 4, 2, 2},
                 Case{{"hook.safetensors"}, 37, 37, 4, 2, 2});
    CAPTURE(c.files.front());
    ImportRequest request;
    if (c.thd) request.options.axes = AxisOrder::TokensHeads;
    request.options.rawIsBf16 = c.bf16;
    const Imported import(c.files, request);
    CHECK(import.info.complete());
    CHECK(Index(import.info.layersDone.size()) == c.layers);
    CHECK(import.info.massError < 1e-5);
    REQUIRE(import.result.lseDifference);
    CHECK(*import.result.lseDifference < 3e-6);
    const CapturedLayer layer = readLayer(*import.session, import.info, c.layers - 1);
    const kernels::Problem& p = layer.layer->problem;
    CHECK(p.Nq == c.queries);
    CHECK(p.Nk == c.keys);
    CHECK(p.Hq == c.heads);
    CHECK(p.Hkv == c.kvHeads);
    CHECK(p.causal == c.causal);
    CHECK(layer.stats->Nq == c.queries);
    CHECK(layer.stats->Nk == c.keys);
    CHECK(checkSession(import.place.folder).ok);
}

TEST_CASE("analyses run on imported heads", "[import]") {
    const auto backend = kernels::makeBackend("cpu", 2);
    SECTION("a window, a cap and sinks") {
        Imported import({"hook.safetensors"});
        const auto facts = sessionHeadFacts(*import.session, import.info, *backend);
        CHECK(facts.size() == 8);
        const auto rows = sessionMaskMetrics(*import.session, import.info,
                                             parseMethod("a-shape:sink=1,window=9"), {}, *backend);
        REQUIRE(rows.size() == 8);
        // Layer 0 sees 9 keys itself: the mask loses nothing there, and much in layer 1.
        CHECK(rows[0].recall == Approx(1.0).margin(1e-6));
        CHECK(rows[4].recall < 0.95);
        CHECK(rows[4].outputError > 0.01);
    }
    SECTION("without values there is no output error and no run") {
        ImportRequest request;
        request.options.rawIsBf16 = true;
        Imported import({"bf16.npz"}, request);
        const auto rows = sessionMaskMetrics(*import.session, import.info,
                                             parseMethod("a-shape:sink=1,window=9"), {}, *backend);
        REQUIRE(rows.size() == 1);
        CHECK(std::isnan(rows[0].outputError));
        CHECK(rows[0].recall > 0.1);
        CHECK(rows[0].recall < 1);
        const auto layers = sessionRunLayers(*import.session, import.info, {}, {});
        CHECK_THROWS_WITH(runKernels(*backend, layers, parseMethod("a-shape"), 5, false),
                          Contains("without values"));
    }
    SECTION("more queries than keys") {
        Imported import({"cross.npz"});
        const auto rows = sessionMaskMetrics(
            *import.session, import.info, parseMethod("oracle-blocks:density=0.5"), {}, *backend);
        REQUIRE(rows.size() == 2);
        CHECK(rows[0].recall > 0.4);
    }
}

TEST_CASE("a session reads again what was imported, and who it is", "[import]") {
    ImportRequest request;
    request.modelName = "someone's model";
    Imported import({"layers.npz"}, request);
    import.session.reset();
    import.result.session.reset();
    const auto session = Session::open(import.place.folder, OpenMode::ReadOnly);
    const CaptureInfo info = session->captureInfo();
    CHECK(info.modelName == "someone's model");
    CHECK(info.promptName == "layers.npz");
    CHECK(info.config.arch == "sparsight_import");
    CHECK(info.store == kernels::DType::F16);
    CHECK(info.tokenIds.front() == 100);
    CHECK(info.tokenIds.size() == 37);
}

TEST_CASE("the wrong causality shows in the LSE", "[import]") {
    ImportRequest request;
    request.options.causal = false;
    const Imported import({"stacked.npz"}, request);
    REQUIRE(import.result.lseDifference);
    CHECK(*import.result.lseDifference > 0.1);
}

TEST_CASE("an import that fails or is cancelled keeps finished layers and says so", "[import]") {
    const Place place;
    const auto backend = kernels::makeBackend("cpu", 1);
    const TensorSet damaged = openTensors({kData + "flipped.npz"});
    CHECK_THROWS_WITH(importToSession(place.folder, damaged, planImport(damaged, {}), {}, *backend),
                      Contains("CRC"));
    const auto session = Session::open(place.folder, OpenMode::ReadWrite);
    CHECK(session->captureInfo().state == "failed");

    const TensorSet set = openTensors({kData + "stacked.npz"});
    bool stop = false;
    const Job job([&](double f, std::string_view) { stop = stop || f >= 0.5; },
                  [&] { return stop; });
    CHECK_THROWS_AS(importToSession(place.folder, set, planImport(set, {}), {}, *backend, job),
                    Cancelled);
    const CaptureInfo info = session->captureInfo();
    CHECK(info.state == "cancelled");
    CHECK(info.layersDone == std::vector<Index>{0});
    CHECK(readLayer(*session, info, 0).layer->problem.Nk == 37);
}

TEST_CASE("datasets of an HDF5 file have their paths as names; links out are not followed",
          "[import]") {
    const TensorSet set = openTensors({kData + "heads.h5"});
    std::vector<std::string> names;
    for (const auto& e : set.entries()) names.push_back(e.name);
    CHECK(std::find(names.begin(), names.end(), "model/layers/1/head3/q") != names.end());
    CHECK(std::find(names.begin(), names.end(), "elsewhere") == names.end());
    CHECK(names.size() == 2 * (4 + 2 + 2 + 1));
}
