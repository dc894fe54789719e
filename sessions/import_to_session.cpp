#include "sessions/import_to_session.h"

#include <algorithm>
#include <cmath>

#include "core/capture/measure.h"
#include "core/capture/token_texts.h"
#include "core/import/imported_model.h"
#include "core/import/read_layer.h"
#include "kernels/base/error.h"

namespace sparsight::sessions {
namespace {

/// Token ids of the keys, -1 where they are not known.
std::vector<std::int32_t> tokenIds(const TensorSet& set, const ImportPlan& plan) {
    std::vector<std::int32_t> ids(std::size_t(plan.problem().Nk), -1);
    if (!plan.inputIds) return ids;
    const auto& entry = set.entries()[*plan.inputIds];
    const auto values = readIntegers(set.file(*plan.inputIds), entry.tensor);
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (values[i] < 0 || values[i] > std::numeric_limits<std::int32_t>::max())
            throw Error(Errc::Format, entry.name + ": token id " + std::to_string(values[i]) +
                                          " is out of range");
        ids[i] = std::int32_t(values[i]);
    }
    return ids;
}

CaptureRequest captureRequest(const TensorSet& set, const ImportPlan& plan,
                              const ImportRequest& request) {
    const std::string file = set.files().front()->path().filename().string();
    std::string name = request.modelName;
    if (name.empty()) name = plan.modelName;
    if (name.empty()) name = set.files().front()->path().stem().string();
    CaptureRequest c;
    c.config = importedModel(plan, set, name);
    c.promptName = file;
    c.tokenIds = tokenIds(set, plan);
    c.device = request.device;
    c.queries = plan.problem().Nq;
    c.options.store = plan.layers.front().q.type;
    c.options.topKeys = request.topKeys;
    for (const ImportLayer& l : plan.layers) c.options.layers.push_back(l.layer);
    if (!request.tokenizer.empty()) {
        if (!plan.inputIds)
            throw Error(Errc::Usage,
                        "a tokenizer turns token ids into text, but the files hold no input_ids "
                        "(name them with --map input_ids=NAME)");
        TokenTexts texts;
        appendDecoded(*Tokenizer::load(request.tokenizer), c.tokenIds, 0, texts);
        c.promptText = std::move(texts.text);
        c.offsets = std::move(texts.offsets);
    }
    return c;
}

}  // namespace

ImportResult importToSession(const std::filesystem::path& folder, const TensorSet& set,
                             const ImportPlan& plan, const ImportRequest& request,
                             kernels::Backend& backend, const Job& job) {
    if (!plan.problems.empty()) throw Error(Errc::Shape, plan.problems.front());
    const CaptureRequest capture = captureRequest(set, plan, request);
    ImportResult result;
    std::error_code ec;
    if (std::filesystem::exists(folder, ec)) {
        result.session = Session::open(folder, OpenMode::ReadWrite);
    } else {
        if (folder.has_parent_path()) std::filesystem::create_directories(folder.parent_path(), ec);
        if (ec)
            throw Error(Errc::Io, "the folder '" + folder.parent_path().string() +
                                      "' cannot be made: " + ec.message());
        result.session = Session::create(folder);
    }
    Session& session = *result.session;
    result.capture = session.beginCapture(capture);
    const auto mark = [&](const std::string& state, const std::string& why) {
        try {
            session.finishCapture(result.capture, state, why);
        } catch (const Error&) {
            // The reason why the import ended is what counts.
        }
    };
    try {
        const double all = double(plan.layers.size());
        for (const ImportLayer& wanted : plan.layers) {
            const double done = double(result.layers) / all;
            const std::string stage = "layer " + std::to_string(wanted.layer) + " (" +
                                      std::to_string(result.layers + 1) + " of " +
                                      std::to_string(plan.layers.size()) + ")";
            job.step(done, stage);
            ImportedLayer layer = readImportedLayer(set, wanted, job);
            const kernels::Problem& p = layer.capture.problem;
            std::vector<float> lse(std::size_t(p.Hq * p.Nq));
            layer.capture.lse = {lse.data(), {p.Hq, p.Nq}};
            const Job part([&](double f, std::string_view) { job.step(done + f / all, stage); },
                           [&] { return job.stopAsked(); });
            const LayerStats stats =
                measureLayer(backend, layer.capture, lse.data(), part, capture.options.topK());
            for (std::size_t i = 0; i < layer.fileLse.size(); ++i) {
                const double a = double(layer.fileLse[i]), b = double(lse[i]);
                const double difference = a == b ? 0.0 : std::abs(a - b);
                result.lseDifference = std::max(result.lseDifference.value_or(0), difference);
                if (std::isnan(difference)) result.lseDifference = difference;
            }
            session.addLayer(result.capture, layer.capture, stats);
            ++result.layers;
        }
        session.finishCapture(result.capture, "complete");
    } catch (const Cancelled&) {
        mark("cancelled", {});
        throw;
    } catch (const std::exception& e) {
        mark("failed", e.what());
        throw;
    }
    job.step(1, "imported");
    return result;
}

}  // namespace sparsight::sessions
