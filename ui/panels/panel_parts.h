#pragma once

#include <QString>

class QLabel;
class QWidget;

namespace sparsight::ui {

/// A share in per cent as the panels write it: "3.42 %", "29.7 %", "100 %".
QString percent(double share);
/// Small grey text, as for a value's name or a caption.
QLabel* mutedLabel(const QString& text, QWidget* parent);
/// Switches a label's dynamic property that the stylesheet reads ("warn", "stale").
void setLook(QLabel* label, const char* property, bool on);

}  // namespace sparsight::ui
