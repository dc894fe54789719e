#include "ui/map/decode_bar.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QSlider>
#include <algorithm>
#include <numeric>

#include "ui/map/map_paint.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {

DecodeBar::DecodeBar(Document* document, QWidget* parent) : QWidget(parent), m_document(document) {
    setObjectName(QStringLiteral("decodeBar"));
    auto* row = new QHBoxLayout(this);
    row->setContentsMargins(12, 4, 12, 6);
    row->setSpacing(10);
    m_title = new QLabel(tr("Decode step"), this);
    m_title->setProperty("role", "muted");
    m_slider = new QSlider(Qt::Horizontal, this);
    m_slider->setObjectName(QStringLiteral("decodeStep"));
    m_slider->setAccessibleName(tr("Decode step"));
    m_slider->setToolTip(
        tr("Selects the row of a generated token: where the model looked when it "
           "read that token"));
    m_text = new QLabel(this);
    m_text->setObjectName(QStringLiteral("decodeText"));
    m_text->setMinimumWidth(180);
    row->addWidget(m_title);
    row->addWidget(m_slider, 1);
    row->addWidget(m_text);
    connect(m_slider, &QSlider::valueChanged, this, &DecodeBar::choose);
    connect(document, &Document::captureChanged, this, &DecodeBar::captureChanged);
    connect(document, &Document::queryChanged, this, &DecodeBar::queryChanged);
    captureChanged();
}

void DecodeBar::captureChanged() {
    const sessions::CaptureInfo& c = m_document->capture();
    m_steps = c.decodeSteps;
    if (m_steps.empty() && m_document->isOpen()) {
        m_steps.resize(std::size_t(c.generated()));
        std::iota(m_steps.begin(), m_steps.end(), Index(0));
    }
    setVisible(m_document->isOpen() && !m_steps.empty());
    const QSignalBlocker quiet(m_slider);
    m_slider->setRange(0, std::max(0, int(m_steps.size()) - 1));
    m_slider->setValue(0);
    queryChanged();
}

void DecodeBar::queryChanged() {
    if (m_steps.empty()) return;
    const Index step = m_document->query() - m_document->capture().prefill;
    const auto at = std::lower_bound(m_steps.begin(), m_steps.end(), step);
    const bool known = at != m_steps.end() && *at == step;
    if (known) {
        const QSignalBlocker quiet(m_slider);
        m_slider->setValue(int(at - m_steps.begin()));
    }
    m_text->setText(known ? tr("%1 of %2  “%3”")
                                .arg(thousands(step), thousands(m_document->capture().generated()),
                                     visibleToken(m_document->tokenText(m_document->query())))
                          : tr("%n generated", nullptr, int(m_document->capture().generated())));
}

void DecodeBar::choose(int index) {
    if (index < 0 || std::size_t(index) >= m_steps.size()) return;
    m_document->selectQuery(m_document->capture().prefill + m_steps[std::size_t(index)]);
}

void DecodeBar::move(int by) {
    const Index step = m_document->query() - m_document->capture().prefill;
    auto at = std::lower_bound(m_steps.begin(), m_steps.end(), step);
    const bool onStep = at != m_steps.end() && *at == step;
    // From a row between two steps, and from the prompt, the nearest in that direction.
    Index index = at - m_steps.begin();
    if (onStep || by < 0) index += by;
    choose(int(std::clamp<Index>(index, 0, Index(m_steps.size()) - 1)));
}

}  // namespace sparsight::ui
