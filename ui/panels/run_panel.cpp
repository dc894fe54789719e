#include "ui/panels/run_panel.h"

#include <QBarCategoryAxis>
#include <QBarSet>
#include <QChart>
#include <QChartView>
#include <QCheckBox>
#include <QComboBox>
#include <QEvent>
#include <QHBoxLayout>
#include <QHorizontalStackedBarSeries>
#include <QLabel>
#include <QLegend>
#include <QPushButton>
#include <QVBoxLayout>
#include <QValueAxis>

#include "sessions/analysis.h"
#include "ui/document.h"
#include "ui/engine.h"
#include "ui/panels/chart_style.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {

RunPanel::RunPanel(Document* document, Engine* engine, QWidget* parent)
    : QWidget(parent), m_document(document), m_engine(engine) {
    setObjectName(QStringLiteral("runPanel"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(12, 6, 12, 8);
    column->setSpacing(6);
    auto* top = new QHBoxLayout;
    m_scope = new QComboBox(this);
    m_scope->setObjectName(QStringLiteral("runScope"));
    m_scope->setAccessibleName(tr("What to run"));
    m_scope->addItems({tr("this head"), tr("this layer"), tr("all layers")});
    m_scope->setCurrentIndex(1);
    m_scope->setToolTip(tr("Which heads are run: dense and masked, in turn"));
    m_exact = new QCheckBox(tr("token-exact"), this);
    m_exact->setObjectName(QStringLiteral("runExact"));
    m_exact->setToolTip(tr("Times token-exact masks inside the tiles; off: whole tiles, as production kernels run them"));
    m_button = new QPushButton(tr("Run kernel"), this);
    m_button->setObjectName(QStringLiteral("runButton"));
    connect(m_button, &QPushButton::clicked, this, [this] {
        if (m_running) m_engine->stop(QStringLiteral("run"));
        else run();
    });
    top->addWidget(m_scope);
    top->addWidget(m_exact);
    top->addStretch();
    top->addWidget(m_button);
    column->addLayout(top);
    m_summary = new QLabel(this);
    m_summary->setObjectName(QStringLiteral("runSummary"));
    m_summary->setWordWrap(true);
    column->addWidget(m_summary);

    m_chart = new QChart;
    m_chart->legend()->hide();
    m_time = new QBarSet(tr("forward"));
    m_select = new QBarSet(tr("selection"));
    *m_time << 0 << 0 << 0;
    *m_select << 0 << 0 << 0;
    auto* series = new QHorizontalStackedBarSeries;
    series->setBarWidth(0.55);
    series->append(m_time);
    series->append(m_select);
    m_chart->addSeries(series);
    auto* names = new QBarCategoryAxis;
    names->append({tr("measured"), tr("promised"), tr("dense")});
    names->setGridLineVisible(false);
    names->setTruncateLabels(false);
    m_chart->addAxis(names, Qt::AlignLeft);
    series->attachAxis(names);
    m_axis = makeAxis(0, 1, "%g ms", 3);
    m_chart->addAxis(m_axis, Qt::AlignBottom);
    series->attachAxis(m_axis);
    m_view = makeChartView(m_chart, this, [this] {
        if (!m_result) return QString();
        return QStringLiteral("\tms\ndense\t%1\nsparse\t%2\nselection\t%3\npromised\t%4\n")
            .arg(m_result->denseMs)
            .arg(m_result->sparseMs)
            .arg(m_result->selectMs)
            .arg(m_result->denseMs * m_result->density);
    });
    m_view->setObjectName(QStringLiteral("runChart"));
    m_view->setAccessibleName(tr("Dense against masked time"));
    m_view->setMinimumHeight(92);
    column->addWidget(m_view);
    m_detail = new QLabel(this);
    m_detail->setObjectName(QStringLiteral("runDetail"));
    m_detail->setProperty("role", "muted");
    m_detail->setWordWrap(true);
    column->addWidget(m_detail);
    column->addStretch();

    connect(m_document, &Document::masksChanged, this, &RunPanel::refresh);
    connect(m_document, &Document::maskSpecChanged, this, &RunPanel::refresh);
    connect(m_document, &Document::headChanged, this, &RunPanel::refresh);
    connect(m_document, &Document::captureChanged, this, [this] {
        m_result.reset();
        refresh();
    });
    refresh();
}

void RunPanel::run() {
    const int active = m_document->activeMask();
    if (m_running || !m_document->isOpen() || active < 0 || m_document->head() < 0) return;
    sessions::HeadChoice choice;
    if (m_scope->currentIndex() < 2) choice.layer = m_document->layer();
    if (m_scope->currentIndex() == 0) choice.head = m_document->head();
    m_running = true;
    refresh();
    auto work = [session = m_document->session(), capture = m_document->capture(), facts = m_document->headFacts(),
                 spec = m_document->masks()[std::size_t(active)].spec, choice, exact = m_exact->isChecked(),
                 backend = m_engine->backend(Engine::Long)](const Job& job) {
        return runKernels(*backend, sessions::sessionRunLayers(*session, capture, facts, choice), spec, 5, exact, job);
    };
    m_engine->run(Engine::Long, QStringLiteral("run"), std::move(work))
        .then(this, [this](const KernelRun& result) {
            m_running = false;
            show(result);
            refresh();
        })
        .onCanceled(this, [this] {
            m_running = false;
            refresh();
        })
        .onFailed(this, [this](const std::exception& e) {
            m_running = false;
            refresh();
            m_summary->setText(QString::fromUtf8(e.what()));
        });
}

void RunPanel::show(const KernelRun& r) {
    m_result = r;
    const double promised = r.denseMs * r.density;
    m_time->replace(0, r.sparseMs);
    m_time->replace(1, promised);
    m_time->replace(2, r.denseMs);
    m_select->replace(0, r.selectMs);
    m_axis->setRange(0, std::max({r.denseMs, r.sparseMs + r.selectMs, 1e-3}));
    emit finished(tr("%1× measured, %2× promised").arg(r.speedup, 0, 'f', 1).arg(1 / r.density, 0, 'f', 1));
}

void RunPanel::refresh() {
    const bool ready = m_document->isOpen() && m_document->activeMask() >= 0 && m_document->head() >= 0;
    m_button->setEnabled(ready);
    m_button->setText(m_running ? tr("Stop") : tr("Run kernel"));
    m_button->setToolTip(ready ? tr("Runs dense and masked attention in turn, five times, and shows the medians")
                               : tr("Open a capture and add a mask layer first"));
    m_view->setVisible(m_result.has_value());
    m_detail->setVisible(m_result.has_value());
    if (m_running) {
        m_summary->setText(tr("Running dense and masked in turn …"));
    } else if (m_result) {
        const KernelRun& r = *m_result;
        m_summary->setText(tr("<b>%1×</b> measured, %2× promised by density").arg(r.speedup, 0, 'f', 1).arg(1 / r.density, 0, 'f', 1));
        m_detail->setText(tr("dense %1 ms · masked %2 ms + selection %3 ms · output error %4 · %5, %6 threads, median of %7")
                              .arg(r.denseMs, 0, 'f', 1)
                              .arg(r.sparseMs, 0, 'f', 2)
                              .arg(r.selectMs, 0, 'f', 2)
                              .arg(r.outputError, 0, 'f', 3)
                              .arg(QString::fromStdString(r.kernel))
                              .arg(r.threads)
                              .arg(r.repeats));
        const int active = m_document->activeMask();
        const QColor colour = active >= 0 ? m_document->masks()[std::size_t(active)].colour : theme().accent;
        m_time->setColor(colour);
        m_time->setBorderColor(colour);
        m_select->setColor(colour.darker(170));
        m_select->setBorderColor(colour.darker(170));
    } else {
        m_summary->setText(ready ? tr("See what the active mask really buys on this machine.")
                                 : tr("Open a capture and add a mask layer to time it."));
    }
    m_summary->setTextFormat(Qt::RichText);
    styleChart(*m_chart);
}

void RunPanel::changeEvent(QEvent* event) {
    if (event->type() == QEvent::PaletteChange) styleChart(*m_chart);
    QWidget::changeEvent(event);
}

}  // namespace sparsight::ui
