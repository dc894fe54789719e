#include "ui/shell/command.h"

#include <QAction>
#include <QElapsedTimer>
#include <QWidget>

#include "core/masks/method.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
namespace {

constexpr int kRecent = 12;

QString nearestId(const QString& id, const std::vector<Command>& commands) {
    std::vector<std::string> names;
    for (const Command& c : commands) names.push_back(c.id.toStdString());
    const std::vector<std::string_view> views(names.begin(), names.end());
    return QString::fromStdString(nearest(id.toStdString(), views));
}

}  // namespace

Commands::Commands(QWidget* window) : QObject(window), m_window(window) {}

QAction* Commands::add(Command command) {
    auto* action = new QAction(command.title, m_window);
    action->setObjectName(command.id);
    action->setShortcut(command.key);
    action->setShortcutContext(Qt::WindowShortcut);
    action->setCheckable(bool(command.checked));
    connect(action, &QAction::triggered, this, [this, id = command.id] { run(id); });
    m_window->addAction(action);
    m_actions.insert(command.id, action);
    m_index.insert(command.id, int(m_commands.size()));
    m_commands.push_back(std::move(command));
    return action;
}

const Command* Commands::find(const QString& id) const {
    const auto at = m_index.constFind(id);
    return at == m_index.constEnd() ? nullptr : &m_commands[std::size_t(*at)];
}

QString Commands::run(const QString& id, const QJsonObject& args) {
    QElapsedTimer timer;
    timer.start();
    QString error;
    const Command* found = find(id);
    if (!found) {
        const QString close = nearestId(id, m_commands);
        error = tr("There is no command '%1'%2.")
                    .arg(id, close.isEmpty() ? QString() : tr("; did you mean '%1'?").arg(close));
    } else if (const QString reason = blockedReason(*found); !reason.isEmpty()) {
        error = tr("%1: %2").arg(found->title, reason);
    } else {
        if (found->inPalette) {
            m_recent.removeAll(id);
            m_recent.prepend(id);
            while (m_recent.size() > kRecent) m_recent.removeLast();
        }
        try {
            found->run(args);
        } catch (const std::exception& e) {
            error = QString::fromUtf8(e.what());
        }
    }
    QJsonObject line{{QStringLiteral("id"), id},
                     {QStringLiteral("took"), double(timer.nsecsElapsed()) / 1e6}};
    if (!args.isEmpty()) line.insert(QStringLiteral("args"), args);
    if (!error.isEmpty()) line.insert(QStringLiteral("error"), error);
    uiLog(QStringLiteral("command"), line);
    if (!error.isEmpty()) emit failed(error);
    refresh();
    emit finished(id);
    return error;
}

void Commands::refresh() {
    for (const Command& c : m_commands) {
        QAction* action = m_actions.value(c.id);
        const QString reason = blockedReason(c);
        action->setEnabled(reason.isEmpty());
        if (c.checked) action->setChecked(c.checked());
        QString tip = c.help.isEmpty() ? c.title : c.help;
        if (!c.key.isEmpty())
            tip += QStringLiteral("  (%1)").arg(c.key.toString(QKeySequence::NativeText));
        if (!reason.isEmpty()) tip += QStringLiteral("\n") + reason;
        action->setToolTip(tip);
        action->setStatusTip(reason);
    }
}

int fuzzyScore(const QString& typed, const QString& text) {
    int score = 0;
    qsizetype at = 0;
    bool run = false;
    for (const QChar c : typed) {
        if (c.isSpace()) {
            run = false;
            continue;
        }
        const qsizetype found = text.indexOf(c, at, Qt::CaseInsensitive);
        if (found < 0) return -1;
        const bool start = found == 0 || !text[found - 1].isLetterOrNumber();
        score += 1 + (start ? 6 : 0) + (run && found == at ? 4 : 0) -
                 int(std::min<qsizetype>(found - at, 3));
        at = found + 1;
        run = true;
    }
    return std::max(score, 0);
}

QString argument(const QJsonObject& args, const char* name) {
    return args.value(QLatin1String(name)).toString();
}

qint64 numberArgument(const QJsonObject& args, const char* name, qint64 otherwise) {
    return qint64(args.value(QLatin1String(name)).toDouble(double(otherwise)));
}

void requireArgument(const QJsonObject& args, const char* name) {
    if (!args.contains(QLatin1String(name)))
        throw Error(Errc::Usage, QObject::tr("this command needs the argument '%1'")
                                     .arg(QLatin1String(name))
                                     .toStdString());
}

}  // namespace sparsight::ui
