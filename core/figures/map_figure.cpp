#include "core/figures/map_figure.h"

#include <nlohmann/json.hpp>

namespace sparsight {
namespace {

const char* nameOf(kernels::Statistic s) {
    return s == kernels::Statistic::Sum ? "sum" : s == kernels::Statistic::Mean ? "mean" : "max";
}

}  // namespace

MapFigure makeMapFigure(kernels::Backend& backend, const HeadInput& head, const MapRequest& request,
                        const Job& job) {
    const kernels::RenderSpec& spec = request.spec;
    const std::string name = request.headName.empty() ? "L" + std::to_string(head.layer) + "H" +
                                                            std::to_string(head.head)
                                                      : request.headName;
    MapFigure figure;
    figure.width = spec.width;
    figure.height = spec.height;
    figure.q0 = spec.q0;
    figure.q1 = spec.q1;
    figure.k0 = spec.k0;
    figure.k1 = spec.k1;
    figure.values.resize(std::size_t(spec.width * spec.height));
    backend.render(head.problem, head.q, head.k, head.lse, spec, figure.values.data(),
                   job.part(0, 0.7));
    // A probability has a fixed scale, so that figures of two heads compare; sums fit their data.
    figure.scale = spec.statistic == kernels::Statistic::Sum
                       ? fitScale(request.colours, request.log, figure.values)
                       : ColourScale{request.colours, request.log, request.log ? 1e-5 : 0.0, 1.0};
    figure.barLabel =
        std::string("attention probability, ") + nameOf(spec.statistic) + " per pixel";
    figure.title = (request.modelName.empty() ? "" : request.modelName + "  ") + name;
    figure.caption = "Prompt: " + request.promptName + ", " + std::to_string(head.problem.Nk) +
                     " tokens. Queries " + std::to_string(spec.q0) + "-" +
                     std::to_string(spec.q1 - 1) + " (down), keys " + std::to_string(spec.k0) +
                     "-" + std::to_string(spec.k1 - 1) + " (right); exact, " +
                     (request.log ? "log" : "linear") + " scale.";

    nlohmann::json metadata = {{"producer", "sparsight"},
                               {"capture", request.captureUuid},
                               {"layer", head.layer},
                               {"head", head.head},
                               {"rect", {spec.q0, spec.q1, spec.k0, spec.k1}},
                               {"size", {spec.width, spec.height}},
                               {"statistic", nameOf(spec.statistic)},
                               {"scale", request.log ? "log" : "linear"},
                               {"overlays", nlohmann::json::array()}};
    std::string labels;
    for (const MethodSpec& method_ : request.overlays) {
        job.step(0.8, toString(method_));
        const Method& method = sparsight::method(method_.id);
        MapFigure::Overlay overlay{toString(method_), parseColour(method.colour), 0.45, {}};
        overlay.kept.resize(figure.values.size());
        rasterize(makePolicy(method_)->select(head, job), head.problem, spec.q0, spec.q1, spec.k0,
                  spec.k1, spec.width, spec.height, overlay.kept.data(), job);
        labels += (labels.empty() ? "" : "; ") + overlay.label;
        metadata["overlays"].push_back(overlay.label);
        figure.overlays.push_back(std::move(overlay));
    }
    if (!labels.empty()) figure.caption += " Masks: " + labels + ".";
    figure.metadata = metadata.dump();
    return figure;
}

}  // namespace sparsight
