#pragma once

#include <QString>
#include <functional>

class QChart;
class QChartView;
class QValueAxis;
class QWidget;

namespace sparsight::ui {

/// Gives a chart the window's colours and type: no box, thin grid, small grey labels. Call again
/// after the theme has changed.
void styleChart(QChart& chart);
/// A view without frame, background or own margins that follows the theme, with "Copy", "Save as…"
/// and "Copy data" in its
/// context menu. @param data  makes the tab-separated data when asked
QChartView* makeChartView(QChart* chart, QWidget* parent, std::function<QString()> data);
QValueAxis* makeAxis(double least, double most, const char* format, int ticks);

}  // namespace sparsight::ui
