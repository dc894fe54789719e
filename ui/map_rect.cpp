#include "ui/map_rect.h"

#include <algorithm>

namespace sparsight::ui {
namespace {

/// A side of the rectangle that starts at `from` with this span, pushed into the map.
void place(double& from, double& to, double n, double start, double span) {
    from = std::clamp(start, 0.0, std::max(0.0, n - span));
    to = from + span;
}

void zoomSide(double& from, double& to, double n, double factor, double anchor) {
    anchor = std::clamp(anchor, from, to);
    const double span = std::clamp((to - from) / factor, std::min(kLeastSpan, n), n),
                 share = (anchor - from) / (to - from);
    place(from, to, n, anchor - share * span, span);
}

void centreSide(double& from, double& to, double n, Index at) {
    if (at >= 0) place(from, to, n, double(at) + 0.5 - (to - from) / 2, to - from);
}

void revealSide(double& from, double& to, double n, Index at, double margin) {
    if (at < 0) return;
    const double span = to - from;
    if (double(at) < from + margin)
        place(from, to, n, double(at) - margin, span);
    else if (double(at) + 1 > to - margin)
        place(from, to, n, double(at) + 1 + margin - span, span);
}

}  // namespace

MapRect clamped(MapRect r, MapSize n) {
    const auto side = [](double& from, double& to, double most) {
        const double span = std::clamp(to - from, std::min(kLeastSpan, most), most);
        place(from, to, most, (from + to - span) / 2, span);
    };
    side(r.q0, r.q1, n.q);
    side(r.k0, r.k1, n.k);
    return r;
}

MapRect zoomed(MapRect r, MapSize n, double factor, double q, double k) {
    zoomSide(r.q0, r.q1, n.q, factor, q);
    zoomSide(r.k0, r.k1, n.k, factor, k);
    return r;
}

MapRect panned(MapRect r, MapSize n, double rows, double columns) {
    place(r.q0, r.q1, n.q, r.q0 + rows, r.q1 - r.q0);
    place(r.k0, r.k1, n.k, r.k0 + columns, r.k1 - r.k0);
    return r;
}

MapRect centredOn(MapRect r, MapSize n, Index query, Index key) {
    centreSide(r.q0, r.q1, n.q, query);
    centreSide(r.k0, r.k1, n.k, key);
    return r;
}

MapRect revealing(MapRect r, MapSize n, Index query, Index key, double margin) {
    revealSide(r.q0, r.q1, n.q, query, std::min(margin, (r.q1 - r.q0) / 4));
    revealSide(r.k0, r.k1, n.k, key, std::min(margin, (r.k1 - r.k0) / 4));
    return r;
}

}  // namespace sparsight::ui
