// The map under mouse, wheel and keyboard.
#include <QActionGroup>
#include <QKeyEvent>
#include <QMenu>
#include <QMouseEvent>
#include <QToolButton>
#include <QWheelEvent>
#include <algorithm>
#include <cmath>

#include "ui/map/map_view.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr double kLeastSpan = 8;   ///< tokens in view at the closest
constexpr double kClickSlack = 4;  ///< pixels that a click may move
constexpr double kCloseSpan = 24;  ///< tokens in view after a double click on the whole map

}  // namespace

void MapView::setViewClamped(MapRect v) {
    const double n = double(m_document->tokens());
    const auto clamp = [n](double& from, double& to) {
        const double span = std::clamp(to - from, std::min(kLeastSpan, n), n);
        from = std::clamp((from + to - span) / 2, 0.0, n - span);
        to = from + span;
    };
    clamp(v.q0, v.q1);
    clamp(v.k0, v.k1);
    m_document->setView(v);
}

void MapView::zoomAt(const QPointF& screen, double factor) {
    const double n = double(m_document->tokens());
    if (n < 1) return;
    MapRect v = m_document->view();
    const QPointF at = toTokens(screen);
    const auto scale = [&](double& from, double& to, double anchor) {
        anchor = std::clamp(anchor, from, to);
        const double span = std::clamp((to - from) / factor, std::min(kLeastSpan, n), n),
                     share = (anchor - from) / (to - from);
        from = std::clamp(anchor - share * span, 0.0, n - span);
        to = from + span;
    };
    scale(v.q0, v.q1, at.y());
    scale(v.k0, v.k1, at.x());
    m_document->setView(v);
}

void MapView::panBy(double rows, double columns) {
    MapRect v = m_document->view();
    const double n = double(m_document->tokens());
    const auto shift = [n](double& from, double& to, double by) {
        const double span = to - from;
        from = std::clamp(from + by, 0.0, std::max(0.0, n - span));
        to = from + span;
    };
    shift(v.q0, v.q1, rows);
    shift(v.k0, v.k1, columns);
    m_document->setView(v);
}

void MapView::moveSelection(Index rows, Index columns) {
    const Index n = m_document->tokens();
    if (n < 1) return;
    const auto moved = [n](Index at, Index by) {
        return at < 0 ? n - 1 : std::clamp<Index>(at + by, 0, n - 1);
    };
    if (rows) m_document->selectQuery(moved(m_document->query(), rows));
    if (columns) m_document->selectKey(moved(m_document->key(), columns));
    // The keyboard's pair stays in sight.
    MapRect v = m_document->view();
    const auto reveal = [n](double& from, double& to, Index at) {
        if (at < 0) return;
        const double span = to - from, margin = std::min(2.0, span / 4);
        if (double(at) < from + margin)
            from = double(at) - margin;
        else if (double(at) + 1 > to - margin)
            from = double(at) + 1 + margin - span;
        from = std::clamp(from, 0.0, std::max(0.0, double(n) - span));
        to = from + span;
    };
    reveal(v.q0, v.q1, m_document->query());
    reveal(v.k0, v.k1, m_document->key());
    m_document->setView(v);
}

void MapView::centreOn(const QPointF& at) {
    const double n = double(m_document->tokens());
    const MapRect v = m_document->view();
    const double q = (at.y() - m_minimap.top()) / m_minimap.height() * n,
                 k = (at.x() - m_minimap.left()) / m_minimap.width() * n;
    panBy(q - (v.q0 + v.q1) / 2, k - (v.k0 + v.k1) / 2);
}

void MapView::hover(const QPointF& screen) {
    const auto cell = cellAt(screen);
    m_hoverAt = screen;
    if (cell != m_hover) {
        m_hover = cell;
        if (cell) requestRow(cell->query);
    }
    update();
}

void MapView::mousePressEvent(QMouseEvent* event) {
    if (!m_head.valid()) return;
    m_pressed = m_last = event->position();
    m_moved = false;
    if (event->button() == Qt::MiddleButton) {
        zoomAt(event->position(), 4);
        return;
    }
    if (event->button() != Qt::LeftButton) return;
    if (zoomedIn() && m_minimap.contains(m_pressed)) {
        m_drag = Drag::Minimap;
        centreOn(m_pressed);
    } else if (m_plot.contains(m_pressed)) {
        m_drag = event->modifiers() & Qt::ShiftModifier ? Drag::Area : Drag::Pan;
    }
}

void MapView::mouseMoveEvent(QMouseEvent* event) {
    const QPointF at = event->position();
    if ((at - m_pressed).manhattanLength() > kClickSlack) m_moved = true;
    switch (m_drag) {
        case Drag::Minimap:
            centreOn(at);
            break;
        case Drag::Area:
            m_last = at;
            update();
            return;
        case Drag::Pan: {
            if (!m_moved) return;
            setCursor(Qt::ClosedHandCursor);
            const MapRect& v = m_document->view();
            const QPointF by = m_last - at;
            m_hover.reset();
            panBy(by.y() / m_plot.height() * (v.q1 - v.q0),
                  by.x() / m_plot.width() * (v.k1 - v.k0));
            break;
        }
        case Drag::None:
            hover(at);
            return;
    }
    m_last = at;
}

void MapView::mouseReleaseEvent(QMouseEvent* event) {
    const Drag drag = m_drag;
    m_drag = Drag::None;
    setCursor(Qt::CrossCursor);
    if (event->button() != Qt::LeftButton || !m_head.valid()) return;
    const QPointF at = event->position();
    if (drag == Drag::Area && m_moved) {
        const QPointF a = toTokens(m_pressed), b = toTokens(at);
        // The longer side decides, so that tokens stay square.
        const double span =
            std::max({std::abs(a.x() - b.x()), std::abs(a.y() - b.y()), kLeastSpan});
        const QPointF centre = (a + b) / 2;
        setViewClamped({centre.y() - span / 2, centre.y() + span / 2, centre.x() - span / 2,
                        centre.x() + span / 2});
        return;
    }
    if (m_moved || drag == Drag::Minimap) {
        update();
        return;
    }
    if (const auto cell = cellAt(at)) {
        m_document->selectQuery(cell->query);
        m_document->selectKey(cell->key);
        return;
    }
    // A click on a ruler selects that side alone.
    const QPointF tokens = toTokens(at);
    if (at.x() < m_plot.left() && at.y() >= m_plot.top() && at.y() < m_plot.bottom())
        m_document->selectQuery(Index(tokens.y()));
    else if (at.y() < m_plot.top() && at.x() >= m_plot.left() && at.x() < m_plot.right())
        m_document->selectKey(Index(tokens.x()));
}

void MapView::mouseDoubleClickEvent(QMouseEvent* event) {
    if (!m_head.valid() || !m_plot.contains(event->position())) return;
    if (zoomedIn()) {
        m_return = m_document->view();
        m_document->fitView();
        return;
    }
    if (m_return) {
        const MapRect back = *m_return;
        m_return.reset();
        setViewClamped(back);
        return;
    }
    const MapRect& v = m_document->view();
    zoomAt(event->position(), std::max(2.0, (v.q1 - v.q0) / kCloseSpan));
}

void MapView::leaveEvent(QEvent*) {
    m_hover.reset();
    update();
}

void MapView::wheelEvent(QWheelEvent* event) {
    if (!m_head.valid()) return;
    zoomAt(event->position(), std::pow(1.0018, double(event->angleDelta().y())));
    hover(event->position());
    event->accept();
}

void MapView::keyPressEvent(QKeyEvent* event) {
    if (!m_head.valid()) {
        QWidget::keyPressEvent(event);
        return;
    }
    const Index step = event->modifiers() & Qt::ControlModifier ? 64
                       : event->modifiers() & Qt::ShiftModifier ? 10
                                                                : 1;
    const MapRect& v = m_document->view();
    const double rows = (v.q1 - v.q0) / 10, columns = (v.k1 - v.k0) / 10;
    switch (event->key()) {
        case Qt::Key_Up:
            moveSelection(-step, 0);
            break;
        case Qt::Key_Down:
            moveSelection(step, 0);
            break;
        case Qt::Key_Left:
            moveSelection(0, -step);
            break;
        case Qt::Key_Right:
            moveSelection(0, step);
            break;
        case Qt::Key_W:
            panBy(-rows, 0);
            break;
        case Qt::Key_S:
            panBy(rows, 0);
            break;
        case Qt::Key_A:
            panBy(0, -columns);
            break;
        case Qt::Key_D:
            panBy(0, columns);
            break;
        case Qt::Key_Plus:
        case Qt::Key_Equal:
            zoomAt(m_plot.center(), 2);
            break;
        case Qt::Key_Minus:
            zoomAt(m_plot.center(), 0.5);
            break;
        case Qt::Key_0:
            m_document->fitView();
            break;
        default:
            QWidget::keyPressEvent(event);
    }
}

void MapView::makeStyleMenu() {
    auto* menu = new QMenu(m_styleButton);
    menu->setObjectName(QStringLiteral("mapStyleMenu"));
    const auto choose = [this](auto change) {
        return [this, change] {
            MapStyle s = m_document->style();
            change(s);
            m_document->setStyle(s);
        };
    };
    const auto add = [&](const QString& text, auto isOn, auto change) {
        QAction* a = menu->addAction(text, this, choose(change));
        a->setCheckable(true);
        connect(menu, &QMenu::aboutToShow, a,
                [this, a, isOn] { a->setChecked(isOn(m_document->style())); });
    };
    menu->addSection(tr("A pixel of many pairs shows"));
    for (const auto& [name, pool] : {std::pair(tr("their maximum"), kernels::Statistic::Max),
                                     std::pair(tr("their sum"), kernels::Statistic::Sum),
                                     std::pair(tr("their mean"), kernels::Statistic::Mean)})
        add(
            name, [p = pool](const MapStyle& s) { return s.pool == p; },
            [p = pool](MapStyle& s) { s.pool = p; });
    menu->addSection(tr("Scale"));
    for (const auto& [name, log] :
         {std::pair(tr("logarithmic"), true), std::pair(tr("linear"), false)})
        add(
            name, [l = log](const MapStyle& s) { return s.log == l; },
            [l = log](MapStyle& s) { s.log = l; });
    menu->addSection(tr("Colours"));
    for (const auto& [name, map] :
         {std::pair(tr("magma"), ColourMap::Magma), std::pair(tr("viridis"), ColourMap::Viridis),
          std::pair(tr("cividis"), ColourMap::Cividis), std::pair(tr("grey"), ColourMap::Grey)})
        add(
            name, [m = map](const MapStyle& s) { return s.colours == m; },
            [m = map](MapStyle& s) { s.colours = m; });
    menu->addSeparator();
    add(
        tr("lost mass of the active mask"), [](const MapStyle& s) { return s.showLost; },
        [](MapStyle& s) { s.showLost = !s.showLost; });
    m_styleButton->setMenu(menu);
}

void MapView::refreshStyleButton() {
    const MapStyle& s = m_document->style();
    const QString pools[] = {tr("sum"), tr("mean"), tr("max")};
    m_styleButton->setText(QStringLiteral("%1 · %2 ▾")
                               .arg(s.log ? tr("log") : tr("linear"), pools[std::size_t(s.pool)]));
    m_styleButton->adjustSize();
}

}  // namespace sparsight::ui
