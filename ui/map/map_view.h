#pragma once

#include <QElapsedTimer>
#include <QPixmap>
#include <QTimer>
#include <QWidget>
#include <map>
#include <optional>

#include "ui/map/head_data.h"
#include "ui/map/map_paint.h"

class QToolButton;

namespace sparsight::ui {

class Banner;
class Engine;

/// Room of the rulers that show the tokens' texts, pixels.
inline constexpr double kRulerTextLeft = 128, kRulerTextTop = 78;

/// The attention map of the selected head: queries down, keys right. The pyramid's coarse picture
/// stands at once; exact pixels of the visible rectangle replace it when the quick lane has them.
/// Mask layers, the lost mass, the selection's cross-hair, token rulers, the colour bar and a
/// minimap lie around and over it.
///
/// Wheel zooms at the cursor, drag pans, Shift+drag zooms to an area, a click selects query and
/// key, a double click shows all and returns; arrows move the selected pair (Shift 10, Ctrl 64),
/// W A S D pan. Logs a "paint" for each paint and a "frame" (time since the last one) while the
/// view moves.
class MapView : public QWidget {
    Q_OBJECT
public:
    MapView(Document* document, Engine* engine, QWidget* parent);
    QSize sizeHint() const override { return {720, 640}; }
    QSize minimumSizeHint() const override { return {320, 240}; }

signals:
    /// For the status bar: "2.3 tokens per pixel", "rows 0–1,499 · columns 0–1,499", "exact" or
    /// "pyramid 64".
    void statusChanged(const QString& perPixel, const QString& range, const QString& exactness);

protected:
    void paintEvent(QPaintEvent* event) override;
    void resizeEvent(QResizeEvent* event) override;
    void changeEvent(QEvent* event) override;
    void focusInEvent(QFocusEvent* event) override;
    void focusOutEvent(QFocusEvent* event) override;
    void mousePressEvent(QMouseEvent* event) override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void mouseReleaseEvent(QMouseEvent* event) override;
    void mouseDoubleClickEvent(QMouseEvent* event) override;
    void leaveEvent(QEvent* event) override;
    void wheelEvent(QWheelEvent* event) override;
    void keyPressEvent(QKeyEvent* event) override;
    void keyReleaseEvent(QKeyEvent* event) override;

private:
    /// A picture of a rectangle of tokens.
    struct Picture {
        QImage image;
        Index q0 = 0, q1 = 0, k0 = 0, k1 = 0;
        QRectF rect() const { return {double(k0), double(q0), double(k1 - k0), double(q1 - q0)}; }
        bool isNull() const { return image.isNull(); }
    };
    /// Exact values, kept so that another colour scale needs no new rendering.
    struct Exact {
        std::shared_ptr<const std::vector<float>> values;
        kernels::RenderSpec spec;
        Picture picture;
        ColourScale scale;
    };
    /// One row's probabilities with what the read-out says about them.
    struct Row {
        Index row = -1;
        std::vector<float> p;
    };
    struct Cell {
        Index query = -1, key = -1;
        bool operator==(const Cell&) const = default;
    };
    enum class Drag { None, Pan, Area, Minimap };

    // --- geometry (map_view.cpp) ---
    void layOut();
    double pixelsPerToken() const {
        return m_plot.width() / (m_document->view().k1 - m_document->view().k0);
    }
    QRectF toScreen(const QRectF& tokens) const;
    QPointF toTokens(const QPointF& screen) const;  ///< x = key, y = query
    std::optional<Cell> cellAt(const QPointF& screen) const;
    bool zoomedIn() const;

    // --- painting (map_view.cpp) ---
    void compose();
    void paintEmpty(QPainter& painter, const QString& title, const QString& help) const;

    // --- around and over the map (map_frame.cpp) ---
    void paintRulers(QPainter& painter) const;
    void paintRuler(QPainter& painter, bool rows) const;
    void paintCrossHair(QPainter& painter) const;
    /// Where the prompt ends and the generated tokens begin.
    void paintDecodeLine(QPainter& painter) const;
    void paintSide(QPainter& painter) const;
    void paintMinimap(QPainter& painter) const;
    /// The selected pair in three lines at the side, where the read-out has no free corner.
    void paintSelected(QPainter& painter, double y, double limit) const;
    bool tokenTexts(bool rows) const;  ///< the ruler shows texts, not numbers

    // --- what is said of one pair (map_readout.cpp) ---
    bool cornerCard() const;  ///< the corner above the diagonal has room for the read-out
    void paintReadout(QPainter& painter) const;
    QStringList readout(const Cell& cell) const;  ///< rich text, a line each

    // --- pictures from the quick lane (map_picture.cpp) ---
    void headPicturesChanged();  ///< another head or capture
    void remakeCoarse();
    void request();  ///< exact pixels and overlays of the view, soon
    void requestExact();
    void requestOverlays();
    void requestLost();
    void requestRow(Index row);
    const Row* row(Index row) const;
    kernels::RenderSpec visibleSpec() const;
    void dirty();  ///< the composed picture is old
    /// What could not be made, told over the map until it is made or no longer wanted.
    enum class Part { Pixels, Masks, Lost, Row };
    void lose(Part part, const QString& sentence);
    void mend(Part part);
    void placeNotice();
    void tellStatus();

    // --- input (map_input.cpp) ---
    void zoomAt(const QPointF& screen, double factor);
    void panBy(double rows, double columns);
    void moveSelection(Index rows, Index columns);
    void centreOn(const QPointF& minimap);
    void hover(const QPointF& screen);
    void makeStyleMenu();
    void refreshStyleButton();

    Document* m_document;
    Engine* m_engine;
    HeadRef m_head;
    QRectF m_plot, m_side, m_bar, m_minimap;
    double m_legendTop = 0;
    PyramidPicture m_coarse;
    QPixmap m_composed;
    bool m_composedOld = true;
    Exact m_exact;
    Picture m_whole;      ///< the latest exact picture of the whole head: finer than the pyramid
    QImage m_wholeSmall;  ///< for the minimap
    /// What a mask layer's picture is made of.
    struct Overlay {
        std::shared_ptr<const kernels::Policy> policy;  ///< null = not there yet or hidden
        QColor colour;
        bool operator==(const Overlay&) const = default;
    };
    std::vector<Picture> m_overlays;  ///< by mask; null = not there yet or hidden
    std::vector<Overlay> m_overlaysOf;
    kernels::RenderSpec m_overlaysSpec;
    Picture m_lost;
    bool m_lostValid = false;
    std::vector<Row> m_rows;  ///< latest last
    Index m_rowAsked = -1;
    QTimer m_requestSoon, m_overlaysSoon;
    QToolButton* m_styleButton;
    Banner* m_notice;
    std::map<Part, QString> m_failures;

    Drag m_drag = Drag::None;
    QPointF m_pressed, m_last;
    bool m_moved = false;
    bool m_bare = false;           ///< Space is held: the map without what lies over it
    bool m_keyboardFocus = false;  ///< the focus came by the keyboard: its ring is shown
    std::optional<Cell> m_hover;
    QPointF m_hoverAt;
    std::optional<MapRect> m_return;  ///< where a double click goes back to
    QElapsedTimer m_sincePaint;
    QString m_status;
};

}  // namespace sparsight::ui
