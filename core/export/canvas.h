#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/export/figure.h"

namespace sparsight {

/// Opaque pixels, 0xAARRGGBB, [height][width].
struct Raster {
    Index width = 0, height = 0;
    std::vector<std::uint32_t> pixels;
};

struct TextStyle {
    Rgb colour;
    double size = 7;  ///< points
    bool bold = false;
    double anchor = 0;  ///< 0: x is the left end, 0.5: the middle, 1: the right end
    bool up = false;    ///< reads from bottom to top; x, y is the same point of the baseline
};

struct Point {
    double x = 0, y = 0;
};

/// What a figure is drawn on. Lengths in points (1/72 inch) from the top left corner.
class Canvas {
public:
    virtual ~Canvas() = default;
    virtual void fill(double x, double y, double w, double h, Rgb colour) = 0;
    virtual void line(const std::vector<Point>& points, double width, Rgb colour) = 0;
    virtual void dot(double x, double y, double radius, Rgb colour) = 0;
    /// @param y  of the baseline
    virtual void text(double x, double y, std::string_view text, const TextStyle& style) = 0;
    /// Pixels with sharp edges, stretched to the rectangle.
    virtual void image(double x, double y, double w, double h, const Raster& raster) = 0;

    void frame(double x, double y, double w, double h, double width, Rgb colour) {
        line({{x, y}, {x + w, y}, {x + w, y + h}, {x, y + h}, {x, y}}, width, colour);
    }
};

/// Width of a text in points: unhinted metrics, so that a layout is the same at every resolution.
double textWidth(std::string_view text, double size, bool bold = false);

/// What a file says about itself besides its picture.
struct FileInfo {
    std::string title, caption, metadata;
};

/// Draws on a canvas of the given size in points and returns the file's bytes; the same drawing
/// gives the same bytes. @throws Error(Resources) when cairo fails
using Drawing = std::function<void(Canvas&)>;
std::string renderPng(double width, double height, double dpi, const FileInfo& info,
                      const Drawing& draw);
std::string renderSvg(double width, double height, const FileInfo& info, const Drawing& draw);
std::string renderPdf(double width, double height, const FileInfo& info, const Drawing& draw);
/// @return [heightPx][widthPx], 0xAARRGGBB
std::vector<std::uint32_t> renderPixels(double width, double height, Index widthPx, Index heightPx,
                                        const Drawing& draw);

}  // namespace sparsight
