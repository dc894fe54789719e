#pragma once

#include <QWidget>

class QLabel;
class QFormLayout;

namespace sparsight::ui {

class Document;
class Engine;

/// What the selected head is: its numbers with units, its label and, in words, why it has it.
class HeadPanel : public QWidget {
    Q_OBJECT
public:
    HeadPanel(Document* document, Engine* engine, QWidget* parent = nullptr);

    /// The head's name and label, for the panel's title line.
    QWidget* tools() const { return m_tools; }

private:
    void refresh();
    QLabel* addRow(QFormLayout* form, const QString& name, const QString& objectName,
                   const QString& help);

    Document* m_document;
    QWidget* m_tools;
    QLabel *m_title, *m_label, *m_why;
    QLabel *m_retrieval, *m_sink, *m_local, *m_entropy, *m_distance, *m_streaming, *m_group;
};

}  // namespace sparsight::ui
