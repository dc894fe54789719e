#pragma once

#include <string>
#include <vector>

#include "core/export/figure.h"
#include "core/masks/method.h"

namespace sparsight {

/// What to draw of one head.
struct MapRequest {
    kernels::RenderSpec spec;  ///< rectangle, pixels, statistic
    bool log = true;
    ColourMap colours = ColourMap::Magma;
    std::vector<MethodSpec> overlays;
    std::string modelName, promptName, captureUuid;  ///< for the caption and the metadata
    std::string headName;                            ///< "cross.0H3"; "" = "L<layer>H<head>"
};

/// The figure of one head: exact pixels, overlays, colour bar, caption that states every parameter.
/// The CLI's `map` and the GUI's export dialog both call it.
MapFigure makeMapFigure(kernels::Backend& backend, const HeadInput& head, const MapRequest& request,
                        const Job& job = {});

}  // namespace sparsight
