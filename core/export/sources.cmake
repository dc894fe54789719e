# Sources and libraries of core/export.
find_package(PkgConfig REQUIRED)
pkg_check_modules(CAIRO REQUIRED IMPORTED_TARGET cairo cairo-pdf)
target_link_libraries(sparsight_core PRIVATE PkgConfig::CAIRO)
target_sources(sparsight_core PRIVATE
    export/canvas.cpp
    export/colour_maps.cpp
    export/figure.cpp
    export/npy.cpp
    export/plan_export.cpp
    export/write_file.cpp
)
