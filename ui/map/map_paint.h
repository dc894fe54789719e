#pragma once

#include <QImage>
#include <QString>
#include <array>
#include <span>
#include <vector>

#include "ui/document.h"

class QPainter;
class QRectF;

namespace sparsight::ui {

QColor withAlpha(QColor colour, double alpha);

/// 256 steps of a colour map.
const std::array<QRgb, 256>& colourTable(ColourMap map);

/// The fixed scale of probabilities (max and mean pooling), so that two heads compare by eye:
/// 1e-5 to 1 (log) or 0 to 1 (linear). Sums have no fixed scale: use fitScale().
ColourScale probabilityScale(const MapStyle& style);

/// Values as pixels; what is below 0 (no data) stays transparent. @param values [height][width]
QImage paintValues(std::span<const float> values, Index width, Index height,
                   const ColourScale& scale);
/// A mask's kept share in its colour. A pixel that keeps a little is still seen: thin slashes must
/// not vanish when zoomed out.
QImage paintShare(std::span<const float> kept, Index width, Index height, const QColor& colour);
/// Lost probability: opaque where much is lost.
QImage paintLost(std::span<const float> lost, Index width, Index height, const ColourScale& scale,
                 const QColor& colour);

/// One head as the pyramid knows it.
struct PyramidPicture {
    QImage image;     ///< one pixel per block; blocks above the diagonal are transparent
    Index block = 0;  ///< tokens per pixel
    bool isNull() const { return block == 0; }
};
/// @param mostBlocks   the finest level with at most so many blocks a side
/// @param pixelTokens  tokens per screen pixel: what a block's sum is brought to, so that the sums
///                     of blocks and of exact pixels have one scale; 0 = the block's own sum
/// @param scale        null = fitted to the blocks
PyramidPicture paintPyramid(const LayerStats& stats, Index head, const MapStyle& style,
                            Index mostBlocks, double pixelTokens, const ColourScale* scale);

/// "0.1", "1e-4": a number at a tick of the colour bar.
QString tickText(double value);
/// Ticks of a scale, bottom to top: powers of ten, or five linear steps.
std::vector<double> scaleTicks(const ColourScale& scale);
/// The bar with ticks and numbers at its right side. @param bar the coloured rectangle alone
void drawColourBar(QPainter& painter, const QRectF& bar, const ColourScale& scale);

/// A step of 1, 2 or 5 times a power of ten, at least `least`.
double niceStep(double least);
/// A token's text on one line, with visible blanks and line ends: "·the", "⏎".
QString visibleToken(const QString& text);

}  // namespace sparsight::ui
