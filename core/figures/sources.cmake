# Sources and libraries of core/figures.
target_sources(sparsight_core PRIVATE figures/map_figure.cpp)
