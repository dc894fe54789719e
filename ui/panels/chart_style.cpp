#include "ui/panels/chart_style.h"

#include <QAction>
#include <QChart>
#include <QChartView>
#include <QClipboard>
#include <QEvent>
#include <QFileDialog>
#include <QGraphicsLayout>
#include <QGuiApplication>
#include <QLegend>
#include <QMessageBox>
#include <QPainter>
#include <QSvgGenerator>
#include <QValueAxis>

#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

/// PNG or SVG by the file's ending.
bool saveChart(QChartView& view, const QString& file) {
    if (!file.endsWith(QLatin1String(".svg"), Qt::CaseInsensitive)) {
        QPixmap pixmap(view.size() * 3);
        pixmap.setDevicePixelRatio(3);
        pixmap.fill(theme().panel);
        QPainter painter(&pixmap);
        view.render(&painter, QRectF(QPointF(0, 0), QSizeF(view.size())), view.rect());
        painter.end();
        return pixmap.save(file);
    }
    QSvgGenerator svg;
    svg.setFileName(file);
    svg.setSize(view.size());
    svg.setViewBox(QRect(QPoint(0, 0), view.size()));
    QPainter painter;
    if (!painter.begin(&svg)) return false;
    view.render(&painter);
    return painter.end();
}

/// Follows the window's theme.
class ChartView : public QChartView {
public:
    using QChartView::QChartView;

protected:
    void changeEvent(QEvent* event) override {
        if (event->type() == QEvent::PaletteChange) styleChart(*chart());
        QChartView::changeEvent(event);
    }
};

}  // namespace

void styleChart(QChart& chart) {
    const Theme& t = theme();
    chart.setBackgroundVisible(false);
    chart.setMargins(QMargins(0, 4, 14, 0));  // half of the outermost labels
    chart.layout()->setContentsMargins(0, 0, 0, 0);
    chart.legend()->setLabelColor(t.text);
    chart.setTitleBrush(t.text);
    const QFont small = smallFont();
    chart.legend()->setFont(small);
    const auto axes = chart.axes();
    for (QAbstractAxis* axis : axes) {
        axis->setLabelsColor(t.muted);
        axis->setLabelsFont(small);
        axis->setTitleFont(small);
        axis->setTitleBrush(t.muted);
        axis->setLinePenColor(t.line);
        axis->setGridLineColor(t.line);
    }
}

QChartView* makeChartView(QChart* chart, QWidget* parent, std::function<QString()> data) {
    auto* view = new ChartView(chart, parent);
    styleChart(*chart);
    view->setFrameShape(QFrame::NoFrame);
    view->setRenderHint(QPainter::Antialiasing);
    view->setBackgroundBrush(Qt::NoBrush);
    view->setFocusPolicy(Qt::TabFocus);
    view->setContextMenuPolicy(Qt::ActionsContextMenu);
    auto* copy = new QAction(QObject::tr("Copy"), view);
    QObject::connect(copy, &QAction::triggered, view,
                     [view] { QGuiApplication::clipboard()->setPixmap(view->grab()); });
    auto* save = new QAction(QObject::tr("Save as…"), view);
    QObject::connect(save, &QAction::triggered, view, [view] {
        const QString file = QFileDialog::getSaveFileName(view, QObject::tr("Save chart"),
                                                          QStringLiteral("chart.svg"),
                                                          QObject::tr("SVG (*.svg);;PNG (*.png)"));
        if (!file.isEmpty() && !saveChart(*view, file))
            QMessageBox::warning(
                view, QObject::tr("Save chart"),
                QObject::tr("Cannot write %1: check the directory and the free space.").arg(file));
    });
    auto* copyData = new QAction(QObject::tr("Copy data"), view);
    QObject::connect(copyData, &QAction::triggered, view,
                     [data = std::move(data)] { QGuiApplication::clipboard()->setText(data()); });
    view->addActions({copy, save, copyData});
    return view;
}

QValueAxis* makeAxis(double least, double most, const char* format, int ticks) {
    auto* axis = new QValueAxis;
    axis->setRange(least, most);
    axis->setLabelFormat(QString::fromUtf8(format));
    axis->setTickCount(ticks);
    return axis;
}

}  // namespace sparsight::ui
