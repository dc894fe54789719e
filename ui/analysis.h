#pragma once

#include <QObject>
#include <QTimer>
#include <exception>
#include <memory>
#include <vector>

#include "ui/document.h"

namespace sparsight::ui {

class Engine;

/// Fills the document's results: statistics, head facts, policies, metrics and the heads table,
/// each in the lane that it belongs to. Newer requests replace older ones, so while a slider moves
/// only the last position is computed to the end.
class Analysis : public QObject {
    Q_OBJECT
public:
    Analysis(Document* document, Engine* engine, QObject* parent = nullptr);
    /// Something is queued, waiting for a timer or running.
    bool busy() const;

signals:
    /// A job for the whole session failed (a mask layer's failure stands in the document).
    /// @param sentence  what, where, what to do
    void failed(const QString& sentence);

private:
    void captureChanged();
    void headChanged();
    void readStats();
    void findFacts();
    void placeSelection();       ///< head and row of a fresh capture, where none is chosen yet
    void startMasks();           ///< what is missing: active layer first, then visible ones
    void startPolicy(int mask);  ///< step 1: the nominal set
    void startRecall(int mask);  ///< step 2: density, coverage, recall
    void startError(int mask);   ///< step 3: output error, the slow one
    void startTable();
    void fail(const std::exception& error);
    /// The layer's numbers are withdrawn; the mask panel shows the sentence why.
    void failMask(int mask, const std::exception& error);

    /// What a result was computed for; dropped on arrival when the document has moved on.
    struct Key {
        int generation;
        Index layer, head;
        MethodSpec spec;
    };
    Key keyOf(int mask) const;
    bool current(int mask, const Key& key) const;

    /// Dense output of the selected head, kept while its masks change. Filled and read in the
    /// lanes.
    struct DenseOutput;

    Document* m_document;
    Engine* m_engine;
    QTimer m_masksSoon, m_tableSoon;
    std::vector<MethodSpec> m_started;  ///< rule of each layer whose numbers are shown or under way
    MethodSpec m_tableSpec;
    int m_generation = 0;
    bool m_placed = false;
    std::shared_ptr<DenseOutput> m_dense;
};

}  // namespace sparsight::ui
