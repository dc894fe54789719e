#pragma once

#include <QWidget>

class QGridLayout;
class QLabel;
class QVBoxLayout;

namespace sparsight::ui {

class Document;

/// The Overview: what was captured, which heads matter, what the active mask loses, warnings; one
/// look before the maps. Head names are links.
class SummaryPage : public QWidget {
    Q_OBJECT
public:
    explicit SummaryPage(Document* document, QWidget* parent = nullptr);

signals:
    void inspect();  ///< a head was chosen: show its map

private:
    QLabel* addCard(QGridLayout* grid, int row, int column, int span, const QString& title,
                    const QString& name);
    void refresh();
    QString factsText() const;
    QString labelsText() const;
    QString headsText() const;
    QString maskText() const;
    QString warningsText() const;

    Document* m_document;
    QLabel *m_facts, *m_labels, *m_heads, *m_mask, *m_warnings;
};

}  // namespace sparsight::ui
