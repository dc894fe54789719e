#include "ui/shell/summary_page.h"

#include <QEvent>
#include <QGridLayout>
#include <QLabel>
#include <QScrollArea>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>
#include <map>

#include "ui/document.h"
#include "ui/shell/recent.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr std::size_t kListed = 6;

/// A table row: the first cell at the left, the others at the right, as numbers stand; with `words`
/// all at the left.
QString row(const QStringList& cells, const QString& colour = {}, bool words = false) {
    QString html = QStringLiteral("<tr>");
    for (qsizetype i = 0; i < cells.size(); ++i)
        html += QStringLiteral("<td style='padding:2px 14px 2px 0;%2' align='%1' valign='middle'>%3</td>")
                    .arg(i == 0 || words ? QStringLiteral("left") : QStringLiteral("right"),
                         colour.isEmpty() ? QString() : QStringLiteral("color:") + colour,
                         cells[i]);
    return html + QStringLiteral("</tr>");
}

QString muted(const QString& text) {
    return QStringLiteral("<span style='color:%1'>%2</span>").arg(theme().muted.name(), text);
}

QString link(Index layer, Index head) {
    return QStringLiteral("<a href='%1.%2' style='color:%3;text-decoration:none'>L%1 H%2</a>")
        .arg(layer)
        .arg(head)
        .arg(theme().accent.name());
}

}  // namespace

SummaryPage::SummaryPage(Document* document, QWidget* parent)
    : QWidget(parent), m_document(document) {
    setObjectName(QStringLiteral("summaryPage"));
    auto* outer = new QVBoxLayout(this);
    outer->setContentsMargins(0, 0, 0, 0);
    auto* scroll = new QScrollArea(this);
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    scroll->setFocusPolicy(Qt::NoFocus);
    outer->addWidget(scroll);
    auto* page = new QWidget(scroll);
    scroll->setWidget(page);
    auto* grid = new QGridLayout(page);
    grid->setContentsMargins(16, 16, 16, 16);
    grid->setSpacing(12);
    m_warnings = addCard(grid, 0, 0, 2, {}, QStringLiteral("summaryWarnings"));
    m_facts = addCard(grid, 1, 0, 1, tr("Capture"), QStringLiteral("summaryFacts"));
    m_labels = addCard(grid, 1, 1, 1, tr("What the heads are"), QStringLiteral("summaryLabels"));
    m_heads = addCard(grid, 2, 0, 1, tr("Heads that read far"), QStringLiteral("summaryHeads"));
    m_mask =
        addCard(grid, 2, 1, 1, tr("What the active mask loses"), QStringLiteral("summaryMask"));
    grid->setRowStretch(3, 1);
    grid->setColumnStretch(0, 1);
    grid->setColumnStretch(1, 1);
    for (const auto signal : {&Document::captureChanged, &Document::factsChanged,
                              &Document::tableChanged, &Document::masksChanged})
        connect(document, signal, this, &SummaryPage::refresh);
    refresh();
}

QLabel* SummaryPage::addCard(QGridLayout* grid, int at, int column, int span, const QString& title,
                             const QString& name) {
    auto* card = new QFrame(this);
    card->setProperty("role", title.isEmpty() ? "banner" : "card");
    auto* layout = new QVBoxLayout(card);
    layout->setContentsMargins(12, 10, 12, 10);
    if (!title.isEmpty()) {
        auto* head = new QLabel(title.toUpper(), card);
        head->setProperty("role", "title");
        layout->addWidget(head);
    }
    auto* text = new QLabel(card);
    text->setObjectName(name);
    text->setTextFormat(Qt::RichText);
    text->setWordWrap(true);
    text->setAlignment(Qt::AlignTop | Qt::AlignLeft);
    connect(text, &QLabel::linkActivated, this, [this](const QString& target) {
        const QStringList at2 = target.split(QLatin1Char('.'));
        m_document->selectHead(at2[0].toLongLong(), at2[1].toLongLong());
        emit inspect();
    });
    layout->addWidget(text, 1);
    grid->addWidget(card, at, column, 1, span);
    return text;
}

QString SummaryPage::factsText() const {
    const auto& c = m_document->capture();
    const auto& m = c.config;
    const auto fact = [](const QStringList& cells) { return row(cells, {}, true); };
    QString html = QStringLiteral("<table cellspacing=0>");
    html +=
        fact({muted(tr("model")), QStringLiteral("%1 (%2)").arg(QString::fromStdString(c.modelName),
                                                                QString::fromStdString(m.arch))});
    html += fact({muted(tr("layers × heads")), tr("%1 × %2, %3 KV heads, width %4")
                                                   .arg(m.layers)
                                                   .arg(m.heads)
                                                   .arg(m.kvHeads)
                                                   .arg(m.headDim)});
    html += fact({muted(tr("prompt")), QString::fromStdString(c.promptName).toHtmlEscaped()});
    html += fact({muted(tr("tokens")), thousands(m_document->tokens())});
    html += fact({muted(tr("captured")),
                  tr("%1 of %2 layers, %3")
                      .arg(c.layersDone.size())
                      .arg(c.layersAsked.empty() ? std::size_t(m.layers) : c.layersAsked.size())
                      .arg(bytesText(c.bytes))});
    html += fact({muted(tr("self-check")), tr("mass error %1").arg(c.massError, 0, 'e', 1)});
    return html + QStringLiteral("</table>");
}

QString SummaryPage::labelsText() const {
    const auto& facts = m_document->headFacts();
    if (facts.empty()) return muted(tr("Being computed …"));
    std::map<std::string, int> count;
    double sink = 0;
    for (const HeadFacts& f : facts) {
        ++count[f.label];
        sink += f.sinkMass;
    }
    const auto line = [&](const char* label, const QString& meaning) {
        return row({QStringLiteral("<b style='font-size:19px'>%1</b>").arg(count[label]),
                    QString::fromLatin1(label), muted(meaning)},
                   {}, true);
    };
    QString html = QStringLiteral("<table cellspacing=0>");
    html += line("retrieval", tr("copy the needle: keep them dense"));
    html += line("streaming", tr("sink 4 + window 256 holds 95 %"));
    html += line("mixed", tr("read the middle of the text"));
    html += QStringLiteral("</table>");
    return html + muted(tr("Mean mass on the first four tokens: %1 %")
                            .arg(100 * sink / double(facts.size()), 0, 'f', 1));
}

QString SummaryPage::headsText() const {
    auto facts = m_document->headFacts();
    if (facts.empty()) return muted(tr("Being computed …"));
    const bool needle = facts.front().retrieval.has_value();
    std::sort(facts.begin(), facts.end(), [needle](const HeadFacts& a, const HeadFacts& b) {
        if (needle && a.retrieval != b.retrieval) return *a.retrieval > *b.retrieval;
        return a.streamingRecall < b.streamingRecall;
    });
    facts.resize(std::min(facts.size(), kListed));
    QString html = QStringLiteral("<table cellspacing=0>") +
                   row({tr("head"), needle ? tr("retrieval") : QString(), tr("streaming recall"),
                        tr("distance, tokens"), tr("label")},
                       theme().muted.name());
    for (const HeadFacts& f : facts)
        html += row({link(f.layer, f.head),
                     f.retrieval ? QString::number(*f.retrieval, 'f', 2) : QString(),
                     QString::number(f.streamingRecall, 'f', 3), thousands(qint64(f.distance)),
                     QString::fromStdString(f.label)});
    return html + QStringLiteral("</table>");
}

QString SummaryPage::maskText() const {
    const int active = m_document->activeMask();
    if (active < 0) return muted(tr("No mask layer yet: Masks > Add a mask."));
    const QString name =
        QString::fromStdString(toString(m_document->masks()[std::size_t(active)].spec))
            .toHtmlEscaped();
    auto rows = m_document->tableMetrics();
    if (rows.empty())
        return name + QStringLiteral("<br>") + muted(tr("Being measured on every head …"));
    double recall = 0, density = 0, error = 0;
    for (const MaskMetrics& m : rows) {
        recall += m.recall;
        density += m.density;
        error += m.outputError;
    }
    const double n = double(rows.size());
    QString html = name + QStringLiteral("<br>") +
                   tr("<b style='font-size:19px'>%1</b> mean recall at <b "
                      "style='font-size:19px'>%2 %</b> of the tiles, output error %3")
                       .arg(recall / n, 0, 'f', 3)
                       .arg(100 * density / n, 0, 'f', 1)
                       .arg(std::isnan(error) ? QStringLiteral("–") : QString::number(error / n, 'f', 3));
    std::sort(rows.begin(), rows.end(),
              [](const MaskMetrics& a, const MaskMetrics& b) { return a.recall < b.recall; });
    rows.resize(std::min(rows.size(), kListed - 2));
    html += QStringLiteral("<table cellspacing=0>") +
            row({tr("worst heads"), tr("recall"), tr("worst row"), tr("out. error")},
                theme().muted.name());
    for (const MaskMetrics& m : rows)
        html += row({link(m.layer, m.head), QString::number(m.recall, 'f', 3),
                     QString::number(m.recallMin, 'f', 3),
                     std::isnan(m.outputError) ? QStringLiteral("–")
                                               : QString::number(m.outputError, 'f', 3)});
    return html + QStringLiteral("</table>");
}

QString SummaryPage::warningsText() const {
    const auto& c = m_document->capture();
    QStringList list;
    if (!c.complete())
        list << tr("This capture is %1: %2 of its layers are there. Capture > Resume goes on.")
                    .arg(QString::fromStdString(c.state))
                    .arg(c.layersDone.size());
    if (c.config.maxPositions > 0 && m_document->tokens() > c.config.maxPositions)
        list << tr("The prompt is longer than the %1 tokens that the model was made for.")
                    .arg(thousands(c.config.maxPositions));
    if (c.massError > 1e-4)
        list << tr("The self-check is off by %1: do not trust the masses.")
                    .arg(c.massError, 0, 'e', 1);
    if (m_document->session()->mode() == sessions::OpenMode::ReadOnly)
        list << tr("The session is open for reading only.");
    return list.join(QStringLiteral("<br>"));
}

void SummaryPage::refresh() {
    if (!m_document->isOpen()) return;
    m_facts->setText(factsText());
    m_labels->setText(labelsText());
    m_heads->setText(headsText());
    m_mask->setText(maskText());
    const QString warnings = warningsText();
    m_warnings->setText(warnings);
    m_warnings->parentWidget()->setVisible(!warnings.isEmpty());
}

}  // namespace sparsight::ui
