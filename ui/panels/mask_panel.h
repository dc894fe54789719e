#pragma once

#include <QWidget>
#include <vector>

class QCheckBox;
class QGridLayout;
class QLabel;
class QSlider;
class QPushButton;
class QToolButton;

namespace sparsight::ui {

class Document;
class Engine;
class ParamEditor;

/// The mask layers: visible or not, colour, recall and density on the selected head; below, the
/// parameters of the active one and its key figures.
class MaskPanel : public QWidget {
    Q_OBJECT
public:
    MaskPanel(Document* document, Engine* engine, QWidget* parent = nullptr);

    /// Add and remove, for the panel's title line.
    QWidget* tools() const { return m_tools; }

protected:
    void showEvent(QShowEvent* event) override;

private:
    struct Row {
        QCheckBox* visible;
        QToolButton* colour;
        QPushButton* name;
        QLabel *recall, *density;
    };
    void rebuild();
    void orderTabs();  ///< as the eye goes: from above to below
    void refreshNumbers();
    void refreshActive();
    /// What to do or what failed, a sentence; "" = nothing.
    QString note() const;

    Document* m_document;
    QWidget* m_tools;
    QGridLayout* m_grid;
    std::vector<Row> m_rows;
    QCheckBox* m_lost;
    QLabel *m_methodTitle, *m_source, *m_note;
    QToolButton *m_add, *m_remove;
    ParamEditor* m_params;
    QSlider* m_opacity;
    QLabel *m_recall, *m_worst, *m_tiles, *m_needle, *m_overlap;
};

}  // namespace sparsight::ui
