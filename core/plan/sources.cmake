# Sources and libraries of core/plan.
target_sources(sparsight_core PRIVATE
    plan/attention_plan.cpp
    plan/generate.cpp
    plan/plan_json.cpp
    plan/planned_attention.cpp
    plan/search.cpp
)
