#include "ui/map/token_text.h"

#include <QElapsedTimer>
#include <QFocusEvent>
#include <QHelpEvent>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QScrollBar>
#include <QToolTip>
#include <algorithm>
#include <cmath>

#include "ui/map/map_paint.h"
#include "ui/shell/theme.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
namespace {

const QColor kHeat(0xe6, 0x9f, 0x00);
const QColor kOnHeat(0x14, 0x16, 0x1a);

}  // namespace

TokenText::TokenText(Document* document, QWidget* parent)
    : QAbstractScrollArea(parent), m_document(document) {
    setFrameShape(QFrame::NoFrame);
    setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    setFocusPolicy(Qt::StrongFocus);
    viewport()->setCursor(Qt::IBeamCursor);
    viewport()->setMouseTracking(true);
    viewport()->setAutoFillBackground(false);
    verticalScrollBar()->setSingleStep(lineHeight());
    m_measureSoon.setSingleShot(true);
    connect(&m_measureSoon, &QTimer::timeout, this, &TokenText::relayOut);
}

bool TokenText::crosses() const {
    const LayerShape shape = m_document->shape();
    return shape.queries != shape.keys;
}

Index TokenText::shown() const {
    return m_keyMode && crosses() ? m_document->rows() : m_document->keys();
}

QString TokenText::shownText(Index token) const {
    return m_keyMode && crosses() ? m_document->rowText(token) : m_document->keyText(token);
}

Index TokenText::own() const {
    if (crosses()) return -1;
    return m_keyMode ? m_document->key() : m_document->query();
}

Index TokenText::other() const {
    return m_keyMode ? m_document->query() : m_document->key();
}

void TokenText::setProbabilities(std::vector<float> p) {
    m_p = std::move(p);
    relayOut();
}

void TokenText::setKeyMode(bool on) {
    m_keyMode = on;
    if (crosses())
        reset();  // the other sequence's tokens
    else
        viewport()->update();
}

void TokenText::setFolding(bool on) {
    m_folding = on;
    m_opened.assign(m_opened.size(), 0);
    relayOut();
}

bool TokenText::unfold(Index token) {
    const Fold* fold = foldOf(token);
    if (!fold) return false;
    std::fill_n(m_opened.begin() + fold->first, fold->count, char(1));
    relayOut();
    return true;
}

void TokenText::reset() {
    m_tokens.clear();
    m_measured.clear();
    m_widths.clear();
    m_measureSoon.stop();
    m_opened.clear();
    m_folds.clear();
    m_p.clear();
    m_laidOutWidth = -1;
    verticalScrollBar()->setValue(0);
    layOut();
    viewport()->update();
}

// --- painting ----------------------------------------------------------------------------------

QRect TokenText::chipRect(const Fold& fold) const {
    return QRectF(double(kPad + fold.x),
                  fold.line * lineHeight() - verticalScrollBar()->value() + 3.0, double(fold.width),
                  lineHeight() - 6.0)
        .toRect();
}

void TokenText::paintEvent(QPaintEvent*) {
    QElapsedTimer timer;
    timer.start();
    QPainter p(viewport());
    const Theme& t = theme();
    p.fillRect(viewport()->rect(), t.panel);
    p.setFont(bodyFont());
    if (m_tokens.empty()) {
        if (m_measured.empty()) return;
        p.setPen(t.muted);
        p.drawText(viewport()->rect().adjusted(kPad, 2, -kPad, 0), tr("Laying out the text …"));
        return;
    }
    p.setRenderHint(QPainter::Antialiasing);
    const int height = lineHeight(), scrolled = verticalScrollBar()->value();
    const int from = std::clamp(scrolled / height, 0, int(m_lineBegin.size()) - 1);
    const auto box = [&](Index i) {
        const Token& k = m_tokens[std::size_t(i)];
        return QRectF(double(kPad + k.x), k.line * height - scrolled + 2.0, double(k.width),
                      height - 4.0);
    };
    for (Index i = m_lineBegin[std::size_t(from)]; i < Index(m_tokens.size()); ++i) {
        if (const Fold* fold = foldOf(i)) {
            if (chipRect(*fold).top() > viewport()->height()) break;
            paintChip(p, *fold);
            i += fold->count - 1;
            continue;
        }
        const QRectF r = box(i);
        if (r.top() > viewport()->height()) break;
        paintToken(p, i, r);
    }
    p.setBrush(Qt::NoBrush);
    for (const auto& [token, pen] : {std::pair(other(), QPen(t.muted, 1.2, Qt::DashLine)),
                                     std::pair(own(), QPen(t.accent, 2))}) {
        if (token < 0 || token >= Index(m_tokens.size()) || foldOf(token)) continue;
        p.setPen(pen);
        p.drawRoundedRect(box(token).adjusted(-1, -0.5, 1, 0.5), 3, 3);
    }
    if (m_keyboardFocus) {
        p.setPen(QPen(t.accent, 2));
        p.drawRect(viewport()->rect().adjusted(1, 1, -1, -1));
    }
    uiLog(QStringLiteral("paint"), {{QStringLiteral("what"), QStringLiteral("text")},
                                    {QStringLiteral("took"), double(timer.nsecsElapsed()) / 1e6}});
}

/// Of a token's background.
double TokenText::strength(double p) {
    if (!(p > kFaintest)) return 0;
    return std::clamp(1 - std::log10(p) / std::log10(kFaintest), 0.0, 1.0);
}

void TokenText::paintToken(QPainter& p, Index token, const QRectF& r) const {
    const Theme& t = theme();
    const auto at = std::size_t(token);
    const double s = at < m_p.size() ? strength(double(m_p[at])) : 0;
    const double share = s * s * 0.95;
    if (share > 0.01) {
        p.setPen(Qt::NoPen);
        p.setBrush(blend(kHeat, t.panel, share));
        p.drawRect(r);
    }
    const QString& shown = m_tokens[at].text;
    const bool seen = own() < 0 || (m_keyMode ? token >= own() : token <= own());
    p.setPen(share > 0.45 ? kOnHeat : shown == kLineEnd || !seen ? t.muted : t.text);
    const QFontMetricsF fm(p.font());
    p.drawText(QPointF(r.left(), r.top() + (r.height() - fm.height()) / 2 + fm.ascent()), shown);
    const auto& truth = m_document->capture().truth;
    if (truth && (truth->needle.contains(token) || truth->answer.contains(token)))
        p.fillRect(QRectF(r.left(), r.bottom() - 1, r.width(), 2),
                   truth->needle.contains(token) ? t.warning : t.accent);
}

void TokenText::paintChip(QPainter& p, const Fold& fold) const {
    const QRectF r = chipRect(fold);
    p.setPen(QPen(theme().line, 1));
    p.setBrush(theme().raised);
    p.drawRoundedRect(r.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4);
    p.setPen(theme().muted);
    p.drawText(r, Qt::AlignCenter, chipText(fold));
}

// --- input -------------------------------------------------------------------------------------

Index TokenText::tokenAt(const QPoint& point) const {
    if (m_tokens.empty()) return -1;
    const int line = (point.y() + verticalScrollBar()->value()) / lineHeight();
    if (line < 0 || std::size_t(line) >= m_lineBegin.size()) return -1;
    const Index end = std::size_t(line) + 1 < m_lineBegin.size()
                          ? m_lineBegin[std::size_t(line) + 1]
                          : Index(m_tokens.size());
    for (Index i = m_lineBegin[std::size_t(line)]; i < end; ++i) {
        if (const Fold* fold = foldOf(i)) {
            i = fold->first + fold->count - 1;
            continue;
        }
        const Token& t = m_tokens[std::size_t(i)];
        const float x = float(point.x() - kPad);
        if (x >= t.x && x < t.x + t.width) return i;
    }
    return -1;
}

const TokenText::Fold* TokenText::foldAt(const QPoint& point) const {
    for (const Fold& fold : m_folds)
        if (chipRect(fold).contains(point)) return &fold;
    return nullptr;
}

void TokenText::focusInEvent(QFocusEvent* event) {
    m_keyboardFocus = event->reason() == Qt::TabFocusReason ||
                      event->reason() == Qt::BacktabFocusReason ||
                      event->reason() == Qt::ShortcutFocusReason;
    viewport()->update();
}

void TokenText::focusOutEvent(QFocusEvent*) {
    m_keyboardFocus = false;
    viewport()->update();
}

void TokenText::mousePressEvent(QMouseEvent* event) {
    if (event->button() != Qt::LeftButton) return;
    if (const Fold* fold = foldAt(event->pos())) {
        unfold(fold->first);
        return;
    }
    const Index token = tokenAt(event->pos());
    if (token >= 0) emit clicked(token, event->modifiers() & (Qt::ShiftModifier | Qt::AltModifier));
}

void TokenText::mouseMoveEvent(QMouseEvent* event) {
    viewport()->setCursor(foldAt(event->pos()) ? Qt::PointingHandCursor : Qt::IBeamCursor);
}

void TokenText::keyPressEvent(QKeyEvent* event) {
    const Index last = shown() - 1, at = crosses() ? other() : own();
    if (last < 0) return;
    const auto go = [&](Index to) { emit clicked(std::clamp<Index>(to, 0, last), false); };
    switch (event->key()) {
        case Qt::Key_Left:
            go(at - 1);
            break;
        case Qt::Key_Right:
            go(at + 1);
            break;
        case Qt::Key_Return:
        case Qt::Key_Enter: {  // the next chip after the selection, or else the last one
            if (m_folds.empty()) break;
            const auto next = std::find_if(m_folds.begin(), m_folds.end(),
                                           [at](const Fold& f) { return f.first > at; });
            unfold(next == m_folds.end() ? m_folds.back().first : next->first);
            break;
        }
        default:
            QAbstractScrollArea::keyPressEvent(event);
    }
}

QString TokenText::helpAt(const QPoint& point) const {
    if (const Fold* fold = foldAt(point))
        return tr("tokens %1 to %2, each below a probability of %3, together %4\nClick to show "
                  "them")
            .arg(thousands(fold->first), thousands(fold->first + fold->count - 1))
            .arg(kFaintest)
            .arg(fold->mass, 0, 'g', 3);
    const Index token = tokenAt(point);
    if (token < 0) return {};
    QString text = tr("token %1 “%2”").arg(thousands(token), visibleToken(shownText(token)));
    if (std::size_t(token) < m_p.size())
        text += tr("\nprobability %1").arg(double(m_p[std::size_t(token)]), 0, 'g', 6);
    return text;
}

bool TokenText::viewportEvent(QEvent* event) {
    if (event->type() == QEvent::ToolTip) {
        const auto* help = static_cast<QHelpEvent*>(event);
        const QString text = helpAt(help->pos());
        if (text.isEmpty())
            QToolTip::hideText();
        else
            QToolTip::showText(help->globalPos(), text, viewport());
        return true;
    }
    return QAbstractScrollArea::viewportEvent(event);
}

}  // namespace sparsight::ui
