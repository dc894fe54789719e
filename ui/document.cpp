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
    m_capture = std::make_shared<const sessions::CaptureInfo>(std::move(capture));
    m_facts.clear();
    m_table.clear();
    m_factsFailure.clear();
    m_tableFailure.clear();
    m_statsFailures.clear();
    m_stats.assign(std::size_t(m_capture->config.layers), nullptr);
    m_results.assign(m_masks.size(), {});
    m_layer = m_head = m_query = m_key = -1;
    if (!m_capture->layersDone.empty()) {
        m_layer = m_capture->layersDone.front();
        m_head = 0;
    }
    m_view = {0, double(rows()), 0, double(keys())};
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

namespace {

/// The characters of a token, with the white space before it that belongs to no token (WordPiece
/// drops it), so that the pieces in a row read as the prompt. A token that lies at the head of the
/// next one (SentencePiece's lone space mark) stands for that white space only.
QString pieceOf(const std::string& text, const std::vector<TokenOffset>& offsets, Index token) {
    if (token < 0 || std::size_t(token) >= offsets.size()) return {};
    const auto i = std::size_t(token);
    const TokenOffset& at = offsets[i];
    if (at.byteBegin < 0 || at.byteEnd > Index(text.size()) || at.byteBegin >= at.byteEnd)
        return {};
    const Index before = i > 0 ? offsets[i - 1].byteEnd : at.byteBegin;
    Index begin = at.byteBegin, end = at.byteEnd;
    if (before >= 0 && before < begin &&
        std::all_of(text.begin() + before, text.begin() + begin,
                    [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }))
        begin = before;
    if (begin < at.byteBegin && i + 1 < offsets.size() &&
        offsets[i + 1].byteBegin == at.byteBegin && offsets[i + 1].byteEnd > at.byteEnd)
        end = at.byteBegin;
    return QString::fromUtf8(text.data() + begin, end - begin);
}

QString sequenceText(const Document& document, Sequence sequence, Index token) {
    const sessions::CaptureInfo& c = document.capture();
    if (sequence == Sequence::Decoder) return pieceOf(c.decoderText, c.decoderOffsets, token);
    return document.tokenText(token);
}

}  // namespace

QString Document::tokenText(Index token) const {
    if (m_capture->image && token >= 0 && token < m_capture->image->tokens()) {
        const Index patch = token - m_capture->image->classTokens;
        if (patch < 0) return tr("class token");
        return tr("patch %1,%2")
            .arg(patch / m_capture->image->cols)
            .arg(patch % m_capture->image->cols);
    }
    return pieceOf(m_capture->promptText, m_capture->offsets, token);
}

LayerShape Document::shape() const {
    if (m_capture->config.layers < 1) return {};
    return layerShape(*m_capture, std::clamp<Index>(m_layer, 0, m_capture->config.layers - 1));
}

bool Document::causal() const {
    if (!m_capture->config.stacks.empty()) return shape().causal;
    // Imported tensors: their statistics know (one mass per distance, or per offset both ways).
    const auto known = stats(m_layer);
    return !known || known->diagMass.size() == std::size_t(known->heads * known->Nk);
}

QString Document::rowText(Index row) const {
    if (m_capture->config.stacks.empty() && rows() != keys())  // imported: the last rows, or others
        return causal() ? tokenText(row + keys() - rows()) : QString();
    return sequenceText(*this, shape().queries, row);
}

QString Document::keyText(Index key) const {
    return sequenceText(*this, shape().keys, key);
}

QString Document::layerText(Index layer) const {
    return QString::fromStdString(layerName(m_capture->config, layer));
}

QString Document::headText(Index layer, Index head) const {
    const bool named = !layerText(layer).isEmpty() && !layerText(layer)[0].isDigit();
    return QStringLiteral("%1%2 H%3").arg(named ? "" : "L", layerText(layer)).arg(head);
}

void Document::selectHead(Index layer, Index head) {
    const auto& config = m_capture->config;
    if (layer < 0 || head < 0 || layer >= config.layers || head >= config.heads) return;
    if (!config.stacks.empty() && head >= layerShape(*m_capture, layer).heads) return;
    if (layer == m_layer && head == m_head) return;
    const LayerShape old = shape();
    m_layer = layer;
    m_head = head;
    m_results.assign(m_masks.size(), {});
    const LayerShape now = shape();
    const bool other =
        old.Nq != now.Nq || old.Nk != now.Nk || old.queries != now.queries || old.keys != now.keys;
    if (other) {  // another map: rows and keys of the old one mean nothing here
        m_view = {0, double(now.Nq), 0, double(now.Nk)};
        m_query = m_key = -1;
    }
    emit headChanged();
    if (!other) return;
    emit viewChanged();
    emit queryChanged();
    emit keyChanged();
}

void Document::selectQuery(Index row) {
    if (row < -1 || row >= rows() || row == m_query) return;
    m_query = row;
    emit queryChanged();
}

void Document::selectKey(Index column) {
    if (column < -1 || column >= keys() || column == m_key) return;
    m_key = column;
    emit keyChanged();
}

void Document::setView(const MapRect& rect) {
    if (!(rect.q1 > rect.q0) || !(rect.k1 > rect.k0) || rect == m_view) return;
    m_view = rect;
    emit viewChanged();
}

void Document::fitView() {
    setView({0, double(rows()), 0, double(keys())});
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
    std::vector<MaskResult> results(masks.size());
    for (std::size_t i = 0; i < masks.size(); ++i)
        for (std::size_t j = 0; j < m_masks.size(); ++j)
            if (m_masks[j].spec == masks[i].spec) {
                results[i] = m_results[j];
                break;
            }
    const bool same = masks.size() == m_masks.size() &&
                      std::equal(masks.begin(), masks.end(), m_masks.begin(), sameLayer);
    const int active = std::min(m_active, int(masks.size()) - 1);
    if (same && active == m_active) return;
    m_masks = std::move(masks);
    m_results = std::move(results);
    m_active = active < 0 && !m_masks.empty() ? 0 : active;
    emit masksChanged();
}

void Document::addMask(const MaskLayer& layer) {
    std::vector<MaskLayer> masks = m_masks;
    masks.push_back(layer);
    setMasks(std::move(masks));
    setActiveMask(int(m_masks.size()) - 1);
}

void Document::removeActiveMask() {
    if (m_active < 0) return;
    std::vector<MaskLayer> masks = m_masks;
    masks.erase(masks.begin() + m_active);
    m_active = masks.empty() ? -1 : std::max(0, m_active - 1);
    setMasks(std::move(masks));
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
    m_factsFailure.clear();
    emit factsChanged();
}

std::shared_ptr<const LayerStats> Document::stats(Index layer) const {
    return entry(m_stats, layer);
}

void Document::setStats(Index layer, std::shared_ptr<const LayerStats> stats) {
    if (layer < 0 || std::size_t(layer) >= m_stats.size()) return;
    m_stats[std::size_t(layer)] = std::move(stats);
    m_statsFailures.remove(layer);
    emit statsChanged(layer);
}

const Document::MaskResult* Document::result(int mask) const {
    return mask >= 0 && std::size_t(mask) < m_results.size() ? &m_results[std::size_t(mask)]
                                                             : nullptr;
}

std::shared_ptr<const MaskMetrics> Document::metrics(int mask) const {
    const MaskResult* r = result(mask);
    return r ? r->metrics : nullptr;
}

bool Document::metricsStale(int mask) const {
    const MaskResult* r = result(mask);
    return r && r->metrics && r->measured != m_masks[std::size_t(mask)].spec;
}

void Document::setMetrics(int mask, std::shared_ptr<const MaskMetrics> metrics) {
    if (!result(mask)) return;
    MaskResult& r = m_results[std::size_t(mask)];
    r.metrics = std::move(metrics);
    r.measured = m_masks[std::size_t(mask)].spec;
    r.estimate.reset();
    r.failure.clear();
    emit metricsChanged(mask);
}

QString Document::maskFailure(int mask) const {
    const MaskResult* r = result(mask);
    return r ? r->failure : QString();
}

void Document::failMask(int mask, const QString& sentence) {
    if (!result(mask)) return;
    m_results[std::size_t(mask)] = {nullptr, nullptr, {}, {}, sentence};
    emit policyChanged(mask);
    emit metricsChanged(mask);
}

void Document::setTableMetrics(std::vector<MaskMetrics> rows) {
    m_table = std::move(rows);
    m_tableFailure.clear();
    emit tableChanged();
}

void Document::failFacts(const QString& sentence) {
    m_facts.clear();
    m_factsFailure = sentence;
    emit factsChanged();
}

void Document::failTable(const QString& sentence) {
    m_table.clear();
    m_tableFailure = sentence;
    emit tableChanged();
}

void Document::failStats(Index layer, const QString& sentence) {
    if (layer < 0 || std::size_t(layer) >= m_stats.size()) return;
    m_stats[std::size_t(layer)] = nullptr;
    m_statsFailures[layer] = sentence;
    emit statsChanged(layer);
}

std::shared_ptr<const kernels::Policy> Document::policy(int mask) const {
    const MaskResult* r = result(mask);
    return r ? r->policy : nullptr;
}

void Document::setPolicy(int mask, std::shared_ptr<const kernels::Policy> policy,
                         std::optional<MaskEstimate> estimate) {
    if (!result(mask)) return;
    m_results[std::size_t(mask)].policy = std::move(policy);
    m_results[std::size_t(mask)].estimate = estimate;
    emit policyChanged(mask);
    if (estimate) emit metricsChanged(mask);
}

std::optional<MaskEstimate> Document::estimate(int mask) const {
    const MaskResult* r = result(mask);
    return r ? r->estimate : std::nullopt;
}

}  // namespace sparsight::ui
