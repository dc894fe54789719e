#pragma once

#include <QDockWidget>

namespace sparsight::ui {

/// A dock with the house's title line: small semi-bold name at the left, float and close beside it
/// while the mouse is over it, the panel's main choice at the right. Moves, floats, tabs and closes
/// as every QDockWidget.
/// @param tools  taken out of the content's own layout into the title line; null = none
/// @param tab    the name on its tab, where the title is too long for four beside each other;
///               "" = the title
QDockWidget* makeDock(const QString& name, const QString& title, QWidget* content,
                      QWidget* tools = nullptr, const QString& tab = {});

/// Lets a panel be taller than its dock, never wider: a number that is cut off is worse than a
/// smaller map.
QWidget* scrolled(QWidget* panel);

}  // namespace sparsight::ui
