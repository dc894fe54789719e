# Sources and libraries of core/capture.
target_sources(sparsight_core PRIVATE
    capture/capture.cpp
    capture/cost.cpp
    capture/estimate.cpp
    capture/layer_capture.cpp
)
