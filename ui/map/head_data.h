#pragma once

#include <memory>
#include <vector>

#include "sessions/analysis.h"
#include "ui/document.h"

namespace sparsight::ui {

/// Which captured head to read: everything a job needs, copied on the GUI thread. Compared before a
/// result is taken, so that one of an earlier selection is dropped.
struct HeadRef {
    std::shared_ptr<sessions::Session> session;
    std::shared_ptr<const sessions::CaptureInfo> capture;
    Index layer = -1, head = -1;

    bool valid() const { return session && capture && layer >= 0 && head >= 0; }
    /// The same head of the same session.
    bool same(const HeadRef& other) const {
        return session == other.session && layer == other.layer && head == other.head &&
               (!capture || !other.capture || capture->uuid == other.capture->uuid);
    }
};

/// The document's selected head, not valid when its layer is not captured.
HeadRef selectedHead(const Document& document);

/// Probabilities of one query row, [Nk]; exact. In a lane, not on the GUI thread.
/// @throws Error as Session::layer
std::vector<float> readRow(const HeadRef& head, Index row);
/// Probabilities with which every row reads one key, [Nq], 0 where it is not seen; exact.
/// @throws Error as Session::layer
std::vector<float> readColumn(const HeadRef& head, Index key, kernels::Backend& backend,
                              const Job& job);

/// Exact pixels of a rectangle. @throws Error as Session::layer, Cancelled
std::vector<float> readPixels(const HeadRef& head, const kernels::RenderSpec& spec,
                              kernels::Backend& backend, const Job& job);
/// Kept share per pixel of that rectangle, -1 where nothing is visible. @throws as readPixels
std::vector<float> readKept(const HeadRef& head, const kernels::Policy& policy,
                            const kernels::RenderSpec& spec, const Job& job);

}  // namespace sparsight::ui
