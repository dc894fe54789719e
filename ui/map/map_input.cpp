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

constexpr double kKeyMargin = 2;   ///< tokens between a pair moved by keys and the edge
constexpr double kClickSlack = 4;  ///< pixels that a click may move
constexpr double kCloseSpan = 24;  ///< tokens in view after a double click on the whole map

}  // namespace

void MapView::zoomAt(const QPointF& screen, double factor) {
    const MapSize n = m_document->mapSize();
    if (n.q < 1 || n.k < 1) return;
    const QPointF at = toTokens(screen);
    m_document->setView(zoomed(m_document->view(), n, factor, at.y(), at.x()));
}

void MapView::panBy(double rows, double columns) {
    m_document->setView(panned(m_document->view(), m_document->mapSize(), rows, columns));
}

void MapView::moveSelection(Index rows, Index columns) {
    const auto moved = [](Index at, Index by, Index n) {
        return at < 0 ? n - 1 : std::clamp<Index>(at + by, 0, n - 1);
    };
    if (m_document->rows() < 1 || m_document->keys() < 1) return;
    if (rows) m_document->selectQuery(moved(m_document->query(), rows, m_document->rows()));
    if (columns) m_document->selectKey(moved(m_document->key(), columns, m_document->keys()));
    // The keyboard's pair stays in sight.
    m_document->setView(revealing(m_document->view(), m_document->mapSize(), m_document->query(),
                                  m_document->key(), kKeyMargin));
}

void MapView::centreOn(const QPointF& at) {
    const MapSize n = m_document->mapSize();
    const MapRect v = m_document->view();
    const double q = (at.y() - m_minimap.top()) / m_minimap.height() * n.q,
                 k = (at.x() - m_minimap.left()) / m_minimap.width() * n.k;
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
        m_document->setView(clamped({centre.y() - span / 2, centre.y() + span / 2,
                                     centre.x() - span / 2, centre.x() + span / 2},
                                    m_document->mapSize()));
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
        m_document->setView(clamped(back, m_document->mapSize()));
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
        case Qt::Key_Space:
            if (!event->isAutoRepeat()) {
                m_bare = true;
                dirty();
            }
            break;
        default:
            QWidget::keyPressEvent(event);
    }
}

void MapView::keyReleaseEvent(QKeyEvent* event) {
    if (event->key() != Qt::Key_Space || event->isAutoRepeat()) {
        QWidget::keyReleaseEvent(event);
        return;
    }
    m_bare = false;
    dirty();
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
