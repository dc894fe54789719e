#pragma once

#include <QJsonArray>
#include <QObject>
#include <QPixmap>
#include <QTimer>

namespace sparsight::ui {

class MainWindow;

/// `--ui-script` and `--screenshot` (ux.md T3): runs a list of {id, args} commands, each after the
/// one before has come to rest, then writes the window as a picture and ends the program.
class ScriptRunner : public QObject {
    Q_OBJECT
public:
    explicit ScriptRunner(MainWindow* window);
    /// @throws Error(Io) / Error(Format) with the place of the mistake
    void load(const QString& file);
    void setScreenshot(const QString& file) { m_screenshot = file; }
    /// Begins when the window is shown and idle.
    void start();

signals:
    /// @param status 0, or 3 when a command failed or the picture could not be written
    void finished(int status);

private:
    void tick();
    void next();
    void end();

    MainWindow* m_window;
    QJsonArray m_commands;
    qsizetype m_at = 0;
    QString m_screenshot;
    QTimer m_tick;
    int m_calm = 0;      ///< ticks in a row without work
    double m_began = 0;  ///< ms at which the command under way began
    bool m_failed = false, m_running = false;
};

/// The window as it is shown, with the dialogs over it.
QPixmap pictureOf(QWidget& window);

/// One line of the log per interactive widget on screen: name, class, rectangle in the window,
/// enabled, focus, accessible name (ux.md T4).
QJsonArray dumpWidgets(const QWidget& window);

}  // namespace sparsight::ui
