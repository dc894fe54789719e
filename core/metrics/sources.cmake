# Sources and libraries of core/metrics.
target_sources(sparsight_core PRIVATE
    metrics/head_metrics.cpp
    metrics/mask_estimate.cpp
    metrics/mask_metrics.cpp
    metrics/recall_curve.cpp
)
