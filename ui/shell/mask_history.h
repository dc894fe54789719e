#pragma once

#include <QObject>
#include <QTimer>
#include <vector>

#include "ui/document.h"

namespace sparsight::ui {

/// Undo and redo of everything about the mask layers. Changes that follow each other within a
/// moment (a slider on its way) become one step.
class MaskHistory : public QObject {
    Q_OBJECT
public:
    explicit MaskHistory(Document* document, QObject* parent = nullptr);
    bool canUndo() const { return m_at > 0 || m_settle.isActive(); }
    bool canRedo() const { return m_at + 1 < m_states.size(); }
    /// No edit waits to become a step.
    bool settled() const { return !m_settle.isActive(); }
    void undo();
    void redo();
    /// Forgets all: another session.
    void clear();

signals:
    void changed();

private:
    struct State {
        std::vector<MaskLayer> masks;
        int active;
    };
    void record();
    void restore(const State& state);

    Document* m_document;
    QTimer m_settle;
    std::vector<State> m_states;
    std::size_t m_at = 0;
    bool m_restoring = false;
};

}  // namespace sparsight::ui
