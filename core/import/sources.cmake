# Sources and libraries of core/import.
find_package(PkgConfig REQUIRED)
pkg_check_modules(LIBZIP REQUIRED IMPORTED_TARGET libzip)
target_link_libraries(sparsight_core PRIVATE PkgConfig::LIBZIP)
target_sources(sparsight_core PRIVATE
    import/imported_model.cpp
    import/name_pattern.cpp
    import/npy.cpp
    import/npy_file.cpp
    import/npz_file.cpp
    import/read_layer.cpp
    import/safetensors_file.cpp
    import/tensor_file.cpp
    import/tensor_map.cpp
)
