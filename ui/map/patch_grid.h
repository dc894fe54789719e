#pragma once

#include <QWidget>
#include <vector>

#include "ui/document.h"

namespace sparsight::ui {

/// What one token of an image reads, or by whom it is read: the patches as they lie in the image,
/// the class token beside them. A click selects as in the text.
class PatchGrid : public QWidget {
    Q_OBJECT
public:
    PatchGrid(Document* document, QWidget* parent);
    /// @param p  one value per token, class token first; empty = nothing to show
    void setProbabilities(std::vector<float> p);
    void setKeyMode(bool on);
    QRectF tokenRect(Index token) const;  ///< the token's cell, empty when there is none
    QSize minimumSizeHint() const override { return {120, 80}; }

signals:
    void clicked(Index token, bool otherWay);

protected:
    void paintEvent(QPaintEvent* event) override;
    void mousePressEvent(QMouseEvent* event) override;
    bool event(QEvent* event) override;

private:
    Index tokenAt(const QPointF& point) const;
    double cell() const;  ///< side of a patch in pixels

    Document* m_document;
    std::vector<float> m_p;
    bool m_keyMode = false;
};

}  // namespace sparsight::ui
