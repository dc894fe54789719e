#pragma once

#include <QLabel>

namespace sparsight::ui {

/// One line of plain text that ends in "…" where its place is too narrow, instead of being cut; the
/// whole text is its tooltip. May be squeezed to 40 px.
class ElidedLabel : public QLabel {
    Q_OBJECT
public:
    explicit ElidedLabel(QWidget* parent = nullptr);
    void tell(const QString& text);

protected:
    void paintEvent(QPaintEvent* event) override;
};

}  // namespace sparsight::ui
