#include "ui/panels/head_panel.h"

#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QVBoxLayout>
#include <cmath>

#include "ui/document.h"
#include "ui/panels/panel_parts.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

QString why(const HeadFacts& f) {
    const auto whole = [](double share) {
        return QString::number(100 * share, 'f', 0) + QStringLiteral(" %");
    };
    if (f.label == "retrieval")
        return QObject::
            tr("When it writes the answer, its largest weight lies on the needle's token that it "
               "copies, for %1 of the needle. On other rows %2 of its mass rests on the first four "
               "tokens.")
                .arg(whole(f.retrieval.value_or(0)), whole(f.sinkMass));
    if (f.label == "streaming")
        return QObject::tr(
                   "Four sink tokens and a window of 256 already hold %1 of its mass: a streaming "
                   "mask loses little here.")
            .arg(whole(f.streamingRecall));
    return QObject::tr(
               "A sink of 4 and a window of 256 would keep only %1 of its mass, and it copies no "
               "needle: it reads the middle of the text.")
        .arg(whole(f.streamingRecall));
}

}  // namespace

HeadPanel::HeadPanel(Document* document, Engine*, QWidget* parent)
    : QWidget(parent), m_document(document) {
    setObjectName(QStringLiteral("headPanel"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(12, 0, 12, 8);
    column->setSpacing(6);
    m_tools = new QWidget(this);
    auto* top = new QHBoxLayout(m_tools);
    top->setContentsMargins(0, 0, 6, 0);
    top->setSpacing(8);
    m_title = new QLabel(m_tools);
    m_title->setObjectName(QStringLiteral("headPanelTitle"));
    m_title->setProperty("role", "strong");
    m_label = new QLabel(m_tools);
    m_label->setObjectName(QStringLiteral("headPanelLabel"));
    m_label->setProperty("role", "pill");
    top->addStretch();
    top->addWidget(m_title);
    top->addWidget(m_label);
    column->addWidget(m_tools);

    auto* form = new QFormLayout;
    form->setContentsMargins(0, 0, 0, 0);
    form->setHorizontalSpacing(16);
    form->setVerticalSpacing(3);
    form->setLabelAlignment(Qt::AlignLeft);
    form->setFieldGrowthPolicy(QFormLayout::AllNonFixedFieldsGrow);
    m_retrieval = addRow(
        form, tr("Retrieval score"), QStringLiteral("factRetrieval"),
        tr("Distinct needle tokens on which the row before the answer's token has its largest "
           "weight, divided by the needle's tokens (0 to 1; higher = copies). Needs a needle "
           "prompt."));
    m_sink =
        addRow(form, tr("Sink mass (4 tokens)"), QStringLiteral("factSink"),
               tr("Mean over rows from 64 on of the probability on the first four keys (0 to 1)."));
    m_local = addRow(
        form, tr("Local mass (64)"), QStringLiteral("factLocal"),
        tr("Mean over rows from 64 on of the probability within the last 64 keys (0 to 1)."));
    m_streaming = addRow(
        form, tr("Streaming recall"), QStringLiteral("factStreaming"),
        tr("Probability that a streaming mask of sink 4 + window 256 keeps, mean over all rows "
           "(0 to 1)."));
    m_entropy = addRow(form, tr("Entropy"), QStringLiteral("factEntropy"),
                       tr("Mean entropy of a row, in nats: 0 = one key, ln(n) = all keys alike."));
    m_distance = addRow(form, tr("Mean distance"), QStringLiteral("factDistance"),
                        tr("Probability-weighted distance from query to key, in tokens."));
    m_group = addRow(
        form, tr("KV head"), QStringLiteral("factGroup"),
        tr("The key/value head that this query head reads, and the query heads that share it."));
    column->addLayout(form);
    m_why = mutedLabel({}, this);
    m_why->setObjectName(QStringLiteral("headPanelWhy"));
    m_why->setWordWrap(true);
    column->addWidget(m_why);
    column->addStretch();

    for (const auto change :
         {&Document::headChanged, &Document::factsChanged, &Document::captureChanged})
        connect(m_document, change, this, &HeadPanel::refresh);
    refresh();
}

QLabel* HeadPanel::addRow(QFormLayout* form, const QString& name, const QString& objectName,
                          const QString& help) {
    auto* label = mutedLabel(name, this);
    label->setToolTip(help);
    auto* value = new QLabel(this);
    value->setObjectName(objectName);
    value->setAccessibleName(name);
    value->setAlignment(Qt::AlignRight | Qt::AlignVCenter);
    value->setToolTip(help);
    form->addRow(label, value);
    return value;
}

void HeadPanel::refresh() {
    const Index layer = m_document->layer(), head = m_document->head();
    const bool selected = m_document->isOpen() && layer >= 0 && head >= 0;
    const HeadFacts* f = selected ? m_document->factsOf(layer, head) : nullptr;
    m_title->setText(selected ? m_document->headText(layer, head) : tr("No head selected"));
    m_label->setVisible(f != nullptr);
    for (QLabel* value :
         {m_retrieval, m_sink, m_local, m_streaming, m_entropy, m_distance, m_group})
        value->setText(QStringLiteral("–"));
    if (!f) {
        const QString failure = m_document->factsFailure();
        m_why->setText(!failure.isEmpty() ? failure
                       : selected         ? tr("Computing the numbers of every head …")
                                          : tr("Choose a head in the grid above."));
        return;
    }
    m_label->setText(QString::fromStdString(f->label));
    m_retrieval->setText(f->retrieval ? QString::number(*f->retrieval, 'f', 2) : tr("no needle"));
    m_sink->setText(QString::number(f->sinkMass, 'f', 3));
    m_local->setText(QString::number(f->localMass, 'f', 3));
    m_streaming->setText(QString::number(f->streamingRecall, 'f', 3));
    m_entropy->setText(tr("%1 nats").arg(QString::number(f->entropy, 'f', 2)));
    m_distance->setText(tr("%1 tokens").arg(thousands(qint64(std::llround(f->distance)))));
    const Index group = m_document->capture().config.kvGroup();
    m_group->setText(group == 1 ? QString::number(f->kvHead)
                                : tr("%1 (heads %2–%3)")
                                      .arg(f->kvHead)
                                      .arg(f->kvHead * group)
                                      .arg((f->kvHead + 1) * group - 1));
    m_why->setText(why(*f));
}

}  // namespace sparsight::ui
