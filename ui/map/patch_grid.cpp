#include "ui/map/patch_grid.h"

#include <QHelpEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QToolTip>
#include <algorithm>

#include "ui/map/map_paint.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr double kMargin = 6, kGap = 10;

}  // namespace

PatchGrid::PatchGrid(Document* document, QWidget* parent) : QWidget(parent), m_document(document) {
    setMouseTracking(true);
    connect(document, &Document::queryChanged, this, QOverload<>::of(&QWidget::update));
    connect(document, &Document::keyChanged, this, QOverload<>::of(&QWidget::update));
    connect(document, &Document::styleChanged, this, QOverload<>::of(&QWidget::update));
}

void PatchGrid::setProbabilities(std::vector<float> p) {
    m_p = std::move(p);
    update();
}

void PatchGrid::setKeyMode(bool on) {
    m_keyMode = on;
    update();
}

double PatchGrid::cell() const {
    const auto& image = m_document->capture().image;
    if (!image) return 0;
    // The class token takes one more column at the left.
    const double wide = (width() - 2 * kMargin - kGap) / double(image->cols + 1);
    return std::max(1.0, std::min(wide, (height() - 2 * kMargin) / double(image->rows)));
}

QRectF PatchGrid::tokenRect(Index token) const {
    const auto& image = m_document->capture().image;
    if (!image || token < 0 || token >= image->tokens()) return {};
    const double side = cell();
    if (token < image->classTokens) return {kMargin, kMargin + double(token) * side, side, side};
    const Index patch = token - image->classTokens;
    return {kMargin + side + kGap + double(patch % image->cols) * side,
            kMargin + double(patch / image->cols) * side, side, side};
}

Index PatchGrid::tokenAt(const QPointF& point) const {
    const auto& image = m_document->capture().image;
    for (Index t = 0; image && t < image->tokens(); ++t)
        if (tokenRect(t).contains(point)) return t;
    return -1;
}

void PatchGrid::paintEvent(QPaintEvent*) {
    const auto& image = m_document->capture().image;
    if (!image) return;
    QPainter p(this);
    const bool known = Index(m_p.size()) == image->tokens();
    const ColourScale scale = probabilityScale(m_document->style());
    for (Index t = 0; t < image->tokens(); ++t) {
        const QRectF r = tokenRect(t);
        p.fillRect(r, theme().mapBackground);
        if (known) {
            const float value = m_p[std::size_t(t)];
            p.drawImage(r, paintValues({&value, 1}, 1, 1, scale));
        }
        p.setPen(theme().line);
        p.drawRect(r);
    }
    const auto mark = [&](Index token, Qt::PenStyle style) {
        if (token < 0) return;
        p.setBrush(Qt::NoBrush);
        p.setPen(QPen(theme().accent, 2, style));
        p.drawRect(tokenRect(token).adjusted(1, 1, -1, -1));
    };
    mark(m_keyMode ? m_document->query() : m_document->key(), Qt::DotLine);
    mark(m_keyMode ? m_document->key() : m_document->query(), Qt::SolidLine);
}

void PatchGrid::mousePressEvent(QMouseEvent* event) {
    const Index token = tokenAt(event->position());
    if (token >= 0) emit clicked(token, event->modifiers() & (Qt::ShiftModifier | Qt::AltModifier));
}

bool PatchGrid::event(QEvent* event) {
    if (event->type() != QEvent::ToolTip) return QWidget::event(event);
    const auto* help = static_cast<QHelpEvent*>(event);
    const Index token = tokenAt(help->pos());
    QString text = token < 0 ? QString() : m_document->tokenText(token);
    if (token >= 0 && std::size_t(token) < m_p.size())
        text += tr("\nprobability %1").arg(double(m_p[std::size_t(token)]), 0, 'g', 6);
    QToolTip::showText(help->globalPos(), text, this);
    return true;
}

}  // namespace sparsight::ui
