# Sources and libraries of core/masks.
find_package(fmt REQUIRED)
target_link_libraries(sparsight_core PUBLIC fmt::fmt)
target_sources(sparsight_core PRIVATE
    masks/antidiagonal.cpp
    masks/method_spec.cpp
    masks/oracle_blocks.cpp
    masks/raster.cpp
    masks/registry.cpp
    masks/retrieval_heads.cpp
    masks/vertical_slash.cpp
)
