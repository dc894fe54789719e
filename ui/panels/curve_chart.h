#pragma once

#include <QHash>
#include <QWidget>
#include <vector>

#include "core/metrics/mask_estimate.h"
#include "core/metrics/mask_metrics.h"

class QChart;
class QChartView;
class QLabel;
class QValueAxis;

namespace sparsight::ui {

class Document;
class Engine;

/// Exact recall against density on the selected head, a line per method of the mask layers, and a
/// ring where each layer stands now. Dashed: what the heaviest blocks of each head keep, mean over
/// all heads, which no block method passes on the whole model.
class CurveChart : public QWidget {
    Q_OBJECT
public:
    CurveChart(Document* document, Engine* engine, QWidget* parent = nullptr);

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
    QString m_key;          ///< what the curves were computed for
    bool m_sweeps = false;  ///< some layer's method has a budget to vary
    QString m_failure;      ///< why there are none; "" = nothing failed
    std::vector<std::pair<MethodSpec, std::vector<CurvePoint>>> m_curves;
    BlockCurve m_bound;
};

}  // namespace sparsight::ui
