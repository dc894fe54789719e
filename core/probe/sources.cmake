# Sources and libraries of core/probe.
target_sources(sparsight_core PRIVATE
    probe/haystack.cpp
    probe/needle.cpp
    probe/prose.cpp
)
