#include "ui/map/head_data.h"

#include <algorithm>

namespace sparsight::ui {

HeadRef selectedHead(const Document& document) {
    const auto& done = document.capture().layersDone;
    if (!document.isOpen() || std::find(done.begin(), done.end(), document.layer()) == done.end() ||
        document.head() < 0)
        return {};
    return {document.session(), document.sharedCapture(), document.layer(), document.head()};
}

std::vector<float> readRow(const HeadRef& head, Index row) {
    const auto layer = head.session->layer(head.capture->uuid, head.layer);
    const kernels::Problem problem = headProblem(*layer, head.head);
    std::vector<float> p(std::size_t(problem.Nk));
    rowProbabilities(problem, headQ(*layer, head.head), headK(*layer, head.head), row, p.data());
    return p;
}

std::vector<float> readColumn(const HeadRef& head, Index key, kernels::Backend& backend,
                              const Job& job) {
    kernels::RenderSpec spec;
    spec.k0 = key;
    spec.k1 = key + 1;
    spec.q1 = spec.height = layerShape(*head.capture, head.layer).Nq;
    spec.width = 1;
    spec.statistic = kernels::Statistic::Max;
    std::vector<float> p = readPixels(head, spec, backend, job);
    for (float& v : p) v = std::max(v, 0.0f);
    return p;
}

std::vector<float> readPixels(const HeadRef& head, const kernels::RenderSpec& spec,
                              kernels::Backend& backend, const Job& job) {
    const auto layer = head.session->layer(head.capture->uuid, head.layer);
    std::vector<float> px(std::size_t(spec.width * spec.height));
    backend.render(headProblem(*layer, head.head), headQ(*layer, head.head),
                   headK(*layer, head.head), layer->lse.row(head.head).data(), spec, px.data(),
                   job);
    return px;
}

std::vector<float> readKept(const HeadRef& head, const kernels::Policy& policy,
                            const kernels::RenderSpec& spec, const Job& job) {
    const auto layer = head.session->layer(head.capture->uuid, head.layer);
    std::vector<float> px(std::size_t(spec.width * spec.height));
    rasterize(policy, headProblem(*layer, head.head), spec.q0, spec.q1, spec.k0, spec.k1,
              spec.width, spec.height, px.data(), job);
    return px;
}

}  // namespace sparsight::ui
