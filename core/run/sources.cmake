# Sources and libraries of core/run.
target_sources(sparsight_core PRIVATE run/kernel_run.cpp)
