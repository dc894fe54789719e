#pragma once

#include <QWidget>
#include <array>

class QBarSet;
class QChart;
class QChartView;
class QLabel;
class QValueAxis;

namespace sparsight::ui {

class Document;
class Engine;

/// How the rows' exact recall under the active mask is spread: twenty bins from 0 to 1.
class RowRecallChart : public QWidget {
    Q_OBJECT
public:
    RowRecallChart(Document* document, Engine* engine, QWidget* parent = nullptr);

private:
    static constexpr int kBins = 20;
    void draw();

    Document* m_document;
    QChart* m_chart;
    QChartView* m_view;
    QBarSet* m_bars;
    QValueAxis *m_x, *m_y;
    QLabel* m_caption;
    std::array<int, kBins> m_counts{};
};

}  // namespace sparsight::ui
