#pragma once

#include <QColor>
#include <QWidget>
#include <optional>

#include "core/masks/method.h"
#include "core/run/kernel_run.h"

class QBarSet;
class QChart;
class QChartView;
class QCheckBox;
class QComboBox;
class QLabel;
class QPushButton;
class QValueAxis;

namespace sparsight::ui {

class Document;
class Engine;

/// Runs the active mask's kernel on this machine: dense, what density promised, measured, and what
/// the selection cost.
class RunPanel : public QWidget {
    Q_OBJECT
public:
    RunPanel(Document* document, Engine* engine, QWidget* parent = nullptr);

public slots:
    void run();

signals:
    void finished(const QString& summary);  ///< one line, for the status bar and the log

private:
    /// A finished run and what it was of.
    struct Shown {
        KernelRun run;
        MethodSpec spec;
        QString where;
        QColor colour;
    };
    void draw();
    void refresh();

    Document* m_document;
    Engine* m_engine;
    QLabel *m_summary, *m_detail;
    QComboBox* m_scope;
    QCheckBox* m_exact;
    QPushButton* m_button;
    QChart* m_chart;
    QChartView* m_view;
    QBarSet *m_dense, *m_promised, *m_time, *m_select;
    QValueAxis* m_axis;
    std::optional<Shown> m_result;
    QString m_failure;
    bool m_running = false;
};

}  // namespace sparsight::ui
