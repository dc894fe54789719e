#include "ui/panels/panel_parts.h"

#include <QLabel>
#include <QStyle>

namespace sparsight::ui {

QString percent(double share) {
    const int decimals = share < 0.0995 ? 2 : share < 0.9995 ? 1 : 0;
    return QString::number(100 * share, 'f', decimals) + QStringLiteral(" %");
}

QLabel* mutedLabel(const QString& text, QWidget* parent) {
    auto* label = new QLabel(text, parent);
    label->setProperty("role", "muted");
    return label;
}

void setLook(QLabel* label, const char* property, bool on) {
    if (label->property(property).toBool() == on) return;
    label->setProperty(property, on);
    label->style()->unpolish(label);
    label->style()->polish(label);
}

}  // namespace sparsight::ui
