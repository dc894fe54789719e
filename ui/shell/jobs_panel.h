#pragma once

#include <QElapsedTimer>
#include <QHash>
#include <QWidget>

class QLabel;
class QProgressBar;
class QVBoxLayout;

namespace sparsight::ui {

class Engine;

/// What a job's tag means in words; "" for jobs that are not worth a row.
QString jobTitle(const QString& tag);
/// "12 s", "3 min", "1 h 20 min".
QString durationText(double seconds);

/// The jobs under way: name, progress, time left, cancel.
class JobsPanel : public QWidget {
    Q_OBJECT
public:
    explicit JobsPanel(Engine* engine, QWidget* parent = nullptr);
    int running() const { return int(m_rows.size()); }
    /// "Heads table 40 %", of the job that began first; "" = none.
    QString summary() const;

signals:
    void changed();

private:
    struct Row {
        QWidget* box;
        QLabel *title, *detail;
        QProgressBar* bar;
        QElapsedTimer clock;
        int count;  ///< jobs of this tag that have begun and not ended
        double fraction = 0;
    };
    void began(const QString& tag);
    void progressed(const QString& tag, double fraction, const QString& stage);
    void ended(const QString& tag, const QString& outcome);

    Engine* m_engine;
    QVBoxLayout* m_column;
    QLabel *m_empty, *m_last;
    QHash<QString, Row> m_rows;
    QStringList m_order;
};

}  // namespace sparsight::ui
