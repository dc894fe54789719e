#pragma once

#include <QFrame>
#include <array>
#include <memory>

#include "ui/shell/tour_steps.h"

class QLabel;
class QPushButton;

namespace sparsight::ui {

class Document;
class Engine;

/// Five clicks that tell the sample's story, each with real computation and its measured result.
class TourPanel : public QFrame {
    Q_OBJECT
public:
    static constexpr int kSteps = 5;
    /// @param folder  where the last step writes its export
    TourPanel(Document* document, Engine* engine, const QString& folder, quint64 seed,
              QWidget* parent = nullptr);
    void sampleFailed() { setRunning(-1); }  ///< its step can be tried again
    void begin();
    /// Does step `step` (0..4); the earlier ones must be done.
    void doStep(int step);
    int done() const { return m_done; }
    QString result(int step) const;

signals:
    void sampleWanted();  ///< step 1: open the sample session
    void planMade(const AttentionPlan& plan);
    void failed(const QString& sentence);

private:
    template <class Work, class Show>
    void compute(int step, Work work, Show show);
    void finish(int step, const QString& result);
    void setRunning(int step);
    void sampleArrived();
    void layMasks(const char* spec);
    void refresh();

    Document* m_document;
    Engine* m_engine;
    QString m_folder;
    quint64 m_seed;
    std::shared_ptr<TourWorld> m_world;
    AttentionPlan m_plan;
    Index m_layer = -1, m_head = -1;  ///< the retrieval head that step 1 found
    int m_done = 0, m_running = -1;
    struct Row {
        QLabel *number, *title, *text, *result;
        QPushButton* button;
    };
    std::array<Row, kSteps> m_rows{};
    QPushButton* m_close;
};

}  // namespace sparsight::ui
