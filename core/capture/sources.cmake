# Sources and libraries of core/capture.
target_sources(sparsight_core PRIVATE capture/layer_capture.cpp)
