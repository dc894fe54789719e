#include "ui/map/map_view.h"

#include <QEvent>
#include <QFocusEvent>
#include <QJsonArray>
#include <QPainter>
#include <QPainterPath>
#include <QTextDocument>
#include <QToolButton>
#include <algorithm>
#include <cmath>

#include "ui/engine.h"
#include "ui/shell/theme.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
namespace {

constexpr double kPad = 12, kTop = 26, kLeft = 56, kBottom = 14;
constexpr double kTextLeft = 128, kTextTop = 78;  ///< rulers that show the tokens' texts
constexpr double kSideLeast = 92, kSideMost = 210;
constexpr double kTextPixels = 15;                     ///< least pixels per token for texts
constexpr double kCardWidth = 320, kCardHeight = 136;  ///< room of the read-out in the corner
constexpr double kMinimapMost = 164, kBarMost = 300;

QColor withAlpha(QColor c, double alpha) {
    c.setAlphaF(float(alpha));
    return c;
}

/// What the causal mask lets be seen of a rectangle, above the cells' staircase by less than one
/// coarse block.
QPainterPath belowDiagonal(const MapRect& v, const QRectF& plot) {
    const auto x = [&](double k) {
        return plot.left() + (k - v.k0) / (v.k1 - v.k0) * plot.width();
    };
    const auto y = [&](double q) {
        return plot.top() + (q - v.q0) / (v.q1 - v.q0) * plot.height();
    };
    const double far = std::max(v.q1, v.k1) + 1;
    QPainterPath path;
    path.moveTo(x(0), y(0));
    path.lineTo(x(far), y(far));
    path.lineTo(x(0), y(far));
    path.closeSubpath();
    return path;
}

}  // namespace

MapView::MapView(Document* document, Engine* engine, QWidget* parent)
    : QWidget(parent), m_document(document), m_engine(engine) {
    setFocusPolicy(Qt::StrongFocus);
    setMouseTracking(true);
    setCursor(Qt::CrossCursor);
    setAttribute(Qt::WA_OpaquePaintEvent);
    setWhatsThis(
        tr("Queries down, keys right. Wheel zooms, drag pans, a click selects query and key, a "
           "double click shows all and returns, Shift+drag zooms to an area."));
    m_styleButton = new QToolButton(this);
    m_styleButton->setObjectName(QStringLiteral("mapStyleButton"));
    m_styleButton->setAccessibleName(tr("Scale and pooling of the map"));
    m_styleButton->setToolTip(
        tr("Scale (L), pooling (M), colours (C) and lost mass (X) of the map; default: log, max, "
           "magma"));
    m_styleButton->setPopupMode(QToolButton::InstantPopup);
    m_styleButton->setCursor(Qt::ArrowCursor);
    m_styleButton->setFont(smallFont());
    m_styleButton->setStyleSheet(QStringLiteral("font-size: 12px;"));
    makeStyleMenu();
    m_requestSoon.setSingleShot(true);
    m_requestSoon.setInterval(0);
    m_overlaysSoon.setSingleShot(true);
    m_overlaysSoon.setInterval(0);
    connect(&m_requestSoon, &QTimer::timeout, this, &MapView::requestExact);
    connect(&m_overlaysSoon, &QTimer::timeout, this, &MapView::requestOverlays);

    connect(document, &Document::captureChanged, this, [this] {
        m_return.reset();
        m_hover.reset();
        headPicturesChanged();
        layOut();
    });
    connect(document, &Document::headChanged, this, &MapView::headPicturesChanged);
    connect(document, &Document::statsChanged, this, [this](Index layer) {
        if (layer == m_document->layer()) remakeCoarse();
    });
    connect(document, &Document::viewChanged, this, [this] {
        layOut();
        if (m_document->style().pool == kernels::Statistic::Sum) remakeCoarse();
        request();
        dirty();
        tellStatus();
    });
    connect(document, &Document::styleChanged, this, [this] {
        refreshStyleButton();
        m_whole = {};
        m_wholeSmall = {};
        layOut();
        remakeCoarse();
        request();
    });
    connect(document, &Document::queryChanged, this, [this] {
        requestRow(m_document->query());
        update();
    });
    connect(document, &Document::keyChanged, this, [this] { update(); });
    const auto overlays = [this] {
        layOut();
        m_overlaysSoon.start();
        dirty();
    };
    connect(document, &Document::masksChanged, this, overlays);
    connect(document, &Document::policyChanged, this, overlays);
    connect(document, &Document::metricsChanged, this, [this] { update(); });
    refreshStyleButton();
    headPicturesChanged();
}

// --- geometry ----------------------------------------------------------------------------------

bool MapView::tokenTexts(bool rows) const {
    if (!m_head.valid() || m_document->capture().offsets.empty()) return false;
    const MapRect& v = m_document->view();
    // Judged by the room that is left with the wide rulers, or the two states would alternate.
    const double side =
        std::min(width() - kTextLeft - kSideLeast - 2 * kPad, height() - kTextTop - kBottom);
    return side / (rows ? v.q1 - v.q0 : v.k1 - v.k0) >= kTextPixels;
}

bool MapView::zoomedIn() const {
    const MapRect& v = m_document->view();
    const double n = double(m_document->tokens());
    return v.q1 - v.q0 < n * 0.999 || v.k1 - v.k0 < n * 0.999;
}

void MapView::layOut() {
    const double left = tokenTexts(true) ? kTextLeft : kLeft,
                 top = tokenTexts(false) ? kTextTop : kTop;
    const MapRect& v = m_document->view();
    // Tokens are square on the screen unless a script asks for a very long rectangle.
    const double aspect = std::clamp((v.k1 - v.k0) / std::max(1e-9, v.q1 - v.q0), 0.25, 4.0);
    const double roomX = std::max(40.0, width() - left - kSideLeast - 2 * kPad),
                 roomY = std::max(40.0, height() - top - kBottom);
    const double h = std::floor(std::min(roomY, roomX / aspect));
    const double w = std::floor(h * aspect);
    const QRectF old = m_plot;
    m_plot = {left, top, w, h};
    const double sideLeft = m_plot.right() + 20;
    m_side = {sideLeft, m_plot.top(), std::min(kSideMost, width() - sideLeft - kPad), h};
    const double legend = 20.0 * double(m_document->masks().size() + 1);
    const double map = zoomedIn() ? std::min(kMinimapMost, m_side.width()) : 0;
    const double bar =
        std::clamp(h - legend - 56 - (map > 0 ? map + 32 : 0), 60.0, std::max(60.0, kBarMost));
    m_bar = {m_side.left(), m_side.top() + 6, 13, bar};
    m_styleButton->move(int(m_side.left()) - 6, int(m_bar.bottom()) + 8);
    m_styleButton->setVisible(m_head.valid());
    m_legendTop = m_bar.bottom() + 44;
    m_minimap = {m_side.left(), m_plot.bottom() - map, map, map};
    if (old != m_plot) m_composedOld = true;
}

QRectF MapView::toScreen(const QRectF& t) const {
    const MapRect& v = m_document->view();
    const double sx = m_plot.width() / (v.k1 - v.k0), sy = m_plot.height() / (v.q1 - v.q0);
    return {m_plot.left() + (t.left() - v.k0) * sx, m_plot.top() + (t.top() - v.q0) * sy,
            t.width() * sx, t.height() * sy};
}

QPointF MapView::toTokens(const QPointF& s) const {
    const MapRect& v = m_document->view();
    return {v.k0 + (s.x() - m_plot.left()) / m_plot.width() * (v.k1 - v.k0),
            v.q0 + (s.y() - m_plot.top()) / m_plot.height() * (v.q1 - v.q0)};
}

std::optional<MapView::Cell> MapView::cellAt(const QPointF& screen) const {
    if (!m_head.valid() || !m_plot.contains(screen)) return std::nullopt;
    if (zoomedIn() && m_minimap.contains(screen)) return std::nullopt;
    const QPointF t = toTokens(screen);
    const Index n = m_document->tokens();
    const Cell c{Index(std::floor(t.y())), Index(std::floor(t.x()))};
    if (c.query < 0 || c.key < 0 || c.query >= n || c.key >= n) return std::nullopt;
    return c;
}

void MapView::resizeEvent(QResizeEvent*) {
    layOut();
    request();
    dirty();
    tellStatus();
}

void MapView::changeEvent(QEvent* event) {
    if (event->type() == QEvent::PaletteChange || event->type() == QEvent::StyleChange) dirty();
    QWidget::changeEvent(event);
}

void MapView::focusInEvent(QFocusEvent* event) {
    m_keyboardFocus = event->reason() == Qt::TabFocusReason ||
                      event->reason() == Qt::BacktabFocusReason ||
                      event->reason() == Qt::ShortcutFocusReason;
    update();
}

void MapView::focusOutEvent(QFocusEvent*) {
    m_keyboardFocus = false;
    update();
}

// --- painting ----------------------------------------------------------------------------------

void MapView::compose() {
    const double ratio = devicePixelRatioF();
    const QSize size = (QSizeF(m_plot.size()) * ratio).toSize();
    if (m_composed.size() != size) m_composed = QPixmap(size);
    m_composed.setDevicePixelRatio(ratio);
    m_composed.fill(theme().mapBackground);
    QPainter p(&m_composed);
    p.translate(-m_plot.topLeft());
    const Index n = m_document->tokens();
    const auto draw = [&](const QImage& image, const QRectF& tokens) {
        p.drawImage(toScreen(tokens), image);
    };
    const MapRect& v = m_document->view();
    const bool covered = !m_exact.picture.isNull() && double(m_exact.spec.q0) <= v.q0 &&
                         double(m_exact.spec.q1) >= v.q1 && double(m_exact.spec.k0) <= v.k0 &&
                         double(m_exact.spec.k1) >= v.k1;
    if (!m_coarse.isNull() && !covered) {
        p.save();
        p.setClipPath(belowDiagonal(m_document->view(), m_plot));
        // Sums of pixels depend on the zoom, so that the whole picture would not match them.
        if (!m_whole.isNull() && m_document->style().pool != kernels::Statistic::Sum) {
            draw(m_whole.image, m_whole.rect());
        } else {
            const double block = double(m_coarse.block);
            draw(m_coarse.image,
                 {0, 0, m_coarse.image.width() * block, m_coarse.image.height() * block});
        }
        if (!m_exact.picture.isNull()) {
            // What is above the diagonal in the exact picture is transparent: no coarse block may
            // shine through beside it.
            p.fillRect(toScreen(m_exact.picture.rect()), theme().mapBackground);
        }
        p.restore();
    }
    if (!m_exact.picture.isNull()) draw(m_exact.picture.image, m_exact.picture.rect());
    const auto& masks = m_document->masks();
    for (std::size_t i = 0; i < m_overlays.size() && i < masks.size(); ++i) {
        if (m_overlays[i].isNull() || !masks[i].visible) continue;
        p.setOpacity(masks[i].opacity);
        draw(m_overlays[i].image, m_overlays[i].rect());
    }
    p.setOpacity(1);
    if (m_lostValid && !m_lost.isNull()) {
        // The lost mass is the subject then: the map steps back, or its own warm colours hide it.
        p.fillRect(m_plot, withAlpha(theme().mapBackground, theme().dark ? 0.72 : 0.86));
        draw(m_lost.image, m_lost.rect());
    }
    // A thin edge tells where data ends, on a background that is close to the lowest colour.
    p.setRenderHint(QPainter::Antialiasing);
    p.setPen(QPen(theme().line, 1));
    const QRectF all = toScreen({0, 0, double(n), double(n)});
    p.drawLine(all.topLeft(), all.bottomRight());
    m_composedOld = false;
}

void MapView::paintEvent(QPaintEvent*) {
    QElapsedTimer timer;
    timer.start();
    QPainter p(this);
    p.fillRect(rect(), theme().mapBackground);
    if (!m_document->isOpen()) {
        paintEmpty(p, tr("Nothing is open"),
                   tr("Open a session or capture a prompt to see its attention (Ctrl+O)."));
        return;
    }
    if (!m_head.valid()) {
        paintEmpty(
            p, tr("Layer %1 is not in this capture").arg(m_document->layer()),
            tr("Choose a head of a captured layer in the grid, or capture the other layers."));
        return;
    }
    const bool composed = m_composedOld;
    if (m_composedOld) compose();
    p.drawPixmap(m_plot.topLeft(), m_composed);
    if (m_coarse.isNull() && m_exact.picture.isNull()) {
        p.setPen(theme().muted);
        p.setFont(bodyFont());
        p.drawText(m_plot, Qt::AlignCenter, tr("Reading layer %1 …").arg(m_document->layer()));
    }
    paintRulers(p);
    paintCrossHair(p);
    paintSide(p);
    if (zoomedIn()) paintMinimap(p);
    if (m_drag == Drag::Area && m_moved) {
        p.setPen(QPen(theme().accent, 1));
        p.setBrush(withAlpha(theme().accent, 0.15));
        p.drawRect(QRectF(m_pressed, m_last).normalized());
    }
    if (m_drag == Drag::None) paintReadout(p);
    if (m_keyboardFocus) {
        p.setPen(QPen(withAlpha(theme().accent, 0.8), 2));
        p.setBrush(Qt::NoBrush);
        p.drawRect(QRectF(rect()).adjusted(1, 1, -1, -1));
    }
    if (!uiLogIsOpen()) return;
    const MapRect& v = m_document->view();
    const double took = double(timer.nsecsElapsed()) / 1e6;
    uiLog(QStringLiteral("paint"),
          {{QStringLiteral("what"), QStringLiteral("map")},
           {QStringLiteral("took"), took},
           {QStringLiteral("composed"), composed},
           {QStringLiteral("exactness"),
            m_exact.picture.isNull()
                ? m_coarse.isNull() ? QStringLiteral("none") : QStringLiteral("pyramid")
                : QStringLiteral("exact")},
           {QStringLiteral("overlays"),
            qint64(std::count_if(m_overlays.begin(), m_overlays.end(),
                                 [](const Picture& o) { return !o.isNull(); }))},
           {QStringLiteral("view"), QJsonArray{v.q0, v.q1, v.k0, v.k1}}});
    if (m_drag != Drag::None && m_sincePaint.isValid())
        uiLog(QStringLiteral("frame"),
              {{QStringLiteral("took"), double(m_sincePaint.nsecsElapsed()) / 1e6}});
    m_sincePaint.start();
}

void MapView::paintEmpty(QPainter& p, const QString& title, const QString& help) const {
    p.setPen(theme().text);
    p.setFont(figureFont());
    const QRectF box = QRectF(rect()).adjusted(24, 0, -24, 0);
    p.drawText(box.adjusted(0, 0, 0, -24), Qt::AlignCenter, title);
    p.setPen(theme().muted);
    p.setFont(bodyFont());
    p.drawText(box.adjusted(0, 36, 0, 0), Qt::AlignCenter | Qt::TextWordWrap, help);
}

void MapView::paintRulers(QPainter& p) const {
    paintRuler(p, true);
    paintRuler(p, false);
    // Needle and answer as bands along the edges of the map.
    if (const auto& truth = m_document->capture().truth) {
        const auto band = [&](const TokenSpan& span, const QColor& colour, bool rows) {
            const QRectF t = rows ? toScreen({0, double(span.begin), 1, double(span.size())})
                                  : toScreen({double(span.begin), 0, double(span.size()), 1});
            const double from = rows ? t.top() : t.left(),
                         size = std::max(3.0, rows ? t.height() : t.width());
            const double begin = std::max(from, rows ? m_plot.top() : m_plot.left()),
                         end = std::min(from + size, rows ? m_plot.bottom() : m_plot.right());
            if (end <= begin) return;
            p.fillRect(rows ? QRectF(m_plot.left() - 4, begin, 3, end - begin)
                            : QRectF(begin, m_plot.top() - 4, end - begin, 3),
                       colour);
        };
        for (const bool rows : {true, false}) {
            band(truth->needle, theme().warning, rows);
            band(truth->answer, theme().accent, rows);
        }
    }
}

void MapView::paintRuler(QPainter& p, bool rows) const {
    const MapRect& v = m_document->view();
    const double from = rows ? v.q0 : v.k0, to = rows ? v.q1 : v.k1;
    const double length = rows ? m_plot.height() : m_plot.width();
    const double ppt = length / (to - from);
    const Index n = m_document->tokens();
    p.setFont(smallFont());
    const QFontMetricsF fm(p.font());
    const auto at = [&](double token) {
        return (rows ? m_plot.top() : m_plot.left()) + (token - from) * ppt;
    };
    p.save();
    if (rows)
        p.setClipRect(QRectF(0, m_plot.top() - 8, m_plot.left(), m_plot.height() + 16));
    else
        p.setClipRect(QRectF(m_plot.left() - 8, 0, m_plot.width() + 60, m_plot.top()));
    const Index selected = rows ? m_document->query() : m_document->key();
    const Index hovered = m_hover ? (rows ? m_hover->query : m_hover->key) : -1;
    if (tokenTexts(rows)) {
        for (Index t = Index(std::floor(from)); double(t) < to && t < n; ++t) {
            if (t < 0) continue;
            const double centre = at(double(t) + 0.5);
            if (centre < (rows ? m_plot.top() : m_plot.left()) ||
                centre > (rows ? m_plot.bottom() : m_plot.right()))
                continue;
            const bool marked = t == selected || t == hovered;
            const QString index = thousands(t);
            const double room =
                (rows ? kTextLeft : kTextTop) - 14 - fm.horizontalAdvance(index) - 6;
            const QString text =
                fm.elidedText(visibleToken(m_document->tokenText(t)), Qt::ElideRight, room);
            p.save();
            if (rows) {
                p.translate(m_plot.left() - 8, centre);
            } else {
                p.translate(centre, m_plot.top() - 8);
                p.rotate(90);
            }
            // The text stands next to the map, the number outside of it.
            const double h = fm.height();
            const QRectF box(-200, -h / 2, 200, h);
            p.setPen(t == selected ? theme().accent : theme().text);
            p.drawText(box, Qt::AlignRight | Qt::AlignVCenter, text);
            p.setPen(marked ? theme().text : theme().muted);
            p.drawText(box.adjusted(0, 0, -fm.horizontalAdvance(text) - 6, 0),
                       Qt::AlignRight | Qt::AlignVCenter, index);
            p.restore();
        }
        p.restore();
        return;
    }
    const double step = niceStep((rows ? 44 : fm.horizontalAdvance(thousands(n)) + 26) / ppt);
    const double h = fm.height();
    const auto label = [&](double token, bool chip) {
        const double pos = at(chip ? token + 0.5 : token);
        const QString text = thousands(qint64(std::llround(token)));
        const double w = fm.horizontalAdvance(text);
        QRectF box = rows ? QRectF(m_plot.left() - 9 - w, pos - h / 2, w, h)
                          : QRectF(pos - w / 2, m_plot.top() - 8 - h, w, h);
        if (rows)
            box.moveTop(std::clamp(box.top(), m_plot.top() - 6, m_plot.bottom() - h + 6));
        else
            box.moveLeft(std::clamp(box.left(), m_plot.left() - 4, m_plot.right() - w + 4));
        if (chip) {
            p.setRenderHint(QPainter::Antialiasing);
            p.setPen(Qt::NoPen);
            p.setBrush(theme().accent);
            p.drawRoundedRect(box.adjusted(-4, 0, 4, 0), 3, 3);
            p.setPen(theme().onAccent);
        } else {
            p.setPen(theme().muted);
        }
        p.drawText(box, Qt::AlignCenter, text);
        return box;
    };
    const bool inside = selected >= 0 && double(selected) >= from && double(selected) < to;
    const double clear = rows ? h + 2 : 46;
    for (double t = std::ceil(from / step) * step; t < to; t += step) {
        if (inside && std::abs(at(t) - at(double(selected) + 0.5)) < clear) continue;
        if (rows ? at(t) > m_plot.bottom() - 2 : at(t) > m_plot.right() - 2) continue;
        label(t, false);
        p.setPen(theme().line);
        const double x = std::floor(at(t)) + 0.5;
        if (rows)
            p.drawLine(QPointF(m_plot.left() - 6, x), QPointF(m_plot.left() - 1, x));
        else
            p.drawLine(QPointF(x, m_plot.top() - 6), QPointF(x, m_plot.top() - 1));
    }
    if (inside) label(double(selected), true);
    p.restore();
}

void MapView::paintCrossHair(QPainter& p) const {
    p.save();
    p.setClipRect(m_plot);
    p.setRenderHint(QPainter::Antialiasing, false);
    const Index n = m_document->tokens();
    const auto lines = [&](Index query, Index key, const QColor& colour, Qt::PenStyle style) {
        p.setPen(QPen(colour, 1, style));
        p.setBrush(Qt::NoBrush);
        // From the ruler to the diagonal, and no farther: beyond it is no data.
        if (query >= 0) {
            const QRectF r = toScreen({0, double(query), double(query + 1), 1});
            if (r.height() >= 6) {
                p.drawRect(r);
            } else {
                const double y = std::floor(r.center().y()) + 0.5;
                p.drawLine(QPointF(r.left(), y), QPointF(r.right(), y));
            }
        }
        if (key >= 0) {
            const QRectF r = toScreen({double(key), double(key), 1, double(n - key)});
            if (r.width() >= 6) {
                p.drawRect(r);
            } else {
                const double x = std::floor(r.center().x()) + 0.5;
                p.drawLine(QPointF(x, r.top()), QPointF(x, r.bottom()));
            }
        }
    };
    if (m_hover) lines(m_hover->query, m_hover->key, withAlpha(theme().text, 0.4), Qt::DotLine);
    lines(m_document->query(), m_document->key(), withAlpha(theme().accent, 0.9), Qt::SolidLine);
    if (m_document->query() >= 0 && m_document->key() >= 0) {
        QRectF cell = toScreen({double(m_document->key()), double(m_document->query()), 1, 1});
        if (cell.width() < 9) {
            p.setRenderHint(QPainter::Antialiasing);
            const QPointF c = cell.center();
            cell = {c.x() - 4.5, c.y() - 4.5, 9, 9};
            p.setPen(QPen(theme().accent, 1.5));
            p.drawEllipse(cell);
        } else {
            p.setPen(QPen(theme().accent, 2));
            p.drawRect(cell);
        }
    }
    p.restore();
}

void MapView::paintSide(QPainter& p) const {
    const ColourScale scale =
        m_exact.values ? m_exact.scale : probabilityScale(m_document->style());
    drawColourBar(p, m_bar, scale);
    double y = m_legendTop;
    const double limit = zoomedIn() ? m_minimap.top() - 22 : m_plot.bottom();
    p.setRenderHint(QPainter::Antialiasing);
    p.setFont(smallFont());
    const QFontMetricsF fm(p.font());
    const auto entry = [&](const QColor& colour, double alpha, const QString& name) {
        if (y + 16 > limit) return;
        p.setPen(QPen(colour, 1.2));
        p.setBrush(withAlpha(colour, alpha));
        p.drawRoundedRect(QRectF(m_side.left() + 0.5, y + 2.5, 11, 11), 2, 2);
        p.setPen(theme().text);
        const double room = width() - m_side.left() - 18 - 6;
        p.drawText(QRectF(m_side.left() + 18, y, room, 16), Qt::AlignLeft | Qt::AlignVCenter,
                   fm.elidedText(name, Qt::ElideRight, room));
        y += 20;
    };
    for (const MaskLayer& m : m_document->masks())
        if (m.visible) entry(m.colour, m.opacity, QString::fromStdString(m.spec.id));
    if (m_document->style().showLost && m_document->activeMask() >= 0)
        entry(theme().lost, 0.8, tr("lost mass"));
    paintSelected(p, y + 8, limit);
}

void MapView::paintSelected(QPainter& p, double y, double limit) const {
    const Index query = m_document->query(), key = m_document->key();
    const Row* r = row(query);
    if (cornerCard() || m_hover || query < 0 || key < 0 || !r) return;
    const QFontMetricsF fm(p.font());
    const double height = fm.height() + 3, room = width() - m_side.left() - 6;
    if (y + 3 * height > limit) return;
    const std::pair<QString, QColor> lines[] = {
        {tr("query %1").arg(thousands(query)), theme().muted},
        {tr("key %1").arg(thousands(key)), theme().muted},
        {key > query ? tr("not seen") : tr("p %1").arg(double(r->p[std::size_t(key)]), 0, 'g', 6),
         theme().text}};
    for (const auto& [text, colour] : lines) {
        p.setPen(colour);
        p.drawText(QRectF(m_side.left(), y, room, height), Qt::AlignLeft | Qt::AlignVCenter,
                   fm.elidedText(text, Qt::ElideRight, room));
        y += height;
    }
}

void MapView::paintMinimap(QPainter& p) const {
    if (m_minimap.width() < 40) return;
    p.setRenderHint(QPainter::Antialiasing, false);
    p.fillRect(m_minimap, theme().mapBackground);
    if (!m_coarse.isNull()) {
        const double scale = m_minimap.width() / double(m_document->tokens());
        p.save();
        QPainterPath below;
        below.moveTo(m_minimap.topLeft());
        below.lineTo(m_minimap.bottomRight());
        below.lineTo(m_minimap.bottomLeft());
        p.setClipPath(below);
        p.setRenderHint(QPainter::SmoothPixmapTransform);
        if (!m_wholeSmall.isNull()) {
            p.drawImage(m_minimap, m_wholeSmall);
        } else
            p.drawImage(QRectF(m_minimap.left(), m_minimap.top(),
                               m_coarse.image.width() * double(m_coarse.block) * scale,
                               m_coarse.image.height() * double(m_coarse.block) * scale),
                        m_coarse.image);
        p.restore();
    }
    p.setBrush(Qt::NoBrush);
    p.setPen(theme().line);
    p.drawRect(m_minimap);
    const MapRect& v = m_document->view();
    const double s = m_minimap.width() / double(m_document->tokens());
    QRectF view(m_minimap.left() + v.k0 * s, m_minimap.top() + v.q0 * s, (v.k1 - v.k0) * s,
                (v.q1 - v.q0) * s);
    if (view.width() < 5) view = QRectF(view.center().x() - 2.5, view.center().y() - 2.5, 5, 5);
    p.setPen(QPen(theme().accent, 1.5));
    p.setBrush(withAlpha(theme().accent, 0.12));
    p.drawRect(view.intersected(m_minimap.adjusted(-1, -1, 1, 1)));
    p.setPen(theme().muted);
    p.setFont(smallFont());
    p.drawText(QPointF(m_minimap.left(), m_minimap.top() - 6), tr("minimap"));
}

QStringList MapView::readout(const Cell& cell) const {
    const auto quoted = [this](Index t) {
        return QStringLiteral("“%1”").arg(visibleToken(m_document->tokenText(t)).toHtmlEscaped());
    };
    QStringList lines{QStringLiteral("<b>%1 → %2</b>")
                          .arg(tr("query %1 %2").arg(thousands(cell.query), quoted(cell.query)),
                               tr("key %1 %2").arg(thousands(cell.key), quoted(cell.key)))};
    if (cell.key > cell.query) {
        lines << tr("a later token: this row cannot see it");
        return lines;
    }
    const Row* r = row(cell.query);
    if (!r || std::size_t(cell.key) >= r->p.size()) {
        lines << tr("reading the row …");
    } else {
        const double p = double(r->p[std::size_t(cell.key)]);
        const auto rank =
            1 + std::count_if(r->p.begin(), r->p.end(),
                              [v = r->p[std::size_t(cell.key)]](float o) { return o > v; });
        lines << tr("probability <b>%1</b>&nbsp; ln %2&nbsp; rank %3 of %4")
                     .arg(p, 0, 'g', 6)
                     .arg(p > 0 ? QString::number(std::log(p), 'g', 6) : QStringLiteral("−∞"))
                     .arg(thousands(qint64(rank)), thousands(cell.query + 1));
    }
    const auto stats = m_document->stats(m_document->layer());
    if (stats) {
        const auto column = std::size_t(m_head.head * stats->Nk + cell.key);
        const auto rowAt = std::size_t(m_head.head * stats->Nq + cell.query);
        QStringList facts;
        if (column < stats->colMass.size())
            facts << tr("column mass %1").arg(double(stats->colMass[column]), 0, 'g', 4);
        if (rowAt < stats->entropy.size())
            facts << tr("row entropy %1 nats").arg(double(stats->entropy[rowAt]), 0, 'f', 2);
        lines << QStringLiteral("<span style='color:%1'>%2</span>")
                     .arg(theme().muted.name(), facts.join(QStringLiteral(" · ")));
    }
    kernels::Problem problem;  // visibility alone: the layer's own window is in the policies' clip
    problem.Nq = problem.Nk = m_document->tokens();
    QStringList kept;
    std::vector<kernels::Range> ranges;
    for (int i = 0; i < int(m_document->masks().size()); ++i) {
        const MaskLayer& m = m_document->masks()[std::size_t(i)];
        const auto policy = m_document->policy(i);
        if (!m.visible || !policy) continue;
        kernels::keptRanges(*policy, problem, cell.query, ranges);
        const bool in = std::any_of(ranges.begin(), ranges.end(), [&](const kernels::Range& range) {
            return cell.key >= range.begin && cell.key < range.end;
        });
        kept << QStringLiteral("<span style='color:%1'>■</span> %2: %3")
                    .arg(m.colour.name(), QString::fromStdString(m.spec.id),
                         in ? tr("yes") : tr("no"));
    }
    if (!kept.isEmpty())
        lines << tr("kept by&nbsp; %1").arg(kept.join(QStringLiteral("&nbsp;&nbsp; ")));
    if (const auto metrics = m_document->metrics(m_document->activeMask());
        metrics && std::size_t(cell.query) < metrics->rowRecall.size())
        lines << tr("lost mass of this row: <b style='color:%1'>%2</b>")
                     .arg(theme().lost.name())
                     .arg(std::max(0.0, 1 - double(metrics->rowRecall[std::size_t(cell.query)])), 0,
                          'f', 4);
    return lines;
}

bool MapView::cornerCard() const {
    const QPointF corner = toTokens(m_plot.topRight() + QPointF(-kCardWidth, kCardHeight));
    return corner.x() > corner.y();
}

void MapView::paintReadout(QPainter& p) const {
    std::optional<Cell> cell = m_hover;
    if (!cell && m_document->query() >= 0 && m_document->key() >= 0)
        cell = Cell{m_document->query(), m_document->key()};
    if (!cell) return;
    QTextDocument text;
    text.setDocumentMargin(0);
    text.setDefaultFont(smallFont());
    text.setDefaultStyleSheet(
        QStringLiteral("p { color: %1; margin: 0 0 3px 0; }").arg(theme().text.name()));
    QString html;
    for (const QString& line : readout(*cell))
        html += QStringLiteral("<p>") + line + QStringLiteral("</p>");
    text.setHtml(html);
    text.setTextWidth(std::min(text.idealWidth(), 400.0));
    const QSizeF size(text.idealWidth() + 22, text.size().height() + 16);
    QRectF box(QPointF(), size);
    if (m_hover) {
        // Never over the row or the column under study: beside the cursor's cross, in the quarter
        // with room.
        const double gap = 18;
        const bool right = m_hoverAt.x() + gap + size.width() < width() - 4;
        const bool above = m_hoverAt.y() - gap - size.height() > 4;
        box.moveTopLeft(
            {right ? m_hoverAt.x() + gap : std::max(4.0, m_hoverAt.x() - gap - size.width()),
             above ? m_hoverAt.y() - gap - size.height() : m_hoverAt.y() + gap});
    } else {
        // In the empty corner above the diagonal, when there is one.
        box.moveTopRight(m_plot.topRight() + QPointF(-10, 14));
        if (!cornerCard()) return;
    }
    p.setRenderHint(QPainter::Antialiasing);
    p.setPen(QPen(theme().line, 1));
    p.setBrush(withAlpha(theme().raised, 0.97));
    p.drawRoundedRect(box, 6, 6);
    p.translate(box.topLeft() + QPointF(11, 8));
    text.drawContents(&p);
    p.resetTransform();
}

}  // namespace sparsight::ui
