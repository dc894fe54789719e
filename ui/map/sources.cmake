# Sources of ui/map.
target_sources(sparsight_ui PRIVATE
    map/decode_bar.cpp
    map/head_data.cpp
    map/head_grid.cpp
    map/patch_grid.cpp
    map/map_frame.cpp
    map/map_input.cpp
    map/map_paint.cpp
    map/map_picture.cpp
    map/map_readout.cpp
    map/map_view.cpp
    map/token_text.cpp
    map/token_text_layout.cpp
    map/token_view.cpp
)
