#pragma once

#include <QElapsedTimer>
#include <QWidget>
#include <functional>

#include "ui/shell/capture_job.h"

class QDialog;
class QLabel;
class QProgressBar;
class QPushButton;

namespace sparsight::ui {

class Engine;

/// The lower end of a dialog that makes a session by one long job: progress in a bar and in words,
/// the button that starts, and one that cancels while the job runs and closes the dialog else.
class JobFooter : public QWidget {
    Q_OBJECT
public:
    struct Texts {
        QString start;       ///< on the button
        QString cancelHelp;  ///< tool tip of the other button
        QString cancelled;   ///< told after a cancel
    };
    /// @param tag  of the job; begins the widgets' object names
    JobFooter(Engine* engine, const QString& tag, const Texts& texts, QDialog* dialog);
    bool running() const { return m_running; }
    /// Whether the job may be started, and why, or why not.
    void allow(bool ready, const QString& help);
    void tell(const QString& sentence);
    /// Runs the work in the long lane; then finished() or failed() comes, unless it was cancelled.
    /// @param tokens  that it goes through, for a rate beside the time left; 0 = none is told
    void run(const QString& stage, std::function<CaptureResult(const Job&)> work, Index tokens = 0);

signals:
    void startWanted();
    void runningChanged(bool running);
    void finished(const CaptureResult& result);
    void failed(const QString& sentence);

private:
    void setRunning(bool running);
    void progressed(const QString& tag, double fraction, const QString& stage);

    Engine* m_engine;
    QString m_tag;
    Texts m_texts;
    QProgressBar* m_bar;
    QLabel* m_stage;
    QPushButton *m_start, *m_cancel;
    QElapsedTimer m_clock;
    Index m_tokens = 0;
    bool m_running = false, m_allowed = false;
};

}  // namespace sparsight::ui
