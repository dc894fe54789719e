#include "ui/map/map_view.h"

#include <QEvent>
#include <QFocusEvent>
#include <QJsonArray>
#include <QPainter>
#include <QPainterPath>
#include <QToolButton>
#include <algorithm>
#include <cmath>

#include "ui/engine.h"
#include "ui/shell/banner.h"
#include "ui/shell/theme.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
namespace {

constexpr double kPad = 12, kTop = 26, kLeft = 56, kBottom = 14;
constexpr double kSideLeast = 92, kSideMost = 210;
constexpr double kTextPixels = 15;  ///< least pixels per token for texts
constexpr double kMinimapMost = 164, kBarMost = 300;

/// What the causal mask lets be seen of a rectangle, above the cells' staircase by less than one
/// coarse block. @param past  keys before the first row's own: Nk - Nq
QPainterPath belowDiagonal(const MapRect& v, const QRectF& plot, double past) {
    const auto x = [&](double k) {
        return plot.left() + (k - v.k0) / (v.k1 - v.k0) * plot.width();
    };
    const auto y = [&](double q) {
        return plot.top() + (q - v.q0) / (v.q1 - v.q0) * plot.height();
    };
    const double far = std::max(v.q1, v.k1) + 1;
    QPainterPath path;
    path.moveTo(x(0), y(-past));
    path.lineTo(x(far + past), y(far));
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
    m_notice = new Banner(this, QStringLiteral("mapNotice"));
    m_notice->setCursor(Qt::ArrowCursor);
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
    const double side = std::min(width() - kRulerTextLeft - kSideLeast - 2 * kPad,
                                 height() - kRulerTextTop - kBottom);
    return side / (rows ? v.q1 - v.q0 : v.k1 - v.k0) >= kTextPixels;
}

bool MapView::zoomedIn() const {
    const MapRect& v = m_document->view();
    const MapSize n = m_document->mapSize();
    return v.q1 - v.q0 < n.q * 0.999 || v.k1 - v.k0 < n.k * 0.999;
}

void MapView::layOut() {
    const double left = tokenTexts(true) ? kRulerTextLeft : kLeft,
                 top = tokenTexts(false) ? kRulerTextTop : kTop;
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
    placeNotice();
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
    const Cell c{Index(std::floor(t.y())), Index(std::floor(t.x()))};
    if (c.query < 0 || c.key < 0 || c.query >= m_document->rows() || c.key >= m_document->keys())
        return std::nullopt;
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
    m_keyboardFocus = m_bare = false;
    dirty();
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
    const auto draw = [&](const QImage& image, const QRectF& tokens) {
        p.drawImage(toScreen(tokens), image);
    };
    const MapRect& v = m_document->view();
    const bool covered = !m_exact.picture.isNull() && double(m_exact.spec.q0) <= v.q0 &&
                         double(m_exact.spec.q1) >= v.q1 && double(m_exact.spec.k0) <= v.k0 &&
                         double(m_exact.spec.k1) >= v.k1;
    if (!m_coarse.isNull() && !covered) {
        p.save();
        if (m_document->causal())
            p.setClipPath(belowDiagonal(m_document->view(), m_plot,
                                        double(m_document->keys() - m_document->rows())));
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
    for (std::size_t i = 0; !m_bare && i < m_overlays.size() && i < masks.size(); ++i) {
        if (m_overlays[i].isNull() || !masks[i].visible) continue;
        p.setOpacity(masks[i].opacity);
        draw(m_overlays[i].image, m_overlays[i].rect());
    }
    p.setOpacity(1);
    if (!m_bare && m_lostValid && !m_lost.isNull()) {
        // The lost mass is the subject then: the map steps back, or its own warm colours hide it.
        p.fillRect(m_plot, withAlpha(theme().mapBackground, theme().dark ? 0.72 : 0.86));
        draw(m_lost.image, m_lost.rect());
    }
    // A thin edge tells where data ends, on a background that is close to the lowest colour.
    p.setRenderHint(QPainter::Antialiasing);
    p.setPen(QPen(theme().line, 1));
    const double rows = double(m_document->rows()), keys = double(m_document->keys());
    if (m_document->causal())
        p.drawLine(toScreen({keys - rows, 0, 0, 0}).topLeft(),
                   toScreen({keys, rows, 0, 0}).topLeft());
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
            p,
            tr("Layer %1 is not in this capture").arg(m_document->layerText(m_document->layer())),
            tr("Choose a head of a captured layer in the grid, or capture the other layers."));
        return;
    }
    const bool composed = m_composedOld;
    if (m_composedOld) compose();
    p.drawPixmap(m_plot.topLeft(), m_composed);
    if (m_coarse.isNull() && m_exact.picture.isNull()) {
        p.setPen(theme().muted);
        p.setFont(bodyFont());
        if (!m_failures.contains(Part::Pixels))
            p.drawText(m_plot, Qt::AlignCenter,
                       tr("Reading layer %1 …").arg(m_document->layerText(m_document->layer())));
    }
    paintRulers(p);
    paintDecodeLine(p);
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

}  // namespace sparsight::ui
