# Sources of ui/shell, and of the window's roots: the engine, the document and the analysis.
target_sources(sparsight_ui PRIVATE
    analysis.cpp
    document.cpp
    engine.cpp
    map_rect.cpp
    shell/banner.cpp
    shell/capture_dialog.cpp
    shell/capture_job.cpp
    shell/command.cpp
    shell/command_palette.cpp
    shell/destinations.cpp
    shell/dock.cpp
    shell/elided_label.cpp
    shell/import_dialog.cpp
    shell/job_footer.cpp
    shell/jobs_panel.cpp
    shell/key_sheet.cpp
    shell/mask_history.cpp
    shell/recent.cpp
    shell/start_page.cpp
    shell/summary_page.cpp
    shell/theme.cpp
    shell/tour.cpp
    shell/tour_steps.cpp
    shell/ui_log.cpp
    ${PROJECT_SOURCE_DIR}/resources/sparsight.qrc
)
# The window itself needs the map's widgets.
if(EXISTS ${CMAKE_CURRENT_LIST_DIR}/../map/map_view.h)
    target_sources(sparsight_ui PRIVATE
        shell/main_window.cpp
        shell/main_window_commands.cpp
    shell/main_window_device.cpp
        shell/main_window_layout.cpp
        shell/main_window_map_commands.cpp
        shell/main_window_session.cpp
        shell/script.cpp
    )
endif()
