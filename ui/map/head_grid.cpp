#include "ui/map/head_grid.h"

#include <QAbstractItemView>
#include <QComboBox>
#include <QEvent>
#include <QFocusEvent>
#include <QHBoxLayout>
#include <QHelpEvent>
#include <QKeyEvent>
#include <QLabel>
#include <QMouseEvent>
#include <QPainter>
#include <QScrollArea>
#include <QScrollBar>
#include <QToolTip>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "ui/map/map_paint.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr int kLabel = 26, kHeader = 16, kGap = 2, kGroupGap = 4, kLeast = 15, kMost = 56;
constexpr Index kThumbBlocks = 64;

struct MetricText {
    HeadMetric metric;
    const char *name, *help;
};
constexpr MetricText kMetrics[] = {
    {HeadMetric::Retrieval, "retrieval score",
     "Share of the needle's tokens that the head copies (0 to 1)"},
    {HeadMetric::Sink, "sink mass", "Mean probability on the first four keys (0 to 1)"},
    {HeadMetric::Local, "local mass", "Mean probability within the last 64 keys (0 to 1)"},
    {HeadMetric::Entropy, "entropy", "Mean entropy of a row, nats"},
    {HeadMetric::Distance, "distance", "Mean distance from query to key, tokens"},
    {HeadMetric::Recall, "mask recall", "Exact recall of the active mask, mean over rows (0 to 1)"},
    {HeadMetric::Density, "mask density", "Tiles that the active mask executes (0 to 1)"},
};

QString valueText(double value) {
    if (std::abs(value) >= 100) return thousands(qint64(std::llround(value)));
    return QString::number(value, 'f', std::abs(value) >= 10 ? 1 : 2);
}

}  // namespace

HeadGrid::HeadGrid(Document* document, Engine*, QWidget* parent)
    : QWidget(parent), m_document(document) {
    setObjectName(QStringLiteral("headGrid"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(12, 2, 8, 6);
    column->setSpacing(6);
    auto* choices = new QHBoxLayout;
    choices->setSpacing(6);
    const auto combo = [&](const char* name, const QString& first, const QString& prefix,
                           const QString& accessible, const QString& help) {
        auto* box = new QComboBox(this);
        box->setObjectName(QLatin1String(name));
        box->setAccessibleName(accessible);
        box->setToolTip(help);
        box->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
        box->setMinimumContentsLength(6);
        box->setProperty("compact", true);
        box->addItem(first, int(HeadMetric::None));
        for (const MetricText& m : kMetrics) {
            box->addItem(prefix + tr(m.name), int(m.metric));
            box->setItemData(box->count() - 1, tr(m.help), Qt::ToolTipRole);
        }
        box->view()->setMinimumWidth(150);
        choices->addWidget(box, 1);
        return box;
    };
    m_colour = combo("headColour", tr("maps"), {}, tr("Colour of the heads"),
                     tr("What a cell shows: the head's map, or a metric's colour; default: maps"));
    m_sort = combo("headSort", tr("by layer"), tr("by "), tr("Order of the heads"),
                   tr("Order of the heads, the largest value first; default: by layer"));
    column->addLayout(choices);
    m_area = new QScrollArea(this);
    m_area->setObjectName(QStringLiteral("headGridArea"));
    m_area->setFrameShape(QFrame::NoFrame);
    m_area->setFocusPolicy(Qt::NoFocus);
    m_area->viewport()->installEventFilter(this);
    m_canvas = new HeadCanvas(m_document, m_area);
    m_canvas->setObjectName(QStringLiteral("headCanvas"));
    m_canvas->setAccessibleName(tr("Heads"));
    m_area->setWidget(m_canvas);
    m_area->setWidgetResizable(true);
    column->addWidget(m_area, 1);
    m_range = new QLabel(this);
    m_range->setObjectName(QStringLiteral("headRange"));
    m_range->setProperty("role", "muted");
    m_range->hide();
    column->addWidget(m_range);
    connect(m_colour, &QComboBox::currentIndexChanged, this, [this] {
        m_canvas->setColour(HeadMetric(m_colour->currentData().toInt()));
        refreshRange();
    });
    connect(m_sort, &QComboBox::currentIndexChanged, this,
            [this] { m_canvas->setSort(HeadMetric(m_sort->currentData().toInt())); });
    connect(m_canvas, &HeadCanvas::rangeChanged, this, &HeadGrid::refreshRange);
    connect(m_canvas, &HeadCanvas::selectionMoved, this, [this](const QRect& cell) {
        m_area->ensureVisible(cell.center().x(), cell.center().y(), cell.width(), cell.height());
    });
}

bool HeadGrid::eventFilter(QObject* watched, QEvent* event) {
    if (watched == m_area->viewport() && event->type() == QEvent::Resize)
        m_canvas->setRoom(m_area->maximumViewportSize());
    return QWidget::eventFilter(watched, event);
}

void HeadGrid::refreshRange() {
    const bool metric = m_colour->currentIndex() > 0;
    m_range->setVisible(metric);
    if (!metric) return;
    const auto range = m_canvas->range();
    if (!range) {
        m_range->setText(tr("no %1 known yet").arg(m_colour->currentText()));
        return;
    }
    const auto& table = colourTable(m_document->style().colours);
    m_range->setText(QStringLiteral("<span style='color:%1'>■</span> %2 &nbsp; … &nbsp; "
                                    "<span style='color:%3'>■</span> %4")
                         .arg(QColor(table[40]).name(), valueText(range->first),
                              QColor(table[235]).name(), valueText(range->second)));
}

HeadCanvas::HeadCanvas(Document* document, QWidget* parent)
    : QWidget(parent), m_document(document) {
    setMouseTracking(true);
    setFocusPolicy(Qt::StrongFocus);
    connect(document, &Document::captureChanged, this, [this] {
        m_pictures.clear();
        m_hover = -1;
        reorder();
    });
    connect(document, &Document::statsChanged, this, [this](Index layer) {
        for (Index h = 0; h < m_document->capture().config.heads; ++h) m_pictures.erase({layer, h});
        update();
    });
    connect(document, &Document::styleChanged, this, [this] {
        m_pictures.clear();
        emit rangeChanged();
        update();
    });
    connect(document, &Document::headChanged, this, [this] {
        if (const int at = selected(); at >= 0) emit selectionMoved(cellRect(at));
        update();
    });
    const auto numbers = [this] {
        if (byLayer())
            recolour();
        else
            reorder();
    };
    connect(document, &Document::factsChanged, this, numbers);
    connect(document, &Document::tableChanged, this, numbers);
    reorder();
}

void HeadCanvas::setColour(HeadMetric metric) {
    m_colour = metric;
    recolour();
}

void HeadCanvas::setSort(HeadMetric metric) {
    m_sort = metric;
    reorder();
}

void HeadCanvas::setRoom(const QSize& room) {
    m_room = room;
    const int count = std::max(1, columns());
    const Index group = std::max<Index>(
        1, m_document->capture().config.kvHeads > 0 ? m_document->capture().config.kvGroup() : 1);
    const int groups = byLayer() ? int(count / group) : 0;
    const int byWidth = (room.width() - kLabel - groups * kGroupGap - 4) / count - kGap;
    const int rows = std::max(1, (int(m_order.size()) + count - 1) / count);
    const int byHeight = (room.height() - kHeader - 6) / rows - kGap - 1;
    // All heads at once are worth smaller cells; where they cannot fit anyway, the width decides.
    m_cell = std::clamp(byHeight >= kLeast ? std::min(byWidth, byHeight) : byWidth, kLeast, kMost);
    updateGeometry();
    update();
}

int HeadCanvas::columns() const {
    const int heads = int(m_document->capture().config.heads);
    return heads > 0 ? heads : 8;
}

QSize HeadCanvas::minimumSizeHint() const {
    if (m_order.empty()) return {kLabel + 8 * kLeast, 60};
    const QRect last = cellRect(int(m_order.size()) - 1);
    int right = 0;
    for (int i = 0; i < std::min(columns(), int(m_order.size())); ++i)
        right = std::max(right, cellRect(i).right());
    return {right + 4, last.bottom() + 5};
}

void HeadCanvas::reorder() {
    m_order.clear();
    const auto& c = m_document->capture();
    for (const Index layer : c.layersDone)
        for (Index h = 0; h < c.config.heads; ++h)
            if (byLayer() || there({layer, h})) m_order.push_back({layer, h});
    if (!byLayer())
        std::stable_sort(m_order.begin(), m_order.end(), [this](const Head& a, const Head& b) {
            return value(a, m_sort).value_or(-1) > value(b, m_sort).value_or(-1);
        });
    setRoom(m_room);
    recolour();
}

void HeadCanvas::recolour() {
    m_range.reset();
    if (m_colour != HeadMetric::None)
        for (const Head& h : m_order)
            if (const auto v = value(h, m_colour))
                m_range =
                    m_range ? std::pair(std::min(m_range->first, *v), std::max(m_range->second, *v))
                            : std::pair(*v, *v);
    emit rangeChanged();
    update();
}

std::optional<double> HeadCanvas::value(const Head& head, HeadMetric metric) const {
    if (metric == HeadMetric::Recall || metric == HeadMetric::Density) {
        for (const MaskMetrics& m : m_document->tableMetrics())
            if (m.layer == head.layer && m.head == head.head)
                return metric == HeadMetric::Recall ? m.recall : m.density;
        return std::nullopt;
    }
    const HeadFacts* f = m_document->factsOf(head.layer, head.head);
    if (!f) return std::nullopt;
    switch (metric) {
        case HeadMetric::Retrieval:
            return f->retrieval;
        case HeadMetric::Sink:
            return f->sinkMass;
        case HeadMetric::Local:
            return f->localMass;
        case HeadMetric::Entropy:
            return f->entropy;
        case HeadMetric::Distance:
            return f->distance;
        default:
            return std::nullopt;
    }
}

QRect HeadCanvas::cellRect(int at) const {
    const int count = columns(), row = at / count, column = at % count;
    int x = kLabel + column * (m_cell + kGap);
    if (byLayer() && m_document->capture().config.kvHeads > 0)
        x += int(column / std::max<Index>(1, m_document->capture().config.kvGroup())) * kGroupGap;
    return {x, kHeader + row * (m_cell + kGap + 1), m_cell, m_cell};
}

int HeadCanvas::cellAt(const QPoint& point) const {
    for (int i = 0; i < int(m_order.size()); ++i)
        if (cellRect(i).adjusted(-1, -1, 1, 1).contains(point))
            return there(m_order[std::size_t(i)]) ? i : -1;
    return -1;
}

QString HeadCanvas::layerLabel(Index layer) const {
    const QString name = m_document->layerText(layer);
    const auto dot = name.indexOf(QLatin1Char('.'));
    return dot < 0 ? QStringLiteral("L") + name : name.left(1) + name.mid(dot + 1);
}

bool HeadCanvas::there(const Head& head) const {
    const auto& c = m_document->capture();
    return c.config.stacks.empty() || head.head < layerShape(c, head.layer).heads;
}

int HeadCanvas::selected() const {
    for (int i = 0; i < int(m_order.size()); ++i)
        if (m_order[std::size_t(i)].layer == m_document->layer() &&
            m_order[std::size_t(i)].head == m_document->head())
            return i;
    return -1;
}

void HeadCanvas::paintEvent(QPaintEvent* event) {
    QPainter p(this);
    const Theme& t = theme();
    if (m_order.empty()) {
        p.setPen(t.muted);
        p.drawText(rect(), Qt::AlignCenter | Qt::TextWordWrap, tr("No layer is captured yet."));
        return;
    }
    p.setFont(smallFont());
    p.setPen(t.muted);
    const int count = columns();
    // Numbers that would touch each other are thinned out.
    const int widest =
        QFontMetrics(smallFont()).horizontalAdvance(QStringLiteral("H%1").arg(count - 1));
    const int every = std::max(1, (widest + 3 + m_cell + kGap - 1) / (m_cell + kGap));
    if (byLayer())
        for (int h = 0; h < count; h += every) {
            const QRect cell = cellRect(h);
            p.drawText(QRect(cell.center().x() - 20, 0, 40, kHeader - 2), Qt::AlignCenter,
                       QStringLiteral("H%1").arg(h));
        }
    for (int i = 0; i < int(m_order.size()); i += count) {
        const QRect cell = cellRect(i);
        p.drawText(QRect(0, cell.top(), kLabel - 6, cell.height()),
                   Qt::AlignLeft | Qt::AlignVCenter,
                   byLayer() ? layerLabel(m_order[std::size_t(i)].layer) : QString::number(i + 1));
    }
    const auto& table = colourTable(m_document->style().colours);
    const int chosen = selected();
    for (int i = 0; i < int(m_order.size()); ++i) {
        const QRect cell = cellRect(i);
        if (!event->rect().intersects(cell.adjusted(-3, -3, 3, 3))) continue;
        const Head& h = m_order[std::size_t(i)];
        if (!there(h)) continue;
        p.fillRect(cell, t.mapBackground);
        if (m_colour == HeadMetric::None) {
            QImage& picture = m_pictures[{h.layer, h.head}];
            const auto stats = m_document->stats(h.layer);
            if (picture.isNull() && stats) {
                const ColourScale scale = probabilityScale(m_document->style());
                picture = paintPyramid(*stats, h.head, m_document->style(), kThumbBlocks, 0,
                                       m_document->style().pool == kernels::Statistic::Sum ? nullptr
                                                                                           : &scale)
                              .image;
            }
            if (!picture.isNull()) {
                p.setRenderHint(QPainter::SmoothPixmapTransform, picture.width() > m_cell);
                p.drawImage(cell, picture);
            }
        } else if (const auto v = value(h, m_colour); v && m_range) {
            const double span = m_range->second - m_range->first;
            // Both ends stay off black and white, so that a cell is told from none.
            const double at = span > 0 ? (*v - m_range->first) / span : 0.5;
            p.fillRect(cell, QColor(table[std::size_t(40 + at * 195)]));
        }
        if (i == m_hover && i != chosen) {
            p.setPen(t.muted);
            p.setBrush(Qt::NoBrush);
            p.drawRect(cell.adjusted(-1, -1, 0, 0));
        }
    }
    if (chosen >= 0) {
        p.setRenderHint(QPainter::Antialiasing);
        p.setPen(QPen(t.accent, 2));
        p.setBrush(Qt::NoBrush);
        p.drawRoundedRect(QRectF(cellRect(chosen)).adjusted(-1, -1, 1, 1), 3, 3);
    }
    if (m_keyboardFocus) {
        p.setRenderHint(QPainter::Antialiasing, false);
        p.setPen(QPen(t.accent, 1, Qt::DotLine));
        p.drawRect(rect().adjusted(0, 0, -1, -1));
    }
}

void HeadCanvas::changeEvent(QEvent* event) {
    if (event->type() == QEvent::PaletteChange) update();
    QWidget::changeEvent(event);
}

void HeadCanvas::focusInEvent(QFocusEvent* event) {
    m_keyboardFocus = event->reason() == Qt::TabFocusReason ||
                      event->reason() == Qt::BacktabFocusReason ||
                      event->reason() == Qt::ShortcutFocusReason;
    update();
}

void HeadCanvas::focusOutEvent(QFocusEvent*) {
    m_keyboardFocus = false;
    update();
}

QString HeadCanvas::facts(const Head& h) const {
    QStringList lines{tr("<b>%1</b>").arg(m_document->headText(h.layer, h.head))};
    const auto& config = m_document->capture().config;
    if (config.kvHeads > 0)
        lines[0] += tr(" &nbsp;KV head %1").arg(h.head / std::max<Index>(1, config.kvGroup()));
    const HeadFacts* f = m_document->factsOf(h.layer, h.head);
    if (f) {
        lines[0] += QStringLiteral(" &nbsp;") + QString::fromStdString(f->label);
        lines << tr("retrieval score %1")
                     .arg(f->retrieval ? QString::number(*f->retrieval, 'f', 2)
                                       : tr("– (no needle)"))
              << tr("sink mass %1 · local mass %2")
                     .arg(f->sinkMass, 0, 'f', 3)
                     .arg(f->localMass, 0, 'f', 3)
              << tr("entropy %1 nats · distance %2 tokens")
                     .arg(f->entropy, 0, 'f', 2)
                     .arg(thousands(qint64(std::llround(f->distance))));
    } else {
        lines << tr("its facts are being computed");
    }
    const auto recall = value(h, HeadMetric::Recall), density = value(h, HeadMetric::Density);
    if (recall && density)
        lines << tr("active mask: recall %1 at density %2 %")
                     .arg(*recall, 0, 'f', 3)
                     .arg(100 * *density, 0, 'f', 1);
    return lines.join(QStringLiteral("<br>"));
}

bool HeadCanvas::event(QEvent* event) {
    if (event->type() == QEvent::ToolTip) {
        const auto* help = static_cast<QHelpEvent*>(event);
        const int at = cellAt(help->pos());
        if (at >= 0)
            QToolTip::showText(help->globalPos(), facts(m_order[std::size_t(at)]), this,
                               cellRect(at));
        else
            QToolTip::hideText();
        return true;
    }
    return QWidget::event(event);
}

void HeadCanvas::mousePressEvent(QMouseEvent* event) {
    const int at = cellAt(event->pos());
    if (at >= 0 && event->button() == Qt::LeftButton)
        m_document->selectHead(m_order[std::size_t(at)].layer, m_order[std::size_t(at)].head);
}

void HeadCanvas::mouseMoveEvent(QMouseEvent* event) {
    const int at = cellAt(event->pos());
    if (at == m_hover) return;
    m_hover = at;
    update();
}

void HeadCanvas::leaveEvent(QEvent*) {
    m_hover = -1;
    update();
}

void HeadCanvas::keyPressEvent(QKeyEvent* event) {
    const int count = columns(), size = int(m_order.size());
    int step = 0;
    switch (event->key()) {
        case Qt::Key_Left:
            step = -1;
            break;
        case Qt::Key_Right:
            step = 1;
            break;
        case Qt::Key_Up:
            step = -count;
            break;
        case Qt::Key_Down:
            step = count;
            break;
        default:
            QWidget::keyPressEvent(event);
            return;
    }
    const int from = selected(), to = from < 0 ? 0 : from + step;
    if (to >= 0 && to < size)
        m_document->selectHead(m_order[std::size_t(to)].layer, m_order[std::size_t(to)].head);
}

}  // namespace sparsight::ui
