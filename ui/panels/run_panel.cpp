#include "ui/panels/run_panel.h"

#include <QBarCategoryAxis>
#include <QBarSet>
#include <QChart>
#include <QChartView>
#include <QCheckBox>
#include <QComboBox>
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
#include "ui/map/map_paint.h"
#include "ui/panels/chart_style.h"
#include "ui/panels/panel_parts.h"

namespace sparsight::ui {
namespace {

const QColor kDense(0x8a, 0x93, 0xa3);  ///< the yardstick: no method's colour

}  // namespace

RunPanel::RunPanel(Document* document, Engine* engine, QWidget* parent)
    : QWidget(parent), m_document(document), m_engine(engine) {
    setObjectName(QStringLiteral("runPanel"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(12, 0, 12, 8);
    column->setSpacing(4);
    auto* top = new QHBoxLayout;
    top->setSpacing(8);
    m_scope = new QComboBox(this);
    m_scope->setObjectName(QStringLiteral("runScope"));
    m_scope->setAccessibleName(tr("What to run"));
    m_scope->addItems({tr("this head"), tr("this layer"), tr("all layers")});
    m_scope->setCurrentIndex(1);
    m_scope->setToolTip(tr("Which heads are run: dense and masked, in turn"));
    m_exact = new QCheckBox(tr("token-exact"), this);
    m_exact->setObjectName(QStringLiteral("runExact"));
    m_exact->setToolTip(
        tr("Times token-exact masks inside the tiles; off: whole tiles, as production kernels run "
           "them"));
    m_button = new QPushButton(tr("Run kernel"), this);
    m_button->setObjectName(QStringLiteral("runButton"));
    connect(m_button, &QPushButton::clicked, this, [this] {
        if (m_running)
            m_engine->stop(QStringLiteral("run"));
        else
            run();
    });
    top->addWidget(m_scope);
    top->addWidget(m_exact);
    top->addStretch();
    top->addWidget(m_button);
    column->addLayout(top);
    m_summary = new QLabel(this);
    m_summary->setObjectName(QStringLiteral("runSummary"));
    m_summary->setWordWrap(true);
    m_summary->setTextFormat(Qt::RichText);
    column->addWidget(m_summary);

    m_chart = new QChart;
    m_chart->legend()->hide();
    // Bottom to top; a set per bar, so that each has its own colour.
    auto* series = new QHorizontalStackedBarSeries;
    series->setBarWidth(0.55);
    const auto set = [series](const QString& name) {
        auto* bars = new QBarSet(name);
        *bars << 0 << 0 << 0;
        series->append(bars);
        return bars;
    };
    m_time = set(tr("forward"));
    m_select = set(tr("selection"));
    m_promised = set(tr("promised"));
    m_dense = set(tr("dense"));
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
        const KernelRun& r = m_result->run;
        return QStringLiteral("\tms\ndense\t%1\nsparse\t%2\nselection\t%3\npromised\t%4\n")
            .arg(r.denseMs)
            .arg(r.sparseMs)
            .arg(r.selectMs)
            .arg(r.denseMs * r.density);
    });
    m_view->setObjectName(QStringLiteral("runChart"));
    m_view->setAccessibleName(tr("Dense against masked time"));
    m_view->setMinimumHeight(74);
    column->addWidget(m_view);
    m_detail = mutedLabel({}, this);
    m_detail->setObjectName(QStringLiteral("runDetail"));
    m_detail->setWordWrap(true);
    column->addWidget(m_detail);
    column->addStretch();

    for (const auto change : {&Document::masksChanged, &Document::headChanged})
        connect(m_document, change, this, &RunPanel::refresh);
    connect(m_document, &Document::maskSpecChanged, this, &RunPanel::refresh);
    connect(m_document, &Document::captureChanged, this, [this] {
        m_engine->stop(QStringLiteral("run"));
        m_result.reset();
        m_failure.clear();
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
    m_failure.clear();
    refresh();
    const MaskLayer& layer = m_document->masks()[std::size_t(active)];
    auto work = [session = m_document->session(), capture = m_document->sharedCapture(),
                 facts = m_document->headFacts(), spec = layer.spec, choice,
                 exact = m_exact->isChecked(),
                 backend = m_engine->backend(Engine::Long)](const Job& job) {
        return runKernels(*backend, sessions::sessionRunLayers(*session, *capture, facts, choice),
                          spec, 5, exact, job);
    };
    const QString where = choice.head    ? m_document->headText(*choice.layer, *choice.head)
                          : choice.layer ? tr("layer %1").arg(*choice.layer)
                                         : tr("all layers");
    m_engine->run(Engine::Long, QStringLiteral("run"), std::move(work))
        .then(this,
              [this, spec = layer.spec, colour = layer.colour, where](const KernelRun& result) {
                  m_running = false;
                  m_result = Shown{result, spec, where, colour};
                  draw();
                  refresh();
                  emit finished(tr("%1× measured, %2× promised")
                                    .arg(result.speedup, 0, 'f', 1)
                                    .arg(1 / result.density, 0, 'f', 1));
              })
        .onCanceled(this,
                    [this] {
                        m_running = false;
                        refresh();
                    })
        .onFailed(this, [this](const std::exception& e) {
            m_running = false;
            m_failure = QString::fromUtf8(e.what());
            refresh();
        });
}

void RunPanel::draw() {
    const auto& [r, spec, where, colour] = *m_result;
    m_time->replace(0, r.sparseMs);
    m_select->replace(0, r.selectMs);
    m_promised->replace(1, r.denseMs * r.density);
    m_dense->replace(2, r.denseMs);
    const std::pair<QBarSet*, QColor> colours[] = {{m_time, colour},
                                                   {m_select, colour.darker(170)},
                                                   {m_promised, withAlpha(colour, 0.45)},
                                                   {m_dense, kDense}};
    for (const auto& [bars, fill] : colours) {
        bars->setColor(fill);
        bars->setBorderColor(Qt::transparent);
    }
    m_axis->setRange(0, std::max({r.denseMs, r.sparseMs + r.selectMs, 1e-3}));
    m_axis->applyNiceNumbers();
    m_detail->setText(
        tr("%1 on %2 · dense %3 ms · masked %4 + selection %5 ms · output error %6 · %7, "
           "%8, median of %9")
            .arg(QString::fromStdString(spec.id), where)
            .arg(r.denseMs, 0, 'f', 1)
            .arg(r.sparseMs, 0, 'f', 2)
            .arg(r.selectMs, 0, 'f', 2)
            .arg(r.outputError, 0, 'f', 3)
            .arg(QString::fromStdString(r.kernel))
            .arg(m_engine->device() == QLatin1String("cpu") ? tr("%1 threads").arg(r.threads)
                                                            : QString::fromStdString(r.device))
            .arg(r.repeats));
}

void RunPanel::refresh() {
    const int active = m_document->activeMask();
    const bool ready = m_document->isOpen() && active >= 0 && m_document->head() >= 0;
    m_button->setEnabled(ready || m_running);
    m_button->setText(m_running ? tr("Stop") : tr("Run kernel"));
    m_button->setToolTip(
        !ready      ? tr("Open a capture and add a mask layer first")
        : m_running ? tr("Stops the run within half a second")
                    : tr("Runs dense and masked attention in turn, five times, and shows the "
                         "medians  (F5)"));
    m_view->setVisible(m_result.has_value());
    m_detail->setVisible(m_result.has_value());
    const bool stale =
        m_result && (!ready || m_document->masks()[std::size_t(active)].spec != m_result->spec);
    setLook(m_summary, "stale", stale && !m_running);
    setLook(m_summary, "warn", !m_failure.isEmpty());
    if (m_running) {
        m_summary->setText(tr("Running dense and masked in turn …"));
    } else if (!m_failure.isEmpty()) {
        m_summary->setText(m_failure.toHtmlEscaped());
    } else if (m_result) {
        m_summary->setText(tr("<b>%1×</b> measured, %2× promised by density%3")
                               .arg(m_result->run.speedup, 0, 'f', 1)
                               .arg(1 / m_result->run.density, 0, 'f', 1)
                               .arg(stale ? tr(" (before the last change)") : QString()));
    } else {
        m_summary->setText(ready ? tr("See what the active mask really buys on this machine.")
                                 : tr("Open a capture and add a mask layer to time it."));
    }
}

}  // namespace sparsight::ui
