# Sources of ui/panels.
target_sources(sparsight_ui PRIVATE
    panels/chart_style.cpp
    panels/curve_chart.cpp
    panels/figure_dialog.cpp
    panels/head_panel.cpp
    panels/mask_panel.cpp
    panels/metrics_table.cpp
    panels/next_tokens.cpp
    panels/param_editor.cpp
    panels/panel_parts.cpp
    panels/plan_panel.cpp
    panels/row_recall_chart.cpp
    panels/run_panel.cpp
    panels/top_keys_list.cpp
)
