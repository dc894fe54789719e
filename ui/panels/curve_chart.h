#pragma once

#include <QHash>
#include <QWidget>
#include <vector>

#include "core/metrics/mask_metrics.h"

class QChart;
class QChartView;
class QLabel;
class QValueAxis;

namespace sparsight::ui {

class Document;
class Engine;

/// Exact recall against density on the selected head, a line per method of the mask layers, and a ring
/// where each layer stands now.
class CurveChart : public QWidget {
    Q_OBJECT
public:
    CurveChart(Document* document, Engine* engine, QWidget* parent = nullptr);

protected:
    void changeEvent(QEvent* event) override;

private:
    void restart();  ///< another head or other methods: compute the curves
    void draw();
    QString data() const;

    Document* m_document;
    Engine* m_engine;
    QChart* m_chart;
    QChartView* m_view;
    QLabel* m_empty;
    QValueAxis *m_x, *m_y;
    QString m_key;      ///< what the curves were computed for
    QString m_failure;  ///< why there are none; "" = nothing failed
    std::vector<std::pair<MethodSpec, std::vector<CurvePoint>>> m_curves;
};

}  // namespace sparsight::ui
