#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace sparsight {

enum class ColourMap { Magma, Viridis, Cividis, Grey, Difference };
struct Rgb {
    std::uint8_t r = 0, g = 0, b = 0;
};
/// @param t  in [0, 1]
Rgb colour(ColourMap map, double t);
ColourMap colourMapByName(std::string_view name);  ///< @throws Error(Usage)
/// "#rrggbb". @throws Error(Usage)
Rgb parseColour(std::string_view hex);

/// How values become colours.
struct ColourScale {
    ColourMap map = ColourMap::Magma;
    bool log = true;
    double lo = 1e-5, hi = 1;  ///< values at the ends
    /// Position of a value on the bar, clamped to [0, 1]; NaN for a value below 0 (no data).
    double position(double value) const;
};
/// A scale that fits the data: hi = largest, lo = hi * 1e-5 (log) or 0 (linear).
ColourScale fitScale(ColourMap map, bool log, std::span<const float> values);

/// A map figure: raster inside vector axes, colour bar, overlays, caption. The same drawing makes
/// the PNG, the SVG and the PDF; the same input gives the same bytes.
struct MapFigure {
    std::vector<float> values;  ///< [height][width], < 0 = no data
    Index width = 0, height = 0;
    Index q0 = 0, q1 = 0, k0 = 0, k1 = 0;  ///< tokens on the axes
    ColourScale scale;
    std::string barLabel;  ///< "attention probability, max per pixel"
    struct Overlay {
        std::string label;
        Rgb colour;
        double opacity = 0.5;
        std::vector<float> kept;  ///< [height][width] kept share, < 0 = no data
    };
    std::vector<Overlay> overlays;
    std::string title, caption;
    /// Every parameter that made the figure, as JSON: embedded as metadata.
    std::string metadata;
};

/// A line or bar chart with axes and legend.
struct ChartFigure {
    struct Series {
        std::string label;
        Rgb colour;
        std::vector<double> x, y;
    };
    std::vector<Series> series;
    std::string title, xLabel, yLabel, caption, metadata;
    bool percentX = false;
};

struct FigureSize {
    double widthMm = 178, heightMm = 140;
    double dpi = 300;  ///< PNG
    bool dark = false;
};

/// By the file's ending: png, svg, pdf. Writes a temporary file and renames it.
/// @throws Error(Usage) another ending, Error(Io)
void writeFigure(const MapFigure& figure, const std::filesystem::path& file, const FigureSize& size = {});
void writeFigure(const ChartFigure& figure, const std::filesystem::path& file, const FigureSize& size = {});
/// The same figure as 0xAARRGGBB pixels for a preview. @return [heightPx][widthPx]
std::vector<std::uint32_t> previewFigure(const MapFigure& figure, const FigureSize& size, Index widthPx,
                                         Index heightPx);

/// numpy .npy, version 1, C order. @throws Error(Io)
void writeNpy(const std::filesystem::path& file, std::span<const float> data, std::vector<Index> shape);
void writeNpy(const std::filesystem::path& file, std::span<const std::uint8_t> data,
              std::vector<Index> shape);

}  // namespace sparsight
