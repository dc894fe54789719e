#pragma once

#include <QWidget>

#include "ui/document.h"

class QLabel;
class QSlider;

namespace sparsight::ui {

/// The steps of a capture with generated tokens: the slider selects the query row of a step, and
/// map, text and read-outs follow. Hidden for captures of a prompt alone.
class DecodeBar : public QWidget {
    Q_OBJECT
public:
    explicit DecodeBar(Document* document, QWidget* parent = nullptr);
    /// Selects the next chosen step (by 1) or the one before (by -1).
    void move(int by);

private:
    void captureChanged();
    void queryChanged();
    void choose(int index);

    Document* m_document;
    std::vector<Index> m_steps;  ///< by the slider's value
    QSlider* m_slider;
    QLabel *m_title, *m_text;
};

}  // namespace sparsight::ui
