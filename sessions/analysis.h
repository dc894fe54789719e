#pragma once

#include "core/metrics/head_metrics.h"
#include "core/metrics/mask_metrics.h"
#include "core/plan/search.h"
#include "core/run/kernel_run.h"
#include "sessions/session.h"

namespace sparsight::sessions {

/// A layer of a capture with its statistics, read once.
struct CapturedLayer {
    std::shared_ptr<const LayerCapture> layer;
    std::shared_ptr<const LayerStats> stats;
};
CapturedLayer readLayer(const Session& session, const CaptureInfo& capture, Index layer);

/// Facts of every captured head: the stored ones, else computed (and stored when the session is
/// open for writing).
std::vector<HeadFacts> sessionHeadFacts(Session& session, const CaptureInfo& capture,
                                        kernels::Backend& backend, const Job& job = {});

/// Which heads an analysis covers.
struct HeadChoice {
    std::optional<Index> layer, head;
};
/// The captured (layer, head) pairs of a choice. @throws Error(NotFound) with the valid range
std::vector<std::pair<Index, Index>> chosenHeads(const CaptureInfo& capture,
                                                 const HeadChoice& choice);

/// Exact metrics of one method on the chosen heads; stored when the session is writable.
std::vector<MaskMetrics> sessionMaskMetrics(Session& session, const CaptureInfo& capture,
                                            const MethodSpec& method, const HeadChoice& choice,
                                            kernels::Backend& backend, const Job& job = {});

/// HeadInput of one head with everything that the session knows (the retrieval score included).
HeadInput sessionHeadInput(const CapturedLayer& layer, const std::vector<HeadFacts>& facts,
                           Index head, kernels::Backend& backend);

/// What runKernels() needs for a choice of heads.
std::vector<RunLayer> sessionRunLayers(const Session& session, const CaptureInfo& capture,
                                       const std::vector<HeadFacts>& facts,
                                       const HeadChoice& choice);

/// Candidate points of every captured head for the plan search.
std::vector<HeadOptions> sessionHeadOptions(Session& session, const CaptureInfo& capture,
                                            const std::vector<MethodSpec>& methods, int points,
                                            kernels::Backend& backend, const Job& job = {});

/// Retrieval scores [L * Hq] for uniformPlan(); empty when no needle is known or
/// layers are missing.
std::vector<double> retrievalScores(const CaptureInfo& capture,
                                    const std::vector<HeadFacts>& facts);

}  // namespace sparsight::sessions
