#include "ui/shell/mask_history.h"

#include <algorithm>

namespace sparsight::ui {
namespace {

constexpr std::size_t kSteps = 200;
constexpr int kSettleMs = 500;

bool same(const MaskLayer& a, const MaskLayer& b) {
    return a.spec == b.spec && a.colour == b.colour && a.visible == b.visible &&
           a.opacity == b.opacity;
}

}  // namespace

MaskHistory::MaskHistory(Document* document, QObject* parent)
    : QObject(parent), m_document(document) {
    m_settle.setSingleShot(true);
    m_settle.setInterval(kSettleMs);
    connect(&m_settle, &QTimer::timeout, this, &MaskHistory::record);
    const auto touched = [this] {
        if (!m_restoring) m_settle.start();
    };
    connect(document, &Document::masksChanged, this, touched);
    connect(document, &Document::maskSpecChanged, this, touched);
    clear();
}

void MaskHistory::clear() {
    m_settle.stop();
    m_states.assign(1, {m_document->masks(), m_document->activeMask()});
    m_at = 0;
    emit changed();
}

void MaskHistory::record() {
    m_settle.stop();
    State now{m_document->masks(), m_document->activeMask()};
    State& last = m_states[m_at];
    const bool equal = now.masks.size() == last.masks.size() &&
                       std::equal(now.masks.begin(), now.masks.end(), last.masks.begin(), same);
    if (equal) {
        last.active = now.active;  // choosing another layer is no edit
        return;
    }
    m_states.resize(m_at + 1);
    m_states.push_back(std::move(now));
    if (m_states.size() > kSteps) m_states.erase(m_states.begin());
    m_at = m_states.size() - 1;
    emit changed();
}

void MaskHistory::restore(const State& state) {
    m_restoring = true;
    m_document->setMasks(state.masks);
    m_document->setActiveMask(state.active);
    m_restoring = false;
    emit changed();
}

void MaskHistory::undo() {
    if (m_settle.isActive()) record();
    if (m_at > 0) restore(m_states[--m_at]);
}

void MaskHistory::redo() {
    if (m_settle.isActive()) record();
    if (canRedo()) restore(m_states[++m_at]);
}

}  // namespace sparsight::ui
