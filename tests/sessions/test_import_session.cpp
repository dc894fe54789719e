#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>

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

namespace {

/// A .npy file of float32.
void writeMap(const fs::path& file, const std::vector<Index>& shape, const std::vector<float>& x) {
    std::string dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
    for (const Index n : shape) dict += std::to_string(n) + ",";
    dict += ")}";
    dict.resize(118, ' ');
    std::ofstream(file, std::ios::binary)
        .write("\x93NUMPY\x01\x00\x76\x00", 10)
        .write(dict.data(), 118)
        .write(reinterpret_cast<const char*>(x.data()), std::streamsize(x.size() * 4));
}

/// Probabilities [H][Nq][Nk] from random scores, with exact zeros; causal ones where asked.
std::vector<float> randomMap(Index H, Index Nq, Index Nk, bool causal) {
    std::mt19937 random(5);
    std::normal_distribution<double> score(0, 4);
    std::vector<float> map;
    for (Index r = 0; r < H * Nq; ++r) {
        std::vector<double> row(std::size_t(Nk), 0);
        double sum = 0;
        for (Index j = 0; j < Nk; ++j) {
            const bool sees = !causal || j <= r % Nq + Nk - Nq;
            if (sees && (j == 0 || j % 3 != 0))
                sum += row[std::size_t(j)] = std::exp(score(random));
        }
        for (const double x : row) map.push_back(float(x / sum));
    }
    return map;
}

}  // namespace

TEST_CASE("finished maps come out as they went in", "[import]") {
    struct Case {
        Index H, Nq, Nk;
        bool causal;
    };
    const auto c = GENERATE(Case{3, 40, 40, true}, Case{2, 70, 1000, false}, Case{1, 9, 300, true},
                            Case{2, 50, 21, false});
    CAPTURE(c.Nq, c.Nk, c.causal);
    const Place place;
    const fs::path file =
        fs::temp_directory_path() / ("sparsight_attention_" + std::to_string(getpid()) + ".npy");
    const std::vector<float> map = randomMap(c.H, c.Nq, c.Nk, c.causal);
    writeMap(file, {c.H, c.Nq, c.Nk}, map);
    ImportRequest request;
    request.options.patterns[std::size_t(Part::Attention)] = file.stem().string();
    request.options.causal = c.causal;
    const auto backend = kernels::makeBackend("cpu", 2);
    const TensorSet set = openTensors({file});
    const ImportResult result =
        importToSession(place.folder, set, planImport(set, request.options), request, *backend);
    const CaptureInfo info = result.session->captureInfo(result.capture);
    CHECK(info.massError < 1e-5);
    const CapturedLayer layer = readLayer(*result.session, info, 0);
    kernels::Problem one = layer.layer->problem;
    CHECK(one.Hkv == 1);
    one.Hq = 1;
    double most = 0;
    std::vector<float> row(std::size_t(c.Nk));
    for (Index h = 0; h < c.H; ++h)
        for (Index i = 0; i < c.Nq; ++i) {
            kernels::TensorView q = layer.layer->q;
            q.p = static_cast<const float*>(q.p) + h * q.sh;
            rowProbabilities(one, q, layer.layer->k, i, row.data());
            for (Index j = 0; j < c.Nk; ++j)
                most =
                    std::max(most, std::abs(double(row[std::size_t(j)]) -
                                            double(map[std::size_t((h * c.Nq + i) * c.Nk + j)])));
        }
    CHECK(most < 1e-6);
    const auto rows = sessionMaskMetrics(*result.session, info,
                                         parseMethod("oracle-blocks:density=0.5"), {}, *backend);
    CHECK(rows.size() == std::size_t(c.H));
    fs::remove(file);
}

TEST_CASE("maps that are no probabilities are refused with their row", "[import]") {
    const auto backend = kernels::makeBackend("cpu", 1);
    const Place place;
    const fs::path file =
        fs::temp_directory_path() / ("sparsight_attention_" + std::to_string(getpid()) + ".npy");
    const auto refused = [&](std::vector<float> map, const std::vector<Index>& shape,
                             std::optional<bool> causal, const char* words) {
        writeMap(file, shape, map);
        ImportRequest request;
        request.options.patterns[std::size_t(Part::Attention)] = file.stem().string();
        request.options.causal = causal;
        const TensorSet set = openTensors({file});
        CHECK_THROWS_WITH(
            importToSession(place.folder, set, planImport(set, request.options), request, *backend),
            Contains(words));
        fs::remove_all(place.folder);
    };
    std::vector<float> map = randomMap(2, 8, 8, false);
    refused(map, {2, 8, 8}, std::nullopt, "--bidirectional");  // taken as causal
    map[std::size_t(8 * 8 + 3 * 8 + 2)] += 0.5f;
    refused(map, {2, 8, 8}, false, "head 1, row 3 of the attention map sums to 1.5");
    map[0] = -0.5f;
    refused(map, {2, 8, 8}, false, "head 0, row 0 of the attention map holds a value");
    map[0] = std::nanf("");
    refused(map, {2, 8, 8}, false, "no probability");
    refused(std::vector<float>(1025, 1.0f / 1025), {1, 1, 1025}, false, "up to 1024 keys");
    fs::remove(file);
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
