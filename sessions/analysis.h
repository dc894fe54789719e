#pragma once

#include "core/capture/row_range.h"
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
/// The rows of a layer as a layer of their own (core/capture/row_range.h).
/// @throws Error(Usage) for decode rows of a capture without generated tokens
CapturedLayer readLayer(const Session& session, const CaptureInfo& capture, Index layer,
                        RowRange rows, kernels::Backend& backend, const Job& job = {});
/// Token ids of the keys that such rows see.
std::span<const std::int32_t> tokensOf(const CaptureInfo& capture, RowRange rows);

/// Facts of every captured head: the stored ones, else computed (and stored when the session is
/// open for writing). Those of a part of the rows are computed anew; decode rows have no retrieval
/// score.
std::vector<HeadFacts> sessionHeadFacts(Session& session, const CaptureInfo& capture,
                                        kernels::Backend& backend, const Job& job = {},
                                        RowRange rows = RowRange::All);

/// Which heads an analysis covers.
struct HeadChoice {
    std::optional<Index> layer, head;
    RowRange rows = RowRange::All;
};
/// The captured (layer, head) pairs of a choice. @throws Error(NotFound) with the valid range
std::vector<std::pair<Index, Index>> chosenHeads(const CaptureInfo& capture,
                                                 const HeadChoice& choice);

/// The stored top keys of a head's rows; null when the capture keeps none.
std::optional<TopKeys> sessionTopKeys(const Session& session, const CaptureInfo& capture,
                                      Index layer, Index head, RowRange rows = RowRange::All);

/// The keys with the largest probabilities of one row, as many as it sees but at most `count`.
struct TopRow {
    TopKeys top;          ///< of one row; k = how many there are
    bool stored = false;  ///< read from the session, else computed from Q and K
};
/// @throws Error(NotFound) for a row that does not exist
TopRow sessionTopRow(const Session& session, const CaptureInfo& capture, Index layer, Index head,
                     Index row, Index count);

/// Exact metrics of one method on the chosen heads; stored when the session is writable and all
/// rows are asked for.
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
