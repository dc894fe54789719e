#pragma once

#include <QSize>
#include <QString>

namespace sparsight::ui {

/// The command line of sparsight-gui.
struct GuiOptions {
    QString open;      ///< model, session or any file that the window can open
    QSize geometry;    ///< empty = as it was
    QString settings;  ///< directory; "" = the user's own
    QString theme;     ///< "" = as it was
    QString script, log, screenshot;
    quint64 seed = 1;
    /// Repeatable windows: no animation, no blinking caret, no dialogs that wait for a person.
    bool test() const { return !script.isEmpty() || !screenshot.isEmpty(); }
};

}  // namespace sparsight::ui
