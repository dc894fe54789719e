# Sources and libraries of core/capture.
target_sources(sparsight_core PRIVATE
    capture/capture.cpp
    capture/cost.cpp
    capture/decode.cpp
    capture/estimate.cpp
    capture/layer_capture.cpp
    capture/layer_writer.cpp
    capture/measure.cpp
    capture/row_range.cpp
    capture/token_texts.cpp
)
