#pragma once

#include <QWidget>

#include "sessions/analysis.h"

class QLabel;
class QTreeWidget;

namespace sparsight::ui {

class Document;
class Engine;

/// The keys that the selected row of the selected head reads most: those stored with the capture,
/// else computed. A click selects the key.
class TopKeysList : public QWidget {
    Q_OBJECT
public:
    TopKeysList(Document* document, Engine* engine, QWidget* parent = nullptr);

private:
    void request();
    void fill(Index row, const sessions::TopRow& found);
    void clear(const QString& sentence);

    Document* m_document;
    Engine* m_engine;
    QLabel *m_title, *m_origin;
    QTreeWidget* m_list;
};

}  // namespace sparsight::ui
