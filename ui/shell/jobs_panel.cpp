#include "ui/shell/jobs_panel.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QProgressBar>
#include <QPushButton>
#include <QVBoxLayout>

#include "ui/engine.h"

namespace sparsight::ui {

QString jobTitle(const QString& tag) {
    static const QHash<QString, QString> titles{
        {QStringLiteral("capture"), QObject::tr("Capture")},
        {QStringLiteral("import"), QObject::tr("Import")},
        {QStringLiteral("open"), QObject::tr("Open session")},
        {QStringLiteral("facts"), QObject::tr("Head facts")},
        {QStringLiteral("table"), QObject::tr("Heads table")},
        {QStringLiteral("run"), QObject::tr("Kernel run")},
        {QStringLiteral("plan"), QObject::tr("Plan search")},
        {QStringLiteral("judge"), QObject::tr("Plan against dense")},
        {QStringLiteral("nextTokens"), QObject::tr("Next tokens")},
        {QStringLiteral("curve"), QObject::tr("Recall curves")},
        {QStringLiteral("tour"), QObject::tr("Tour step")},
        {QStringLiteral("check"), QObject::tr("Session check")},
        {QStringLiteral("figure"), QObject::tr("Figure")},
    };
    return titles.value(tag);
}

QString durationText(double seconds) {
    const auto s = qint64(seconds + 0.5);
    if (s < 1) return QObject::tr("under 1 s");
    if (s < 90) return QObject::tr("%1 s").arg(s);
    if (s < 5400) return QObject::tr("%1 min").arg((s + 30) / 60);
    return QObject::tr("%1 h %2 min").arg(s / 3600).arg(s % 3600 / 60);
}

JobsPanel::JobsPanel(Engine* engine, QWidget* parent) : QWidget(parent), m_engine(engine) {
    setObjectName(QStringLiteral("jobsPanel"));
    m_column = new QVBoxLayout(this);
    m_column->setContentsMargins(12, 6, 12, 8);
    m_column->setSpacing(6);
    m_empty = new QLabel(tr("Nothing is running."), this);
    m_empty->setProperty("role", "muted");
    m_last = new QLabel(this);
    m_last->setObjectName(QStringLiteral("lastJob"));
    m_last->setProperty("role", "muted");
    m_last->setWordWrap(true);
    m_column->addWidget(m_empty);
    m_column->addStretch();
    m_column->addWidget(m_last);
    connect(engine, &Engine::began, this, &JobsPanel::began);
    connect(engine, &Engine::progressed, this, &JobsPanel::progressed);
    connect(engine, &Engine::ended, this, &JobsPanel::ended);
}

void JobsPanel::began(const QString& tag) {
    const QString title = jobTitle(tag);
    if (title.isEmpty()) return;
    if (const auto row = m_rows.find(tag); row != m_rows.end()) {
        ++row->count;
        row->clock.restart();
        row->fraction = 0;
        return;
    }
    Row row;
    row.box = new QWidget(this);
    auto* line = new QHBoxLayout(row.box);
    line->setContentsMargins(0, 0, 0, 0);
    row.title = new QLabel(title, row.box);
    row.title->setMinimumWidth(120);
    row.bar = new QProgressBar(row.box);
    row.bar->setRange(0, 1000);
    row.bar->setTextVisible(false);
    row.bar->setObjectName(QStringLiteral("jobBar.") + tag);
    row.bar->setAccessibleName(title);
    row.detail = new QLabel(row.box);
    row.detail->setProperty("role", "muted");
    row.detail->setMinimumWidth(160);
    auto* cancel = new QPushButton(tr("Cancel"), row.box);
    cancel->setObjectName(QStringLiteral("jobCancel.") + tag);
    cancel->setToolTip(tr("Stops it within half a second; what is finished stays"));
    connect(cancel, &QPushButton::clicked, this, [this, tag] { m_engine->stop(tag); });
    line->addWidget(row.title);
    line->addWidget(row.bar, 1);
    line->addWidget(row.detail);
    line->addWidget(cancel);
    m_column->insertWidget(0, row.box);
    row.clock.start();
    row.count = 1;
    m_rows.insert(tag, row);
    m_order << tag;
    m_empty->hide();
    emit changed();
}

void JobsPanel::progressed(const QString& tag, double fraction, const QString& stage) {
    const auto row = m_rows.find(tag);
    if (row == m_rows.end()) return;
    row->fraction = fraction;
    row->bar->setValue(int(1000 * fraction));
    const double seconds = double(row->clock.elapsed()) / 1e3;
    QString text = stage;
    // A time left out of the first moments would only jump about.
    if (fraction > 0.02 && seconds > 1) {
        if (!text.isEmpty()) text += QStringLiteral(" · ");
        text += tr("%1 left").arg(durationText(seconds * (1 - fraction) / fraction));
    }
    row->detail->setText(text);
    emit changed();
}

void JobsPanel::ended(const QString& tag, const QString& outcome) {
    const auto row = m_rows.find(tag);
    if (row == m_rows.end()) return;
    if (--row->count > 0) return;
    m_last->setText(
        tr("%1: %2, %3")
            .arg(jobTitle(tag), outcome, durationText(double(row->clock.elapsed()) / 1e3)));
    row->box->deleteLater();
    m_rows.erase(row);
    m_order.removeAll(tag);
    m_empty->setVisible(m_rows.isEmpty());
    emit changed();
}

QString JobsPanel::summary() const {
    if (m_order.isEmpty()) return {};
    const QString& tag = m_order.front();
    const QString text = tr("%1 %2 %").arg(jobTitle(tag)).arg(int(100 * m_rows[tag].fraction));
    return m_order.size() == 1 ? text : tr("%1 jobs · %2").arg(m_order.size()).arg(text);
}

}  // namespace sparsight::ui
