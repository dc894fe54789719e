#include "ui/panels/next_tokens.h"

#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QPushButton>
#include <QTableWidget>
#include <QVBoxLayout>

#include "core/model/stacks.h"
#include "sessions/capture_input.h"
#include "ui/document.h"
#include "ui/engine.h"
#include "ui/panels/panel_parts.h"
#include "ui/shell/capture_job.h"

namespace sparsight::ui {
namespace {

constexpr Index kGuesses = 10;
const QString kTag = QStringLiteral("nextTokens");

/// Line ends and tabs would break the table's lines.
QString shown(QString text) {
    text.replace(QLatin1Char('\n'), QStringLiteral("↵"));
    text.replace(QLatin1Char('\t'), QStringLiteral("⇥"));
    return text.replace(QLatin1Char(' '), QStringLiteral("␣"));
}

}  // namespace

NextTokens::NextTokens(Document* document, Engine* engine, QWidget* parent)
    : QWidget(parent), m_document(document), m_engine(engine) {
    setObjectName(QStringLiteral("nextTokens"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(12, 0, 12, 8);
    column->setSpacing(4);
    auto* top = new QHBoxLayout;
    m_title = new QLabel(this);
    m_title->setObjectName(QStringLiteral("nextTokensTitle"));
    m_title->setTextFormat(Qt::PlainText);
    m_title->setWordWrap(true);
    m_button = new QPushButton(this);
    m_button->setObjectName(QStringLiteral("nextTokensAsk"));
    connect(m_button, &QPushButton::clicked, this, [this] {
        if (m_running)
            m_engine->stop(kTag);
        else
            ask();
    });
    top->addWidget(m_title, 1);
    top->addWidget(m_button);
    column->addLayout(top);
    m_note = mutedLabel({}, this);
    m_note->setObjectName(QStringLiteral("nextTokensNote"));
    m_note->setTextFormat(Qt::PlainText);
    m_note->setWordWrap(true);
    column->addWidget(m_note);
    m_table = new QTableWidget(0, 3, this);
    m_table->setObjectName(QStringLiteral("nextTokensTable"));
    m_table->setAccessibleName(tr("Likeliest next tokens"));
    m_table->setHorizontalHeaderLabels({tr("token"), tr("probability"), tr("id")});
    m_table->horizontalHeader()->setDefaultAlignment(Qt::AlignRight | Qt::AlignVCenter);
    m_table->horizontalHeaderItem(0)->setTextAlignment(Qt::AlignLeft | Qt::AlignVCenter);
    m_table->verticalHeader()->hide();
    m_table->verticalHeader()->setMinimumSectionSize(1);
    m_table->verticalHeader()->setDefaultSectionSize(fontMetrics().height() + 6);
    m_table->horizontalHeader()->setMinimumSectionSize(1);
    m_table->horizontalHeader()->setSectionResizeMode(QHeaderView::ResizeToContents);
    m_table->horizontalHeader()->setSectionResizeMode(0, QHeaderView::Stretch);
    m_table->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    m_table->setShowGrid(false);
    m_table->setEditTriggers(QAbstractItemView::NoEditTriggers);
    m_table->setSelectionMode(QAbstractItemView::NoSelection);
    m_table->setFocusPolicy(Qt::NoFocus);
    m_table->setToolTip(
        tr("Probability: the model's softmax over its whole vocabulary. Bold: the token that the "
           "text has there."));
    column->addWidget(m_table, 1);
    connect(m_document, &Document::captureChanged, this, &NextTokens::captureChanged);
    for (const auto change : {&Document::queryChanged, &Document::headChanged})
        connect(m_document, change, this, &NextTokens::refresh);
    captureChanged();
}

void NextTokens::captureChanged() {
    m_engine->stop(kTag);
    m_answer.reset();
    m_failure.clear();
    m_obstacle.clear();
    if (!m_document->isOpen()) {
        m_obstacle = tr("Open a capture to ask its model which token comes next.");
    } else if (m_document->capture().image) {
        m_obstacle = tr("The capture is of an image: there is no next token.");
    } else {
        try {
            modelDirectoryOf(m_document->capture());
        } catch (const std::exception& e) {
            m_obstacle = QString::fromUtf8(e.what());
        }
    }
    refresh();
    emit changed();
}

void NextTokens::ask() {
    if (m_running || !m_obstacle.isEmpty()) return;
    m_running = true;
    m_failure.clear();
    refresh();
    auto work = [capture = m_document->sharedCapture(), backend = m_engine->backend(Engine::Long),
                 device = m_engine->device().toStdString()](const Job& job) {
        const auto directory = modelDirectoryOf(*capture);
        if (readConfig(directory).sha256 != capture->config.sha256)
            throw Error(Errc::Usage, "The model in '" + directory.string() +
                                         "' is another than the captured one: its config.json "
                                         "differs.");
        const auto model = loadModel(directory, 0, job.part(0, 0.2), device);
        auto answer = std::make_shared<Answer>();
        ModelInput input;
        input.ids = capture->tokenIds;
        input.decoderIds = capture->decoderIds;
        answer->rows =
            nextTokens(*model, input, denseAttention(*backend, job), kGuesses, job.part(0.2, 1));
        answer->tokenizer = sessions::tokenizerIfAny(directory);
        answer->fills = fillsPlaces(model->config());
        return std::shared_ptr<const Answer>(std::move(answer));
    };
    m_engine->run(Engine::Long, kTag, std::move(work))
        .then(this,
              [this, uuid = m_document->capture().uuid](std::shared_ptr<const Answer> answer) {
                  m_running = false;
                  if (m_document->isOpen() && m_document->capture().uuid == uuid)
                      m_answer = std::move(answer);
                  refresh();
              })
        .onCanceled(this, [this] { stopped({}); })
        .onFailed(this, [this](const std::exception& e) { stopped(QString::fromUtf8(e.what())); });
}

void NextTokens::stopped(const QString& failure) {
    m_running = false;
    m_failure = failure;
    refresh();
}

bool NextTokens::ofDecoder() const {
    return !m_document->capture().decoderIds.empty();
}

Index NextTokens::row() const {
    const Index last = Index(m_answer->rows.size()) - 1, query = m_document->query();
    if (ofDecoder()) {  // an encoder's row is no token of the decoder's text
        const AttentionStack* stack = stackOf(m_document->capture().config, m_document->layer());
        if (!stack || stack->queries != Sequence::Decoder) return last;
    }
    return query >= 0 && query <= last ? query : last;
}

QString NextTokens::textOf(Index row) const {
    const sessions::CaptureInfo& c = m_document->capture();
    const auto& ids = ofDecoder() ? c.decoderIds : c.tokenIds;
    if (row < 0 || row >= Index(ids.size())) return {};
    return m_answer->tokenizer
               ? QString::fromStdString(m_answer->tokenizer->tokenText(ids[std::size_t(row)]))
               : QString::number(ids[std::size_t(row)]);
}

void NextTokens::fill(Index row) {
    const sessions::CaptureInfo& c = m_document->capture();
    const auto& ids = ofDecoder() ? c.decoderIds : c.tokenIds;
    const Index place = m_answer->fills ? row : row + 1;
    const std::int32_t there = place < Index(ids.size()) ? ids[std::size_t(place)] : -1;
    const auto& guesses = m_answer->rows[std::size_t(row)];
    m_table->setRowCount(int(guesses.size()));
    for (int i = 0; i < int(guesses.size()); ++i) {
        const TokenGuess& g = guesses[std::size_t(i)];
        const QString text =
            m_answer->tokenizer
                ? shown(QString::fromStdString(m_answer->tokenizer->tokenText(g.id)))
                : QString();
        const QString cells[] = {text, percent(g.probability), QString::number(g.id)};
        for (int column = 0; column < 3; ++column) {
            auto* item = new QTableWidgetItem(cells[column]);
            if (column > 0) item->setTextAlignment(Qt::AlignRight | Qt::AlignVCenter);
            QFont font = m_table->font();
            font.setBold(g.id == there);
            item->setFont(font);
            m_table->setItem(i, column, item);
        }
    }
}

void NextTokens::refresh() {
    const bool answered = m_answer && !m_answer->rows.empty() && m_document->isOpen();
    m_button->setText(m_running ? tr("Stop") : tr("Ask the model"));
    m_button->setEnabled(m_running || m_obstacle.isEmpty());
    m_button->setVisible(!answered || m_running);
    m_button->setToolTip(m_running              ? tr("Stops the model within half a second")
                         : m_obstacle.isEmpty() ? tr("Runs the captured model over the prompt once")
                                                : m_obstacle);
    m_table->setVisible(answered);
    m_title->setVisible(answered || m_running);
    const QString note = !m_failure.isEmpty()    ? m_failure
                         : m_running || answered ? QString()
                         : m_obstacle.isEmpty()
                             ? tr("Which token comes next? The model runs over the prompt once; "
                                  "then every token that you select has its answer.")
                             : m_obstacle;
    setLook(m_note, "warn", !m_failure.isEmpty());
    m_note->setText(note);
    m_note->setVisible(!note.isEmpty());
    if (m_running) m_title->setText(tr("Running the model …"));
    if (!answered) return;
    const Index at = row();
    fill(at);
    if (!m_running)
        m_title->setText(
            (m_answer->fills ? tr("In place of token %1, “%2”") : tr("After token %1, “%2”"))
                .arg(at)
                .arg(shown(textOf(at))));
}

}  // namespace sparsight::ui
