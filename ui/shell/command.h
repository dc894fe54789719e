#pragma once

#include <QHash>
#include <QJsonObject>
#include <QKeySequence>
#include <QObject>
#include <QStringList>
#include <functional>
#include <vector>

class QAction;
class QWidget;

namespace sparsight::ui {

/// One thing that the window can do. Menus, tool bar, palette, keys and scripts all run it from
/// here.
struct Command {
    QString id;     ///< stable, "map.fit": scripts and settings use it
    QString title;  ///< "Fit the whole map"
    QKeySequence key;
    /// Does it; `args` are the script's, empty from menus. Throws Error with a sentence when it
    /// cannot.
    std::function<void(const QJsonObject& args)> run;
    /// Why it cannot be run now, as a sentence; "" = it can. Null = always.
    std::function<QString()> blocked;
    std::function<bool()> checked;  ///< null = not a switch
    QString help;  ///< tooltip: one sentence, with the names of its arguments if it takes any
    bool inPalette = true;  ///< false for commands that mean nothing without arguments
};

/// The registry of all commands.
class Commands : public QObject {
    Q_OBJECT
public:
    explicit Commands(QWidget* window);

    /// Registers it and makes its QAction, whose shortcut is live in the whole window.
    QAction* add(Command command);
    const Command* find(const QString& id) const;
    const std::vector<Command>& all() const { return m_commands; }
    QAction* action(const QString& id) const { return m_actions.value(id); }
    /// Runs it; a failure goes to failed() and never further.
    /// @return the error's sentence, or ""
    QString run(const QString& id, const QJsonObject& args = {});
    /// Ids of the last commands run by the user, latest first.
    const QStringList& recent() const { return m_recent; }
    void setRecent(const QStringList& ids) { m_recent = ids; }
    QString blockedReason(const Command& command) const {
        return command.blocked ? command.blocked() : QString();
    }
    /// Brings enabled, checked and tooltips of all actions up to date.
    void refresh();

signals:
    void failed(const QString& sentence);
    void finished(const QString& id);

private:
    QWidget* m_window;
    std::vector<Command> m_commands;
    QHash<QString, int> m_index;
    QHash<QString, QAction*> m_actions;
    QStringList m_recent;
};

/// How well `text` matches what was typed: its letters in order, word starts and runs count more.
/// @return < 0 = no match
int fuzzyScore(const QString& typed, const QString& text);

/// A command's arguments: a text ("" = not given), a number, and the demand that one is there.
QString argument(const QJsonObject& args, const char* name);
qint64 numberArgument(const QJsonObject& args, const char* name, qint64 otherwise);
void requireArgument(const QJsonObject& args, const char* name);  ///< @throws Error(Usage)

}  // namespace sparsight::ui
