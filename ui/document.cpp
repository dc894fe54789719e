#include "ui/document.h"

#include <algorithm>

namespace sparsight::ui {
namespace {

/// A null pointer for numbers outside the list.
template <class T>
std::shared_ptr<const T> entry(const std::vector<std::shared_ptr<const T>>& list, Index i) {
    return i >= 0 && std::size_t(i) < list.size() ? list[std::size_t(i)] : nullptr;
}

bool sameLayer(const MaskLayer& a, const MaskLayer& b) {
    return a.spec == b.spec && a.colour == b.colour && a.visible == b.visible &&
           a.opacity == b.opacity;
}

}  // namespace

MaskLayer maskLayer(const std::string& spec) {
    MaskLayer layer;
    layer.spec = parseMethod(spec);
    const Method& m = method(layer.spec.id);
    layer.colour = QColor(QString::fromUtf8(m.colour.data(), qsizetype(m.colour.size())));
    return layer;
}

Document::Document(QObject* parent) : QObject(parent) {}

void Document::openCapture(std::shared_ptr<sessions::Session> session,
                           sessions::CaptureInfo capture) {
    m_session = std::move(session);
    m_capture = std::move(capture);
    m_facts.clear();
    m_table.clear();
    m_stats.assign(std::size_t(m_capture.config.layers), nullptr);
    std::fill(m_metrics.begin(), m_metrics.end(), nullptr);
    std::fill(m_policies.begin(), m_policies.end(), nullptr);
    m_layer = m_head = m_query = m_key = -1;
    m_view = {0, double(tokens()), 0, double(tokens())};
    if (!m_capture.layersDone.empty()) {
        m_layer = m_capture.layersDone.front();
        m_head = 0;
    }
    emit captureChanged();
    emit factsChanged();
    emit tableChanged();
    emit headChanged();
    emit queryChanged();
    emit keyChanged();
    emit viewChanged();
}

void Document::close() {
    if (!m_session) return;
    openCapture(nullptr, {});
}

QString Document::sessionName() const {
    if (!m_session) return {};
    // A path given with a trailing slash has no file name of its own.
    auto path = m_session->path();
    if (!path.has_filename()) path = path.parent_path();
    return QString::fromStdString(path.extension() == ".sparsight" ? path.stem().string()
                                                                   : path.filename().string());
}

QString Document::tokenText(Index token) const {
    if (token < 0 || std::size_t(token) >= m_capture.offsets.size()) return {};
    const TokenOffset& at = m_capture.offsets[std::size_t(token)];
    const Index size = Index(m_capture.promptText.size());
    if (at.byteBegin < 0 || at.byteEnd > size || at.byteBegin >= at.byteEnd) return {};
    return QString::fromUtf8(m_capture.promptText.data() + at.byteBegin, at.byteEnd - at.byteBegin);
}

void Document::selectHead(Index layer, Index head) {
    const auto& config = m_capture.config;
    if (layer < 0 || head < 0 || layer >= config.layers || head >= config.heads) return;
    if (layer == m_layer && head == m_head) return;
    m_layer = layer;
    m_head = head;
    std::fill(m_metrics.begin(), m_metrics.end(), nullptr);
    std::fill(m_policies.begin(), m_policies.end(), nullptr);
    emit headChanged();
}

void Document::selectQuery(Index row) {
    if (row < -1 || row >= tokens() || row == m_query) return;
    m_query = row;
    emit queryChanged();
}

void Document::selectKey(Index column) {
    if (column < -1 || column >= tokens() || column == m_key) return;
    m_key = column;
    emit keyChanged();
}

void Document::setView(const MapRect& rect) {
    if (!(rect.q1 > rect.q0) || !(rect.k1 > rect.k0) || rect == m_view) return;
    m_view = rect;
    emit viewChanged();
}

void Document::fitView() {
    const double n = double(tokens());
    setView({0, n, 0, n});
}

void Document::setStyle(const MapStyle& style) {
    if (style.pool == m_style.pool && style.log == m_style.log &&
        style.colours == m_style.colours && style.showLost == m_style.showLost)
        return;
    m_style = style;
    emit styleChanged();
}

void Document::setMasks(std::vector<MaskLayer> masks) {
    // Results stay with the layers whose rule did not change.
    std::vector<std::shared_ptr<const MaskMetrics>> metrics(masks.size());
    std::vector<std::shared_ptr<const kernels::Policy>> policies(masks.size());
    for (std::size_t i = 0; i < masks.size(); ++i)
        for (std::size_t j = 0; j < m_masks.size(); ++j)
            if (m_masks[j].spec == masks[i].spec) {
                metrics[i] = entry(m_metrics, Index(j));
                policies[i] = entry(m_policies, Index(j));
                break;
            }
    const bool same = masks.size() == m_masks.size() &&
                      std::equal(masks.begin(), masks.end(), m_masks.begin(), sameLayer);
    const int active = std::min(m_active, int(masks.size()) - 1);
    if (same && active == m_active) return;
    m_masks = std::move(masks);
    m_metrics = std::move(metrics);
    m_policies = std::move(policies);
    m_active = active < 0 && !m_masks.empty() ? 0 : active;
    emit masksChanged();
}

void Document::setActiveMask(int index) {
    if (index < -1 || index >= int(m_masks.size()) || index == m_active) return;
    m_active = index;
    emit masksChanged();
}

void Document::setMaskSpec(int index, const MethodSpec& spec) {
    if (index < 0 || index >= int(m_masks.size())) return;
    MaskLayer& layer = m_masks[std::size_t(index)];
    if (layer.spec == spec) return;
    layer.spec = spec;
    // The old policy and numbers stay until the new ones come: a moving slider must not flicker.
    emit maskSpecChanged(index);
}

void Document::setMaskVisible(int index, bool visible) {
    if (index < 0 || index >= int(m_masks.size()) || m_masks[std::size_t(index)].visible == visible)
        return;
    m_masks[std::size_t(index)].visible = visible;
    emit masksChanged();
}

void Document::setMaskStyle(int index, const QColor& colour, double opacity) {
    if (index < 0 || index >= int(m_masks.size()) || !colour.isValid() || opacity < 0 ||
        opacity > 1)
        return;
    MaskLayer& layer = m_masks[std::size_t(index)];
    if (layer.colour == colour && layer.opacity == opacity) return;
    layer.colour = colour;
    layer.opacity = opacity;
    emit masksChanged();
}

const HeadFacts* Document::factsOf(Index layer, Index head) const {
    for (const HeadFacts& f : m_facts)
        if (f.layer == layer && f.head == head) return &f;
    return nullptr;
}

void Document::setHeadFacts(std::vector<HeadFacts> facts) {
    m_facts = std::move(facts);
    emit factsChanged();
}

std::shared_ptr<const LayerStats> Document::stats(Index layer) const {
    return entry(m_stats, layer);
}

void Document::setStats(Index layer, std::shared_ptr<const LayerStats> stats) {
    if (layer < 0 || std::size_t(layer) >= m_stats.size()) return;
    m_stats[std::size_t(layer)] = std::move(stats);
    emit statsChanged(layer);
}

std::shared_ptr<const MaskMetrics> Document::metrics(int mask) const {
    return entry(m_metrics, mask);
}

void Document::setMetrics(int mask, std::shared_ptr<const MaskMetrics> metrics) {
    if (mask < 0 || std::size_t(mask) >= m_metrics.size()) return;
    m_metrics[std::size_t(mask)] = std::move(metrics);
    emit metricsChanged(mask);
}

void Document::setTableMetrics(std::vector<MaskMetrics> rows) {
    m_table = std::move(rows);
    emit tableChanged();
}

std::shared_ptr<const kernels::Policy> Document::policy(int mask) const {
    return entry(m_policies, mask);
}

void Document::setPolicy(int mask, std::shared_ptr<const kernels::Policy> policy) {
    if (mask < 0 || std::size_t(mask) >= m_policies.size()) return;
    m_policies[std::size_t(mask)] = std::move(policy);
    emit policyChanged(mask);
}

}  // namespace sparsight::ui
