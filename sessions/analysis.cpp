#include "sessions/analysis.h"

#include <algorithm>

namespace sparsight::sessions {
namespace {

const HeadFacts* factsOf(const std::vector<HeadFacts>& facts, Index layer, Index head) {
    const auto at = std::find_if(facts.begin(), facts.end(), [&](const HeadFacts& f) {
        return f.layer == layer && f.head == head;
    });
    return at == facts.end() ? nullptr : &*at;
}

/// Whether a method reads the retrieval score, which costs a pass over all heads when not stored.
bool wantsRetrieval(const MethodSpec& method) {
    return method.id == "retrieval-heads" && !method.params.texts.contains("heads") &&
           !method.params.texts.contains("table");
}

}  // namespace

CapturedLayer readLayer(const Session& session, const CaptureInfo& capture, Index layer) {
    return {session.layer(capture.uuid, layer), session.stats(capture.uuid, layer)};
}

CapturedLayer readLayer(const Session& session, const CaptureInfo& capture, Index layer,
                        RowRange rows, kernels::Backend& backend, const Job& job) {
    if (rows == RowRange::All) return readLayer(session, capture, layer);
    RowPart part =
        rowPart(backend, session.layer(capture.uuid, layer), capture.prefill, rows, job);
    return {std::move(part.layer), std::move(part.stats)};
}

std::span<const std::int32_t> tokensOf(const CaptureInfo& capture, RowRange rows) {
    const std::span<const std::int32_t> all = capture.tokenIds;
    return rows == RowRange::Prefill ? all.first(std::size_t(capture.prefill)) : all;
}

std::vector<HeadFacts> sessionHeadFacts(Session& session, const CaptureInfo& capture,
                                        kernels::Backend& backend, const Job& job,
                                        RowRange range) {
    std::vector<HeadFacts> facts;
    if (range == RowRange::All) facts = session.headFacts(capture.uuid);
    if (Index(facts.size()) == headCount(capture)) return facts;
    facts.clear();
    const auto layers = double(std::max<std::size_t>(1, capture.layersDone.size()));
    for (std::size_t i = 0; i < capture.layersDone.size(); ++i) {
        job.step(double(i) / layers,
                 "heads of layer " + layerName(capture.config, capture.layersDone[i]));
        const CapturedLayer data =
            readLayer(session, capture, capture.layersDone[i], range, backend, withoutReport(job));
        // No generated row writes the known answer.
        const auto truth = range == RowRange::Decode ? std::nullopt : capture.truth;
        const auto rows =
            headFacts(backend, *data.layer, *data.stats, tokensOf(capture, range), truth,
                      job.part(double(i) / layers, double(i + 1) / layers));
        facts.insert(facts.end(), rows.begin(), rows.end());
    }
    if (range == RowRange::All && session.mode() == OpenMode::ReadWrite)
        session.saveHeadFacts(capture.uuid, facts);
    return facts;
}

std::vector<std::pair<Index, Index>> chosenHeads(const CaptureInfo& capture,
                                                 const HeadChoice& choice) {
    const Index heads =
        choice.layer ? layerShape(capture, *choice.layer).heads : capture.config.heads;
    if (choice.layer && std::find(capture.layersDone.begin(), capture.layersDone.end(),
                                  *choice.layer) == capture.layersDone.end()) {
        std::string done;
        for (const Index l : capture.layersDone)
            done += (done.empty() ? "" : ", ") + layerName(capture.config, l);
        throw Error(Errc::NotFound,
                    "layer " + layerName(capture.config, *choice.layer) +
                        " is not in this capture; it holds: " + (done.empty() ? "no layer" : done));
    }
    if (choice.head && (*choice.head < 0 || *choice.head >= heads))
        throw Error(Errc::NotFound, "head " + std::to_string(*choice.head) +
                                        " does not exist; the model's query heads are 0.." +
                                        std::to_string(heads - 1));
    std::vector<std::pair<Index, Index>> result;
    for (const Index l : capture.layersDone) {
        if (choice.layer && l != *choice.layer) continue;
        for (Index h = 0; h < layerShape(capture, l).heads; ++h)
            if (!choice.head || h == *choice.head) result.emplace_back(l, h);
    }
    return result;
}

HeadInput sessionHeadInput(const CapturedLayer& layer, const std::vector<HeadFacts>& facts,
                           Index head, kernels::Backend& backend) {
    HeadInput input = headInput(*layer.layer, layer.stats.get(), head, backend);
    if (const HeadFacts* f = factsOf(facts, layer.layer->layer, head))
        input.retrievalScore = f->retrieval;
    return input;
}

std::optional<TopKeys> sessionTopKeys(const Session& session, const CaptureInfo& capture,
                                      Index layer, Index head, RowRange rows) {
    if (!capture.topKeys) return std::nullopt;
    const Index all = layerShape(capture, layer).Nq;
    const TokenSpan span = rows == RowRange::Prefill  ? TokenSpan{0, capture.prefill}
                           : rows == RowRange::Decode ? TokenSpan{capture.prefill, all}
                                                      : TokenSpan{0, all};
    return session.topKeys(capture.uuid, layer, head, span);
}

TopRow sessionTopRow(const Session& session, const CaptureInfo& capture, Index layer, Index head,
                     Index row, Index count) {
    const LayerShape shape = layerShape(capture, layer);
    count = std::min(count, shape.Nk);
    if (row < 0 || row >= shape.Nq)
        throw Error(Errc::NotFound, "row " + std::to_string(row) + " does not exist; layer " +
                                        layerName(capture.config, layer) + " has the rows 0.." +
                                        std::to_string(shape.Nq - 1));
    TopRow out;
    out.stored = capture.topKeys && count <= kTopKeys;
    if (out.stored) {
        out.top = session.topKeys(capture.uuid, layer, head, {row, row + 1});
    } else {
        const auto data = session.layer(capture.uuid, layer);
        out.top = rowTopKeys(headProblem(*data, head), headQ(*data, head), headK(*data, head), row,
                             count);
    }
    const auto end = std::find(out.top.key.begin(), out.top.key.end(), -1);
    out.top.k = std::min<Index>(count, end - out.top.key.begin());
    out.top.key.resize(std::size_t(out.top.k));
    out.top.p.resize(std::size_t(out.top.k));
    return out;
}

std::vector<MaskMetrics> sessionMaskMetrics(Session& session, const CaptureInfo& capture,
                                            const MethodSpec& method, const HeadChoice& choice,
                                            kernels::Backend& backend, const Job& job) {
    const auto policy = makePolicy(method);
    const auto heads = chosenHeads(capture, choice);
    std::vector<HeadFacts> facts;
    if (wantsRetrieval(method))
        facts = sessionHeadFacts(session, capture, backend, job.part(0, 0.1));
    MetricsOptions options{capture.truth, true, true};
    std::vector<MaskMetrics> rows;
    CapturedLayer data;
    for (std::size_t i = 0; i < heads.size(); ++i) {
        const auto [l, h] = heads[i];
        job.step(0.1 + 0.9 * double(i) / double(heads.size()), headName(capture.config, l, h));
        if (!data.layer || data.layer->layer != l)
            data = readLayer(session, capture, l, choice.rows, backend, withoutReport(job));
        const HeadInput input = sessionHeadInput(data, facts, h, backend);
        const std::optional<TopKeys> top = sessionTopKeys(session, capture, l, h, choice.rows);
        options.top = top ? &*top : nullptr;
        rows.push_back(measureMask(backend, input, headV(*data.layer, h),
                                   policy->select(input, job), options, job));
    }
    if (choice.rows == RowRange::All && session.mode() == OpenMode::ReadWrite)
        session.saveMaskMetrics(capture.uuid, method, rows);
    return rows;
}

std::vector<RunLayer> sessionRunLayers(const Session& session, const CaptureInfo& capture,
                                       const std::vector<HeadFacts>& facts,
                                       const HeadChoice& choice) {
    std::vector<RunLayer> layers;
    for (const auto& [l, h] : chosenHeads(capture, choice)) {
        if (layers.empty() || layers.back().layer->layer != l) {
            const CapturedLayer data = readLayer(session, capture, l);
            RunLayer run{data.layer, data.stats, {}, {}};
            for (Index head = 0; head < data.layer->problem.Hq; ++head) {
                const HeadFacts* f = factsOf(facts, l, head);
                run.retrieval.push_back(f ? f->retrieval : std::nullopt);
            }
            layers.push_back(std::move(run));
        }
        layers.back().heads.push_back(h);
    }
    return layers;
}

std::vector<HeadOptions> sessionHeadOptions(Session& session, const CaptureInfo& capture,
                                            const std::vector<MethodSpec>& methods, int points,
                                            kernels::Backend& backend, const Job& job) {
    const auto heads = chosenHeads(capture, {});
    std::vector<HeadFacts> facts;
    if (std::any_of(methods.begin(), methods.end(), wantsRetrieval))
        facts = sessionHeadFacts(session, capture, backend, job.part(0, 0.1));
    std::vector<HeadOptions> result;
    CapturedLayer data;
    for (std::size_t i = 0; i < heads.size(); ++i) {
        const auto [l, h] = heads[i];
        job.step(0.1 + 0.9 * double(i) / double(heads.size()), headName(capture.config, l, h));
        if (!data.layer || data.layer->layer != l) data = readLayer(session, capture, l);
        const HeadInput input = sessionHeadInput(data, facts, h, backend);
        HeadOptions options{l, h, {}};
        for (const MethodSpec& m : methods) {
            const auto curve = recallCurve(backend, input, headV(*data.layer, h), m, points, job);
            options.points.insert(options.points.end(), curve.begin(), curve.end());
        }
        result.push_back(std::move(options));
    }
    return result;
}

std::vector<double> retrievalScores(const CaptureInfo& capture,
                                    const std::vector<HeadFacts>& facts) {
    std::vector<double> scores(std::size_t(capture.config.layers * capture.config.heads), 0.0);
    bool known = false;
    for (const HeadFacts& f : facts)
        if (f.retrieval) {
            scores[std::size_t(f.layer * capture.config.heads + f.head)] = *f.retrieval;
            known = true;
        }
    // A layer that is not captured has no scores, and 0 would call its heads streaming.
    if (!known || capture.layersDone.size() < std::size_t(capture.config.layers)) return {};
    return scores;
}

}  // namespace sparsight::sessions
