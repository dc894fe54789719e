#include "ui/shell/job_footer.h"

#include <QDialog>
#include <QHBoxLayout>
#include <QLabel>
#include <QProgressBar>
#include <QPushButton>
#include <QVBoxLayout>

#include "ui/engine.h"
#include "ui/shell/jobs_panel.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {

JobFooter::JobFooter(Engine* engine, const QString& tag, const Texts& texts, QDialog* dialog)
    : QWidget(dialog), m_engine(engine), m_tag(tag), m_texts(texts) {
    const auto name = [&tag](QWidget* widget, const char* what, const QString& accessible) {
        widget->setObjectName(tag + QLatin1String(what));
        widget->setAccessibleName(accessible);
    };
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(0, 0, 0, 0);
    column->setSpacing(12);
    m_bar = new QProgressBar(this);
    name(m_bar, "Progress", tr("Progress"));
    m_bar->setRange(0, 1000);
    m_bar->setTextVisible(false);
    column->addWidget(m_bar);
    auto* row = new QHBoxLayout;
    m_stage = new QLabel(this);
    name(m_stage, "Stage", tr("Progress in words"));
    m_stage->setProperty("role", "muted");
    m_stage->setWordWrap(true);
    m_cancel = new QPushButton(this);
    name(m_cancel, "Cancel", tr("Close or cancel"));
    m_cancel->setToolTip(texts.cancelHelp);
    m_start = new QPushButton(texts.start, this);
    name(m_start, "Start", texts.start);
    m_start->setProperty("role", "primary");
    m_start->setDefault(true);
    row->addWidget(m_stage, 1);
    row->addWidget(m_cancel);
    row->addWidget(m_start);
    column->addLayout(row);
    connect(m_start, &QPushButton::clicked, this, &JobFooter::startWanted);
    connect(m_cancel, &QPushButton::clicked, this, [this, dialog] {
        if (m_running)
            m_engine->stop(m_tag);
        else
            dialog->reject();
    });
    connect(engine, &Engine::progressed, this, &JobFooter::progressed);
    setRunning(false);
}

void JobFooter::allow(bool ready, const QString& help) {
    m_allowed = ready;
    m_start->setEnabled(ready && !m_running);
    m_start->setToolTip(help);
}

void JobFooter::tell(const QString& sentence) {
    m_stage->setText(sentence);
}

void JobFooter::setRunning(bool running) {
    m_running = running;
    m_start->setEnabled(m_allowed && !running);
    m_bar->setVisible(running);
    m_cancel->setText(running ? tr("Cancel") : tr("Close"));
    emit runningChanged(running);
}

void JobFooter::run(const QString& stage, std::function<CaptureResult(const Job&)> work,
                    Index tokens) {
    m_tokens = tokens;
    m_bar->setValue(0);
    tell(stage);
    setRunning(true);
    m_clock.start();
    m_engine->run(Engine::Long, m_tag, std::move(work))
        .then(this,
              [this](const CaptureResult& result) {
                  setRunning(false);
                  tell({});
                  emit finished(result);
              })
        .onCanceled(this,
                    [this] {
                        setRunning(false);
                        tell(m_texts.cancelled);
                    })
        .onFailed(this, [this](const std::exception& e) {
            setRunning(false);
            tell(QString::fromUtf8(e.what()));
            emit failed(QString::fromUtf8(e.what()));
        });
}

void JobFooter::progressed(const QString& tag, double fraction, const QString& stage) {
    if (tag != m_tag || !m_running) return;
    m_bar->setValue(int(1000 * fraction));
    const double seconds = double(m_clock.elapsed()) / 1e3;
    QStringList words;
    if (!stage.isEmpty()) words << stage;
    if (fraction > 0.06 && seconds > 0.5) {  // before, they would only jump about
        if (m_tokens > 0)
            words
                << tr("%1 tokens/s").arg(thousands(qint64(double(m_tokens) * fraction / seconds)));
        words << tr("%1 left").arg(durationText(seconds * (1 - fraction) / fraction));
    }
    tell(words.join(QStringLiteral(" · ")));
}

}  // namespace sparsight::ui
