#include "ui/shell/script.h"

#include <QAbstractButton>
#include <QAbstractItemView>
#include <QAbstractScrollArea>
#include <QAbstractSlider>
#include <QAbstractSpinBox>
#include <QAction>
#include <QApplication>
#include <QComboBox>
#include <QDialog>
#include <QFile>
#include <QHeaderView>
#include <QJsonDocument>
#include <QJsonObject>
#include <QLineEdit>
#include <QPainter>
#include <QPixmap>
#include <QPlainTextEdit>
#include <QScrollBar>
#include <QTabBar>

#include "ui/shell/main_window.h"
#include "ui/shell/tour.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
namespace {

constexpr int kTickMs = 15;
/// A result is queued right behind the end of its job, a paint behind the result, and panels may
/// wait a moment before they ask for more.
constexpr int kCalmTicks = 12;

bool interactive(const QWidget& w) {
    // Parts of other widgets.
    if (qobject_cast<const QScrollBar*>(&w) || qobject_cast<const QHeaderView*>(&w) ||
        w.inherits("QTableCornerButton"))
        return false;
    if (const auto* area = qobject_cast<const QAbstractScrollArea*>(w.parentWidget());
        area && area->viewport() == &w)
        return false;
    return qobject_cast<const QAbstractButton*>(&w) || qobject_cast<const QLineEdit*>(&w) ||
           qobject_cast<const QComboBox*>(&w) || qobject_cast<const QAbstractSlider*>(&w) ||
           qobject_cast<const QAbstractSpinBox*>(&w) ||
           qobject_cast<const QAbstractItemView*>(&w) || qobject_cast<const QPlainTextEdit*>(&w) ||
           qobject_cast<const QTabBar*>(&w) || (w.focusPolicy() & Qt::TabFocus);
}

QString accessibleName(const QWidget& w) {
    if (!w.accessibleName().isEmpty()) return w.accessibleName();
    if (const auto* button = qobject_cast<const QAbstractButton*>(&w);
        button && !button->text().isEmpty())
        return button->text();
    return w.toolTip();
}

}  // namespace

ScriptRunner::ScriptRunner(MainWindow* window) : QObject(window), m_window(window) {
    m_tick.setInterval(kTickMs);
    connect(&m_tick, &QTimer::timeout, this, &ScriptRunner::tick);
}

void ScriptRunner::load(const QString& name) {
    QFile file(name);
    if (!file.open(QIODevice::ReadOnly))
        throw Error(
            Errc::Io,
            tr("The script '%1' cannot be read: %2.").arg(name, file.errorString()).toStdString());
    QJsonParseError error;
    const QJsonDocument json = QJsonDocument::fromJson(file.readAll(), &error);
    if (!json.isArray())
        throw Error(Errc::Format,
                    tr("The script '%1' is no JSON list of {\"id\", \"args\"}: %2 at byte %3.")
                        .arg(name, error.errorString())
                        .arg(error.offset)
                        .toStdString());
    m_commands = json.array();
}

void ScriptRunner::start() {
    m_calm = 0;
    m_tick.start();
}

void ScriptRunner::tick() {
    m_calm = m_window->idle() ? m_calm + 1 : 0;
    if (m_calm < kCalmTicks) return;
    m_calm = 0;
    if (m_running) {
        m_running = false;
        const QJsonObject command = m_commands[m_at - 1].toObject();
        uiLog(QStringLiteral("settled"),
              {{QStringLiteral("id"), command.value(QStringLiteral("id"))},
               {QStringLiteral("took"), uiMilliseconds() - m_began}});
    }
    if (m_at < m_commands.size())
        next();
    else
        end();
}

void ScriptRunner::next() {
    const QJsonObject command = m_commands[m_at++].toObject();
    m_began = uiMilliseconds();
    m_running = true;
    const QString error =
        m_window->commands().run(command.value(QStringLiteral("id")).toString(),
                                 command.value(QStringLiteral("args")).toObject());
    if (!error.isEmpty() && !command.value(QStringLiteral("mayFail")).toBool()) m_failed = true;
}

void ScriptRunner::end() {
    m_tick.stop();
    if (!m_screenshot.isEmpty()) {
        const bool written = pictureOf(*m_window).save(m_screenshot, "PNG");
        uiLog(QStringLiteral("screenshot"),
              {{QStringLiteral("file"), m_screenshot}, {QStringLiteral("written"), written}});
        if (!written) m_failed = true;
    }
    emit finished(m_failed ? 3 : 0);
}

QPixmap pictureOf(QWidget& window) {
    QPixmap picture = window.grab();
    QPainter painter(&picture);
    for (QWidget* shown : QApplication::topLevelWidgets())
        if (qobject_cast<QDialog*>(shown) && shown->isVisible())
            painter.drawPixmap((window.width() - shown->width()) / 2,
                               (window.height() - shown->height()) / 2, shown->grab());
    return picture;
}

QJsonArray dumpWidgets(const QWidget& window) {
    QJsonArray list;
    for (const QWidget* w : window.findChildren<QWidget*>()) {
        if (!w->isVisible() || !interactive(*w) || w->objectName().startsWith(QLatin1String("qt_")))
            continue;
        const QPoint at = w->mapTo(w->window(), QPoint(0, 0));
        list.append(QJsonObject{
            {QStringLiteral("name"), w->objectName()},
            {QStringLiteral("class"), QString::fromLatin1(w->metaObject()->className())},
            {QStringLiteral("rect"), QJsonArray{at.x(), at.y(), w->width(), w->height()}},
            {QStringLiteral("enabled"), w->isEnabled()},
            {QStringLiteral("focus"), w->hasFocus()},
            {QStringLiteral("accessibleName"), accessibleName(*w)},
            {QStringLiteral("toolTip"), w->toolTip()}});
    }
    return list;
}

void MainWindow::addTestCommands() {
    m_commands.add(
        {"dump-widgets",
         tr("List the widgets"),
         {},
         [this](const QJsonObject& args) {
             const QJsonArray list = dumpWidgets(*this);
             for (const QJsonValue& w : list) uiLog(QStringLiteral("widget"), w.toObject());
             const QString name = args.value(QStringLiteral("file")).toString();
             if (name.isEmpty()) return;
             QFile file(name);
             if (!file.open(QIODevice::WriteOnly) || file.write(QJsonDocument(list).toJson()) < 0)
                 throw Error(
                     Errc::Io,
                     tr("'%1' cannot be written: %2").arg(name, file.errorString()).toStdString());
         },
         {},
         {},
         tr("Writes name, place, enabled and focus of every widget to the log (file)"),
         false});
    m_commands.add(
        {"wait", tr("Wait for all jobs"), {}, [](const QJsonObject&) {}, {}, {}, {}, false});
    m_commands.add({"screenshot",
                    tr("Write a picture of the window"),
                    {},
                    [this](const QJsonObject& args) {
                        const QString name = args.value(QStringLiteral("file")).toString();
                        const QString widget = args.value(QStringLiteral("widget")).toString();
                        QWidget* shown = widget.isEmpty() ? this : findChild<QWidget*>(widget);
                        if (!shown)
                            throw Error(Errc::NotFound,
                                        tr("there is no widget '%1'").arg(widget).toStdString());
                        if (!(shown == this ? pictureOf(*this) : shown->grab()).save(name))
                            throw Error(Errc::Io,
                                        tr("'%1' cannot be written").arg(name).toStdString());
                    },
                    {},
                    {},
                    tr("Of the window or one widget (file, widget)"),
                    false});
    m_commands.add({"window.resize",
                    tr("Resize the window"),
                    {},
                    [this](const QJsonObject& args) {
                        resize(args.value(QStringLiteral("width")).toInt(width()),
                               args.value(QStringLiteral("height")).toInt(height()));
                    },
                    {},
                    {},
                    tr("For scripts (width, height)"),
                    false});
    m_commands.add(
        {"tour.step",
         tr("Do a step of the tour"),
         {},
         [this](const QJsonObject& args) {
             const int step = args.value(QStringLiteral("step")).toInt(m_tour->done() + 1);
             if (step < 1 || step > TourPanel::kSteps || step > m_tour->done() + 1)
                 throw Error(
                     Errc::Usage,
                     tr("step %1 comes after step %2").arg(step).arg(m_tour->done()).toStdString());
             m_tour->begin();
             m_tour->doStep(step - 1);
         },
         {},
         {},
         tr("For scripts (step 1 to 5)"),
         false});
    m_commands.add(
        {"state",
         tr("Write the state to the log"),
         {},
         [this](const QJsonObject&) {
             QJsonArray masks;
             for (int i = 0; i < int(m_document.masks().size()); ++i) {
                 const auto m = m_document.metrics(i);
                 QJsonObject o{
                     {QStringLiteral("spec"),
                      QString::fromStdString(toString(m_document.masks()[std::size_t(i)].spec))},
                     {QStringLiteral("visible"), m_document.masks()[std::size_t(i)].visible}};
                 if (m) {
                     o.insert(QStringLiteral("recall"), m->recall);
                     o.insert(QStringLiteral("density"), m->density);
                     o.insert(QStringLiteral("outputError"), m->outputError);
                 }
                 masks.append(o);
             }
             const MapRect v = m_document.view();
             uiLog(QStringLiteral("state"),
                   {{QStringLiteral("title"), windowTitle()},
                    {QStringLiteral("layer"), qint64(m_document.layer())},
                    {QStringLiteral("head"), qint64(m_document.head())},
                    {QStringLiteral("query"), qint64(m_document.query())},
                    {QStringLiteral("key"), qint64(m_document.key())},
                    {QStringLiteral("view"), QJsonArray{v.q0, v.q1, v.k0, v.k1}},
                    {QStringLiteral("facts"), qint64(m_document.headFacts().size())},
                    {QStringLiteral("table"), qint64(m_document.tableMetrics().size())},
                    {QStringLiteral("active"), m_document.activeMask()},
                    {QStringLiteral("masks"), masks}});
         },
         {},
         {},
         tr("For scripts: title, selection, view, masks with their numbers"),
         false});
}

}  // namespace sparsight::ui
