#include "ui/panels/row_recall_chart.h"

#include <QBarCategoryAxis>
#include <QBarSeries>
#include <QBarSet>
#include <QChart>
#include <QChartView>
#include <QLabel>
#include <QLegend>
#include <QVBoxLayout>
#include <QValueAxis>
#include <algorithm>

#include "ui/document.h"
#include "ui/panels/chart_style.h"
#include "ui/panels/panel_parts.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {

RowRecallChart::RowRecallChart(Document* document, Engine*, QWidget* parent)
    : QWidget(parent), m_document(document) {
    setObjectName(QStringLiteral("rowRecallChart"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(8, 0, 12, 6);
    column->setSpacing(0);
    m_chart = new QChart;
    m_chart->legend()->hide();
    m_bars = new QBarSet(tr("rows"));
    for (int i = 0; i < kBins; ++i) m_bars->append(0);
    auto* series = new QBarSeries;
    series->setBarWidth(0.86);
    series->append(m_bars);
    m_chart->addSeries(series);
    // Bars sit at category centres 0..19; the value axis below shows the bins' edges as 0..1.
    auto* categories = new QBarCategoryAxis;
    for (int i = 0; i < kBins; ++i) categories->append(QString::number(i));
    categories->setVisible(false);
    m_chart->addAxis(categories, Qt::AlignBottom);
    series->attachAxis(categories);
    m_x = makeAxis(0, 1, "%.1f", 6);
    m_x->setGridLineVisible(false);
    m_chart->addAxis(m_x, Qt::AlignBottom);
    m_y = makeAxis(0, 1, "%.0f", 3);
    m_chart->addAxis(m_y, Qt::AlignLeft);
    series->attachAxis(m_y);
    m_view = makeChartView(m_chart, this, [this] {
        QString text = QStringLiteral("recall from\trecall to\trows\n");
        for (int i = 0; i < kBins; ++i)
            text += QStringLiteral("%1\t%2\t%3\n")
                        .arg(i / double(kBins))
                        .arg((i + 1) / double(kBins))
                        .arg(m_counts[std::size_t(i)]);
        return text;
    });
    m_view->setObjectName(QStringLiteral("rowRecallChart"));
    m_view->setAccessibleName(tr("Row recall histogram"));
    m_view->setToolTip(tr("Number of rows by their exact recall under the active mask"));
    m_view->setMinimumHeight(90);
    m_caption = mutedLabel({}, this);
    m_caption->setWordWrap(true);
    m_caption->setIndent(4);
    column->addWidget(m_view, 1);
    column->addWidget(m_caption);
    connect(m_document, &Document::metricsChanged, this, &RowRecallChart::draw);
    connect(m_document, &Document::masksChanged, this, &RowRecallChart::draw);
    connect(m_document, &Document::headChanged, this, &RowRecallChart::draw);
    connect(m_document, &Document::captureChanged, this, &RowRecallChart::draw);
    draw();
}

void RowRecallChart::draw() {
    const int active = m_document->activeMask();
    const auto metrics = active >= 0 ? m_document->metrics(active) : nullptr;
    m_counts.fill(0);
    if (metrics)
        for (const float r : metrics->rowRecall)
            ++m_counts[std::size_t(std::clamp(int(r * float(kBins)), 0, kBins - 1))];
    int most = 1;
    for (int i = 0; i < kBins; ++i) {
        m_bars->replace(i, m_counts[std::size_t(i)]);
        most = std::max(most, m_counts[std::size_t(i)]);
    }
    m_y->setRange(0, most);
    m_view->setVisible(metrics != nullptr);
    if (metrics) {
        const QColor colour = m_document->masks()[std::size_t(active)].colour;
        m_bars->setColor(colour);
        m_bars->setBorderColor(colour);
        int half = 0;
        for (const float r : metrics->rowRecall) half += r < 0.5f;
        m_caption->setText(tr("%1 of %2 rows lose more than half")
                               .arg(thousands(half), thousands(qint64(metrics->rowRecall.size()))));
    } else {
        m_caption->setText(active >= 0 ? tr("Computing …")
                                       : tr("Add a mask layer to see which rows lose mass."));
        if (const QString failure = m_document->maskFailure(active); !failure.isEmpty())
            m_caption->setText(failure);
    }
}

}  // namespace sparsight::ui
