#include "core/capture/row_range.h"

#include "core/capture/measure.h"

namespace sparsight {
namespace {

struct Memory {
    std::shared_ptr<const LayerCapture> whole;
    std::vector<float> lse;
};

}  // namespace

RowPart rowPart(kernels::Backend& backend, std::shared_ptr<const LayerCapture> layer, Index prefill,
                RowRange range, const Job& job) {
    const Index rows = layer->problem.Nq;
    if (!layer->problem.causal || rows != layer->problem.Nk || layer->problem.relBias)
        throw Error(Errc::Usage,
                    "layer " + std::to_string(layer->layer) +
                        " has no prefill and decode rows: its attention is not that of a decoder");
    const bool decode = range == RowRange::Decode;
    if (decode && prefill >= rows)
        throw Error(
            Errc::Usage,
            "the capture holds no generated tokens: capture with --decode N for their rows");
    const auto memory = std::make_shared<Memory>();
    auto part = std::make_shared<LayerCapture>(*layer);
    kernels::Problem& p = part->problem;
    if (decode) {
        part->q = layer->q.from(prefill);
        p.Nq = rows - prefill;
    } else {
        p.Nq = p.Nk = prefill;  // the strides stay those of the whole
    }
    memory->whole = std::move(layer);
    memory->lse.resize(std::size_t(p.Hq * p.Nq));
    part->lse = {memory->lse.data(), {p.Hq, p.Nq}};
    auto stats =
        std::make_shared<LayerStats>(measureLayer(backend, *part, memory->lse.data(), job));
    part->owner = memory;
    return {std::move(part), std::move(stats)};
}

RowRange parseRows(const std::string& text) {
    if (text == "all") return RowRange::All;
    if (text == "prefill") return RowRange::Prefill;
    if (text == "decode") return RowRange::Decode;
    throw Error(Errc::Usage, "rows '" + text + "' are not prefill, decode or all");
}

}  // namespace sparsight
