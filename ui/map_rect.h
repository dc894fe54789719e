#pragma once

#include "kernels/base/view.h"

namespace sparsight::ui {

/// Rows and keys of a map; a number alone is a square.
struct MapSize {
    double q = 0, k = 0;
    MapSize(double n) : q(n), k(n) {}  // NOLINT(google-explicit-constructor)
    MapSize(double rows, double keys) : q(rows), k(keys) {}
};

/// The part of the map in view, in tokens (fractions allowed while panning). The functions below
/// keep it within a map of size `n` and never change its span unless they say so.
struct MapRect {
    double q0 = 0, q1 = 0, k0 = 0, k1 = 0;
    bool operator==(const MapRect&) const = default;
};

inline constexpr double kLeastSpan = 8;  ///< tokens in view at the closest

/// As much of the rectangle as lies in the map, about its own middle, at least kLeastSpan wide.
MapRect clamped(MapRect rect, MapSize n);
/// Closer by `factor`, with the pair (q, k) where it is on the screen; outside of the rectangle its
/// nearest edge is kept instead.
MapRect zoomed(MapRect rect, MapSize n, double factor, double q, double k);
/// Moved by so many tokens.
MapRect panned(MapRect rect, MapSize n, double rows, double columns);
/// Moved so that the pair's cell is in the middle; -1 leaves that side alone.
MapRect centredOn(MapRect rect, MapSize n, Index query, Index key);
/// Moved as little as brings the pair `margin` tokens inside; -1 leaves that side alone.
MapRect revealing(MapRect rect, MapSize n, Index query, Index key, double margin);

}  // namespace sparsight::ui
