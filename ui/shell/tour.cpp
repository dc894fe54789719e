#include "ui/shell/tour.h"

#include <QEvent>
#include <QGridLayout>
#include <QLabel>
#include <QPushButton>
#include <algorithm>

#include "ui/document.h"
#include "ui/engine.h"
#include "ui/shell/theme.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
namespace {

constexpr const char* kStreaming = "a-shape:sink=4,window=256";

struct Text {
    const char *title, *text, *button;
};
constexpr Text kTexts[TourPanel::kSteps] = {
    {"Find the head",
     "A prompt of 1,500 tokens hides a pass key. Capture it and see which of the 64 heads reads "
     "it.",
     "Capture and look"},
    {"Ask the model", "Four prompts with other keys and depths: does the dense model answer?",
     "Ask, dense"},
    {"Skip the middle", "Now every head keeps only 4 sink tokens and a window of 256.",
     "Mask all heads"},
    {"Give one head back", "The same mask, but the head of step 1 stays dense.",
     "Mask all but one"},
    {"Hand it over", "Write this plan for MInference, read it back, and ask again.",
     "Export and read back"},
};

}  // namespace

TourPanel::TourPanel(Document* document, Engine* engine, const QString& folder, quint64 seed,
                     QWidget* parent)
    : QFrame(parent),
      m_document(document),
      m_engine(engine),
      m_folder(folder),
      m_seed(seed),
      m_world(std::make_shared<TourWorld>()) {
    setObjectName(QStringLiteral("tourPanel"));
    setProperty("role", "card");
    setFixedWidth(380);
    auto* grid = new QGridLayout(this);
    grid->setContentsMargins(14, 10, 14, 14);
    grid->setHorizontalSpacing(10);
    grid->setVerticalSpacing(4);
    auto* head = new QLabel(tr("TOUR: WHAT ONE HEAD REMEMBERS"), this);
    head->setProperty("role", "title");
    m_close = new QPushButton(tr("Close"), this);
    m_close->setObjectName(QStringLiteral("tourClose"));
    m_close->setToolTip(tr("Leaves the tour; Help > Tour goes on with it"));
    m_close->setProperty("role", "flat");
    grid->addWidget(head, 0, 0, 1, 2);
    grid->addWidget(m_close, 0, 2, Qt::AlignRight);
    for (int i = 0; i < kSteps; ++i) {
        Row& row = m_rows[std::size_t(i)];
        const int at = 1 + 3 * i;
        row.number = new QLabel(QString::number(i + 1), this);
        row.number->setFixedWidth(16);
        row.title = new QLabel(tr(kTexts[i].title), this);
        row.title->setProperty("role", "strong");
        row.button = new QPushButton(tr(kTexts[i].button), this);
        row.button->setObjectName(QStringLiteral("tourStep%1").arg(i + 1));
        row.text = new QLabel(tr(kTexts[i].text), this);
        row.text->setProperty("role", "muted");
        row.text->setWordWrap(true);
        row.result = new QLabel(this);
        row.result->setObjectName(QStringLiteral("tourResult%1").arg(i + 1));
        row.result->setWordWrap(true);
        row.result->setTextFormat(Qt::RichText);
        grid->addWidget(row.number, at, 0, Qt::AlignTop);
        grid->addWidget(row.title, at, 1);
        grid->addWidget(row.button, at, 2);
        grid->addWidget(row.text, at + 1, 1, 1, 2);
        grid->addWidget(row.result, at + 2, 1, 1, 2);
        connect(row.button, &QPushButton::clicked, this, [this, i] { doStep(i); });
    }
    grid->setColumnStretch(1, 1);
    connect(m_close, &QPushButton::clicked, this, [this] {
        m_engine->stop(QStringLiteral("tour"));
        hide();
    });
    connect(m_document, &Document::factsChanged, this, &TourPanel::sampleArrived);
    refresh();
    hide();
}

void TourPanel::begin() {
    show();
    raise();
    refresh();
}

QString TourPanel::result(int step) const {
    return m_rows[std::size_t(step)].result->text();
}

void TourPanel::refresh() {
    for (int i = 0; i < kSteps; ++i) {
        Row& row = m_rows[std::size_t(i)];
        const bool current = i == m_done, known = i < m_done;
        row.button->setVisible(current);
        row.button->setEnabled(m_running < 0);
        row.button->setText(m_running == i ? tr("Working …") : tr(kTexts[i].button));
        row.text->setVisible(current);
        row.result->setVisible(known);
        row.number->setText(known ? QStringLiteral("✓") : QString::number(i + 1));
        row.number->setProperty("role", known ? "strong" : "muted");
    }
    adjustSize();
}

void TourPanel::setRunning(int step) {
    m_running = step;
    refresh();
}

void TourPanel::finish(int step, const QString& text) {
    m_running = -1;
    m_done = std::max(m_done, step + 1);
    m_rows[std::size_t(step)].result->setText(text);
    uiLog(QStringLiteral("tour"),
          {{QStringLiteral("step"), step + 1}, {QStringLiteral("result"), text}});
    refresh();
}

template <class Work, class Show>
void TourPanel::compute(int step, Work work, Show show) {
    using T = std::invoke_result_t<Work, TourWorld&, kernels::Backend&, const Job&>;
    setRunning(step);
    auto job = [world = m_world, seed = m_seed, work,
                backend = m_engine->backend(Engine::Long)](const Job& j) {
        prepareTour(*world, resolveModel("bookworm"), seed, j.part(0, 0.1));
        return work(*world, *backend, j.part(0.1, 1));
    };
    m_engine->run(Engine::Long, QStringLiteral("tour"), std::move(job))
        .then(this, [this, step, show](const T& result) { finish(step, show(result)); })
        .onCanceled(this, [this] { setRunning(-1); })
        .onFailed(this, [this](const std::exception& e) {
            setRunning(-1);
            emit failed(QString::fromUtf8(e.what()));
        });
}

void TourPanel::sampleArrived() {
    const auto& facts = m_document->headFacts();
    if (m_running != 0 || facts.empty()) return;
    auto sorted = facts;
    std::sort(sorted.begin(), sorted.end(), [](const HeadFacts& a, const HeadFacts& b) {
        return a.retrieval.value_or(0) > b.retrieval.value_or(0);
    });
    const HeadFacts &best = sorted[0], &next = sorted[std::min<std::size_t>(1, sorted.size() - 1)];
    m_layer = best.layer;
    m_head = best.head;
    m_document->selectHead(m_layer, m_head);
    finish(
        0,
        tr("<b>L%1 H%2</b> looks at the key on %3 of its tokens; the next best head, L%4 H%5, on "
           "%6.")
            .arg(m_layer)
            .arg(m_head)
            .arg(QString::number(100 * best.retrieval.value_or(0), 'f', 0) + QStringLiteral(" %"))
            .arg(next.layer)
            .arg(next.head)
            .arg(QString::number(100 * next.retrieval.value_or(0), 'f', 0) + QStringLiteral(" %")));
}

void TourPanel::layMasks(const char* spec) {
    MaskLayer layer = maskLayer(spec);
    auto masks = m_document->masks();
    for (MaskLayer& other : masks) other.visible = false;
    masks.erase(std::remove_if(masks.begin(), masks.end(),
                               [&](const MaskLayer& o) { return o.spec.id == layer.spec.id; }),
                masks.end());
    masks.insert(masks.begin(), layer);
    m_document->setMasks(masks);
    m_document->setActiveMask(0);
}

void TourPanel::doStep(int step) {
    if (m_running >= 0 || step > m_done || step < 0 || step >= kSteps) return;
    const auto name = [this] { return QStringLiteral("L%1 H%2").arg(m_layer).arg(m_head); };
    switch (step) {
        case 0:
            setRunning(0);
            emit sampleWanted();
            break;
        case 1:
            compute(
                1,
                [](TourWorld& w, kernels::Backend& b, const Job& j) {
                    return askModel(w, b, nullptr, j);
                },
                [](const Asked& a) {
                    return tr("Dense answers <b>%1 of %2</b>; to the first prompt it says “%3” (%4 "
                              "s in all).")
                        .arg(a.answered)
                        .arg(a.of)
                        .arg(a.said.toHtmlEscaped())
                        .arg(a.seconds, 0, 'f', 1);
                });
            break;
        case 2:
        case 3: {
            const bool all = step == 2;
            layMasks(kStreaming);
            const std::string spec = all ? kStreaming
                                         : "retrieval-heads:heads=" + std::to_string(m_layer) +
                                               "." + std::to_string(m_head) + ",sink=4,window=256";
            const PlanModel model = planModel(m_document->capture().config);
            m_plan = uniformPlan(model, parseMethod(spec));
            if (!all) emit planMade(m_plan);
            compute(
                step,
                [plan = m_plan](TourWorld& w, kernels::Backend& b, const Job& j) {
                    return judgePlan(w, b, plan, j);
                },
                [all, name](const Judged& r) {
                    const QString numbers =
                        tr("mean negative log-likelihood %1 → %2 nats, %3 % of the tiles")
                            .arg(r.nllDense, 0, 'f', 3)
                            .arg(r.nllPlan, 0, 'f', 3)
                            .arg(100 * r.density, 0, 'f', 1);
                    const QString said = r.said.toHtmlEscaped();
                    if (all)
                        return tr("<b>%1 of %2</b> answered; it says “%3”. Yet the text hardly "
                                  "suffers: %4.")
                            .arg(r.answeredPlan)
                            .arg(r.of)
                            .arg(said, numbers);
                    return tr("<b>%1 of %2</b> answered with only %3 dense; it says “%4” again: "
                              "%5.")
                        .arg(r.answeredPlan)
                        .arg(r.of)
                        .arg(name(), said, numbers);
                });
            break;
        }
        case 4:
            compute(
                4,
                [plan = m_plan, folder = m_folder.toStdString()](TourWorld& w, kernels::Backend& b,
                                                                 const Job& j) {
                    return roundTrip(w, b, plan, folder, j);
                },
                [](const RoundTrip& r) {
                    QString text = tr("%1 written and read back: %2 of %3 heads identical, <b>%4 "
                                      "of %5</b> answered.")
                                       .arg(QString::fromStdString(r.file.filename().string()))
                                       .arg(r.heads - r.different)
                                       .arg(r.heads)
                                       .arg(r.answers.answered)
                                       .arg(r.answers.of);
                    if (r.losses > 0)
                        text += tr(" LOSS.md beside it lists %1 things that the format cannot say.")
                                    .arg(r.losses);
                    uiLog(QStringLiteral("export"),
                          {{QStringLiteral("file"), QString::fromStdString(r.file.string())}});
                    return text;
                });
            break;
        default:
            break;
    }
}

}  // namespace sparsight::ui
