#pragma once

#include <QDialog>
#include <memory>

#include "core/export/figure.h"

class QCheckBox;
class QComboBox;
class QLabel;

namespace sparsight::ui {

class Document;
class Engine;

/// Figure export with a preview that is the figure: preset sizes, PNG, SVG or PDF; colour bar,
/// axes, overlays and caption are in.
class FigureDialog : public QDialog {
    Q_OBJECT
public:
    FigureDialog(Document* document, Engine* engine, QWidget* parent = nullptr);
    /// Writes the figure as it is set up. For scripts; the dialog's buttons call it too.
    void exportTo(const QString& file);

signals:
    void exported(const QString& file);
    void failed(const QString& sentence);

private:
    void recompute();  ///< pixels of the view in the Quick lane
    void preview();
    void lose(const QString& sentence);  ///< there is no figure, and why
    FigureSize size() const;

    Document* m_document;
    Engine* m_engine;
    QComboBox *m_preset, *m_part;
    QCheckBox *m_overlays, *m_dark;
    QLabel *m_image, *m_status;
    std::shared_ptr<const MapFigure> m_figure;  ///< null while it is computed
    QString m_waitingFile;                      ///< to be written when the figure is there
};

}  // namespace sparsight::ui
