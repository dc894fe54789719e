#pragma once

#include <QImage>
#include <QWidget>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "ui/document.h"

class QComboBox;
class QLabel;
class QScrollArea;

namespace sparsight::ui {

class Engine;
class HeadCanvas;

/// What a head's cell is coloured by, or heads are sorted by.
enum class HeadMetric { None, Retrieval, Sink, Local, Entropy, Distance, Recall, Density };

/// All heads at a glance: layers down and heads right, or in the order of a metric. A cell shows
/// the head's map from the pyramid, or the colour of a metric. Heads of one KV group stand closer
/// together. Hover tells the facts, a click or the arrow keys select.
class HeadGrid : public QWidget {
    Q_OBJECT
public:
    HeadGrid(Document* document, Engine* engine, QWidget* parent);

protected:
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    void refreshRange();

    Document* m_document;
    QComboBox *m_colour, *m_sort;
    QLabel* m_range;
    QScrollArea* m_area;
    HeadCanvas* m_canvas;
};

/// The cells of the grid.
class HeadCanvas : public QWidget {
    Q_OBJECT
public:
    HeadCanvas(Document* document, QWidget* parent);
    void setColour(HeadMetric metric);
    void setSort(HeadMetric metric);
    /// The room that the scroll area has.
    void setRoom(const QSize& room);
    /// Least and largest value of the metric in colour; null = none known.
    std::optional<std::pair<double, double>> range() const { return m_range; }
    QSize sizeHint() const override { return minimumSizeHint(); }
    QSize minimumSizeHint() const override;

signals:
    void rangeChanged();
    void selectionMoved(const QRect& cell);

protected:
    void paintEvent(QPaintEvent* event) override;
    void changeEvent(QEvent* event) override;
    void focusInEvent(QFocusEvent* event) override;
    void focusOutEvent(QFocusEvent* event) override;
    bool event(QEvent* event) override;
    void mousePressEvent(QMouseEvent* event) override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void leaveEvent(QEvent* event) override;
    void keyPressEvent(QKeyEvent* event) override;

private:
    struct Head {
        Index layer = 0, head = 0;
    };
    void reorder();
    void recolour();
    std::optional<double> value(const Head& head, HeadMetric metric) const;
    QRect cellRect(int at) const;
    int cellAt(const QPoint& point) const;
    int selected() const;
    QString facts(const Head& head) const;
    QString layerLabel(Index layer) const;  ///< "L3"; "c0" of cross.0
    bool there(const Head& head) const;     ///< towers may have fewer heads than the widest one
    int columns() const;
    bool byLayer() const { return m_sort == HeadMetric::None; }

    Document* m_document;
    HeadMetric m_colour = HeadMetric::None, m_sort = HeadMetric::None;
    std::vector<Head> m_order;
    std::map<std::pair<Index, Index>, QImage> m_pictures;  ///< by layer and head
    std::optional<std::pair<double, double>> m_range;
    int m_cell = 24, m_hover = -1;
    QSize m_room{220, 240};
    bool m_keyboardFocus = false;  ///< the focus came by the keyboard: its ring is shown
};

}  // namespace sparsight::ui
