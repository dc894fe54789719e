#include "ui/panels/curve_chart.h"

#include <QChart>
#include <QChartView>
#include <QLabel>
#include <QLegend>
#include <QLineSeries>
#include <QScatterSeries>
#include <QVBoxLayout>
#include <QValueAxis>
#include <algorithm>
#include <cmath>
#include <set>

#include "sessions/analysis.h"
#include "ui/document.h"
#include "ui/engine.h"
#include "ui/panels/chart_style.h"
#include "ui/panels/panel_parts.h"

namespace sparsight::ui {
namespace {

BlockCurve boundOf(const sessions::Session& session, const sessions::CaptureInfo& capture,
                   int threads) {
    std::vector<sessions::CapturedLayer> read;
    std::vector<BlockMasses> layers;
    for (const Index layer : capture.layersDone) {
        read.push_back(sessions::readLayer(session, capture, layer));
        layers.push_back({read.back().layer->problem, read.back().stats.get()});
    }
    std::vector<double> densities;
    for (int i = 1; i <= 50; ++i) densities.push_back(0.02 * i);
    return blockCurve(layers, densities, threads);
}

}  // namespace

CurveChart::CurveChart(Document* document, Engine* engine, QWidget* parent)
    : QWidget(parent), m_document(document), m_engine(engine) {
    setObjectName(QStringLiteral("curveChart"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(6, 2, 6, 4);
    m_chart = new QChart;
    m_chart->legend()->hide();
    m_x = makeAxis(0, 60, "%g %%", 4);
    m_y = makeAxis(0, 1, "%.2f", 5);
    m_x->setTitleText(tr("density"));
    m_y->setTitleText(tr("recall"));
    m_chart->addAxis(m_x, Qt::AlignBottom);
    m_chart->addAxis(m_y, Qt::AlignLeft);
    m_view = makeChartView(m_chart, this, [this] { return data(); });
    m_view->setObjectName(QStringLiteral("curveChart"));
    m_view->setAccessibleName(tr("Recall against density"));
    m_view->setToolTip(
        tr("Exact recall (mean over rows) against density of each mask layer's method on this "
           "head; the ring is the layer as it is set. Dashed: the heaviest blocks of each head, "
           "mean over all heads"));
    m_view->setMinimumHeight(120);
    m_empty = mutedLabel({}, this);
    m_empty->setObjectName(QStringLiteral("curveEmpty"));
    m_empty->setAlignment(Qt::AlignCenter);
    m_empty->setWordWrap(true);
    column->addWidget(m_view);
    column->addWidget(m_empty);

    for (const auto change : {&Document::headChanged, &Document::masksChanged,
                              &Document::captureChanged, &Document::factsChanged})
        connect(m_document, change, this, &CurveChart::restart);
    connect(m_document, &Document::maskSpecChanged, this, &CurveChart::restart);
    connect(m_document, &Document::metricsChanged, this, &CurveChart::draw);
    restart();
}

void CurveChart::restart() {
    const Index layer = m_document->layer(), head = m_document->head();
    std::vector<MethodSpec> specs;
    QString key = m_document->isOpen() ? QString::fromStdString(m_document->capture().uuid) +
                                             QStringLiteral(" %1.%2").arg(layer).arg(head)
                                       : QString();
    for (const MaskLayer& m : m_document->masks()) {
        const Method& method_ = method(m.spec.id);
        if (method_.budgetParam.empty()) continue;
        // The swept parameter does not matter for the curve: leave it out of what makes it stale.
        MethodSpec spec = m.spec;
        spec.params.numbers.erase(std::string(method_.budgetParam));
        if (std::find(specs.begin(), specs.end(), spec) != specs.end()) continue;
        key += u' ' + QString::fromStdString(toString(spec));
        specs.push_back(std::move(spec));
    }
    // Retrieval scores come with the facts: curves that failed without them are drawn then.
    if (m_document->headFacts().empty()) key += QStringLiteral(" no facts");
    m_sweeps = !specs.empty();
    if (key == m_key) {
        draw();
        return;
    }
    m_key = key;
    m_curves.clear();
    m_bound = {};
    m_failure.clear();
    draw();
    if (!m_document->isOpen() || layer < 0 || head < 0 || specs.empty()) {
        m_engine->stop(QStringLiteral("curve"));
        return;
    }
    struct Drawn {
        std::vector<std::pair<MethodSpec, std::vector<CurvePoint>>> curves;
        BlockCurve bound;
    };
    auto work = [session = m_document->session(), capture = m_document->sharedCapture(),
                 facts = m_document->headFacts(), specs, layer, head,
                 backend = m_engine->backend(Engine::Long)](const Job& job) {
        Drawn drawn;
        auto& curves = drawn.curves;
        const auto data = sessions::readLayer(*session, *capture, layer);
        const HeadInput input = sessions::sessionHeadInput(data, facts, head, *backend);
        for (std::size_t i = 0; i < specs.size(); ++i) {
            const Job part =
                job.part(double(i) / double(specs.size()), double(i + 1) / double(specs.size()));
            try {
                curves.emplace_back(specs[i], recallCurve(*backend, input, headV(*data.layer, head),
                                                          specs[i], 10, part));
            } catch (const Error&) {
                // One method that cannot run here must not hide the others; its layer says why.
                if (curves.empty() && i + 1 == specs.size()) throw;
            }
        }
        drawn.bound = boundOf(*session, *capture, backend->threads());
        return drawn;
    };
    m_engine->run(Engine::Long, QStringLiteral("curve"), std::move(work))
        .then(this,
              [this, key](Drawn drawn) {
                  if (key != m_key) return;
                  m_curves = std::move(drawn.curves);
                  m_bound = std::move(drawn.bound);
                  draw();
              })
        .onFailed(this, [this, key](const std::exception& e) {
            if (key != m_key) return;
            m_failure = QString::fromUtf8(e.what());
            draw();
        });
}

void CurveChart::draw() {
    m_chart->removeAllSeries();
    double most = 0.05, least = 1;
    const auto colourOf = [this](const std::string& id) {
        for (const MaskLayer& m : m_document->masks())
            if (m.spec.id == id) return m.colour;
        return QColor(Qt::gray);
    };
    for (const auto& [spec, points] : m_curves) {
        auto* line = new QLineSeries;
        line->setName(QString::fromStdString(spec.id));
        QPen pen(colourOf(spec.id));
        pen.setWidthF(2);
        line->setPen(pen);
        line->setPointsVisible(true);
        line->setMarkerSize(2.5);  // drawn as a radius
        for (const CurvePoint& p : points) {
            line->append(100 * p.density, p.recall);
            most = std::max(most, p.density);
            least = std::min(least, p.recall);
        }
        m_chart->addSeries(line);
        line->attachAxis(m_x);
        line->attachAxis(m_y);
    }
    if (!m_curves.empty() && !m_bound.recall.empty()) {
        auto* line = new QLineSeries;
        line->setName(tr("best blocks, all heads"));
        QPen pen(palette().color(QPalette::PlaceholderText));
        pen.setStyle(Qt::DashLine);
        line->setPen(pen);
        // As far as the curves reach.
        for (std::size_t i = 0; i < m_bound.density.size() && m_bound.density[i] <= most + 0.05;
             ++i)
            line->append(100 * m_bound.density[i], m_bound.recall[i]);
        m_chart->addSeries(line);
        line->attachAxis(m_x);
        line->attachAxis(m_y);
    }
    for (int i = 0; i < int(m_document->masks().size()); ++i) {
        const auto metrics = m_document->metrics(i);
        if (!metrics || m_curves.empty()) continue;
        auto* ring = new QScatterSeries;
        ring->setMarkerSize(11);
        ring->setColor(Qt::transparent);
        QPen pen(m_document->masks()[std::size_t(i)].colour);
        pen.setWidthF(i == m_document->activeMask() ? 2.5 : 1.2);
        ring->setPen(pen);
        ring->append(100 * metrics->density, metrics->recall);
        most = std::max(most, std::min(1.0, metrics->density));
        least = std::min(least, metrics->recall);
        m_chart->addSeries(ring);
        ring->attachAxis(m_x);
        ring->attachAxis(m_y);
    }
    // Ticks at round numbers: every 10 % up to half, every 20 % beyond.
    const int step = most <= 0.5 ? 10 : 20;
    const int steps = std::max(1, int(std::ceil(100 * most / step)));
    m_x->setRange(0, std::min(100, steps * step));
    m_x->setTickCount(steps + 1);
    m_y->setRange(std::clamp(std::floor(least * 10) / 10, 0.0, 0.9), 1.0);
    const bool any = !m_curves.empty();
    m_view->setVisible(any);
    m_empty->setVisible(!any);
    m_empty->setText(!m_document->isOpen() ? tr("No capture is open.")
                     : m_document->masks().empty()
                         ? tr("Add mask layers to compare their recall at every density.")
                     : !m_failure.isEmpty() ? m_failure
                     : m_sweeps
                         ? tr("Computing recall at several budgets …")
                         : tr("None of these masks has a budget to vary: add another layer."));
}

QString CurveChart::data() const {
    QString text = QStringLiteral("method\tdensity\tcoverage\trecall\tspec\n");
    for (const auto& [spec, points] : m_curves)
        for (const CurvePoint& p : points)
            text += QStringLiteral("%1\t%2\t%3\t%4\t%5\n")
                        .arg(QString::fromStdString(spec.id))
                        .arg(p.density, 0, 'g', 9)
                        .arg(p.coverage, 0, 'g', 9)
                        .arg(p.recall, 0, 'g', 9)
                        .arg(QString::fromStdString(toString(p.spec)));
    for (std::size_t i = 0; i < m_bound.density.size(); ++i)
        text += QStringLiteral("best blocks, all heads\t%1\t\t%2\t\n")
                    .arg(m_bound.density[i], 0, 'g', 9)
                    .arg(m_bound.recall[i], 0, 'g', 9);
    return text;
}

}  // namespace sparsight::ui
