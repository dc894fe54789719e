#pragma once

#include <QDockWidget>

namespace sparsight::ui {

/// A dock with the house's title line: small semi-bold name at the left, float and close at the
/// right while the mouse is over it. Moves, floats, tabs and closes as every QDockWidget.
QDockWidget* makeDock(const QString& name, const QString& title, QWidget* content);

/// Lets a panel be taller than its dock, never wider: a number that is cut off is worse than a
/// smaller map.
QWidget* scrolled(QWidget* panel);

}  // namespace sparsight::ui
