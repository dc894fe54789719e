#include "ui/panels/plan_panel.h"

#include <QComboBox>
#include <QDoubleSpinBox>
#include <QFileDialog>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QMessageBox>
#include <QPainter>
#include <QPushButton>
#include <QStyledItemDelegate>
#include <QTableView>
#include <QVBoxLayout>
#include <map>

#include "core/export/plan_export.h"
#include "sessions/analysis.h"
#include "ui/document.h"
#include "ui/engine.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr int kOneLine = 22, kTwoLines = 34;  ///< heights of the grid's rows
const QString kLongestName = QStringLiteral("retrieval-heads");

enum Rule { ActiveMask, RetrievalHeads, LeastDensity, BestRecall };

QColor colourOf(const std::string& id) {
    const Method& m = method(id);
    return QColor(QString::fromUtf8(m.colour.data(), qsizetype(m.colour.size())));
}

QString verdictOf(const EvalResult& r) {
    const auto answer = [](const std::optional<bool>& b) {
        return !b   ? QObject::tr("no needle")
               : *b ? QObject::tr("answers the needle")
                    : QObject::tr("loses the needle");
    };
    return QObject::tr(
               "Dense %1, the plan <b>%2</b>. Mean negative log-likelihood %3 → %4 nats, mean KL "
               "%5 nats, same top "
               "token on %6 % of rows, density %7 %, %8 s → %9 s.")
        .arg(answer(r.needleDense), answer(r.needlePlan))
        .arg(r.nllDense, 0, 'f', 3)
        .arg(r.nllPlan, 0, 'f', 3)
        .arg(r.meanKL, 0, 'f', 4)
        .arg(100 * r.top1Agreement, 0, 'f', 1)
        .arg(100 * r.density, 0, 'f', 1)
        .arg(r.secondsDense, 0, 'f', 1)
        .arg(r.secondsPlan, 0, 'f', 1);
}

/// The stylesheet's cells leave a model's background out.
class TintedCells : public QStyledItemDelegate {
public:
    using QStyledItemDelegate::QStyledItemDelegate;
    void paint(QPainter* painter, const QStyleOptionViewItem& option,
               const QModelIndex& index) const override {
        if (const QVariant tint = index.data(Qt::BackgroundRole); tint.isValid())
            painter->fillRect(option.rect.adjusted(1, 1, -1, -1), tint.value<QColor>());
        QStyledItemDelegate::paint(painter, option, index);
    }
};

}  // namespace

void PlanGrid::setPlan(const std::optional<AttentionPlan>& plan) {
    beginResetModel();
    m_plan = plan;
    endResetModel();
}

QVariant PlanGrid::data(const QModelIndex& index, int role) const {
    if (!m_plan || !index.isValid()) return {};
    const MethodSpec spec = m_plan->at(index.row(), index.column(), Phase::Prefill, 0);
    if (role == Qt::DisplayRole) return QString::fromStdString(spec.id);
    if (role == Qt::ToolTipRole)
        return QStringLiteral("L%1 H%2\nprefill: %3\ndecode: %4")
            .arg(index.row())
            .arg(index.column())
            .arg(QString::fromStdString(toString(spec)),
                 QString::fromStdString(
                     toString(m_plan->at(index.row(), index.column(), Phase::Decode, 0))));
    if (role == Qt::BackgroundRole && spec.id != "dense") {
        QColor colour = colourOf(spec.id);
        colour.setAlpha(70);
        return colour;
    }
    if (role == Qt::TextAlignmentRole) return int(Qt::AlignCenter);
    return {};
}

QVariant PlanGrid::headerData(int section, Qt::Orientation orientation, int role) const {
    if (role != Qt::DisplayRole) return {};
    return QStringLiteral("%1%2")
        .arg(QLatin1Char(orientation == Qt::Horizontal ? 'H' : 'L'))
        .arg(section);
}

PlanPanel::PlanPanel(Document* document, Engine* engine, QWidget* parent)
    : QWidget(parent), m_document(document), m_engine(engine) {
    setObjectName(QStringLiteral("planPanel"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(12, 2, 12, 8);
    column->setSpacing(8);
    auto* top = new QHBoxLayout;
    m_rule = new QComboBox(this);
    m_rule->setObjectName(QStringLiteral("planRule"));
    m_rule->setAccessibleName(tr("Rule of the plan"));
    m_rule->addItems({tr("active mask on every head"),
                      tr("retrieval heads dense, others a-shape 4 + 256"),
                      tr("least density that reaches recall"), tr("best recall at density")});
    m_rule->setToolTip(
        tr("How each head gets its method; the last two measure every candidate on every head"));
    m_target = new QDoubleSpinBox(this);
    m_target->setObjectName(QStringLiteral("planTarget"));
    m_target->setAccessibleName(tr("Target"));
    m_target->setDecimals(3);
    m_target->setSingleStep(0.01);
    m_target->setRange(0.001, 1);
    m_target->setValue(0.95);
    m_make = new QPushButton(tr("Make plan"), this);
    m_make->setObjectName(QStringLiteral("planMake"));
    top->addWidget(m_rule, 1);
    top->addWidget(m_target);
    top->addWidget(m_make);
    column->addLayout(top);
    m_summary = new QLabel(this);
    m_summary->setObjectName(QStringLiteral("planSummary"));
    m_summary->setWordWrap(true);
    column->addWidget(m_summary);
    m_model = new PlanGrid(this);
    m_grid = new QTableView(this);
    m_grid->setObjectName(QStringLiteral("planGrid"));
    m_grid->setAccessibleName(tr("Method of every head"));
    m_grid->setModel(m_model);
    m_grid->setFrameShape(QFrame::NoFrame);
    m_grid->setSelectionMode(QAbstractItemView::SingleSelection);
    m_grid->horizontalHeader()->setMinimumSectionSize(62);
    m_grid->horizontalHeader()->setSectionResizeMode(QHeaderView::Stretch);
    m_grid->horizontalHeader()->setHighlightSections(false);
    m_grid->verticalHeader()->setHighlightSections(false);
    m_grid->setShowGrid(false);
    m_grid->setTabKeyNavigation(false);
    m_grid->setItemDelegate(new TintedCells(m_grid));
    // Where a name does not fit beside the others it breaks at its hyphen.
    connect(m_grid->horizontalHeader(), &QHeaderView::sectionResized, this,
            [this](int, int, int width) {
                const bool narrow = width < fontMetrics().horizontalAdvance(kLongestName);
                m_grid->verticalHeader()->setDefaultSectionSize(narrow ? kTwoLines : kOneLine);
            });
    column->addWidget(m_grid, 1);
    auto* bottom = new QHBoxLayout;
    m_judge = new QPushButton(tr("Judge by the model"), this);
    m_judge->setObjectName(QStringLiteral("planJudge"));
    m_import = new QPushButton(tr("Import…"), this);
    m_import->setObjectName(QStringLiteral("planImport"));
    m_import->setToolTip(
        tr("Reads a Sparsight plan, a MInference JSON, a DuoAttention table or a CSV"));
    m_export = new QPushButton(tr("Export…"), this);
    m_export->setObjectName(QStringLiteral("planExport"));
    bottom->addWidget(m_judge);
    bottom->addStretch();
    bottom->addWidget(m_import);
    bottom->addWidget(m_export);
    column->addLayout(bottom);
    m_verdict = new QLabel(this);
    m_verdict->setObjectName(QStringLiteral("planVerdict"));
    m_verdict->setWordWrap(true);
    m_verdict->setTextFormat(Qt::RichText);
    column->addWidget(m_verdict);

    connect(m_make, &QPushButton::clicked, this, [this] {
        if (m_busy)
            for (const char* tag : {"plan", "judge"}) m_engine->stop(QLatin1String(tag));
        else
            make();
    });
    connect(m_judge, &QPushButton::clicked, this, &PlanPanel::judge);
    connect(m_export, &QPushButton::clicked, this, &PlanPanel::exportPlanAs);
    connect(m_import, &QPushButton::clicked, this, &PlanPanel::importPlanFrom);
    connect(m_rule, &QComboBox::currentIndexChanged, this, [this](int rule) {
        if (rule == LeastDensity) m_target->setValue(0.95);
        if (rule == BestRecall) m_target->setValue(0.1);
        refresh();
    });
    connect(m_grid, &QTableView::clicked, this,
            [this](const QModelIndex& at) { m_document->selectHead(at.row(), at.column()); });
    connect(m_document, &Document::captureChanged, this, &PlanPanel::captureChanged);
    connect(m_document, &Document::masksChanged, this, &PlanPanel::refresh);
    refresh();
}

void PlanPanel::fail(const QString& sentence) {
    m_busy = false;
    refresh();
    m_summary->setText(sentence);
}

void PlanPanel::captureChanged() {
    for (const char* tag : {"plan", "judge"}) m_engine->stop(QLatin1String(tag));
    m_verdict->clear();  // it was about another prompt
    if (m_plan && m_document->isOpen()) {
        try {
            checkFits(*m_plan, m_document->capture().config);
        } catch (const Error&) {  // a plan of another model cannot be shown on these heads
            m_plan.reset();
            m_model->setPlan(m_plan);
            emit planChanged();
        }
    }
    refresh();
}

void PlanPanel::setPlan(AttentionPlan plan) {
    m_plan = std::move(plan);
    m_model->setPlan(m_plan);
    m_verdict->clear();
    refresh();
    emit planChanged();
}

void PlanPanel::make() {
    if (!m_document->isOpen() || m_busy) return;
    const int rule = m_rule->currentIndex(), active = m_document->activeMask();
    if (rule == ActiveMask && active < 0) {
        fail(tr("Add a mask layer first: the plan gives its method to every head."));
        return;
    }
    m_busy = true;
    refresh();
    const MethodSpec mask =
        active >= 0 ? m_document->masks()[std::size_t(active)].spec : MethodSpec{"dense", {}};
    auto work = [session = m_document->session(), capture = m_document->sharedCapture(), rule, mask,
                 target = m_target->value(),
                 backend = m_engine->backend(Engine::Long)](const Job& job) {
        const PlanModel model = planModel(capture->config);
        AttentionPlan plan;
        if (rule == ActiveMask || rule == RetrievalHeads) {
            const MethodSpec spec =
                rule == ActiveMask ? mask : parseMethod("retrieval-heads:sink=4,window=256");
            plan = uniformPlan(
                model, spec,
                sessions::retrievalScores(
                    *capture, sessions::sessionHeadFacts(*session, *capture, *backend, job)));
        } else {
            std::vector<MethodSpec> methods;
            for (const char* id : {"a-shape", "vertical-slash", "antidiagonal", "oracle-blocks"})
                methods.push_back(parseMethod(id));
            const auto options =
                sessions::sessionHeadOptions(*session, *capture, methods, 10, *backend, job);
            plan = rule == LeastDensity ? planForRecall(model, options, target)
                                        : planForDensity(model, options, target);
        }
        if (session->mode() == sessions::OpenMode::ReadWrite)
            session->savePlan(capture->uuid, plan);
        return plan;
    };
    m_engine->run(Engine::Long, QStringLiteral("plan"), std::move(work))
        .then(this,
              [this](const AttentionPlan& plan) {
                  m_busy = false;
                  setPlan(plan);
              })
        .onCanceled(this, [this] { fail(tr("Cancelled.")); })
        .onFailed(this, [this](const std::exception& e) { fail(QString::fromUtf8(e.what())); });
}

void PlanPanel::judge() {
    if (!m_plan || !m_document->isOpen() || m_busy) return;
    m_busy = true;
    refresh();
    m_verdict->setText(tr("Running the model dense and under the plan …"));
    const sessions::CaptureInfo& capture = m_document->capture();
    auto work = [plan = *m_plan, hint = capture.modelHint, name = capture.modelName,
                 ids = capture.tokenIds, truth = capture.truth,
                 backend = m_engine->backend(Engine::Long),
                 device = m_engine->device().toStdString()](const Job& job) {
        std::error_code ec;
        const auto directory = std::filesystem::is_directory(hint, ec) ? std::filesystem::path(hint)
                                                                       : resolveModel(name);
        const auto model = loadModel(directory, 0, job.part(0, 0.1), device);
        checkFits(plan, model->config());
        return evaluatePlan(*model, *backend, ids, truth, plan, job.part(0.1, 1));
    };
    m_engine->run(Engine::Long, QStringLiteral("judge"), std::move(work))
        .then(this,
              [this](const EvalResult& result) {
                  m_busy = false;
                  refresh();
                  m_verdict->setText(verdictOf(result));
                  emit judged(result);
              })
        .onCanceled(this,
                    [this] {
                        fail(tr("Cancelled."));
                        m_verdict->clear();
                    })
        .onFailed(this, [this](const std::exception& e) {
            fail(QString::fromUtf8(e.what()));
            m_verdict->clear();
        });
}

QString PlanPanel::exportTo(const QString& target, const QString& path, bool allowLoss) {
    if (!m_plan) return tr("there is no plan to export: make or import one first");
    try {
        if (target == QLatin1String("sparsight")) {
            writePlan(*m_plan, path.toStdString());
        } else {
            const ExportResult result =
                exportPlan(*m_plan, target.toStdString(), path.toStdString(), allowLoss);
            QString losses;
            for (const std::string& loss : result.losses)
                losses += QStringLiteral("<br>") + QString::fromStdString(loss).toHtmlEscaped();
            m_verdict->setText(tr("Wrote %1.").arg(path.toHtmlEscaped()) + losses);
        }
        emit exported(path);
        return {};
    } catch (const std::exception& e) {
        return QString::fromUtf8(e.what());
    }
}

void PlanPanel::exportPlanAs() {
    if (!m_plan) {
        fail(tr("There is no plan to export: make or import one first."));
        return;
    }
    const QStringList filters{tr("Sparsight plan (*.json)"), tr("MInference JSON (*.json)"),
                              tr("DuoAttention folder (*)"), tr("CSV table (*.csv)")};
    const QStringList ids{QStringLiteral("sparsight"), QStringLiteral("minference"),
                          QStringLiteral("duoattention"), QStringLiteral("csv")};
    QString filter = filters[0];
    const QString file =
        QFileDialog::getSaveFileName(this, tr("Export plan"), QStringLiteral("plan.json"),
                                     filters.join(QStringLiteral(";;")), &filter);
    if (file.isEmpty()) return;
    const QString target = ids[std::max<qsizetype>(0, filters.indexOf(filter))];
    const QString error = exportTo(target, file, false);
    if (error.isEmpty()) return;
    // The sentence lists what would be lost; going on is the user's decision.
    QMessageBox box(QMessageBox::Warning, tr("Export plan"), error, QMessageBox::Cancel, this);
    QPushButton* anyway =
        box.addButton(tr("Export what can be expressed"), QMessageBox::AcceptRole);
    box.exec();
    if (box.clickedButton() == anyway) {
        const QString second = exportTo(target, file, true);
        if (!second.isEmpty()) fail(second);
    }
}

void PlanPanel::importPlanFrom() {
    if (!m_document->isOpen()) {
        fail(tr("Open a capture first: the plan is checked against its model."));
        return;
    }
    const QString file = QFileDialog::getOpenFileName(
        this, tr("Import plan"), {}, tr("Plans (*.json *.csv *.tsv);;All files (*)"));
    if (file.isEmpty()) return;
    try {
        setPlan(importPlan(file.toStdString(), m_document->capture().config));
    } catch (const std::exception& e) {
        fail(QString::fromUtf8(e.what()));
    }
}

void PlanPanel::refresh() {
    const bool open = m_document->isOpen();
    m_target->setVisible(m_rule->currentIndex() >= LeastDensity);
    m_target->setToolTip(m_rule->currentIndex() == BestRecall
                             ? tr("Mean density of all heads (0 to 1, lower is cheaper)")
                             : tr("Mean exact recall of every head (0 to 1, higher is better)"));
    m_make->setText(m_busy ? tr("Stop") : tr("Make plan"));
    m_make->setEnabled(open);
    m_make->setToolTip(m_busy ? tr("Stops what is running within half a second")
                       : open ? tr("Gives every head its method")
                              : tr("Open a capture first"));
    m_judge->setEnabled(open && m_plan && !m_busy);
    m_judge->setToolTip(m_plan ? tr("Runs the captured prompt through the model, dense and under "
                                    "the plan, and compares what it says")
                               : tr("Make or import a plan first"));
    m_export->setEnabled(m_plan.has_value());
    m_export->setToolTip(m_plan ? tr("Writes the plan for MInference, DuoAttention or as a table")
                                : tr("Make or import a plan first"));
    m_import->setEnabled(open);
    if (m_busy) {
        m_summary->setText(tr("Working …"));
    } else if (m_plan) {
        std::map<std::string, int> counts;
        for (Index l = 0; l < m_plan->model.layers; ++l)
            for (Index h = 0; h < m_plan->model.heads; ++h)
                ++counts[m_plan->at(l, h, Phase::Prefill, 0).id];
        QStringList parts;
        for (const auto& [id, n] : counts)
            parts << QStringLiteral("%1 %2").arg(n).arg(QString::fromStdString(id));
        QString text = parts.join(QStringLiteral(", "));
        for (const auto& e : m_plan->evidence)
            if (!e.layer && !e.head)
                text += QStringLiteral(" · %1 %2")
                            .arg(QString::fromStdString(e.metric))
                            .arg(e.value, 0, 'f', 3);
        m_summary->setText(text);
    } else {
        m_summary->setText(open ? tr("No plan yet. Choose a rule and press “Make plan”.")
                                : tr("Open a capture to plan its heads."));
    }
}

}  // namespace sparsight::ui
